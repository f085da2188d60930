//! Key exchange. The hardware is asked once for each shared secret.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use openssl_sys::{self as ffi, EVP_PKEY_CTX, OSSL_PARAM};

use super::inner::Fetched;
use super::keymgmt::Held;
use super::provider::{LAST, Provider, functions, row};
use super::raw::{self, EVP_KEYEXCH, OSSL_ALGORITHM, OSSL_DISPATCH};
use super::{inner, pause};
use crate::hardware::Hardware;

const SERVICE: usize = 1;

const NAMES: [&CStr; 4] = [c"X25519", c"X448", c"ECDH", c"DH"];

static INNER: [Fetched<EVP_KEYEXCH>; 4] = [const { Fetched::new() }; 4];

fn inner_exchange(number: usize) -> *mut EVP_KEYEXCH {
    match (INNER.get(number), NAMES.get(number)) {
        (Some(fetched), Some(name)) => fetched.get(raw::EVP_KEYEXCH_fetch, name),
        _ => null_mut(),
    }
}

pub(super) static ALGORITHMS: [OSSL_ALGORITHM; 5] = [
    row(NAMES[0], Functions::<0>::LIST),
    row(NAMES[1], Functions::<1>::LIST),
    row(NAMES[2], Functions::<2>::LIST),
    row(NAMES[3], Functions::<3>::LIST),
    LAST,
];

/// A list of functions for each number.
struct Functions<const N: usize>;

type OfTwo = unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM;

impl<const N: usize> Functions<N> {
    const LIST: &'static [OSSL_DISPATCH] = functions! {
        1 => newctx as unsafe extern "C" fn(*mut c_void) -> *mut c_void,
        2 => init as unsafe extern "C" fn(*mut c_void, *mut c_void, *const OSSL_PARAM) -> c_int,
        3 => derive as unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize) -> c_int,
        4 => set_peer as unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        5 => freectx as unsafe extern "C" fn(*mut c_void),
        7 => set_ctx_params as unsafe extern "C" fn(*mut c_void, *const OSSL_PARAM) -> c_int,
        8 => settable_ctx_params::<N> as OfTwo,
        9 => get_ctx_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
        10 => gettable_ctx_params::<N> as OfTwo,
    };
}

struct Context {
    inner: *mut EVP_PKEY_CTX,
    hardware: Arc<Hardware>,
}

/// The context of a call.
///
/// # Safety
/// What `newctx` made and `freectx` has not freed; OpenSSL uses a context in one call at a time.
unsafe fn at<'a>(context: *mut c_void) -> &'a mut Context {
    // SAFETY: the caller's.
    unsafe { &mut *context.cast::<Context>() }
}

unsafe extern "C" fn newctx(provider: *mut c_void) -> *mut c_void {
    // SAFETY: the provider is live.
    let hardware = unsafe { Provider::hardware(provider) };
    Box::into_raw(Box::new(Context { inner: null_mut(), hardware })).cast()
}

unsafe extern "C" fn freectx(context: *mut c_void) {
    if context.is_null() {
        return;
    }
    // SAFETY: made by newctx, freed once; OpenSSL lets null be freed.
    unsafe { ffi::EVP_PKEY_CTX_free(Box::from_raw(context.cast::<Context>()).inner) }
}

unsafe extern "C" fn init(context: *mut c_void, key: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: context and key are ours; the list is null or ends with a null key.
    unsafe {
        let (context, key) = (at(context), Held::inner(key));
        if key.is_null() {
            return 0;
        }
        ffi::EVP_PKEY_CTX_free(context.inner);
        context.inner = raw::EVP_PKEY_CTX_new_from_pkey(inner::lib(), key, null());
        c_int::from(!context.inner.is_null() && raw::EVP_PKEY_derive_init_ex(context.inner, params) == 1)
    }
}

unsafe extern "C" fn set_peer(context: *mut c_void, peer: *mut c_void) -> c_int {
    // SAFETY: context and key are ours. Whether a public value is one is asked by whoever wants to know.
    unsafe {
        let (inner, peer) = (at(context).inner, Held::inner(peer));
        if inner.is_null() || peer.is_null() { 0 } else { raw::EVP_PKEY_derive_set_peer_ex(inner, peer, 0) }
    }
}

unsafe extern "C" fn derive(context: *mut c_void, out: *mut c_uchar, len: *mut usize, size: usize) -> c_int {
    // SAFETY: the context is ours; out is null or has that size, and stays where it is while the job is paused.
    unsafe {
        let context = at(context);
        if context.inner.is_null() {
            return 0;
        }
        if out.is_null() {
            return ffi::EVP_PKEY_derive(context.inner, out, len);
        }
        let fate = pause::wait_for(&context.hardware, SERVICE);
        if fate.error {
            return 0;
        }
        *len = size;
        let ok = ffi::EVP_PKEY_derive(context.inner, out, len);
        if ok == 1 && fate.wrong && *len > 0 {
            *out ^= 1;
        }
        ok
    }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: the context is ours; the list ends with a null key.
    unsafe {
        let inner = at(context).inner;
        if inner.is_null() { 0 } else { ffi::EVP_PKEY_CTX_set_params(inner, params) }
    }
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: as above.
    unsafe {
        let inner = at(context).inner;
        if inner.is_null() { 0 } else { ffi::EVP_PKEY_CTX_get_params(inner, params) }
    }
}

unsafe extern "C" fn settable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: live or null, which gives null.
    unsafe { raw::EVP_KEYEXCH_settable_ctx_params(inner_exchange(N)) }
}

unsafe extern "C" fn gettable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe { raw::EVP_KEYEXCH_gettable_ctx_params(inner_exchange(N)) }
}
