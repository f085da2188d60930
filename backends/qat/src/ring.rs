//! One ring pair: requests in, responses out, and the table of what is out.
//!
//! ```text
//! memory:  | requests, depth x 128 or 64 | responses, depth x 32 | extra, depth x so many octets |
//! ```
//!
//! Each request has a place in the table, and with it a piece of extra memory for what does not fit into the request. Its number
//! is the cookie, together with a count of how often the place was used and a number of this ring's own: a response that is late,
//! doubled or invented names nothing that is out. Places are not tied to places of the ring, since responses need not come in
//! order.
//!
//! A place of the response ring holds [`NOTHING`] in its first word until the device has written a response there; it writes
//! that word last. The word is restored before the place is given back, which is said to the device now and then only.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::csr::Csr;
use crate::fw::response::{self, Answer, NOTHING};
use crate::generation::{PairPlace, Service};
use crate::sys::mem::Block;

/// Responses the device is not told of at most: telling costs a write to a register.
const UNSAID: usize = 32;

/// Octets of extra memory for a packet, and for an operation on numbers.
pub(crate) const PACKET_EXTRA: usize = 128;
pub(crate) const NUMBER_EXTRA: usize = 8192;

/// Whose a request is: the queue, the job in the queue, and the part of the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) owner: u16,
    pub(crate) part: u8,
    pub(crate) job: u32,
}

/// A request that was answered.
pub(crate) struct Arrival {
    pub(crate) whose: Whose,
    pub(crate) answer: Answer,
    /// Numbers that came out.
    pub(crate) output: Option<Box<Zeroizing<Vec<u8>>>>,
}

/// What was found in a place of the response ring.
pub(crate) enum Heard {
    /// An answer to something that is out.
    Arrival(Arrival),
    /// Something that answers nothing.
    Lie(Lie),
}

/// What the device may say that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Not a response to the service of this ring.
    Malformed,
    /// The cookie was never given out here.
    Invented,
    /// The cookie was given out, and its request has come back before.
    Doubled,
}

/// A place of the table.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// How often the place was used.
    used: u32,
    out: bool,
    whose: Whose,
    /// When it was taken, in the ticks of whoever watches.
    tick: u32,
    /// Octets of extra memory that were written to, and what comes back of them.
    dirty: u32,
    output: (u32, u32),
}

/// Extra memory of a request.
pub(crate) struct Extra<'a> {
    block: &'a Block,
    at: usize,
    /// The device's address of it.
    pub(crate) iova: u64,
    dirty: u32,
    output: (u32, u32),
}

impl Extra<'_> {
    pub(crate) fn put(&mut self, at: usize, octets: &[u8]) {
        self.block.copy_in(self.at + at, octets);
    }

    /// Octets from the beginning that hold secrets until they are wiped.
    pub(crate) fn set_dirty(&mut self, len: usize) {
        self.dirty = len as u32;
    }

    /// What is to be given back with the answer.
    pub(crate) fn set_output(&mut self, at: usize, len: usize) {
        self.output = (at as u32, len as u32);
    }
}

/// Octets a ring of this depth needs.
pub(crate) fn memory_len(service: Service, depth: usize) -> usize {
    depth * (service.request_len() + response::LEN + extra_len(service))
}

fn extra_len(service: Service) -> usize {
    match service {
        Service::Symmetric => PACKET_EXTRA,
        Service::Asymmetric => NUMBER_EXTRA,
    }
}

/// A ring pair. Whoever uses it holds its lock.
pub(crate) struct Ring {
    csr: Csr,
    place: PairPlace,
    block: Arc<Block>,
    iova: u64,
    depth: usize,
    /// The next free place for a request; the first that may hold a response.
    tail: usize,
    head: usize,
    /// The device has not been told of these.
    new: bool,
    unsaid: usize,
    entries: Box<[Entry]>,
    free: Vec<u16>,
    salt: u16,
    live: bool,
}

impl Ring {
    /// Over memory of at least [`memory_len`] octets, whose address for the device is a multiple of the request ring's length;
    /// the depth is a power of two.
    pub(crate) fn new(csr: Csr, place: PairPlace, block: Arc<Block>, iova: u64, depth: usize) -> Self {
        assert!(depth.is_power_of_two() && depth >= 16 && block.len() >= memory_len(place.service, depth));
        assert!(iova.is_multiple_of((depth * place.service.request_len()) as u64));
        let limit = depth - 1 - UNSAID.min(depth / 4);
        Ring {
            csr,
            place,
            block,
            iova,
            depth,
            tail: 0,
            head: 0,
            new: false,
            unsaid: 0,
            entries: vec![Entry::default(); limit].into(),
            free: (0..limit as u16).rev().collect(),
            salt: 0,
            live: false,
        }
    }

    /// Programs the device and begins anew: what was out is forgotten, and no response to it will be believed.
    pub(crate) fn start(&mut self, salt: u16) {
        self.forget();
        self.salt = salt;
        let (requests, responses) = (self.depth * self.request_len(), self.depth * response::LEN);
        self.block.fill(0, requests, 0);
        self.block.fill(requests, responses, NOTHING as u8);
        (self.tail, self.head, self.unsaid, self.new) = (0, 0, 0, false);
        self.csr.set_requests(self.place.request_ring, self.iova, requests);
        self.csr.set_responses(self.place.response_ring, self.iova + requests as u64, responses);
        self.live = true;
    }

    /// From now on nothing is written to the device.
    pub(crate) fn stop(&mut self) {
        self.live = false;
    }

    /// Forgets all that is out, and wipes what it left. The device must not be able to reach it any more.
    pub(crate) fn forget(&mut self) {
        for index in 0..self.entries.len() {
            if self.entries[index].out {
                self.give_back(index);
            }
        }
    }

    /// Requests that are out at most.
    pub(crate) fn limit(&self) -> usize {
        self.entries.len()
    }

    /// Requests that there is a place for.
    pub(crate) fn room(&self) -> usize {
        if self.live { self.free.len() } else { 0 }
    }

    pub(crate) fn out(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts one request into the ring, if there is room. `build` makes it, of the length the service has, from its cookie and
    /// its extra memory.
    #[inline]
    pub(crate) fn put<const N: usize>(
        &mut self,
        whose: Whose,
        tick: u32,
        build: impl FnOnce(u64, &mut Extra<'_>) -> [u8; N],
    ) -> bool {
        debug_assert_eq!(N, self.request_len());
        if !self.live {
            return false;
        }
        let Some(index) = self.free.pop() else { return false };
        let place = usize::from(index);
        let used = self.entries[place].used;
        let at = self.extra_at(place);
        let mut extra =
            Extra { block: &self.block, at, iova: self.iova + at as u64, dirty: 0, output: (0, 0) };
        let octets = build(cookie(used, self.salt, index), &mut extra);
        let (dirty, output) = (extra.dirty, extra.output);
        self.entries[place] = Entry { used, out: true, whose, tick, dirty, output };
        self.block.copy_in(self.tail * N, &octets);
        self.tail = (self.tail + 1) % self.depth;
        self.new = true;
        true
    }

    /// Tells the device of what was put.
    pub(crate) fn kick(&mut self) {
        if std::mem::take(&mut self.new) && self.live {
            self.csr.set_tail(self.place.request_ring, (self.tail * self.request_len()) as u32);
        }
    }

    /// Whether a response waits.
    pub(crate) fn hears(&self) -> bool {
        self.live && self.block.load(self.response_at(self.head)) != NOTHING
    }

    /// The next response.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Heard> {
        if !self.hears() {
            return None;
        }
        let at = self.response_at(self.head);
        let mut octets = [0; response::LEN];
        self.block.copy_out(at, &mut octets);
        self.block.store(at, NOTHING);
        self.head = (self.head + 1) % self.depth;
        self.unsaid += 1;
        if self.unsaid >= UNSAID.min(self.depth / 4) {
            self.say();
        }
        Some(self.judge(&octets))
    }

    /// Tells the device which responses are done with.
    pub(crate) fn say(&mut self) {
        if std::mem::take(&mut self.unsaid) > 0 && self.live {
            self.csr.set_head(self.place.response_ring, (self.head * response::LEN) as u32);
        }
    }

    #[inline]
    fn judge(&mut self, octets: &[u8; response::LEN]) -> Heard {
        let service = match self.place.service {
            Service::Symmetric => response::LOOKASIDE,
            Service::Asymmetric => response::NUMBERS,
        };
        let Some((given, answer)) = response::parse(octets, service) else {
            return Heard::Lie(Lie::Malformed);
        };
        let index = given as u16;
        let Some(entry) = self.entries.get(usize::from(index)) else { return Heard::Lie(Lie::Invented) };
        if given != cookie(entry.used, self.salt, index) {
            // One that was given out for an earlier use of the place has come back then.
            let ours = given as u32 == cookie(0, self.salt, index) as u32;
            let ago = entry.used.wrapping_sub((given >> 32) as u32);
            let earlier = ours && ago < 1 << 31;
            return Heard::Lie(if earlier { Lie::Doubled } else { Lie::Invented });
        }
        if !entry.out {
            return Heard::Lie(Lie::Invented);
        }
        let (whose, (at, len)) = (entry.whose, entry.output);
        let output = (len > 0).then(|| {
            let mut octets = Zeroizing::new(vec![0; len as usize]);
            self.block.copy_out(self.extra_at(usize::from(index)) + at as usize, &mut octets);
            Box::new(octets)
        });
        self.give_back(usize::from(index));
        Heard::Arrival(Arrival { whose, answer, output })
    }

    fn give_back(&mut self, index: usize) {
        let at = self.extra_at(index);
        let entry = &mut self.entries[index];
        if entry.dirty > 0 {
            self.block.fill(at, entry.dirty as usize, 0);
        }
        // A place that has been used four thousand million times begins again: nothing is late by so much.
        *entry = Entry { used: entry.used.wrapping_add(1), ..Entry::default() };
        self.free.push(index as u16);
    }

    /// The tick of what has been out longest.
    pub(crate) fn oldest(&self, now: u32) -> Option<u32> {
        let out = self.entries.iter().filter(|entry| entry.out);
        out.map(|entry| now.wrapping_sub(entry.tick)).max()
    }

    fn request_len(&self) -> usize {
        self.place.service.request_len()
    }

    fn response_at(&self, place: usize) -> usize {
        self.depth * self.request_len() + place * response::LEN
    }

    fn extra_at(&self, index: usize) -> usize {
        self.depth * (self.request_len() + response::LEN) + index * extra_len(self.place.service)
    }
}

fn cookie(used: u32, salt: u16, index: u16) -> u64 {
    u64::from(used) << 32 | u64::from(salt) << 16 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::generation::{INTEL, model};
    use crate::pci::PciFunction;

    const DEPTH: usize = 16;
    /// One is always free, and four may be unsaid.
    const LIMIT: usize = DEPTH - 1 - 4;

    fn ring(service: Service) -> (Arc<Fake>, Ring) {
        let fake = Arc::new(Fake::default());
        let function = Arc::clone(&fake) as Arc<dyn PciFunction>;
        let csr = Csr::new(&function, model(INTEL, 0x4941).unwrap().generation, 1);
        let place = PairPlace { bank: 1, request_ring: 0, response_ring: 1, service };
        let block = Block::map(memory_len(service, DEPTH)).unwrap();
        let mut ring = Ring::new(csr, place, block, 0x20_0000, DEPTH);
        ring.start(0xabcd);
        fake.take_writes();
        (fake, ring)
    }

    fn whose(job: u32) -> Whose {
        Whose { owner: 1, part: 2, job }
    }

    /// Puts a request and gives its cookie.
    fn put(ring: &mut Ring, job: u32) -> Option<u64> {
        let mut cookie = None;
        ring.put(whose(job), 0, |given, extra| {
            cookie = Some(given);
            extra.put(0, &[7; 16]);
            extra.set_dirty(16);
            extra.set_output(8, 4);
            [job as u8; 128]
        });
        cookie
    }

    /// Does as the device does: writes a response into its next place.
    fn respond(ring: &Ring, at: usize, kind: u8, cookie: u64, status: u8) {
        let mut octets = [0; response::LEN];
        octets[2..4].copy_from_slice(&[kind, 0x80]);
        octets[6] = status;
        octets[8..16].copy_from_slice(&cookie.to_le_bytes());
        ring.block.copy_in(ring.response_at(at % DEPTH), &octets);
    }

    fn job(heard: Option<Heard>) -> Result<u32, Option<Lie>> {
        match heard {
            Some(Heard::Arrival(arrival)) => Ok(arrival.whose.job),
            Some(Heard::Lie(lie)) => Err(Some(lie)),
            None => Err(None),
        }
    }

    #[test]
    fn requests_fill_the_ring_up_to_its_limit_and_one_write_tells_of_them() {
        let (fake, mut ring) = ring(Service::Symmetric);
        let cookies: Vec<u64> = std::iter::from_fn(|| put(&mut ring, 5)).collect();
        assert_eq!((cookies.len(), ring.room(), ring.out()), (LIMIT, 0, LIMIT));
        assert!(fake.take_writes().is_empty(), "told too early");
        ring.kick();
        ring.kick();
        assert_eq!(fake.take_writes(), [(0, 0x2100, LIMIT as u32 * 128)]);
        let mut request = [0; 128];
        ring.block.copy_out(128 * (LIMIT - 1), &mut request);
        assert_eq!(request, [5; 128]);
        let mut distinct = cookies.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), LIMIT);
    }

    #[test]
    fn responses_come_in_any_order_and_the_head_is_told_now_and_then() {
        let (fake, mut ring) = ring(Service::Symmetric);
        assert_eq!(job(ring.next()), Err(None));
        for round in 0..100 {
            let (a, b) = (put(&mut ring, 2 * round).unwrap(), put(&mut ring, 2 * round + 1).unwrap());
            ring.kick();
            let at = 2 * round as usize;
            respond(&ring, at, 4, b, 0);
            assert_eq!(job(ring.next()), Ok(2 * round + 1));
            assert_eq!(job(ring.next()), Err(None), "a place is read twice");
            respond(&ring, at + 1, 4, a, 0);
            assert_eq!(job(ring.next()), Ok(2 * round));
        }
        let heads: Vec<u32> = fake
            .take_writes()
            .iter()
            .filter(|(_, at, _)| *at == 0x20c4)
            .map(|(_, _, value)| *value)
            .collect();
        assert_eq!(heads.len(), 50, "every fourth response");
        assert_eq!(heads[..5], [128, 256, 384, 0, 128]);
        ring.say();
        assert!(fake.take_writes().is_empty(), "nothing new to say");
    }

    #[test]
    fn late_doubled_invented_and_malformed_responses_are_not_believed() {
        let (_, mut ring) = ring(Service::Symmetric);
        let cookie = put(&mut ring, 1).unwrap();
        respond(&ring, 0, 4, cookie, 0);
        respond(&ring, 1, 4, cookie, 0);
        respond(&ring, 2, 4, cookie ^ 1 << 20, 0);
        respond(&ring, 3, 4, cookie | 0xffff, 0);
        respond(&ring, 4, 3, cookie, 0);
        respond(&ring, 5, 4, (cookie & 0xffff_ffff) | 1 << 32, 0);
        assert_eq!(job(ring.next()), Ok(1));
        assert_eq!(job(ring.next()), Err(Some(Lie::Doubled)));
        assert_eq!(job(ring.next()), Err(Some(Lie::Invented)), "another ring's number");
        assert_eq!(job(ring.next()), Err(Some(Lie::Invented)), "no such place");
        assert_eq!(job(ring.next()), Err(Some(Lie::Malformed)), "another service");
        assert_eq!(job(ring.next()), Err(Some(Lie::Invented)), "its next use, which has not come yet");
        let late = put(&mut ring, 2).unwrap();
        ring.start(0x1234);
        respond(&ring, 0, 4, late, 0);
        assert_eq!(job(ring.next()), Err(Some(Lie::Invented)), "of before a reset");
        assert_eq!(ring.out(), 0);
    }

    #[test]
    fn numbers_come_out_and_are_wiped() {
        let (_, mut ring) = ring(Service::Asymmetric);
        let mut at = 0;
        let mut cookie = 0;
        ring.put(whose(1), 0, |given, extra| {
            (cookie, at) = (given, extra.at);
            assert_eq!(extra.iova, 0x20_0000 + extra.at as u64);
            extra.put(0, &[1, 2, 3, 4, 5, 6, 7, 8]);
            extra.set_dirty(8);
            extra.set_output(2, 4);
            [0; 64]
        });
        respond(&ring, 0, 3, cookie, 0);
        let Some(Heard::Arrival(arrival)) = ring.next() else { panic!("nothing came") };
        assert_eq!(***arrival.output.unwrap(), [3, 4, 5, 6]);
        let mut rest = [9; 8];
        ring.block.copy_out(at, &mut rest);
        assert_eq!(rest, [0; 8], "a secret stays behind");
    }

    #[test]
    fn a_stopped_ring_takes_nothing_and_writes_nothing() {
        let (fake, mut ring) = ring(Service::Symmetric);
        let cookie = put(&mut ring, 1).unwrap();
        ring.stop();
        ring.kick();
        respond(&ring, 0, 4, cookie, 0);
        assert!(put(&mut ring, 2).is_none() && ring.next().is_none() && ring.room() == 0);
        assert!(fake.take_writes().is_empty());
        assert_eq!(ring.oldest(7), Some(7));
    }
}
