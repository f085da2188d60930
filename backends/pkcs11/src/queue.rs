//! The ring: helper threads with a seat each, stamps that know a reset, and latencies.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use spi::offthread::OffThread;
use spi::stats::{Histogram, QueueStats};
use spi::{Closed, Completions, CryptoDone, CryptoJob, CryptoQueue, Polled, Queue};

use crate::seat::{Seat, Shared};
use crate::work;

/// Jobs a ring holds at most.
pub(crate) const RING: usize = 1024;
/// How long a ring that is dropped waits for calls that do not return. A module that hangs must not keep the gateway from ending.
const PATIENCE: Duration = Duration::from_secs(3);

struct Stamped {
    resets: u64,
    at: Instant,
    job: CryptoJob,
}

/// What is known of a ring, for `status`.
#[derive(Default)]
pub(crate) struct Gauge {
    in_flight: AtomicUsize,
    done: AtomicU64,
    latency: Histogram,
}

/// All rings of a device.
pub(crate) type Gauges = Vec<Weak<Gauge>>;

pub(crate) fn stats(gauges: &mut Gauges) -> Vec<QueueStats> {
    gauges.retain(|gauge| gauge.strong_count() > 0);
    let alive = gauges.iter().filter_map(Weak::upgrade);
    let of = |gauge: Arc<Gauge>| QueueStats {
        name: "operations in sessions".into(),
        in_flight: gauge.in_flight.load(Ordering::Relaxed),
        done: gauge.done.load(Ordering::Relaxed),
        latency: gauge.latency.latency(),
    };
    alive.map(of).collect()
}

struct Ring {
    inner: OffThread<Stamped, (Instant, CryptoDone)>,
    shared: Arc<Shared>,
    gauge: Arc<Gauge>,
    // Kept so that submit allocates nothing.
    scratch: VecDeque<Stamped>,
}

/// A ring of this depth, with as many helpers as the token may have sessions; no thread to be had: none.
pub(crate) fn open(shared: &Arc<Shared>, depth: usize) -> Option<(Box<CryptoQueue>, Weak<Gauge>)> {
    let seats = (0..shared.token.site.sessions.max(1)).map(|_| Seat::new(Arc::clone(shared))).collect();
    let inner = OffThread::new(depth.clamp(1, RING), seats, |seat: &mut Seat, stamped: Stamped| {
        (stamped.at, work::carry_out(seat, stamped.resets, stamped.job))
    })
    .ok()?
    .with_patience(PATIENCE);
    let gauge = Arc::new(Gauge::default());
    let known = Arc::downgrade(&gauge);
    Some((Box::new(Ring { inner, shared: Arc::clone(shared), gauge, scratch: VecDeque::new() }), known))
}

impl Queue for Ring {
    type Job = CryptoJob;
    type Done = CryptoDone;

    fn submit(&mut self, jobs: &mut VecDeque<CryptoJob>) -> Result<usize, Closed> {
        let (resets, at) = (self.shared.resets.load(Ordering::Acquire), Instant::now());
        let fits = self.inner.room().min(jobs.len());
        self.scratch.extend(jobs.drain(..fits).map(|job| Stamped { resets, at, job }));
        let taken = self.inner.submit(&mut self.scratch);
        self.gauge.in_flight.store(self.inner.in_flight(), Ordering::Relaxed);
        taken
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<CryptoDone>) -> Polled {
        let gauge = &self.gauge;
        let polled = self.inner.poll(budget, &mut |(at, done): (Instant, CryptoDone)| {
            gauge.latency.note(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
            gauge.done.fetch_add(1, Ordering::Relaxed);
            to.on_done(done);
        });
        self.gauge.in_flight.store(self.inner.in_flight(), Ordering::Relaxed);
        polled
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
