//! Ten pings a second through a tunnel while something else goes on: how many were answered, and how late.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Setup;
use super::table::median;
use crate::process::{self, Daemon};
use crate::world::BOB;

/// Milliseconds between two.
const PAUSE: f64 = 0.1;
/// How long the last answer is waited for, seconds.
const LATE: u64 = 10;

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

/// Pings on their way.
pub struct Going {
    daemon: Daemon,
    sent: usize,
}

/// Alice pings bob for some time.
pub fn begin(setup: &Setup, time: Duration) -> Result<Going> {
    let sent = (time.as_secs_f64() / PAUSE).round().max(1.0) as usize;
    let log = setup.results.join("ping.log");
    fs::remove_file(&log).ok();
    let mut command = setup.world.on("alice", "ping");
    command.args(["-n", "-i", &PAUSE.to_string(), "-c", &sent.to_string(), "-W", &LATE.to_string(), BOB]);
    Ok(Going { daemon: Daemon::start(&mut command, &log)?, sent })
}

impl Going {
    /// When all have been sent: wait for late answers, and stop.
    pub fn finish(mut self) -> Result<Pings> {
        process::until(Duration::from_secs(LATE), || Ok(self.daemon.has_ended().then_some(())))?;
        self.daemon.stop(Signal::INT, Duration::from_secs(2))?;
        let text = fs::read_to_string(self.daemon.log())?;
        Ok(Pings { sent: self.sent, times: times(&text).with_context(|| format!("ping says {text}"))? })
    }
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
