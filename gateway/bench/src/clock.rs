//! CPU time of this thread, and what is made of many measurements of it.
//!
//! The kernel's work in our system calls, and in the interrupts that they raise at once (a veth pair delivers in the sender's
//! context), counts as ours: that is the point. Waiting does not count, nor does what else the machine is doing.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread, nanoseconds.
pub fn cpu() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What reading the clock twice costs, nanoseconds: taken off every lap.
pub fn overhead() -> u64 {
    let laps = (0..1000).map(|_| {
        let began = cpu();
        cpu() - began
    });
    let mut laps: Vec<u64> = laps.collect();
    laps.sort_unstable();
    laps[laps.len() / 2]
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Trials, of which the median counts.
    pub trials: usize,
    /// CPU time of one trial, nanoseconds.
    pub trial: u64,
}

/// Phases of a loop that is run over and over, each with its own time.
pub struct Laps<const N: usize> {
    overhead: u64,
    last: u64,
    total: [u64; N],
}

impl<const N: usize> Laps<N> {
    /// None yet.
    pub fn new() -> Self {
        Laps { overhead: overhead(), last: cpu(), total: [0; N] }
    }

    /// From here on.
    pub fn start(&mut self) {
        self.last = cpu();
    }

    /// Since the last call, for this phase.
    pub fn lap(&mut self, phase: usize) {
        let now = cpu();
        self.total[phase] += (now - self.last).saturating_sub(self.overhead);
        self.last = cpu();
    }

    fn spent(&self) -> u64 {
        self.total.iter().sum()
    }
}

/// Runs `round`, which says how many packets it carried, as long and as often as `effort` says; nanoseconds per packet of
/// each phase, the median of the trials.
///
/// # Errors
/// The first round that fails.
pub fn measure<const N: usize>(
    effort: Effort,
    mut round: impl FnMut(&mut Laps<N>) -> anyhow::Result<usize>,
) -> anyhow::Result<[f64; N]> {
    // Memory is touched and paths are learned before anything counts.
    for _ in 0..3 {
        round(&mut Laps::new())?;
    }
    let mut trials: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..effort.trials {
        let (mut laps, mut packets) = (Laps::new(), 0);
        while laps.spent() < effort.trial {
            packets += round(&mut laps)?;
        }
        for (trial, total) in trials.iter_mut().zip(laps.total) {
            trial.push(total as f64 / packets.max(1) as f64);
        }
    }
    Ok(trials.map(median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_phase_it_was_spent_in() {
        let effort = Effort { trials: 3, trial: 2_000_000 };
        let spin = |times: u64| std::hint::black_box((0..times).fold(1u64, |a, n| a.wrapping_mul(n | 1)));
        let [short, long] = measure(effort, |laps| {
            laps.start();
            spin(100);
            laps.lap(0);
            spin(100_000);
            laps.lap(1);
            Ok(1)
        })
        .unwrap();
        assert!(long > short, "{long} {short}");
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
