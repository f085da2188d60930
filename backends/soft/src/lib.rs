//! The software backend: every transform of the table, computed at once on the worker's own thread, by AWS-LC. Only dear
//! operations of the key exchange go to helper threads.
//!
//! It is always there, so it is what the gateway falls back to, and it is the backend to copy when writing another.
//!
//! | module | what it holds |
//! |---|---|
//! | [`device`](crate::SoftDevice) | `Driver`, `Device`: tables, epochs, reset |
//! | `esp` | one SA: layout of a packet, sealing, opening |
//! | `transform`, `xcbc` | the building blocks that ESP and IKE messages share |
//! | `short` | `ShortOps` |
//! | `dh`, `sign`, `op` | operations of the key exchange |
//! | `cost` | which of them are done at once and which on a helper thread |
//! | `ring`, `stamped`, `table` | queues, resets, handles |
//! | `sys` | AWS-LC's C interface; the only unsafe code |

mod caps;
mod cost;
mod device;
mod dh;
mod esp;
mod op;
mod ring;
mod short;
mod sign;
mod stamped;
mod sys;
mod table;
mod transform;
mod xcbc;

pub use device::{Soft, SoftDevice};
