//! The life of a connection: liveness, restarts, INITIAL_CONTACT, reauthentication, inner addresses, cookies, reload.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::net::IpAddr;
use std::time::Duration;

use policy::{Dpd, DpdAction, Lifetime, Pool, PoolRange, Start, VirtualIpRequest};
use tussock_ike::{Command, EspSignal, Event, Path, Why};
use world::policy::{address, child, lives, realm, specs};
use world::{Link, World, is_exchange};

const S: Duration = Duration::from_secs(1);

fn with_dpd(node: usize, action: DpdAction) -> policy::Realm {
    let mut realm = realm(node);
    realm.dpd = Dpd { delay: 30 * S, action };
    realm
}

#[test]
fn an_idle_peer_is_asked_and_a_busy_one_is_not() {
    let mut world = World::established(1, with_dpd(0, DpdAction::Clear), realm(1));
    let asked = |w: &World| w.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 37, false)).count();
    world.run(95 * S);
    assert_eq!(asked(&world), 3, "one each 30 seconds");
    world.set_traffic(5 * S);
    let before = asked(&world);
    world.run(300 * S);
    assert_eq!(asked(&world), before, "packets are a sign of life");
    world.stop_traffic();
    world.run(40 * S);
    assert!(asked(&world) > before);
    assert_eq!(world.ike_sas(0), 1);
}

#[test]
fn a_dead_peer_is_noticed_and_cleared() {
    let mut world = World::established(1, with_dpd(0, DpdAction::Clear), realm(1));
    world.nodes[1].alive = false;
    world.run(200 * S);
    assert!(world.has_event(0, |e| matches!(e, Event::PeerDead { .. })));
    assert!(world.nodes[0].children.is_empty());
    assert_eq!(world.nodes[0].engine.status().sas.len(), 0);
    assert_eq!(world.nodes[0].engine.status().in_flight, 0);
    let sent = world.nodes[0].sent;
    world.run(600 * S);
    assert_eq!(world.nodes[0].sent, sent, "nothing more is tried");
}

#[test]
fn a_dead_peer_is_called_again_until_it_is_back() {
    let mut world = World::established(1, with_dpd(0, DpdAction::Restart), realm(1));
    world.nodes[1].alive = false;
    world.run(600 * S);
    assert!(world.has_event(0, |e| matches!(e, Event::PeerDead { .. })));
    assert!(world.nodes[0].children.is_empty());
    world.crash(1, vec![realm(1)]);
    world.nodes[1].alive = true;
    world.run(200 * S);
    world.assert_agreed();
    assert_eq!(world.spis(0).len(), 1);
}

#[test]
fn a_peer_that_lost_its_memory_is_told_by_initial_contact() {
    let mut world = World::established(1, realm(0), realm(1));
    // The initiator crashes and comes again; the responder drops the SA nobody has any more, without a word.
    world.crash(0, vec![realm(0)]);
    let up = world.up(0);
    world.run(10 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
    assert_eq!(world.ike_sas(1), 1);
    assert!(world.has_event(
        1,
        |e| matches!(e, Event::IkeClosed { why: Why::Normal(w), .. } if w.contains("INITIAL_CONTACT"))
    ));
}

#[test]
fn both_sides_starting_at_once_end_with_sas_that_both_have() {
    for seed in 1..20 {
        let boot = |n| {
            let mut realm = with_dpd(n, DpdAction::Restart);
            realm.start = Start::Boot;
            realm
        };
        let mut world = World::new(seed, vec![boot(0)], vec![boot(1)]);
        world.link.spread = Duration::from_millis(30);
        world.start(0);
        world.run(Duration::from_millis(seed * 3));
        world.start(1);
        world.run(300 * S);
        world.assert_agreed();
        assert!((1..=2).contains(&world.ike_sas(0)), "seed {seed}");
        assert!(!world.has_event(0, |e| matches!(e, Event::PeerDead { .. })), "seed {seed}");
    }
}

#[test]
fn a_realm_that_is_to_be_up_is_tried_again_and_waits_longer_each_time() {
    let mut a = realm(0);
    a.start = Start::Boot;
    let mut world = World::new(1, vec![a], vec![realm(1)]);
    world.nodes[1].alive = false;
    world.start(0);
    world.run(1000 * S);
    let tries = world.count_events(0, |e| matches!(e, Event::IkeClosed { was_up: false, .. }));
    assert!((5..=12).contains(&tries), "{tries}");
    world.nodes[1].alive = true;
    world.run(200 * S);
    world.assert_agreed();
    assert_eq!(world.ike_sas(0), 1);
    // Taken down by the peer it comes again, taken down by the operator it stays down.
    world.command(1, Command::Down { realm: "r".into(), child: None });
    world.run(30 * S);
    assert_eq!(world.ike_sas(0), 1);
    let down = world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(300 * S);
    world.assert_ok(0, down);
    assert_eq!(world.ike_sas(0) + world.ike_sas(1), 0);
    world.assert_agreed();
}

#[test]
fn reauthentication_replaces_everything_and_no_packet_is_lost() {
    let with = |n: usize| {
        let mut realm = realm(n);
        realm.unique = true;
        realm.ike_reauth = Lifetime { jitter: 0.0, ..Lifetime::of(300 * S) };
        let mut more = child(n, "more");
        more.local = specs(&[["10.3.0.0/16", "10.4.0.0/16"][n]]);
        more.remote = specs(&[["10.4.0.0/16", "10.3.0.0/16"][n]]);
        realm.children.push(more);
        realm
    };
    let mut world = World::established(1, with(0), with(1));
    let before = (world.spis(0), world.nodes[0].engine.status().sas[0].spi_i);
    world.set_traffic(Duration::from_millis(20));
    world.run(330 * S);
    world.stop_traffic();
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!((world.ike_sas(0), world.spis(0).len()), (1, 2));
    assert_ne!(world.nodes[0].engine.status().sas[0].spi_i, before.1);
    assert!(world.spis(0).iter().all(|s| !before.0.contains(s)));
    assert_eq!(world.nodes[0].lost_packets + world.nodes[1].lost_packets, 0);
    let auths = world.wire.iter().filter(|(_, m)| is_exchange(m, 35, true)).count();
    assert_eq!(auths, 2, "authenticated anew, once");
    // And rekeying in between does not put it off.
    world.rekey_ike(1);
    world.run(320 * S);
    world.assert_agreed();
    assert_eq!(world.wire.iter().filter(|(_, m)| is_exchange(m, 35, true)).count(), 3);
}

#[test]
fn a_failed_first_child_of_a_realm_that_is_to_be_up_is_tried_again() {
    let mut a = realm(0);
    a.start = Start::Boot;
    a.children[0].start = Start::Boot;
    let mut b = realm(1);
    b.children[0].local = specs(&["172.16.0.0/12"]);
    let mut world = World::new(1, vec![a], vec![b]);
    world.start(0);
    world.run(100 * S);
    assert!(world.count_events(0, |e| matches!(e, Event::ChildFailed { .. })) >= 2);
    assert_eq!((world.ike_sas(0), world.spis(0).len()), (1, 0));
    world.assert_agreed();
}

#[test]
fn a_reauthentication_that_fails_leaves_the_old_sa_and_is_tried_again() {
    let mut a = realm(0);
    a.ike_reauth = Lifetime { jitter: 0.0, ..Lifetime::of(300 * S) };
    let mut world = World::established(1, a, realm(1));
    let before = world.spis(0);
    world.set_psk(1, b"changed for a while");
    world.run(320 * S);
    assert_eq!(world.spis(0), before);
    world.set_psk(1, b"secret");
    world.run(200 * S);
    world.assert_agreed();
    assert_eq!(world.ike_sas(0), 1);
    assert_ne!(world.spis(0), before);
}

fn client() -> policy::Realm {
    let mut realm = realm(0);
    realm.virtual_ip = VirtualIpRequest { v4: true, v6: true, dns: false };
    realm.children[0].local = specs(&["dynamic"]);
    realm
}

fn server(v4: &str) -> policy::Realm {
    let mut realm = realm(1);
    let (net, len) = v4.split_once('/').unwrap();
    realm.pool = Some(Pool {
        ranges: vec![
            PoolRange::Network(net.parse().unwrap(), len.parse().unwrap()),
            PoolRange::Network("fec3::".parse().unwrap(), 120),
        ],
        dns: vec!["10.1.0.1".parse().unwrap()],
        subnets: vec![("10.2.0.0".parse().unwrap(), 16)],
        ..Pool::default()
    });
    realm.children[0].remote = specs(&["dynamic"]);
    realm.children[0].local = specs(&["10.2.0.0/16", "fec2::/16"]);
    realm
}

#[test]
fn a_client_is_given_addresses_and_its_child_is_for_them() {
    let mut a = client();
    a.children[0].remote = specs(&["10.2.0.0/16", "fec2::/16"]);
    let mut world = World::established(1, a, server("10.3.0.0/24"));
    let (add, addresses) = world.nodes[0].addresses.first().cloned().unwrap();
    assert!(add);
    let given: Vec<IpAddr> = addresses.iter().map(|a| a.address).collect();
    assert_eq!(given, ["10.3.0.2".parse::<IpAddr>().unwrap(), "fec3::2".parse().unwrap()]);
    let child = world.nodes[0].children.values().next().unwrap();
    let local: Vec<String> = child.ts_local.iter().map(|t| t.to_string()).collect();
    assert_eq!(local, ["10.3.0.2/32", "fec3::2/128"]);
    assert_eq!(world.nodes[1].engine.status().leases, [("r".into(), 2)]);
    // Rekeying keeps them, both ways.
    for n in 0..2 {
        world.rekey_ike(n);
        world.run(10 * S);
        world.rekey_child(1 - n, "net");
        world.run(10 * S);
        world.assert_agreed();
    }
    assert_eq!(world.nodes[0].addresses.len(), 1);
    assert_eq!(world.nodes[1].engine.status().leases, [("r".into(), 2)]);
    world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(30 * S);
    assert!(!world.nodes[0].addresses.last().unwrap().0, "taken back");
    assert_eq!(world.nodes[1].engine.status().leases, [("r".into(), 0)]);
}

#[test]
fn an_exhausted_pool_fails_the_child_and_not_the_ike_sa() {
    let mut a = client();
    a.virtual_ip.v6 = false;
    // Network, gateway, broadcast and one address, which is not given away at /30 but once.
    let mut world = World::new(1, vec![a.clone()], vec![server("10.3.0.0/30")]);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    // Another client, by another name.
    let mut other = a;
    other.local_id = policy::Identity::parse("carol.lab.test").unwrap();
    let mut server = server("10.3.0.0/30");
    server.remote_id = policy::Peers::any();
    let mut world = World::new(
        1,
        vec![other],
        vec![{
            let mut s = server.clone();
            s.pool.as_mut().unwrap().ranges.remove(0);
            s
        }],
    );
    let up = world.up(0);
    world.run(5 * S);
    assert!(
        matches!(world.answer(0, up), Some(Err(why)) if why.contains("INTERNAL_ADDRESS_FAILURE")),
        "{:?}",
        world.nodes[0].answers
    );
    let ours = |e: &Event| matches!(e, Event::ChildFailed { why: Why::Misconfigured(why), .. } if why.contains("pool"));
    assert!(world.has_event(1, ours), "{:#?}", world.nodes[1].events);
    assert_eq!(world.ike_sas(0), 1);
    world.assert_agreed();
}

#[test]
fn a_client_that_asks_for_no_address_is_told_that_it_must() {
    let mut a = realm(0);
    a.children[0].local = specs(&["dynamic"]);
    let mut world = World::new(1, vec![a], vec![server("10.3.0.0/24")]);
    let up = world.up(0);
    world.run(5 * S);
    assert!(
        matches!(world.answer(0, up), Some(Err(why)) if why.contains("FAILED_CP_REQUIRED")),
        "{:?}",
        world.nodes[0].answers
    );
}

#[test]
fn reauthentication_keeps_the_inner_address() {
    let mut a = client();
    a.ike_reauth = Lifetime { jitter: 0.0, ..Lifetime::of(100 * S) };
    a.children[0].remote = specs(&["10.2.0.0/16", "fec2::/16"]);
    let mut b = server("10.3.0.0/24");
    b.unique = true;
    let mut world = World::established(1, a, b);
    world.run(350 * S);
    world.assert_agreed();
    assert_eq!(world.nodes[0].addresses.len(), 1, "neither taken back nor given again");
    assert_eq!(world.nodes[1].engine.status().leases, [("r".into(), 2)]);
}

#[test]
fn with_cookies_on_a_pair_comes_up_and_strangers_cost_nothing() {
    let mut world = World::with_config(1, vec![realm(0)], vec![realm(1)], |c| c.cookie_threshold = 0);
    world.link = Link { loss: 100, ..Link::BAD };
    let up = world.up(0);
    world.run(200 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
    // A stranger that never answers.
    let request = world.wire[0].1.clone();
    let jobs = world.nodes[1].jobs;
    for n in 0..1000u32 {
        let mut forged = request.clone();
        forged[0..4].copy_from_slice(&n.to_be_bytes());
        let remote = IpAddr::from([192, 168, 0, 1]);
        world.inject(1, Path { local: (address(1), 500).into(), remote: (remote, 500).into() }, &forged);
    }
    let status = world.nodes[1].engine.status();
    assert_eq!((world.nodes[1].jobs, status.half_open, status.in_flight), (jobs, 0, 0));
}

#[test]
fn a_flood_turns_cookies_on_and_calm_turns_them_off() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.up(0);
    world.run(Duration::from_millis(30));
    let request = world.wire[0].1.clone();
    for n in 0..500u32 {
        let mut forged = request.clone();
        forged[0..4].copy_from_slice(&n.to_be_bytes());
        world.inject(1, Path { local: (address(1), 500).into(), remote: (address(0), 500).into() }, &forged);
    }
    assert!(world.has_event(1, |e| matches!(e, Event::Cookies { on: true, .. })));
    assert!(world.nodes[1].engine.status().half_open <= 101);
    // In the flood, a peer that answers comes up.
    let mut other = World::new(2, vec![realm(0)], vec![realm(1)]);
    std::mem::swap(&mut other.nodes[0], &mut world.nodes[0]);
    let up = world.up(0);
    world.run(120 * S);
    world.assert_ok(0, up);
    assert!(world.has_event(1, |e| matches!(e, Event::Cookies { on: false, .. })));
    let status = world.nodes[1].engine.status();
    assert_eq!((status.half_open, status.in_flight), (0, 0), "half-open SAs are given up");
    assert_eq!(status.sas.len(), 1);
}

#[test]
fn a_busy_device_turns_cookies_on() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.nodes[1].engine.set_crypto_room(0);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert!(world.has_event(1, |e| matches!(e, Event::Cookies { on: true, .. })));
    assert_eq!(world.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 34, false)).count(), 2);
}

#[test]
fn reload_touches_only_what_changed() {
    let second = |n: usize| {
        let mut realm = realm(n);
        realm.name = "s".into();
        realm.local_id = policy::Identity::parse(["a.test", "b.test"][n]).unwrap();
        realm.remote_id = policy::Peers::parse([["b.test", "a.test"][n]]).unwrap();
        realm.children[0].name = "other".into();
        realm
    };
    let both = |n| vec![realm(n), second(n)];
    let mut world = World::new(1, both(0), both(1));
    let up = (world.up(0), world.command(0, Command::Up { realm: "s".into(), child: None }));
    world.run(5 * S);
    world.assert_ok(0, up.0);
    world.assert_ok(0, up.1);
    let of = |w: &World, n: usize, r: &str| {
        let mut spis: Vec<u32> =
            w.nodes[n].children.values().filter(|c| *c.realm == *r).map(|c| c.spi_in).collect();
        spis.sort_unstable();
        spis
    };
    let kept = of(&world, 0, "r");
    // Nothing changed: nothing happens.
    let sent = world.nodes[0].sent;
    world.reload(0, both(0));
    world.run(5 * S);
    assert_eq!(world.nodes[0].sent, sent);
    // One changed and is to be up by itself; the other stays as it is.
    let mut changed = both(0);
    changed[1].start = Start::Boot;
    changed[1].children[0].rekey = lives(1000);
    let before = of(&world, 0, "s");
    world.reload(0, changed);
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!(of(&world, 0, "r"), kept);
    assert_ne!(of(&world, 0, "s"), before);
    assert_eq!(of(&world, 0, "s").len(), 1, "and it came up anew");
    // One is gone.
    world.reload(0, vec![realm(0)]);
    world.run(20 * S);
    world.assert_agreed();
    assert_eq!(of(&world, 0, "r"), kept);
    assert!(of(&world, 0, "s").is_empty());
}

#[test]
fn a_newer_sa_of_the_same_client_replaces_the_older_where_identities_are_unique() {
    let mut b = realm(1);
    b.unique = true;
    let mut world = World::established(1, realm(0), b);
    // The client forgot, and says nothing of INITIAL_CONTACT because another connection of the realm is up.
    let path = world.nodes[0].engine.status().sas[0].path;
    assert_eq!(path.remote.ip(), address(1));
    world.crash(0, vec![realm(0)]);
    let up = world.up(0);
    world.run(60 * S);
    world.assert_ok(0, up);
    assert_eq!(world.ike_sas(1), 1);
    world.assert_agreed();
}

#[test]
fn an_sa_nobody_rekeys_is_given_up_at_the_end_of_its_life() {
    let mut a = realm(0);
    a.children[0].rekey = Lifetime { hard_factor: 1.2, ..Lifetime::of(100 * S) };
    let mut world = World::established(1, a, realm(1));
    // Every CREATE_CHILD_SA of ours is lost, and so is what would rekey.
    world.censor = Some(Box::new(|n, m| n == 0 && is_exchange(m, 36, false)));
    world.run(400 * S);
    assert!(world.nodes[0].children.is_empty());
}

#[test]
fn packets_for_a_realm_that_fails_start_an_attempt_only_now_and_then() {
    let mut world = World::new(1, vec![realm(0)], vec![realm(1)]);
    world.set_psk(1, b"another");
    for _ in 0..600 {
        let (local, remote) = ("10.1.0.1/32".parse().unwrap(), "10.2.0.1/32".parse().unwrap());
        world.esp(0, EspSignal::Acquire { realm: "r".into(), child: "net".into(), local, remote });
        world.run(Duration::from_millis(100));
    }
    let attempts = world.count_events(0, |e| matches!(e, Event::IkeClosed { .. }));
    assert!((3..=8).contains(&attempts), "{attempts}");
}
