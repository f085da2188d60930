//! What every emulated accelerator needs and no one device owns: time, memory, interrupts, and faults.
//!
//! - [`Clock`] and [`Timeline`]: virtual time, either running or stepped by a test, and what happens when.
//! - [`Space`], [`Gate`] and [`Dma`]: the memory a device may reach, and the promise that nothing is written after a
//!   reset.
//! - [`Vectors`]: interrupts, as eventfds.
//! - [`fault`]: a plan of what goes wrong, read from a file, and the dice that follow it.
//! - [`Dice`]: random choices that follow from a seed alone.
//!
//! Nothing here knows a register, an algorithm, or how the device is reached. No crate of ours is used: what judges a
//! driver must not share the driver's misunderstandings.

mod clock;
mod dice;
mod dma;
pub mod fault;
mod gate;
mod irq;
mod sys;
mod time;
mod timeline;

pub use clock::Clock;
pub use dice::Dice;
pub use dma::{Access, Dma, DmaFault, MapError, Space, Window};
pub use gate::{Gate, Guarded, Ticket};
pub use irq::{IrqError, Vectors};
pub use time::{Time, parse_duration};
pub use timeline::Timeline;
