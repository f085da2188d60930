//! The same SPI over DPDK's cryptodevs: cards that DPDK has a driver for, and its software devices, which need no card.
//!
//! | module | what it holds |
//! |---|---|
//! | `driver` | devices by configuration; opening one |
//! | `device`, `life` | what the gateway sees of an open device; its tables, and its resets |
//! | `packets`, `numbers` | its two kinds of queues |
//! | `sa` | an SA as a session, and a packet as a request |
//! | `caps` | what a device says that it can do |
//! | `eal` | DPDK's environment, on a thread of its own |
//! | `sys` | DPDK's interface in C, made safe to call |

mod caps;
mod device;
mod driver;
mod eal;
mod life;
mod numbers;
mod packets;
mod sa;
mod sys;
#[cfg(test)]
mod tests;

pub use driver::{Dpdk, DpdkPlace, DpdkSite};

use crate::work::Octets;
