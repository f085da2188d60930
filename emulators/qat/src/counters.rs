//! What a card has done. Whoever judges a driver by it can tell a test that passed from one that never ran.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Counted since the card was made; resets do not clear it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Requests by what was asked, such as `aes-256-gcm seal` or `rsa-2048 private crt`.
    pub requests: BTreeMap<String, Tally>,
    /// Requests that were answered as not supported, by what is not there.
    pub refused: BTreeMap<String, u64>,
    /// Requests fetched.
    pub fetched: u64,
    /// Responses written, doubled ones twice.
    pub responses: u64,
    /// Writes to the tail of a request ring.
    pub doorbells: u64,
    /// Requests that a reset or an error has swallowed.
    pub lost: u64,
    /// Accesses to memory that failed.
    pub dma_faults: u64,
    /// Mailbox messages of the driver.
    pub messages: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Function-level resets.
    pub resets: u64,
    /// Resets of single ring pairs.
    pub ring_resets: u64,
    /// Faults of the plan that have happened.
    pub faults: u64,
    /// The same by kind, as plans call it.
    pub faults_by_kind: BTreeMap<&'static str, u64>,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Done as asked.
    pub served: u64,
    /// Done, and what was to be verified was wrong.
    pub mismatched: u64,
    /// Not done: the request makes no sense, or memory could not be reached.
    pub failed: u64,
}

impl Counters {
    /// Requests served whose name contains `part`.
    pub fn served(&self, part: &str) -> u64 {
        self.requests.iter().filter(|(name, _)| name.contains(part)).map(|(_, tally)| tally.served).sum()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>10} {:>10} {:>10}", "request", "served", "mismatch", "failed")?;
        for (name, tally) in &self.requests {
            writeln!(f, "{name:<44} {:>10} {:>10} {:>10}", tally.served, tally.mismatched, tally.failed)?;
        }
        for (what, count) in &self.refused {
            writeln!(f, "not supported: {what:<29} {:>10} {:>10} {count:>10}", "", "")?;
        }
        writeln!(
            f,
            "fetched {}, responses {}, doorbells {}, lost {}, dma faults {}, messages {}, interrupts {}, resets {}, \
             ring resets {}, faults {}",
            self.fetched,
            self.responses,
            self.doorbells,
            self.lost,
            self.dma_faults,
            self.messages,
            self.interrupts,
            self.resets,
            self.ring_resets,
            self.faults
        )
    }
}
