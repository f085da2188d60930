//! Waking a thread that sleeps in epoll, which is what the first packet after a pause costs. Two threads wake each other in
//! turns: on two cores, where the second one stands still meanwhile, and on one.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{Errno, read, write};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::clock::{Effort, cpu, median};

/// Wakes in each direction in one trial.
const WAKES: u64 = 500;

/// A row for two cores, where there are two, and one for one.
pub fn table(effort: Effort) -> Result<Vec<Value>> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let first = *cores.first().context("no core")?;
    let mut rows = Vec::new();
    if let Some(second) = cores.get(1) {
        rows.push(row("two", effort, [first, *second])?);
    }
    rows.push(row("one", effort, [first, first])?);
    Ok(rows)
}

fn row(name: &str, effort: Effort, cores: [usize; 2]) -> Result<Value> {
    let mut trials = Vec::new();
    for _ in 0..effort.trials {
        trials.push(trial(cores)?);
    }
    Ok(json!({ "cores": name, "wake": median(trials) }))
}

/// CPU nanoseconds of both threads for one wake.
fn trial(cores: [usize; 2]) -> Result<f64> {
    let [there, back] = [Bell::new()?, Bell::new()?];
    let over = AtomicBool::new(false);
    let play = |core: usize, hear: &Bell, ring: &Bell, begins: bool| -> Result<u64> {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only)?;
        if begins {
            ring.ring()?;
        }
        let began = cpu();
        for _ in 0..WAKES {
            if !hear.await_ring(&over)? {
                return Err(anyhow!("the other thread has gone"));
            }
            ring.ring()?;
        }
        Ok(cpu() - began)
    };
    let guarded = |core, hear, ring, begins| {
        play(core, hear, ring, begins).inspect_err(|_| over.store(true, Ordering::Relaxed))
    };
    let (guarded, there, back) = (&guarded, &there, &back);
    let spent = std::thread::scope(|scope| {
        let other = scope.spawn(move || guarded(cores[1], there, back, false));
        // Not this thread: it would stay on its core for the rest of its life.
        let own = scope.spawn(move || guarded(cores[0], back, there, true));
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<u64>>| {
            thread.join().map_err(|_| anyhow!("a thread has panicked"))?
        };
        Ok::<_, anyhow::Error>(join(own)? + join(other)?)
    })?;
    Ok(spent as f64 / (2 * WAKES) as f64)
}

/// An eventfd in an epoll set, as lanes sleep.
struct Bell {
    event: OwnedFd,
    epoll: OwnedFd,
}

impl Bell {
    fn new() -> Result<Bell> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Bell { event, epoll: set })
    }

    fn ring(&self) -> Result<()> {
        write(&self.event, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Sleeps until it rings; false when it never will.
    fn await_ring(&self, over: &AtomicBool) -> Result<bool> {
        let patience = Duration::from_millis(100).try_into()?;
        while !over.load(Ordering::Relaxed) {
            let mut events = Vec::with_capacity(1);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            read(&self.event, &mut [0; 8])?;
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_woken_costs_something_on_every_number_of_cores() {
        for row in table(Effort { trials: 1, trial: 1 }).unwrap() {
            assert!(row["wake"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
}
