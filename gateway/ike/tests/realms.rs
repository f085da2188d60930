//! Realms by identity between two engines: who is asked about which of them, what the chosen one's policy means for an IKE SA that is
//! half made, names of ours, and peers without a name.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use policy::{AuthPolicy, Childless, Identity, Peers, Pool, PoolRange, Realm};
use tussock_ike::{Event, Why};
use world::World;
use world::policy::{ike, realm, specs};

const S: Duration = Duration::from_secs(1);

/// A realm of sun's for peers anywhere that fit these rules.
fn sun(name: &str, rules: &[&str]) -> Realm {
    let mut realm = realm(1);
    realm.name = name.into();
    realm.remote = vec![];
    realm.remote_id = Peers::parse(rules.iter().copied()).unwrap();
    realm
}

fn established(a: Vec<Realm>, b: Vec<Realm>) -> World {
    let mut world = World::new(1, a, b);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    world
}

fn names(world: &World) -> Vec<String> {
    let all = world.nodes[1].candidates.borrow();
    all.last().unwrap().iter().map(|name| name.to_string()).collect()
}

fn refused(world: &World, words: &str) -> bool {
    world.has_event(
        1,
        |e| matches!(e, Event::IkeClosed { was_up: false, why, .. } if why.to_string().contains(words)),
    )
}

#[test]
fn the_key_side_is_asked_about_the_realms_that_the_identity_fits_the_narrowest_first() {
    let realms = vec![
        sun("all", &["any"]),
        sun("suffix", &["*.other.test", "*.lab.test"]),
        sun("exact", &["moon.lab.test"]),
        sun("others", &["*.other.test"]),
        sun("groups", &["group: x", "eap: moon"]),
    ];
    let mut world = World::new(1, vec![realm(0)], realms);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert_eq!(names(&world), ["exact", "suffix", "all"]);
    assert_eq!(world.nodes[1].engine.status().sas[0].realm.as_deref(), Some("exact"));
}

#[test]
fn the_policy_of_the_realm_that_the_key_side_finds_counts() {
    let (mut wide, mut narrow) = (sun("wide", &["any"]), sun("narrow", &["*.lab.test"]));
    wide.children[0].local = specs(&["10.2.1.0/24"]);
    narrow.children[0].local = specs(&["10.2.2.0/24"]);
    for (verdict, net) in [("narrow", "10.2.2.0/24"), ("wide", "10.2.1.0/24")] {
        let mut world = World::new(1, vec![realm(0)], vec![wide.clone(), narrow.clone()]);
        world.nodes[1].verdict = Some(verdict.into());
        let up = world.up(0);
        world.run(5 * S);
        world.assert_ok(0, up);
        assert_eq!(world.nodes[1].engine.status().sas[0].realm.as_deref(), Some(verdict));
        assert_eq!(world.nodes[0].children.values().next().unwrap().ts_remote[0].to_string(), net);
        world.assert_agreed();
    }
    // One that was not asked about: the key side is out of its mind, or a reload took the realm away meanwhile.
    let mut world = World::new(1, vec![realm(0)], vec![wide, narrow]);
    world.nodes[1].verdict = Some("another".into());
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("AUTHENTICATION_FAILED")));
    assert!(refused(&world, "not asked about"), "{:?}", world.nodes[1].events);
    world.assert_agreed();
}

#[test]
fn a_suite_that_all_realms_of_an_address_take_is_chosen_before_anybody_knows_who_comes() {
    let (one, both) = ("aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519");
    let (mut wide, mut narrow) = (sun("wide", &["any"]), sun("narrow", &["moon.lab.test"]));
    wide.ike = ike(&[one, both]);
    narrow.ike = ike(&[both]);
    let mut moon = realm(0);
    moon.ike = ike(&[one, both]);
    let world = established(vec![moon], vec![wide.clone(), narrow.clone()]);
    let sa = world.nodes[1].engine.status().sas[0].clone();
    assert_eq!(sa.realm.as_deref(), Some("narrow"));
    assert_eq!(sa.suite, both);
    // Where there is none the peer is told at IKE_AUTH that it is no good, and not served by the next best realm.
    let mut moon = realm(0);
    moon.ike = ike(&[one]);
    let mut world = World::new(1, vec![moon], vec![wide, narrow]);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("AUTHENTICATION_FAILED")));
    assert!(
        refused(
            &world,
            "moon.lab.test belongs to realm `narrow`, which does not take the aes128gcm16-prfsha256-x25519"
        ),
        "{:?}",
        world.nodes[1].events
    );
    world.assert_agreed();
}

#[test]
fn a_childless_peer_of_a_realm_that_needs_a_child_is_refused_when_the_realm_is_known() {
    let (wide, mut narrow) = (sun("wide", &["any"]), sun("narrow", &["moon.lab.test"]));
    narrow.childless = Childless::Never;
    let mut moon = realm(0);
    moon.childless = Childless::Prefer;
    let mut world = World::new(1, vec![moon], vec![wide, narrow]);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(_))));
    assert!(refused(&world, "the realm needs one"), "{:?}", world.nodes[1].events);
    world.assert_agreed();
}

#[test]
fn whom_the_initiator_asks_for_decides_between_two_names_of_ours() {
    let id = |text: &str| Identity::parse(text).unwrap();
    let (mut first, mut second) = (sun("first", &["any"]), sun("second", &["any"]));
    (first.local_id, second.local_id) = (id("vpn1.lab.test"), id("vpn2.lab.test"));
    second.aliases = vec![id("old.lab.test")];
    for (asked, expected, shown) in [
        (Some("vpn1.lab.test"), "first", "vpn1.lab.test"),
        (Some("VPN2.lab.test"), "second", "vpn2.lab.test"),
        (Some("old.lab.test"), "second", "old.lab.test"),
        (None, "first", "vpn1.lab.test"),
    ] {
        let mut moon = realm(0);
        moon.remote_id = Peers::parse([asked.unwrap_or("*.lab.test")]).unwrap();
        moon.ike_rekey = world::policy::lives(100);
        let mut world = established(vec![moon], vec![first.clone(), second.clone()]);
        for _ in 0..2 {
            let sa = world.nodes[1].engine.status().sas[0].clone();
            assert_eq!(sa.realm.as_deref(), Some(expected), "{asked:?}");
            assert_eq!(sa.own_id, Some(id(shown)), "also after a rekey");
            world.run(110 * S);
        }
        world.assert_agreed();
    }
    let mut moon = realm(0);
    moon.remote_id = Peers::parse(["vpn3.lab.test"]).unwrap();
    let mut world = World::new(1, vec![moon], vec![first, second]);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(_))));
    assert!(
        refused(&world, "no realm for moon.lab.test looking for vpn3.lab.test"),
        "{:?}",
        world.nodes[1].events
    );
}

/// Realms of both sides without authentication; sun hands out addresses.
fn nobodies() -> (Realm, Realm) {
    let (mut moon, mut sun) = (realm(0), sun("open", &[]));
    for realm in [&mut moon, &mut sun] {
        (realm.local_auth, realm.remote_auth) = (AuthPolicy::Null, AuthPolicy::Null);
        (realm.local_id, realm.remote_id) = (Identity::Anonymous(0), Peers::new(vec![]));
        realm.unique = true;
    }
    moon.virtual_ip.v4 = true;
    moon.children[0].local = specs(&["dynamic"]);
    sun.children[0].remote = specs(&["dynamic"]);
    let ranges = vec![PoolRange::Network("10.3.0.0".parse().unwrap(), 24)];
    sun.pool = Some(Pool { ranges, ..Pool::default() });
    (moon, sun)
}

fn open(world: &mut World) {
    for node in &mut world.nodes {
        node.null = (true, true);
    }
}

#[test]
fn two_nobodies_get_a_tunnel_and_are_named_apart() {
    let (moon, sun) = nobodies();
    let mut world = World::new(1, vec![moon.clone()], vec![sun]);
    open(&mut world);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    let peer = |world: &World, n: usize| world.nodes[1].engine.status().sas[n].peer_id.clone().unwrap();
    let first = peer(&world, 0);
    assert!(first.is_anonymous() && first.to_string().starts_with("anonymous-"), "{first}");
    // Another one: same address, same nobody, and it says that it knows of no other. The first one stays.
    world.crash(0, vec![moon]);
    open(&mut world);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert_eq!(world.ike_sas(1), 2, "neither replaces the other");
    assert_ne!(peer(&world, 0), peer(&world, 1));
    let given: Vec<_> = world.nodes[1].engine.status().leases.clone();
    assert_eq!(given, [("open".into(), 2)], "each has an address of its own");
}

#[test]
fn a_nobody_gets_into_no_realm_that_wants_a_name_and_a_name_into_none_for_nobodies() {
    let (moon, _) = nobodies();
    let mut world = World::new(1, vec![moon], vec![sun("all", &["any"])]);
    open(&mut world);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(why)) if why.contains("AUTHENTICATION_FAILED")));
    assert!(refused(&world, "no realm for anonymous"), "{:?}", world.nodes[1].events);
    let (_, sun) = nobodies();
    let mut world = World::new(1, vec![realm(0)], vec![sun]);
    open(&mut world);
    let up = world.up(0);
    world.run(60 * S);
    assert!(matches!(world.answer(0, up), Some(Err(_))));
    assert!(world.has_event(1, |e| matches!(e, Event::IkeClosed { why: Why::Authentication(_), .. })));
    world.assert_agreed();
}

#[test]
fn one_side_may_be_nobody_and_the_other_somebody() {
    let (mut moon, mut sun) = nobodies();
    // Sun proves itself by its PSK, moon does not.
    (sun.local_auth, sun.local_id) = (AuthPolicy::Psk, world::policy::id(1));
    (moon.remote_auth, moon.remote_id) = (AuthPolicy::Psk, Peers::parse(["sun.lab.test"]).unwrap());
    let mut world = World::new(1, vec![moon], vec![sun]);
    world.nodes[0].null = (true, false);
    world.nodes[1].null = (false, true);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    let status = world.nodes[0].engine.status();
    assert_eq!(status.sas[0].peer_id, Some(world::policy::id(1)));
    assert!(world.nodes[1].engine.status().sas[0].peer_id.as_ref().unwrap().is_anonymous());
}
