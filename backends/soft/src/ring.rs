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
use crate::esp::{Sa, fail};
use crate::op;
use crate::stamped::Stamped;

/// A ring for packets.
pub(crate) fn packets(shared: &Arc<Shared>, depth: usize) -> Box<EspQueue> {
    let mut near = Near { shared: Arc::clone(shared), sas: Vec::new() };
    let work = move |(stamp, mut burst): (u64, EspBurst)| {
        if near.shared.resets.since(stamp) {
            fail(&mut burst, FaultKind::Aborted);
        } else if let Some(sa) = near.find(burst.sa) {
            sa.run(&mut burst);
        } else {
            fail(&mut burst, FaultKind::StaleHandle);
        }
        burst
    };
    Box::new(Stamped::new(Inline::new(depth, work), shared.resets.clone()))
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
struct Near {
    shared: Arc<Shared>,
    sas: Vec<(u32, Weak<Sa>)>,
}

impl Near {
    fn find(&mut self, id: SaId) -> Option<Arc<Sa>> {
        let index = id.index as usize;
        if let Some((epoch, sa)) = self.sas.get(index)
            && *epoch == id.epoch
        {
            return sa.upgrade();
        }
        let sa = self.shared.find_sa(id)?;
        if self.sas.len() <= index {
            // No longer than the device's table, which knows this index.
            self.sas.resize_with(index + 1, || (0, Weak::new()));
        }
        self.sas[index] = (id.epoch, Arc::downgrade(&sa));
        Some(sa)
    }
}
