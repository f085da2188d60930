//! The only files of this crate with unsafe code: safe, narrow wrappers around AWS-LC's C interface, one per family.
//!
//! Every wrapper owns its C object and frees it on drop; AWS-LC wipes whatever it frees. Lengths are checked here, so
//! that no caller can make C read or write outside a slice.

pub(crate) mod aead;
pub(crate) mod agree;
#[cfg(feature = "ipsec-mb")]
pub(crate) mod aligned;
pub(crate) mod cipher;
#[cfg(feature = "ipsec-mb")]
pub(crate) mod imb;
pub(crate) mod mac;
pub(crate) mod modp;
pub(crate) mod pkey;
