//! What a queue shows of itself to whoever asks for statistics.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::time::{ClockId, clock_gettime};
use spi::stats::{Histogram, QueueStats};

/// One queue, written by its owner only.
pub(crate) struct View {
    name: String,
    in_flight: AtomicUsize,
    latency: Histogram,
}

impl View {
    pub(crate) fn new(name: String) -> Self {
        View { name, in_flight: AtomicUsize::new(0), latency: Histogram::new() }
    }

    pub(crate) fn set_in_flight(&self, jobs: usize) {
        self.in_flight.store(jobs, Ordering::Relaxed);
    }

    /// A job that was submitted then is delivered now.
    pub(crate) fn delivered(&self, then: u64, now: u64) {
        self.latency.note(now.saturating_sub(then));
    }

    pub(crate) fn stats(&self) -> QueueStats {
        QueueStats {
            name: self.name.clone(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            done: self.latency.count(),
            latency: self.latency.latency(),
        }
    }
}

/// Nanoseconds on a clock that only goes forward.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
