//! The C interface of OpenSSL; the only unsafe code of this crate.

pub(crate) mod cipher;
pub(crate) mod context;
pub(crate) mod engine;
pub(crate) mod errors;
pub(crate) mod job;
pub(crate) mod mac;
pub(crate) mod params;
pub(crate) mod pkey;
mod raw;
pub(crate) mod sign;
pub(crate) mod store;
pub(crate) mod watch;
