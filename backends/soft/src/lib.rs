//! The software backend: every transform of the table, computed at once on the worker's own thread, by AWS-LC and, where it is
//! built in and faster, by Intel's ipsec-mb. Only dear operations of the key exchange go to helper threads.
//!
//! It is always there, so it is what the gateway falls back to, and it is the backend to copy when writing another.
//!
//! | module | what it holds |
//! |---|---|
//! | [`device`](crate::SoftDevice) | `Driver`, `Device`: tables, epochs, reset |
//! | `esp` | one SA: layout of a packet; what an engine is |
//! | `lc`, `imb` | the engines |
//! | `choose`, `trial` | which engine carries which packets, and the measurements that say so |
//! | `transform`, `xcbc` | the building blocks that ESP and IKE messages share |
//! | `short` | `ShortOps` |
//! | `dh`, `sign`, `op` | operations of the key exchange |
//! | `cost` | which of them are done at once and which on a helper thread |
//! | `ring`, `scratch`, `stamped` | queues, what a queue keeps, resets |
//! | `sys` | the C interfaces of AWS-LC and ipsec-mb; the only unsafe code |

mod caps;
mod choose;
mod cost;
mod device;
mod dh;
mod esp;
#[cfg(feature = "ipsec-mb")]
mod imb;
mod lc;
mod op;
mod ring;
mod scratch;
mod short;
mod sign;
mod stamped;
mod sys;
mod transform;
#[cfg(feature = "ipsec-mb")]
mod trial;
mod xcbc;

pub use choose::EngineChoice;
pub use device::{Soft, SoftDevice};
