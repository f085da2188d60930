//! What two gateways hold, looked at while they run: memory, and descriptors.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use crate::process;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);
/// Memory that may come and go: buffers of sockets and rings of a device that is opened anew.
const ROOM: u64 = 4 << 20;

/// One look at both.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Resident memory, octets.
    pub resident: [u64; 2],
    /// Open descriptors.
    pub descriptors: [usize; 2],
}

impl Sample {
    /// Looks at two processes.
    pub fn of(pids: [u32; 2]) -> Result<Sample> {
        let [one, other] = pids;
        let open = |pid: u32| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        Ok(Sample {
            resident: [process::resident(one)?, process::resident(other)?],
            descriptors: [open(one)?, open(other)?],
        })
    }
}

/// Looks again and again.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Begins to look at two processes.
    pub fn begin(pids: [u32; 2]) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                // One that has ended is noticed by others.
                samples.extend(Sample::of(pids));
                thread::sleep(EVERY);
            }
            samples
        });
        Sampler { stop, thread }
    }

    /// All samples.
    pub fn end(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Resident memory of one of the two in so many moments from the first to the last sample.
pub fn moments(samples: &[Sample], which: usize, count: usize) -> Vec<u64> {
    let last = samples.len().saturating_sub(1);
    let at = |moment: usize| samples.get(moment * last / count.saturating_sub(1).max(1));
    (0..count).filter_map(at).map(|sample| sample.resident[which]).collect()
}

/// Whether the memory of one of the two is flat: how much the median of the last quarter is above the median of the second, if that
/// is too much. In the first quarter everything is used for the first time.
pub fn growth(samples: &[Sample], which: usize) -> Option<u64> {
    let median = |quarter: usize| {
        let quarter = samples.chunks(samples.len().div_ceil(4).max(1)).nth(quarter)?;
        let mut all: Vec<u64> = quarter.iter().map(|sample| sample.resident[which]).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let grown = median(3)?.saturating_sub(median(1)?);
    (grown > ROOM).then_some(grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Fn(u64) -> u64) -> Vec<Sample> {
        let one = |at: u64| Sample { resident: [resident(at), 0], descriptors: [0; 2] };
        (0..100).map(one).collect()
    }

    #[test]
    fn memory_that_grows_is_told_from_memory_that_is_used_for_the_first_time() {
        let warming = samples(|at| (40 + at.min(20)) << 20);
        assert_eq!(growth(&warming, 0), None);
        assert_eq!(moments(&warming, 0, 3), [40 << 20, 60 << 20, 60 << 20]);
        assert_eq!(growth(&samples(|at| (40 << 20) + (at << 17)), 0), Some(50 << 17));
        assert_eq!(growth(&[], 0), None);
    }
}
