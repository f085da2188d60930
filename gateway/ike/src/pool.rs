//! Inner addresses for clients (RFC 7296 section 3.15). A client that comes back finds its old address, as long as nobody
//! else needed it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use policy::{Identity, Pool};

use crate::effect::IkeSaId;

/// Most addresses of a family that are remembered, in use or not. A prefix may hold more; nobody gets those.
pub const MAX_LEASES: usize = 65_536;

/// The addresses of one realm.
pub struct AddressPool {
    v4: Option<Shelf>,
    v6: Option<Shelf>,
}

/// What a client asks for; an unspecified address means any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// INTERNAL_IP4_ADDRESS was there.
    pub v4: Option<Ipv4Addr>,
    /// INTERNAL_IP6_ADDRESS was there.
    pub v6: Option<Ipv6Addr>,
}

/// What a client gets. A family it asked for and we don't have, or have no more of, is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Nothing of what was asked for can be given: INTERNAL_ADDRESS_FAILURE (RFC 7296 section 3.15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no address left in the pool")
    }
}

impl std::error::Error for Exhausted {}

impl AddressPool {
    /// The pool of a realm. Costs nothing for the addresses nobody has asked for.
    pub fn new(pool: &Pool) -> Self {
        let v4 = pool.v4.map(|(net, len)| Shelf::new(u32::from(net).into(), 32, len, true));
        let v6 = pool.v6.map(|(net, len)| Shelf::new(u128::from(net), 128, len, false));
        AddressPool { v4, v6 }
    }

    /// Hands out addresses to an IKE SA. With `share` an identity that is here already gets the same address again, as when a
    /// client sets up a new IKE SA before the old one is gone; without, every IKE SA has its own.
    ///
    /// # Errors
    /// [`Exhausted`] when there is nothing in any of the families asked for.
    pub fn lease(
        &mut self,
        holder: IkeSaId,
        identity: &Identity,
        wish: Wish,
        share: bool,
    ) -> Result<Lease, Exhausted> {
        let v4 = wish.v4.and_then(|hint| {
            let hint = Some(hint).filter(|a| !a.is_unspecified()).map(|a| u32::from(a).into());
            let bits = self.v4.as_mut()?.lease(holder, identity, hint, share)?;
            u32::try_from(bits).ok().map(Ipv4Addr::from)
        });
        let v6 = wish.v6.and_then(|hint| {
            let hint = Some(hint).filter(|a| !a.is_unspecified()).map(u128::from);
            self.v6.as_mut()?.lease(holder, identity, hint, share).map(Ipv6Addr::from)
        });
        match (v4, v6) {
            (None, None) => Err(Exhausted),
            (v4, v6) => Ok(Lease { v4, v6 }),
        }
    }

    /// Takes back what the IKE SA holds.
    pub fn release(&mut self, holder: IkeSaId) {
        self.shelves_mut().for_each(|shelf| shelf.release(holder));
    }

    /// Passes on what the IKE SA holds to the one that replaces it (RFC 7296 section 2.8).
    pub fn transfer(&mut self, from: IkeSaId, to: IkeSaId) {
        self.shelves_mut().for_each(|shelf| shelf.transfer(from, to));
    }

    /// Addresses in use, of both families.
    pub fn in_use(&self) -> usize {
        self.v4.iter().chain(&self.v6).map(|shelf| shelf.leases.len() - shelf.idle.len()).sum()
    }

    fn shelves_mut(&mut self) -> impl Iterator<Item = &mut Shelf> {
        self.v4.iter_mut().chain(&mut self.v6)
    }
}

/// The addresses of one family, as numbers.
struct Shelf {
    first: u128,
    /// How many there are to give; saturates.
    count: u128,
    /// Offsets from `first` below this one are all in `leases`; from here on only those that were asked for by name.
    fresh: u128,
    leases: HashMap<u128, Place>,
    by_identity: HashMap<Identity, BTreeSet<u128>>,
    /// By holder.
    held: HashMap<IkeSaId, u128>,
    /// Addresses nobody holds any more, the longest unused first.
    idle: BTreeMap<u64, u128>,
    releases: u64,
}

struct Place {
    identity: Identity,
    holders: Vec<IkeSaId>,
    /// Key in `idle`, while there are no holders.
    idle_since: Option<u64>,
}

impl Shelf {
    /// What of a prefix is handed out: not the network's own address, not the first one, which is the gateway's, and with
    /// IPv4 not the broadcast address. Prefixes of two addresses have neither network nor broadcast (RFC 3021, RFC 6164); a
    /// single address is given as it is.
    fn new(net: u128, width: u8, len: u8, broadcast: bool) -> Self {
        let host_bits = u32::from(width.saturating_sub(len));
        let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let base = if host_bits >= 128 { 0 } else { net & !(size - 1) };
        let (skip, reserved) = match host_bits {
            0 => (0, 0),
            1 => (1, 1),
            _ => (2, 2 + u128::from(broadcast)),
        };
        Shelf {
            first: base + skip,
            count: size - reserved,
            fresh: 0,
            leases: HashMap::new(),
            by_identity: HashMap::new(),
            held: HashMap::new(),
            idle: BTreeMap::new(),
            releases: 0,
        }
    }

    fn lease(
        &mut self,
        holder: IkeSaId,
        identity: &Identity,
        hint: Option<u128>,
        share: bool,
    ) -> Option<u128> {
        if let Some(offset) = self.held.get(&holder) {
            return Some(self.first + offset);
        }
        let offset = self.own(identity, hint, share).or_else(|| self.unused(hint))?;
        let place = self.leases.entry(offset).or_insert_with(|| Place {
            identity: identity.clone(),
            holders: Vec::new(),
            idle_since: None,
        });
        if let Some(since) = place.idle_since.take() {
            self.idle.remove(&since);
        }
        place.holders.push(holder);
        self.by_identity.entry(identity.clone()).or_default().insert(offset);
        self.held.insert(holder, offset);
        Some(self.first + offset)
    }

    /// An address the identity has or had; the one it asks for before others.
    fn own(&self, identity: &Identity, hint: Option<u128>, share: bool) -> Option<u128> {
        let own = self.by_identity.get(identity)?;
        let usable =
            |offset: &u128| self.leases.get(offset).is_some_and(|place| share || place.holders.is_empty());
        let hint = hint.and_then(|h| h.checked_sub(self.first)).filter(|h| own.contains(h) && usable(h));
        hint.or_else(|| own.iter().copied().find(usable))
    }

    /// An address of nobody: the one asked for, so that clients keep theirs when it is us who forgot, else the next fresh one,
    /// else the one unused for longest.
    fn unused(&mut self, hint: Option<u128>) -> Option<u128> {
        if self.leases.len() < MAX_LEASES {
            let hint = hint.and_then(|h| h.checked_sub(self.first)).filter(|h| *h < self.count);
            if let Some(free) = hint.filter(|h| !self.leases.contains_key(h)) {
                return Some(free);
            }
            while self.fresh < self.count {
                self.fresh += 1;
                if !self.leases.contains_key(&(self.fresh - 1)) {
                    return Some(self.fresh - 1);
                }
            }
        }
        let (_, offset) = self.idle.pop_first()?;
        self.forget(offset);
        Some(offset)
    }

    fn release(&mut self, holder: IkeSaId) {
        let Some(offset) = self.held.remove(&holder) else { return };
        let Some(place) = self.leases.get_mut(&offset) else { return };
        place.holders.retain(|h| *h != holder);
        if place.holders.is_empty() {
            place.idle_since = Some(self.releases);
            self.idle.insert(self.releases, offset);
            self.releases += 1;
        }
    }

    fn transfer(&mut self, from: IkeSaId, to: IkeSaId) {
        if self.held.contains_key(&to) {
            return;
        }
        let Some(offset) = self.held.remove(&from) else { return };
        self.held.insert(to, offset);
        if let Some(place) = self.leases.get_mut(&offset) {
            place.holders.iter_mut().filter(|h| **h == from).for_each(|h| *h = to);
        }
    }

    fn forget(&mut self, offset: u128) {
        let Some(place) = self.leases.remove(&offset) else { return };
        if let Some(own) = self.by_identity.get_mut(&place.identity) {
            own.remove(&offset);
            if own.is_empty() {
                self.by_identity.remove(&place.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::IkeSaRef;
    use proptest::prelude::*;

    const ANY4: Wish = Wish { v4: Some(Ipv4Addr::UNSPECIFIED), v6: None };
    const ANY6: Wish = Wish { v4: None, v6: Some(Ipv6Addr::UNSPECIFIED) };

    fn pool(v4: Option<&str>, v6: Option<&str>) -> AddressPool {
        fn split<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> (T, u8) {
            let (net, len) = text.split_once('/').unwrap();
            (net.parse().unwrap(), len.parse().unwrap())
        }
        AddressPool::new(&Pool { v4: v4.map(split), v6: v6.map(split), dns: vec![], subnets: vec![] })
    }

    fn sa(n: u64) -> IkeSaId {
        IkeSaRef(n)
    }

    fn id(n: u64) -> Identity {
        Identity::Fqdn(format!("client{n}.lab.test"))
    }

    /// Everything a pool has for clients that all differ.
    fn drain(pool: &mut AddressPool, wish: Wish) -> Vec<String> {
        let lease = |n| pool.lease(sa(n), &id(n), wish, true).ok();
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
        let first = pool.lease(sa(1), &id(1), both, true).unwrap();
        assert!(first.v4.is_some() && first.v6.is_some());
        pool.lease(sa(2), &id(2), both, true).unwrap();
        pool.release(sa(1));
        assert_eq!(pool.in_use(), 2);
        assert_ne!(
            pool.lease(sa(3), &id(3), both, true).unwrap(),
            first,
            "there is room for others elsewhere"
        );
        assert_eq!(pool.lease(sa(4), &id(1), both, true), Ok(first));
        assert_eq!(pool.lease(sa(4), &id(1), both, true), Ok(first), "asked twice, given once");
    }

    #[test]
    fn address_unused_for_longest_goes_to_others_when_nothing_else_is_left() {
        let mut pool = pool(Some("10.3.0.0/29"), None);
        let leases: Vec<Lease> = (0..5).map(|n| pool.lease(sa(n), &id(n), ANY4, true).unwrap()).collect();
        assert_eq!(pool.lease(sa(9), &id(9), ANY4, true), Err(Exhausted));
        pool.release(sa(3));
        pool.release(sa(1));
        assert_eq!(pool.lease(sa(9), &id(9), ANY4, true), Ok(leases[3]));
        assert_eq!(pool.lease(sa(10), &id(1), ANY4, true), Ok(leases[1]), "the other one is still its own");
        assert_eq!(pool.lease(sa(11), &id(3), ANY4, true), Err(Exhausted));
    }

    #[test]
    fn one_identity_shares_its_address_or_has_one_for_each_sa() {
        let mut pool = pool(Some("10.3.0.0/24"), None);
        let first = pool.lease(sa(1), &id(1), ANY4, true).unwrap();
        assert_eq!(
            pool.lease(sa(2), &id(1), ANY4, true),
            Ok(first),
            "a new IKE SA before the old one is gone"
        );
        let other = pool.lease(sa(3), &id(1), ANY4, false).unwrap();
        assert_ne!(other, first);
        pool.release(sa(1));
        assert_ne!(pool.lease(sa(4), &id(1), ANY4, false), Ok(first), "the second SA holds it still");
        pool.release(sa(2));
        assert_eq!(pool.lease(sa(5), &id(1), ANY4, false), Ok(first));
    }

    #[test]
    fn address_follows_the_sa_that_replaces_its_holder() {
        let mut pool = pool(Some("10.3.0.0/30"), None);
        let lease = pool.lease(sa(1), &id(1), ANY4, true).unwrap();
        pool.transfer(sa(1), sa(2));
        pool.release(sa(1));
        assert_eq!(pool.in_use(), 1);
        assert_eq!(pool.lease(sa(3), &id(3), ANY4, true), Err(Exhausted));
        assert_eq!(pool.lease(sa(2), &id(1), ANY4, true), Ok(lease));
        pool.release(sa(2));
        assert_eq!(pool.lease(sa(3), &id(3), ANY4, true), Ok(lease));
    }

    #[test]
    fn wish_for_an_address_is_granted_when_it_is_free_and_ours() {
        let mut pool = pool(Some("10.3.0.0/24"), None);
        let wish = |text: &str| Wish { v4: Some(text.parse().unwrap()), v6: None };
        let got = |lease: Result<Lease, Exhausted>| lease.unwrap().v4.unwrap().to_string();
        assert_eq!(got(pool.lease(sa(1), &id(1), wish("10.3.0.77"), true)), "10.3.0.77");
        assert_eq!(got(pool.lease(sa(2), &id(2), wish("10.3.0.77"), true)), "10.3.0.2", "it is taken");
        for outside in ["10.3.0.0", "10.3.0.1", "10.3.0.255", "10.4.0.9", "255.255.255.255", "0.0.0.1"] {
            let n = u64::from(u32::from(outside.parse::<Ipv4Addr>().unwrap())) + 1000;
            let lease = got(pool.lease(sa(n), &id(n), wish(outside), true));
            assert!(lease.starts_with("10.3.0.") && lease != outside && lease != "10.3.0.77", "{lease}");
        }
        pool.release(sa(1));
        assert_eq!(
            got(pool.lease(sa(3), &id(3), wish("10.3.0.77"), true)),
            "10.3.0.9",
            "another's old address"
        );
    }

    #[test]
    fn family_without_a_pool_is_left_out() {
        let mut pool = pool(Some("10.3.0.0/24"), None);
        let both = Wish { v4: ANY4.v4, v6: ANY6.v6 };
        let lease = pool.lease(sa(1), &id(1), both, true).unwrap();
        assert!(lease.v4.is_some() && lease.v6.is_none());
        assert_eq!(pool.lease(sa(2), &id(2), ANY6, true), Err(Exhausted));
        assert_eq!(pool.lease(sa(3), &id(3), Wish::default(), true), Err(Exhausted));
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_leases() {
        let mut pool = pool(None, Some("fec3::/64"));
        for n in 0..MAX_LEASES as u64 + 500 {
            pool.lease(sa(n), &id(n), ANY6, true).unwrap();
            pool.release(sa(n));
        }
        let shelf = pool.v6.as_ref().unwrap();
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
                        if let Ok(lease) = pool.lease(sa(n), &id(who), wish, share) {
                            held.insert(n, (who, lease.v4.unwrap()));
                        } else {
                            prop_assert!(!held.contains_key(&n));
                        }
                    }
                    _ => {
                        pool.release(sa(n));
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
}
