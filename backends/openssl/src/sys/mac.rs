//! HMAC of a provider's.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::{NonNull, null};

use openssl_sys::{self as ffi, EVP_MAC, EVP_MAC_CTX};

use super::context::Context;
use super::errors;
use super::params::{Params, Value};

/// The HMAC of a provider's.
pub(crate) struct Hmac(NonNull<EVP_MAC>);

// SAFETY: counted, and never written to after the fetch.
unsafe impl Send for Hmac {}
// SAFETY: as above.
unsafe impl Sync for Hmac {}

impl Hmac {
    /// Fetches it; `None`: no provider has it under the context's query.
    pub(crate) fn fetch(context: &Context) -> Option<Self> {
        // SAFETY: the context is live, the strings end with a zero; null on failure.
        let mac = unsafe { ffi::EVP_MAC_fetch(context.lib(), c"HMAC".as_ptr(), context.query()) };
        if mac.is_null() {
            errors::clear();
        }
        NonNull::new(mac).map(Hmac)
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        // SAFETY: fetched once, given back once.
        unsafe { ffi::EVP_MAC_free(self.0.as_ptr()) }
    }
}

/// A keyed HMAC. One packet at a time.
pub(crate) struct Keyed(NonNull<EVP_MAC_CTX>);

// SAFETY: it has one owner at a time, and nothing in it belongs to a thread.
unsafe impl Send for Keyed {}

impl Keyed {
    /// With the hash of that name.
    pub(crate) fn new(mac: &Hmac, hash: &CStr, key: &[u8]) -> Option<Self> {
        // SAFETY: the MAC is live, and held by the context from now on; null on failure.
        let keyed = Keyed(NonNull::new(unsafe { ffi::EVP_MAC_CTX_new(mac.0.as_ptr()) })?);
        let params = Params::new(&[(c"digest", Value::Text(hash))]);
        // SAFETY: key has the octets announced, the list has its end.
        let ok = unsafe { ffi::EVP_MAC_init(keyed.0.as_ptr(), key.as_ptr(), key.len(), params.as_ptr()) };
        if ok != 1 {
            errors::clear();
        }
        (ok == 1).then_some(keyed)
    }

    /// Writes the value over the concatenation of `parts`, cut to the length of `icv`. False: the provider says that it cannot.
    pub(crate) fn write(&mut self, parts: [&[u8]; 2], icv: &mut [u8]) -> bool {
        let (mut whole, mut len) = ([0u8; 64], 0);
        let at = self.0.as_ptr();
        // SAFETY: the context is live and keyed; without a key it begins anew with the one it has. Slices have the octets announced.
        let ok = unsafe {
            ffi::EVP_MAC_init(at, null(), 0, null()) == 1
                && parts
                    .iter()
                    .all(|part| part.is_empty() || ffi::EVP_MAC_update(at, part.as_ptr(), part.len()) == 1)
                && ffi::EVP_MAC_final(at, whole.as_mut_ptr(), &mut len, whole.len()) == 1
        };
        match whole.get(..len.min(icv.len())) {
            Some(cut) if ok && cut.len() == icv.len() => {
                icv.copy_from_slice(cut);
                true
            }
            _ => {
                errors::clear();
                false
            }
        }
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        // SAFETY: made by new, freed once; the provider wipes the key.
        unsafe { ffi::EVP_MAC_CTX_free(self.0.as_ptr()) }
    }
}
