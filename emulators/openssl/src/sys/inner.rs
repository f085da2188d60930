//! OpenSSL's own default provider, in a library context of this module's: what computes.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use openssl_sys::{self as ffi, OSSL_LIB_CTX};

struct Inner(*mut OSSL_LIB_CTX);

// SAFETY: a library context has locks of its own, and this one lives as long as the process.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// The context; null when there was no memory for it, which every call refuses.
pub(super) fn lib() -> *mut OSSL_LIB_CTX {
    static INNER: OnceLock<Inner> = OnceLock::new();
    INNER
        .get_or_init(|| {
            // SAFETY: no pointers that are not null or constant. It is never freed, for keys may outlive any provider.
            unsafe {
                let lib = ffi::OSSL_LIB_CTX_new();
                if !lib.is_null() && ffi::OSSL_PROVIDER_load(lib, c"default".as_ptr()).is_null() {
                    ffi::OSSL_LIB_CTX_free(lib);
                    return Inner(null_mut());
                }
                Inner(lib)
            }
        })
        .0
}

/// Something that is fetched once, and kept.
pub(super) struct Fetched<T>(OnceLock<Place<T>>);

struct Place<T>(*mut T);

// SAFETY: what is fetched is counted and not written to.
unsafe impl<T> Send for Place<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Place<T> {}

type Fetch<T> =
    unsafe extern "C" fn(*mut OSSL_LIB_CTX, *const std::ffi::c_char, *const std::ffi::c_char) -> *mut T;

impl<T> Fetched<T> {
    pub(super) const fn new() -> Self {
        Fetched(OnceLock::new())
    }

    /// Fetches it, the first time; null where there is no such thing.
    pub(super) fn get(&self, fetch: Fetch<T>, name: &CStr) -> *mut T {
        let place = self.0.get_or_init(|| {
            let lib = lib();
            match lib.is_null() {
                true => Place(null_mut()),
                // SAFETY: the context is live, the name ends with a zero.
                false => Place(unsafe { fetch(lib, name.as_ptr(), null()) }),
            }
        });
        place.0
    }
}
