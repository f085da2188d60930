//! A queue over a pump.
//!
//! 1. `submit` lets a job wait, and rings the queue's own bell.
//! 2. `poll` goes on with the jobs whose descriptors are readable, and gives their results to what they are part of.
//! 3. What is finished is delivered, up to the budget.
//! 4. Then new tasks are started as long as there is budget: those of a provider that computes at once finish here and are
//!    delivered; those of one that hands work on are paused, as many as may be.
//!
//! When a reset has come, everything that is out comes back as aborted, at once; see `pump` for what becomes of paused jobs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use spi::{Closed, Completions, Polled, Queue};

use crate::pump::{self, Pump, Started};
use crate::shared::{Counters, Gauge, Shared};
use crate::sys::job::Task;

/// One job in so many is timed.
const TIMED: u64 = 16;

/// Tasks know which piece of work they are part of.
pub(crate) trait Part: Task {
    fn whole(&self) -> usize;
}

/// A kind of work.
pub(crate) trait Kind: Send {
    type Job: Send;
    type Done: Send;
    /// A job that was begun.
    type Whole: Send;
    type Task: Part;

    /// Begins a job, or finishes it at once.
    fn begin(&mut self, shared: &Shared, job: Self::Job) -> Result<Self::Whole, Self::Done>;

    /// The next task of a job; `None`: there is none, or no further one. `number` is what the task says it is part of.
    fn next(&mut self, shared: &Shared, whole: &mut Self::Whole, number: usize) -> Option<Box<Self::Task>>;

    /// Takes over what a task gave.
    fn absorb(&mut self, shared: &Shared, whole: &mut Self::Whole, task: Box<Self::Task>);

    /// All tasks have been absorbed.
    fn end(&mut self, whole: Self::Whole) -> Self::Done;

    /// The device was reset under it.
    fn abort(&mut self, whole: Self::Whole) -> Self::Done;

    /// The device was reset before it was begun.
    fn abort_job(&mut self, job: Self::Job) -> Self::Done;
}

struct Begun<W> {
    whole: W,
    /// Tasks that are out.
    out: usize,
    /// Whether all tasks have been started.
    all: bool,
    since: Option<Instant>,
}

/// The queue.
pub(crate) struct Lane<K: Kind> {
    gauge: Arc<Gauge>,
    kind: K,
    depth: usize,
    waiting: VecDeque<(K::Job, Option<Instant>)>,
    begun: Vec<Option<Begun<K::Whole>>>,
    free: Vec<usize>,
    /// The one whose tasks are being started.
    current: Option<usize>,
    /// A task for which there was no room.
    held: Option<Box<K::Task>>,
    ready: VecDeque<K::Done>,
    /// There until it is dropped.
    pump: Option<Pump<K::Task>>,
    /// The resets it knows of.
    seen: u64,
    counted: u64,
    /// Behind all that was made with it, so that it goes last.
    shared: Arc<Shared>,
}

impl<K: Kind> Lane<K> {
    /// `None`: no file descriptor or memory to be had.
    pub(crate) fn open(shared: &Arc<Shared>, name: &'static str, depth: usize, kind: K) -> Option<Self> {
        let gauge = shared.enter(name)?;
        let pump = Pump::new(shared.jobs, shared.patience, gauge.bell.as_fd());
        let Ok(pump) = pump else {
            shared.leave(&gauge);
            return None;
        };
        Some(Lane {
            seen: shared.resets(),
            shared: Arc::clone(shared),
            gauge,
            kind,
            depth,
            waiting: VecDeque::new(),
            begun: Vec::new(),
            free: Vec::new(),
            current: None,
            held: None,
            ready: VecDeque::new(),
            pump: Some(pump),
            counted: 0,
        })
    }

    fn look_for_resets(&mut self) {
        let now = self.shared.resets();
        if now == self.seen {
            return;
        }
        self.seen = now;
        self.current = None;
        self.held = None;
        let paused = self.pump.as_mut().map_or(0, Pump::abandon);
        Counters::add(&self.shared.counters.abandoned, paused);
        for (number, place) in self.begun.iter_mut().enumerate() {
            if let Some(begun) = place.take() {
                self.free.push(number);
                self.ready.push_back(self.kind.abort(begun.whole));
            }
        }
        for (job, _) in self.waiting.drain(..) {
            self.ready.push_back(self.kind.abort_job(job));
        }
    }

    /// Goes on with what is paused.
    fn wake(&mut self) {
        let Some(pump) = &mut self.pump else { return };
        let woken = pump.wake(Duration::ZERO);
        for task in woken.done {
            self.absorb(task);
        }
        if woken.overdue {
            let paused = self.pump.as_ref().map_or(0, Pump::paused);
            tracing::warn!(paused, "openssl: a provider does not go on with a job; the device is reset");
            Counters::add(&self.shared.counters.overdue, 1);
            self.shared.fell_ill();
        }
    }

    fn absorb(&mut self, task: Box<K::Task>) {
        let number = task.whole();
        let Some(Some(begun)) = self.begun.get_mut(number) else { return };
        self.kind.absorb(&self.shared, &mut begun.whole, task);
        begun.out -= 1;
        self.close(number);
    }

    /// Parks a job that is over.
    fn close(&mut self, number: usize) {
        let Some(place) = self.begun.get_mut(number) else { return };
        if let Some(begun) = place.take_if(|begun| begun.all && begun.out == 0) {
            self.free.push(number);
            self.ready.push_back(self.kind.end(begun.whole));
            if let Some(since) = begun.since {
                self.gauge.latency.note(since.elapsed().as_nanos() as u64);
            }
        }
    }

    /// Starts tasks until one job more is ready, nothing is left, or no more may be paused. False: there was nothing to start.
    fn start_some(&mut self) -> bool {
        loop {
            let Some(pump) = &mut self.pump else { return false };
            let task = match self.held.take() {
                Some(task) => task,
                None if !pump.has_room() => return false,
                None => match self.next_task() {
                    Some(task) => task,
                    None => return !self.ready.is_empty(),
                },
            };
            let Some(pump) = &mut self.pump else { return false };
            let number = task.whole();
            match pump.start(task) {
                Started::Done(task) => {
                    if let Some(Some(begun)) = self.begun.get_mut(number) {
                        begun.out += 1;
                    }
                    self.absorb(task);
                    if !self.ready.is_empty() {
                        return true;
                    }
                }
                Started::Paused => {
                    let paused = pump.paused() as u64;
                    self.shared.counters.paused.fetch_add(1, Ordering::Relaxed);
                    self.shared.counters.most_paused.fetch_max(paused, Ordering::Relaxed);
                    if let Some(Some(begun)) = self.begun.get_mut(number) {
                        begun.out += 1;
                    }
                }
                Started::NotNow(task) => {
                    self.held = Some(task);
                    return false;
                }
            }
        }
    }

    /// The next task of the jobs in their order. Jobs that have none are parked on the way, and end it.
    fn next_task(&mut self) -> Option<Box<K::Task>> {
        loop {
            let number = match self.current {
                Some(number) => number,
                None => {
                    let (job, since) = self.waiting.pop_front()?;
                    match self.kind.begin(&self.shared, job) {
                        Ok(whole) => self.place(Begun { whole, out: 0, all: false, since }),
                        Err(done) => {
                            self.ready.push_back(done);
                            return None;
                        }
                    }
                }
            };
            self.current = Some(number);
            let Some(Some(begun)) = self.begun.get_mut(number) else {
                self.current = None;
                continue;
            };
            match self.kind.next(&self.shared, &mut begun.whole, number) {
                Some(task) => return Some(task),
                None => {
                    begun.all = true;
                    self.current = None;
                    self.close(number);
                    if !self.ready.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    fn place(&mut self, begun: Begun<K::Whole>) -> usize {
        let number = self.free.pop().unwrap_or(self.begun.len());
        if number == self.begun.len() {
            self.begun.push(None);
        }
        if let Some(place) = self.begun.get_mut(number) {
            *place = Some(begun);
        }
        number
    }

    fn deliver(&mut self, budget: usize, to: &mut dyn Completions<K::Done>) -> usize {
        let mut delivered = 0;
        while delivered < budget
            && let Some(done) = self.ready.pop_front()
        {
            to.on_done(done);
            delivered += 1;
        }
        delivered
    }

    /// What follows from how much is out now.
    fn settle(&mut self) {
        let out = self.in_flight();
        self.gauge.in_flight.store(out as u64, Ordering::Relaxed);
        if let Some(pump) = &mut self.pump {
            pump.hear(self.gauge.bell.as_fd(), out > 0);
        }
    }

    /// Whether a poll could start something.
    fn can_start(&self) -> bool {
        let work = self.held.is_some() || self.current.is_some() || !self.waiting.is_empty();
        work && self.pump.as_ref().is_some_and(Pump::has_room)
    }
}

impl<K: Kind> Queue for Lane<K> {
    type Job = K::Job;
    type Done = K::Done;

    fn submit(&mut self, jobs: &mut VecDeque<K::Job>) -> Result<usize, Closed> {
        if self.shared.has_failed() {
            return Err(Closed);
        }
        self.look_for_resets();
        let take = self.room().min(jobs.len());
        for job in jobs.drain(..take) {
            self.counted += 1;
            let since = self.counted.is_multiple_of(TIMED).then(Instant::now);
            self.waiting.push_back((job, since));
        }
        if take > 0 || !self.ready.is_empty() {
            self.gauge.bell.ring();
        }
        self.settle();
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<K::Done>) -> Polled {
        self.gauge.bell.answer();
        pump::tend_graves();
        self.wake();
        self.look_for_resets();
        let mut delivered = self.deliver(budget, to);
        while delivered < budget && self.start_some() {
            delivered += self.deliver(budget - delivered, to);
        }
        let more = !self.ready.is_empty();
        if more || self.can_start() {
            self.gauge.bell.ring();
        }
        self.gauge.done.fetch_add(delivered as u64, Ordering::Relaxed);
        self.settle();
        Polled { delivered, more }
    }

    fn room(&self) -> usize {
        self.depth.saturating_sub(self.in_flight())
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + (self.begun.len() - self.free.len()) + self.ready.len()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.pump.as_ref().map(AsFd::as_fd)
    }
}

impl<K: Kind> Drop for Lane<K> {
    fn drop(&mut self) {
        self.shared.leave(&self.gauge);
        if let Some(pump) = self.pump.take() {
            pump.retire();
        }
    }
}
