//! The software backend: every transform of the table, computed at once on the worker's own thread, by AWS-LC.
//!
//! It is always there, so it is what the gateway falls back to, and it is the backend to copy when writing another.
//!
//! | module | what it holds |
//! |---|---|
//! | [`device`](crate::SoftDevice) | `Driver`, `Device`: tables, epochs, reset |
//! | `esp` | one SA: layout of a packet; what an engine is |
//! | `lc` | the engine: AWS-LC |
//! | `transform`, `xcbc` | the building blocks that ESP and IKE messages share |
//! | `short` | `ShortOps` |
//! | `dh`, `sign`, `op` | operations of the key exchange |
//! | `ring`, `scratch`, `stamped`, `table` | queues, what a queue keeps, resets, handles |
//! | `sys` | AWS-LC's C interface; the only unsafe code |

mod caps;
mod device;
mod dh;
mod esp;
mod lc;
mod op;
mod ring;
mod scratch;
mod short;
mod sign;
mod stamped;
mod sys;
mod table;
mod transform;
mod xcbc;

pub use device::{Soft, SoftDevice};
