//! Signatures. The hardware is asked once for each that is made, and once for each that is verified.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use openssl_sys::{self as ffi, EVP_MD_CTX, EVP_PKEY_CTX, EVP_SIGNATURE, OSSL_PARAM};

use super::inner::Fetched;
use super::keymgmt::Held;
use super::provider::{LAST, Provider, functions, row};
use super::raw::{self, OSSL_ALGORITHM, OSSL_DISPATCH};
use super::{inner, pause};
use crate::hardware::Hardware;

const SERVICE: usize = 2;

const NAMES: [&CStr; 4] = [c"RSA", c"ECDSA", c"ED25519", c"ED448"];

static INNER: [Fetched<EVP_SIGNATURE>; 4] = [const { Fetched::new() }; 4];

fn inner_signature(number: usize) -> *mut EVP_SIGNATURE {
    match (INNER.get(number), NAMES.get(number)) {
        (Some(fetched), Some(name)) => fetched.get(ffi::EVP_SIGNATURE_fetch, name),
        _ => null_mut(),
    }
}

pub(super) static ALGORITHMS: [OSSL_ALGORITHM; 5] = [
    row(c"RSA:rsaEncryption", Functions::<0>::LIST),
    row(NAMES[1], Functions::<1>::LIST),
    row(NAMES[2], Functions::<2>::LIST),
    row(NAMES[3], Functions::<3>::LIST),
    LAST,
];

/// A list of functions for each number.
struct Functions<const N: usize>;

type Init = unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_void, *const OSSL_PARAM) -> c_int;
type OfTwo = unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM;

impl<const N: usize> Functions<N> {
    const LIST: &'static [OSSL_DISPATCH] = functions! {
        1 => newctx as unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void,
        8 => sign_init as Init,
        11 => sign as unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize, *const c_uchar, usize) -> c_int,
        12 => verify_init as Init,
        15 => verify as unsafe extern "C" fn(*mut c_void, *const c_uchar, usize, *const c_uchar, usize) -> c_int,
        16 => freectx as unsafe extern "C" fn(*mut c_void),
        18 => get_ctx_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
        19 => gettable_ctx_params::<N> as OfTwo,
        20 => set_ctx_params as unsafe extern "C" fn(*mut c_void, *const OSSL_PARAM) -> c_int,
        21 => settable_ctx_params::<N> as OfTwo,
    };
}

struct Context {
    inner: *mut EVP_MD_CTX,
    /// Part of the above.
    settings: *mut EVP_PKEY_CTX,
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

unsafe extern "C" fn newctx(provider: *mut c_void, _: *const c_char) -> *mut c_void {
    // SAFETY: the provider is live.
    unsafe {
        let inner = ffi::EVP_MD_CTX_new();
        if inner.is_null() {
            return null_mut();
        }
        let hardware = Provider::hardware(provider);
        Box::into_raw(Box::new(Context { inner, settings: null_mut(), hardware })).cast()
    }
}

unsafe extern "C" fn freectx(context: *mut c_void) {
    if context.is_null() {
        return;
    }
    // SAFETY: made by newctx, freed once.
    unsafe { ffi::EVP_MD_CTX_free(Box::from_raw(context.cast::<Context>()).inner) }
}

unsafe extern "C" fn sign_init(
    context: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: context and key are ours; the text is null or ends with a zero, and so does the list with a null key.
    unsafe {
        let (context, key) = (at(context), Held::inner(key));
        if key.is_null() {
            return 0;
        }
        let (lib, settings) = (inner::lib(), &mut context.settings);
        raw::EVP_DigestSignInit_ex(context.inner, settings, named(digest), lib, null(), key, params)
    }
}

unsafe extern "C" fn verify_init(
    context: *mut c_void,
    digest: *const c_char,
    key: *mut c_void,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let (context, key) = (at(context), Held::inner(key));
        if key.is_null() {
            return 0;
        }
        let (lib, settings) = (inner::lib(), &mut context.settings);
        raw::EVP_DigestVerifyInit_ex(context.inner, settings, named(digest), lib, null(), key, params)
    }
}

/// An empty name means the same as none.
unsafe fn named(digest: *const c_char) -> *const c_char {
    // SAFETY: null, or a text that ends with a zero.
    if !digest.is_null() && unsafe { *digest } == 0 { null() } else { digest }
}

unsafe extern "C" fn sign(
    context: *mut c_void,
    out: *mut c_uchar,
    len: *mut usize,
    size: usize,
    from: *const c_uchar,
    from_len: usize,
) -> c_int {
    // SAFETY: the context is ours; out is null or has that size. All stay where they are while the job is paused.
    unsafe {
        let context = at(context);
        if out.is_null() {
            return ffi::EVP_DigestSign(context.inner, out, len, from, from_len);
        }
        let fate = pause::wait_for(&context.hardware, SERVICE);
        if fate.error {
            return 0;
        }
        *len = size;
        let ok = ffi::EVP_DigestSign(context.inner, out, len, from, from_len);
        if ok == 1 && fate.wrong && *len > 0 {
            *out.add(*len - 1) ^= 1;
        }
        ok
    }
}

unsafe extern "C" fn verify(
    context: *mut c_void,
    signature: *const c_uchar,
    len: usize,
    from: *const c_uchar,
    from_len: usize,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let context = at(context);
        let fate = pause::wait_for(&context.hardware, SERVICE);
        if fate.error || fate.wrong {
            return 0;
        }
        ffi::EVP_DigestVerify(context.inner, signature, len, from, from_len)
    }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: the context is ours; the list ends with a null key.
    unsafe {
        let settings = at(context).settings;
        if settings.is_null() { 0 } else { ffi::EVP_PKEY_CTX_set_params(settings, params) }
    }
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: as above.
    unsafe {
        let settings = at(context).settings;
        if settings.is_null() { 0 } else { ffi::EVP_PKEY_CTX_get_params(settings, params) }
    }
}

unsafe extern "C" fn settable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: live or null, which gives null.
    unsafe { raw::EVP_SIGNATURE_settable_ctx_params(inner_signature(N)) }
}

unsafe extern "C" fn gettable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe { raw::EVP_SIGNATURE_gettable_ctx_params(inner_signature(N)) }
}
