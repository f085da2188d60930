//! Virtual functions of Intel QuickAssist in software: register-accurate, with the firmware's requests and the host's side
//! of the mailbox, so that drivers for the real ones run unchanged.
//!
//! A driver reaches a [`Card`] in one of two ways:
//!
//! - in the same process, by its methods: [`Card::read32`] and [`Card::write32`] for registers, [`Card::map`] for memory,
//!   [`Card::connect`] for interrupts. [`Card::advance`] moves the time of a [stepped](Card::stepped) card;
//! - over a vfio-user socket: [`Card::serve`], or the program `tussock-qat-emulator`, for drivers that have a client for
//!   it, and for QEMU, in which Linux, DPDK or Intel's library drive it.
//!
//! ```
//! use emu_qat::{Card, Options, Personality};
//!
//! let card = Card::stepped(Personality::Vf4941, &Options::default());
//! let mut id = [0; 4];
//! card.read_config(0, &mut id);
//! assert_eq!(id, [0x86, 0x80, 0x41, 0x49]);
//! // Ask the physical function for a version: question and answer are registers of BAR 2.
//! card.write32(2, 0x100c, 0x0000_051b);
//! assert_eq!(card.read32(2, 0x1008), 0x0001_050b);
//! ```
//!
//! What goes wrong is up to a [`fault::Plan`] in the [`Options`], or to [`Card::inject`]. What was done is in
//! [`Card::counters`].
//!
//! No code is shared with the driver that this is to judge, nor the crates that it computes with: an emulator that has the
//! driver's misunderstandings proves nothing.
#![forbid(unsafe_code)]

mod bank;
mod card;
mod config_space;
mod counters;
mod device;
mod engine;
mod flight;
mod fw;
mod mailbox;
mod options;
mod personality;
mod pf;
mod ring;
mod serve;

pub use card::{Card, Interrupt};
pub use counters::{Counters, Tally};
pub use emu_model::{IrqError, MapError, Time, fault};
pub use options::{Options, Timing};
pub use personality::{PERSONALITIES, Personality, SERVICES};
pub use serve::{ServeError, Served};
