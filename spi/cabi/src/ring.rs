//! A queue of a plug-in's, of either kind.
//!
//! 1. `submit` looks at each job. What can be decided here is parked; the rest is entered into a table, and the plug-in gets a pointer
//!    and the table's token. What it does not take goes back to where it was.
//! 2. `poll` takes the plug-in's completions, has each judged, and delivers.
//! 3. A reset stops the plug-in's queue: all that is out comes back, the queue is closed, and a new one takes its place.
//! 4. When the plug-in is shut out, nothing comes back any more: what is out is leaked with the queue, since the plug-in may write to it.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use spi::{Closed, Completions, InFlight, Polled, Queue, QueueConfig, Token};

use crate::device::Shared;
use crate::lie::Lie;
use crate::sys::{Bell, Loaded, RawQueue};

/// Jobs in one call.
pub(crate) const RUN: usize = 32;
/// How long a plug-in may take to give everything back after `queue_stop`.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done with a job.
pub(crate) enum Look<V, G> {
    /// It is for the plug-in, which needs this.
    Give(G),
    /// It is decided.
    Decided(V),
}

/// What differs between packets and operations.
pub(crate) trait Kind: Sized + 'static {
    /// Its number in `accel.h`.
    const CODE: u32;
    type Job: Send + 'static;
    type Done: Send + 'static;
    /// A job that is out.
    type Flight: Send;
    /// What an undecided job needs to take off; and how a decided one ends.
    type Given;
    type Verdict;
    /// A completion in the plug-in's words.
    type Said: Copy + Default;
    /// Memory for the plug-in that may be used again once its job has landed.
    type Memory: Send;

    fn look(shared: &Shared, job: &Self::Job) -> Look<Self::Verdict, Self::Given>;
    fn decide(job: Self::Job, verdict: Self::Verdict) -> Self::Done;
    fn depart(job: Self::Job, given: Self::Given, spare: &mut Vec<Self::Memory>) -> Self::Flight;
    /// The job as it was.
    fn undo(flight: Self::Flight) -> Self::Job;
    /// Gives up to [`RUN`] flights to the plug-in; returns how many it says it took.
    fn submit(loaded: &Loaded, queue: &mut RawQueue, run: &[(Token, &Self::Flight)]) -> u32;
    fn fetch(loaded: &Loaded, queue: &mut RawQueue, said: &mut [Self::Said]) -> u32;
    fn token(said: &Self::Said) -> Token;
    /// Judges a completion.
    fn land(shared: &Shared, flight: Self::Flight, said: &Self::Said) -> Landed<Self>;
}

/// How a completion was judged.
pub(crate) enum Landed<K: Kind> {
    Good(K::Done, Option<K::Memory>),
    /// The plug-in has lied, and may still write to this.
    Lied(K::Flight, Lie),
}

pub(crate) struct Ring<K: Kind> {
    shared: Arc<Shared>,
    queue: Option<RawQueue>,
    out: InFlight<K::Flight>,
    ready: VecDeque<K::Done>,
    /// Decided here, and the number of flights that have to land before where bursts come in order.
    parked: VecDeque<(u64, K::Done)>,
    spare: Vec<K::Memory>,
    bell: Bell,
    depth: usize,
    departed: u64,
    landed: u64,
    /// Resets of the device that this queue has followed.
    resets: u64,
    /// Since when it is stopped for a reset.
    stopping: Option<Instant>,
    stopped: bool,
}

impl<K: Kind> Ring<K> {
    pub(crate) fn open(shared: &Arc<Shared>, config: QueueConfig) -> Option<Ring<K>> {
        let depth = config.depth.clamp(1, shared.caps.ring);
        let resets = shared.resets.load(Ordering::SeqCst);
        let bell = Bell::new().ok()?;
        let queue = shared.opened.loaded.queue_open(shared.opened.raw, K::CODE, depth as u32, &bell)?;
        Some(Ring {
            shared: Arc::clone(shared),
            queue: Some(queue),
            out: InFlight::new(depth),
            ready: VecDeque::new(),
            parked: VecDeque::new(),
            spare: Vec::new(),
            bell,
            depth,
            departed: 0,
            landed: 0,
            resets,
            stopping: None,
            stopped: false,
        })
    }

    fn loaded(&self) -> &Loaded {
        &self.shared.opened.loaded
    }

    /// Follows the device's resets; true when work is taken.
    fn catch_up(&mut self) -> bool {
        if self.loaded().lie().is_some() {
            return false;
        }
        let resets = self.shared.resets.load(Ordering::SeqCst);
        if resets != self.resets && self.stopping.is_none() {
            if !self.stop() {
                return false;
            }
            self.stopping = Some(Instant::now());
        }
        if let Some(since) = self.stopping {
            if !self.out.is_empty() {
                if since.elapsed() > PATIENCE {
                    self.loaded().shut_out(Lie::Hoards(self.out.len()));
                }
                return false;
            }
            self.close();
            let opened = &self.shared.opened;
            self.queue = opened.loaded.queue_open(opened.raw, K::CODE, self.depth as u32, &self.bell);
            (self.stopping, self.stopped) = (None, false);
            self.resets = resets;
        }
        self.queue.is_some() && self.loaded().lie().is_none()
    }

    /// Stops the plug-in's queue; false when there is none.
    fn stop(&mut self) -> bool {
        let Some(queue) = &mut self.queue else { return false };
        self.shared.opened.loaded.queue_stop(queue);
        self.stopped = true;
        true
    }

    /// Closes the plug-in's queue, which is stopped and has nothing out.
    fn close(&mut self) {
        let Some(mut queue) = self.queue.take() else { return };
        let loaded = &self.shared.opened.loaded;
        let more = K::fetch(loaded, &mut queue, &mut [K::Said::default(); RUN]);
        if more > 0 {
            loaded.shut_out(Lie::AfterStop(more));
        }
        loaded.queue_close(queue);
    }

    /// Takes completions until so many are ready or the plug-in has no more.
    fn harvest(&mut self, wanted: usize) {
        // Once all of a stopped queue is home, close has the last word.
        while self.ready.len() < wanted && !(self.stopped && self.out.is_empty()) {
            let Some(queue) = &mut self.queue else { return };
            let loaded = &self.shared.opened.loaded;
            let mut said = [K::Said::default(); RUN];
            let gave = K::fetch(loaded, queue, &mut said);
            if gave as usize > RUN {
                return loaded.shut_out(Lie::GaveTooMany { room: RUN, gave });
            }
            if gave == 0 {
                return;
            }
            for said in &said[..gave as usize] {
                let Some(flight) = self.out.take(K::token(said)) else {
                    return self.shared.opened.loaded.shut_out(Lie::FalseToken(K::token(said).0));
                };
                match K::land(&self.shared, flight, said) {
                    Landed::Good(done, memory) => {
                        self.landed += 1;
                        self.spare.extend(memory);
                        self.ready.push_back(done);
                        self.release();
                    }
                    Landed::Lied(flight, lie) => {
                        self.leak(flight);
                        return self.shared.opened.loaded.shut_out(lie);
                    }
                }
            }
        }
    }

    /// Lets parked jobs go whose turn it is.
    fn release(&mut self) {
        let in_order = self.shared.caps.traits.contains(spi::caps::Traits::IN_ORDER);
        let trusted = self.loaded().lie().is_none();
        while self.parked.front().is_some_and(|(after, _)| !in_order || !trusted || *after <= self.landed) {
            self.ready.extend(self.parked.pop_front().map(|(_, done)| done));
        }
    }

    /// Gives a run of entered jobs to the plug-in; what it does not take goes back. Returns how many it took.
    fn give(&mut self, run: &[Token], jobs: &mut VecDeque<K::Job>) -> usize {
        let Some(queue) = self.queue.as_mut().filter(|_| !run.is_empty()) else { return 0 };
        let flights: Vec<(Token, &K::Flight)> =
            run.iter().filter_map(|token| Some((*token, self.out.peek(*token)?))).collect();
        let took = K::submit(&self.shared.opened.loaded, queue, &flights);
        if took as usize > run.len() {
            self.shared.opened.loaded.shut_out(Lie::TookTooMany { given: run.len(), took });
            return run.len();
        }
        for token in run[took as usize..].iter().rev() {
            if let Some(flight) = self.out.take(*token) {
                jobs.push_front(K::undo(flight));
            }
        }
        self.departed += u64::from(took);
        took as usize
    }

    fn leak(&self, flight: K::Flight) {
        self.shared.counts.leaked.fetch_add(1, Ordering::Relaxed);
        self.loaded().abandon(flight);
    }
}

impl<K: Kind> Queue for Ring<K> {
    type Job = K::Job;
    type Done = K::Done;

    fn submit(&mut self, jobs: &mut VecDeque<K::Job>) -> Result<usize, Closed> {
        if !self.catch_up() {
            return Err(Closed);
        }
        let fits = self.room().min(jobs.len());
        let mut taken = 0;
        while taken < fits {
            let mut run = Vec::with_capacity(RUN.min(fits - taken));
            let mut decided = None;
            while taken + run.len() < fits && run.len() < RUN {
                let Some(job) = jobs.front() else { break };
                let given = match K::look(&self.shared, job) {
                    Look::Give(given) => given,
                    Look::Decided(verdict) => {
                        decided = Some(verdict);
                        break;
                    }
                };
                let Some(job) = jobs.pop_front() else { break };
                match self.out.insert(K::depart(job, given, &mut self.spare)) {
                    Ok(token) => run.push(token),
                    Err(flight) => {
                        jobs.push_front(K::undo(flight));
                        break;
                    }
                }
            }
            let took = self.give(&run, jobs);
            taken += took;
            if took < run.len() || (run.is_empty() && decided.is_none()) {
                break;
            }
            if let Some(verdict) = decided
                && let Some(job) = jobs.pop_front()
            {
                self.parked.push_back((self.departed, K::decide(job, verdict)));
                self.release();
                self.bell.ring();
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<K::Done>) -> Polled {
        self.bell.answer();
        self.catch_up();
        self.release();
        self.harvest(budget.saturating_add(1));
        self.release();
        let mut delivered = 0;
        while delivered < budget {
            let Some(done) = self.ready.pop_front() else { break };
            to.on_done(done);
            delivered += 1;
        }
        // With the last of a stopped queue home, a new one is opened at once.
        self.catch_up();
        let more = !self.ready.is_empty();
        if more {
            // The bell was answered; whoever sleeps on it must hear of the rest.
            self.bell.ring();
        }
        Polled { delivered, more }
    }

    fn room(&self) -> usize {
        let Some(queue) = self.queue.as_ref().filter(|_| self.stopping.is_none()) else { return 0 };
        let own = self.depth.saturating_sub(self.in_flight());
        own.min(self.loaded().queue_room(queue) as usize)
    }

    fn in_flight(&self) -> usize {
        self.out.len() + self.ready.len() + self.parked.len()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

impl<K: Kind> Drop for Ring<K> {
    fn drop(&mut self) {
        if !self.stopped {
            self.stop();
        }
        let start = Instant::now();
        while !self.out.is_empty() && self.loaded().lie().is_none() {
            self.ready.clear();
            self.harvest(usize::MAX);
            if self.out.is_empty() {
                break;
            }
            if start.elapsed() > PATIENCE {
                self.loaded().shut_out(Lie::Hoards(self.out.len()));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        if self.out.is_empty() {
            self.close();
        }
        // A plug-in that was shut out may still write to what it had.
        let left: Vec<Token> = self.out.iter().map(|(token, _)| token).collect();
        for token in left {
            if let Some(flight) = self.out.take(token) {
                self.leak(flight);
            }
        }
    }
}
