//! Between IKE_SA_INIT and IKE_AUTH: a peer that has the keys and proved nothing.

use super::*;

#[test]
fn nothing_but_ike_auth_is_done_before_authentication() {
    let mut nonce: Vec<Payload> = vec![Nonce(vec![5; 32]).into()];
    let (_, sample) = half_open();
    let mut child = sample.child_payloads(0x7000_0005, false);
    child.append(&mut nonce);
    let attempts: Vec<(ExchangeType, Vec<Payload>)> = vec![
        (CREATE_CHILD_SA, child),
        (CREATE_CHILD_SA, sample.rekey_payloads(Spi(77), &[5; 32])),
        (CREATE_CHILD_SA, vec![]),
        (INFORMATIONAL, vec![]),
        (INFORMATIONAL, vec![Delete::ike().into()]),
        (INFORMATIONAL, vec![Notify::new(NotifyType::AUTHENTICATION_FAILED).into()]),
        (INFORMATIONAL, vec![Notify::new(NotifyType::INITIAL_CONTACT).into()]),
        (ExchangeType::IKE_SA_INIT, sample.init_payloads()),
        (ExchangeType::IKE_SESSION_RESUME, vec![]),
        (ExchangeType::IKE_INTERMEDIATE, vec![]),
        (ExchangeType(240), vec![]),
    ];
    for (exchange, payloads) in attempts {
        let (mut rig, mut puppet) = half_open();
        let work = rig.work;
        let message = puppet.request(exchange, &payloads);
        rig.datagram(&message);
        assert!(rig.sent.is_empty(), "{exchange}: answered before IKE_AUTH");
        assert_eq!((rig.work, rig.children.len()), (work, 0), "{exchange}");
        // And it stood in nobody's way.
        puppet.next_id = 1;
        assert!(puppet.exchange(&mut rig, IKE_AUTH, puppet.auth_payloads()).auth().is_some(), "{exchange}");
    }
}

#[test]
fn broken_informational_before_authentication_is_dropped() {
    let (mut rig, mut puppet) = half_open();
    let message = puppet.request(INFORMATIONAL, &[unknown(200, Payload::CRITICAL, 4)]);
    rig.datagram(&message);
    assert!(rig.sent.is_empty(), "no error is encrypted for somebody who proved nothing");
    puppet.next_id = 1;
    assert!(puppet.exchange(&mut rig, IKE_AUTH, puppet.auth_payloads()).auth().is_some());
}

#[test]
fn ike_auth_without_one_of_its_payloads_gives_no_child() {
    for missing in [PayloadType::IDI, PayloadType::AUTH, PayloadType::SA, PayloadType::TSI, PayloadType::TSR]
    {
        let (mut rig, mut puppet) = half_open();
        let payloads = without(puppet.auth_payloads(), missing);
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert_eq!(rig.children.len(), 0, "{missing}");
        let proved = missing != PayloadType::IDI && missing != PayloadType::AUTH;
        assert_eq!(answer.auth().is_some(), proved, "{missing}: {answer:?}");
        assert_eq!(rig.ike_sas(), usize::from(proved), "{missing}");
        // RFC 6023: asking for no child at all is no mistake.
        assert_eq!(errors(&answer).is_empty(), missing == PayloadType::SA, "{missing}: {answer:?}");
    }
    let (mut rig, mut puppet) = half_open();
    let answer = puppet.exchange(&mut rig, IKE_AUTH, vec![]);
    assert_eq!((errors(&answer).len(), rig.ike_sas()), (1, 0));
}

#[test]
fn failed_authentication_is_answered_alike_for_ever_and_judged_once() {
    let (mut rig, mut puppet) = half_open();
    let mut payloads = puppet.auth_payloads();
    payloads[1] = wire::ike::Auth::new(wire::numbers::AuthMethod::SHARED_KEY_MIC, vec![0; 32]).into();
    let message = puppet.request(IKE_AUTH, &payloads);
    rig.datagram(&message);
    let (_, first) = rig.sent.pop_front().unwrap();
    let answer = puppet.open(&first).unwrap().payloads;
    assert_eq!(errors(&answer), [NotifyType::AUTHENTICATION_FAILED]);
    assert_eq!(answer.len(), 1, "nothing else is told to somebody unproved");
    for _ in 0..100 {
        rig.datagram(&message);
        assert!(rig.sent.pop_front().is_none_or(|(_, m)| m == first));
    }
    assert_eq!((rig.work.asked, rig.ike_sas(), rig.children.len()), (1, 0, 0));
    // The keys are of no more use.
    let again = puppet.request(IKE_AUTH, &puppet.auth_payloads());
    rig.datagram(&again);
    assert!(rig.sent.is_empty());
    rig.wait(Duration::from_secs(120));
    assert_eq!(rig.engine.status().sas.len(), 0);
}

#[test]
fn identities_of_every_type_and_length_are_judged_or_refused() {
    let lengths = [0usize, 1, 3, 4, 5, 15, 16, 17, 255, 519, 520, 521, 1000, 60_000];
    for kind in [0u8, 1, 2, 3, 4, 5, 9, 10, 11, 12, 200, 255] {
        for len in lengths {
            let (mut rig, mut puppet) = half_open();
            let mut payloads = puppet.auth_payloads();
            payloads[0] = Body::IdI(Id::new(IdType(kind), vec![b'a'; len])).into();
            let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
            let told = errors(&answer);
            let refused = told == [NotifyType::AUTHENTICATION_FAILED] || told == [NotifyType::INVALID_SYNTAX];
            assert!(refused, "type {kind}, {len} octets: {told:?}");
            assert_eq!((rig.ike_sas(), rig.children.len()), (0, 0));
            assert!(rig.log_octets() < 8000, "type {kind}, {len} octets: {} of log", rig.log_octets());
        }
    }
}

#[test]
fn identities_with_control_octets_do_not_reach_the_log() {
    for name in [
        &b"a\nb.lab.test"[..],
        b"a\0b.lab.test",
        b"\x1b[2Jx.test",
        b"$(reboot).test\r",
        b"puppet.lab.test\0.evil",
    ] {
        let (mut rig, mut puppet) = half_open();
        let mut payloads = puppet.auth_payloads();
        payloads[0] = Body::IdI(Id::new(IdType::FQDN, name.to_vec())).into();
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert_eq!(errors(&answer), [NotifyType::AUTHENTICATION_FAILED]);
        for event in &rig.events {
            if let Event::IkeClosed { why, .. } = event {
                assert!(!why.to_string().contains(|c: char| c.is_control()), "{why}");
            }
        }
    }
}

#[test]
fn ike_auth_with_another_message_id_is_dropped() {
    for id in [0u32, 2, 3, 100, u32::MAX] {
        let (mut rig, mut puppet) = half_open();
        let payloads = puppet.auth_payloads();
        let message = puppet.seal(&puppet.header(IKE_AUTH, id), &payloads);
        let work = rig.work;
        rig.datagram(&message);
        assert!(rig.sent.is_empty() && rig.work == work, "{id}");
        assert!(puppet.exchange(&mut rig, IKE_AUTH, payloads).auth().is_some());
    }
}

#[test]
fn second_ike_auth_while_the_first_is_judged_is_dropped() {
    let (mut rig, mut puppet) = half_open();
    rig.hold = true;
    let message = puppet.request(IKE_AUTH, &puppet.auth_payloads());
    for _ in 0..10 {
        rig.datagram(&message);
    }
    let payloads = puppet.auth_payloads();
    let next = puppet.request(IKE_AUTH, &payloads);
    rig.datagram(&next);
    rig.let_go();
    assert_eq!((rig.sent.len(), rig.ike_sas(), rig.children.len()), (1, 1, 1));
    assert_eq!(rig.work.asked, 2, "one judgement, one proof");
    rig.sent.clear();
    rig.datagram(&message);
    assert_eq!((rig.sent.len(), rig.work.asked, rig.children.len()), (1, 2, 1));
}

#[test]
fn ike_auth_after_authentication_is_dropped() {
    let (mut rig, mut puppet) = up();
    let payloads = puppet.auth_payloads();
    let message = puppet.request(IKE_AUTH, &payloads);
    let work = rig.work;
    rig.datagram(&message);
    assert!(rig.sent.is_empty() && rig.work == work && rig.children.len() == 1);
    puppet.next_id -= 1;
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn fragments_carry_an_ike_auth_and_only_when_agreed_on() {
    for agreed in [true, false] {
        let mut rig = rig();
        let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        if !agreed {
            payloads.pop();
        }
        let message = puppet.init_message(payloads);
        puppet.init_request = message.clone();
        rig.datagram(&message);
        let (_, answer) = rig.sent.pop_front().unwrap();
        puppet.take_init_response(&answer);
        let mut auth = puppet.auth_payloads();
        auth.push(Vendor(vec![7; 3000]).into());
        let header = puppet.header(IKE_AUTH, 1);
        let ops = puppet.ops.clone();
        let parts = tussock_ike::frag::split(&*ops, puppet.protection.as_mut().unwrap(), &header, &auth, 500)
            .unwrap();
        assert!(parts.len() > 5);
        // Every part twice, last first, with forgeries in between.
        for part in parts.iter().rev() {
            rig.datagram(part);
            rig.datagram(part);
            let mut forged = part.clone();
            *forged.last_mut().unwrap() ^= 1;
            rig.datagram(&forged);
            forged[34..36].copy_from_slice(&u16::MAX.to_be_bytes());
            rig.datagram(&forged);
        }
        assert_eq!(rig.ike_sas(), 1);
        let up = rig.engine.status().sas[0].established.is_some();
        // Once when it was whole, once for the copy of the first part, and not for its forgeries.
        assert_eq!((up, rig.sent.len()), (agreed, 2 * usize::from(agreed)));
        // RFC 7383 section 2.6.1: only the first part of a retransmission has the response sent again.
        rig.sent.clear();
        parts.iter().for_each(|part| rig.datagram(part));
        assert_eq!(rig.sent.len(), usize::from(agreed));
    }
}

#[test]
fn fragments_that_never_end_keep_bounded_memory_and_nobody_from_going_on() {
    let (mut rig, mut puppet) = half_open();
    let ops = puppet.ops.clone();
    for round in 0..20u16 {
        let auth = [Vendor(vec![7; 20_000 + usize::from(round)]).into()];
        let header = puppet.header(IKE_AUTH, 1);
        let parts = tussock_ike::frag::split(
            &*ops,
            puppet.protection.as_mut().unwrap(),
            &header,
            &auth,
            1000 - usize::from(round) * 20,
        );
        let parts = parts.unwrap();
        parts[..parts.len() - 1].iter().for_each(|part| rig.datagram(part));
    }
    assert!(rig.sent.is_empty());
    assert!(puppet.exchange(&mut rig, IKE_AUTH, puppet.auth_payloads()).auth().is_some());
}

#[test]
fn message_stuffed_with_outer_payloads_is_no_more_than_its_inside() {
    let (mut rig, mut puppet) = up();
    for (count, kind) in [(100usize, 200u8), (127, 48), (128, 200), (3000, 200)] {
        let stuffing: Vec<Payload> = (0..count).map(|_| unknown(kind, 0, 12)).collect();
        let header = puppet.header(INFORMATIONAL, puppet.next_id);
        let body = wire::ike::Encrypted { first_inner: PayloadType::NONE, body: vec![0; 60] };
        let mut payloads = stuffing.clone();
        payloads.push(body.into());
        rig.datagram(&Message::new(header, payloads).emit());
        let part =
            wire::ike::Fragment { first_inner: PayloadType::NONE, number: 1, total: 2, body: vec![0; 60] };
        let mut payloads = stuffing;
        payloads.push(part.into());
        rig.datagram(&Message::new(header, payloads).emit());
    }
    assert!(rig.sent.is_empty() && rig.log_octets() < 20_000);
    assert!(puppet.is_alive(&mut rig));
}
