//! A queue whose jobs remember before which reset they were submitted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spi::{Closed, Completions, Polled, Queue};
use std::os::fd::BorrowedFd;

/// How many resets a device has seen.
#[derive(Clone, Default)]
pub(crate) struct Resets(Arc<AtomicU64>);

impl Resets {
    /// A stamp for a job that is submitted now.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Makes every stamp given so far an old one.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a reset has come since the stamp was given.
    pub(crate) fn since(&self, stamp: u64) -> bool {
        self.now() != stamp
    }
}

/// Puts the stamp on at `submit`. What was submitted before a reset is known by it, and comes back as aborted; what is
/// submitted afterwards with an old handle is merely stale.
pub(crate) struct Stamped<J, Q> {
    inner: Q,
    resets: Resets,
    // Kept so that submit allocates nothing.
    scratch: VecDeque<(u64, J)>,
}

impl<J, Q> Stamped<J, Q> {
    pub(crate) fn new(inner: Q, resets: Resets) -> Self {
        Stamped { inner, resets, scratch: VecDeque::new() }
    }
}

impl<J: Send, Q: Queue<Job = (u64, J)>> Queue for Stamped<J, Q> {
    type Job = J;
    type Done = Q::Done;

    fn submit(&mut self, jobs: &mut VecDeque<J>) -> Result<usize, Closed> {
        let stamp = self.resets.now();
        let fits = self.inner.room().min(jobs.len());
        self.scratch.extend(jobs.drain(..fits).map(|job| (stamp, job)));
        let taken = self.inner.submit(&mut self.scratch);
        // The inner queue keeps its promise of room; should one not, its leftovers go back where they were.
        while let Some((_, job)) = self.scratch.pop_back() {
            jobs.push_front(job);
        }
        taken
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<Q::Done>) -> Polled {
        self.inner.poll(budget, to)
    }

    fn room(&self) -> usize {
        self.inner.room()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        self.inner.doorbell()
    }
}
