//! Keys: what the default provider makes of them, held here so that operations on them are ours. The hardware makes new ones.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use openssl_sys::{self as ffi, EVP_PKEY, EVP_PKEY_CTX, OSSL_PARAM};

use super::inner::Fetched;
use super::provider::{LAST, Provider, functions, row};
use super::raw::{self, Callback, EVP_KEYMGMT, OSSL_ALGORITHM, OSSL_DISPATCH};
use super::{inner, pause};
use crate::hardware::Hardware;

const SERVICE: usize = 3;
/// `OSSL_KEYMGMT_SELECT_*` (openssl/core_dispatch.h).
const SELECT_PRIVATE: c_int = 1;
const SELECT_PUBLIC: c_int = 2;
/// Operations by number: exchange, and signature.
const KEYEXCH: c_int = 11;
const SIGNATURE: c_int = 12;

const KINDS: [&CStr; 7] = [c"X25519", c"X448", c"EC", c"DH", c"RSA", c"ED25519", c"ED448"];

static INNER: [Fetched<EVP_KEYMGMT>; 7] = [const { Fetched::new() }; 7];

fn inner_keymgmt(number: usize) -> *mut EVP_KEYMGMT {
    match (INNER.get(number), KINDS.get(number)) {
        (Some(fetched), Some(name)) => fetched.get(raw::EVP_KEYMGMT_fetch, name),
        _ => null_mut(),
    }
}

pub(super) static ALGORITHMS: [OSSL_ALGORITHM; 8] = [
    row(KINDS[0], Functions::<0>::LIST),
    row(KINDS[1], Functions::<1>::LIST),
    row(c"EC:id-ecPublicKey", Functions::<2>::LIST),
    row(KINDS[3], Functions::<3>::LIST),
    row(c"RSA:rsaEncryption", Functions::<4>::LIST),
    row(KINDS[5], Functions::<5>::LIST),
    row(KINDS[6], Functions::<6>::LIST),
    LAST,
];

/// A list of functions for each number.
struct Functions<const N: usize>;

type Of = unsafe extern "C" fn(*mut c_void) -> *const OSSL_PARAM;
type OfTwo = unsafe extern "C" fn(*mut c_void, *mut c_void) -> *const OSSL_PARAM;

impl<const N: usize> Functions<N> {
    const LIST: &'static [OSSL_DISPATCH] = functions! {
        1 => new as unsafe extern "C" fn(*mut c_void) -> *mut c_void,
        2 => gen_init::<N> as unsafe extern "C" fn(*mut c_void, c_int, *const OSSL_PARAM) -> *mut c_void,
        4 => gen_set_params as unsafe extern "C" fn(*mut c_void, *const OSSL_PARAM) -> c_int,
        5 => gen_settable_params::<N> as OfTwo,
        6 => generate as unsafe extern "C" fn(*mut c_void, Option<Callback>, *mut c_void) -> *mut c_void,
        7 => gen_cleanup as unsafe extern "C" fn(*mut c_void),
        10 => free as unsafe extern "C" fn(*mut c_void),
        11 => get_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
        12 => gettable_params::<N> as Of,
        20 => operation_name::<N> as unsafe extern "C" fn(c_int) -> *const c_char,
        21 => has as unsafe extern "C" fn(*const c_void, c_int) -> c_int,
        22 => validate as unsafe extern "C" fn(*const c_void, c_int, c_int) -> c_int,
        23 => same as unsafe extern "C" fn(*const c_void, *const c_void, c_int) -> c_int,
        40 => import::<N> as unsafe extern "C" fn(*mut c_void, c_int, *const OSSL_PARAM) -> c_int,
        41 => types::<N> as unsafe extern "C" fn(c_int) -> *const OSSL_PARAM,
        42 => export as unsafe extern "C" fn(*mut c_void, c_int, Callback, *mut c_void) -> c_int,
        43 => types::<N> as unsafe extern "C" fn(c_int) -> *const OSSL_PARAM,
        44 => dup as unsafe extern "C" fn(*const c_void, c_int) -> *mut c_void,
    };
}

/// A key; null until it is imported.
pub(super) struct Held {
    inner: *mut EVP_PKEY,
    private: bool,
}

impl Held {
    /// The default provider's key of a key of ours; null where there is none.
    ///
    /// # Safety
    /// The pointer is null or one that `new`, `generate` or `dup` made and `free` has not freed.
    pub(super) unsafe fn inner(key: *const c_void) -> *mut EVP_PKEY {
        // SAFETY: the caller's.
        unsafe { key.cast::<Held>().as_ref() }.map_or(null_mut(), |held| held.inner)
    }
}

fn boxed(inner: *mut EVP_PKEY, private: bool) -> *mut c_void {
    Box::into_raw(Box::new(Held { inner, private })).cast()
}

unsafe extern "C" fn new(_: *mut c_void) -> *mut c_void {
    boxed(null_mut(), false)
}

unsafe extern "C" fn free(key: *mut c_void) {
    if key.is_null() {
        return;
    }
    // SAFETY: made by one of ours, freed once; OpenSSL lets null be freed.
    unsafe { ffi::EVP_PKEY_free(Box::from_raw(key.cast::<Held>()).inner) }
}

struct Generation {
    inner: *mut EVP_PKEY_CTX,
    hardware: Arc<Hardware>,
}

unsafe extern "C" fn gen_init<const N: usize>(
    provider: *mut c_void,
    _: c_int,
    params: *const OSSL_PARAM,
) -> *mut c_void {
    // SAFETY: the provider is live; the list is null or ends with a null key. What was made is freed if it cannot be used.
    unsafe {
        let context = ffi::EVP_PKEY_CTX_new_from_name(inner::lib(), KINDS[N].as_ptr(), null());
        if context.is_null() {
            return null_mut();
        }
        let set = |params: *const OSSL_PARAM| {
            params.is_null() || ffi::EVP_PKEY_CTX_set_params(context, params) == 1
        };
        if ffi::EVP_PKEY_keygen_init(context) != 1 || !set(params) {
            ffi::EVP_PKEY_CTX_free(context);
            return null_mut();
        }
        let hardware = Provider::hardware(provider);
        Box::into_raw(Box::new(Generation { inner: context, hardware })).cast()
    }
}

unsafe extern "C" fn gen_set_params(generation: *mut c_void, params: *const OSSL_PARAM) -> c_int {
    // SAFETY: made by gen_init; the list ends with a null key.
    unsafe { ffi::EVP_PKEY_CTX_set_params((*generation.cast::<Generation>()).inner, params) }
}

unsafe extern "C" fn gen_settable_params<const N: usize>(
    _: *mut c_void,
    _: *mut c_void,
) -> *const OSSL_PARAM {
    // SAFETY: live or null, which gives null.
    unsafe { raw::EVP_KEYMGMT_gen_settable_params(inner_keymgmt(N)) }
}

unsafe extern "C" fn generate(generation: *mut c_void, _: Option<Callback>, _: *mut c_void) -> *mut c_void {
    // SAFETY: made by gen_init, and not cleaned up before this returns.
    unsafe {
        let generation = &*generation.cast::<Generation>();
        let mut key = null_mut();
        if pause::wait_for(&generation.hardware, SERVICE).error
            || ffi::EVP_PKEY_generate(generation.inner, &mut key) != 1
        {
            return null_mut();
        }
        boxed(key, true)
    }
}

unsafe extern "C" fn gen_cleanup(generation: *mut c_void) {
    if generation.is_null() {
        return;
    }
    // SAFETY: made by gen_init, freed once.
    unsafe { ffi::EVP_PKEY_CTX_free(Box::from_raw(generation.cast::<Generation>()).inner) }
}

unsafe extern "C" fn get_params(key: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    // SAFETY: a key of ours; the list ends with a null key.
    unsafe {
        let inner = Held::inner(key);
        if inner.is_null() { 0 } else { ffi::EVP_PKEY_get_params(inner, params) }
    }
}

unsafe extern "C" fn gettable_params<const N: usize>(_: *mut c_void) -> *const OSSL_PARAM {
    // SAFETY: live or null, which gives null.
    unsafe { raw::EVP_KEYMGMT_gettable_params(inner_keymgmt(N)) }
}

unsafe extern "C" fn operation_name<const N: usize>(operation: c_int) -> *const c_char {
    let name = match (KINDS[N].to_bytes(), operation) {
        (b"EC", KEYEXCH) => c"ECDH",
        (b"EC", SIGNATURE) => c"ECDSA",
        _ => KINDS[N],
    };
    name.as_ptr()
}

unsafe extern "C" fn has(key: *const c_void, selection: c_int) -> c_int {
    // SAFETY: a key of ours, or null.
    let held = unsafe { key.cast::<Held>().as_ref() };
    let there = held.is_some_and(|held| {
        let private = selection & SELECT_PRIVATE == 0 || held.private;
        let public = selection & SELECT_PUBLIC == 0 || !held.inner.is_null();
        private && public
    });
    c_int::from(there)
}

unsafe extern "C" fn validate(key: *const c_void, selection: c_int, quick: c_int) -> c_int {
    // SAFETY: a key of ours; the context is freed here.
    unsafe {
        let inner = Held::inner(key);
        if inner.is_null() {
            return 0;
        }
        if selection & SELECT_PUBLIC == 0 {
            return 1;
        }
        let context = raw::EVP_PKEY_CTX_new_from_pkey(inner::lib(), inner, null());
        let check = if quick != 0 { raw::EVP_PKEY_public_check_quick } else { raw::EVP_PKEY_public_check };
        let ok = if context.is_null() { 0 } else { check(context) };
        ffi::EVP_PKEY_CTX_free(context);
        c_int::from(ok == 1)
    }
}

unsafe extern "C" fn same(one: *const c_void, other: *const c_void, _: c_int) -> c_int {
    // SAFETY: keys of ours.
    unsafe {
        let (one, other) = (Held::inner(one), Held::inner(other));
        c_int::from(!one.is_null() && !other.is_null() && ffi::EVP_PKEY_eq(one, other) == 1)
    }
}

unsafe extern "C" fn import<const N: usize>(
    key: *mut c_void,
    selection: c_int,
    params: *const OSSL_PARAM,
) -> c_int {
    // SAFETY: a key of ours, empty; the list ends with a null key and is only read. The context is freed here.
    unsafe {
        let held = &mut *key.cast::<Held>();
        if !held.inner.is_null() {
            return 0;
        }
        let context = ffi::EVP_PKEY_CTX_new_from_name(inner::lib(), KINDS[N].as_ptr(), null());
        let ok = !context.is_null()
            && ffi::EVP_PKEY_fromdata_init(context) == 1
            && ffi::EVP_PKEY_fromdata(context, &mut held.inner, selection, params.cast_mut()) == 1;
        ffi::EVP_PKEY_CTX_free(context);
        let names = [c"priv", c"d"];
        let given =
            names.iter().any(|name| !raw::OSSL_PARAM_locate(params.cast_mut(), name.as_ptr()).is_null());
        held.private = ok && selection & SELECT_PRIVATE != 0 && given;
        c_int::from(ok)
    }
}

unsafe extern "C" fn types<const N: usize>(selection: c_int) -> *const OSSL_PARAM {
    // SAFETY: the list is the default provider's, and constant; the context is freed here.
    unsafe {
        let context = ffi::EVP_PKEY_CTX_new_from_name(inner::lib(), KINDS[N].as_ptr(), null());
        if context.is_null() || ffi::EVP_PKEY_fromdata_init(context) != 1 {
            ffi::EVP_PKEY_CTX_free(context);
            return null();
        }
        let list = raw::EVP_PKEY_fromdata_settable(context, selection);
        ffi::EVP_PKEY_CTX_free(context);
        list
    }
}

unsafe extern "C" fn export(
    key: *mut c_void,
    selection: c_int,
    callback: Callback,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: a key of ours; the callback and its argument are OpenSSL's.
    unsafe {
        let inner = Held::inner(key);
        if inner.is_null() { 0 } else { raw::EVP_PKEY_export(inner, selection, callback, argument) }
    }
}

unsafe extern "C" fn dup(key: *const c_void, _: c_int) -> *mut c_void {
    // SAFETY: a key of ours.
    unsafe {
        let Some(held) = key.cast::<Held>().as_ref() else { return null_mut() };
        let copy = if held.inner.is_null() { null_mut() } else { raw::EVP_PKEY_dup(held.inner) };
        if copy.is_null() && !held.inner.is_null() { null_mut() } else { boxed(copy, held.private) }
    }
}
