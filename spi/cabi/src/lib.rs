//! Accelerators of vendors who write C: a plug-in is a shared library that exports what `include/accel.h` describes, and
//! [`Plugin`] makes a [`spi::Driver`] of it.
//!
//! A plug-in is believed nothing. It gets pointers and tokens of ours, each burst stays in a table here, and everything it says
//! is compared with what it was asked: which job, of which SA, how many packets, and the length, SPI, sequence number and counter
//! of each that it sealed. The first thing that is not true shuts it out for good: no function of it is called again, its devices
//! are failed and do not open any more, and what it had in its hands is leaked rather than used again. What cannot be defended
//! against inside one process is a plug-in that crashes, hangs in a call, or writes where it was given nothing.
//!
//! It is not asked what the host can decide itself: stale handles, wrong directions, impossible lengths, public values of the wrong
//! length and resets never reach it.
//!
//! | module | what it holds |
//! |---|---|
//! | `abi` | `accel.h` in Rust |
//! | `sys` | the only unsafe code: a library is loaded, its functions are called, its memory is read |
//! | `plugin` | the [`spi::Driver`] |
//! | `inspect` | what a plug-in says of itself and its devices, checked |
//! | `device`, `sas` | the [`spi::Device`]; its SAs |
//! | `ring` | a queue of either kind; how it is stopped, and how it ends |
//! | `packets`, `operations` | what differs between the two: a job on its way in, and judged on its way out |
//! | `lie` | what a plug-in may be shut out for |

mod abi;
mod device;
mod inspect;
mod lie;
mod operations;
mod packets;
mod plugin;
mod ring;
mod sas;
mod sys;

pub use plugin::{LoadError, Plugin, Site};

/// What a fuzzer needs to be a plug-in itself.
#[doc(hidden)]
pub mod raw {
    pub use crate::abi::*;
    pub use crate::sys::{Entry, Library};
}
