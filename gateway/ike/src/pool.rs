//! Inner addresses for clients (RFC 7296 section 3.15). A client that comes back finds its old address: nobody else gets it for a
//! while, and afterwards only who finds no other.

mod shelf;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use policy::{Identity, Pool};

use crate::effect::IkeSaId;
use shelf::Shelf;

/// Most addresses of a family that are remembered, in use or not. A prefix may hold more; nobody gets those.
pub const MAX_LEASES: usize = 65_536;

/// The addresses of one realm.
pub struct AddressPool {
    v4: Shelf,
    v6: Shelf,
    /// Whether addresses that are not in the pool may be assigned.
    outside: bool,
    /// What DHCP servers give addresses of.
    networks: Vec<wire::TrafficSelector>,
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

/// Nothing can be given: INTERNAL_ADDRESS_FAILURE (RFC 7296 section 3.15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// There is no address left of any family asked for.
    Exhausted,
    /// The address that the client was assigned is somebody else's.
    Taken,
    /// The address that the client was assigned is none of the pool, which allows no others.
    NotOurs,
}

impl std::fmt::Display for NoAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoAddress::Exhausted => "no address left in the pool",
            NoAddress::Taken => "the address it was assigned is another client's",
            NoAddress::NotOurs => "the address it was assigned is not in the pool",
        })
    }
}

impl std::error::Error for NoAddress {}

/// What is to be remembered of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// In use.
    Held,
    /// Not in use, but kept for its identity.
    Idle,
    /// Nobody's.
    Forgotten,
}

/// A lease, as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseView {
    /// The address.
    pub address: IpAddr,
    /// Whose.
    pub identity: Identity,
    /// By which IKE SAs it is held; none: it is idle.
    pub holders: Vec<IkeSaId>,
    /// While it is idle: how long nobody else gets it.
    pub kept: Duration,
}

impl AddressPool {
    /// The pool of a realm. Costs nothing for the addresses nobody has asked for.
    pub fn new(pool: &Pool) -> Self {
        AddressPool {
            v4: Shelf::new(pool, true),
            v6: Shelf::new(pool, false),
            outside: pool.granted_outside,
            networks: pool.dhcp_networks().collect(),
        }
    }

    /// What was known of an address by an earlier run, or by another configuration of the pool. False when it is of no use any more.
    pub fn restore(&mut self, now: Instant, address: IpAddr, identity: Identity, left: Duration) -> bool {
        self.shelf(address).restore(now, policy::pool::number(address), identity, left)
    }

    /// Hands out addresses to an IKE SA. With `share` an identity that is here already gets the same address again, as when a
    /// client sets up a new IKE SA before the old one is gone; without, every IKE SA has its own. What is `taken`, by clients of
    /// other realms, is passed over.
    ///
    /// # Errors
    /// [`NoAddress::Exhausted`] when there is nothing in any of the families asked for.
    pub fn lease(
        &mut self,
        now: Instant,
        holder: IkeSaId,
        identity: &Identity,
        wish: Wish,
        share: bool,
        taken: &dyn Fn(IpAddr) -> bool,
    ) -> Result<Lease, NoAddress> {
        let hint4 =
            wish.v4.map(|hint| Some(hint).filter(|a| !a.is_unspecified()).map(|a| u32::from(a).into()));
        let v4 = hint4.and_then(|hint| {
            let address = self.v4.lease(now, holder, identity, hint, share, &|number| taken(v4(number)))?;
            u32::try_from(address).ok().map(Ipv4Addr::from)
        });
        let hint6 = wish.v6.map(|hint| Some(hint).filter(|a| !a.is_unspecified()).map(u128::from));
        let v6 = hint6.and_then(|hint| {
            let address = self.v6.lease(now, holder, identity, hint, share, &|number| taken(v6(number)))?;
            Some(Ipv6Addr::from(address))
        });
        match (v4, v6) {
            (None, None) => Err(NoAddress::Exhausted),
            (v4, v6) => Ok(Lease { v4, v6 }),
        }
    }

    /// Gives an IKE SA this address, which somebody who decides over it has named: a server that authenticated the client, or one
    /// for DHCP. What the SA had of the family is forgotten.
    ///
    /// # Errors
    /// It is in use, or reserved, by another; or not in the pool, where the pool allows no others.
    pub fn assign(
        &mut self,
        holder: IkeSaId,
        identity: &Identity,
        address: IpAddr,
        share: bool,
    ) -> Result<(), NoAddress> {
        let host = wire::TrafficSelector::host(address);
        let outside = self.outside || self.networks.iter().any(|network| host.is_subset(network));
        self.shelf(address).assign(holder, identity, policy::pool::number(address), outside, share)
    }

    /// Who has this address now.
    pub fn holder_of(&self, address: IpAddr) -> Option<&Identity> {
        let shelf = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let place = shelf.leases.get(&policy::pool::number(address))?;
        (!place.holders.is_empty()).then_some(&place.identity)
    }

    /// The address of a family that an identity had last, to ask a server for it again.
    pub fn last(&self, identity: &Identity, v4: bool) -> Option<IpAddr> {
        let (shelf, address): (_, fn(u128) -> IpAddr) =
            if v4 { (&self.v4, self::v4) } else { (&self.v6, v6) };
        shelf.by_identity.get(identity)?.iter().next_back().map(|number| address(*number))
    }

    /// Takes back what the IKE SA holds.
    pub fn release(&mut self, now: Instant, holder: IkeSaId) {
        self.v4.release(holder, Some(now));
        self.v6.release(holder, Some(now));
    }

    /// The same, and nobody's return is waited for.
    pub fn withdraw(&mut self, holder: IkeSaId) {
        self.v4.release(holder, None);
        self.v6.release(holder, None);
    }

    /// Passes on what the IKE SA holds to the one that replaces it (RFC 7296 section 2.8).
    pub fn transfer(&mut self, from: IkeSaId, to: IkeSaId) {
        self.v4.transfer(from, to);
        self.v6.transfer(from, to);
    }

    /// Forgets who had an address, if it is not in use; true when it was known.
    pub fn forget(&mut self, address: IpAddr) -> bool {
        let (shelf, number) = (self.shelf(address), policy::pool::number(address));
        let idle = shelf.leases.get(&number).is_some_and(|place| place.holders.is_empty());
        if idle {
            shelf.free(number);
        }
        idle
    }

    /// What has become of addresses since last asked, in its order.
    pub fn take_notes(&mut self) -> Vec<(IpAddr, Identity, LeaseState)> {
        let v4 = std::mem::take(&mut self.v4.notes).into_iter().map(|(a, id, state)| (v4(a), id, state));
        let v6 = std::mem::take(&mut self.v6.notes).into_iter().map(|(a, id, state)| (v6(a), id, state));
        v4.chain(v6).collect()
    }

    /// Addresses in use, of both families.
    pub fn in_use(&self) -> usize {
        [&self.v4, &self.v6].iter().map(|shelf| shelf.leases.len() - shelf.idle.len()).sum()
    }

    /// All that is remembered, in the order of the addresses.
    pub fn leases(&self, now: Instant) -> Vec<LeaseView> {
        let of = |shelf: &Shelf, address: fn(u128) -> IpAddr| {
            let view = |(number, place): (&u128, &shelf::Place)| LeaseView {
                address: address(*number),
                identity: place.identity.clone(),
                holders: place.holders.clone(),
                kept: place.idle.map_or(Duration::ZERO, |(until, _)| until.saturating_duration_since(now)),
            };
            let mut all: Vec<LeaseView> = shelf.leases.iter().map(view).collect();
            all.sort_unstable_by_key(|lease| lease.address);
            all
        };
        let mut all = of(&self.v4, v4);
        all.extend(of(&self.v6, v6));
        all
    }

    /// Whether it has addresses of the family to give.
    pub fn has(&self, v4: bool) -> bool {
        let shelf = if v4 { &self.v4 } else { &self.v6 };
        !shelf.is_empty() || self.networks.iter().any(|network| network.start.is_ipv4() == v4)
    }

    fn shelf(&mut self, address: IpAddr) -> &mut Shelf {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

fn v4(number: u128) -> IpAddr {
    // Only addresses of the family come onto its shelf.
    Ipv4Addr::from(number as u32).into()
}

fn v6(number: u128) -> IpAddr {
    Ipv6Addr::from(number).into()
}

#[cfg(test)]
mod tests;
