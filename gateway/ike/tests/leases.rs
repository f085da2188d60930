//! Inner addresses over restarts, from DHCP servers, and what goes with them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::net::IpAddr;
use std::time::Duration;

use policy::{DhcpSource, Identity, Pool, PoolRange, Realm, VirtualIpRequest};
use tussock_ike::{Command, DhcpLease, Event, KnownLease, LeaseState};
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
    let (server, relay) = (Some("10.1.0.20".parse().unwrap()), "10.1.0.1".parse().unwrap());
    Pool { ranges: vec![], dhcp: Some(DhcpSource { server, relay, prefix: 16, device: None }), ..pool() }
}

fn offer(text: &str) -> Result<DhcpLease, String> {
    Ok(DhcpLease { address: ip(text), dns: vec![], domains: vec![] })
}

#[test]
fn the_exchange_waits_for_the_dhcp_server() {
    let mut world = World::new(1, vec![client(None)], vec![server(by_dhcp())]);
    world.nodes[1].dhcp = Some(offer("10.1.4.7"));
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
    for (answer, why) in
        [(Err("no answer".to_owned()), "no address by DHCP"), (offer("10.9.0.7"), "not in the pool")]
    {
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

/// Both families from DHCP servers, and nothing else.
fn by_both() -> Pool {
    let (server, relay) = (Some("fec1::20".parse().unwrap()), "fec1::1".parse().unwrap());
    let dhcp6 = Some(DhcpSource { server, relay, prefix: 64, device: None });
    Pool { dhcp6, dns: vec![], domains: vec![], ..by_dhcp() }
}

fn server_of_both() -> Realm {
    let mut realm = server(by_both());
    realm.children[0].local = specs(&["10.2.0.0/16", "fec2::/64"]);
    realm
}

fn client_of_both() -> Realm {
    let mut realm = client(None);
    realm.virtual_ip.v6 = true;
    realm.children[0].remote = specs(&["10.2.0.0/16", "fec2::/64"]);
    realm
}

#[test]
fn both_families_come_by_dhcp_with_name_servers_and_domains_whichever_server_is_first() {
    for (slow, seed) in [(None, 1), (Some(true), 2), (Some(false), 3)] {
        let mut world = World::new(seed, vec![client_of_both()], vec![server_of_both()]);
        let node = &mut world.nodes[1];
        let dns = |text: &str, name: &str| (vec![ip(text)], vec![name.into()]);
        let (dns4, domains) = dns("10.1.0.53", "lan.example");
        let four = DhcpLease { address: ip("10.1.4.7"), dns: dns4, domains };
        let (dns6, domains) = dns("fec1::53", "six.example");
        let six = DhcpLease { address: ip("fec1::4:7"), dns: dns6, domains };
        // The one that is slow has not answered yet when the other has.
        node.dhcp = Some(Ok(four.clone())).filter(|_| slow != Some(true));
        node.dhcp6 = Some(Ok(six.clone())).filter(|_| slow != Some(false));
        let up = world.up(0);
        world.run(2 * S);
        if let Some(v4) = slow {
            assert_eq!(world.ike_sas(0), 0, "both are waited for");
            let answer = if v4 { four } else { six };
            world.address_comes(1, v4, Ok(answer));
            world.run(2 * S);
        }
        world.assert_ok(0, up);
        world.assert_agreed();
        let addresses: Vec<IpAddr> = world.nodes[0].addresses[0].1.iter().map(|a| a.address).collect();
        assert_eq!(addresses, [ip("10.1.4.7"), ip("fec1::4:7")]);
        assert_eq!(world.nodes[0].domains, ["lan.example", "six.example"]);
        assert_eq!(world.nodes[0].dns, [ip("10.1.0.53"), ip("fec1::53")]);
        assert_eq!(world.nodes[1].engine.status().in_flight, 0);
    }
}

#[test]
fn one_family_is_enough_and_with_neither_both_reasons_are_told() {
    let mut world = World::new(1, vec![client_of_both()], vec![server_of_both()]);
    world.nodes[1].dhcp = Some(Err("silence".to_owned()));
    world.nodes[1].dhcp6 = Some(offer("fec1::4:7"));
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    assert_eq!(given(&world), ip("fec1::4:7"));
    let mut world = World::new(1, vec![client_of_both()], vec![server_of_both()]);
    world.nodes[1].dhcp = Some(Err("silence".to_owned()));
    world.nodes[1].dhcp6 = Some(Err("no addresses".to_owned()));
    world.up(0);
    world.run(5 * S);
    let failed = |e: &Event| matches!(e, Event::ChildFailed { why, .. } if why.to_string().contains("silence; no addresses"));
    assert!(world.has_event(1, failed), "{:#?}", world.nodes[1].events);
}

#[test]
fn a_client_that_goes_while_both_servers_are_asked_leaves_nothing() {
    let mut world = World::new(1, vec![client_of_both()], vec![server_of_both()]);
    world.up(0);
    world.run(S);
    assert_eq!(world.nodes[1].wanted.len(), 2);
    world.nodes[0].alive = false;
    world.run(600 * S);
    let status = world.nodes[1].engine.status();
    assert_eq!((status.in_flight, status.half_open), (0, 0));
}

#[test]
fn networks_behind_the_server_have_routes_as_far_as_the_selectors_go() {
    let (mut carol, mut moon) = (client(None), server(pool()));
    carol.children[0].remote = specs(&["10.0.0.0/8", "192.168.0.0/16"]);
    moon.children[0].local = specs(&["10.0.0.0/8"]);
    let subnets = ["10.1.0.0/16", "10.1.0.0/16", "192.168.7.0/24", "172.16.0.0/12"];
    let network = |text: &&str| {
        let (address, len) = text.split_once('/').unwrap();
        (ip(address), len.parse().unwrap())
    };
    moon.pool = Some(Pool { subnets: subnets.iter().map(network).collect(), ..pool() });
    let mut world = World::new(1, vec![carol], vec![moon]);
    let up = world.up(0);
    world.run(5 * S);
    world.assert_ok(0, up);
    let child = world.nodes[0].children.values().next().unwrap();
    assert_eq!(child.subnets, [(ip("10.1.0.0"), 16)]);
    assert!(world.nodes[1].children.values().all(|child| child.subnets.is_empty()));
    // The next pair has them, too.
    let rekey = world.rekey_child(0, "net");
    world.run(30 * S);
    world.assert_ok(0, rekey);
    assert!(world.nodes[0].children.values().all(|child| child.subnets == [(ip("10.1.0.0"), 16)]));
    // What is ignored is told once.
    for words in ["172.16.0.0/12: not within a remote selector", "192.168.7.0/24: not within what child"] {
        let ignored =
            |e: &Event| matches!(e, Event::ConfigurationIgnored { what, .. } if what.contains(words));
        assert_eq!(world.count_events(0, ignored), 1, "{words}: {:#?}", world.nodes[0].events);
    }
}
