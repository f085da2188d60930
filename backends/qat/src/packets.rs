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

use crate::caps::QUEUE;
use crate::card::{DISTRUSTED, Orphan};
use crate::device::Holder;
use crate::dma::Windows;
use crate::flights::Flights;
use crate::gate::Phase;
use crate::generation::Service;
use crate::iv::Ivs;
use crate::near::Near;
use crate::pair::{Held, Pair};
use crate::ring::{Arrival, Whose};
use crate::sa::Sa;
use crate::station::Station;
use crate::view::{View, now_ns};

/// Vendor code of packets in memory that was never registered.
const UNREACHABLE: u32 = 1;
/// Responses taken off the ring at a time.
const HARVEST: usize = 64;

/// A ring for packets on a card.
pub(crate) struct Packets {
    holder: Arc<Holder>,
    pair: Arc<Pair>,
    owner: u16,
    station: Arc<Station>,
    view: Arc<View>,
    out: Outgoing,
    depth: usize,
    /// The life of the card in which what is out was submitted.
    epoch: u32,
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
        let card = holder.card();
        let station = Arc::new(Station::new(card.new_bell()));
        let pair = Arc::clone(card.pair_for(Service::Symmetric)?);
        let owner = pair.join(Arc::clone(&station))?;
        let view = card.new_view(format!("packets on ring pair {}", pair.number));
        let depth = config.depth.clamp(1, QUEUE);
        let out = Outgoing {
            flights: Flights::new(depth),
            staged: VecDeque::with_capacity(depth),
            ready: VecDeque::with_capacity(depth),
            windows: Windows::default(),
            ivs: Ivs::new()?,
        };
        let (epoch, _) = card.gate.look();
        let near = Near::default();
        Some(Packets { holder: Arc::clone(holder), pair, owner, station, view, out, depth, epoch, near })
    }

    /// Gives back what was lost in a reset; true when the card takes work.
    fn catch_up(&mut self) -> bool {
        let (epoch, phase) = self.holder.card().gate.look();
        if epoch != self.epoch || phase == Phase::Quiet {
            let lost = self.out.abort();
            self.holder.card().counters.aborted.add(lost);
            self.epoch = epoch;
        }
        phase == Phase::Open
    }

    /// Takes a burst in.
    fn take(&mut self, mut burst: EspBurst, since: u64) {
        let card = self.holder.card();
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

    fn in_flight_now(&self) -> usize {
        self.out.flights.len() + self.out.ready.len()
    }

    /// Takes responses off the ring until so many bursts are ready or nothing more is there; puts there what waits.
    fn turn(&mut self, wanted: usize) {
        let Packets { holder, pair, owner, station, out, epoch, .. } = self;
        let card = holder.card();
        let mut count = 0;
        for arrival in station.collect() {
            count += 1;
            out.on_arrival(arrival, card);
        }
        let mut held = pair.hold();
        // A card that finishes things while we look does not keep us here for ever.
        let mut most = 2 * HARVEST + out.flights.len() * spi::esp::MAX_OPS;
        while out.ready.len() < wanted && most > 0 {
            let harvest =
                held.harvest(Some(*owner), HARVEST.min(most), |arrival| out.on_arrival(arrival, card));
            if harvest.lied {
                card.ask_for_reset(DISTRUSTED);
            }
            count += harvest.taken;
            most = most.saturating_sub(HARVEST);
            if harvest.taken < HARVEST {
                break;
            }
        }
        out.feed(&mut held, *owner, *epoch, card.tick());
        drop(held);
        if count > 0 {
            card.counters.packets.add(count as u64);
        }
    }

    /// The bell, after a poll that delivered so much.
    fn settle(&mut self, delivered: usize) {
        self.view.set_in_flight(self.in_flight_now());
        if self.in_flight_now() == 0 {
            if self.station.silence() {
                self.pair.disarm();
            }
        } else if !self.out.ready.is_empty() {
            // The caller knows that there is more, and may sleep all the same.
            self.station.ring_for_itself();
        } else if delivered == 0 && self.station.arm() {
            self.arm();
        }
    }

    /// Arms the card, which interrupts at once if it has something.
    fn arm(&self) {
        self.pair.hold().say();
        self.pair.arm();
        // A reset may have come in between, which arms nothing.
        let (epoch, phase) = self.holder.card().gate.look();
        if epoch != self.epoch || phase == Phase::Quiet || self.station.has_mail() {
            self.station.ring();
        }
    }
}

impl Outgoing {
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

    fn on_arrival(&mut self, arrival: Arrival, card: &crate::card::Card) {
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
        self.holder.card().space.refresh(&mut self.out.windows);
        for burst in jobs.drain(..count) {
            self.take(burst, since);
        }
        let tick = self.holder.card().tick();
        self.out.feed(&mut self.pair.hold(), self.owner, self.epoch, tick);
        self.view.set_in_flight(self.in_flight_now());
        if !self.out.ready.is_empty() {
            self.station.ring_for_itself();
        } else if self.station.arm_if_silent() {
            self.arm();
        }
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
                self.view.delivered(since, now);
                delivered += 1;
                to.on_done(burst);
            }
        }
        self.settle(delivered);
        Polled { delivered, more: !self.out.ready.is_empty() }
    }

    fn room(&self) -> usize {
        match self.holder.card().gate.look() {
            (_, Phase::Open) => self.depth - self.in_flight_now().min(self.depth),
            _ => 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight_now()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.station.bell()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.catch_up();
        if self.pair.leave(self.owner) {
            return;
        }
        // The card still has some of it: whoever watches over the card waits for that.
        let card = self.holder.card();
        let flights: Vec<Flight> = self.out.flights.drain().collect();
        card.orphans().push(Orphan {
            pair: Arc::clone(&self.pair),
            owner: self.owner,
            _keep: Box::new(flights),
        });
        card.control.ring();
    }
}
