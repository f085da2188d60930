//! How a card is made.

use std::time::Duration;

use emu_model::fault::Plan;

/// What a card is like besides its personality.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What goes wrong, and the seed of every choice.
    pub plan: Plan,
    /// How long things take.
    pub timing: Timing,
    /// Capabilities that the mailbox tells, instead of what is implemented.
    pub capabilities: Option<u32>,
    /// The ring-to-service map that the mailbox tells and generation 4 obeys: three bits for each bank, 3 symmetric, 4
    /// asymmetric. Linux's driver for 37c9 takes its default only.
    pub ring_map: Option<u16>,
}

/// How long things take, in virtual time. The figures are no measurements of silicon; they have the right order.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From a doorbell to the first request being fetched.
    pub doorbell: Duration,
    /// A symmetric request, without its data.
    pub symmetric: Duration,
    /// A KiB of its data.
    pub kib: Duration,
    /// An asymmetric request of the lightest kind. Heavier ones take a multiple.
    pub asymmetric: Duration,
    /// By what share a job may be faster or slower. Jobs of different rings overtake each other by that.
    pub jitter: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            doorbell: Duration::from_nanos(300),
            symmetric: Duration::from_micros(3),
            kib: Duration::from_nanos(150),
            asymmetric: Duration::from_micros(15),
            jitter: 0.3,
        }
    }
}
