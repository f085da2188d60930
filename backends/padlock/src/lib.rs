//! The PadLock instructions of VIA and Zhaoxin processors: AES in CBC and counter mode with HMAC over SHA-1 or SHA-256 for
//! packets, random numbers, and (where that was asked for) key exchange in the MODP groups.
//!
//! They are instructions, not a device: done at once, on the thread that polls, by whichever core that is. See the README for
//! what is known of them and what is not.
//!
//! | module | what it holds |
//! |---|---|
//! | [`driver`](crate::Padlock) | `Driver`: what is found, and why it is of no use |
//! | `detect` | CPUID |
//! | `device`, `ring` | `Device`, queues |
//! | `esp` | one SA: layout of a packet, cipher and MAC |
//! | `cipher`, `mode`, `control`, `schedule` | AES by XCRYPT: alignment, prefetch, chains, control words, key schedules |
//! | `hash` | SHA and HMAC by XSHA |
//! | `rng`, `drbg` | XSTORE, watched, and the generator that it seeds |
//! | `modp`, `number` | key exchange by MONTMUL |
//! | `trial` | known answers before anything else |
//! | `blocks` | memory as the instructions want it |
//! | `sys` | the instructions; the only unsafe code |

mod blocks;
mod caps;
mod cipher;
mod control;
mod detect;
mod device;
mod drbg;
mod driver;
mod esp;
mod hash;
mod mode;
mod modp;
mod number;
mod ring;
mod rng;
mod schedule;
mod sys;
#[cfg(test)]
mod tests;
mod trial;

pub use detect::{Cpuid, Native};
pub use driver::{Config, Padlock};
