//! Ciphers. The hardware is asked once for each call that encrypts or decrypts something.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use openssl_sys::{self as ffi, EVP_CIPHER, EVP_CIPHER_CTX, OSSL_PARAM};

use super::inner::Fetched;
use super::pause;
use super::provider::{LAST, Provider, functions, row};
use super::raw::{self, OSSL_ALGORITHM, OSSL_DISPATCH};
use crate::hardware::Hardware;

const SERVICE: usize = 0;

const NAMES: [&CStr; 10] = [
    c"AES-128-GCM",
    c"AES-192-GCM",
    c"AES-256-GCM",
    c"AES-128-CBC",
    c"AES-192-CBC",
    c"AES-256-CBC",
    c"AES-128-CTR",
    c"AES-192-CTR",
    c"AES-256-CTR",
    c"ChaCha20-Poly1305",
];

static INNER: [Fetched<EVP_CIPHER>; 10] = [const { Fetched::new() }; 10];

fn inner_cipher(number: usize) -> *mut EVP_CIPHER {
    match (INNER.get(number), NAMES.get(number)) {
        (Some(fetched), Some(name)) => fetched.get(ffi::EVP_CIPHER_fetch, name),
        _ => null_mut(),
    }
}

pub(super) static ALGORITHMS: [OSSL_ALGORITHM; 11] = [
    row(NAMES[0], Functions::<0>::LIST),
    row(NAMES[1], Functions::<1>::LIST),
    row(NAMES[2], Functions::<2>::LIST),
    row(NAMES[3], Functions::<3>::LIST),
    row(NAMES[4], Functions::<4>::LIST),
    row(NAMES[5], Functions::<5>::LIST),
    row(NAMES[6], Functions::<6>::LIST),
    row(NAMES[7], Functions::<7>::LIST),
    row(NAMES[8], Functions::<8>::LIST),
    row(NAMES[9], Functions::<9>::LIST),
    LAST,
];

/// A list of functions for each number.
struct Functions<const N: usize>;

type Init = unsafe extern "C" fn(
    *mut c_void,
    *const c_uchar,
    usize,
    *const c_uchar,
    usize,
    *const OSSL_PARAM,
) -> c_int;

impl<const N: usize> Functions<N> {
    const LIST: &'static [OSSL_DISPATCH] = functions! {
        1 => newctx::<N> as unsafe extern "C" fn(*mut c_void) -> *mut c_void,
        2 => encrypt_init as Init,
        3 => decrypt_init as Init,
        4 => update as unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize, *const c_uchar, usize) -> c_int,
        5 => last as unsafe extern "C" fn(*mut c_void, *mut c_uchar, *mut usize, usize) -> c_int,
        7 => freectx as unsafe extern "C" fn(*mut c_void),
        9 => get_params::<N> as unsafe extern "C" fn(*mut OSSL_PARAM) -> c_int,
        10 => get_ctx_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
        11 => set_ctx_params as unsafe extern "C" fn(*mut c_void, *const OSSL_PARAM) -> c_int,
        12 => gettable_params::<N> as unsafe extern "C" fn(*mut c_void) -> *const OSSL_PARAM,
        13 => gettable_ctx_params::<N> as unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM,
        14 => settable_ctx_params::<N> as unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM,
    };
}

struct Context {
    inner: *mut EVP_CIPHER_CTX,
    hardware: Arc<Hardware>,
    seal: bool,
    /// The check value of this packet is to be wrong.
    wrong: bool,
}

/// The context of a call.
///
/// # Safety
/// What `newctx` made and `freectx` has not freed; OpenSSL uses a context in one call at a time.
unsafe fn at<'a>(context: *mut c_void) -> &'a mut Context {
    // SAFETY: the caller's.
    unsafe { &mut *context.cast::<Context>() }
}

unsafe extern "C" fn newctx<const N: usize>(provider: *mut c_void) -> *mut c_void {
    let cipher = inner_cipher(N);
    // SAFETY: all are live or null; what was made is freed if it cannot be used.
    unsafe {
        let inner = if cipher.is_null() { null_mut() } else { ffi::EVP_CIPHER_CTX_new() };
        if inner.is_null() {
            return null_mut();
        }
        if raw::EVP_CipherInit_ex2(inner, cipher, null(), null(), 1, null()) != 1 {
            ffi::EVP_CIPHER_CTX_free(inner);
            return null_mut();
        }
        let hardware = Provider::hardware(provider);
        Box::into_raw(Box::new(Context { inner, hardware, seal: true, wrong: false })).cast()
    }
}

unsafe extern "C" fn freectx(context: *mut c_void) {
    if context.is_null() {
        return;
    }
    // SAFETY: made by newctx, freed once.
    unsafe {
        let context = Box::from_raw(context.cast::<Context>());
        ffi::EVP_CIPHER_CTX_free(context.inner);
    }
}

unsafe fn init(
    context: *mut c_void,
    key: *const c_uchar,
    iv: *const c_uchar,
    params: *const OSSL_PARAM,
    seal: bool,
) -> c_int {
    // SAFETY: OpenSSL has checked the lengths of key and IV against what get_params says, which is what the inner cipher says.
    unsafe {
        let context = at(context);
        (context.seal, context.wrong) = (seal, false);
        raw::EVP_CipherInit_ex2(context.inner, null(), key, iv, c_int::from(seal), params)
    }
}

unsafe extern "C" fn encrypt_init(
    context: *mut c_void,
    key: *const c_uchar,
    _: usize,
    iv: *const c_uchar,
    _: usize,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { init(context, key, iv, params, true) }
}

unsafe extern "C" fn decrypt_init(
    context: *mut c_void,
    key: *const c_uchar,
    _: usize,
    iv: *const c_uchar,
    _: usize,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { init(context, key, iv, params, false) }
}

unsafe extern "C" fn update(
    context: *mut c_void,
    out: *mut c_uchar,
    out_len: *mut usize,
    _: usize,
    from: *const c_uchar,
    len: usize,
) -> c_int {
    // SAFETY: OpenSSL gives slices of the lengths that it says; all stay where they are while the job is paused.
    unsafe {
        let context = at(context);
        if !out.is_null() && !from.is_null() {
            let fate = pause::wait_for(&context.hardware, SERVICE);
            if fate.error {
                return 0;
            }
            context.wrong |= fate.wrong;
        }
        let Ok(len) = c_int::try_from(len) else { return 0 };
        let mut written = 0;
        let ok = ffi::EVP_CipherUpdate(context.inner, out, &mut written, from, len);
        *out_len = usize::try_from(written).unwrap_or(0);
        ok
    }
}

unsafe extern "C" fn last(context: *mut c_void, out: *mut c_uchar, out_len: *mut usize, _: usize) -> c_int {
    // SAFETY: as above; out has a block.
    unsafe {
        let context = at(context);
        let mut written = 0;
        let ok = raw::EVP_CipherFinal_ex(context.inner, out, &mut written);
        *out_len = usize::try_from(written).unwrap_or(0);
        // A check value that was computed wrongly is not the one in the packet.
        if context.wrong && !context.seal { 0 } else { ok }
    }
}

unsafe extern "C" fn get_params<const N: usize>(params: *mut OSSL_PARAM) -> c_int {
    let cipher = inner_cipher(N);
    // SAFETY: the list ends with a null key.
    if cipher.is_null() { 0 } else { unsafe { raw::EVP_CIPHER_get_params(cipher, params) } }
}

unsafe extern "C" fn get_ctx_params(context: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: the list ends with a null key, and its places have the lengths that it says.
    unsafe {
        let context = at(context);
        let ok = raw::EVP_CIPHER_CTX_get_params(context.inner, params);
        let tag = raw::OSSL_PARAM_locate(params, c"tag".as_ptr());
        if ok == 1 && context.wrong && !tag.is_null() && (*tag).data_size > 0 {
            *(*tag).data.cast::<u8>() ^= 1;
        }
        ok
    }
}

unsafe extern "C" fn set_ctx_params(context: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: as above.
    unsafe { raw::EVP_CIPHER_CTX_set_params(at(context).inner, params) }
}

unsafe extern "C" fn gettable_params<const N: usize>(_: *mut c_void) -> *const OSSL_PARAM {
    // SAFETY: the cipher is live or null, which gives null.
    unsafe { raw::EVP_CIPHER_gettable_params(inner_cipher(N)) }
}

unsafe extern "C" fn gettable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe { raw::EVP_CIPHER_gettable_ctx_params(inner_cipher(N)) }
}

unsafe extern "C" fn settable_ctx_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: as above.
    unsafe { raw::EVP_CIPHER_settable_ctx_params(inner_cipher(N)) }
}
