//! What the device does by itself: fetch, work, answer, each in its own time.
//!
//! 1. A doorbell enters a *fetch*, which comes a moment later.
//! 2. The fetch copies requests from the ring and hands them to an engine: symmetric ones to one, asymmetric ones to
//!    another, so that a signature does not hold up packets.
//! 3. The engine works on a request without the device's lock. It reads memory, and writes nothing.
//! 4. When the time of the request has come, and the requests of its ring before it are answered, its results are written,
//!    then its response, then the interrupt is seen to.
//!
//! Every access carries the ticket of the life in which the request was fetched.

use std::sync::Arc;
use std::time::Duration;

use emu_model::fault::{Kind, Occasion};
use emu_model::{Dma, Gate, Guarded, Space, Ticket, Time};

use crate::device::{Device, Event};
use crate::flight::{Fate, Flight, Stage};
use crate::fw::{self, Cost, Outcome, Verdict};
use crate::personality::{Generation, RingUse};

/// Requests of one ring that are under way. More stay in the ring, and it becomes full.
const IN_FLIGHT: usize = 64;
/// Octets of results that wait to be written; while there are more, the engines wait.
const MAX_HELD: usize = 64 << 20;

/// An engine, by what it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Symmetric = 0,
    Asymmetric = 1,
}

pub(crate) const ENGINES: [Engine; 2] = [Engine::Symmetric, Engine::Asymmetric];

/// A request handed to an engine.
pub(crate) struct Job {
    bank: usize,
    tx: usize,
    number: u64,
    request: Vec<u8>,
    ticket: Ticket,
    gate: Arc<Gate>,
    generation: Generation,
}

impl Job {
    /// Works on it. This is what takes time.
    pub(crate) fn work(&self, space: &Space) -> Outcome {
        fw::execute(&self.request, self.generation, &Guarded::new(space, &self.gate, self.ticket))
    }
}

/// Octets that a flight holds back from memory.
pub(crate) fn held(flight: &Flight) -> usize {
    match &flight.stage {
        Stage::Done { outcome, .. } => outcome.len(),
        _ => 0,
    }
}

impl Device {
    /// Does everything that is due by `now`. Returns when it wants to be called again.
    pub(crate) fn turn(&mut self, now: Time) -> Option<Time> {
        for kind in self.faults.strike_by_the_clock(now) {
            self.befall(kind, now);
        }
        while let Some((_, event)) = self.timeline.take_due(now) {
            match event {
                Event::Fetch(bank, tx) => self.fetch(bank, tx, now),
                Event::Complete(bank, tx) => self.complete(bank, tx, now),
                other => self.happen(other, now),
            }
        }
        [self.timeline.next(), self.faults.next()].into_iter().flatten().min()
    }

    /// Copies requests from a ring, as many as there are and as may be under way.
    fn fetch(&mut self, at: usize, tx: usize, now: Time) {
        self.fetching.retain(|entered| *entered != (at, tx));
        let purpose = self.ring_use(at, tx);
        if purpose == RingUse::None {
            return;
        }
        self.stalled.retain(|(_, _, until)| *until > now);
        if let Some((_, _, until)) = self.stalled.iter().find(|(bank, ring, _)| (*bank, *ring) == (at, tx)) {
            let until = *until;
            self.fetching.push((at, tx));
            self.timeline.enter(until, Event::Fetch(at, tx));
            return;
        }
        while self.is_working(now) {
            let Some(request) = self.fetch_one(at, tx, purpose) else { return };
            self.counters.fetched += 1;
            let troubles = self.take_in(at, tx, purpose, request, now);
            let stop = !troubles.is_empty();
            for kind in troubles {
                match kind {
                    Kind::RingFull(lasting) => {
                        let until = now.after(lasting);
                        self.stalled.push((at, tx, until));
                        self.ring(at, tx, now);
                    }
                    other => self.befall(other, now),
                }
            }
            if stop {
                self.ring(at, tx, now);
                return;
            }
        }
    }

    /// The next request of a ring, if one is to be fetched.
    fn fetch_one(&mut self, at: usize, tx: usize, purpose: RingUse) -> Option<Vec<u8>> {
        let len = purpose.request_len();
        let bank = self.banks.get_mut(at)?;
        let under_way = bank.flights.get(tx)?.len();
        if !bank.serves(tx) || under_way >= IN_FLIGHT {
            return None;
        }
        let memory = Guarded::new(&*self.space, &bank.gate, bank.gate.ticket());
        let ring = bank.rings.get_mut(tx)?;
        if (ring.filled() as usize) < len {
            return None;
        }
        let mut request = vec![0; len];
        let address = ring.address(ring.head)?;
        if memory.read(address, &mut request).is_err() {
            // Nothing more is fetched until the driver writes to the ring again; reading the same hole for ever would
            // help nobody.
            ring.halted = true;
            bank.except(tx);
            self.counters.dma_faults += 1;
            return None;
        }
        ring.head = ring.wrap(ring.head.wrapping_add(len as u32));
        Some(request)
    }

    /// A request is under way. Returns what goes wrong with more than it alone.
    fn take_in(&mut self, at: usize, tx: usize, purpose: RingUse, request: Vec<u8>, now: Time) -> Vec<Kind> {
        let ring = (at * self.layout.rings / 2 + tx) as u32;
        let mut fate = Fate::default();
        let struck = self.faults.strike(Occasion::Job, Some(ring), purpose.service(), now);
        let troubles = struck.into_iter().filter_map(|kind| fate.suffer(kind)).collect();
        self.flights += 1;
        let number = self.flights;
        let Some(bank) = self.banks.get_mut(at) else { return troubles };
        let ticket = bank.gate.ticket();
        let Some(flights) = bank.flights.get_mut(tx) else { return troubles };
        flights.push_back(Flight { number, request, ticket, fetched: now, stage: Stage::Waiting, fate });
        let engine = match purpose {
            RingUse::Asymmetric => Engine::Asymmetric,
            _ => Engine::Symmetric,
        };
        if let Some(waiting) = self.waiting.get_mut(engine as usize) {
            waiting.push_back((at, tx, number));
        }
        troubles
    }

    /// The next request for an engine.
    pub(crate) fn next_job(&mut self, engine: Engine) -> Option<Job> {
        if self.held >= MAX_HELD {
            return None;
        }
        loop {
            let (bank, tx, number) = self.waiting.get_mut(engine as usize)?.pop_front()?;
            let found = self.flight(bank, tx, number).map(|flight| {
                flight.stage = Stage::Running;
                (std::mem::take(&mut flight.request), flight.ticket)
            });
            let Some((request, ticket)) = found else { continue };
            let gate = Arc::clone(&self.banks.get(bank)?.gate);
            return Some(Job { bank, tx, number, request, ticket, gate, generation: self.layout.generation });
        }
    }

    /// An engine is done with a request.
    pub(crate) fn on_done(&mut self, job: &Job, mut outcome: Outcome, now: Time) {
        let takes = self.takes(&outcome, now);
        // A flight that is not there any more was lost to a reset.
        let Some(flight) = self.flight(job.bank, job.tx, job.number) else { return };
        if flight.fate.engine_error {
            outcome.fail(Verdict::EngineError);
        }
        if flight.fate.flipped {
            outcome.flip_a_bit();
        }
        let due = flight.fetched.after(takes).after(flight.fate.delay).max(now);
        let held = outcome.len();
        flight.stage = Stage::Done { due, outcome };
        let aside = flight.aside_until();
        self.held += held;
        self.timeline.enter(due, Event::Complete(job.bank, job.tx));
        if let Some(until) = aside {
            self.timeline.enter(until, Event::Complete(job.bank, job.tx));
        }
    }

    /// Answers the requests of a ring that are due, in the order they were fetched.
    fn complete(&mut self, at: usize, tx: usize, now: Time) {
        while self.is_working(now) && self.complete_one(at, tx, now).is_some() {}
        // There is room for more requests to be under way.
        let waits = self.banks.get(at).is_some_and(|bank| bank.rings.get(tx).is_some_and(|r| !r.is_empty()));
        if waits {
            self.ring(at, tx, now);
        }
    }

    fn complete_one(&mut self, at: usize, tx: usize, now: Time) -> Option<()> {
        let bank = self.banks.get_mut(at)?;
        let flights = bank.flights.get_mut(tx)?;
        // Those that are to be overtaken stand aside until they have been, or nobody comes.
        let place =
            flights.iter().position(|flight| flight.aside_until().is_none_or(|until| until <= now))?;
        let flight = flights.get(place)?;
        if flight.due()? > now {
            return None;
        }
        let responses = match (flight.fate.lost, flight.fate.doubled) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        if responses > 0 && bank.response_slot(tx, responses - 1).is_none() {
            if !self.parked.contains(&(at, tx)) {
                self.parked.push((at, tx));
            }
            return None;
        }
        let flights = bank.flights.get_mut(tx)?;
        let flight = flights.remove(place)?;
        for overtaken in flights.iter_mut().take(place) {
            overtaken.fate.overtaken_by = overtaken.fate.overtaken_by.saturating_sub(1);
        }
        let Stage::Done { mut outcome, .. } = flight.stage else { return None };
        self.held = self.held.saturating_sub(outcome.len());
        let memory = Guarded::new(&*self.space, &bank.gate, flight.ticket);
        if outcome.write_to(&memory).is_err() {
            outcome.fail(Verdict::DmaFault);
        }
        if outcome.verdict() == Verdict::DmaFault {
            self.counters.dma_faults += 1;
            bank.except(tx);
        }
        let mut response = outcome.response(self.quiet_refusals);
        if flight.fate.wrong_cookie {
            outcome.spoil_cookie(&mut response);
        }
        for _ in 0..responses {
            let slot = bank.response_slot(tx, 0)?;
            let memory = Guarded::new(&*self.space, &bank.gate, flight.ticket);
            if memory.publish(slot, &response).is_err() {
                self.counters.dma_faults += 1;
                let rx = bank.partner(tx);
                bank.except(rx);
                break;
            }
            bank.advance_response(tx);
            self.counters.responses += 1;
        }
        self.count(&outcome);
        self.update_interrupts(now, false);
        Some(())
    }

    fn count(&mut self, outcome: &Outcome) {
        let tally = self.counters.requests.entry(outcome.name().to_string()).or_default();
        match outcome.verdict() {
            Verdict::Served => tally.served += 1,
            Verdict::Mismatch => tally.mismatched += 1,
            Verdict::Refused(what) => {
                tally.failed += 1;
                *self.counters.refused.entry(what.to_string()).or_default() += 1;
            }
            Verdict::Invalid(_) | Verdict::DmaFault | Verdict::EngineError => tally.failed += 1,
        }
    }

    /// How long a request takes.
    fn takes(&mut self, outcome: &Outcome, now: Time) -> Duration {
        let timing = self.timing;
        let plain = match outcome.cost() {
            Cost::Data(octets) => timing.symmetric + timing.kib.mul_f64(octets as f64 / 1024.0),
            Cost::Numbers(weight) => timing.asymmetric.saturating_mul(weight),
        };
        let (factor, until) = self.slow;
        let factor = if now < until { factor } else { 1.0 };
        let slowed = Duration::try_from_secs_f64(plain.as_secs_f64() * factor).unwrap_or(Duration::MAX);
        self.faults.dice().around(slowed.min(Duration::from_secs(3600)), timing.jitter)
    }

    fn flight(&mut self, bank: usize, tx: usize, number: u64) -> Option<&mut Flight> {
        let flights = self.banks.get_mut(bank)?.flights.get_mut(tx)?;
        flights.iter_mut().find(|flight| flight.number == number)
    }
}
