//! The addresses of one family, as numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use policy::{Identity, Pool, PoolRange};

use super::{LeaseState, MAX_LEASES, NoAddress};
use crate::effect::IkeSaId;

/// When an address is free for all, and the order of release.
type IdleKey = (Instant, u64);

/// Something about an address that is to be remembered.
pub(super) type Note = (u128, Identity, LeaseState);

#[derive(Default)]
pub(super) struct Shelf {
    /// First addresses, and how many there are from each.
    spans: Vec<(u128, u128)>,
    /// Addresses of these spans and below these offsets are all in `leases` or reserved; from here on only some are.
    fresh: (usize, u128),
    /// Those among them that were passed over, as clients of other realms had them.
    passed: BTreeSet<u128>,
    reserved: HashMap<u128, Identity>,
    reserved_of: HashMap<Identity, u128>,
    hold: Duration,
    pub(super) leases: HashMap<u128, Place>,
    pub(super) by_identity: HashMap<Identity, BTreeSet<u128>>,
    /// By holder.
    pub(super) held: HashMap<IkeSaId, u128>,
    /// Addresses nobody holds any more, the longest unused first.
    pub(super) idle: BTreeMap<IdleKey, u128>,
    releases: u64,
    pub(super) notes: Vec<Note>,
}

pub(super) struct Place {
    pub(super) identity: Identity,
    pub(super) holders: Vec<IkeSaId>,
    /// Key in `idle`, while there are no holders.
    pub(super) idle: Option<IdleKey>,
}

impl Shelf {
    pub(super) fn new(pool: &Pool, v4: bool) -> Self {
        let spans = pool.ranges.iter().filter(|range| range.is_ipv4() == v4).map(PoolRange::span);
        let mut shelf = Shelf {
            spans: spans.filter(|(_, count)| *count > 0).collect(),
            hold: pool.hold,
            ..Shelf::default()
        };
        for (identity, address) in pool.reserved.iter().filter(|(_, address)| address.is_ipv4() == v4) {
            let address = policy::pool::number(*address);
            shelf.reserved.insert(address, identity.clone());
            shelf.reserved_of.insert(identity.clone(), address);
        }
        shelf
    }

    /// Whether there is anything to give at all.
    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.reserved.is_empty()
    }

    /// What an earlier run, or another configuration, knew of an address; it stays with its identity for so long.
    pub(super) fn restore(
        &mut self,
        now: Instant,
        address: u128,
        identity: Identity,
        left: Duration,
    ) -> bool {
        if self.leases.len() >= MAX_LEASES
            || self.leases.contains_key(&address)
            || !self.may_have(address, &identity)
        {
            return false;
        }
        let idle = self.idle_key(now, left.min(self.hold));
        self.idle.insert(idle, address);
        self.by_identity.entry(identity.clone()).or_default().insert(address);
        self.leases.insert(address, Place { identity, holders: Vec::new(), idle: Some(idle) });
        true
    }

    pub(super) fn lease(
        &mut self,
        now: Instant,
        holder: IkeSaId,
        identity: &Identity,
        hint: Option<u128>,
        share: bool,
        taken: &dyn Fn(u128) -> bool,
    ) -> Option<u128> {
        if let Some(address) = self.held.get(&holder) {
            return Some(*address);
        }
        let own = self.own(identity, hint, share, taken);
        let address = own.or_else(|| self.unused(now, hint, taken))?;
        self.take(holder, identity, address);
        Some(address)
    }

    /// This address and no other. `outside`: it need not be ours to give.
    pub(super) fn assign(
        &mut self,
        holder: IkeSaId,
        identity: &Identity,
        address: u128,
        outside: bool,
        share: bool,
    ) -> Result<(), NoAddress> {
        match self.held.get(&holder) {
            Some(held) if *held == address => return Ok(()),
            Some(_) => self.release(holder, None),
            None => {}
        }
        if self.reserved.get(&address).is_some_and(|of| of != identity) {
            return Err(NoAddress::Taken);
        }
        if !outside && !self.may_have(address, identity) {
            return Err(NoAddress::NotOurs);
        }
        match self.leases.get(&address) {
            Some(place) if place.holders.is_empty() && place.identity != *identity => self.forget(address),
            Some(place) if place.identity != *identity || !share && !place.holders.is_empty() => {
                return Err(NoAddress::Taken);
            }
            Some(_) => {}
            None if self.leases.len() >= MAX_LEASES => return Err(NoAddress::Exhausted),
            None => {}
        }
        self.take(holder, identity, address);
        Ok(())
    }

    fn take(&mut self, holder: IkeSaId, identity: &Identity, address: u128) {
        let place = self.leases.entry(address).or_insert_with(|| Place {
            identity: identity.clone(),
            holders: Vec::new(),
            idle: None,
        });
        if let Some(idle) = place.idle.take() {
            self.idle.remove(&idle);
        }
        if place.holders.is_empty() {
            self.notes.push((address, identity.clone(), LeaseState::Held));
        }
        place.holders.push(holder);
        self.by_identity.entry(identity.clone()).or_default().insert(address);
        self.held.insert(holder, address);
    }

    /// An address the identity has or had: the one reserved for it, the one it asks for, another.
    fn own(
        &self,
        identity: &Identity,
        hint: Option<u128>,
        share: bool,
        taken: &dyn Fn(u128) -> bool,
    ) -> Option<u128> {
        let free = |address: &u128| match self.leases.get(address) {
            Some(place) => place.identity == *identity && (share || place.holders.is_empty()),
            None => self.reserved.contains_key(address),
        };
        let usable = |address: &u128| free(address) && !taken(*address);
        let reserved = self.reserved_of.get(identity).copied().filter(usable);
        reserved.or_else(|| {
            let own = self.by_identity.get(identity)?;
            let usable = |address: &u128| usable(address) && self.may_have(*address, identity);
            let hint = hint.filter(|hint| own.contains(hint) && usable(hint));
            hint.or_else(|| own.iter().copied().find(usable))
        })
    }

    /// An address of nobody: the one asked for, so that clients keep theirs when it is us who forgot, else the next fresh one, else
    /// the one unused for longest, if it was long enough.
    fn unused(&mut self, now: Instant, hint: Option<u128>, taken: &dyn Fn(u128) -> bool) -> Option<u128> {
        if self.leases.len() < MAX_LEASES {
            let free = |shelf: &Shelf, address: &u128| {
                !shelf.leases.contains_key(address) && !shelf.reserved.contains_key(address)
            };
            let usable = |hint: &u128| self.is_in_span(*hint) && free(self, hint) && !taken(*hint);
            if let Some(hint) = hint.filter(usable) {
                return Some(hint);
            }
            while let Some((first, count)) = self.spans.get(self.fresh.0).copied() {
                while self.fresh.1 < count {
                    let address = first + self.fresh.1;
                    self.fresh.1 += 1;
                    if !free(self, &address) {
                        continue;
                    }
                    if !taken(address) {
                        return Some(address);
                    }
                    self.passed.insert(address);
                }
                self.fresh = (self.fresh.0 + 1, 0);
            }
            let again = self.passed.iter().copied().find(|address| free(self, address) && !taken(*address));
            if let Some(address) = again {
                self.passed.remove(&address);
                return Some(address);
            }
        }
        while let Some(entry) = self.idle.first_entry().filter(|entry| entry.key().0 <= now) {
            let address = entry.remove();
            self.forget(address);
            // One that was named by others, or is somebody's by now, is nothing for everybody.
            if !self.is_in_span(address) || self.reserved.contains_key(&address) {
                continue;
            }
            if !taken(address) {
                return Some(address);
            }
            self.passed.insert(address);
        }
        None
    }

    /// Takes back what the IKE SA holds; without a time nobody waits for its return.
    pub(super) fn release(&mut self, holder: IkeSaId, now: Option<Instant>) {
        let Some(address) = self.held.remove(&holder) else { return };
        let Some(place) = self.leases.get_mut(&address) else { return };
        place.holders.retain(|h| *h != holder);
        if !place.holders.is_empty() {
            return;
        }
        let Some(now) = now else { return self.forget(address) };
        self.notes.push((address, place.identity.clone(), LeaseState::Idle));
        let idle = self.idle_key(now, self.hold);
        if let Some(place) = self.leases.get_mut(&address) {
            place.idle = Some(idle);
        }
        self.idle.insert(idle, address);
    }

    fn idle_key(&mut self, now: Instant, left: Duration) -> IdleKey {
        self.releases += 1;
        // A time that cannot be told is far enough away.
        (now.checked_add(left).unwrap_or(now), self.releases)
    }

    pub(super) fn transfer(&mut self, from: IkeSaId, to: IkeSaId) {
        if self.held.contains_key(&to) {
            return;
        }
        let Some(address) = self.held.remove(&from) else { return };
        self.held.insert(to, address);
        if let Some(place) = self.leases.get_mut(&address) {
            place.holders.iter_mut().filter(|h| **h == from).for_each(|h| *h = to);
        }
    }

    /// Forgets who had an address; it was not in use.
    pub(super) fn forget(&mut self, address: u128) {
        let Some(place) = self.leases.remove(&address) else { return };
        if let Some(idle) = place.idle {
            self.idle.remove(&idle);
        }
        if let Some(own) = self.by_identity.get_mut(&place.identity) {
            own.remove(&address);
            if own.is_empty() {
                self.by_identity.remove(&place.identity);
            }
        }
        self.notes.push((address, place.identity, LeaseState::Forgotten));
    }

    /// The same, and it is among the fresh ones again.
    pub(super) fn free(&mut self, address: u128) {
        self.forget(address);
        let spans = self.spans.iter().enumerate();
        let place = spans.filter_map(|(index, (first, count))| {
            address.checked_sub(*first).filter(|offset| offset < count).map(|offset| (index, offset))
        });
        self.fresh = place.min().map_or(self.fresh, |place| place.min(self.fresh));
    }

    fn is_in_span(&self, address: u128) -> bool {
        self.spans
            .iter()
            .any(|(first, count)| address.checked_sub(*first).is_some_and(|offset| offset < *count))
    }

    /// Whether the address is this identity's or everybody's.
    fn may_have(&self, address: u128, identity: &Identity) -> bool {
        match self.reserved.get(&address) {
            Some(of) => of == identity,
            None => self.is_in_span(address),
        }
    }
}
