//! IKE_SA_INIT and IKE_AUTH between two engines: what comes up, what does not, and what the operator is told.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use policy::{Childless, Encap, Identity, Peers, RemoteAddress, Start};
use tussock_ike::{Command, Event, KeyLogEntry, Path, Why};
use world::policy::{address, child, esp, ike, realm, specs};
use world::{Link, World, is_exchange};

const S: Duration = Duration::from_secs(1);

#[test]
fn a_pair_comes_up_in_good_weather() {
    let world = World::established(1, realm(0), realm(1));
    assert_eq!(world.ike_sas(0), 1);
    assert_eq!(world.spis(0).len(), 1);
    assert_eq!(world.wire.len(), 4, "two exchanges");
    assert!(world.has_event(1, |e| matches!(e, Event::IkeEstablished { how, .. } if **how == *"PSK")));
    // Keys crosswise.
    let a = world.nodes[0].children.values().next().unwrap();
    let b = world.nodes[1].children.values().next().unwrap();
    assert!(a.encr_key_out.ct_eq(b.encr_key_in.expose()) && a.encr_key_in.ct_eq(b.encr_key_out.expose()));
    assert!(!a.encr_key_out.ct_eq(a.encr_key_in.expose()));
    assert_eq!((a.ts_local.clone(), a.ts_remote.clone()), (b.ts_remote.clone(), b.ts_local.clone()));
}

#[test]
fn a_pair_comes_up_through_loss_doubling_and_reordering() {
    for seed in 1..40 {
        let mut world = World::new(seed, vec![realm(0)], vec![realm(1)]);
        world.link = Link::BAD;
        let up = world.up(0);
        world.run(400 * S);
        eprintln!("seed {seed}");
        world.assert_ok(0, up);
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1);
    }
}

#[test]
fn every_kind_of_suite_comes_up() {
    for (ike_text, esp_text) in [
        ("aes256-sha256-modp2048", "aes256-sha256"),
        ("aes128-sha512-prfsha512-ecp384", "aes128-sha512"),
        ("aes256gcm16-prfsha384-ecp521", "aes256gcm16-esn"),
        ("chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
        ("aes128ctr-sha256-x448", "aes128ctr-sha256"),
        ("aes128ccm16-prfaesxcbc-ecp256", "aes128ccm16"),
        ("aes128-aescmac-prfaescmac-x25519", "null-sha256"),
        ("aes192-sha384-modp3072", "aes128gmac"),
    ] {
        let with = |n| {
            let mut realm = realm(n);
            realm.ike = ike(&[ike_text]);
            realm.children[0].esp = esp(&[esp_text]);
            realm
        };
        let mut world = World::established(1, with(0), with(1));
        let rekey = (world.rekey_child(0, "net"), world.rekey_ike(1));
        world.run(30 * S);
        world.assert_ok(0, rekey.0);
        world.assert_ok(1, rekey.1);
        world.assert_agreed();
        let child = world.nodes[1].engine.status().sas[0].children[0].suite.clone();
        assert_eq!(child, esp_text);
    }
}

#[test]
fn the_responders_preference_decides_and_another_group_costs_one_round_trip() {
    let mut a = realm(0);
    a.ike = ike(&["aes128gcm16-prfsha256-ecp256-x25519"]);
    let world = World::established(1, a, realm(1));
    assert_eq!(world.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 34, false)).count(), 2);
    assert!(world.nodes[0].engine.status().sas[0].suite.ends_with("x25519"));
}

#[test]
fn a_peer_that_keeps_asking_for_another_group_is_given_up() {
    let mut a = realm(0);
    a.ike = ike(&["aes128gcm16-prfsha256-ecp256-x25519"]);
    let mut world = World::new(1, vec![a], vec![]);
    world.nodes[1].alive = false;
    let up = world.up(0);
    for n in 0..20u16 {
        world.run(Duration::from_millis(50));
        let Some((_, request)) = world.wire.last().cloned() else { continue };
        let group = if n % 2 == 0 { 31 } else { 19u16 };
        let notify = wire::ike::Notify::with_data(
            wire::numbers::NotifyType::INVALID_KE_PAYLOAD,
            group.to_be_bytes().to_vec(),
        );
        let header = wire::ike::peek_header(&request).unwrap().response();
        let message = wire::ike::Message::new(header, vec![notify.into()]).emit();
        let path = Path { local: (address(0), 500).into(), remote: (address(1), 500).into() };
        world.inject(0, path, &message);
    }
    world.run(S);
    assert!(
        matches!(world.answer(0, up), Some(Err(why)) if why.contains("keeps asking")),
        "{:?}",
        world.nodes[0].answers
    );
    assert!(world.nodes[0].sent < 10);
    assert_eq!(world.nodes[0].engine.status().in_flight, 0);
}

#[test]
fn nothing_in_common_is_said_on_both_sides_with_both_lists() {
    let mut a = realm(0);
    a.ike = ike(&["aes256-sha256-modp2048"]);
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    let up = world.up(0);
    world.run(5 * S);
    let why = world.answer(0, up).unwrap().as_ref().unwrap_err();
    assert!(why.contains("NO_PROPOSAL_CHOSEN") && why.contains("aes256"), "{why}");
    let told = |e: &Event| match e {
        Event::IkeClosed { why: Why::Incompatible(why), .. } => {
            why.contains("modp2048") && why.contains("aes128gcm16")
        }
        _ => false,
    };
    assert!(world.has_event(1, told), "{:?}", world.nodes[1].events);
    world.assert_agreed();
}

#[test]
fn a_wrong_secret_fails_on_both_sides_and_leaves_nothing() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.set_psk(1, b"another");
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("AUTHENTICATION_FAILED")));
    let told = |e: &Event| matches!(e, Event::IkeClosed { why: Why::Authentication(w), was_up: false, .. } if w.contains("moon"));
    assert!(world.has_event(1, told), "{:?}", world.nodes[1].events);
    world.assert_agreed();
    assert_eq!(world.ike_sas(0) + world.ike_sas(1), 0);
    assert!(world.nodes[0].children.is_empty() && world.nodes[1].children.is_empty());
}

#[test]
fn a_responder_that_is_somebody_else_is_not_believed() {
    let mut b = realm(1);
    b.local_id = Identity::parse("mars.lab.test").unwrap();
    let mut a = realm(0);
    a.remote_id = Peers::parse(["*.lab.test"]).unwrap();
    let mut world = World::new(1, vec![a], vec![b.clone()]);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    // The exact one: the initiator names it in IDr, and the responder is not it.
    let mut world = World::new(1, vec![realm(0)], vec![b]);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(_))));
    assert!(world.has_event(
        1,
        |e| matches!(e, Event::IkeClosed { why: Why::Authentication(w), .. } if w.contains("looking for sun"))
    ));
    world.assert_agreed();
}

#[test]
fn the_realm_is_chosen_by_identity_where_addresses_say_nothing() {
    let mut others = realm(1);
    others.name = "others".into();
    others.remote = Vec::new();
    others.remote_id = Peers::any();
    let mut exact = realm(1);
    exact.remote = Vec::new();
    let mut world = World::new(1, vec![realm(0)], vec![others, exact]);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert_eq!(world.nodes[1].engine.status().sas[0].realm.as_deref(), Some("r"));
}

#[test]
fn selectors_are_narrowed_to_what_the_responder_grants() {
    let mut a = realm(0);
    a.children[0].local = specs(&["10.0.0.0/8"]);
    a.children[0].remote = specs(&["0.0.0.0/0"]);
    let world = World::established(1, a, realm(1));
    let child = world.nodes[0].children.values().next().unwrap();
    assert_eq!(child.ts_local[0].to_string(), "10.1.0.0/16");
    assert_eq!(child.ts_remote[0].to_string(), "10.2.0.0/16");
}

#[test]
fn unacceptable_selectors_fail_the_child_and_not_the_ike_sa() {
    let mut a = realm(0);
    a.children[0].remote = specs(&["172.16.0.0/12"]);
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    let up = world.up(0);
    world.run(5 * S);
    let why = world.answer(0, up).unwrap().as_ref().unwrap_err();
    assert!(why.contains("TS_UNACCEPTABLE") && why.contains("172.16.0.0/12"), "{why}");
    assert!(world.has_event(
        1,
        |e| matches!(e, Event::ChildFailed { why: Why::Incompatible(w), .. } if w.contains("172.16.0.0/12"))
    ));
    assert_eq!(world.ike_sas(0), 1);
    world.assert_agreed();
}

#[test]
fn an_esp_mismatch_fails_the_child_and_not_the_ike_sa() {
    let mut a = realm(0);
    a.children[0].esp = esp(&["aes256-sha512"]);
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    let up = world.up(0);
    world.run(5 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("NO_PROPOSAL_CHOSEN")));
    assert_eq!(world.ike_sas(1), 1);
    world.assert_agreed();
}

#[test]
fn several_children_follow_the_first() {
    let with = |n: usize| {
        let mut realm = realm(n);
        for i in 0..4 {
            let mut more = child(n, &format!("net{i}"));
            let nets = [format!("10.1{i}.0.0/16"), format!("10.2{i}.0.0/16")];
            more.local = specs(&[&nets[n]]);
            more.remote = specs(&[&nets[1 - n]]);
            realm.children.push(more);
        }
        realm
    };
    let world = World::established(1, with(0), with(1));
    assert_eq!(world.spis(0).len(), 5);
}

#[test]
fn childless_comes_up_without_a_child_and_takes_one_later() {
    let mut a = realm(0);
    a.childless = Childless::Prefer;
    let mut world = World::new(1, vec![a.clone()], vec![realm(1)]);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert_eq!(world.spis(0).len(), 1, "by CREATE_CHILD_SA");
    assert!(world.wire.iter().any(|(_, m)| is_exchange(m, 36, false)));
    world.assert_agreed();
    // A responder that wants none of it does not announce it, and the child goes along in IKE_AUTH.
    let mut b = realm(1);
    b.childless = Childless::Never;
    let world = World::established(1, a, b);
    assert!(!world.wire.iter().any(|(_, m)| is_exchange(m, 36, false)));
}

#[test]
fn transport_mode_is_agreed_on_or_not_at_all() {
    let transport = |n: usize| {
        let mut realm = realm(n);
        realm.children[0].mode = policy::ChildMode::Transport;
        realm.children[0].local = specs(&["dynamic"]);
        realm.children[0].remote = specs(&["dynamic"]);
        realm
    };
    let world = World::established(1, transport(0), transport(1));
    let child = world.nodes[1].children.values().next().unwrap();
    assert_eq!(child.mode, policy::ChildMode::Transport);
    assert_eq!(child.ts_local[0].to_string(), "192.168.0.2/32");
    // The responder has tunnel mode only: the initiator deletes what it got.
    let mut tunnel = transport(1);
    tunnel.children[0].mode = policy::ChildMode::Tunnel;
    let mut world = World::new(1, vec![transport(0)], vec![tunnel]);
    let up = world.up(0);
    world.run(20 * S);
    assert!(
        matches!(world.answer(0, up), Some(Err(why)) if why.contains("transport")),
        "{:?}",
        world.nodes[0].answers
    );
    world.assert_agreed();
    assert!(world.nodes[1].children.is_empty());
}

#[test]
fn forced_encapsulation_moves_to_the_nat_traversal_port_and_both_sides_do_it() {
    let mut a = realm(0);
    a.encap = Encap::Udp;
    let mut world = World::established(1, a, realm(1));
    for n in 0..2 {
        let child = world.nodes[n].children.values().next().unwrap();
        assert!(child.encap && child.path.local.port() == 4500 && child.path.remote.port() == 4500);
    }
    let auto = |n| {
        let mut realm = realm(n);
        realm.encap = Encap::Auto;
        realm
    };
    world = World::established(1, auto(0), auto(1));
    assert!(world.nodes[0].children.values().next().unwrap().encap, "two of one kind prefer UDP");
    world = World::established(1, auto(0), realm(1));
    assert!(!world.nodes[1].children.values().next().unwrap().encap, "but not if one wants it raw");
}

#[test]
fn a_peer_behind_a_nat_is_reached_where_it_is_seen() {
    let mut b = realm(1);
    b.remote = vec![RemoteAddress::Host(std::net::IpAddr::from([203, 0, 113, 1]))];
    let mut world = World::new(1, vec![realm(0)], vec![b]);
    world.nat = Some((0, std::net::IpAddr::from([203, 0, 113, 1]), 40000));
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    let server = world.nodes[1].children.values().next().unwrap();
    assert!(server.encap && server.peer_behind_nat && !server.keepalive);
    assert_eq!(server.path.remote.to_string(), "203.0.113.1:40001");
    let client = world.nodes[0].children.values().next().unwrap();
    assert!(client.encap && client.keepalive && !client.peer_behind_nat);
    assert_eq!(client.path.remote.port(), 4500);
    // The NAT forgets and gives another port: an authenticated packet shows it.
    let id = server.id;
    world.esp(
        1,
        tussock_ike::EspSignal::PeerMoved { child: id, remote: "203.0.113.1:50001".parse().unwrap() },
    );
    assert_eq!(world.nodes[1].engine.status().sas[0].path.remote.port(), 50001);
    assert!(world.has_event(1, |e| matches!(e, Event::PeerMoved { .. })));
    // A peer in the open may not move so.
    let id = *world.nodes[0].children.keys().next().unwrap();
    world.esp(0, tussock_ike::EspSignal::PeerMoved { child: id, remote: "198.51.100.1:1".parse().unwrap() });
    assert!(!world.has_event(0, |e| matches!(e, Event::PeerMoved { .. })));
}

#[test]
fn long_messages_are_fragmented_when_both_sides_can() {
    let small = |n, fragmentation| {
        let mut realm = realm(n);
        realm.fragment_size = 320;
        realm.fragmentation = fragmentation;
        realm.children[0].local = (0..40).flat_map(|i| specs(&[&format!("10.{}.{i}.0/24", 1 + n)])).collect();
        realm
    };
    for (a, b, fragmented) in [(true, true, true), (true, false, false), (false, true, false)] {
        let world = World::established(1, small(0, a), small(1, b));
        let skf = world.wire.iter().filter(|(_, m)| m[16] == 53).count();
        assert_eq!(skf > 0, fragmented);
        let auth = world.wire.iter().filter(|(_, m)| m[18] == 35).map(|(_, m)| m.len() + 28).max().unwrap();
        assert_eq!(auth <= 320, fragmented, "{auth}");
    }
    // And through bad weather.
    for seed in 1..10 {
        let mut world = World::new(seed, vec![small(0, true)], vec![small(1, true)]);
        world.link = Link { loss: 100, ..Link::BAD };
        let up = world.up(0);
        world.run(300 * S);
        world.assert_ok(0, up);
        world.assert_agreed();
    }
}

#[test]
fn a_device_reset_is_survived_and_a_dead_device_is_not_hung_on() {
    for node in 0..2 {
        let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
        world.nodes[node].aborts = 2;
        let up = world.up(0);
        world.run(10 * S);
        world.assert_ok(0, up);
        world.assert_agreed();
    }
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.nodes[0].aborts = 100;
    let up = world.up(0);
    world.run(10 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("device")));
    world.assert_agreed();
}

#[test]
fn a_retransmitted_request_starts_no_second_key_exchange() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.device_delay = 6 * S;
    let up = world.up(0);
    world.run(200 * S);
    world.assert_ok(0, up);
    assert!(
        world.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 34, false)).count() > 1,
        "it was retransmitted"
    );
    assert_eq!(world.nodes[1].jobs, 2, "one pair, one secret");
    let [ours, theirs] = [0, 1].map(|node| world.nodes[node].engine.status().repeats);
    assert!(
        ours.sent > 0 && ours.sent == theirs.received,
        "each is counted at both ends: {ours:?} {theirs:?}"
    );
    world.assert_agreed();
}

#[test]
fn nobody_there_is_reported_with_the_number_of_tries() {
    let mut world = World::new(1, vec![realm(0)], vec![]);
    world.nodes[1].alive = false;
    let up = world.up(0);
    world.run(200 * S);
    assert!(
        matches!(world.answer(0, up), Some(Err(why)) if why.contains("6 times")),
        "{:?}",
        world.nodes[0].answers
    );
    assert_eq!(world.nodes[0].engine.status().in_flight, 0);
}

#[test]
fn unauthenticated_refusals_are_hints_and_not_the_end() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    let up = world.up(0);
    world.run(Duration::from_millis(10));
    let request = world.wire[0].1.clone();
    let header = wire::ike::peek_header(&request).unwrap().response();
    let path = Path { local: (address(0), 500).into(), remote: (address(1), 500).into() };
    for kind in [wire::numbers::NotifyType::INVALID_SYNTAX, wire::numbers::NotifyType::AUTHENTICATION_FAILED]
    {
        let message = wire::ike::Message::new(header, vec![wire::ike::Notify::new(kind).into()]).emit();
        world.inject(0, path, &message);
    }
    world.run(5 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
}

#[test]
fn keys_are_given_for_wireshark_only_when_asked_for() {
    let world = World::established(1, realm(0), realm(1));
    assert!(world.nodes[0].keys.is_empty());
    let mut world = World::with_config(1, vec![realm(0)], vec![realm(1)], |c| c.key_log = true);
    world.up(0);
    world.run(5 * S);
    let kinds: Vec<bool> = world.nodes[0].keys.iter().map(|k| matches!(k, KeyLogEntry::Ike { .. })).collect();
    assert_eq!(kinds, [true, false, false]);
    world.rekey_ike(0);
    world.run(5 * S);
    assert_eq!(world.nodes[0].keys.len(), 4);
}

#[test]
fn a_shut_down_deletes_everything_and_is_answered_then() {
    let mut world = World::established(1, realm(0), realm(1));
    let done = world.command(0, Command::Shutdown);
    assert!(world.answer(0, done).is_none(), "the peer has not answered yet");
    world.run(5 * S);
    world.assert_ok(0, done);
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!(world.ike_sas(1), 0);
    assert!(world.nodes[1].children.is_empty());
    // Nothing comes up any more.
    let up = world.up(1);
    world.run(200 * S);
    assert!(matches!(world.answer(1, up), Some(Err(_))));
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    let done = world.command(0, Command::Shutdown);
    world.assert_ok(0, done);
}

#[test]
fn traffic_brings_a_child_up_with_the_packets_selectors_first() {
    let mut a = realm(0);
    a.start = Start::Traffic;
    a.children[0].local = specs(&["10.0.0.0/8"]);
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    let packet = |w: &mut World| {
        let local = "10.1.2.3/32".parse().unwrap();
        let remote = "10.2.0.1/32".parse().unwrap();
        w.esp(0, tussock_ike::EspSignal::Acquire { realm: "r".into(), child: "net".into(), local, remote });
    };
    for _ in 0..5 {
        packet(&mut world);
    }
    world.run(5 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1, "one, however many packets ask");
    assert_eq!(world.nodes[0].children.values().next().unwrap().ts_local[0].to_string(), "10.1.0.0/16");
}
