//! Operations of the key exchange: which device does one, and when they are taken back.
//!
//! Many are so cheap that their device does them at once, in `poll`, on this thread. So what a message gave rise to is worked
//! off in the turn in which it came, as far as it is cheap, and nothing sleeps or wakes for it; but never more of it than a
//! bound, for packets are waiting.

use std::time::Instant;

use spi::{CryptoDone, CryptoJob, CryptoOp, CryptoOutput, Fault, FaultKind, Group, Health, Outcome};

use super::Worker;
use super::accel::{Accel, Slot};

/// Operations taken back from one queue in one go.
const OPERATIONS: usize = 8;
/// Times that is done in one turn: a key exchange is two operations, the second of which follows from the first.
const ROUNDS: usize = 4;
/// Operations that wait for room in all queues together; more would only get old.
const WAITING: usize = 1024;

impl Worker {
    /// Takes completed operations, and those that follow from them; true when there are more.
    pub(super) fn take_operations(&mut self, now: Instant) -> bool {
        let mut more = false;
        for _ in 0..ROUNDS {
            if !self.accel.has_operations() {
                return false;
            }
            let mut done = Vec::new();
            more = self.accel.poll_operations(|operation| done.push(operation));
            if done.is_empty() {
                break;
            }
            for operation in done {
                self.engine.handle_crypto(now, operation, &mut self.fx);
                self.carry_out(now);
            }
        }
        more
    }
}

impl Accel {
    /// Takes an operation to the first device that can do it.
    pub(super) fn submit(&mut self, job: CryptoJob) {
        let group = group_of(&job.op);
        let able = |slot: &&mut Slot| {
            slot.operations.is_some()
                && slot.device.health() != Health::Failed
                && group.is_none_or(|group| slot.device.desc().caps.dh.contains(&group))
        };
        match self.slots.iter_mut().find(able) {
            Some(slot) if slot.jobs.len() < WAITING => {
                slot.jobs.push_back(job);
                slot.push();
            }
            found => {
                let kind = if found.is_some() { FaultKind::Exhausted } else { FaultKind::Unsupported };
                let outcome = Outcome::Failed(Fault::new(kind));
                self.failed.push_back(CryptoDone { token: job.token, outcome, output: CryptoOutput::None });
            }
        }
    }

    /// Operations the devices would take now.
    pub(super) fn room(&self) -> usize {
        let room = |slot: &Slot| {
            slot.operations.as_ref().map_or(0, |queue| queue.room().saturating_sub(slot.jobs.len()))
        };
        self.slots.iter().map(room).sum()
    }

    /// Takes operations back; true when there are more.
    pub(super) fn poll_operations(&mut self, mut on_done: impl FnMut(CryptoDone)) -> bool {
        while let Some(done) = self.failed.pop_front() {
            on_done(done);
        }
        let mut more = false;
        for slot in &mut self.slots {
            let Some(queue) = &mut slot.operations else { continue };
            more |= queue.poll(OPERATIONS, &mut |done: CryptoDone| on_done(done)).more;
            slot.push();
        }
        more
    }

    /// Whether [`poll_operations`](Accel::poll_operations) has something to say that no bell rang for.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Whether anything is out, or could not be taken out.
    fn has_operations(&self) -> bool {
        self.has_failed()
            || self.slots.iter().any(|slot| slot.operations.as_ref().is_some_and(|q| q.in_flight() > 0))
            || self.slots.iter().any(|slot| !slot.jobs.is_empty())
    }
}

impl Slot {
    fn push(&mut self) {
        if let Some(queue) = &mut self.operations
            && !self.jobs.is_empty()
        {
            // A closed queue leaves the jobs where they are, until it is back.
            let _ = queue.submit(&mut self.jobs);
        }
    }
}

/// The key exchange method an operation needs; `None`: any device will do.
fn group_of(op: &CryptoOp) -> Option<Group> {
    match op {
        CryptoOp::DhGenerate { group }
        | CryptoOp::DhDerive { group, .. }
        | CryptoOp::KemEncapsulate { group, .. } => Some(*group),
        _ => None,
    }
}
