//! EAP within IKE_AUTH between two engines, whose key sides speak a method of a few rounds.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::time::Duration;

use policy::{AuthPolicy, IdMatch, Identity, Pool, PoolRange, Realm, VirtualIpRequest};
use tussock_ike::{Event, Why};
use world::policy::{realm, specs};
use world::{Link, World, is_exchange};

const S: Duration = Duration::from_secs(1);

/// The client, which proves itself by EAP; the server by its key.
fn client() -> Realm {
    let mut realm = realm(0);
    realm.local_auth = AuthPolicy::Eap;
    realm
}

fn server() -> Realm {
    let mut realm = realm(1);
    realm.remote_auth = AuthPolicy::Eap;
    realm.remote_id = IdMatch::Any.into();
    realm.remote = vec![];
    realm
}

fn world(seed: u64) -> World {
    World::new(seed, vec![client()], vec![server()])
}

fn failures(world: &World, node: usize) -> Vec<&Why> {
    let why = |event: &'_ Event| matches!(event, Event::IkeClosed { was_up: false, .. });
    let events = world.nodes[node].events.iter().filter(|e| why(e));
    events.filter_map(|e| if let Event::IkeClosed { why, .. } = e { Some(why) } else { None }).collect()
}

/// Nobody holds anything, after however long it takes.
fn assert_nothing_left(world: &mut World) {
    world.run(700 * S);
    for node in 0..2 {
        assert_eq!(world.nodes[node].engine.status().sas.len(), 0, "node {node}");
        assert_eq!(world.nodes[node].engine.status().half_open, 0);
        assert_eq!(world.nodes[node].engine.status().in_flight, 0);
        assert!(world.nodes[node].children.is_empty());
    }
}

#[test]
fn a_client_comes_up_by_eap_and_is_whom_eap_has_named() {
    let mut world = world(1);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
    // First request and four packets, Success, AUTH: five rounds of EAP and the last one.
    assert_eq!(world.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 35, false)).count(), 6);
    let sas = world.nodes[1].engine.status().sas;
    assert_eq!(sas[0].peer_id, Some(Identity::parse("carol").unwrap()));
    assert_eq!(sas[0].ike_id, Some(world::policy::id(0)), "IKE's name is kept beside it");
    assert_eq!(sas[0].how.as_deref(), Some("EAP-Test"));
    let sas = world.nodes[0].engine.status().sas;
    assert_eq!((&sas[0].peer_id, &sas[0].ike_id), (&Some(world::policy::id(1)), &None));
}

#[test]
fn eap_comes_through_loss_doubling_and_reordering_with_packets_in_fragments() {
    for seed in 1..25 {
        let mut world = world(seed);
        world.link = Link::BAD;
        for node in &mut world.nodes {
            node.eap.size = 3000;
        }
        let up = world.up(0);
        world.run(400 * S);
        eprintln!("seed {seed}");
        world.assert_ok(0, up);
        world.assert_agreed();
        assert!(world.nodes[0].largest < 1300 && world.nodes[1].largest < 1300, "sent in fragments");
        let sas = world.nodes[1].engine.status().sas;
        assert!(sas.iter().all(|sa| sa.peer_id == Some(Identity::parse("carol").unwrap())));
    }
}

#[test]
fn a_client_that_is_refused_hears_no_reason_and_nothing_is_left() {
    let mut world = world(1);
    world.nodes[1].eap.refuses = true;
    let up = world.up(0);
    world.run(20 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    let why = failures(&world, 0)[0].to_string();
    assert!(why.starts_with("authentication: EAP"), "{why}");
    let why = failures(&world, 1)[0].to_string();
    assert!(why.contains("not to be") && why.contains(&world::policy::id(0).to_string()), "{why}");
    assert_nothing_left(&mut world);
}

#[test]
fn who_goes_when_told_that_it_is_refused_is_refused_for_that_reason() {
    // It says that it goes, or goes without a word.
    for silent in [false, true] {
        let mut world = world(1);
        world.nodes[1].eap.regrets = true;
        world.nodes[0].eap.leaves = 5;
        if silent {
            world.censor = Some(Box::new(|node, message| node == 0 && is_exchange(message, 37, false)));
        }
        let up = world.up(0);
        world.run(700 * S);
        assert!(world.nodes[0].answers[&up].is_err());
        let why = failures(&world, 1)[0].to_string();
        assert_eq!(why, "authentication: moon.lab.test: EAP: not to be", "silent: {silent}");
        assert_nothing_left(&mut world);
    }
    // Who stays hears the end of it.
    let mut world = world(1);
    (world.nodes[1].eap.regrets, world.nodes[1].eap.refuses) = (true, true);
    let up = world.up(0);
    world.run(20 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    assert!(failures(&world, 1)[0].to_string().contains("not to be"));
    assert_nothing_left(&mut world);
}

#[test]
fn who_does_not_know_the_key_that_eap_gave_is_not_let_in() {
    // Somebody between the two that speaks EAP with both has another key with each.
    for liar in 0..2 {
        let mut world = world(1);
        world.nodes[liar].eap.msk = vec![6; 64];
        let up = world.up(0);
        world.run(20 * S);
        assert!(world.nodes[0].answers[&up].is_err(), "{liar}");
        assert!(world.nodes[1].children.is_empty() && world.nodes[0].children.is_empty());
        assert!(!world.has_event(1, |e| matches!(e, Event::IkeEstablished { .. })));
        assert_nothing_left(&mut world);
    }
}

#[test]
fn a_server_that_proves_nothing_is_shown_nothing() {
    let mut world = world(1);
    world.set_psk(1, b"another");
    let up = world.up(0);
    world.run(10 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    // The first request, and nothing after its answer.
    assert_eq!(world.wire.iter().filter(|(n, m)| *n == 0 && is_exchange(m, 35, false)).count(), 1);
    assert_nothing_left(&mut world);
}

#[test]
fn a_method_without_a_key_is_taken_only_where_both_sides_say_so() {
    for (a, b) in [(false, false), (true, false), (false, true), (true, true)] {
        let (mut client, mut server) = (client(), server());
        (client.eap.keyless, server.eap.keyless) = (a, b);
        let mut world = World::new(1, vec![client], vec![server]);
        for node in &mut world.nodes {
            node.eap.grant.keyed = false;
        }
        let up = world.up(0);
        world.run(20 * S);
        assert_eq!(world.nodes[0].answers[&up].is_ok(), a && b, "{a} {b}");
        assert_eq!(world.ike_sas(1), usize::from(a && b));
        if !(a && b) {
            assert_nothing_left(&mut world);
        }
    }
}

#[test]
fn eap_alone_needs_both_sides_to_agree() {
    let alone = |mut realm: Realm, only: bool| {
        realm.eap.only = only;
        realm
    };
    // Both, the client alone, the server alone.
    for (a, b) in [(true, true), (true, false), (false, true)] {
        let mut world = World::new(1, vec![alone(client(), a)], vec![alone(server(), b)]);
        let up = world.up(0);
        world.run(20 * S);
        world.assert_ok(0, up);
        world.assert_agreed();
        let by_key =
            world.has_event(0, |e| matches!(e, Event::IkeEstablished { how, .. } if **how == *"PSK"));
        assert_eq!(by_key, !(a && b), "{a} {b}");
    }
    // A server without a key of its own, and a client that has not heard of it.
    let mut keyless_server = alone(server(), true);
    keyless_server.local_auth = AuthPolicy::Eap;
    let mut world = World::new(1, vec![client()], vec![keyless_server.clone()]);
    let up = world.up(0);
    world.run(20 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    assert!(failures(&world, 1)[0].to_string().contains("RFC 5998"));
    let mut client = alone(client(), true);
    client.remote_auth = AuthPolicy::Eap;
    let mut world = World::new(1, vec![client.clone()], vec![keyless_server]);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    // Alone, a method without a key proves nothing of the server.
    client.eap.keyless = true;
    let mut server = alone(server(), true);
    server.eap.keyless = true;
    let mut world = World::new(1, vec![client], vec![server]);
    world.nodes.iter_mut().for_each(|node| node.eap.grant.keyed = false);
    let up = world.up(0);
    world.run(20 * S);
    assert!(world.nodes[0].answers[&up].is_err());
}

#[test]
fn a_password_is_asked_for_when_there_is_none() {
    let mut world = world(1);
    world.nodes[0].eap.wants = Some("carol".into());
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    assert!(world.has_event(0, |e| matches!(e, Event::PasswordWanted { user, .. } if user == "carol")));
}

#[test]
fn what_a_client_was_granted_is_its_address_and_its_time() {
    let (mut client, mut server) = (client(), server());
    client.virtual_ip = VirtualIpRequest { v4: true, ..VirtualIpRequest::default() };
    client.children[0].local = specs(&["dynamic"]);
    server.children[0].remote = specs(&["dynamic"]);
    let pool = Pool {
        ranges: vec![PoolRange::Network("10.3.0.0".parse().unwrap(), 24)],
        dns: vec!["10.1.0.1".parse().unwrap()],
        granted_outside: true,
        ..Pool::default()
    };
    server.pool = Some(pool);
    let mut world = World::new(1, vec![client], vec![server]);
    let grant = &mut world.nodes[1].eap.grant;
    grant.addresses = vec!["10.9.0.7".parse().unwrap()];
    grant.session_timeout = Some(300 * S);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    let (added, ours) = world.nodes[0].addresses[0].clone();
    assert!(added && ours[0].address == "10.9.0.7".parse::<std::net::IpAddr>().unwrap());
    // The session ends at its time, whatever was rekeyed meanwhile.
    let rekey = world.rekey_ike(1);
    world.run(240 * S);
    world.assert_ok(1, rekey);
    assert_eq!((world.ike_sas(0), world.ike_sas(1)), (1, 1));
    world.run(50 * S);
    assert_eq!(world.ike_sas(1), 0);
    assert!(world.has_event(
        1,
        |e| matches!(e, Event::IkeClosed { why: Why::Normal(why), .. } if why.contains("let in"))
    ));
}

/// Clients that are granted addresses by the server that let them in.
fn granted(address: &str, realms: Vec<Realm>) -> World {
    let mut client = client();
    client.virtual_ip = VirtualIpRequest { v4: true, ..VirtualIpRequest::default() };
    client.children[0].local = specs(&["dynamic"]);
    let mut world = World::new(1, vec![client], realms);
    world.nodes[1].eap.grant.addresses = vec![address.parse().unwrap()];
    world
}

fn granting(name: &str) -> Realm {
    let mut realm = server();
    realm.name = name.into();
    realm.unique = true;
    realm.dpd.delay = 30 * S;
    realm.children[0].remote = specs(&["dynamic"]);
    realm
}

/// Another client from the same place, which knows nothing of the one before.
fn next(world: &mut World, user: &str, realm: &str) -> Result<String, String> {
    let mut client = client();
    client.virtual_ip = VirtualIpRequest { v4: true, ..VirtualIpRequest::default() };
    client.children[0].local = specs(&["dynamic"]);
    let grant = world.nodes[1].eap.grant.clone();
    world.crash(0, vec![client]);
    world.nodes[0].alive = true;
    let eap = &mut world.nodes[1].eap;
    (eap.grant, eap.realm) = (grant, realm.to_owned());
    eap.grant.identity = user.into();
    let up = world.up(0);
    world.run(20 * S);
    world.answer(0, up).cloned().expect("an answer")
}

fn has(world: &World) -> Option<String> {
    world.nodes[0].addresses.last().filter(|(add, _)| *add).map(|(_, ours)| ours[0].address.to_string())
}

fn refused(world: &World, words: &str) -> bool {
    let why = |why: &Why| why.to_string().contains(words);
    world.has_event(1, |e| matches!(e, Event::ChildFailed { why: w, .. } if why(w)))
}

#[test]
fn an_address_granted_twice_in_a_realm_without_a_pool_is_the_first_ones() {
    let mut world = granted("10.9.0.7", vec![granting("r")]);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    assert_eq!(has(&world).as_deref(), Some("10.9.0.7"));
    let answer = next(&mut world, "dave", "r");
    assert!(matches!(&answer, Err(why) if why.contains("INTERNAL_ADDRESS_FAILURE")), "{answer:?}");
    assert!(
        refused(&world, "10.9.0.7 was assigned by the authentication server, and carol has it in realm r"),
        "{:#?}",
        world.nodes[1].events
    );
    // Carol herself comes again, and has it after the IKE SA was rekeyed, too.
    next(&mut world, "carol", "r").unwrap();
    assert_eq!(has(&world).as_deref(), Some("10.9.0.7"));
    let rekey = world.rekey_ike(0);
    world.run(20 * S);
    world.assert_ok(0, rekey);
    assert!(next(&mut world, "dave", "r").is_err());
    // When she is gone it is dave's.
    world.nodes[0].alive = false;
    world.run(2000 * S);
    next(&mut world, "dave", "r").unwrap();
    assert_eq!(has(&world).as_deref(), Some("10.9.0.7"));
}

#[test]
fn an_address_granted_in_two_realms_is_the_first_ones() {
    let mut world = granted("10.9.0.7", vec![granting("r"), granting("s")]);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    assert!(next(&mut world, "carol", "s").is_err(), "not even for one of the same name");
    assert!(refused(&world, "carol has it in realm r"), "{:#?}", world.nodes[1].events);
}

#[test]
fn a_pool_gives_nobody_what_was_granted_in_another_realm_and_the_other_way_round() {
    let ranges = vec![PoolRange::Network("10.9.0.0".parse().unwrap(), 29)];
    let pool = Pool { ranges, ..Pool::default() };
    let with_pool = || Realm { pool: Some(pool.clone()), ..granting("s") };
    // The pool's first address is granted elsewhere.
    let mut world = granted("10.9.0.2", vec![granting("r"), with_pool()]);
    let up = world.up(0);
    world.run(20 * S);
    world.assert_ok(0, up);
    world.nodes[1].eap.grant.addresses.clear();
    next(&mut world, "dave", "s").unwrap();
    assert_eq!(has(&world).as_deref(), Some("10.9.0.3"));
    // And what a client of the pool has is not granted.
    world.nodes[1].eap.grant.addresses = vec!["10.9.0.3".parse().unwrap()];
    assert!(next(&mut world, "erin", "r").is_err());
    assert!(refused(&world, "10.9.0.3 was assigned to the peer, and dave has it in realm s"));
    // What was passed over comes to be the pool's when it is free again.
    world.nodes[0].alive = false;
    world.run(4000 * S);
    world.nodes[1].eap.grant.addresses.clear();
    let mut seen = std::collections::BTreeSet::new();
    for user in ["a", "b", "c", "d", "e"] {
        next(&mut world, user, "s").unwrap();
        seen.insert(has(&world).unwrap());
    }
    assert_eq!(seen.len(), 5, "all five are handed out: {seen:?}");
}

#[test]
fn a_client_that_goes_in_the_middle_leaves_nothing() {
    for cut in 1..6 {
        let mut world = world(1);
        let mut seen = 0;
        world.censor = Some(Box::new(move |node, bytes| {
            seen += usize::from(node == 0 && is_exchange(bytes, 35, false));
            seen > cut
        }));
        world.up(0);
        world.run(5 * S);
        world.nodes[0].alive = false;
        world.run(200 * S);
        let status = world.nodes[1].engine.status();
        assert_eq!((status.sas.len(), status.half_open, status.in_flight), (0, 0, 0), "{cut}");
    }
}

#[test]
fn a_client_that_asks_for_eap_finds_only_realms_that_take_it() {
    let mut world = World::new(1, vec![client()], vec![realm(1)]);
    let up = world.up(0);
    world.run(10 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    assert!(failures(&world, 1)[0].to_string().contains("EAP"), "{:?}", failures(&world, 1));
    // And one with a key of its own none of those.
    let mut world = World::new(1, vec![realm(0)], vec![server()]);
    let up = world.up(0);
    world.run(10 * S);
    assert!(world.nodes[0].answers[&up].is_err());
    // Two realms on one address, told apart by that.
    let mut psk = realm(1);
    psk.name = "psk".into();
    for client in [client(), realm(0)] {
        let mut world = World::new(1, vec![client.clone()], vec![server(), psk.clone()]);
        let up = world.up(0);
        world.run(20 * S);
        world.assert_ok(0, up);
        let wanted = if client.local_auth == AuthPolicy::Eap { "r" } else { "psk" };
        assert_eq!(world.nodes[1].engine.status().sas[0].realm.as_deref(), Some(wanted));
    }
}
