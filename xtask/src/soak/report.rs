//! What a soak has shown, and whether it is right.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Duration;

use anyhow::{Result, bail};

use super::cards::Held;
use super::samples::{self, Sample};
use crate::inside::Carried;
use crate::numbers::Seen;
use crate::silence::{self, Silence};

/// The longest outage that is right. Faults of both gateways may meet, and one may come while a device takes over from another.
const OUTAGE: Duration = Duration::from_secs(2);
/// So long a device that falls silent is believed, and what happened before that has no part in an outage.
const CAUSE: f64 = 1.5;
/// Outages that are listed, the longest ones.
const LISTED: usize = 25;
/// Moments for which memory is shown.
const MOMENTS: usize = 12;

/// What was seen.
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    /// The clock, when it began.
    pub began: f64,
    /// TCP connections there and back.
    pub flows: [Vec<Carried>; 2],
    /// Pings with an answer and without.
    pub pings: (usize, usize),
    /// Times of some length without an answer.
    pub outages: Vec<Silence>,
    /// When the machine itself stood still.
    pub still: Vec<Silence>,
    pub wire: Seen,
    pub samples: Vec<Sample>,
    /// Faults that have happened, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What was planned, with its times.
    pub happened: Vec<(f64, String)>,
    /// What gateways count of their devices.
    pub counts: BTreeMap<&'static str, u64>,
    /// What moon and sun held before, and hold in the end.
    pub before: [Held; 2],
    pub after: [Held; 2],
    /// Requests that cards had at the end and did not answer.
    pub unanswered: u64,
}

impl Report {
    /// All of it.
    pub fn print(&self) {
        println!("\n{:.0} s with seed {}", self.seconds, self.seed);
        let faults: Vec<String> = self.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("faults          {}: {}", self.faults.values().sum::<u64>(), faults.join(", "));
        for (flows, way) in self.flows.iter().zip(["there", "back"]) {
            let sum = |of: fn(&Carried) -> u64| flows.iter().map(of).sum::<u64>();
            let still = flows.iter().map(|flow| silence::longest(&flow.silences, &self.still)).max();
            println!(
                "TCP {way:<11} {} connections, {} MB, {} wrong octets; it stood still for {} ms at most",
                flows.len(),
                sum(|flow| flow.octets) / 1_000_000,
                sum(|flow| flow.wrong),
                still.unwrap_or_default().as_millis(),
            );
        }
        let (answered, lost) = self.pings;
        println!("pings           {lost} of {} lost", answered + lost);
        println!(
            "on the wire     {} ESP packets of {} SAs, {} with a sequence number used before",
            self.wire.packets,
            self.wire.sas(),
            self.wire.again
        );
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        println!("devices         {}", counts.join(", "));
        for (which, name) in ["moon", "sun"].into_iter().enumerate() {
            let memory: Vec<String> = samples::moments(&self.samples, which, MOMENTS)
                .iter()
                .map(|octets| (octets >> 20).to_string())
                .collect();
            println!("RSS of {name:<8} {} MB", memory.join(" "));
        }
        for ((before, after), name) in self.before.iter().zip(&self.after).zip(["moon", "sun"]) {
            println!("{name} held      {before:?}\n{name} holds     {after:?}");
        }
        println!("cards           {} requests without an answer", self.unanswered);
        let still = self.still.iter().map(|silence| silence.to - silence.from).fold(0.0, f64::add);
        println!(
            "the machine     stood still {} times, {still:.1} s altogether, which do not count",
            self.still.len()
        );
        let mut outages = self.outages.clone();
        outages.sort_by_key(|outage| std::cmp::Reverse(outage.counts(&self.still)));
        println!(
            "outages         {} of 150 ms or more, the longest {} ms",
            outages.len(),
            self.outage().as_millis()
        );
        for outage in outages.iter().take(LISTED) {
            let at = outage.from - self.began;
            let causes: Vec<&str> = self
                .happened
                .iter()
                .filter(|(when, _)| (at - CAUSE..=outage.to - self.began).contains(when))
                .map(|(_, what)| what.as_str())
                .collect();
            println!(
                "  {:>5} ms at {at:>6.1} s  {}",
                outage.counts(&self.still).as_millis(),
                causes.join("; ")
            );
        }
    }

    fn outage(&self) -> Duration {
        silence::longest(&self.outages, &self.still)
    }

    /// An error if anything is not as it should be.
    pub fn is_right(&self) -> Result<()> {
        if self.faults.values().sum::<u64>() == 0 {
            bail!("nothing has gone wrong");
        }
        for flow in self.flows.iter().flatten() {
            if flow.wrong > 0 || flow.octets == 0 {
                bail!("of {} octets of a connection {} were wrong", flow.octets, flow.wrong);
            }
        }
        self.wire.none_again()?;
        if self.outage() > OUTAGE {
            bail!("nothing got through for {} ms", self.outage().as_millis());
        }
        for (which, (before, after)) in self.before.iter().zip(&self.after).enumerate() {
            if !before.is_all_of(after) {
                bail!("something was left behind: {before:?} before, {after:?} now");
            }
            if let Some(grown) = samples::growth(&self.samples, which) {
                bail!("memory has grown by {} kB", grown / 1024);
            }
        }
        if self.unanswered > 0 {
            bail!("cards have {} requests that they do not answer", self.unanswered);
        }
        Ok(())
    }
}
