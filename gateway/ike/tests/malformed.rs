//! What an engine does with messages that should not exist: forged ones, broken ones, ones in the wrong place, and too many
//! of them. Each test is named for what must hold; after most of them the IKE SA of an honest peer must still be alive.
#![allow(clippy::unwrap_used)] // A message that is not as expected is a failed test.

mod puppet;

use std::sync::Arc;
use std::time::Duration;

use ipc::Role;
use policy::Identity;
use puppet::{Puppet, Rig, Work, engine_address, public_value, puppet_address, realm};
use spi::{Device, Group, ShortOps};
use tussock_ike::{Command, Config, Event, select};
use wire::ike::{
    Body, Delete, Flags, Header, Id, Ke, Message, Nonce, Notify, Payload, PayloadList, Spi, TsPayload,
    Unknown, Vendor,
};
use wire::numbers::{ExchangeType, IdType, KeId, NotifyType, PayloadType, ProtocolId};

const IKE_AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;

fn ops() -> Arc<dyn ShortOps> {
    soft::Soft::new(1).device().short_ops().unwrap()
}

fn rig() -> Rig {
    Rig::new(ops(), realm())
}

/// An engine with an established peer.
fn up() -> (Rig, Puppet) {
    let ops = ops();
    let mut rig = Rig::new(ops.clone(), realm());
    let puppet = Puppet::establish(&ops, &mut rig);
    (rig, puppet)
}

/// A puppet that has the keys and has not proved itself.
fn half_open() -> (Rig, Puppet) {
    let mut rig = rig();
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    puppet.init(&mut rig);
    (rig, puppet)
}

fn unknown(kind: u8, flags: u8, len: usize) -> Payload {
    Payload { flags, body: Body::Unknown(Unknown { kind: PayloadType(kind), bytes: vec![0x41; len] }) }
}

fn errors(payloads: &[Payload]) -> Vec<NotifyType> {
    payloads.notifies().map(|n| n.kind).filter(|k| k.is_error()).collect()
}

fn without(payloads: Vec<Payload>, kind: PayloadType) -> Vec<Payload> {
    payloads.into_iter().filter(|p| p.kind() != kind).collect()
}

/// Nothing happened: no answer, no SA, no work.
fn assert_untouched(rig: &Rig, what: &str) {
    assert!(rig.sent.is_empty(), "{what}: answered");
    assert_eq!(rig.engine.status().sas.len(), 0, "{what}: state was kept");
    assert_eq!(rig.work, Work::default(), "{what}: work was done");
}

// ---- before anything is there ----

#[test]
fn octets_that_are_no_ike_message_do_nothing() {
    let mut rig = rig();
    for len in 0..60 {
        for octet in [0, 0x20, 0x21, 0xff] {
            rig.datagram(&vec![octet; len]);
        }
    }
    let good = {
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        puppet.init_message(puppet.init_payloads())
    };
    for len in 0..good.len() {
        rig.datagram(&good[..len]);
    }
    rig.datagram(&[good.clone(), vec![0]].concat());
    assert_untouched(&rig, "cut short or too long");
    for length in [0u32, 27, 28, good.len() as u32 - 1, good.len() as u32 + 1, u32::MAX] {
        let mut lie = good.clone();
        lie[24..28].copy_from_slice(&length.to_be_bytes());
        rig.datagram(&lie);
    }
    assert_untouched(&rig, "a length that lies");
}

#[test]
fn older_versions_are_dropped_and_higher_ones_told_once_what_we_speak() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let good = puppet.init_message(puppet.init_payloads());
    for version in [0x00, 0x10, 0x11, 0x1f] {
        let mut old = good.clone();
        old[17] = version;
        rig.datagram(&old);
    }
    assert_untouched(&rig, "IKEv1");
    let mut new = good.clone();
    new[17] = 0x30;
    rig.datagram(&new);
    let (_, answer) = rig.sent.pop_front().expect("INVALID_MAJOR_VERSION");
    let answer = Message::parse(&answer).unwrap();
    assert!(answer.header.is_response() && answer.header.major == 2);
    assert_eq!(errors(&answer.payloads), [NotifyType::INVALID_MAJOR_VERSION]);
    assert!(answer.emit().len() < new.len());
    // Never an answer to an answer, or two gateways would talk for ever.
    new[19] |= Flags::RESPONSE.0;
    rig.datagram(&new);
    assert_untouched(&rig, "a response of a higher version");
    // RFC 7296 section 2.5: the minor version means nothing.
    let mut minor = good;
    minor[17] = 0x2f;
    rig.datagram(&minor);
    assert_eq!(rig.sent.len(), 1);
}

#[test]
fn answers_to_higher_versions_are_rate_limited() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut new = puppet.init_message(puppet.init_payloads());
    new[17] = 0x30;
    for n in 0..10_000u64 {
        new[..8].copy_from_slice(&n.to_be_bytes());
        rig.datagram(&new);
    }
    assert!(rig.sent.len() <= 100, "{} answers to strangers in no time", rig.sent.len());
}

#[test]
fn init_without_one_of_its_payloads_does_nothing() {
    for missing in [PayloadType::SA, PayloadType::KE, PayloadType::NONCE] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        rig.datagram(&puppet.init_message(without(puppet.init_payloads(), missing)));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{missing}");
    }
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    rig.datagram(&puppet.init_message(vec![]));
    assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0));
}

#[test]
fn init_with_a_response_flag_or_no_initiator_flag_or_another_id_does_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let good = puppet.init_message(puppet.init_payloads());
    for flags in [Flags::RESPONSE.0, Flags::RESPONSE.0 | Flags::INITIATOR.0, 0] {
        let mut odd = good.clone();
        odd[19] = flags;
        rig.datagram(&odd);
        assert_untouched(&rig, "flags");
    }
    for id in [1u32, 2, u32::MAX] {
        let mut odd = good.clone();
        odd[20..24].copy_from_slice(&id.to_be_bytes());
        rig.datagram(&odd);
        assert_untouched(&rig, "message ID");
    }
    let mut no_spi = good.clone();
    no_spi[..8].fill(0);
    rig.datagram(&no_spi);
    assert_untouched(&rig, "SPIi of zero");
    let mut with_spi = good;
    with_spi[8] = 9;
    rig.datagram(&with_spi);
    assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "SPIr of a first message");
}

#[test]
fn ke_payload_of_the_wrong_length_costs_no_exponentiation() {
    for len in [0usize, 1, 31, 33, 64, 60_000] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[1] = Ke::new(KeId(Group::X25519.0), vec![7; len]).into();
        rig.datagram(&puppet.init_message(payloads));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{len}");
    }
}

#[test]
fn ke_payload_of_another_group_is_answered_statelessly_with_ours() {
    for group in [Group::MODP2048, Group(2), Group(0), Group(0xffff)] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[1] = Ke::new(KeId(group.0), vec![7; 256]).into();
        rig.datagram(&puppet.init_message(payloads));
        let (_, answer) = rig.sent.pop_front().unwrap();
        let answer = Message::parse(&answer).unwrap();
        let asked = answer.payloads.notify(NotifyType::INVALID_KE_PAYLOAD).unwrap().data_u16();
        assert_eq!(asked, Some(Group::X25519.0), "{group}");
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0));
    }
}

#[test]
fn nonces_too_short_or_too_long_are_refused() {
    for len in [0, 1, 15, 257, 1000] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads[2] = Nonce(vec![7; len]).into();
        rig.datagram(&puppet.init_message(payloads));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0), "{len}");
    }
}

#[test]
fn unknown_payloads_of_init_are_ignored_and_critical_ones_refused_by_type() {
    for kind in [1, 13, 32, 49, 130, 255] {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads.insert(1, unknown(kind, 0, 10));
        rig.datagram(&puppet.init_message(payloads.clone()));
        let (_, answer) = rig.sent.pop_front().unwrap();
        assert!(Message::parse(&answer).unwrap().payloads.sa().is_some(), "{kind}");
        let mut rig = self::rig();
        payloads[1].flags = Payload::CRITICAL;
        rig.datagram(&puppet.init_message(payloads));
        let (_, answer) = rig.sent.pop_front().unwrap();
        let answer = Message::parse(&answer).unwrap();
        let notify = answer.payloads.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap();
        assert_eq!((notify.data.as_slice(), rig.work), (&[kind][..], Work::default()));
    }
}

#[test]
fn critical_bit_and_reserved_bits_on_known_payloads_mean_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut payloads = puppet.init_payloads();
    payloads.iter_mut().for_each(|p| p.flags = 0xff);
    let mut message = puppet.init_message(payloads);
    message[19] |= 0x47; // Reserved flag bits.
    rig.datagram(&message);
    let (_, answer) = rig.sent.pop_front().unwrap();
    assert!(Message::parse(&answer).unwrap().payloads.sa().is_some());
}

#[test]
fn payloads_in_any_order_are_accepted() {
    let mut rig = rig();
    let mut puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let payloads: Vec<Payload> = puppet.init_payloads().into_iter().rev().collect();
    let message = puppet.init_message(payloads);
    puppet.init_request = message.clone();
    rig.datagram(&message);
    let (_, answer) = rig.sent.pop_front().unwrap();
    puppet.take_init_response(&answer);
    let auth = puppet.auth_payloads().into_iter().rev().collect();
    assert!(puppet.exchange(&mut rig, IKE_AUTH, auth).auth().is_some());
}

#[test]
fn fragment_or_sk_in_the_first_message_does_nothing() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let mut payloads = puppet.init_payloads();
    let header = Header::new(puppet.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
    payloads.push(
        wire::ike::Fragment { first_inner: PayloadType::NONE, number: 1, total: 2, body: vec![0; 64] }.into(),
    );
    rig.datagram(&Message::new(header, payloads.clone()).emit());
    assert!(rig.engine.status().sas.iter().all(|sa| sa.established.is_none()));
    let alone = vec![payloads.pop().unwrap()];
    let mut rig = self::rig();
    rig.datagram(&Message::new(header, alone).emit());
    assert_untouched(&rig, "SKF");
}

#[test]
fn messages_for_nobody_keep_no_state_and_get_little_back() {
    let mut rig = rig();
    let (_, mut stranger) = half_open();
    for exchange in
        [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL, ExchangeType::IKE_SESSION_RESUME, ExchangeType(200)]
    {
        for flags in [Flags(0), Flags::INITIATOR, Flags::RESPONSE, Flags::INITIATOR | Flags::RESPONSE] {
            let header = Header { flags, ..stranger.header(exchange, 1) };
            let message = stranger.seal(&header, &[]);
            rig.datagram(&message);
            let plain = Message::new(header, vec![Delete::ike().into()]).emit();
            rig.datagram(&plain);
            let answers = std::mem::take(&mut rig.sent);
            for (_, answer) in answers {
                // RFC 7296 section 2.21.4: a request may be told, a response never.
                assert!(!header.is_response(), "an answer to a response");
                let answer = Message::parse(&answer).unwrap();
                assert!(answer.header.is_response() && answer.emit().len() <= plain.len() + 8);
                assert_eq!(errors(&answer.payloads), [NotifyType::INVALID_IKE_SPI]);
            }
        }
    }
    assert_untouched(&rig, "messages for nobody");
    for id in 0..10_000 {
        let header = Header { flags: Flags::INITIATOR, ..stranger.header(INFORMATIONAL, id) };
        rig.datagram(&Message::new(header, vec![]).emit());
    }
    assert!(rig.sent.len() <= 100, "{} answers to strangers in no time", rig.sent.len());
}

// ---- retransmissions and floods ----

#[test]
fn retransmitted_init_gives_the_same_octets_and_no_second_key_exchange() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    let message = puppet.init_message(puppet.init_payloads());
    rig.hold = true;
    for _ in 0..10 {
        rig.datagram(&message);
    }
    assert!(rig.sent.is_empty());
    rig.let_go();
    let (_, first) = rig.sent.pop_front().unwrap();
    assert!(rig.sent.is_empty());
    for _ in 0..1000 {
        rig.datagram(&message);
        assert_eq!(rig.sent.pop_front().map(|(_, m)| m), Some(first.clone()));
    }
    assert_eq!(rig.work, Work { generated: 1, derived: 1, asked: 0 });
    assert_eq!(rig.engine.status().sas.len(), 1);
}

#[test]
fn retransmitted_init_after_authentication_makes_no_second_sa() {
    let (mut rig, mut puppet) = up();
    let work = rig.work;
    for _ in 0..100 {
        rig.datagram(&puppet.init_request);
    }
    assert_eq!(rig.work, work, "a late copy of the first message costs nothing");
    assert!(rig.engine.status().sas.len() == 1 && puppet.is_alive(&mut rig));
}

#[test]
fn another_init_with_the_same_spi_disturbs_nobody() {
    let (mut rig, mut puppet) = half_open();
    let mut other = Puppet::initiator(&rig.ops.clone(), 1);
    other.ni = vec![0x77; 32];
    rig.datagram(&other.init_message(other.init_payloads()));
    rig.sent.clear();
    let answer = puppet.exchange(&mut rig, IKE_AUTH, puppet.auth_payloads());
    assert!(answer.auth().is_some());
}

#[test]
fn responder_never_speaks_first_and_forgets_who_does_not_go_on() {
    let (mut rig, _) = half_open();
    rig.wait(Duration::from_secs(300));
    assert!(rig.sent.is_empty(), "a spoofed source must not be sent anything twice");
    assert_eq!(rig.engine.status().sas.len(), 0);
    assert_eq!(rig.engine.status().half_open, 0);
}

#[test]
fn flood_of_strangers_turns_cookies_on_and_established_peers_go_on() {
    let ops = ops();
    let config = Config {
        realms: vec![Arc::new(realm())],
        cookie_threshold: 20,
        half_open_limit: 50,
        ..Config::default()
    };
    let mut rig = Rig::with(ops.clone(), config);
    let mut friend = Puppet::establish(&ops, &mut rig);
    let before = rig.work;
    for n in 0..2000 {
        let stranger = Puppet::initiator(&ops, 100 + n);
        rig.datagram(&stranger.init_message(stranger.init_payloads()));
    }
    let status = rig.engine.status();
    assert!(status.cookies && status.half_open <= 50 && status.sas.len() <= 51, "{}", status.sas.len());
    assert!(rig.work.generated - before.generated <= 50);
    assert!(rig.log_octets() < 200_000, "{} octets of log", rig.log_octets());
    let cookies = rig
        .sent
        .iter()
        .filter(|(_, m)| Message::parse(m).unwrap().payloads.notify(NotifyType::COOKIE).is_some());
    assert!(cookies.count() > 1900);
    rig.sent.clear();
    assert!(friend.is_alive(&mut rig));
    let work = rig.work.generated;
    let mut payloads = friend.child_payloads(0x7000_0099, true);
    payloads.push(Nonce(vec![5; 32]).into());
    payloads.push(Ke::new(KeId(Group::X25519.0), public_value(Group::X25519, 5)).into());
    let answer = friend.exchange(&mut rig, CREATE_CHILD_SA, payloads);
    assert!(answer.sa().is_some(), "{answer:?}");
    assert!(rig.work.generated >= work);
}

#[test]
fn cookies_open_the_door_only_as_they_were_given() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], cookie_threshold: 0, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::initiator(&ops, 1);
    rig.datagram(&puppet.init_message(puppet.init_payloads()));
    let (_, answer) = rig.sent.pop_front().unwrap();
    let answer = Message::parse(&answer).unwrap();
    let cookie = answer.payloads.notify(NotifyType::COOKIE).unwrap().data.clone();
    assert!((1..=64).contains(&cookie.len()));
    assert_untouched(&rig, "the first try");
    let with = |cookie: Vec<u8>| -> Vec<Payload> {
        let mut payloads = Puppet::initiator(&ops, 1).init_payloads();
        payloads.insert(0, Notify::with_data(NotifyType::COOKIE, cookie).into());
        payloads
    };
    let mut wrong = cookie.clone();
    wrong[5] ^= 1;
    for bad in [vec![], vec![0; 64], vec![0; 65], vec![0; 10_000], wrong, cookie[..8].to_vec()] {
        rig.datagram(&puppet.init_message(with(bad)));
        rig.sent.clear();
        assert_untouched(&rig, "a cookie of somebody's making");
    }
    rig.datagram_from("192.0.2.3:500".parse().unwrap(), &puppet.init_message(with(cookie.clone())));
    rig.sent.clear();
    assert_untouched(&rig, "another address");
    let message = puppet.init_message(with(cookie));
    puppet.init_request = message.clone();
    rig.datagram(&message);
    let (_, answer) = rig.sent.pop_front().unwrap();
    puppet.take_init_response(&answer);
    assert!(puppet.exchange(&mut rig, IKE_AUTH, puppet.auth_payloads()).auth().is_some());
}

#[test]
fn storms_of_payloads_are_refused_with_little_log() {
    let storms: Vec<(&str, Vec<Payload>)> = vec![
        ("vendor IDs", (0..5000).map(|_| Vendor(vec![1; 8]).into()).collect()),
        ("empty payloads", (0..15_000).map(|_| unknown(200, 0, 0)).collect()),
        ("notifies", (0..5000).map(|_| Notify::new(NotifyType(40_000)).into()).collect()),
        ("one long vendor ID", vec![Vendor(vec![b'%'; 60_000]).into()]),
        ("one long notify", vec![Notify::with_data(NotifyType(16_500), vec![b'\n'; 60_000]).into()]),
    ];
    for (what, storm) in storms {
        let mut rig = rig();
        let puppet = Puppet::initiator(&rig.ops.clone(), 1);
        let mut payloads = puppet.init_payloads();
        payloads.extend(storm);
        rig.datagram(&puppet.init_message(payloads));
        assert!(rig.log_octets() < 10_000, "{what}: {} octets of log", rig.log_octets());
        assert!(rig.sent.iter().all(|(_, m)| m.len() < 2000), "{what}");
    }
}

#[test]
fn enormous_offers_are_looked_through_or_refused_with_little_log() {
    let mut rig = rig();
    let puppet = Puppet::initiator(&rig.ops.clone(), 1);
    for (proposals, transforms) in [(1usize, 255usize), (100, 10), (128, 8), (255, 4), (255, 255)] {
        let all = (0..transforms)
            .map(|i| wire::ike::Transform::new(wire::numbers::TransformType(1), 1000 + i as u16))
            .collect();
        let proposal = wire::ike::Proposal::new(1, ProtocolId::IKE, vec![], all);
        let mut payloads = puppet.init_payloads();
        payloads[0] = wire::ike::Sa::new(vec![proposal; proposals]).into();
        rig.datagram(&puppet.init_message(payloads));
        assert_eq!((rig.work, rig.engine.status().sas.len()), (Work::default(), 0));
    }
    assert!(rig.log_octets() < 20_000, "{} octets of log", rig.log_octets());
}

#[test]
fn events_about_refused_strangers_are_rate_limited() {
    let mut rig = rig();
    for n in 0..5000 {
        let stranger = Puppet::initiator(&rig.ops.clone(), n);
        let mut payloads = stranger.init_payloads();
        let offer = policy::IkeProposal::parse("aes256-sha512-modp8192").unwrap();
        payloads[0] = select::offer_ike(&[offer], None).into();
        rig.datagram(&stranger.init_message(payloads));
    }
    assert!(rig.log_octets() < 200_000, "{} octets of log", rig.log_octets());
}

// ---- between IKE_SA_INIT and IKE_AUTH ----

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

// ---- on an established SA ----

#[test]
fn forged_and_unprotected_messages_change_nothing() {
    let (mut rig, mut puppet) = up();
    let delete: Vec<Payload> = vec![Delete::ike().into()];
    let header = puppet.header(INFORMATIONAL, puppet.next_id);
    rig.datagram(&Message::new(header, delete.clone()).emit());
    for kind in [NotifyType::INVALID_SYNTAX, NotifyType::AUTHENTICATION_FAILED, NotifyType::INVALID_IKE_SPI] {
        rig.datagram(&Message::new(header, vec![Notify::new(kind).into()]).emit());
        let response = Header { flags: Flags::INITIATOR | Flags::RESPONSE, ..header };
        rig.datagram(&Message::new(response, vec![Notify::new(kind).into()]).emit());
    }
    let mut forged = puppet.seal(&header, &delete);
    for bit in 0..forged.len() * 8 {
        forged[bit / 8] ^= 1 << (bit % 8);
        rig.datagram_from("203.0.113.66:4500".parse().unwrap(), &forged);
        forged[bit / 8] ^= 1 << (bit % 8);
    }
    rig.sent.clear();
    let status = rig.engine.status();
    assert_eq!(status.sas.len(), 1);
    assert_eq!(status.sas[0].path.remote, puppet_address(), "nobody moved");
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn wrong_initiator_flag_is_dropped() {
    let (mut rig, mut puppet) = up();
    let header = puppet.header(INFORMATIONAL, puppet.next_id);
    let turned = Header { flags: Flags(0), ..header };
    let message = puppet.seal(&turned, &[Delete::ike().into()]);
    rig.datagram(&message);
    assert!(rig.sent.is_empty() && puppet.is_alive(&mut rig));
}

#[test]
fn responses_nobody_waits_for_are_dropped() {
    let (mut rig, mut puppet) = up();
    for id in [0u32, 1, 2, 7, u32::MAX] {
        for exchange in [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL] {
            let mut header = puppet.header(exchange, id);
            header.flags = header.flags | Flags::RESPONSE;
            let message =
                puppet.seal(&header, &[Delete::ike().into(), Notify::new(NotifyType::INVALID_SYNTAX).into()]);
            rig.datagram(&message);
        }
    }
    assert!(rig.sent.is_empty() && puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn message_ids_outside_the_window_are_dropped() {
    let (mut rig, mut puppet) = up();
    let next = puppet.next_id;
    for id in [0, next + 1, next + 2, next + 1000, u32::MAX - 1, u32::MAX] {
        let message = puppet.seal(&puppet.header(INFORMATIONAL, id), &[Delete::ike().into()]);
        rig.datagram(&message);
        assert!(rig.sent.is_empty(), "{id}");
    }
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn retransmitted_requests_are_answered_with_the_same_octets_and_not_done_again() {
    let (mut rig, mut puppet) = up();
    let mut payloads = puppet.child_payloads(0x7000_0033, true);
    let only = policy::EspProposal::parse("aes128gcm16-x25519").unwrap();
    payloads[0] = select::offer_esp(&[only], 0x7000_0033, true).into();
    payloads.push(Nonce(vec![5; 32]).into());
    payloads.push(Ke::new(KeId(Group::X25519.0), public_value(Group::X25519, 5)).into());
    let message = puppet.request(CREATE_CHILD_SA, &payloads);
    rig.hold = true;
    for _ in 0..5 {
        rig.datagram(&message);
    }
    rig.let_go();
    let (_, first) = rig.sent.pop_front().unwrap();
    assert!(rig.sent.is_empty());
    let (work, children) = (rig.work, rig.children.clone());
    for _ in 0..100 {
        rig.datagram(&message);
        assert_eq!(rig.sent.pop_front().map(|(_, m)| m), Some(first.clone()));
    }
    assert_eq!((rig.work, &rig.children), (work, &children));
    // After the next request it is too old for an answer.
    assert!(puppet.is_alive(&mut rig));
    rig.datagram(&message);
    assert!(rig.sent.is_empty());
    assert_eq!(rig.children, children);
}

#[test]
fn unknown_critical_payload_is_refused_and_the_sa_lives_on() {
    let (mut rig, mut puppet) = up();
    for exchange in [INFORMATIONAL, CREATE_CHILD_SA] {
        let answer = puppet.exchange(&mut rig, exchange, vec![unknown(201, Payload::CRITICAL, 4)]);
        let notify = answer.notify(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD).unwrap();
        assert_eq!(notify.data, [201]);
        assert!(puppet.is_alive(&mut rig), "{exchange}");
    }
    let answer = puppet.exchange(&mut rig, INFORMATIONAL, vec![unknown(201, 0, 4)]);
    assert!(errors(&answer).is_empty());
}

#[test]
fn exchanges_nobody_knows_are_not_carried_out() {
    let (mut rig, mut puppet) = up();
    for exchange in
        [ExchangeType::IKE_SA_INIT, ExchangeType::IKE_SESSION_RESUME, ExchangeType(0), ExchangeType(240)]
    {
        let message = puppet.request(exchange, &[Delete::ike().into()]);
        puppet.next_id -= 1;
        rig.datagram(&message);
        rig.sent.clear();
        assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1), "{exchange}");
    }
}

#[test]
fn selector_length_that_lies_is_invalid_syntax() {
    for length in [0u16, 4, 8, 15, 17, 24, 40, 0xffff] {
        let (mut rig, mut puppet) = up();
        let mut ts = vec![1, 0, 0, 0, 7, 0];
        ts.extend_from_slice(&length.to_be_bytes());
        ts.extend_from_slice(&[0, 0, 255, 255, 10, 2, 0, 0, 10, 2, 255, 255]);
        let mut payloads = puppet.child_payloads(0x7000_0034, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads[1] =
            Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::TSI, bytes: ts }) };
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{length}");
    }
}

#[test]
fn selectors_that_hold_nothing_are_unacceptable() {
    let table: Vec<TsPayload> = vec![
        TsPayload::new([]),
        TsPayload::new(["10.9.0.0/16".parse().unwrap()]),
        TsPayload::new(["::/0".parse().unwrap()]),
        TsPayload::new([wire::TrafficSelector::range(
            "10.2.0.9".parse().unwrap(),
            "10.2.0.1".parse().unwrap(),
        )]),
        TsPayload::new(
            (0..255u8).map(|i| wire::TrafficSelector::host(std::net::Ipv4Addr::new(172, 16, 0, i).into())),
        ),
    ];
    let (mut rig, mut puppet) = up();
    for ts in table {
        let mut payloads = puppet.child_payloads(0x7000_0034, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads[1] = Body::TsI(ts).into();
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::TS_UNACCEPTABLE]);
    }
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
    assert!(rig.log_octets() < 20_000);
}

#[test]
fn rekey_of_what_is_not_there_names_it_and_harms_nothing() {
    let (mut rig, mut puppet) = up();
    for protocol in [0u8, 1, 2, 3, 4, 200] {
        for spi in [vec![], vec![0; 4], vec![1, 2, 3, 4], vec![9; 8], vec![9; 255]] {
            let mut payloads = puppet.child_payloads(0x7000_0035, false);
            payloads.push(Nonce(vec![5; 32]).into());
            let notify =
                Notify { protocol: ProtocolId(protocol), kind: NotifyType::REKEY_SA, spi, data: vec![] };
            payloads.insert(0, notify.into());
            let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
            assert_eq!(errors(&answer), [NotifyType::CHILD_SA_NOT_FOUND], "protocol {protocol}");
        }
    }
    // The right SPI under the wrong protocol is not the child either.
    let mut payloads = puppet.child_payloads(0x7000_0035, false);
    payloads.push(Nonce(vec![5; 32]).into());
    payloads.insert(0, Notify::about_child(NotifyType::REKEY_SA, ProtocolId::AH, 0x7000_0001).into());
    let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
    assert_eq!(errors(&answer), [NotifyType::CHILD_SA_NOT_FOUND]);
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn create_child_sa_without_its_payloads_is_refused() {
    let full = |puppet: &Puppet| {
        let mut payloads = puppet.child_payloads(0x7000_0036, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads
    };
    for missing in [PayloadType::SA, PayloadType::NONCE, PayloadType::TSI, PayloadType::TSR] {
        let (mut rig, mut puppet) = up();
        let payloads = without(full(&puppet), missing);
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{missing}");
        assert!(rig.children.len() <= 1);
    }
    let (mut rig, mut puppet) = up();
    assert_eq!(errors(&puppet.exchange(&mut rig, CREATE_CHILD_SA, vec![])), [NotifyType::INVALID_SYNTAX]);
}

#[test]
fn pfs_without_a_ke_payload_or_with_another_group_asks_for_ours() {
    let (mut rig, mut puppet) = up();
    for ke in [None, Some(Ke::new(KeId(Group::ECP256.0), vec![7; 64])), Some(Ke::new(KeId(0), vec![]))] {
        let mut payloads = puppet.child_payloads(0x7000_0037, true);
        // PFS only, so that there is no way round it.
        let only = policy::EspProposal::parse("aes128gcm16-x25519").unwrap();
        payloads[0] = select::offer_esp(&[only], 0x7000_0037, true).into();
        payloads.push(Nonce(vec![5; 32]).into());
        payloads.extend(ke.map(Payload::from));
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        let notify = answer.notify(NotifyType::INVALID_KE_PAYLOAD).unwrap();
        assert_eq!((notify.data_u16(), rig.work), (Some(Group::X25519.0), work));
    }
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn ke_payload_of_the_wrong_length_in_a_rekey_is_invalid_syntax() {
    for len in [0usize, 31, 33, 5000] {
        let (mut rig, mut puppet) = up();
        let mut payloads = puppet.rekey_payloads(Spi(0x99), &[5; 32]);
        payloads[2] = Ke::new(KeId(Group::X25519.0), vec![1; len]).into();
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!((errors(&answer), rig.work), (vec![NotifyType::INVALID_SYNTAX], work), "{len}");
    }
}

#[test]
fn ike_rekey_with_an_impossible_spi_finds_no_proposal() {
    for spi in [vec![], vec![1; 4], vec![0; 8], vec![1; 16]] {
        let (mut rig, mut puppet) = up();
        let mut payloads = puppet.rekey_payloads(Spi(0x99), &[5; 32]);
        let mut offer = select::offer_ike(&realm().ike, Some(Spi(1)));
        offer.proposals.iter_mut().for_each(|p| p.spi = spi.clone());
        payloads[0] = offer.into();
        let work = rig.work;
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        assert_eq!((errors(&answer), rig.work), (vec![NotifyType::NO_PROPOSAL_CHOSEN], work), "{spi:?}");
        assert!(puppet.is_alive(&mut rig) && rig.ike_sas() == 1);
    }
}

#[test]
fn children_without_end_come_to_an_end() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], children_limit: 20, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::establish(&ops, &mut rig);
    let mut refused = 0;
    for n in 0..100u32 {
        let mut payloads = puppet.child_payloads(0x7100_0000 + n, false);
        payloads.push(Nonce(vec![5; 32]).into());
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        refused += usize::from(errors(&answer) == [NotifyType::NO_ADDITIONAL_SAS]);
    }
    assert_eq!((rig.children.len(), refused), (20, 81));
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn rekeying_without_ever_deleting_comes_to_an_end() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], children_limit: 20, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut puppet = Puppet::establish(&ops, &mut rig);
    let mut last = 0x7000_0001;
    for n in 0..100u32 {
        let mut payloads = puppet.child_payloads(0x7200_0000 + n, false);
        payloads.push(Nonce(vec![5; 32]).into());
        payloads.insert(0, Notify::rekey_sa(ProtocolId::ESP, last).into());
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        if answer.sa().is_some() {
            last = 0x7200_0000 + n;
        }
    }
    assert!(rig.children.len() <= 20, "{}", rig.children.len());
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn rekeying_the_ike_sa_without_ever_deleting_comes_to_an_end() {
    let (mut rig, mut puppet) = up();
    for n in 0..200u64 {
        let spi = Spi(0xaaaa_0000 + n);
        let nonce = vec![n as u8; 32];
        let payloads = puppet.rekey_payloads(spi, &nonce);
        let answer = puppet.exchange(&mut rig, CREATE_CHILD_SA, payloads);
        let Some(sa) = answer.sa() else { continue };
        let (theirs, secret) = (sa.proposals[0].ike_spi().unwrap(), puppet.rekey_secret(&answer));
        let nr = answer.nonce().unwrap().0.clone();
        puppet = puppet.successor(Role::Initiator, spi, theirs, nonce, nr, &secret);
    }
    assert!(rig.engine.status().sas.len() <= 64, "{} IKE SAs of one peer", rig.engine.status().sas.len());
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn deletes_of_what_is_not_there_are_answered_and_harm_nothing() {
    let (mut rig, mut puppet) = up();
    let own: u32 = rig.children.values().next().unwrap().0;
    let many: Vec<u32> = (0..1000).map(|n| 0x5000_0000 + n).collect();
    let odd = |protocol: u8, spi_size: u8, spis: Vec<Vec<u8>>| -> Payload {
        let mut bytes = vec![protocol, spi_size];
        bytes.extend_from_slice(&(spis.len() as u16).to_be_bytes());
        bytes.extend(spis.concat());
        Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::DELETE, bytes }) }
    };
    for payloads in [
        vec![Delete::children(ProtocolId::ESP, &[1, 2, 3]).into()],
        vec![Delete::children(ProtocolId::ESP, &many).into()],
        vec![Delete::children(ProtocolId::ESP, &[]).into()],
        vec![Delete::children(ProtocolId::AH, &[0x7000_0001]).into()],
        // Our own inbound SPI is not how the peer names the child.
        vec![Delete::children(ProtocolId::ESP, &[own]).into()],
        vec![odd(3, 4, vec![]), odd(99, 4, vec![vec![1; 4]])],
    ] {
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, payloads);
        assert!(answer.deletes().next().is_none(), "{answer:?}");
        assert_eq!(rig.children.len(), 1);
    }
    assert!(puppet.is_alive(&mut rig));
    // Named twice in one message, it is deleted once.
    let twice = vec![Delete::children(ProtocolId::ESP, &[0x7000_0001, 0x7000_0001]).into(); 2];
    let answer = puppet.exchange(&mut rig, INFORMATIONAL, twice);
    assert_eq!(answer.deletes().flat_map(Delete::child_spis).collect::<Vec<_>>(), [own]);
    assert!(puppet.is_alive(&mut rig));
}

#[test]
fn delete_whose_count_lies_is_invalid_syntax() {
    for (size, count, octets) in
        [(4u8, 2u16, 4usize), (4, 0xffff, 64), (255, 2, 255), (0, 1, 1), (4, 1, 5), (8, 1, 4)]
    {
        let (mut rig, mut puppet) = up();
        let mut bytes = vec![3, size];
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.resize(4 + octets, 7);
        let delete = Payload { flags: 0, body: Body::Unknown(Unknown { kind: PayloadType::DELETE, bytes }) };
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, vec![delete]);
        assert_eq!(errors(&answer), [NotifyType::INVALID_SYNTAX], "{size} {count}");
    }
}

#[test]
fn storms_inside_an_established_sa_leave_little_log_and_a_living_sa() {
    let (mut rig, mut puppet) = up();
    let storms: Vec<Vec<Payload>> = vec![
        (0..100).map(|_| Vendor(vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| Notify::with_data(NotifyType(16_999), vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| Notify::with_data(NotifyType(5000), vec![b'%'; 600]).into()).collect(),
        (0..100).map(|_| unknown(200, 0, 600)).collect(),
        vec![Vendor(vec![0; 65_000]).into()],
    ];
    for storm in storms {
        let answer = puppet.exchange(&mut rig, INFORMATIONAL, storm);
        assert!(errors(&answer).is_empty());
    }
    assert!(rig.log_octets() < 20_000, "{} octets of log", rig.log_octets());
    assert!(puppet.is_alive(&mut rig) && rig.children.len() == 1);
}

#[test]
fn delete_of_the_ike_sa_is_answered_and_everything_goes() {
    let (mut rig, mut puppet) = up();
    let message = puppet.request(INFORMATIONAL, &[Delete::ike().into()]);
    rig.datagram(&message);
    let (_, first) = rig.sent.pop_front().unwrap();
    assert_eq!((rig.ike_sas(), rig.children.len()), (0, 0));
    rig.datagram(&message);
    assert_eq!(rig.sent.pop_front().map(|(_, m)| m), Some(first), "the response may have been lost");
    let late = puppet.request(CREATE_CHILD_SA, &puppet.child_payloads(0x7000_0040, false));
    rig.datagram(&late);
    assert!(rig.sent.is_empty() && rig.children.is_empty());
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.engine.status().sas.len(), 0);
}

#[test]
fn address_of_the_peer_changes_only_where_a_nat_may_have_moved_it() {
    let (mut rig, mut puppet) = up();
    let elsewhere = "203.0.113.66:500".parse().unwrap();
    // Authentic, from elsewhere: answered there, but without a NAT nothing moves (RFC 7296 sections 2.11 and 2.23).
    puppet.address = elsewhere;
    let answer = puppet.request(INFORMATIONAL, &[]);
    rig.datagram_from(elsewhere, &answer);
    assert_eq!(rig.sent.pop_front().map(|(path, _)| path.remote), Some(elsewhere));
    assert_eq!(rig.engine.status().sas[0].path.remote, puppet_address());
    assert_eq!(rig.engine.status().sas[0].path.local, engine_address());
}

// ---- the engine as initiator ----

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
