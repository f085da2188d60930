//! Keys that stay where they are: by URI, from a provider's store.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::{NonNull, null, null_mut};

use super::context::Context;
use super::pkey::Key;
use super::{errors, raw};

/// Things in a store that are looked at before it is said to have no key.
const MOST: usize = 64;

/// The first private key that a URI names.
pub(crate) fn open(context: &Context, uri: &str) -> Result<Key, String> {
    let uri = CString::new(uri).map_err(|_| "a URI has no zero octet".to_owned())?;
    errors::clear();
    // SAFETY: the context is live, the URI ends with a zero. Nobody is asked for a passphrase, see `engine`.
    // Stores are taken wherever they are; the operations on the key go by the context's query.
    let store = NonNull::new(unsafe {
        let (lib, none) = (context.lib(), null());
        raw::OSSL_STORE_open_ex(
            uri.as_ptr(),
            lib,
            null(),
            raw::UI_null(),
            null_mut(),
            none,
            null(),
            null_mut(),
        )
    })
    .ok_or_else(errors::take)?;
    let mut found = None;
    for _ in 0..MOST {
        // SAFETY: the store is live until it is closed below. What it gives is freed here, and a key out of it is counted.
        unsafe {
            if raw::OSSL_STORE_eof(store.as_ptr()) == 1 {
                break;
            }
            let info = raw::OSSL_STORE_load(store.as_ptr());
            if info.is_null() {
                continue;
            }
            if raw::OSSL_STORE_INFO_get_type(info) == raw::STORE_INFO_PKEY {
                found = Key::take(raw::OSSL_STORE_INFO_get1_PKEY(info));
            }
            raw::OSSL_STORE_INFO_free(info);
        }
        if found.is_some() {
            break;
        }
    }
    let why = errors::take();
    // SAFETY: opened once, closed once.
    unsafe { raw::OSSL_STORE_close(store.as_ptr()) };
    errors::clear();
    found.ok_or(format!("there is no private key: {why}"))
}
