//! Adapter: a function over one job becomes a [`Queue`]. For backends that compute at once.
//!
//! The work is done in `poll`, on the caller's thread: that keeps rule 2 of the contract, keeps the cache warm, and makes
//! `budget` a real time slice.

use std::collections::VecDeque;

use crate::queue::{Closed, Completions, Polled, Queue};

/// A queue that calls `work` for each job when it is polled. Completions come in order.
pub struct Inline<J, D, F: FnMut(J) -> D> {
    waiting: VecDeque<J>,
    depth: usize,
    work: F,
}

impl<J, D, F: FnMut(J) -> D> Inline<J, D, F> {
    /// A queue of `depth` jobs, at least one.
    pub fn new(depth: usize, work: F) -> Self {
        let depth = depth.max(1);
        Inline { waiting: VecDeque::with_capacity(depth), depth, work }
    }
}

impl<J: Send, D, F: FnMut(J) -> D + Send> Queue for Inline<J, D, F> {
    type Job = J;
    type Done = D;

    fn submit(&mut self, jobs: &mut VecDeque<J>) -> Result<usize, Closed> {
        let take = self.room().min(jobs.len());
        self.waiting.extend(jobs.drain(..take));
        Ok(take)
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<D>) -> Polled {
        let mut delivered = 0;
        while delivered < budget {
            let Some(job) = self.waiting.pop_front() else { break };
            to.on_done((self.work)(job));
            delivered += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_stays_and_work_happens_in_poll() {
        let mut q = Inline::new(2, |n: u32| n * 10);
        let mut jobs: VecDeque<u32> = [1, 2, 3].into();
        assert_eq!(q.submit(&mut jobs), Ok(2));
        assert_eq!((jobs.len(), q.room(), q.in_flight()), (1, 0, 2));
        let mut out = Vec::new();
        assert_eq!(q.poll(1, &mut |d| out.push(d)), Polled { delivered: 1, more: true });
        assert_eq!(q.poll(9, &mut |d| out.push(d)), Polled { delivered: 1, more: false });
        assert_eq!(out, [10, 20]);
    }
}
