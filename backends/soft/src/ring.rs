//! The two rings: packets are done in `poll` on the worker's thread; so are cheap operations, and dear ones on helper threads
//! ([`crate::cost`]).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use spi::inline::Inline;
use spi::offthread::OffThread;
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOutput, CryptoQueue, Doorbell, EspBurst, EspQueue,
    FaultKind, Outcome, Polled, Queue, SaId,
};

use crate::cost::{self, Place};
use crate::device::Shared;
use crate::esp::{Run, fail};
use crate::op;
use crate::scratch::Scratch;
use crate::stamped::Stamped;

/// A ring for packets; `None` when there is no memory or randomness for it.
pub(crate) fn packets(shared: &Arc<Shared>, depth: usize) -> Option<Box<EspQueue>> {
    Some(Box::new(Packets {
        shared: Arc::clone(shared),
        waiting: VecDeque::with_capacity(depth),
        depth,
        seen: shared.resets.now(),
        doomed: 0,
        near: Near::default(),
        scratch: Scratch::new().ok()?,
    }))
}

/// Bursts wait here and are carried out in [`poll`](Queue::poll), on the thread that calls it.
struct Packets {
    shared: Arc<Shared>,
    waiting: VecDeque<EspBurst>,
    depth: usize,
    /// The resets this ring knows of.
    seen: u64,
    /// Bursts at the front that were submitted before the last of these: they come back as aborted, later ones with an old
    /// handle as stale.
    doomed: usize,
    near: Near,
    scratch: Scratch,
}

impl Packets {
    fn look_for_resets(&mut self) {
        let now = self.shared.resets.now();
        if now != self.seen {
            self.seen = now;
            self.doomed = self.waiting.len();
        }
    }
}

impl Queue for Packets {
    type Job = EspBurst;
    type Done = EspBurst;

    fn submit(&mut self, jobs: &mut VecDeque<EspBurst>) -> Result<usize, Closed> {
        self.look_for_resets();
        let take = self.room().min(jobs.len());
        self.waiting.extend(jobs.drain(..take));
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<EspBurst>) -> Polled {
        let mut delivered = 0;
        // Neighbours are mostly of one SA, which is then looked up once. It is let go when this returns.
        let mut last: Option<(SaId, Arc<dyn Run>)> = None;
        while delivered < budget {
            self.look_for_resets();
            let Some(mut burst) = self.waiting.pop_front() else { break };
            if self.doomed > 0 {
                self.doomed -= 1;
                fail(&mut burst, FaultKind::Aborted);
            } else {
                if last.as_ref().is_none_or(|(id, _)| *id != burst.sa) {
                    last = self.near.find(&self.shared, burst.sa).map(|sa| (burst.sa, sa));
                }
                match &last {
                    Some((_, sa)) => sa.run(&mut burst, &mut self.scratch),
                    None => fail(&mut burst, FaultKind::StaleHandle),
                }
            }
            delivered += 1;
            to.on_done(burst);
        }
        Polled { delivered, more: !self.waiting.is_empty() }
    }

    fn room(&self) -> usize {
        self.depth - self.waiting.len()
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }
}

/// A ring for operations; `None` when there is no thread or descriptor to be had.
pub(crate) fn operations(shared: &Arc<Shared>, depth: usize, helpers: usize) -> Option<Box<CryptoQueue>> {
    let sessions = vec![Arc::clone(shared); helpers.max(1)];
    let far = OffThread::new(depth, sessions, |shared: &mut Arc<Shared>, job| run(shared, job)).ok()?;
    let here = Arc::clone(shared);
    let near = Inline::new(depth, move |job| run(&here, job));
    let queue = Operations {
        bell: far.bell(),
        near,
        far,
        depth,
        for_near: VecDeque::new(),
        for_far: VecDeque::new(),
    };
    Some(Box::new(Stamped::new(queue, shared.resets.clone())))
}

/// A job and the reset before which it was submitted.
type StampedJob = (u64, CryptoJob);

fn run(shared: &Shared, (stamp, job): StampedJob) -> CryptoDone {
    let CryptoJob { token, op } = job;
    let aborted = || (Outcome::Failed(FaultKind::Aborted.into()), CryptoOutput::None);
    let (outcome, output) = if shared.resets.since(stamp) {
        aborted()
    } else {
        match op::run(shared, op) {
            _ if shared.resets.since(stamp) => aborted(),
            Ok(output) => (Outcome::Done, output),
            Err(outcome) => (outcome, CryptoOutput::None),
        }
    };
    CryptoDone { token, outcome, output }
}

/// Cheap operations wait for `poll`; dear ones are with the helpers. One bell rings for both.
struct Operations<F: FnMut(StampedJob) -> CryptoDone> {
    near: Inline<StampedJob, CryptoDone, F>,
    far: OffThread<StampedJob, CryptoDone>,
    bell: Doorbell,
    depth: usize,
    // Kept so that submit allocates nothing.
    for_near: VecDeque<StampedJob>,
    for_far: VecDeque<StampedJob>,
}

impl<F: FnMut(StampedJob) -> CryptoDone + Send> Queue for Operations<F> {
    type Job = StampedJob;
    type Done = CryptoDone;

    fn submit(&mut self, jobs: &mut VecDeque<StampedJob>) -> Result<usize, Closed> {
        let take = self.room().min(jobs.len());
        for job in jobs.drain(..take) {
            match cost::place(&job.1.op) {
                Place::Here => self.for_near.push_back(job),
                Place::Helper => self.for_far.push_back(job),
            }
        }
        // Each of the two is as deep as both together may be: nothing is left.
        if self.near.submit(&mut self.for_near)? > 0 {
            self.bell.ring();
        }
        if !self.for_far.is_empty() {
            self.far.submit(&mut self.for_far)?;
        }
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<CryptoDone>) -> Polled {
        // What helpers have done goes first: it costs nothing more. This answers the bell.
        let far = self.far.poll(budget, to);
        let near = self.near.poll(budget.saturating_sub(far.delivered), to);
        if near.more {
            self.bell.ring();
        }
        Polled { delivered: far.delivered + near.delivered, more: far.more || near.more }
    }

    fn room(&self) -> usize {
        self.depth.saturating_sub(self.in_flight())
    }

    fn in_flight(&self) -> usize {
        self.near.in_flight() + self.far.in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

/// The SAs this ring has met: the device's table is locked once per SA, not once per burst. The links are weak, so that
/// a removed SA's keys go at once, and its handle finds nothing here either.
#[derive(Default)]
struct Near(Vec<Option<(u32, Weak<dyn Run>)>>);

impl Near {
    fn find(&mut self, shared: &Shared, id: SaId) -> Option<Arc<dyn Run>> {
        let index = id.index as usize;
        if let Some(Some((epoch, sa))) = self.0.get(index)
            && *epoch == id.epoch
        {
            return sa.upgrade();
        }
        let sa = shared.find_sa(id)?;
        if self.0.len() <= index {
            // No longer than the device's table, which knows this index.
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some((id.epoch, Arc::downgrade(&sa)));
        Some(sa)
    }
}
