//! What every backend owes, as checks that run over any [`Driver`](spi::Driver).

pub mod seed;
pub mod slow;

pub use slow::{Pace, SlowDevice, SlowDriver, SlowQueue};
