//! What a process has used: CPU time to the nanosecond, and memory.

use std::fs;

use anyhow::{Context, Result};

/// Seconds of CPU time that all threads of a process have used so far, user and system, the kernel's work in interrupts that
/// came in their context included. `/proc/PID/stat` counts in hundredths of a second; this does not.
pub fn cpu(pid: u32) -> Result<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")?;
    let mut nanoseconds = 0u64;
    for task in tasks {
        // A thread that ends while we look takes what it used with it; daemons' threads stay.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanoseconds += first.context("an odd schedstat")?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// CPU time of several processes, each by itself.
pub fn cpus<const N: usize>(pids: [u32; N]) -> Result<[f64; N]> {
    let mut all = [0.0; N];
    for (place, pid) in all.iter_mut().zip(pids) {
        *place = cpu(pid)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time_and_sleep_costs_next_to_none() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let slept = cpu(own).unwrap() - before;
        let mut sum = 0u64;
        while cpu(own).unwrap() - before < slept + 0.001 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
        assert!(cpu(u32::MAX).is_err());
    }
}
