//! Operations of the key exchange: which device does one, when they are taken back, and what becomes of those whose device fails.
//!
//! Many are so cheap that their device does them at once, in `poll`, on this thread. So what a message gave rise to is worked
//! off in the turn in which it came, as far as it is cheap, and nothing sleeps or wakes for it; but never more of it than a
//! bound, for packets are waiting.
//!
//! An operation that its device failed says nothing about its input. It goes back to the engine as aborted, which issues it again
//! from what it has kept, and the device is passed over until it has given a known answer.

use std::time::Instant;

use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, Fault, FaultKind, Group, Outcome, Token,
};

use super::Worker;
use super::accel::{Accel, Out, Slot, State};
use crate::io::epoll::Epoll;

/// Operations taken back from one queue in one go.
const OPERATIONS: usize = 8;
/// Times that is done in one turn: a key exchange is two operations, the second of which follows from the first.
const ROUNDS: usize = 4;
/// Operations that wait for room in all queues together; more would only get old.
const WAITING: usize = 1024;
/// Seconds after which an operation is given up on a device that is ill, and on one that seems well.
const PATIENCE_ILL: u32 = 2;
const PATIENCE_WELL: u32 = 10;

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
    /// Takes an operation to the device that should do it.
    pub(super) fn submit(&mut self, job: CryptoJob) {
        let group = group_of(&job.op);
        let able = |slot: &Slot| {
            let does = |group| slot.desc.as_ref().is_some_and(|desc| desc.caps.dh.contains(&group));
            slot.operations.is_some() && slot.state == State::Well && group.is_none_or(does)
        };
        let best = (0..self.slots.len())
            .filter(|number| able(&self.slots[*number]))
            .min_by_key(|number| self.slots[*number].rank_for_operations(*number));
        let kind = match best {
            Some(number) if self.slots[number].jobs.len() < WAITING => {
                let out = Out { slot: number, since: Instant::now(), ticks: 0 };
                self.out.insert(job.token, out);
                self.slots[number].jobs.push_back(job);
                return self.slots[number].push();
            }
            Some(_) => FaultKind::Exhausted,
            None => FaultKind::Unsupported,
        };
        self.failed.push_back(failed(job.token, kind));
    }

    /// Operations the devices would take now.
    pub(super) fn room(&self) -> usize {
        let room = |slot: &Slot| {
            slot.operations.as_ref().map_or(0, |queue| queue.room().saturating_sub(slot.jobs.len()))
        };
        self.slots.iter().filter(|slot| slot.state == State::Well).map(room).sum()
    }

    /// Takes operations back; true when there are more.
    pub(super) fn poll_operations(&mut self, mut on_done: impl FnMut(CryptoDone)) -> bool {
        while let Some(done) = self.failed.pop_front() {
            on_done(done);
        }
        let mut more = false;
        for number in 0..self.slots.len() {
            let mut back = Vec::new();
            let slot = &mut self.slots[number];
            let Some(queue) = &mut slot.operations else { continue };
            if queue.in_flight() > 0 {
                more |= queue.poll(OPERATIONS, &mut |done: CryptoDone| back.push(done)).more;
            }
            slot.push();
            back.into_iter().filter_map(|done| self.judge(number, done)).for_each(&mut on_done);
        }
        more
    }

    /// What the engine is to hear of an operation that came back from a device.
    fn judge(&mut self, number: usize, mut done: CryptoDone) -> Option<CryptoDone> {
        let slot = &mut self.slots[number];
        // One that was given up may be out again elsewhere, and whatever its first device says now is not believed.
        if self.out.get(&done.token).is_none_or(|out| out.slot != number) {
            slot.counts.stray += 1;
            return None;
        }
        let out = self.out.remove(&done.token)?;
        slot.counts.done += 1;
        slot.latency.note(out.since.elapsed().as_nanos().min(u128::from(u64::MAX)) as u64);
        if let Outcome::Failed(fault) = done.outcome {
            slot.counts.failed += 1;
            let may_help = matches!(
                fault.kind,
                FaultKind::Aborted | FaultKind::Internal | FaultKind::Exhausted | FaultKind::StaleHandle
            );
            if may_help && slot.is_hardware() {
                slot.counts.reissued += 1;
                slot.shun();
                done.outcome = Outcome::Failed(FaultKind::Aborted.into());
            }
        }
        Some(done)
    }

    /// Whether [`poll_operations`](Accel::poll_operations) has something to say that no bell rang for.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Whether anything is out, or could not be taken out.
    pub(super) fn has_operations(&self) -> bool {
        self.has_failed()
            || self.slots.iter().any(|slot| slot.operations.as_ref().is_some_and(|q| q.in_flight() > 0))
            || self.slots.iter().any(|slot| !slot.jobs.is_empty())
    }

    /// Once a second: gives up operations that do not come back.
    pub(super) fn tick_operations(&mut self) {
        let mut lost = Vec::new();
        for (token, out) in &mut self.out {
            out.ticks += 1;
            let slot = &self.slots[out.slot];
            let patience = if slot.state == State::Well { PATIENCE_WELL } else { PATIENCE_ILL };
            // Software may have a long queue, and loses nothing.
            if slot.is_hardware() && out.ticks > patience {
                lost.push((*token, out.slot));
            }
        }
        for (token, number) in lost {
            self.out.remove(&token);
            let slot = &mut self.slots[number];
            slot.jobs.retain(|job| job.token != token);
            slot.counts.lost += 1;
            slot.counts.reissued += 1;
            slot.shun();
            if slot.state == State::Well {
                slot.suspect("operations do not come back from it");
            }
            self.failed.push_back(failed(token, FaultKind::Aborted));
        }
    }

    /// What waits for a device that is ill goes to others.
    pub(super) fn pass_on(&mut self, number: usize) {
        for job in std::mem::take(&mut self.slots[number].jobs) {
            self.out.remove(&job.token);
            self.submit(job);
        }
    }

    /// A queue for operations is there.
    pub(super) fn take_operations_queue(
        &mut self,
        number: usize,
        queue: Option<Box<CryptoQueue>>,
        epoll: &Epoll,
        key: u64,
    ) {
        let Some(queue) = queue else { return };
        if let Some(bell) = queue.doorbell() {
            // Without it the queue is looked into all the same, only later.
            let _ = epoll.add(bell, key);
        }
        self.slots[number].operations = Some(queue);
    }

    /// A device is well again: a queue that still waits for something is exchanged.
    pub(super) fn renew_operations_queue(&mut self, number: usize, epoll: &Epoll) {
        let waits = self.slots[number].operations.as_ref().is_some_and(|queue| queue.in_flight() > 0);
        if waits && let Some(queue) = self.give_up_operations_queue(number, epoll) {
            self.slots[number].exchange(queue);
        }
    }

    /// Takes the queue for operations away, and gives up what is out on it.
    pub(super) fn give_up_operations_queue(
        &mut self,
        number: usize,
        epoll: &Epoll,
    ) -> Option<Box<CryptoQueue>> {
        let queue = self.slots[number].operations.take()?;
        if let Some(bell) = queue.doorbell() {
            // Others may hold the descriptor; it must not wake anybody here any more.
            let _ = epoll.remove(bell);
        }
        self.pass_on(number);
        let lost: Vec<Token> =
            self.out.iter().filter(|(_, out)| out.slot == number).map(|(token, _)| *token).collect();
        for token in lost {
            self.out.remove(&token);
            self.slots[number].counts.lost += 1;
            self.slots[number].counts.reissued += 1;
            self.failed.push_back(failed(token, FaultKind::Aborted));
        }
        Some(queue)
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

    /// Less is better: no recent failures, before the others in the configuration, least to do.
    fn rank_for_operations(&self, number: usize) -> (bool, bool, usize, usize) {
        let busy = self.jobs.len() + self.operations.as_ref().map_or(0, |queue| queue.in_flight());
        (self.is_shunned(), !self.is_hardware(), busy, number)
    }
}

fn failed(token: Token, kind: FaultKind) -> CryptoDone {
    CryptoDone { token, outcome: Outcome::Failed(Fault::new(kind)), output: CryptoOutput::None }
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
