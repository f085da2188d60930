//! The side that holds the keys.

mod algorithm;
mod cert;
pub mod config;
mod identity;
mod key;
pub mod load;
mod path;
mod usage;
mod validator;

pub use config::{Certificate, Config, Credentials, OwnKey, Psk, RawKey, Rules, Trust};
pub use load::LoadError;
pub use validator::Validator;
