//! Budgets of CPU time, for machines that have other work, too. SAs that share a budget are served while it lasts; then their
//! bursts wait in a bounded line until time has earned them more. Critical packets do not wait.
//!
//! What work cost is known afterwards. Until then a burst is charged what its packets cost before; the
//! difference is made good when it is known.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use spi::PacketBuf;

use crate::counters::DropReason;
use crate::device::Work;
use crate::esp::Esp;
use crate::output::Output;
use crate::sa::ShareId;
use crate::timer::Due;

/// What a budget may save up: this long of doing nothing.
const SAVED: Duration = Duration::from_millis(20);
/// Bursts that may wait in one line.
const LINE: usize = 16;
/// How much the last charge counts in what a packet costs.
const EXPERIENCE: f64 = 0.1;
/// The shortest wait that is worth a timer.
const PAUSE: Duration = Duration::from_millis(1);

/// All budgets of a worker.
#[derive(Default)]
pub(crate) struct Shares {
    all: Vec<Share>,
    /// Packets of SAs without a budget, since the last charge.
    others: u64,
}

struct Share {
    /// Of the worker's core, 0 to 1.
    rate: f64,
    /// Nanoseconds there are; negative: owed.
    left: f64,
    since: Option<Instant>,
    line: VecDeque<(Work, usize, PacketBuf)>,
    /// Packets since the last charge.
    packets: u64,
    /// What a packet costs, nanoseconds, by experience.
    price: f64,
    timer: bool,
}

impl Share {
    fn earn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_nanos() as f64 * self.rate;
        self.left = (self.left + earned).min(SAVED.as_nanos() as f64 * self.rate);
        self.since = Some(now);
    }

    /// Charges a burst what it will cost.
    fn pay(&mut self, buf: &PacketBuf) {
        self.left -= self.price * buf.ops().len() as f64;
    }

    /// When there will be something again.
    fn until(&self, now: Instant) -> Instant {
        let wait = Duration::from_nanos((-self.left / self.rate).max(0.0) as u64);
        now + wait.max(PAUSE)
    }
}

/// How a budget is, to look at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareView {
    /// Of the worker's core, 0 to 1.
    pub rate: f64,
    /// Bursts that wait.
    pub waiting: usize,
}

impl Esp {
    /// Sets the budgets, each as a part of this worker's core from 0 to 1; their places are their numbers. What waits for one
    /// that is there no longer is dropped.
    pub fn set_shares(&mut self, rates: &[f64]) {
        while self.shares.all.len() > rates.len() {
            let gone = self.shares.all.pop().map(|share| share.line).unwrap_or_default();
            for (work, _, buf) in gone {
                self.give_up(work, buf.ops().len() as u64, DropReason::CpuShare);
            }
        }
        for (place, rate) in rates.iter().enumerate() {
            let rate = rate.clamp(0.001, 1.0);
            match self.shares.all.get_mut(place) {
                Some(share) => share.rate = rate,
                None => self.shares.all.push(Share {
                    rate,
                    left: 0.0,
                    since: None,
                    line: VecDeque::new(),
                    packets: 0,
                    price: 1000.0,
                    timer: false,
                }),
            }
        }
    }

    /// Whether there are budgets, so that it is worth measuring what work costs.
    pub fn has_shares(&self) -> bool {
        !self.shares.all.is_empty()
    }

    /// Charges CPU time to whose packets were moved in it, by their numbers.
    pub fn charge(&mut self, cpu: Duration) {
        let Shares { all, others } = &mut self.shares;
        let total = all.iter().map(|share| share.packets).sum::<u64>() + std::mem::take(others);
        let each = cpu.as_nanos() as f64 / total as f64;
        for share in all.iter_mut().filter(|share| share.packets > 0) {
            // One bad moment (the thread lost its core, say) is not held against it for long.
            let debt = SAVED.as_nanos() as f64 * share.rate;
            share.left = (share.left - (each - share.price) * share.packets as f64).max(-debt);
            share.price += (each - share.price) * EXPERIENCE;
            share.packets = 0;
        }
    }

    /// How the budgets are.
    pub fn shares(&self) -> impl Iterator<Item = ShareView> {
        self.shares.all.iter().map(|share| ShareView { rate: share.rate, waiting: share.line.len() })
    }

    /// Counts packets that a device has worked on.
    pub(crate) fn spend(&mut self, share: Option<ShareId>, packets: u64) {
        match share.and_then(|id| self.shares.all.get_mut(usize::from(id.0))) {
            Some(share) => share.packets += packets,
            None => self.shares.others += packets,
        }
    }

    /// Lets a burst pass if its budget allows it; otherwise the burst waits, or is dropped.
    pub(crate) fn within_share(
        &mut self,
        now: Instant,
        share: Option<ShareId>,
        burst: (Work, usize, PacketBuf),
    ) -> Option<(Work, usize, PacketBuf)> {
        let Some(id) = share else { return Some(burst) };
        let Some(share) = self.shares.all.get_mut(usize::from(id.0)) else { return Some(burst) };
        share.earn(now);
        if share.left > 0.0 && share.line.is_empty() {
            share.pay(&burst.2);
            return Some(burst);
        }
        // What waits here must not take the buffers of those who may go.
        if share.line.len() >= LINE || self.config.pool.available() < LINE {
            let (work, _, buf) = burst;
            self.give_up(work, buf.ops().len() as u64, DropReason::CpuShare);
            return None;
        }
        share.line.push_back(burst);
        if !std::mem::replace(&mut share.timer, true) {
            self.timers.push(share.until(now), Due::Share(id));
        }
        None
    }

    pub(crate) fn share_due(&mut self, now: Instant, id: ShareId, out: &mut Output) {
        let place = usize::from(id.0);
        let Some(share) = self.shares.all.get_mut(place) else { return };
        share.timer = false;
        share.earn(now);
        let mut ready = Vec::new();
        while share.left > 0.0
            && let Some(burst) = share.line.pop_front()
        {
            share.pay(&burst.2);
            ready.push(burst);
        }
        if !share.line.is_empty() {
            share.timer = true;
            let at = share.until(now);
            self.timers.push(at, Due::Share(id));
        }
        for (work, device, buf) in ready {
            self.offer(work, device, buf, false, out);
        }
    }
}
