//! Intel QuickAssist virtual functions, in user space: packets and operations of the key exchange on cards of generation 4 (4xxx and
//! its relatives) and 2 (C62x, C3xxx).
//!
//! Read [`PciFunction`] first: it is the seam to whatever reaches a card. Then, from above:
//!
//! | module | what it holds |
//! |---|---|
//! | `driver`, `config` | cards by configuration; opening one |
//! | `device` | what the gateway sees of an open card |
//! | `packets`, `operations` | its two kinds of queues |
//! | `work` | operations as requests: key exchange, RSA, ECDSA, and what is checked before and after |
//! | `sa`, `keys`, `curve`, `der`, `iv`, `vault` | what queues work with |
//! | `card`, `warden`, `gate`, `kat` | a card's life: brought up, watched over, stopped, reset; questions with known answers |
//! | `pair`, `ring`, `berth`, `station`, `flights` | rings, who shares them, who sleeps on them, what is out |
//! | `fw` | requests, responses and descriptors as the firmware has them |
//! | `mailbox` | the conversation with the physical function |
//! | `generation`, `csr`, `caps` | what differs between generations; registers of a bank; what a card can do |
//! | `dma`, `sys` | memory the card reaches |
//! | `pci`, `vfio`, `vfio_user` | one function; one on the PCI bus; one at a vfio-user socket |
//! | `counters`, `view` | what is counted |
//! | `near` | what a queue remembers of a device's table |
//! | `dpdk` | the same over DPDK's devices, where that is built in |

mod berth;
mod caps;
mod card;
mod config;
mod counters;
mod csr;
mod curve;
mod der;
mod device;
mod dma;
#[cfg(feature = "dpdk")]
mod dpdk;
mod driver;
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
mod near;
mod operations;
mod packets;
mod pair;
mod pci;
mod ring;
mod sa;
mod station;
mod sys;
mod vault;
mod vfio;
mod vfio_user;
mod view;
mod warden;
mod work;

pub use config::{Config, Place};
#[cfg(feature = "dpdk")]
pub use dpdk::{Dpdk, DpdkPlace, DpdkSite};
pub use driver::{Qat, Site, attach, open};
pub use pci::{Memory, PciError, PciFunction};
pub use vfio::sysfs::is_pci_address;
