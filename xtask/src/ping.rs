//! Pings: a few that must be answered, and a stream in which no gap may appear.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

use crate::process::{self, Daemon};
use crate::silence::{self, Silence};
use crate::world::World;

/// Three pings; an error unless all are answered. `from` is a host of the map.
pub fn check(world: &World, from: &str, to: &str) -> Result<()> {
    let mut command = world.on(from, "ping");
    command.args(["-n", "-q", "-c", "3", "-i", "0.05", "-W", "2", to]);
    answered_all(&mut command, from, to)
}

/// Three pings that carry `words` over and over; an error unless all are answered.
pub fn with_words(world: &World, from: &str, to: &str, words: &[u8; 16]) -> Result<()> {
    let pattern: String = words.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = world.on(from, "ping");
    // The first sixteen bytes of the payload are a time stamp; 64 leave room for the words.
    command.args(["-n", "-q", "-c", "3", "-i", "0.05", "-W", "2", "-s", "64", "-p", &pattern, to]);
    answered_all(&mut command, from, to)
}

fn answered_all(command: &mut Command, from: &str, to: &str) -> Result<()> {
    let done = process::finish(command, Duration::from_secs(15))?;
    if !done.stdout.contains(" 3 received") {
        bail!("{from} pings {to}: {}", summary(&done.text()));
    }
    Ok(())
}

/// Ping until one is answered, at most `limit`: what brings a tunnel up that waits for traffic.
pub fn until_answered(world: &World, from: &str, to: &str, limit: Duration) -> Result<()> {
    let answered = process::until(limit, || {
        let mut command = world.on(from, "ping");
        let done =
            process::finish(command.args(["-n", "-q", "-c", "1", "-W", "1", to]), Duration::from_secs(5))?;
        Ok(done.status.success().then_some(()))
    })?;
    if answered.is_none() {
        bail!("{from} gets no answer from {to} within {} s", limit.as_secs());
    }
    Ok(())
}

fn summary(text: &str) -> &str {
    text.lines().find(|line| line.contains("received")).unwrap_or(text).trim()
}

/// Pings in the background.
pub struct Stream {
    daemon: Daemon,
    what: String,
}

impl Stream {
    /// One every 20 ms, the output going to `log`.
    pub fn start(world: &World, from: &str, to: &str, log: &Path) -> Result<Stream> {
        Stream::every(world, from, to, Duration::from_millis(20), log)
    }

    /// One in every `pause`.
    pub fn every(world: &World, from: &str, to: &str, pause: Duration, log: &Path) -> Result<Stream> {
        fs::remove_file(log).ok();
        let mut command = world.on(from, "ping");
        command.args(["-n", "-D", "-W", "2", "-i", &pause.as_secs_f64().to_string(), to]);
        Ok(Stream { daemon: Daemon::start(&mut command, log)?, what: format!("{from} pings {to}") })
    }

    /// Stop it; an error if any ping before the last answered one had no answer. Returns how many were answered.
    pub fn finish(self) -> Result<usize> {
        let what = self.what.clone();
        let (answered, lost) = self.end()?;
        if !lost.is_empty() {
            bail!("{what}: {} of {} lost: number {lost:?}", lost.len(), answered + lost.len());
        }
        Ok(answered)
    }

    /// Stop it; how many were answered, and the numbers of those that were not; an error if none was.
    pub fn end(self) -> Result<(usize, Vec<u32>)> {
        let what = self.what.clone();
        let (answered, lost) = gaps(&self.text()?);
        if answered == 0 {
            bail!("{what}: no answer at all");
        }
        Ok((answered, lost))
    }

    /// Stop it; how many were answered and how many were not, and the times of at least `least` in which no answer came.
    pub fn silences(self, least: Duration) -> Result<(usize, usize, Vec<Silence>)> {
        let text = self.text()?;
        let (answered, lost) = gaps(&text);
        Ok((answered, lost.len(), silence::between(&arrivals(&text), least)))
    }

    fn text(mut self) -> Result<String> {
        std::thread::sleep(Duration::from_millis(100));
        self.daemon.stop(Signal::INT, Duration::from_secs(5))?;
        Ok(fs::read_to_string(self.daemon.log())?)
    }
}

/// When answers came: `[1700000000.123456] 64 bytes from …`.
fn arrivals(text: &str) -> Vec<f64> {
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    answers.filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse().ok()).collect()
}

/// How long pings took.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrips {
    /// How many were answered.
    pub answered: usize,
    /// How many had no answer before the last answered one.
    pub lost: usize,
    /// Half of them took no longer.
    pub half: Duration,
    /// Ninety-nine of a hundred took no longer.
    pub most: Duration,
    /// None took longer.
    pub worst: Duration,
}

impl std::fmt::Display for RoundTrips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "{:.2} ms (at most {:.2}, {} lost)", ms(self.half), ms(self.worst), self.lost)
    }
}

impl Stream {
    /// Stop it, and say how long pings took.
    pub fn round_trips(self) -> Result<RoundTrips> {
        let log = self.daemon.log().to_owned();
        let (answered, lost) = self.end()?;
        let text = fs::read_to_string(log)?;
        let mut times: Vec<f64> = text.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        let at =
            |place: usize| times.get(place).map(|ms| Duration::from_secs_f64(ms / 1e3)).unwrap_or_default();
        Ok(RoundTrips {
            answered,
            lost: lost.len(),
            half: at(times.len() / 2),
            most: at(times.len() * 99 / 100),
            worst: at(times.len().saturating_sub(1)),
        })
    }
}

/// The milliseconds of one line.
fn time(line: &str) -> Option<f64> {
    line.split_once(" time=")?.1.split_whitespace().next()?.parse().ok()
}

/// How many were answered, and which numbers are missing between the first sent and the last heard of.
fn gaps(text: &str) -> (usize, Vec<u32>) {
    let seen: BTreeSet<u32> =
        text.lines().filter(|line| line.contains("bytes from")).filter_map(number).collect();
    let last = seen.last().copied().unwrap_or(0);
    ((seen.len()), (1..=last).filter(|n| !seen.contains(n)).collect())
}

fn number(line: &str) -> Option<u32> {
    line.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_ping_is_named_and_one_still_flying_at_the_end_is_not_lost() {
        let line = |n: u32| format!("64 bytes from 10.2.0.10: icmp_seq={n} ttl=62 time=0.5 ms\n");
        let text: String = [1, 2, 4, 5].into_iter().map(line).collect();
        assert_eq!(gaps(&text), (4, vec![3]));
        let answers =
            "[12.5] 64 bytes from 10.2.0.10: icmp_seq=1 ttl=62\n[13.75] From 10.1.0.1 icmp_seq=2 Time\n";
        assert_eq!(arrivals(answers), [12.5]);
        assert_eq!(gaps(answers), (1, vec![]));
        assert_eq!(gaps(&(line(1) + "From 10.1.0.1 icmp_seq=2 Destination Host Unreachable\n")), (1, vec![]));
    }
}
