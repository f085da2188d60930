//! The OpenSSL backend: packets and operations of the key exchange, done by whatever provider of OpenSSL's is configured, or by keys
//! in an engine where the library still has engines.
//!
//! Every piece of work runs as a job (ASYNC_JOB) on a stack of its own. A provider that hands work to hardware pauses its job,
//! and the thread goes on with the next one, so that one thread has hundreds under way; one that computes at once never
//! pauses, and nothing is lost but a change of stacks. See docs/decisions/0043-openssl-jobs.md.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`](crate::Config), [`driver`](crate::OpenSsl) | what may be said of a device, and who opens it |
//! | `open` | a provider in a library context of its own; everything that can be wrong with that |
//! | `probe` | what it can do, by trying |
//! | `device`, `shared` | `Device`: handles, resets, what is counted |
//! | `pump` | jobs: started, paused, woken, abandoned |
//! | `lane` | a queue over a pump |
//! | `packets`, `sa`, `frame` | one kind of work: ESP |
//! | `operations`, `dh`, `keys` | the other kind |
//! | `sys` | the C interface; the only unsafe code |

mod config;
mod device;
mod dh;
mod driver;
mod frame;
mod keys;
mod lane;
mod open;
mod operations;
mod packets;
mod probe;
mod pump;
mod sa;
mod shared;
mod sys;

pub use config::{Config, Site};
pub use driver::{OpenSsl, open};

/// The library that is in use, for example `OpenSSL 3.0.19`.
pub fn version() -> String {
    sys::context::version()
}

/// Whether the library still has engines.
pub fn has_engines() -> bool {
    sys::context::major() < 4
}
