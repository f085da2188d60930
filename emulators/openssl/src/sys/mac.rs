//! HMAC. The hardware is asked once for each value.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uchar, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use openssl_sys::{self as ffi, EVP_MAC, EVP_MAC_CTX, OSSL_PARAM};

use super::inner::Fetched;
use super::pause;
use super::provider::{LAST, Provider, functions, row};
use super::raw::{self, OSSL_ALGORITHM, OSSL_DISPATCH};
use crate::hardware::Hardware;

const SERVICE: usize = 0;

static INNER: Fetched<EVP_MAC> = Fetched::new();

fn inner_mac() -> *mut EVP_MAC {
    INNER.get(ffi::EVP_MAC_fetch, c"HMAC")
}

pub(super) static ALGORITHMS: [OSSL_ALGORITHM; 2] = [row(c"HMAC", FUNCTIONS), LAST];

const FUNCTIONS: &[OSSL_DISPATCH] = functions! {
    1 => newctx as unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    2 => dupctx as unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    3 => freectx as unsafe extern "C" fn(*mut c_void),
    4 => init as unsafe extern "C" fn(*mut c_void, *const c_uchar, usize, *const OSSL_PARAM) -> c_int,
    5 => update as unsafe extern "C" fn(*mut c_void, *const c_uchar, usize) -> c_int,
    6 => last as unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize) -> c_int,
    8 => get_ctx_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
    9 => set_ctx_params as unsafe extern "C" fn(*mut c_void, *const OSSL_PARAM) -> c_int,
    11 => gettable_ctx_params as unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM,
    12 => settable_ctx_params as unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM,
};

struct Context {
    inner: *mut EVP_MAC_CTX,
    hardware: Arc<Hardware>,
}

/// The context of a call.
///
/// # Safety
/// What `newctx` or `dupctx` made and `freectx` has not freed.
unsafe fn at<'a>(context: *mut c_void) -> &'a Context {
    // SAFETY: the caller's.
    unsafe { &*context.cast::<Context>() }
}

fn boxed(inner: *mut EVP_MAC_CTX, hardware: Arc<Hardware>) -> *mut c_void {
    if inner.is_null() { null_mut() } else { Box::into_raw(Box::new(Context { inner, hardware })).cast() }
}

unsafe extern "C" fn newctx(provider: *mut c_void) -> *mut c_void {
    let mac = inner_mac();
    // SAFETY: the MAC is live where it is not null.
    unsafe {
        let inner = if mac.is_null() { null_mut() } else { ffi::EVP_MAC_CTX_new(mac) };
        boxed(inner, Provider::hardware(provider))
    }
}

unsafe extern "C" fn dupctx(context: *mut c_void) -> *mut c_void {
    // SAFETY: the context is live.
    unsafe { boxed(ffi::EVP_MAC_CTX_dup(at(context).inner), Arc::clone(&at(context).hardware)) }
}

unsafe extern "C" fn freectx(context: *mut c_void) {
    if context.is_null() {
        return;
    }
    // SAFETY: made by one of the two above, freed once.
    unsafe { ffi::EVP_MAC_CTX_free(Box::from_raw(context.cast::<Context>()).inner) }
}

unsafe extern "C" fn init(
    context: *mut c_void,
    key: *const c_uchar,
    len: usize,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: OpenSSL gives a key of that length, or none.
    unsafe { ffi::EVP_MAC_init(at(context).inner, key, len, params) }
}

unsafe extern "C" fn update(context: *mut c_void, from: *const c_uchar, len: usize) -> c_int {
    // SAFETY: as above.
    unsafe { ffi::EVP_MAC_update(at(context).inner, from, len) }
}

unsafe extern "C" fn last(context: *mut c_void, out: *mut c_uchar, len: *mut usize, size: usize) -> c_int {
    // SAFETY: out has the size that OpenSSL says, and stays where it is while the job is paused.
    unsafe {
        let context = at(context);
        let fate = pause::wait_for(&context.hardware, SERVICE);
        if fate.error {
            return 0;
        }
        let ok = ffi::EVP_MAC_final(context.inner, out, len, size);
        if ok == 1 && fate.wrong && *len > 0 {
            *out ^= 1;
        }
        ok
    }
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: the list ends with a null key.
    unsafe { raw::EVP_MAC_CTX_get_params(at(context).inner, params) }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: as above.
    unsafe { raw::EVP_MAC_CTX_set_params(at(context).inner, params) }
}

unsafe extern "C" fn gettable_ctx_params(_: *mut c_void, _: *mut c_void) -> *const OSSL_PARAM {
    // SAFETY: the MAC is live or null, which gives null.
    unsafe { raw::EVP_MAC_gettable_ctx_params(inner_mac()) }
}

unsafe extern "C" fn settable_ctx_params(_: *mut c_void, _: *mut c_void) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe { raw::EVP_MAC_settable_ctx_params(inner_mac()) }
}
