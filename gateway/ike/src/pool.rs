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
