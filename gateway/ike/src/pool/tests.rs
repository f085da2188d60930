use super::*;
use ipc::IkeSaRef;
use policy::PoolRange;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const ANY4: Wish = Wish { v4: Some(Ipv4Addr::UNSPECIFIED), v6: None };
const NONE: &dyn Fn(IpAddr) -> bool = &|_| false;
const ANY6: Wish = Wish { v4: None, v6: Some(Ipv6Addr::UNSPECIFIED) };

fn pool(v4: Option<&str>, v6: Option<&str>) -> AddressPool {
    AddressPool::new(&policy(&v4.into_iter().chain(v6).collect::<Vec<_>>()))
}

fn policy(ranges: &[&str]) -> Pool {
    let range = |text: &&str| match text.split_once('-') {
        Some((first, last)) => PoolRange::Range(first.parse().unwrap(), last.parse().unwrap()),
        None => {
            let (net, len) = text.split_once('/').unwrap();
            PoolRange::Network(net.parse().unwrap(), len.parse().unwrap())
        }
    };
    Pool { ranges: ranges.iter().map(range).collect(), ..Pool::default() }
}

fn at(seconds: u64) -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START + Duration::from_secs(seconds)
}

fn sa(n: u64) -> IkeSaId {
    IkeSaRef(n)
}

fn id(n: u64) -> Identity {
    Identity::Fqdn(format!("client{n}.lab.test"))
}

/// Everything a pool has for clients that all differ.
fn drain(pool: &mut AddressPool, wish: Wish) -> Vec<String> {
    let lease = |n| pool.lease(at(0), sa(n), &id(n), wish, true, NONE).ok();
    let text = |l: Lease| l.v4.map(|a| a.to_string()).or(l.v6.map(|a| a.to_string())).unwrap();
    (0..300).map_while(lease).map(text).collect()
}

#[test]
fn network_broadcast_and_gateway_are_not_handed_out() {
    let table = [
        ("10.3.0.0/29", vec!["10.3.0.2", "10.3.0.3", "10.3.0.4", "10.3.0.5", "10.3.0.6"]),
        ("10.3.0.5/29", vec!["10.3.0.2", "10.3.0.3", "10.3.0.4", "10.3.0.5", "10.3.0.6"]),
        ("10.3.0.0/30", vec!["10.3.0.2"]),
        ("10.3.0.0/31", vec!["10.3.0.1"]),
        ("10.3.0.7/32", vec!["10.3.0.7"]),
        ("255.255.255.252/30", vec!["255.255.255.254"]),
    ];
    for (prefix, all) in table {
        assert_eq!(drain(&mut pool(Some(prefix), None), ANY4), all, "{prefix}");
    }
    let table = [
        ("fec3::/126", vec!["fec3::2", "fec3::3"]),
        ("fec3::/127", vec!["fec3::1"]),
        ("fec3::9/128", vec!["fec3::9"]),
    ];
    for (prefix, all) in table {
        assert_eq!(drain(&mut pool(None, Some(prefix)), ANY6), all, "{prefix}");
    }
    assert_eq!(drain(&mut pool(Some("10.0.0.0/24"), None), ANY4).len(), 253);
}

#[test]
fn big_prefixes_cost_nothing_and_overflow_nowhere() {
    for prefix in ["fec3::/64", "::/0", "ffff:ffff:ffff:ffff::/64"] {
        let mut pool = pool(None, Some(prefix));
        assert_eq!(drain(&mut pool, ANY6).len(), 300, "{prefix}");
        assert_eq!(pool.in_use(), 300);
    }
    assert_eq!(drain(&mut pool(Some("0.0.0.0/0"), None), ANY4)[0], "0.0.0.2");
}

#[test]
fn client_that_comes_back_finds_its_address() {
    let mut pool = pool(Some("10.3.0.0/24"), Some("fec3::/64"));
    let both = Wish { v4: ANY4.v4, v6: ANY6.v6 };
    let first = pool.lease(at(0), sa(1), &id(1), both, true, NONE).unwrap();
    assert!(first.v4.is_some() && first.v6.is_some());
    pool.lease(at(0), sa(2), &id(2), both, true, NONE).unwrap();
    pool.release(at(0), sa(1));
    assert_eq!(pool.in_use(), 2);
    assert_ne!(
        pool.lease(at(0), sa(3), &id(3), both, true, NONE).unwrap(),
        first,
        "there is room for others elsewhere"
    );
    assert_eq!(pool.lease(at(0), sa(4), &id(1), both, true, NONE), Ok(first));
    assert_eq!(pool.lease(at(0), sa(4), &id(1), both, true, NONE), Ok(first), "asked twice, given once");
}

#[test]
fn address_unused_for_longest_goes_to_others_when_nothing_else_is_left() {
    let mut pool = pool(Some("10.3.0.0/29"), None);
    let leases: Vec<Lease> =
        (0..5).map(|n| pool.lease(at(0), sa(n), &id(n), ANY4, true, NONE).unwrap()).collect();
    assert_eq!(pool.lease(at(0), sa(9), &id(9), ANY4, true, NONE), Err(NoAddress::Exhausted));
    pool.release(at(0), sa(3));
    pool.release(at(0), sa(1));
    assert_eq!(pool.lease(at(0), sa(9), &id(9), ANY4, true, NONE), Ok(leases[3]));
    assert_eq!(
        pool.lease(at(0), sa(10), &id(1), ANY4, true, NONE),
        Ok(leases[1]),
        "the other one is still its own"
    );
    assert_eq!(pool.lease(at(0), sa(11), &id(3), ANY4, true, NONE), Err(NoAddress::Exhausted));
}

#[test]
fn one_identity_shares_its_address_or_has_one_for_each_sa() {
    let mut pool = pool(Some("10.3.0.0/24"), None);
    let first = pool.lease(at(0), sa(1), &id(1), ANY4, true, NONE).unwrap();
    assert_eq!(
        pool.lease(at(0), sa(2), &id(1), ANY4, true, NONE),
        Ok(first),
        "a new IKE SA before the old one is gone"
    );
    let other = pool.lease(at(0), sa(3), &id(1), ANY4, false, NONE).unwrap();
    assert_ne!(other, first);
    pool.release(at(0), sa(1));
    assert_ne!(
        pool.lease(at(0), sa(4), &id(1), ANY4, false, NONE),
        Ok(first),
        "the second SA holds it still"
    );
    pool.release(at(0), sa(2));
    assert_eq!(pool.lease(at(0), sa(5), &id(1), ANY4, false, NONE), Ok(first));
}

#[test]
fn address_follows_the_sa_that_replaces_its_holder() {
    let mut pool = pool(Some("10.3.0.0/30"), None);
    let lease = pool.lease(at(0), sa(1), &id(1), ANY4, true, NONE).unwrap();
    pool.transfer(sa(1), sa(2));
    pool.release(at(0), sa(1));
    assert_eq!(pool.in_use(), 1);
    assert_eq!(pool.lease(at(0), sa(3), &id(3), ANY4, true, NONE), Err(NoAddress::Exhausted));
    assert_eq!(pool.lease(at(0), sa(2), &id(1), ANY4, true, NONE), Ok(lease));
    pool.release(at(0), sa(2));
    assert_eq!(pool.lease(at(0), sa(3), &id(3), ANY4, true, NONE), Ok(lease));
}

#[test]
fn wish_for_an_address_is_granted_when_it_is_free_and_ours() {
    let mut pool = pool(Some("10.3.0.0/24"), None);
    let wish = |text: &str| Wish { v4: Some(text.parse().unwrap()), v6: None };
    let got = |lease: Result<Lease, NoAddress>| lease.unwrap().v4.unwrap().to_string();
    assert_eq!(got(pool.lease(at(0), sa(1), &id(1), wish("10.3.0.77"), true, NONE)), "10.3.0.77");
    assert_eq!(
        got(pool.lease(at(0), sa(2), &id(2), wish("10.3.0.77"), true, NONE)),
        "10.3.0.2",
        "it is taken"
    );
    for outside in ["10.3.0.0", "10.3.0.1", "10.3.0.255", "10.4.0.9", "255.255.255.255", "0.0.0.1"] {
        let n = u64::from(u32::from(outside.parse::<Ipv4Addr>().unwrap())) + 1000;
        let lease = got(pool.lease(at(0), sa(n), &id(n), wish(outside), true, NONE));
        assert!(lease.starts_with("10.3.0.") && lease != outside && lease != "10.3.0.77", "{lease}");
    }
    pool.release(at(0), sa(1));
    assert_eq!(
        got(pool.lease(at(0), sa(3), &id(3), wish("10.3.0.77"), true, NONE)),
        "10.3.0.9",
        "another's old address"
    );
}

#[test]
fn family_without_a_pool_is_left_out() {
    let mut pool = pool(Some("10.3.0.0/24"), None);
    let both = Wish { v4: ANY4.v4, v6: ANY6.v6 };
    let lease = pool.lease(at(0), sa(1), &id(1), both, true, NONE).unwrap();
    assert!(lease.v4.is_some() && lease.v6.is_none());
    assert_eq!(pool.lease(at(0), sa(2), &id(2), ANY6, true, NONE), Err(NoAddress::Exhausted));
    assert_eq!(pool.lease(at(0), sa(3), &id(3), Wish::default(), true, NONE), Err(NoAddress::Exhausted));
}

#[test]
fn memory_is_bounded_by_the_number_of_leases() {
    let mut pool = pool(None, Some("fec3::/64"));
    for n in 0..MAX_LEASES as u64 + 500 {
        pool.lease(at(0), sa(n), &id(n), ANY6, true, NONE).unwrap();
        pool.release(at(0), sa(n));
    }
    let shelf = &pool.v6;
    assert!(shelf.leases.len() <= MAX_LEASES && shelf.by_identity.len() <= MAX_LEASES);
    assert!(shelf.idle.len() <= MAX_LEASES && shelf.held.is_empty());
}

proptest! {
    #[test]
    fn no_address_is_held_by_two_identities(
        steps in prop::collection::vec((0u64..12, 0u64..6, 0u8..8, 0u8..3, any::<bool>()), 0..120),
    ) {
        let mut pool = pool(Some("10.3.0.0/29"), None);
        let mut held: HashMap<u64, (u64, Ipv4Addr)> = HashMap::new();
        for (n, who, hint, step, share) in steps {
            match step {
                0 | 1 => {
                    let wish = Wish { v4: Some(Ipv4Addr::new(10, 3, 0, hint)), v6: None };
                    let who = held.get(&n).map_or(who, |(who, _)| *who);
                    if let Ok(lease) = pool.lease(at(0), sa(n), &id(who), wish, share, NONE) {
                        held.insert(n, (who, lease.v4.unwrap()));
                    } else {
                        prop_assert!(!held.contains_key(&n));
                    }
                }
                _ => {
                    pool.release(at(0), sa(n));
                    held.remove(&n);
                }
            }
            for (who, address) in held.values() {
                prop_assert!((2..7).contains(&address.octets()[3]));
                prop_assert!(held.values().all(|(w, a)| a != address || w == who));
            }
            let distinct: BTreeSet<Ipv4Addr> = held.values().map(|(_, a)| *a).collect();
            prop_assert_eq!(pool.in_use(), distinct.len());
        }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn ranges_are_used_up_one_after_the_other() {
    let mut pool = AddressPool::new(&policy(&["10.3.0.9-10.3.0.10", "fec3::7-fec3::7", "10.4.0.0/31"]));
    assert_eq!(drain(&mut pool, ANY4), ["10.3.0.9", "10.3.0.10", "10.4.0.1"]);
    assert_eq!(drain(&mut pool, ANY6), ["fec3::7"]);
}

#[test]
fn a_reserved_address_is_for_its_identity_alone_in_a_range_or_not() {
    let mut of = policy(&["10.3.0.0/29"]);
    of.reserved = vec![(id(7), ip("10.3.0.3")), (id(8), ip("10.9.9.9"))];
    let mut pool = AddressPool::new(&of);
    let wish = Wish { v4: Some("10.3.0.3".parse().unwrap()), v6: None };
    let mut got = vec![pool.lease(at(0), sa(50), &id(50), wish, true, NONE).unwrap().v4.unwrap().to_string()];
    got.extend(drain(&mut pool, ANY4));
    assert_eq!(got, ["10.3.0.2", "10.3.0.4", "10.3.0.5", "10.3.0.6"], "{got:?}");
    let of7 = |pool: &mut AddressPool| {
        pool.lease(at(0), sa(70), &id(7), ANY4, true, NONE).unwrap().v4.unwrap().to_string()
    };
    assert_eq!(of7(&mut pool), "10.3.0.3");
    let of8 = pool.lease(at(0), sa(80), &id(8), ANY4, true, NONE).unwrap().v4.unwrap();
    assert_eq!(of8.to_string(), "10.9.9.9");
    assert_eq!(pool.assign(sa(51), &id(51), ip("10.9.9.9"), true), Err(NoAddress::Taken));
    pool.release(at(0), sa(70));
    assert_eq!(
        pool.lease(at(0), sa(52), &id(52), wish, true, NONE),
        Err(NoAddress::Exhausted),
        "it is kept for him"
    );
}

#[test]
fn an_address_is_kept_for_who_had_it_until_its_time_is_over() {
    let mut of = policy(&["10.3.0.0/30"]);
    of.hold = Duration::from_secs(60);
    let mut pool = AddressPool::new(&of);
    let lease = pool.lease(at(0), sa(1), &id(1), ANY4, true, NONE).unwrap();
    pool.release(at(10), sa(1));
    assert_eq!(pool.lease(at(69), sa(2), &id(2), ANY4, true, NONE), Err(NoAddress::Exhausted));
    assert_eq!(pool.leases(at(69))[0].kept, Duration::from_secs(1));
    assert_eq!(pool.lease(at(70), sa(2), &id(2), ANY4, true, NONE), Ok(lease));
}

#[test]
fn what_an_earlier_run_knew_holds_again() {
    let mut of = policy(&["10.3.0.0/29"]);
    of.hold = Duration::from_secs(60);
    let mut pool = AddressPool::new(&of);
    assert!(pool.restore(at(0), ip("10.3.0.2"), id(1), Duration::from_secs(30)));
    assert!(!pool.restore(at(0), ip("10.3.0.2"), id(2), Duration::from_secs(30)), "one line for an address");
    assert!(!pool.restore(at(0), ip("10.4.0.2"), id(2), Duration::from_secs(30)), "no longer in the pool");
    let v4 = |lease: Result<Lease, NoAddress>| lease.unwrap().v4.unwrap().to_string();
    assert_eq!(v4(pool.lease(at(0), sa(2), &id(2), ANY4, true, NONE)), "10.3.0.3", "not another's");
    assert_eq!(v4(pool.lease(at(0), sa(1), &id(1), ANY4, true, NONE)), "10.3.0.2");
    let states: Vec<LeaseState> = pool.take_notes().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, [LeaseState::Held, LeaseState::Held]);
    pool.release(at(0), sa(1));
    assert!(pool.forget(ip("10.3.0.2")) && !pool.forget(ip("10.3.0.3")) && !pool.forget(ip("10.3.0.4")));
    let states: Vec<LeaseState> = pool.take_notes().into_iter().map(|(_, _, state)| state).collect();
    assert_eq!(states, [LeaseState::Idle, LeaseState::Forgotten]);
    assert_eq!(v4(pool.lease(at(0), sa(3), &id(3), ANY4, true, NONE)), "10.3.0.2", "nobody's again");
}

#[test]
fn an_assigned_address_beats_the_pool_and_collides_with_nobody() {
    let mut of = policy(&["10.3.0.0/29"]);
    let mut pool = AddressPool::new(&of);
    pool.lease(at(0), sa(1), &id(1), ANY4, true, NONE).unwrap();
    assert_eq!(pool.assign(sa(2), &id(2), ip("10.3.0.2"), true), Err(NoAddress::Taken));
    assert_eq!(pool.assign(sa(2), &id(2), ip("10.7.0.1"), true), Err(NoAddress::NotOurs));
    assert_eq!(pool.assign(sa(2), &id(2), ip("10.3.0.3"), true), Ok(()));
    assert_eq!(pool.assign(sa(3), &id(2), ip("10.3.0.3"), true), Ok(()), "a new IKE SA of the same client");
    assert_eq!(pool.assign(sa(4), &id(2), ip("10.3.0.3"), false), Err(NoAddress::Taken));
    assert!(pool.holder_of(ip("10.3.0.3")).is_some() && pool.holder_of(ip("10.3.0.9")).is_none());
    pool.release(at(0), sa(1));
    assert_eq!(pool.assign(sa(5), &id(5), ip("10.3.0.2"), true), Ok(()), "only remembered, and not in use");
    of.granted_outside = true;
    let mut pool = AddressPool::new(&of);
    assert_eq!(pool.assign(sa(2), &id(2), ip("10.7.0.1"), true), Ok(()));
    pool.release(at(0), sa(2));
    let all = drain(&mut pool, ANY4);
    assert_eq!(all.len(), 5, "{all:?}: what was named from outside is not for everybody");
}
