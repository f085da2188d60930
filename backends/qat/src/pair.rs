//! A ring pair that several queues share, and the bank whose interrupt it raises.
//!
//! A virtual function has two or four ring pairs for packets; a gateway has a lane for each core. Queues are put on the pair that has
//! the fewest. On one pair each has an equal share of the places, so that one that floods the ring keeps no other from it;
//! what exceeds the share waits in its queue. Whoever polls takes every response off the ring and puts what belongs to others
//! into their inboxes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::counters::Counters;
use crate::csr::Csr;
use crate::generation::{PairPlace, Service};
use crate::ring::{Arrival, Extra, Heard, Ring, Whose};
use crate::station::Station;

/// Least places of a queue on a ring: a whole burst.
const LEAST_SHARE: usize = spi::esp::MAX_OPS;
/// Least places of a queue for operations.
const LEAST_OPERATIONS: usize = 8;

/// One queue on a pair.
struct Owner {
    station: Arc<Station>,
    out: usize,
    /// Has something for which there was no room.
    waits: bool,
}

/// A ring pair.
pub(crate) struct Pair {
    pub(crate) place: PairPlace,
    /// For people.
    pub(crate) number: usize,
    bank: Arc<Bank>,
    counters: Arc<Counters>,
    inner: Mutex<Inner>,
}

struct Inner {
    ring: Ring,
    owners: Vec<Option<Owner>>,
    /// The answer to a known question, once it is there.
    known: Option<Arrival>,
    /// The life of the card in which the ring was begun.
    epoch: u32,
}

/// Whose known questions are: no queue's.
const NOBODY: u16 = u16::MAX;

/// Holds a pair.
pub(crate) struct Held<'a> {
    pair: &'a Pair,
    inner: MutexGuard<'a, Inner>,
}

/// What taking responses off a ring came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Harvest {
    /// Responses.
    pub(crate) taken: usize,
    /// The card said something that is not so.
    pub(crate) lied: bool,
}

impl Pair {
    pub(crate) fn new(
        number: usize,
        place: PairPlace,
        ring: Ring,
        bank: Arc<Bank>,
        counters: Arc<Counters>,
    ) -> Self {
        let inner = Mutex::new(Inner { ring, owners: Vec::new(), known: None, epoch: 0 });
        Pair { place, number, bank, counters, inner }
    }

    /// A new queue on this pair; `None` when its share would be too small.
    pub(crate) fn join(&self, station: Arc<Station>) -> Option<u16> {
        let mut held = self.hold();
        let inner = &mut *held.inner;
        let least = match self.place.service {
            Service::Symmetric => LEAST_SHARE,
            Service::Asymmetric => LEAST_OPERATIONS,
        };
        if inner.ring.limit() / (inner.count() + 1) < least {
            return None;
        }
        let owner = Some(Owner { station, out: 0, waits: false });
        let place = match inner.owners.iter().position(Option::is_none) {
            Some(free) => {
                inner.owners[free] = owner;
                free
            }
            None => {
                inner.owners.push(owner);
                inner.owners.len() - 1
            }
        };
        u16::try_from(place).ok().filter(|owner| *owner != NOBODY)
    }

    /// A queue leaves, unless it still has requests out; true when it has left.
    pub(crate) fn leave(&self, owner: u16) -> bool {
        let mut held = self.hold();
        let Some(place) = held.inner.owners.get_mut(usize::from(owner)) else { return true };
        if place.as_ref().is_some_and(|owner| owner.out > 0) {
            return false;
        }
        *place = None;
        true
    }

    /// Queues on it.
    pub(crate) fn count(&self) -> usize {
        self.hold().inner.count()
    }

    pub(crate) fn hold(&self) -> Held<'_> {
        // What a queue that panicked left behind is a request that is out, or is not: the table says which.
        Held { pair: self, inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Has the card interrupt when this pair has responses; at once if there are any.
    pub(crate) fn arm(&self) {
        self.bank.arm(self.bit());
    }

    /// Takes that back, unless others sleep on this pair.
    pub(crate) fn disarm(&self) {
        if self.count() == 1 {
            self.bank.disarm(self.bit());
        }
    }

    /// The bank has interrupted: wakes those that sleep, where there is a reason.
    pub(crate) fn on_interrupt(&self) -> Harvest {
        let mut held = self.hold();
        if held.inner.count() == 1 {
            // The one queue takes its responses itself.
            held.inner.owners.iter().flatten().for_each(|owner| owner.station.ring());
            return Harvest::default();
        }
        let harvest = held.harvest(None, usize::MAX, |_| ());
        held.say();
        let armed = held.inner.owners.iter().flatten().any(|owner| owner.station.is_armed());
        drop(held);
        if armed {
            self.arm();
        }
        harvest
    }

    /// Rings for everybody: something has changed that no response tells.
    pub(crate) fn ring_all(&self) {
        self.hold().inner.owners.iter().flatten().for_each(|owner| owner.station.ring());
    }

    /// Whether a response waits for a queue that sleeps, in the ring or in the queue's inbox.
    pub(crate) fn is_overheard(&self) -> bool {
        let held = self.hold();
        let waits = held.inner.ring.hears();
        let mut stations = held.inner.owners.iter().flatten().map(|owner| &owner.station);
        stations.any(|station| station.is_armed() && (waits || station.has_mail()))
    }

    /// Its bank, and its bit in the bank's registers.
    pub(crate) fn bank(&self) -> &Arc<Bank> {
        &self.bank
    }

    pub(crate) fn bit(&self) -> u32 {
        1 << self.place.response_ring
    }
}

impl Inner {
    fn count(&self) -> usize {
        self.owners.iter().flatten().count()
    }
}

impl Held<'_> {
    /// The life of the card in which the ring was begun.
    pub(crate) fn epoch(&self) -> u32 {
        self.inner.epoch
    }

    /// Whether a queue may put so many requests now. If not, it is rung for when others have given places back.
    pub(crate) fn has_room(&mut self, owner: u16, wanted: usize) -> bool {
        let has = self.room(owner) >= wanted;
        if let Some(Some(own)) = self.inner.owners.get_mut(usize::from(owner)) {
            own.waits = !has;
        }
        has
    }

    /// Requests a queue may put now.
    pub(crate) fn room(&self, owner: u16) -> usize {
        let inner = &*self.inner;
        let Some(Some(own)) = inner.owners.get(usize::from(owner)) else { return 0 };
        let share = inner.ring.limit() / inner.count().max(1);
        share.saturating_sub(own.out).min(inner.ring.room())
    }

    /// Puts a request; see [`Ring::put`].
    #[inline]
    pub(crate) fn put<const N: usize>(
        &mut self,
        whose: Whose,
        tick: u32,
        build: impl FnOnce(u64, &mut Extra<'_>) -> [u8; N],
    ) -> bool {
        let inner = &mut *self.inner;
        let done = inner.ring.put(whose, tick, build);
        if let (true, Some(Some(own))) = (done, inner.owners.get_mut(usize::from(whose.owner))) {
            own.out += 1;
        }
        done
    }

    /// Puts a question whose answer is known; false when there is no place for it now.
    pub(crate) fn ask<const N: usize>(
        &mut self,
        tick: u32,
        build: impl FnOnce(u64, &mut Extra<'_>) -> [u8; N],
    ) -> bool {
        self.inner.known = None;
        let put = self.inner.ring.put(Whose { owner: NOBODY, ..Whose::default() }, tick, build);
        self.inner.ring.kick();
        put
    }

    /// The answer to it, if it has come.
    pub(crate) fn take_known(&mut self) -> Option<Arrival> {
        self.inner.known.take()
    }

    /// See [`Ring::kick`].
    pub(crate) fn kick(&mut self) {
        self.inner.ring.kick();
    }

    /// See [`Ring::say`].
    pub(crate) fn say(&mut self) {
        self.inner.ring.say();
    }

    /// See [`Ring::hears`].
    pub(crate) fn hears(&self) -> bool {
        self.inner.ring.hears()
    }

    /// Takes up to `most` responses off the ring. Those of queue `me` are passed on, the others put into their inboxes.
    #[inline]
    pub(crate) fn harvest(&mut self, me: Option<u16>, most: usize, mut mine: impl FnMut(Arrival)) -> Harvest {
        let inner = &mut *self.inner;
        let mut harvest = Harvest::default();
        // A card that writes on and on is not listened to for longer than a ring has places.
        let most = most.min(2 * inner.ring.limit());
        while harvest.taken < most {
            let arrival = match inner.ring.next() {
                None => break,
                Some(Heard::Arrival(arrival)) => arrival,
                Some(Heard::Lie(lie)) => {
                    self.pair.counters.lie(lie);
                    harvest.taken += 1;
                    harvest.lied = true;
                    continue;
                }
            };
            harvest.taken += 1;
            let Some(Some(owner)) = inner.owners.get_mut(usize::from(arrival.whose.owner)) else {
                inner.known = Some(arrival).filter(|arrival| arrival.whose.owner == NOBODY);
                continue;
            };
            owner.out = owner.out.saturating_sub(1);
            if Some(arrival.whose.owner) == me {
                mine(arrival);
            } else {
                owner.station.mail(arrival);
                owner.station.ring();
            }
        }
        if harvest.taken > 0 {
            for owner in inner.owners.iter_mut().flatten().filter(|owner| owner.waits) {
                owner.waits = false;
                owner.station.ring();
            }
        }
        harvest
    }

    /// Programs the ring anew; see [`Ring::start`].
    pub(crate) fn start(&mut self, salt: u16, epoch: u32) {
        self.inner.ring.start(salt);
        self.inner.known = None;
        self.inner.epoch = epoch;
        self.inner.owners.iter_mut().flatten().for_each(|owner| {
            owner.out = 0;
            owner.station.collect();
        });
    }

    /// See [`Ring::stop`].
    pub(crate) fn stop(&mut self) {
        self.inner.ring.stop();
    }

    /// See [`Ring::forget`].
    pub(crate) fn forget(&mut self) {
        self.inner.ring.forget();
        self.inner.owners.iter_mut().flatten().for_each(|owner| {
            owner.out = 0;
            owner.station.collect();
        });
    }

    /// Requests that are out.
    pub(crate) fn out(&self) -> usize {
        self.inner.ring.out()
    }

    /// How many ticks the oldest of them is old.
    pub(crate) fn oldest(&self, now: u32) -> Option<u32> {
        self.inner.ring.oldest(now)
    }
}

/// A bank: the rings that share an interrupt.
pub(crate) struct Bank {
    csr: Csr,
    /// Several pairs of ours are in it.
    shared: bool,
    /// Response rings that are armed.
    armed: Mutex<u32>,
}

impl Bank {
    pub(crate) fn new(csr: Csr, shared: bool) -> Self {
        Bank { csr, shared, armed: Mutex::new(0) }
    }

    fn arm(&self, bit: u32) {
        let mut armed = self.lock();
        *armed |= bit;
        if self.shared {
            // Others of the bank may be busy and full of responses: they must not interrupt.
            self.csr.set_interrupting(*armed);
        }
        self.csr.arm(*armed);
    }

    fn disarm(&self, bit: u32) {
        let mut armed = self.lock();
        if *armed & bit == 0 {
            return;
        }
        *armed &= !bit;
        if self.shared && *armed != 0 {
            self.csr.set_interrupting(*armed);
        } else if *armed == 0 {
            self.csr.arm(0);
        }
    }

    /// The interrupt has come; which rings it was armed for. None is any more.
    pub(crate) fn take(&self) -> u32 {
        let mut armed = self.lock();
        if *armed != 0 {
            self.csr.arm(0);
        }
        std::mem::take(&mut *armed)
    }

    /// A reset has disarmed it.
    pub(crate) fn forget(&self) {
        *self.lock() = 0;
    }

    pub(crate) fn csr(&self) -> &Csr {
        &self.csr
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::fw::response;
    use crate::generation::{INTEL, model};
    use crate::pci::PciFunction;
    use crate::ring::memory_len;
    use crate::sys::mem::Block;
    use spi::Doorbell;

    const DEPTH: usize = 256;
    const LIMIT: usize = DEPTH - 1 - 32;

    struct Rig {
        fake: Arc<Fake>,
        pair: Pair,
        block: Arc<Block>,
        cookies: Vec<(Whose, u64)>,
        answered: usize,
    }

    impl Rig {
        fn new() -> Rig {
            let fake = Arc::new(Fake::default());
            let function = Arc::clone(&fake) as Arc<dyn PciFunction>;
            let csr = Csr::new(&function, model(INTEL, 0x4941).unwrap().generation, 0);
            let place = PairPlace { bank: 0, request_ring: 0, response_ring: 1, service: Service::Symmetric };
            let block = Block::map(memory_len(Service::Symmetric, DEPTH)).unwrap();
            let ring = Ring::new(csr.clone(), place, Arc::clone(&block), 0x10_0000, DEPTH);
            let pair = Pair::new(1, place, ring, Arc::new(Bank::new(csr, false)), Arc::default());
            pair.hold().start(1, 1);
            fake.take_writes();
            Rig { fake, pair, block, cookies: Vec::new(), answered: 0 }
        }

        fn station(&self) -> (Arc<Station>, u16) {
            let station = Arc::new(Station::new(Some(Doorbell::new().unwrap())));
            let owner = self.pair.join(Arc::clone(&station)).unwrap();
            (station, owner)
        }

        /// Puts as much as the queue may.
        fn flood(&mut self, owner: u16) -> usize {
            let mut held = self.pair.hold();
            let mut count = 0;
            while held.room(owner) > 0 {
                let whose = Whose { owner, part: 0, job: count as u32 };
                let put = held.put(whose, 0, |cookie, _| {
                    self.cookies.push((whose, cookie));
                    [0; 128]
                });
                assert!(put, "room was promised");
                count += 1;
            }
            count
        }

        /// Answers what was put, the last first.
        fn answer(&mut self, count: usize) {
            for _ in 0..count {
                let (_, cookie) = self.cookies.pop().unwrap();
                let mut octets = [0; response::LEN];
                octets[2..4].copy_from_slice(&[4, 0x80]);
                octets[8..16].copy_from_slice(&cookie.to_le_bytes());
                let at = 128 * DEPTH + 32 * (self.answered % DEPTH);
                self.block.copy_in(at, &octets);
                self.answered += 1;
            }
        }
    }

    #[test]
    fn queues_of_a_pair_have_equal_shares_and_keep_them() {
        let mut rig = Rig::new();
        let (_, first) = rig.station();
        assert_eq!(rig.flood(first), LIMIT, "one alone has everything");
        let (_, second) = rig.station();
        assert_eq!(rig.flood(second), 0, "until the first has got some back");
        assert!(!rig.pair.hold().has_room(second, 1));
        rig.answer(LIMIT);
        let mut mine = 0;
        assert_eq!(rig.pair.hold().harvest(Some(first), usize::MAX, |_| mine += 1).taken, LIMIT);
        assert_eq!(mine, LIMIT);
        assert_eq!(rig.flood(first), LIMIT / 2, "a flood stays within its share");
        assert_eq!(rig.flood(second), LIMIT / 2, "and leaves the other's alone");
        let (_, third) = rig.station();
        assert!(rig.pair.join(Arc::new(Station::new(None))).is_none(), "no fourth gets a whole burst in");
        assert_eq!(rig.flood(third), 1, "what was left over");
        assert!(!rig.pair.leave(third), "it has something out");
    }

    #[test]
    fn what_belongs_to_others_goes_into_their_inboxes_and_rings_for_them() {
        let mut rig = Rig::new();
        let ((_, first), (station, second)) = (rig.station(), rig.station());
        let (mine, theirs) = (rig.flood(first), rig.flood(second));
        station.arm();
        rig.answer(mine + theirs);
        let mut got = 0;
        rig.pair.hold().harvest(Some(first), usize::MAX, |arrival| {
            assert_eq!(arrival.whose.owner, first);
            got += 1;
        });
        assert_eq!(got, mine);
        assert!(!station.is_armed(), "nobody rang");
        let mail = station.collect();
        assert_eq!(mail.len(), theirs);
        assert!(mail.iter().all(|arrival| arrival.whose.owner == second));
        assert!(station.collect().is_empty());
        assert!(rig.pair.leave(second) && rig.pair.leave(first) && rig.pair.count() == 0);
    }

    #[test]
    fn who_sleeps_with_something_in_the_inbox_is_overheard() {
        let mut rig = Rig::new();
        let ((station, first), (other, second)) = (rig.station(), rig.station());
        rig.flood(first);
        rig.answer(1);
        // The other queue finds it after the first has looked and before that has armed, so it rings for nobody.
        rig.pair.hold().harvest(Some(second), usize::MAX, |_| ());
        assert!(!rig.pair.is_overheard() && station.arm());
        assert!(station.has_mail() && rig.pair.is_overheard(), "who arms has to ask");
        rig.pair.ring_all();
        assert!(!station.is_armed() && !other.is_armed());
        assert_eq!(station.collect().len(), 1);
        assert!(!rig.pair.is_overheard());
    }

    #[test]
    fn an_interrupt_wakes_one_queue_and_is_sorted_out_for_several() {
        let mut rig = Rig::new();
        let (station, first) = rig.station();
        rig.flood(first);
        station.arm();
        rig.pair.arm();
        assert_eq!(rig.fake.take_writes().last(), Some(&(0, 0x184, 2)));
        rig.answer(1);
        assert!(rig.pair.is_overheard());
        assert_eq!(rig.pair.bank().take(), 2);
        assert_eq!(rig.pair.on_interrupt(), Harvest::default(), "the queue does it itself");
        assert!(!station.is_armed() && rig.pair.hold().hears());
        let (other, second) = rig.station();
        rig.pair.hold().harvest(Some(first), usize::MAX, |_| ());
        rig.answer(LIMIT - 1);
        rig.pair.hold().harvest(Some(first), usize::MAX, |_| ());
        rig.flood(second);
        other.arm();
        station.arm();
        rig.fake.take_writes();
        rig.answer(1);
        assert_eq!(rig.pair.on_interrupt().taken, 1);
        assert!(!other.is_armed() && station.is_armed(), "the wrong one was woken");
        assert!(rig.fake.take_writes().contains(&(0, 0x184, 2)), "the one that sleeps on is not armed for");
    }
}
