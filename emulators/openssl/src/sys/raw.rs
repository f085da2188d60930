//! What of OpenSSL's C interface the crate `openssl-sys` does not declare, as in the headers of version 3.0.
#![allow(unsafe_code, non_camel_case_types, unreachable_pub)]

use std::ffi::{c_char, c_int, c_uchar, c_void};

use openssl_sys::{
    EVP_CIPHER, EVP_CIPHER_CTX, EVP_MAC, EVP_MAC_CTX, EVP_MD_CTX, EVP_PKEY, EVP_PKEY_CTX, EVP_SIGNATURE,
    OSSL_LIB_CTX, OSSL_PARAM,
};

pub const PARAM_UTF8_POINTER: u32 = 6;
pub const UNMODIFIED: usize = usize::MAX;

pub enum ASYNC_JOB {}
pub enum ASYNC_WAIT_CTX {}
pub enum EVP_KEYMGMT {}
pub enum EVP_KEYEXCH {}

/// A function of whatever kind its number says.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OSSL_DISPATCH {
    pub id: c_int,
    pub function: *const c_void,
}

// SAFETY: addresses of functions.
unsafe impl Sync for OSSL_DISPATCH {}

/// The end of a list.
pub const END: OSSL_DISPATCH = OSSL_DISPATCH { id: 0, function: std::ptr::null() };

#[repr(C)]
pub struct OSSL_ALGORITHM {
    pub names: *const c_char,
    pub properties: *const c_char,
    pub implementation: *const OSSL_DISPATCH,
    pub description: *const c_char,
}

// SAFETY: addresses of constants.
unsafe impl Sync for OSSL_ALGORITHM {}

pub type Callback = unsafe extern "C" fn(*const OSSL_PARAM, *mut c_void) -> c_int;
pub type Cleanup = unsafe extern "C" fn(*mut ASYNC_WAIT_CTX, *const c_void, c_int, *mut c_void);

unsafe extern "C" {
    pub fn ASYNC_get_current_job() -> *mut ASYNC_JOB;
    pub fn ASYNC_get_wait_ctx(job: *mut ASYNC_JOB) -> *mut ASYNC_WAIT_CTX;
    pub fn ASYNC_pause_job() -> c_int;
    pub fn ASYNC_WAIT_CTX_set_wait_fd(
        ctx: *mut ASYNC_WAIT_CTX,
        key: *const c_void,
        fd: c_int,
        data: *mut c_void,
        cleanup: Cleanup,
    ) -> c_int;
    pub fn ASYNC_WAIT_CTX_get_fd(
        ctx: *mut ASYNC_WAIT_CTX,
        key: *const c_void,
        fd: *mut c_int,
        data: *mut *mut c_void,
    ) -> c_int;

    pub fn OSSL_PARAM_set_utf8_ptr(p: *mut OSSL_PARAM, value: *const c_char) -> c_int;
    pub fn OSSL_PARAM_set_int(p: *mut OSSL_PARAM, value: c_int) -> c_int;
    pub fn OSSL_PARAM_locate(p: *mut OSSL_PARAM, key: *const c_char) -> *mut OSSL_PARAM;

    pub fn EVP_CIPHER_get_params(cipher: *mut EVP_CIPHER, params: *mut OSSL_PARAM) -> c_int;
    pub fn EVP_CIPHER_gettable_params(cipher: *const EVP_CIPHER) -> *const OSSL_PARAM;
    pub fn EVP_CIPHER_gettable_ctx_params(cipher: *const EVP_CIPHER) -> *const OSSL_PARAM;
    pub fn EVP_CIPHER_settable_ctx_params(cipher: *const EVP_CIPHER) -> *const OSSL_PARAM;
    pub fn EVP_CIPHER_CTX_set_params(ctx: *mut EVP_CIPHER_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_CIPHER_CTX_get_params(ctx: *mut EVP_CIPHER_CTX, params: *mut OSSL_PARAM) -> c_int;
    pub fn EVP_CipherInit_ex2(
        ctx: *mut EVP_CIPHER_CTX,
        cipher: *const EVP_CIPHER,
        key: *const c_uchar,
        iv: *const c_uchar,
        enc: c_int,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_CipherFinal_ex(ctx: *mut EVP_CIPHER_CTX, out: *mut c_uchar, len: *mut c_int) -> c_int;

    pub fn EVP_MAC_gettable_ctx_params(mac: *const EVP_MAC) -> *const OSSL_PARAM;
    pub fn EVP_MAC_settable_ctx_params(mac: *const EVP_MAC) -> *const OSSL_PARAM;
    pub fn EVP_MAC_CTX_set_params(ctx: *mut EVP_MAC_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_MAC_CTX_get_params(ctx: *mut EVP_MAC_CTX, params: *mut OSSL_PARAM) -> c_int;

    pub fn EVP_KEYMGMT_fetch(
        lib: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_KEYMGMT;
    pub fn EVP_KEYMGMT_gettable_params(keymgmt: *const EVP_KEYMGMT) -> *const OSSL_PARAM;
    pub fn EVP_KEYMGMT_gen_settable_params(keymgmt: *const EVP_KEYMGMT) -> *const OSSL_PARAM;
    pub fn EVP_KEYEXCH_fetch(
        lib: *mut OSSL_LIB_CTX,
        name: *const c_char,
        properties: *const c_char,
    ) -> *mut EVP_KEYEXCH;
    pub fn EVP_KEYEXCH_settable_ctx_params(exchange: *const EVP_KEYEXCH) -> *const OSSL_PARAM;
    pub fn EVP_KEYEXCH_gettable_ctx_params(exchange: *const EVP_KEYEXCH) -> *const OSSL_PARAM;
    pub fn EVP_SIGNATURE_settable_ctx_params(signature: *const EVP_SIGNATURE) -> *const OSSL_PARAM;
    pub fn EVP_SIGNATURE_gettable_ctx_params(signature: *const EVP_SIGNATURE) -> *const OSSL_PARAM;

    pub fn EVP_PKEY_CTX_new_from_pkey(
        lib: *mut OSSL_LIB_CTX,
        key: *mut EVP_PKEY,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_fromdata_settable(ctx: *mut EVP_PKEY_CTX, selection: c_int) -> *const OSSL_PARAM;
    pub fn EVP_PKEY_export(
        key: *const EVP_PKEY,
        selection: c_int,
        callback: Callback,
        argument: *mut c_void,
    ) -> c_int;
    pub fn EVP_PKEY_dup(key: *mut EVP_PKEY) -> *mut EVP_PKEY;
    pub fn EVP_PKEY_public_check(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_public_check_quick(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_derive_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_derive_set_peer_ex(ctx: *mut EVP_PKEY_CTX, peer: *mut EVP_PKEY, validate: c_int)
    -> c_int;
    pub fn EVP_DigestSignInit_ex(
        ctx: *mut EVP_MD_CTX,
        pctx: *mut *mut EVP_PKEY_CTX,
        digest: *const c_char,
        lib: *mut OSSL_LIB_CTX,
        properties: *const c_char,
        key: *mut EVP_PKEY,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_DigestVerifyInit_ex(
        ctx: *mut EVP_MD_CTX,
        pctx: *mut *mut EVP_PKEY_CTX,
        digest: *const c_char,
        lib: *mut OSSL_LIB_CTX,
        properties: *const c_char,
        key: *mut EVP_PKEY,
        params: *const OSSL_PARAM,
    ) -> c_int;
}
