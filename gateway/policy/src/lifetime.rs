//! How long things live and how often they are tried.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When an SA is replaced. Zero means: never for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Rekey after this time.
    pub time: Duration,
    /// Rekey after this many octets (Child SAs only).
    pub bytes: u64,
    /// Rekey after this many packets (Child SAs only).
    pub packets: u64,
    /// Fraction of each limit, 0.0 to 0.5, by which rekeying comes earlier at random, so that both ends rarely collide
    /// (RFC 7296 section 2.8).
    pub jitter: f64,
    /// The SA is given up when it is this much older than its rekey time and nothing replaced it: 1.1 means 10 % later.
    pub hard_factor: f64,
}

impl Lifetime {
    /// A lifetime by time alone.
    pub const fn of(time: Duration) -> Self {
        Lifetime { time, bytes: 0, packets: 0, jitter: 0.1, hard_factor: 1.1 }
    }
}

/// Liveness checks (RFC 7296 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dpd {
    /// Ask after this long without a sign of life; zero means never.
    pub delay: Duration,
    /// What to do when the peer is dead.
    pub action: DpdAction,
}

/// What to do when the peer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DpdAction {
    /// Forget the SA.
    Clear,
    /// Set it up again at once.
    Restart,
    /// Wait for traffic.
    Trap,
}

/// Retransmission of requests (RFC 7296 section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retransmission {
    /// Retransmissions before the peer counts as dead.
    pub tries: u32,
    /// Before the first of them.
    pub first: Duration,
    /// Factor from each to the next.
    pub base: f64,
    /// No wait is longer than this.
    pub limit: Duration,
}

impl Default for Retransmission {
    fn default() -> Self {
        Retransmission { tries: 5, first: Duration::from_secs(2), base: 1.8, limit: Duration::from_secs(42) }
    }
}
