//! Rekeying of children and of the IKE SA: alone, from both sides at once, against deletes, under loss; and no packet lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use tussock_ike::{Command, Event};
use world::policy::{child, lives, realm};
use world::{Link, World, is_exchange};

const S: Duration = Duration::from_secs(1);

#[test]
fn a_child_is_rekeyed_and_no_packet_is_lost() {
    for side in 0..2 {
        let mut world = World::established(1, realm(0), realm(1));
        world.link.spread = Duration::from_millis(40);
        world.set_traffic(Duration::from_millis(1));
        world.run(S);
        let before = world.spis(0);
        let rekey = world.rekey_child(side, "net");
        world.run(10 * S);
        world.stop_traffic();
        world.run(S);
        world.assert_ok(side, rekey);
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1);
        assert_ne!(world.spis(0), before);
        for n in 0..2 {
            assert!(world.nodes[n].packets > 5000);
            assert_eq!(world.nodes[n].lost_packets, 0, "at node {n}, rekeyed by {side}");
        }
    }
}

#[test]
fn the_responder_of_a_rekey_sends_on_the_old_child_until_the_peer_is_on_the_new_one() {
    let mut world = World::established(1, realm(0), realm(1));
    world.rekey_child(0, "net");
    world.censor = Some(Box::new(|_, m| is_exchange(m, 37, false)));
    world.run(Duration::from_millis(400));
    // The Delete is lost and there is no traffic: both pairs are there, and node 1 has not switched.
    assert_eq!(world.nodes[1].children.len(), 2);
    let old = *world.nodes[1].children.keys().next().unwrap();
    assert_eq!(world.nodes[1].outbound["net"].last(), Some(&old));
    assert_ne!(world.nodes[0].outbound["net"].last(), world.nodes[0].children.keys().next());
    world.censor = None;
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!(world.nodes[1].outbound["net"].last(), world.nodes[1].children.keys().next());
}

#[test]
fn simultaneous_child_rekeys_leave_one_child() {
    for seed in 1..40 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link.spread = Duration::from_millis(30);
        world.set_traffic(Duration::from_millis(2));
        world.rekey_child(0, "net");
        world.rekey_child(1, "net");
        world.run(60 * S);
        world.stop_traffic();
        world.run(S);
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1, "seed {seed}");
        assert_eq!(world.nodes[0].lost_packets + world.nodes[1].lost_packets, 0, "seed {seed}");
    }
}

#[test]
fn simultaneous_child_rekeys_leave_one_child_under_loss_and_reordering() {
    for seed in 1..40 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link = Link::BAD;
        world.rekey_child(0, "net");
        world.run(Duration::from_millis(seed * 17 % 400));
        world.rekey_child(1, "net");
        world.run(300 * S);
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1, "seed {seed}");
    }
}

#[test]
fn an_ike_sa_is_rekeyed_and_its_children_live_on() {
    for side in 0..2 {
        let mut world = World::established(1, realm(0), realm(1));
        let (before, spis) = (world.nodes[0].engine.status().sas[0].spi_i, world.spis(0));
        let rekey = world.rekey_ike(side);
        world.run(10 * S);
        world.assert_ok(side, rekey);
        world.assert_agreed();
        assert_eq!(world.spis(0), spis, "the children are the same");
        assert_ne!(world.nodes[0].engine.status().sas[0].spi_i, before);
        // And it works: both sides can rekey the child on it.
        for n in 0..2 {
            let rekey = world.rekey_child(n, "net");
            world.run(10 * S);
            world.assert_ok(n, rekey);
            world.assert_agreed();
        }
        assert_ne!(world.spis(0), spis);
        assert!(!world.has_event(0, |e| matches!(e, Event::ChildFailed { .. })));
    }
}

#[test]
fn simultaneous_ike_rekeys_leave_one_ike_sa_with_the_children() {
    for seed in 1..60 {
        let mut world = World::established(seed, realm(0), realm(1));
        let spis = world.spis(0);
        world.link.spread = Duration::from_millis(20);
        world.rekey_ike(0);
        world.rekey_ike(1);
        world.run(200 * S);
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert_eq!(world.ike_sas(0), 1, "seed {seed}");
        assert_eq!(world.spis(0), spis, "seed {seed}");
    }
}

#[test]
fn simultaneous_ike_rekeys_end_well_under_loss_and_reordering() {
    for seed in 1..60 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link = Link::BAD;
        world.rekey_ike(0);
        world.run(Duration::from_millis(seed * 23 % 500));
        world.rekey_ike(1);
        world.run(400 * S);
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert_eq!(world.ike_sas(0), 1, "seed {seed}");
        assert_eq!(world.spis(0).len(), 1, "seed {seed}");
    }
}

#[test]
fn rekeys_and_deletes_of_one_child_at_once_end_alike_on_both_sides() {
    for seed in 1..60 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link =
            if seed % 2 == 0 { Link::BAD } else { Link { spread: Duration::from_millis(30), ..Link::GOOD } };
        world.rekey_child(0, "net");
        world.run(Duration::from_millis(seed * 7 % 60));
        world.command(1, Command::Down { realm: "r".into(), child: Some("net".into()) });
        world.run(300 * S);
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert!(world.spis(0).len() <= 1);
    }
}

#[test]
fn both_sides_deleting_one_child_at_once_leaves_none() {
    for seed in 1..20 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link = if seed % 2 == 0 { Link::BAD } else { Link::GOOD };
        let down =
            |w: &mut World, n| w.command(n, Command::Down { realm: "r".into(), child: Some("net".into()) });
        let (a, b) = (down(&mut world, 0), down(&mut world, 1));
        world.run(200 * S);
        world.assert_ok(0, a);
        world.assert_ok(1, b);
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 0);
        assert_eq!(world.ike_sas(0), 1, "the IKE SA stays");
    }
}

#[test]
fn child_and_ike_rekeys_from_different_sides_both_happen() {
    for seed in 1..60 {
        let mut world = World::established(seed, realm(0), realm(1));
        world.link =
            if seed % 2 == 0 { Link::BAD } else { Link { spread: Duration::from_millis(30), ..Link::GOOD } };
        let before = (world.spis(0), world.nodes[0].engine.status().sas[0].spi_i);
        world.rekey_child(0, "net");
        world.run(Duration::from_millis(seed * 5 % 50));
        world.rekey_ike(1);
        world.run(400 * S);
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert_eq!(world.spis(0).len(), 1);
        assert_ne!(world.spis(0), before.0);
        assert_ne!(world.nodes[0].engine.status().sas[0].spi_i, before.1);
    }
}

#[test]
fn lifetimes_make_rekeys_happen_on_both_sides_for_a_long_time() {
    let with_lifetimes = |n| {
        let mut realm = realm(n);
        realm.ike_rekey = lives(600);
        realm.children = vec![child(n, "net"), child(n, "more")];
        realm.children[1].local = world::policy::specs(&[["10.3.0.0/16", "10.4.0.0/16"][n]]);
        realm.children[1].remote = world::policy::specs(&[["10.4.0.0/16", "10.3.0.0/16"][n]]);
        for child in &mut realm.children {
            child.rekey = lives(100);
        }
        realm
    };
    for seed in 1..8 {
        let mut world = World::established(seed, with_lifetimes(0), with_lifetimes(1));
        world.link = Link { loss: 100, double: 100, ..Link::BAD };
        world.set_traffic(Duration::from_millis(500));
        world.run(3600 * S);
        world.stop_traffic();
        // No rekey is due in the next seconds of any seed; whatever is under way ends.
        let mut calm = 0;
        while calm < 5 {
            let before = world.wire.len();
            world.run(7 * S);
            calm = if world.wire.len() == before { calm + 1 } else { 0 };
        }
        eprintln!("seed {seed}");
        world.assert_agreed();
        assert_eq!(world.ike_sas(0), 1);
        assert_eq!(world.spis(0).len(), 2, "seed {seed}");
        let rekeyed =
            world.count_events(0, |e| matches!(e, Event::ChildEstablished { replaces: Some(_), .. }));
        assert!(rekeyed > 2 * 30, "{rekeyed}");
        let rekeyed = world.count_events(0, |e| matches!(e, Event::IkeRekeyed { .. }));
        assert!(rekeyed >= 6, "{rekeyed}");
        assert!(!world.has_event(0, |e| matches!(e, Event::PeerDead { .. })));
        let down =
            |e: &Event| matches!(e, Event::IkeClosed { was_up: true, why: tussock_ike::Why::Timeout(_), .. });
        assert!(!world.has_event(0, down), "{:#?}", world.nodes[0].events);
        assert_eq!(world.nodes[0].lost_packets, 0);
    }
}

#[test]
fn a_volume_limit_makes_a_rekey_happen() {
    let mut world = World::established(1, realm(0), realm(1));
    let id = *world.nodes[0].children.keys().next().unwrap();
    world.esp(0, tussock_ike::EspSignal::SoftLimit(id));
    world.esp(0, tussock_ike::EspSignal::SoftLimit(id));
    world.run(20 * S);
    world.assert_agreed();
    assert!(!world.nodes[0].children.contains_key(&id));
    assert_eq!(world.spis(0).len(), 1);
    let id = *world.nodes[0].children.keys().next().unwrap();
    world.esp(0, tussock_ike::EspSignal::HardLimit(id));
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1, "a stopped child is replaced by a fresh one");
    assert!(!world.nodes[0].children.contains_key(&id));
}

#[test]
fn a_child_that_cannot_be_installed_is_deleted_and_not_tried_without_end() {
    let mut a = realm(0);
    a.start = ::policy::Start::Boot;
    a.children[0].start = ::policy::Start::Boot;
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    world.nodes[0].installs_nothing = true;
    world.start(0);
    world.run(300 * S);
    assert_eq!(world.ike_sas(0), 1);
    assert!(world.spis(1).is_empty(), "the peer does not believe in it");
    let asked = world.wire.iter().filter(|(n, m)| *n == 0 && world::is_exchange(m, 36, false)).count();
    assert!((3..=10).contains(&asked), "asked for {asked} times in 300 s");
    world.nodes[0].installs_nothing = false;
    world.run(70 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1, "when the data path is well again, the child is there again");
}

#[test]
fn a_child_that_stops_while_it_is_rekeyed_has_one_successor() {
    for millis in [0, 1, 5, 11, 15, 21, 25, 31] {
        let mut world = World::established(millis, realm(0), realm(1));
        for round in 0..5 {
            let id = *world.nodes[0].children.keys().next_back().unwrap();
            world.esp(0, tussock_ike::EspSignal::SoftLimit(id));
            world.run(Duration::from_millis(millis));
            world.esp(0, tussock_ike::EspSignal::HardLimit(id));
            world.run(20 * S);
            world.assert_agreed();
            assert_eq!(world.spis(0).len(), 1, "after {millis} ms, round {round}");
        }
    }
}

#[test]
fn a_rekey_may_change_the_group_when_the_peer_asks_for_it() {
    let mut a = realm(0);
    a.children[0].esp = world::policy::esp(&["aes128gcm16-ecp256-x25519"]);
    a.ike = world::policy::ike(&["aes128gcm16-prfsha256-ecp256-x25519"]);
    let mut b = realm(1);
    b.children[0].esp = world::policy::esp(&["aes128gcm16-x25519"]);
    b.ike = world::policy::ike(&["aes128gcm16-prfsha256-x25519"]);
    let mut world = World::established(1, a, b);
    let before = world.spis(0);
    let rekey = world.rekey_child(0, "net");
    world.run(10 * S);
    world.assert_ok(0, rekey);
    world.assert_agreed();
    assert_ne!(world.spis(0), before);
    let suites = |w: &World| w.nodes[0].engine.status().sas[0].children[0].suite.clone();
    assert_eq!(suites(&world), "aes128gcm16-x25519");
    let ike = world.rekey_ike(0);
    world.run(10 * S);
    world.assert_ok(0, ike);
    world.assert_agreed();
}
