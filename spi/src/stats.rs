//! What a device counts while it works. For people to read; nothing is decided by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a device has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// What it is: product, generation, firmware; one line.
    pub identity: String,
    /// Its open queues.
    pub queues: Vec<QueueStats>,
    /// Resets it went through.
    pub resets: u64,
    /// Everything else that is counted, each by a stable name: errors by kind, interrupts, and what the device has said that was
    /// not believed. Names that count nothing are there too.
    pub counters: Vec<(&'static str, u64)>,
}

/// One open queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueStats {
    /// What it carries and where, for example `packets on ring pair 1`.
    pub name: String,
    /// Jobs out now.
    pub in_flight: usize,
    /// Jobs that came back.
    pub done: u64,
    /// From submission to delivery.
    pub latency: Latency,
}

/// A latency by its percentiles, nanoseconds; zeroes when nothing was measured. Accurate to a quarter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// Nine of ten.
    pub p90_ns: u64,
    /// Ninety-nine of a hundred.
    pub p99_ns: u64,
    /// None took longer.
    pub max_ns: u64,
}

/// Buckets for each doubling.
const STEPS: usize = 4;
const BUCKETS: usize = 64 * STEPS;

/// Counts latencies in buckets that are a quarter apart. One thread notes, any thread reads; noting is one addition in memory
/// that nobody else writes to.
pub struct Histogram(Box<[AtomicU64; BUCKETS]>);

impl Histogram {
    /// Nothing noted.
    pub fn new() -> Self {
        Histogram(Box::new([const { AtomicU64::new(0) }; BUCKETS]))
    }

    /// Notes one latency.
    pub fn note(&self, ns: u64) {
        if let Some(count) = self.0.get(bucket(ns)) {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// What was noted so far.
    pub fn latency(&self) -> Latency {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let below = |percent: u64| {
            let wanted = (total * percent).div_ceil(100);
            let mut sum = 0;
            let found = counts.iter().position(|count| {
                sum += count;
                sum >= wanted && sum > 0
            });
            found.map_or(0, upper)
        };
        Latency { p50_ns: below(50), p90_ns: below(90), p99_ns: below(99), max_ns: below(100) }
    }

    /// How many were noted.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

/// Bucket of a value: its highest bit, and the two below it.
fn bucket(ns: u64) -> usize {
    let ns = ns.max(STEPS as u64);
    let top = ns.ilog2() as usize;
    top * STEPS + (ns >> (top - 2)) as usize % STEPS
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (top, step) = (bucket / STEPS, bucket % STEPS);
    let least = (STEPS + step) as u128;
    (((least + 1) << top >> 2) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_more_than_a_quarter_below_its_end() {
        for value in (0..64).flat_map(|n| [1u64 << n, (1 << n) + 1, (1u64 << n).wrapping_sub(1).max(4)]) {
            let end = upper(bucket(value));
            assert!(end >= value && end / 5 * 4 <= value.max(4), "{value} ends at {end}");
        }
        assert_eq!(upper(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn percentiles_are_those_of_what_was_noted() {
        let histogram = Histogram::new();
        assert_eq!(histogram.latency(), Latency::default());
        for _ in 0..98 {
            histogram.note(1000);
        }
        histogram.note(1_000_000);
        histogram.note(60_000_000);
        let latency = histogram.latency();
        assert_eq!(histogram.count(), 100);
        assert_eq!(latency.p50_ns, latency.p90_ns);
        assert!((1000..1250).contains(&latency.p50_ns), "{latency:?}");
        assert!((1_000_000..1_250_000).contains(&latency.p99_ns), "{latency:?}");
        assert!((60_000_000..75_000_000).contains(&latency.max_ns), "{latency:?}");
    }
}
