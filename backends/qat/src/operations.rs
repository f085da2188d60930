//! A queue for operations: each is one request on numbers, or one after the other, and some work of ours before and after.
//!
//! Requests go to a ring pair of their own, so that a signature never stands in the way of a packet.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOutput, FaultKind, Outcome, Polled, Queue, QueueConfig,
    Token,
};

use crate::berth::{Berth, Load};
use crate::card::{Card, DISTRUSTED};
use crate::device::Holder;
use crate::flights::Flights;
use crate::generation::Service;
use crate::pair::Held;
use crate::ring::{Arrival, Whose};
use crate::view::now_ns;
use crate::work::{self, Call, Reply, Step, Work};

/// Responses taken off the ring at a time.
const HARVEST: usize = 32;

/// A ring for operations on a card.
pub(crate) struct Operations {
    berth: Berth,
    out: Outgoing,
}

/// What is under way.
struct Outgoing {
    flights: Flights<Flight>,
    /// Those with a request that is not in the ring yet, in order.
    staged: VecDeque<u32>,
    ready: VecDeque<(CryptoDone, u64)>,
}

struct Flight {
    token: Token,
    work: Box<dyn Work>,
    /// The request to be put next.
    call: Option<Call>,
    since: u64,
}

impl Operations {
    /// `None` when the card has no ring pair left for operations.
    pub(crate) fn open(holder: &Arc<Holder>, config: QueueConfig) -> Option<Operations> {
        let berth = Berth::open(holder, Service::Asymmetric, "operations", config)?;
        let depth = berth.depth;
        let out = Outgoing {
            flights: Flights::new(depth),
            staged: VecDeque::with_capacity(depth),
            ready: VecDeque::with_capacity(depth),
        };
        Some(Operations { berth, out })
    }

    fn catch_up(&mut self) -> bool {
        self.berth.catch_up(|| self.out.abort())
    }

    fn turn(&mut self, wanted: usize) {
        let Operations { berth, out } = self;
        let card = berth.card();
        let mut arrivals = berth.station.collect();
        let mut most = 2 * HARVEST + out.flights.len();
        loop {
            let mut held = berth.pair.hold();
            let harvest =
                held.harvest(Some(berth.owner), HARVEST.min(most), |arrival| arrivals.push(arrival));
            // What follows an answer may take its time: the ring is not ours alone.
            drop(held);
            if harvest.lied {
                card.ask_for_reset(DISTRUSTED);
            }
            card.counters.operations.add(arrivals.len() as u64);
            arrivals.drain(..).for_each(|arrival| out.on_arrival(arrival, card));
            most = most.saturating_sub(HARVEST);
            if harvest.taken < HARVEST || out.ready.len() >= wanted || most == 0 {
                break;
            }
        }
        out.feed(&mut berth.pair.hold(), berth.owner, berth.epoch, card.tick());
    }
}

impl Outgoing {
    fn load(&self) -> Load {
        let ready = self.ready.len();
        Load { in_flight: self.flights.len() + ready, ready }
    }

    fn take(&mut self, card: &Card, job: CryptoJob, since: u64) {
        let CryptoJob { token, op } = job;
        match work::begin(card, op) {
            Ok((work, call)) => {
                let number = self.flights.insert(Flight { token, work, call: Some(call), since });
                self.staged.push_back(number);
            }
            Err(outcome) => {
                self.ready.push_back((CryptoDone { token, outcome, output: CryptoOutput::None }, since))
            }
        }
    }

    fn feed(&mut self, held: &mut Held<'_>, owner: u16, epoch: u32, tick: u32) {
        if held.epoch() != epoch {
            return;
        }
        while let Some(number) = self.staged.front().copied()
            && held.has_room(owner, 1)
        {
            self.staged.pop_front();
            let Some(call) = self.flights.get_mut(number).and_then(|flight| flight.call.take()) else {
                continue;
            };
            let whose = Whose { owner, part: 0, job: number };
            held.put(whose, tick, |cookie, extra| call.put(cookie, extra));
        }
        held.kick();
    }

    fn on_arrival(&mut self, arrival: Arrival, card: &Card) {
        let number = arrival.whose.job;
        let Some(flight) = self.flights.get_mut(number) else { return };
        if arrival.answer.is_refusal() {
            card.counters.refused.add(1);
        } else if !arrival.answer.is_good() {
            card.on_error(arrival.answer);
        }
        let output = arrival.output.map(|output| *output).unwrap_or_default();
        let step = flight.work.go_on(Reply { answer: arrival.answer, output });
        let (outcome, output) = match step {
            Step::Call(call) => {
                flight.call = Some(call);
                return self.staged.push_back(number);
            }
            Step::Done(output) => (Outcome::Done, output),
            Step::Wrong => {
                // The card has worked out something that is not so.
                card.counters.wrong.add(1);
                card.ask_for_reset(DISTRUSTED);
                (Outcome::Failed(FaultKind::Internal.into()), CryptoOutput::None)
            }
            Step::Ended(outcome) => (outcome, CryptoOutput::None),
        };
        if let Some(flight) = self.flights.take(number) {
            self.ready.push_back((CryptoDone { token: flight.token, outcome, output }, flight.since));
        }
    }

    fn abort(&mut self) -> u64 {
        self.staged.clear();
        let mut lost = 0;
        for Flight { token, since, .. } in self.flights.drain() {
            let outcome = Outcome::Failed(FaultKind::Aborted.into());
            lost += 1;
            self.ready.push_back((CryptoDone { token, outcome, output: CryptoOutput::None }, since));
        }
        lost
    }
}

impl Queue for Operations {
    type Job = CryptoJob;
    type Done = CryptoDone;

    fn submit(&mut self, jobs: &mut VecDeque<CryptoJob>) -> Result<usize, Closed> {
        if !self.catch_up() {
            return Err(Closed);
        }
        let count = self.room().min(jobs.len());
        if count == 0 {
            return Ok(0);
        }
        let since = now_ns();
        for job in jobs.drain(..count) {
            self.out.take(self.berth.card(), job, since);
        }
        let Berth { pair, owner, epoch, .. } = &self.berth;
        self.out.feed(&mut pair.hold(), *owner, *epoch, self.berth.card().tick());
        self.berth.submitted(self.out.load());
        Ok(count)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<CryptoDone>) -> Polled {
        self.catch_up();
        if !self.out.flights.is_empty() {
            self.turn(budget.max(1));
        }
        let (mut delivered, now) = (0, now_ns());
        while delivered < budget
            && let Some((done, since)) = self.out.ready.pop_front()
        {
            self.berth.view.delivered(since, now);
            delivered += 1;
            to.on_done(done);
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

impl Drop for Operations {
    fn drop(&mut self) {
        self.catch_up();
        // Nothing of ours is with the card but its own memory.
        self.berth.leave(|| Box::new(()));
    }
}
