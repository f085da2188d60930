//! Intel QuickAssist virtual functions, in user space.
#![allow(dead_code)]

mod counters;
mod csr;
mod dma;
#[cfg(test)]
mod fake;
mod fw;
mod generation;
mod hex;
mod iv;
mod mailbox;
mod pair;
mod pci;
mod ring;
mod sa;
mod station;
mod sys;
mod table;
mod vault;

pub use pci::{Memory, PciError, PciFunction};
