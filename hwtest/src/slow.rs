//! A slow device out of a fast one: completions are held back and shuffled, by a seed.
//!
//! Delay is counted in calls of `poll`, not in time, so a test repeats exactly. With it, code that has only ever met the
//! software backend shows whether it can wait, whether it depends on order, and what it does while work is out.

use std::collections::VecDeque;
use std::sync::Arc;

use spi::caps::Traits;
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoQueue, Device, DeviceDesc, Driver, EspBurst, EspQueue,
    Fault, Polled, Queue, QueueConfig, Unusable,
};

use crate::layer::{Layer, Over};
use crate::seed::Seeded;

/// How slow, and in what order.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Everything random follows from this.
    pub seed: u64,
    /// A completion is held back for at least so many polls after the one that found it.
    pub least: u64,
    /// And for at most so many.
    pub most: u64,
    /// Whether completions that are due come in random order; else in the order in which they became due.
    pub shuffle: bool,
}

impl Pace {
    /// Holds completions back for up to three polls, and shuffles.
    pub fn new(seed: u64) -> Self {
        Pace { seed, least: 0, most: 3, shuffle: true }
    }
}

/// A queue over another one that keeps the contract and is slow about it.
pub struct SlowQueue<Q: Queue + ?Sized> {
    held: Vec<(u64, Q::Done)>,
    turn: u64,
    pace: Pace,
    seeded: Seeded,
    depth: usize,
    inner: Box<Q>,
}

impl<Q: Queue + ?Sized> SlowQueue<Q> {
    /// Over `inner`; what the inner queue has room for now is the depth of both.
    pub fn new(inner: Box<Q>, pace: Pace) -> Self {
        let depth = inner.room() + inner.in_flight();
        SlowQueue { held: Vec::new(), turn: 0, pace, seeded: Seeded::new(pace.seed), depth, inner }
    }

    /// Completions that are held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

impl<Q: Queue + ?Sized> Queue for SlowQueue<Q>
where
    Q::Done: Send,
{
    type Job = Q::Job;
    type Done = Q::Done;

    fn submit(&mut self, jobs: &mut VecDeque<Q::Job>) -> Result<usize, Closed> {
        let fits = self.room().min(jobs.len());
        if fits == jobs.len() {
            return self.inner.submit(jobs);
        }
        let later = jobs.split_off(fits);
        let taken = self.inner.submit(jobs);
        jobs.extend(later);
        taken
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<Q::Done>) -> Polled {
        self.turn += 1;
        let (turn, pace) = (self.turn, self.pace);
        let span = pace.most.saturating_sub(pace.least) as usize + 1;
        let (held, seeded) = (&mut self.held, &mut self.seeded);
        self.inner.poll(usize::MAX, &mut |done| {
            let due = turn + pace.least + seeded.below(span) as u64;
            held.push((due, done));
        });
        let mut delivered = 0;
        while delivered < budget {
            let due: Vec<usize> = (0..self.held.len()).filter(|i| self.held[*i].0 <= turn).collect();
            let Some(next) = due.get(if pace.shuffle { self.seeded.below(due.len()) } else { 0 }) else {
                break;
            };
            let (_, done) = self.held.remove(*next);
            delivered += 1;
            to.on_done(done);
        }
        // The next call is the next turn.
        Polled { delivered, more: self.held.iter().any(|(due, _)| *due <= turn + 1) }
    }

    fn room(&self) -> usize {
        self.inner.room().min(self.depth.saturating_sub(self.in_flight()))
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    // No doorbell: a completion that is held back is due after so many polls, and nobody could ring for that.
}

/// A device whose queues are slow.
pub type SlowDevice = Layer<Slow>;

/// What is slow about it.
pub struct Slow {
    inner: Arc<dyn Device>,
    desc: DeviceDesc,
    pace: Pace,
}

impl SlowDevice {
    /// Over another device. Its caps no longer promise order.
    pub fn new(inner: Arc<dyn Device>, pace: Pace) -> Self {
        let desc = slowed(inner.desc().clone());
        Layer(Slow { inner, desc, pace })
    }
}

fn slowed(mut desc: DeviceDesc) -> DeviceDesc {
    desc.caps.traits.remove(Traits::IN_ORDER);
    desc.caps.traits.insert(Traits::ASYNCHRONOUS);
    desc
}

impl Over for Slow {
    fn inner(&self) -> &Arc<dyn Device> {
        &self.inner
    }

    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        let queue: SlowQueue<dyn Queue<Job = EspBurst, Done = EspBurst>> =
            SlowQueue::new(self.inner.esp_queue(config)?, self.pace);
        Some(Box::new(queue))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        let queue: SlowQueue<dyn Queue<Job = CryptoJob, Done = CryptoDone>> =
            SlowQueue::new(self.inner.crypto_queue(config)?, self.pace);
        Some(Box::new(queue))
    }
}

/// A driver whose devices are slow.
pub struct SlowDriver<D> {
    inner: D,
    pace: Pace,
}

impl<D: Driver> SlowDriver<D> {
    /// Over another driver, whose name it keeps.
    pub fn new(inner: D, pace: Pace) -> Self {
        SlowDriver { inner, pace }
    }
}

impl<D: Driver> Driver for SlowDriver<D> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        self.inner.probe().into_iter().map(slowed).collect()
    }

    fn unusable(&self) -> Vec<Unusable> {
        self.inner.unusable()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        Ok(Arc::new(SlowDevice::new(self.inner.open(desc)?, self.pace)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::inline::Inline;

    fn run(pace: Pace) -> (Vec<u32>, usize) {
        let mut queue = SlowQueue::new(Box::new(Inline::new(16, |n: u32| n)), pace);
        let mut jobs: VecDeque<u32> = (0..40).collect();
        let (mut out, mut polls) = (Vec::new(), 0);
        while out.len() < 40 {
            queue.submit(&mut jobs).unwrap();
            assert!(queue.in_flight() <= 16);
            let before = out.len();
            let polled = queue.poll(4, &mut |n| out.push(n));
            assert_eq!(polled.delivered, out.len() - before);
            polls += 1;
            assert!(polls < 1000);
        }
        assert_eq!(queue.in_flight(), 0);
        (out, polls)
    }

    #[test]
    fn everything_comes_once_late_out_of_order_and_the_same_for_the_same_seed() {
        let (out, polls) = run(Pace::new(7));
        let mut sorted = out.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
        assert_ne!(out, sorted, "nothing was shuffled");
        assert_eq!(run(Pace::new(7)), (out.clone(), polls));
        assert_ne!(run(Pace::new(8)).0, out);
        assert_eq!(run(Pace { least: 0, most: 0, shuffle: false, seed: 1 }).0, sorted);
    }

    #[test]
    fn more_means_that_the_next_poll_delivers() {
        let mut queue = SlowQueue::new(Box::new(Inline::new(16, |n: u32| n)), Pace::new(3));
        queue.submit(&mut (0..16).collect()).unwrap();
        let mut said_more = false;
        while queue.in_flight() > 0 {
            let polled = queue.poll(1, &mut |_| ());
            assert!(!said_more || polled.delivered == 1);
            said_more = polled.more;
        }
    }
}
