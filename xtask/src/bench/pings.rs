//! Ten pings a second through a tunnel while something else goes on: how many were answered, and how late.

use std::time::Duration;

use anyhow::{Context, Result};

use super::table::median;
use crate::inside::{self, Going};
use crate::process;
use crate::world::{BOB, World};

/// Milliseconds between two.
const PAUSE: f64 = 0.1;
/// How long the last answer is waited for, seconds.
const LATE: u32 = 10;

/// What came of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pings {
    /// Sent.
    pub sent: usize,
    /// How long each answer took, milliseconds.
    pub times: Vec<f64>,
}

impl Pings {
    /// The share without answer, percent.
    pub fn lost(&self) -> f64 {
        100.0 * self.sent.saturating_sub(self.times.len()) as f64 / self.sent.max(1) as f64
    }

    /// The answer in the middle.
    pub fn median(&self) -> Option<f64> {
        median(self.times.iter().copied())
    }

    /// The latest.
    pub fn max(&self) -> Option<f64> {
        self.times.iter().copied().reduce(f64::max)
    }
}

/// Alice pings bob for some time.
pub fn begin(world: &World, time: Duration) -> Result<Going<Pings>> {
    let sent = (time.as_secs_f64() / PAUSE).round().max(1.0) as usize;
    let mut command = world.on("alice", "ping");
    command.args(["-n", "-i", &PAUSE.to_string(), "-c", &sent.to_string(), "-W", &LATE.to_string(), BOB]);
    // The thread need not be there: the command is.
    inside::begin(world, "alice", move || {
        let done = process::finish(&mut command, time + Duration::from_secs(2 * u64::from(LATE)))?;
        Ok(Pings { sent, times: times(&done.stdout).with_context(|| done.text())? })
    })
}

/// What `ping` says of each answer. An answer that comes twice counts once.
fn times(text: &str) -> Option<Vec<f64>> {
    let lines = text.lines().filter(|line| line.contains("bytes from") && !line.contains("DUP"));
    lines.map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_late_are_told_apart() {
        let text = "64 bytes from 10.2.0.10: icmp_seq=1 ttl=62 time=0.5 ms\n\
                    64 bytes from 10.2.0.10: icmp_seq=3 ttl=62 time=1500 ms\n\
                    64 bytes from 10.2.0.10: icmp_seq=3 ttl=62 time=1501 ms (DUP!)\n";
        let pings = Pings { sent: 4, times: times(text).unwrap() };
        assert_eq!((pings.lost(), pings.max(), pings.median()), (50.0, Some(1500.0), Some(750.25)));
    }
}
