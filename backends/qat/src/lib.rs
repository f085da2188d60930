//! Intel QuickAssist virtual functions, in user space.
#![allow(dead_code)]

mod caps;
mod card;
mod config;
mod counters;
mod csr;
mod curve;
mod der;
mod device;
mod dma;
#[cfg(test)]
mod fake;
mod flights;
mod fw;
mod gate;
mod generation;
mod hex;
mod iv;
mod kat;
mod keys;
mod mailbox;
mod operations;
mod packets;
mod pair;
mod pci;
mod ring;
mod sa;
mod station;
mod sys;
mod table;
mod vault;
mod view;
mod warden;
mod work;

pub use config::Config;
pub use pci::{Memory, PciError, PciFunction};
