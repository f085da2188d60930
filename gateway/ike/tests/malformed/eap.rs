//! While EAP runs, towards either side.

use super::*;
use ipc::{MAX_EAP_PACKET, MAX_EAP_ROUNDS};
use policy::AuthPolicy;
use wire::ike::{Auth, Eap};
use wire::numbers::AuthMethod;

fn eap_rig() -> Rig {
    let mut realm = realm();
    realm.remote_auth = AuthPolicy::Eap;
    Rig::new(ops(), realm)
}

fn eap(code: u8, id: u8) -> Payload {
    Body::Eap(Eap(vec![code, id, 0, 5, 255])).into()
}

/// An engine that has said who it is and has sent the first packet.
fn begun() -> (Rig, Puppet) {
    let mut rig = eap_rig();
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    puppet.init(&mut rig);
    let payloads = without(puppet.auth_payloads(), PayloadType::AUTH);
    let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
    assert!(answer.id_r().is_some() && answer.auth().is_some() && answer.eap().is_some(), "{answer:?}");
    assert!(answer.sa().is_none() && rig.children.is_empty());
    (rig, puppet)
}

/// Sends the packets that are still to be sent; then EAP has succeeded.
fn succeed(rig: &mut Rig, puppet: &mut Puppet, from: u8) {
    for id in from..=rig.eap.rounds {
        let answer = puppet.exchange(rig, IKE_AUTH, vec![eap(2, id)]);
        let code = answer.eap().unwrap().0[0];
        assert_eq!((code, answer.len()), (if id == rig.eap.rounds { 3 } else { 1 }, 1), "{id}");
    }
}

fn finish(rig: &mut Rig, puppet: &mut Puppet) {
    let auth = puppet.auth_payload_by(&rig.eap.msk);
    let answer = puppet.exchange(rig, IKE_AUTH, vec![auth]);
    assert!(answer.auth().is_some() && answer.sa().is_some() && answer.id_r().is_none(), "{answer:?}");
    assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
    assert!(puppet.is_alive(rig));
}

fn assert_failed(rig: &Rig, answer: &[Payload], what: &str) {
    assert_eq!(errors(answer), [NotifyType::AUTHENTICATION_FAILED], "{what}");
    assert!(answer.auth().is_none() && answer.sa().is_none(), "{what}");
    assert_eq!((rig.ike_sas(), rig.children.len(), rig.forgotten), (0, 0, 1), "{what}");
}

#[test]
fn an_honest_client_comes_up() {
    let (mut rig, mut puppet) = begun();
    succeed(&mut rig, &mut puppet, 1);
    finish(&mut rig, &mut puppet);
}

#[test]
fn nothing_but_ike_auth_is_done_while_eap_runs() {
    let sample = half_open().1;
    let mut child = sample.child_payloads(0x7000_0005, false);
    child.push(Nonce(vec![5; 32]).into());
    for (exchange, payloads) in [
        (CREATE_CHILD_SA, child),
        (INFORMATIONAL, vec![]),
        (INFORMATIONAL, vec![Notify::new(NotifyType::INITIAL_CONTACT).into()]),
        (ExchangeType::IKE_INTERMEDIATE, vec![]),
    ] {
        // After the first answer, in the middle, and when only AUTH is missing.
        for after in [1, 3, 5] {
            let (mut rig, mut puppet) = begun();
            let rounds = rig.eap.rounds;
            rig.eap.rounds = after - 1;
            if after > 1 {
                succeed(&mut rig, &mut puppet, 1);
            }
            rig.eap.rounds = rounds;
            let done = after > rounds;
            let work = rig.work;
            let message = puppet.request(exchange, &payloads);
            rig.datagram(&message);
            assert!(rig.sent.is_empty(), "{exchange} {after}");
            assert_eq!((rig.work, rig.children.len()), (work, 0), "{exchange} {after}");
            puppet.next_id -= 1;
            if done {
                finish(&mut rig, &mut puppet);
            }
        }
    }
}

#[test]
fn a_client_that_says_that_it_gives_up_leaves_nothing() {
    for payload in [Delete::ike().into(), Notify::new(NotifyType::AUTHENTICATION_FAILED).into()] {
        let (mut rig, mut puppet) = begun();
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, vec![payload]);
        assert!(answer.is_empty());
        assert_eq!((rig.ike_sas(), rig.children.len(), rig.forgotten), (0, 0, 1));
    }
}

#[test]
fn auth_before_eap_is_over_ends_it() {
    for msk in [true, false] {
        let (mut rig, mut puppet) = begun();
        let secret = if msk { rig.eap.msk.clone() } else { puppet::PSK.to_vec() };
        let auth = puppet.auth_payload_by(&secret);
        let answer = puppet.exchange(&mut rig, IKE_AUTH, vec![auth]);
        assert_failed(&rig, &answer, "AUTH at once");
        let (mut rig, mut puppet) = begun();
        let auth = puppet.auth_payload_by(&secret);
        let answer = puppet.exchange(&mut rig, IKE_AUTH, vec![eap(2, 1), auth]);
        assert_failed(&rig, &answer, "AUTH beside a packet");
    }
}

#[test]
fn a_round_that_is_played_again_is_answered_alike_and_judged_once() {
    let (mut rig, mut puppet) = begun();
    let mut before: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for id in 1..=rig.eap.rounds {
        let message = puppet.request(IKE_AUTH, &[eap(2, id)]);
        rig.datagram(&message);
        let (_, answer) = rig.sent.pop_front().unwrap();
        let work = rig.work;
        for _ in 0..20 {
            rig.datagram(&message);
            assert_eq!(rig.sent.pop_front().unwrap().1, answer);
        }
        // Older rounds are not even answered.
        for (old, _) in before.iter().rev().skip(1) {
            rig.datagram(old);
        }
        before.push((message, answer));
        assert_eq!((rig.work, rig.sent.len()), (work, 0), "{id}");
    }
    finish(&mut rig, &mut puppet);
    for (old, _) in &before {
        rig.datagram(old);
    }
    assert!(rig.sent.is_empty() && puppet.is_alive(&mut rig));
}

#[test]
fn eap_without_end_comes_to_an_end() {
    let (mut rig, mut puppet) = begun();
    rig.eap.rounds = 255;
    let asked = rig.work.asked;
    let last = (1..=200u8).find_map(|id| {
        let answer = puppet.exchange(&mut rig, IKE_AUTH, vec![eap(2, id)]);
        answer.eap().is_none().then_some((id, answer))
    });
    let (rounds, answer) = last.expect("an end");
    assert_eq!(u16::from(rounds), MAX_EAP_ROUNDS + 1);
    assert_eq!(rig.work.asked - asked, usize::from(MAX_EAP_ROUNDS));
    assert_failed(&rig, &answer, "without end");
    assert!(rig.log_octets() < 10_000);
}

#[test]
fn what_is_no_next_message_of_eap_ends_it_and_leaves_nothing() {
    let sample = half_open().1;
    let long = Body::Eap(Eap(vec![2; MAX_EAP_PACKET + 1])).into();
    let spoils: Vec<(&str, Vec<Payload>)> = vec![
        ("nothing", vec![]),
        ("the first message again", without(sample.auth_payloads(), PayloadType::AUTH)),
        ("a notify", vec![Notify::new(NotifyType::INITIAL_CONTACT).into()]),
        ("a long packet", vec![long]),
        ("an empty packet", vec![Body::Eap(Eap(vec![])).into()]),
        ("a request", vec![eap(4, 1)]),
        ("a critical payload", vec![eap(2, 1), unknown(200, Payload::CRITICAL, 4)]),
    ];
    for (what, payloads) in spoils {
        let (mut rig, mut puppet) = begun();
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert_eq!(errors(&answer).len(), 1, "{what}: {answer:?}");
        assert_eq!((rig.ike_sas(), rig.children.len(), rig.forgotten), (0, 0, 1), "{what}");
    }
}

#[test]
fn after_success_only_the_right_auth_opens() {
    let right = |rig: &Rig, puppet: &Puppet| puppet.auth_payload_by(&rig.eap.msk);
    type Spoil = fn(&Rig, &Puppet) -> Vec<Payload>;
    let spoils: Vec<(&str, Spoil)> = vec![
        ("by the PSK", |_, puppet| vec![puppet.auth_payload()]),
        ("by another key", |_, puppet| vec![puppet.auth_payload_by(&[6; 64])]),
        ("no octets", |_, _| vec![Auth::new(AuthMethod::SHARED_KEY_MIC, vec![]).into()]),
        ("a signature", |_, _| vec![Auth::new(AuthMethod::DIGITAL_SIGNATURE, vec![0; 64]).into()]),
        ("beside a packet", |rig, puppet| vec![puppet.auth_payload_by(&rig.eap.msk), eap(2, 4)]),
    ];
    for (what, spoil) in spoils {
        let (mut rig, mut puppet) = begun();
        succeed(&mut rig, &mut puppet, 1);
        let payloads = spoil(&rig, &puppet);
        let answer = puppet.exchange(&mut rig, IKE_AUTH, payloads);
        assert_failed(&rig, &answer, what);
    }
    let (mut rig, mut puppet) = begun();
    succeed(&mut rig, &mut puppet, 1);
    let answer = puppet.exchange(&mut rig, IKE_AUTH, vec![eap(2, 5)]);
    assert_eq!((errors(&answer).len(), rig.ike_sas()), (1, 0));
    let (mut rig, mut puppet) = begun();
    succeed(&mut rig, &mut puppet, 1);
    let auth = right(&rig, &puppet);
    assert!(puppet.exchange(&mut rig, IKE_AUTH, vec![auth]).auth().is_some());
}

#[test]
fn half_open_conversations_end_at_their_time() {
    let mut rig = eap_rig();
    for seed in 1..20 {
        let mut puppet = Puppet::initiator(&rig.ops.clone(), seed);
        puppet.init(&mut rig);
        let payloads = without(puppet.auth_payloads(), PayloadType::AUTH);
        puppet.exchange(&mut rig, IKE_AUTH, payloads);
    }
    rig.wait(Duration::from_secs(100));
    assert_eq!(rig.ike_sas(), 19, "there is time for a prompt");
    rig.wait(Duration::from_secs(30));
    assert_eq!((rig.ike_sas(), rig.forgotten), (0, 19));
    assert_eq!(rig.engine.status().half_open, 0);
}

// ---- the engine as client ----

/// An engine that has asked for EAP, and the puppet that it asked.
fn asked() -> (Rig, Puppet, tussock_ike::protect::Opened) {
    let mut realm = realm();
    realm.local_auth = AuthPolicy::Eap;
    let mut rig = Rig::new(ops(), realm);
    rig.command(Command::Up { realm: "puppet".into(), child: Some("net".into()) });
    let (_, request) = rig.sent.pop_front().unwrap();
    let (mut puppet, response) = Puppet::responder(&rig.ops.clone(), 2, &request);
    rig.datagram(&response);
    let request = puppet.next_request(&mut rig).unwrap();
    assert!(request.payloads.auth().is_none() && request.payloads.sa().is_some());
    (rig, puppet, request)
}

#[test]
fn a_server_that_proves_nothing_or_not_enough_sees_no_credential() {
    type Spoil = fn(&Puppet) -> Vec<Payload>;
    let spoils: Vec<(&str, Spoil)> = vec![
        ("no AUTH", |puppet| vec![puppet.id_payload().into(), eap(1, 1)]),
        ("a wrong AUTH", |puppet| {
            vec![puppet.id_payload().into(), puppet.auth_payload_by(b"guess"), eap(1, 1)]
        }),
        ("AUTH by the key of EAP", |puppet| {
            vec![puppet.id_payload().into(), puppet.auth_payload_by(&[5; 64]), eap(1, 1)]
        }),
        ("no identity", |puppet| vec![puppet.auth_payload(), eap(1, 1)]),
        ("another identity", |puppet| {
            let (kind, data) = Identity::parse("other.lab.test").unwrap().to_wire();
            vec![Body::IdR(Id::new(kind, data)).into(), puppet.auth_payload(), eap(1, 1)]
        }),
        ("no packet", |puppet| vec![puppet.id_payload().into(), puppet.auth_payload()]),
        ("an error", |_| vec![Notify::new(NotifyType::AUTHENTICATION_FAILED).into()]),
    ];
    for (what, spoil) in spoils {
        let (mut rig, mut puppet, request) = asked();
        let before = rig.work.asked;
        let payloads = spoil(&puppet);
        puppet.respond(&mut rig, &request, payloads);
        // It may say that it gives up, and nothing more.
        if let Some(told) = puppet.next_request(&mut rig) {
            assert_eq!(told.header.exchange, INFORMATIONAL, "{what}: it went on");
            assert_eq!(errors(&told.payloads), [NotifyType::AUTHENTICATION_FAILED], "{what}");
        }
        assert!(rig.work.asked <= before + 1, "{what}");
        assert_eq!((rig.ike_sas(), rig.children.len()), (0, 0), "{what}");
    }
}

#[test]
fn a_server_that_does_not_know_the_key_in_the_end_is_left() {
    for good in [false, true] {
        let (mut rig, mut puppet, first) = asked();
        let payloads = vec![puppet.id_payload().into(), puppet.auth_payload(), eap(1, 1)];
        puppet.respond(&mut rig, &first, payloads);
        let request = puppet.next_request(&mut rig).unwrap();
        assert_eq!(request.payloads.eap().unwrap().0[0], 2);
        puppet.respond(&mut rig, &request, vec![eap(3, 1)]);
        let request = puppet.next_request(&mut rig).unwrap();
        assert!(request.payloads.auth().is_some() && request.payloads.len() == 1, "AUTH alone");
        let mut answer = puppet.auth_answer(&first);
        answer.remove(0);
        answer[0] = puppet.auth_payload_by(if good { &[5; 64] } else { puppet::PSK });
        puppet.respond(&mut rig, &request, answer);
        let told = puppet.next_request(&mut rig);
        if good {
            assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
        } else {
            // The server takes the SA for established, so it is told.
            let told = told.unwrap();
            assert_eq!(errors(&told.payloads), [NotifyType::AUTHENTICATION_FAILED]);
            assert!(told.payloads.deletes().any(Delete::is_ike) && rig.children.is_empty());
        }
    }
}

#[test]
fn a_server_without_end_is_left() {
    let (mut rig, mut puppet, mut request) = asked();
    let mut payloads = vec![puppet.id_payload().into(), puppet.auth_payload(), eap(1, 1)];
    for id in 2..=255 {
        puppet.respond(&mut rig, &request, payloads);
        let next = puppet.next_request(&mut rig).unwrap();
        if next.header.exchange == INFORMATIONAL {
            assert_eq!((u16::from(id), rig.ike_sas()), (MAX_EAP_ROUNDS + 2, 0));
            return;
        }
        request = next;
        payloads = vec![eap(1, id)];
    }
    panic!("it went on");
}
