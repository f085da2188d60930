//! The provider's side of OpenSSL's interface.

mod cipher;
mod exchange;
mod inner;
mod keymgmt;
mod mac;
mod pause;
mod provider;
mod raw;
mod signature;
