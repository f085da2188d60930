//! Inner addresses over restarts, from DHCP servers, and what goes with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::net::IpAddr;
use std::time::Duration;

use policy::{DhcpSource, Identity, Pool, PoolRange, Realm, VirtualIpRequest};
use tussock_ike::{Command, Event, KnownLease, LeaseState};
use world::World;
use world::policy::{id, realm, specs};

const S: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn client(name: Option<&str>) -> Realm {
    let mut realm = realm(0);
    realm.virtual_ip = VirtualIpRequest { v4: true, v6: false, dns: true };
    realm.children[0].local = specs(&["dynamic"]);
    if let Some(name) = name {
        realm.local_id = Identity::parse(name).unwrap();
    }
    realm
}

fn server(pool: Pool) -> Realm {
    let mut realm = realm(1);
    realm.pool = Some(pool);
    realm.remote_id = policy::IdMatch::Any.into();
    realm.children[0].remote = specs(&["dynamic"]);
    realm
}

fn pool() -> Pool {
    Pool {
        ranges: vec![PoolRange::Network(ip("10.3.0.0"), 24)],
        hold: Duration::from_secs(3600),
        dns: vec![ip("10.1.0.1")],
        domains: vec!["corp.example".into()],
        ..Pool::default()
    }
}

fn given(world: &World) -> IpAddr {
    world.nodes[0].addresses.last().expect("an address").1[0].address
}

#[test]
fn what_was_written_down_holds_after_a_crash() {
    let mut world = World::established(1, client(None), server(pool()));
    assert_eq!(given(&world), ip("10.3.0.2"));
    let change = world.nodes[1].leases.last().cloned().unwrap();
    assert_eq!((change.address, change.state, &change.identity), (ip("10.3.0.2"), LeaseState::Held, &id(0)));
    let known = KnownLease { realm: "r".into(), address: change.address, identity: id(0), idle: 10 * S };
    // Another client comes first.
    let mut other = World::new(2, vec![client(Some("carol.lab.test"))], vec![server(pool())]);
    other.crash_knowing(1, vec![server(pool())], vec![known.clone()]);
    let up = other.up(0);
    other.run(5 * S);
    other.assert_ok(0, up);
    assert_eq!(given(&other), ip("10.3.0.3"), "it is kept for who had it");
    let mut same = World::new(3, vec![client(None)], vec![server(pool())]);
    same.crash_knowing(1, vec![server(pool())], vec![KnownLease { address: ip("10.3.0.77"), ..known }]);
    same.up(0);
    same.run(5 * S);
    assert_eq!(given(&same), ip("10.3.0.77"));
    world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(30 * S);
    assert_eq!(world.nodes[1].leases.last().unwrap().state, LeaseState::Idle);
}

#[test]
fn a_changed_pool_keeps_what_is_still_in_it() {
    let mut world = World::established(1, client(None), server(pool()));
    let wider = Pool { ranges: vec![PoolRange::Network(ip("10.3.0.0"), 16)], ..pool() };
    world.reload(1, vec![server(wider)]);
    world.run(60 * S);
    let lease = world.nodes[1].engine.leases(world.now);
    assert_eq!((lease.len(), lease[0].1.address), (1, ip("10.3.0.2")));
}

#[test]
fn domains_are_told_to_who_asks_and_without_name_servers_they_are_not() {
    let world = World::established(1, client(None), server(pool()));
    assert_eq!(world.nodes[0].domains, ["corp.example"]);
    let world = World::established(1, client(None), server(Pool { dns: vec![], ..pool() }));
    assert_eq!(world.nodes[0].domains, [] as [String; 0]);
}

#[test]
fn operators_forget_leases_that_are_not_in_use() {
    let mut world = World::established(1, client(None), server(pool()));
    let forget = |identity: Option<&str>| Command::ForgetLeases {
        realm: None,
        identity: identity.map(str::to_owned),
        address: None,
    };
    let ask = world.command(1, forget(None));
    assert!(world.answer(1, ask).unwrap().as_ref().unwrap_err().contains("in use"));
    world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(30 * S);
    let ask = world.command(1, forget(Some("somebody.else")));
    assert!(world.answer(1, ask).unwrap().is_err());
    let ask = world.command(1, forget(Some("moon.lab.test")));
    assert_eq!(world.answer(1, ask).unwrap().as_deref(), Ok("released: 1"));
    assert_eq!(world.nodes[1].leases.last().unwrap().state, LeaseState::Forgotten);
    assert!(world.nodes[1].engine.leases(world.now).is_empty());
}

fn by_dhcp() -> Pool {
    let (server, relay) = ("10.1.0.20".parse().unwrap(), "10.1.0.1".parse().unwrap());
    Pool { ranges: vec![], dhcp: Some(DhcpSource { server, relay, prefix: 16 }), ..pool() }
}

#[test]
fn the_exchange_waits_for_the_dhcp_server() {
    let mut world = World::new(1, vec![client(None)], vec![server(by_dhcp())]);
    world.nodes[1].dhcp = Some(Ok("10.1.4.7".parse().unwrap()));
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    world.assert_agreed();
    assert_eq!(given(&world), ip("10.1.4.7"));
    assert_eq!(world.nodes[1].wanted, [None]);
    // It comes back, and the server is asked for the same address again.
    world.command(0, Command::Down { realm: "r".into(), child: None });
    world.run(30 * S);
    world.up(0);
    world.run(5 * S);
    assert_eq!(world.nodes[1].wanted[1], Some("10.1.4.7".parse().unwrap()));
    world.assert_agreed();
    // The server takes the address back.
    let (mut fx, now) = (Vec::new(), world.now);
    world.nodes[1].engine.handle_address_lost(now, "r", ip("10.1.4.7"), &mut fx);
    assert!(!fx.is_empty(), "a Delete goes out");
}

#[test]
fn no_answer_of_a_dhcp_server_and_addresses_that_are_not_its_own_fail_the_child_alone() {
    for (answer, why) in [
        (Err("no answer".to_owned()), "no address by DHCP"),
        (Ok("10.9.0.7".parse().unwrap()), "not in the pool"),
    ] {
        let mut world = World::new(1, vec![client(None)], vec![server(by_dhcp())]);
        world.nodes[1].dhcp = Some(answer);
        let up = world.up(0);
        world.run(5 * S);
        let told = world.answer(0, up);
        assert!(matches!(told, Some(Err(text)) if text.contains("INTERNAL_ADDRESS_FAILURE")), "{told:?}");
        let failed =
            |e: &Event| matches!(e, Event::ChildFailed { why: w, .. } if w.to_string().contains(why));
        assert!(world.has_event(1, failed), "{:#?}", world.nodes[1].events);
        assert_eq!(world.ike_sas(0), 1);
        world.assert_agreed();
    }
}

#[test]
fn a_dhcp_server_that_is_never_heard_of_leaves_nothing_behind() {
    let mut world = World::new(1, vec![client(None)], vec![server(by_dhcp())]);
    world.up(0);
    world.run(600 * S);
    let status = world.nodes[1].engine.status();
    assert_eq!((status.in_flight, status.half_open), (0, 0));
}
