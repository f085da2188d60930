//! Copies and floods: what repeats, and what comes in thousands.

use super::*;

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
fn strangers_who_begin_and_never_go_on_leave_little_log() {
    let config = Config { realms: vec![Arc::new(realm())], cookie_threshold: 1000, ..Config::default() };
    let mut rig = Rig::with(ops(), config);
    for n in 0..90 {
        let stranger = Puppet::initiator(&rig.ops.clone(), 100 + n);
        rig.datagram(&stranger.init_message(stranger.init_payloads()));
    }
    assert_eq!(rig.engine.status().half_open, 90);
    rig.wait(Duration::from_secs(300));
    assert_eq!(rig.engine.status().half_open, 0);
    let closed = rig.events.iter().filter(|e| matches!(e, Event::IkeClosed { .. })).count();
    assert!((1..=20).contains(&closed), "{closed} lines about strangers who went at one time");
}

#[test]
fn the_key_side_is_told_to_forget_however_much_it_is_asked() {
    let ops = ops();
    let config = Config { realms: vec![Arc::new(realm())], in_flight_limit: 8, ..Config::default() };
    let mut rig = Rig::with(ops.clone(), config);
    let mut friend = Puppet::establish(&ops, &mut rig);
    let mut strangers: Vec<Puppet> = (0..8).map(|n| Puppet::initiator(&ops, 100 + n)).collect();
    strangers.iter_mut().for_each(|stranger| stranger.init(&mut rig));
    rig.hold = true;
    for stranger in &mut strangers {
        let request = stranger.request(IKE_AUTH, &stranger.auth_payloads());
        rig.datagram(&request);
    }
    assert_eq!(rig.engine.status().in_flight, 8, "no room for another question");
    let request = friend.request(INFORMATIONAL, &[Delete::ike().into()]);
    rig.datagram(&request);
    assert_eq!(rig.forgotten, 1, "the key side would keep the friend for ever");
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
