//! The engine as initiator: answers nobody should give.

use super::*;

fn calling() -> (Rig, Vec<u8>) {
    let mut rig = rig();
    rig.command(Command::Up { realm: "puppet".into(), child: Some("net".into()) });
    let (_, request) = rig.sent.pop_front().unwrap();
    (rig, request)
}

fn init_answer(request: &[u8], payloads: Vec<Payload>) -> Vec<u8> {
    let theirs = Message::parse(request).unwrap().header;
    let header = Header::new(theirs.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::RESPONSE, 0);
    Message::new(header, payloads).emit()
}

/// The engine still takes the honest answer, and comes up.
fn finish(mut rig: Rig, request: &[u8]) {
    let (mut puppet, response) = Puppet::responder(&rig.ops.clone(), 2, request);
    rig.sent.clear();
    rig.datagram(&response);
    let request = puppet.next_request(&mut rig).expect("an IKE_AUTH request");
    let answer = puppet.auth_answer(&request);
    puppet.respond(&mut rig, &request, answer);
    assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
}

#[test]
fn unauthenticated_errors_do_not_end_an_initiation() {
    for kind in [
        NotifyType::INVALID_SYNTAX,
        NotifyType::AUTHENTICATION_FAILED,
        NotifyType::INVALID_MAJOR_VERSION,
        NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
        NotifyType::INVALID_IKE_SPI,
        NotifyType::TEMPORARY_FAILURE,
        NotifyType(8192),
    ] {
        let (mut rig, request) = calling();
        let forged = init_answer(&request, vec![Notify::new(kind).into()]);
        for _ in 0..100 {
            rig.datagram(&forged);
        }
        finish(rig, &request);
    }
}

#[test]
fn forged_answers_to_init_do_not_end_an_initiation() {
    let (rig, request) = calling();
    let (_, good) = Puppet::responder(&rig.ops.clone(), 3, &request);
    let good = Message::parse(&good).unwrap();
    type Spoil = fn(&mut Message);
    let spoils: [(&str, Spoil); 12] = [
        ("no SA", |m| m.payloads.retain(|p| p.kind() != PayloadType::SA)),
        ("no KE", |m| m.payloads.retain(|p| p.kind() != PayloadType::KE)),
        ("no nonce", |m| m.payloads.retain(|p| p.kind() != PayloadType::NONCE)),
        ("nothing", |m| m.payloads.clear()),
        ("SPIr zero", |m| m.header.spi_r = Spi::ZERO),
        ("another SPIi", |m| m.header.spi_i = Spi(12345)),
        ("message ID", |m| m.header.message_id = 1),
        ("both flags", |m| m.header.flags = Flags::RESPONSE | Flags::INITIATOR),
        ("short KE", |m| m.payloads[1] = Ke::new(KeId(Group::X25519.0), vec![1; 31]).into()),
        ("other group", |m| m.payloads[1] = Ke::new(KeId(Group::ECP256.0), vec![1; 64]).into()),
        ("other suite", |m| {
            let weak = policy::IkeProposal::parse("aes128-sha1-modp2048").unwrap();
            m.payloads[0] = select::offer_ike(&[weak], None).into();
        }),
        ("critical", |m| m.payloads.push(unknown(200, Payload::CRITICAL, 1))),
    ];
    for (what, spoil) in spoils {
        let (mut rig, request) = calling();
        let mut message = good.clone();
        message.header.spi_i = Message::parse(&request).unwrap().header.spi_i;
        spoil(&mut message);
        for _ in 0..3 {
            rig.datagram(&message.emit());
        }
        assert_eq!(rig.work.derived, 0, "{what}");
        finish(rig, &request);
    }
}

#[test]
fn cookies_and_groups_without_end_come_to_an_end() {
    let (mut rig, mut request) = calling();
    for n in 0..50u8 {
        rig.datagram(&init_answer(&request, vec![Notify::with_data(NotifyType::COOKIE, vec![n; 8]).into()]));
        match rig.sent.pop_front() {
            Some((_, next)) => request = next,
            None => break,
        }
        assert!(n < 20, "asked for cookies for ever");
    }
    let (mut rig, mut request) = calling();
    for n in 0..50 {
        let group = if n % 2 == 0 { Group::ECP256 } else { Group::X25519 };
        rig.datagram(&init_answer(&request, vec![select::invalid_ke(group).into()]));
        match rig.sent.pop_front() {
            Some((_, next)) => request = next,
            None => break,
        }
        assert!(n < 20 && rig.work.generated < 20, "asked for groups for ever");
    }
}

#[test]
fn odd_cookies_and_groups_not_offered_are_ignored() {
    for payload in [
        Notify::with_data(NotifyType::COOKIE, vec![]),
        Notify::with_data(NotifyType::COOKIE, vec![1; 65]),
        Notify::with_data(NotifyType::COOKIE, vec![1; 60_000]),
        select::invalid_ke(Group::MODP2048),
        select::invalid_ke(Group(1)),
        select::invalid_ke(Group::NONE),
        select::invalid_ke(Group::X25519),
        Notify::new(NotifyType::INVALID_KE_PAYLOAD),
    ] {
        let (mut rig, request) = calling();
        rig.datagram(&init_answer(&request, vec![payload.into()]));
        assert!(rig.sent.is_empty() && rig.work.generated == 1);
        finish(rig, &request);
    }
}

/// The engine has sent IKE_AUTH to a puppet that has the keys.
fn called() -> (Rig, Puppet, tussock_ike::protect::Opened) {
    let (mut rig, request) = calling();
    let (mut puppet, response) = Puppet::responder(&rig.ops.clone(), 2, &request);
    rig.datagram(&response);
    let request = puppet.next_request(&mut rig).unwrap();
    (rig, puppet, request)
}

#[test]
fn ike_auth_answer_without_a_proof_gives_nothing() {
    for missing in [PayloadType::IDR, PayloadType::AUTH] {
        let (mut rig, mut puppet, request) = called();
        let answer = without(puppet.auth_answer(&request), missing);
        puppet.respond(&mut rig, &request, answer);
        assert_eq!(rig.children.len(), 0, "{missing}");
        assert!(rig.engine.status().sas.iter().all(|sa| sa.established.is_none()), "{missing}");
    }
}

#[test]
fn wrong_proof_or_identity_of_the_responder_is_told_and_gives_nothing() {
    let wrong_proof = |puppet: &Puppet, request: &_| {
        let mut answer = puppet.auth_answer(request);
        answer[1] = wire::ike::Auth::new(wire::numbers::AuthMethod::SHARED_KEY_MIC, vec![0; 32]).into();
        answer
    };
    let wrong_id = |puppet: &Puppet, request: &_| {
        let mut answer = puppet.auth_answer(request);
        let (kind, data) = Identity::parse("mallory.lab.test").unwrap().to_wire();
        answer[0] = Body::IdR(Id::new(kind, data)).into();
        answer
    };
    let long_id = |puppet: &Puppet, request: &_| {
        let mut answer = puppet.auth_answer(request);
        answer[0] = Body::IdR(Id::new(IdType::FQDN, vec![b'a'; 60_000])).into();
        answer
    };
    type Make<'a> = &'a dyn Fn(&Puppet, &tussock_ike::protect::Opened) -> Vec<Payload>;
    let makes: [Make<'_>; 3] = [&wrong_proof, &wrong_id, &long_id];
    for make in makes {
        let (mut rig, mut puppet, request) = called();
        let answer = make(&puppet, &request);
        puppet.respond(&mut rig, &request, answer);
        assert_eq!(rig.children.len(), 0);
        assert!(rig.engine.status().sas.iter().all(|sa| sa.established.is_none()));
        // RFC 7296 section 2.21.2: the responder believes the SA is up, and is told.
        let told = puppet.next_request(&mut rig).expect("a word to the responder");
        assert_eq!(told.header.exchange, INFORMATIONAL);
        assert!(told.payloads.notify(NotifyType::AUTHENTICATION_FAILED).is_some());
        assert!(rig.log_octets() < 8000);
    }
}

#[test]
fn child_that_was_not_offered_is_not_installed_and_deleted() {
    type Spoil = fn(&mut Vec<Payload>);
    let spoils: [(&str, Spoil); 5] = [
        ("wider selectors", |a| a[3] = Body::TsI(TsPayload::new(["0.0.0.0/0".parse().unwrap()])).into()),
        ("other selectors", |a| a[4] = Body::TsR(TsPayload::new(["10.99.0.0/16".parse().unwrap()])).into()),
        ("no selectors", |a| a[3] = Body::TsI(TsPayload::new([])).into()),
        ("other suite", |a| {
            let weak = policy::EspProposal::parse("null-sha1").unwrap();
            a[2] = select::offer_esp(&[weak], 0x7000_0002, false).into();
        }),
        ("transport mode", |a| a.push(Notify::new(NotifyType::USE_TRANSPORT_MODE).into())),
    ];
    for (what, spoil) in spoils {
        let (mut rig, mut puppet, request) = called();
        let mut answer = puppet.auth_answer(&request);
        spoil(&mut answer);
        puppet.respond(&mut rig, &request, answer);
        assert_eq!(rig.children.len(), 0, "{what}");
        let ours = request.payloads.sa().unwrap().proposals[0].child_spi().unwrap();
        let told = puppet.next_request(&mut rig).expect("a Delete");
        assert_eq!(
            told.payloads.deletes().flat_map(Delete::child_spis).collect::<Vec<_>>(),
            [ours],
            "{what}"
        );
    }
}
