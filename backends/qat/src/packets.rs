//! A queue for packets: bursts become requests, one for each packet, and come back whole.
//!
//! 1. `submit` takes bursts into the queue; those that fit into the ring are prepared and put there, and the card is told once.
//! 2. `poll` takes responses off the ring, puts there what waited for room, and delivers bursts whose last packet has come back.
//!
//! A burst goes into the ring as a whole or waits. All its headers and IVs are written before the card hears of it, and nothing
//! looks at its octets again before the last response is there: while the card has them, no reference to them exists.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::{Closed, Completions, EspBurst, Fault, FaultKind, Outcome, Polled, Queue, QueueConfig, Reject};

use crate::berth::{Berth, Load};
use crate::card::{Card, DISTRUSTED};
use crate::device::Holder;
use crate::dma::Windows;
use crate::flights::Flights;
use crate::generation::Service;
use crate::iv::Ivs;
use crate::near::Near;
use crate::pair::Held;
use crate::ring::{Arrival, Whose};
use crate::sa::Sa;
use crate::view::now_ns;

/// Vendor code of packets in memory that was never registered.
const UNREACHABLE: u32 = 1;
/// Responses taken off the ring at a time.
const HARVEST: usize = 64;

/// A ring for packets on a card.
pub(crate) struct Packets {
    berth: Berth,
    out: Outgoing,
    near: Near<Sa>,
}

/// What is under way.
struct Outgoing {
    flights: Flights<Flight>,
    /// Those that are not in the ring yet, in order.
    staged: VecDeque<u32>,
    ready: VecDeque<(EspBurst, u64)>,
    windows: Windows,
    ivs: Ivs,
}

struct Flight {
    burst: EspBurst,
    sa: Arc<Sa>,
    /// Packets the card has not answered for yet.
    out: u8,
    /// One of them has to be scrubbed.
    spoiled: bool,
    since: u64,
}

impl Packets {
    /// `None` when the card has no ring pair left for packets, or there is no randomness.
    pub(crate) fn open(holder: &Arc<Holder>, config: QueueConfig) -> Option<Packets> {
        let berth = Berth::open(holder, Service::Symmetric, "packets", config)?;
        let depth = berth.depth;
        let out = Outgoing {
            flights: Flights::new(depth),
            staged: VecDeque::with_capacity(depth),
            ready: VecDeque::with_capacity(depth),
            windows: Windows::default(),
            ivs: Ivs::new()?,
        };
        Some(Packets { berth, out, near: Near::default() })
    }

    fn catch_up(&mut self) -> bool {
        self.berth.catch_up(|| self.out.abort())
    }

    /// Takes a burst in.
    fn take(&mut self, mut burst: EspBurst, since: u64) {
        let card = self.berth.card();
        let look = || card.find_sa(burst.sa);
        let sa = match self.near.find(burst.sa, Sa::is_retired, look) {
            Some(sa) if sa.dir() == burst.dir => Ok(sa),
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            Some(_) => Err(FaultKind::Unsupported.into()),
            None => Err(FaultKind::StaleHandle.into()),
        };
        let reached = |sa| match self.out.windows.find(burst.buf.address(), burst.buf.capacity()) {
            Some(_) => Ok(sa),
            None => Err(Fault { kind: FaultKind::Internal, vendor: UNREACHABLE }),
        };
        match sa.and_then(reached) {
            Ok(sa) => {
                let number = self.out.flights.insert(Flight { burst, sa, out: 0, spoiled: false, since });
                self.out.staged.push_back(number);
            }
            Err(fault) => {
                burst.buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Failed(fault));
                self.out.ready.push_back((burst, since));
            }
        }
    }

    /// Takes responses off the ring until so many bursts are ready or nothing more is there; puts there what waits.
    fn turn(&mut self, wanted: usize) {
        let Packets { berth, out, .. } = self;
        let card = berth.card();
        let mut count = 0;
        for arrival in berth.station.collect() {
            count += 1;
            out.on_arrival(arrival, card);
        }
        let mut held = berth.pair.hold();
        // A card that finishes things while we look does not keep us here for ever.
        let mut most = 2 * HARVEST + out.flights.len() * spi::esp::MAX_OPS;
        while out.ready.len() < wanted && most > 0 {
            let harvest =
                held.harvest(Some(berth.owner), HARVEST.min(most), |arrival| out.on_arrival(arrival, card));
            if harvest.lied {
                card.ask_for_reset(DISTRUSTED);
            }
            count += harvest.taken;
            most = most.saturating_sub(HARVEST);
            if harvest.taken < HARVEST {
                break;
            }
        }
        out.feed(&mut held, berth.owner, berth.epoch, card.tick());
        drop(held);
        if count > 0 {
            card.counters.packets.add(count as u64);
        }
    }
}

impl Outgoing {
    fn load(&self) -> Load {
        let ready = self.ready.len();
        Load { in_flight: self.flights.len() + ready, ready }
    }

    /// Puts bursts into the ring, as many as there is room for.
    fn feed(&mut self, held: &mut Held<'_>, owner: u16, epoch: u32, tick: u32) {
        // A ring of a later life of the card is not for what was submitted in an earlier one, which is as good as lost.
        if held.epoch() != epoch {
            return;
        }
        while let Some(number) = self.staged.front().copied() {
            let Some(flight) = self.flights.get_mut(number) else {
                self.staged.pop_front();
                continue;
            };
            if !held.has_room(owner, flight.burst.buf.ops().len()) {
                break;
            }
            self.staged.pop_front();
            flight.put(held, number, owner, tick, &mut self.windows, &mut self.ivs);
            if flight.out == 0 {
                self.land(number);
            }
        }
        held.kick();
    }

    fn on_arrival(&mut self, arrival: Arrival, card: &Card) {
        let Whose { job, part, .. } = arrival.whose;
        let Some(flight) = self.flights.get_mut(job) else { return };
        let Some(op) = flight.burst.buf.ops_mut().get_mut(usize::from(part)) else { return };
        flight.sa.finish(op, arrival.answer);
        match op.outcome {
            Outcome::Done => {}
            Outcome::Rejected(_) => {
                flight.spoiled = true;
                card.counters.bad_icv.add(1);
            }
            _ => {
                flight.spoiled = true;
                card.on_error(arrival.answer);
            }
        }
        flight.out = flight.out.saturating_sub(1);
        if flight.out == 0 {
            self.land(job);
        }
    }

    /// The last packet of a burst is decided.
    fn land(&mut self, number: u32) {
        let Some(mut flight) = self.flights.take(number) else { return };
        if flight.spoiled {
            let (bytes, ops) = flight.burst.buf.split_mut();
            for op in ops.iter().filter(|op| op.outcome != Outcome::Done) {
                flight.sa.scrub(bytes, op);
            }
        }
        self.ready.push_back((flight.burst, flight.since));
    }

    /// Everything that is out comes back without an answer.
    fn abort(&mut self) -> u64 {
        self.staged.clear();
        let mut lost = 0;
        for mut flight in self.flights.drain() {
            for op in flight.burst.buf.ops_mut() {
                op.outcome = Outcome::Failed(FaultKind::Aborted.into());
            }
            lost += 1;
            self.ready.push_back((flight.burst, flight.since));
        }
        lost
    }
}

impl Flight {
    /// Writes headers and IVs, and puts a request for each packet that can be one into the ring, where there is room for all.
    fn put(
        &mut self,
        held: &mut Held<'_>,
        number: u32,
        owner: u16,
        tick: u32,
        windows: &mut Windows,
        ivs: &mut Ivs,
    ) {
        let (address, capacity) = (self.burst.buf.address(), self.burst.buf.capacity());
        // It was found when the burst was taken, and pools stay as long as their buffers.
        let base = windows.find(address, capacity);
        let (bytes, ops) = self.burst.buf.split_mut();
        for (part, op) in ops.iter_mut().enumerate() {
            let text = self.sa.text_len(capacity, op);
            let begun = text.and_then(|text| Some((text, self.sa.begin(bytes, op, ivs)?)));
            let Some((text, iv)) = begun else {
                op.outcome = Outcome::Rejected(Reject::BadLength);
                continue;
            };
            let Some(base) = base else {
                op.outcome = Outcome::Failed(Fault { kind: FaultKind::Internal, vendor: UNREACHABLE });
                continue;
            };
            let whose = Whose { owner, part: part as u8, job: number };
            let (sa, seq, iova) = (&self.sa, op.seq, base + u64::from(op.at));
            let put = held.put(whose, tick, |cookie, extra| sa.request(iova, text, seq, iv, cookie, extra));
            match put {
                true => self.out += 1,
                false => op.outcome = Outcome::Failed(FaultKind::Aborted.into()),
            }
        }
    }
}

impl Queue for Packets {
    type Job = EspBurst;
    type Done = EspBurst;

    fn submit(&mut self, jobs: &mut VecDeque<EspBurst>) -> Result<usize, Closed> {
        if !self.catch_up() {
            return Err(Closed);
        }
        let count = self.room().min(jobs.len());
        if count == 0 {
            return Ok(0);
        }
        let since = now_ns();
        self.berth.card().space.refresh(&mut self.out.windows);
        for burst in jobs.drain(..count) {
            self.take(burst, since);
        }
        let Berth { pair, owner, epoch, .. } = &self.berth;
        self.out.feed(&mut pair.hold(), *owner, *epoch, self.berth.card().tick());
        self.berth.submitted(self.out.load());
        Ok(count)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<EspBurst>) -> Polled {
        self.catch_up();
        if !self.out.flights.is_empty() {
            self.turn(budget.max(1));
        }
        let mut delivered = 0;
        if budget > 0 && !self.out.ready.is_empty() {
            let now = now_ns();
            while delivered < budget
                && let Some((burst, since)) = self.out.ready.pop_front()
            {
                self.berth.view.delivered(since, now);
                delivered += 1;
                to.on_done(burst);
            }
        }
        self.berth.polled(self.out.load(), delivered);
        Polled { delivered, more: !self.out.ready.is_empty() }
    }

    fn room(&self) -> usize {
        self.berth.room(self.in_flight())
    }

    fn in_flight(&self) -> usize {
        self.out.load().in_flight
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.berth.doorbell()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.catch_up();
        let flights = &mut self.out.flights;
        self.berth.leave(|| Box::new(flights.drain().collect::<Vec<Flight>>()));
    }
}
