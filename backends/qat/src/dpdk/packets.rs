//! A queue for packets: bursts become requests, one for each packet, and come back whole.
//!
//! 1. `submit` takes bursts into the queue; those for which there are requests are prepared and given to the device.
//! 2. `poll` takes requests back, gives the device what waited for room, and delivers bursts whose last packet has come back.
//!
//! A packet stays in its burst's buffer; a request has its address. Between `put` and the request's return nothing looks at the
//! buffer's octets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spi::{
    Closed, Completions, EspBurst, EspOp, Fault, FaultKind, Outcome, Polled, Queue, QueueConfig, Reject,
};

use super::driver::PLACES;
use super::eal;
use super::life::Life;
use super::sa::Sa;
use super::sys::{Access, Ended, ICV, Lane};
use crate::flights::Flights;
use crate::gate::Phase;
use crate::iv::Ivs;
use crate::near::Near;
use crate::view::{View, now_ns};

/// Requests of a queue. A pair must have places for all of them: some drivers do the work first and look for a place then.
const REQUESTS: usize = PLACES as usize / 2;
/// Requests taken back at a time.
const HARVEST: usize = 64;
/// How long a queue that is dropped waits for the device.
const PATIENCE: Duration = Duration::from_secs(2);
/// Vendor code of packets in memory that was never registered.
const UNREACHABLE: u32 = 1000;

/// A queue pair for packets.
pub(super) struct Packets {
    life: Arc<Life>,
    /// Always there until the queue is dropped.
    parts: Option<Parts>,
    view: Arc<View>,
    depth: usize,
    /// The life of the device in which what is out was submitted.
    epoch: u32,
    near: Near<Sa>,
}

/// What goes to whoever waits for the device, if the queue is dropped before it is done.
struct Parts {
    lane: Lane,
    flights: Flights<Flight>,
    /// Those that are not with the device yet, in order.
    staged: VecDeque<u32>,
    /// Whose a request is: burst and packet.
    whose: Vec<(u32, u8)>,
    ready: VecDeque<(EspBurst, u64)>,
    ivs: Ivs,
    /// Lists of ICVs that nobody needs now, so that bursts allocate none.
    spare: Vec<Icvs>,
}

/// ICVs that are still to be put into their packets.
type Icvs = Vec<(u8, [u8; ICV])>;

struct Flight {
    burst: EspBurst,
    sa: Arc<Sa>,
    /// Packets that have not come back.
    out: u8,
    /// One of them has to be scrubbed.
    spoiled: bool,
    icvs: Icvs,
    since: u64,
}

/// How requests of a poll ended.
#[derive(Default)]
struct Tally {
    packets: u64,
    bad_icv: u64,
    errors: u64,
}

impl Packets {
    /// `None` when the device has no queue pair left, or there is no memory or randomness.
    pub(super) fn open(life: &Arc<Life>, config: QueueConfig) -> Option<Packets> {
        let engine = Arc::clone(life.packets.as_ref()?);
        let lane = eal::call(move || Lane::open(&engine, REQUESTS))?;
        let lane = lane
            .inspect_err(|why| tracing::warn!(device = %life.name, why, "dpdk: no queue for packets"))
            .ok()?;
        let view = life.new_view(format!("packets on queue pair {}", lane.pair()));
        let depth = config.depth.clamp(1, PLACES as usize);
        let parts = Parts {
            lane,
            flights: Flights::new(depth),
            staged: VecDeque::with_capacity(depth),
            whose: vec![(0, 0); REQUESTS],
            ready: VecDeque::with_capacity(depth),
            ivs: Ivs::new()?,
            spare: Vec::new(),
        };
        let (epoch, _) = life.gate.look();
        Some(Packets {
            life: Arc::clone(life),
            parts: Some(parts),
            view,
            depth,
            epoch,
            near: Near::default(),
        })
    }

    /// Gives back what was lost in a reset; true when the device takes work.
    fn catch_up(&mut self) -> bool {
        let (epoch, phase) = self.life.gate.look();
        if let Some(parts) = self.parts.as_mut()
            && (epoch != self.epoch || phase == Phase::Quiet && !parts.flights.is_empty())
        {
            self.life.counters.aborted.add(parts.abort());
            self.epoch = epoch;
        }
        phase == Phase::Open
    }

    fn in_flight_now(&self) -> usize {
        self.parts.as_ref().map_or(0, |parts| parts.flights.len() + parts.ready.len())
    }

    /// Takes a burst in.
    fn take(&mut self, mut burst: EspBurst, since: u64) {
        let Some(parts) = &mut self.parts else { return };
        let life = &self.life;
        let look = || life.sas().find(burst.sa.index, burst.sa.epoch).cloned();
        let sa = match self.near.find(burst.sa, Sa::is_retired, look) {
            // An SA has one direction (RFC 4301 section 4.1); the caller has mixed up two.
            Some(sa) if sa.dir() != burst.dir => Err(FaultKind::Unsupported.into()),
            Some(_) if !life.reaches(burst.buf.address(), burst.buf.capacity()) => {
                Err(Fault { kind: FaultKind::Internal, vendor: UNREACHABLE })
            }
            Some(sa) => Ok(sa),
            None => Err(FaultKind::StaleHandle.into()),
        };
        match sa {
            Ok(sa) => {
                let icvs = parts.spare.pop().unwrap_or_default();
                let flight = Flight { burst, sa, out: 0, spoiled: false, icvs, since };
                let number = parts.flights.insert(flight);
                parts.staged.push_back(number);
            }
            Err(fault) => {
                burst.buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Failed(fault));
                parts.ready.push_back((burst, since));
            }
        }
    }

    /// Takes requests back, until so many bursts are ready or nothing more is there, and gives the device what waits.
    fn turn(&mut self, wanted: usize) {
        let (Some(parts), Some(engine)) = (&mut self.parts, &self.life.packets) else { return };
        // A reset has it, which will be seen next time.
        let Some(access) = engine.enter(parts.lane.pair()) else { return };
        // Nor may the pair be that of a later life, with what was submitted in an earlier one.
        if self.life.gate.look().0 != self.epoch {
            return;
        }
        let mut tally = Tally::default();
        // A device that finishes things while we look does not keep us here for ever.
        let mut most = 2 * REQUESTS;
        while parts.ready.len() < wanted && most > 0 {
            let taken = parts.harvest(&access, HARVEST.min(most), &mut tally);
            most = most.saturating_sub(taken.max(1));
            if taken == 0 {
                break;
            }
        }
        let full = parts.feed(&access, &mut tally);
        drop(access);
        let counters = &self.life.counters;
        counters.packets.add(tally.packets);
        counters.bad_icv.add(tally.bad_icv);
        counters.errors.add(tally.errors);
        counters.full.add(full.into());
    }
}

impl Parts {
    fn harvest(&mut self, access: &Access<'_>, most: usize, tally: &mut Tally) -> usize {
        let Parts { lane, flights, whose, ready, spare, .. } = self;
        let mut landing = Landing { flights, whose, ready, spare, tally };
        lane.take(access, most, |number, ended, icv| landing.land(number, ended, icv))
    }

    /// Prepares bursts, as many as there are requests for, and gives the device what it takes; true when it took less.
    fn feed(&mut self, access: &Access<'_>, tally: &mut Tally) -> bool {
        while let Some(number) = self.staged.front().copied() {
            let Some(flight) = self.flights.get_mut(number) else {
                self.staged.pop_front();
                continue;
            };
            if self.lane.room() < flight.burst.buf.ops().len() {
                break;
            }
            self.staged.pop_front();
            flight.put(&mut self.lane, number, &mut self.whose, &mut self.ivs);
            if flight.out == 0
                && let Some(flight) = self.flights.take(number)
            {
                self.ready.push_back((flight.burst, flight.since));
            }
        }
        let Parts { lane, flights, whose, ready, spare, .. } = self;
        let mut landing = Landing { flights, whose, ready, spare, tally };
        lane.push(access, |number, ended| landing.land(number, ended, &[0; ICV]))
    }

    /// Everything that is out comes back without an answer.
    fn abort(&mut self) -> u64 {
        self.lane.forget();
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

/// What requests that come back are noted in.
struct Landing<'a> {
    flights: &'a mut Flights<Flight>,
    whose: &'a [(u32, u8)],
    ready: &'a mut VecDeque<(EspBurst, u64)>,
    spare: &'a mut Vec<Icvs>,
    tally: &'a mut Tally,
}

impl Landing<'_> {
    /// A packet is decided, and with the last one its burst, whose octets are then looked at again.
    fn land(&mut self, request: u32, ended: Ended, icv: &[u8; ICV]) {
        let Some((job, part)) = self.whose.get(request as usize).copied() else { return };
        let Some(flight) = self.flights.get_mut(job) else { return };
        let Some(op) = flight.burst.buf.ops_mut().get_mut(usize::from(part)) else { return };
        flight.sa.decide(op, ended);
        self.tally.packets += 1;
        match op.outcome {
            Outcome::Done if flight.sa.brings_icv() => flight.icvs.push((part, *icv)),
            Outcome::Done => {}
            Outcome::Rejected(_) => self.tally.bad_icv += 1,
            _ => self.tally.errors += 1,
        }
        flight.spoiled |= op.outcome != Outcome::Done;
        flight.out = flight.out.saturating_sub(1);
        if flight.out > 0 {
            return;
        }
        let Some(mut flight) = self.flights.take(job) else { return };
        if flight.spoiled || !flight.icvs.is_empty() {
            flight.tidy();
        }
        flight.icvs.clear();
        self.spare.push(flight.icvs);
        self.ready.push_back((flight.burst, flight.since));
    }
}

impl Flight {
    /// Puts ICVs into their places and scrubs what was refused; all of it is back.
    fn tidy(&mut self) {
        let (bytes, ops) = self.burst.buf.split_mut();
        for (part, icv) in &self.icvs {
            ops.get(usize::from(*part)).into_iter().for_each(|op| self.sa.put_icv(bytes, op, icv));
        }
        // What could not be an operation was never with the device, and may reach into its neighbours.
        let kept = |op: &EspOp| matches!(op.outcome, Outcome::Done | Outcome::Rejected(Reject::BadLength));
        ops.iter().filter(|op| !kept(op)).for_each(|op| self.sa.scrub(bytes, op));
    }

    /// Prepares a request for each packet that can be one. There is room for all.
    fn put(&mut self, lane: &mut Lane, number: u32, whose: &mut [(u32, u8)], ivs: &mut Ivs) {
        let (bytes, ops) = self.burst.buf.split_mut();
        for (part, op) in ops.iter_mut().enumerate() {
            let Some((layout, aside)) = self.sa.begin(bytes, op, ivs) else {
                op.outcome = Outcome::Rejected(Reject::BadLength);
                continue;
            };
            match lane.put(self.sa.session(), &layout, &aside) {
                Some(request) => {
                    whose[request as usize] = (number, part as u8);
                    self.out += 1;
                }
                None => op.outcome = Outcome::Failed(FaultKind::Internal.into()),
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
        for burst in jobs.drain(..count) {
            self.take(burst, since);
        }
        // Nothing is taken back here, so nothing wanted: only given.
        self.turn(0);
        self.view.set_in_flight(self.in_flight_now());
        Ok(count)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<EspBurst>) -> Polled {
        self.catch_up();
        if self.parts.as_ref().is_some_and(|parts| !parts.flights.is_empty()) {
            self.turn(budget.max(1));
        }
        let Some(parts) = &mut self.parts else { return Polled::default() };
        let mut delivered = 0;
        if budget > 0 && !parts.ready.is_empty() {
            let now = now_ns();
            while delivered < budget
                && let Some((burst, since)) = parts.ready.pop_front()
            {
                self.view.delivered(since, now);
                delivered += 1;
                to.on_done(burst);
            }
        }
        let more = !parts.ready.is_empty();
        self.view.set_in_flight(self.in_flight_now());
        Polled { delivered, more }
    }

    fn room(&self) -> usize {
        match self.life.gate.look() {
            (_, Phase::Open) => self.depth - self.in_flight_now().min(self.depth),
            _ => 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight_now()
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.catch_up();
            let out = self.parts.as_ref().map_or(0, |parts| parts.lane.out());
            if out == 0 {
                return;
            }
            if Instant::now() > until {
                break;
            }
            self.harvest_only();
            if self.parts.as_ref().is_some_and(|parts| parts.lane.out() == out) {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        if let Some(parts) = self.parts.take() {
            tracing::warn!(device = %self.life.name, out = parts.lane.out(), "dpdk: a queue is dropped and the device keeps its packets");
            self.life.adopt(Box::new(parts));
        }
    }
}

impl Packets {
    /// Takes requests back and gives nothing.
    fn harvest_only(&mut self) {
        let (Some(parts), Some(engine)) = (&mut self.parts, &self.life.packets) else { return };
        if let Some(access) = engine.enter(parts.lane.pair()) {
            parts.harvest(&access, HARVEST, &mut Tally::default());
        }
    }
}
