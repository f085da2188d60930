//! Intel QuickAssist virtual functions, in user space.
#![allow(dead_code)]

mod csr;
mod dma;
#[cfg(test)]
mod fake;
mod fw;
mod generation;
mod hex;
mod mailbox;
mod pci;
mod sys;

pub use pci::{Memory, PciError, PciFunction};
