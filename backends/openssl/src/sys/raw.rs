//! What of OpenSSL's C interface the crate `openssl-sys` does not declare, as in the headers of version 3.0. All of it is there in
//! every later version; what is not (engines) is looked up at run time, in `engine`.
#![allow(unsafe_code, non_camel_case_types, unreachable_pub)]

use std::ffi::{c_char, c_int, c_long, c_uchar, c_void};

use openssl_sys::{
    ENGINE, EVP_CIPHER, EVP_CIPHER_CTX, EVP_MD_CTX, EVP_PKEY, EVP_PKEY_CTX, OSSL_LIB_CTX, OSSL_PARAM,
    OSSL_PROVIDER,
};

/// `OSSL_PARAM_INTEGER` and its relatives (openssl/core.h).
pub const PARAM_UNSIGNED: u32 = 2;
pub const PARAM_UTF8: u32 = 4;
pub const PARAM_OCTETS: u32 = 5;
pub const PARAM_UTF8_POINTER: u32 = 6;
/// `OSSL_PARAM_UNMODIFIED`.
pub const UNMODIFIED: usize = usize::MAX;

/// `EVP_CTRL_AEAD_GET_TAG` and `EVP_CTRL_AEAD_SET_TAG` (openssl/evp.h).
pub const AEAD_GET_TAG: c_int = 0x10;
pub const AEAD_SET_TAG: c_int = 0x11;

/// What `ASYNC_start_job` answers (openssl/async.h).
pub const ASYNC_NO_JOBS: c_int = 1;
pub const ASYNC_PAUSE: c_int = 2;
pub const ASYNC_FINISH: c_int = 3;

/// `OSSL_STORE_INFO_PKEY` (openssl/store.h).
pub const STORE_INFO_PKEY: c_int = 4;

/// Operations of a provider, `OSSL_OP_*` (openssl/core_dispatch.h).
pub const OPERATIONS: [c_int; 6] = [2, 3, 10, 11, 12, 22];

pub enum ASYNC_JOB {}
pub enum ASYNC_WAIT_CTX {}
pub enum OSSL_STORE_CTX {}
pub enum OSSL_STORE_INFO {}
pub enum UI_METHOD {}

/// One algorithm of a provider (openssl/core.h).
#[repr(C)]
pub struct OSSL_ALGORITHM {
    pub names: *const c_char,
    pub properties: *const c_char,
    pub implementation: *const c_void,
    pub description: *const c_char,
}

pub type Start = unsafe extern "C" fn(*mut c_void) -> c_int;

unsafe extern "C" {
    pub fn ASYNC_is_capable() -> c_int;
    pub fn ASYNC_start_job(
        job: *mut *mut ASYNC_JOB,
        ctx: *mut ASYNC_WAIT_CTX,
        ret: *mut c_int,
        func: Start,
        args: *mut c_void,
        size: usize,
    ) -> c_int;
    pub fn ASYNC_WAIT_CTX_new() -> *mut ASYNC_WAIT_CTX;
    pub fn ASYNC_WAIT_CTX_free(ctx: *mut ASYNC_WAIT_CTX);
    pub fn ASYNC_WAIT_CTX_get_all_fds(ctx: *mut ASYNC_WAIT_CTX, fd: *mut c_int, count: *mut usize) -> c_int;
    pub fn ASYNC_WAIT_CTX_get_changed_fds(
        ctx: *mut ASYNC_WAIT_CTX,
        added: *mut c_int,
        added_count: *mut usize,
        deleted: *mut c_int,
        deleted_count: *mut usize,
    ) -> c_int;

    pub fn ERR_lib_error_string(code: std::ffi::c_ulong) -> *const c_char;
    pub fn ERR_reason_error_string(code: std::ffi::c_ulong) -> *const c_char;

    pub fn OSSL_LIB_CTX_load_config(ctx: *mut OSSL_LIB_CTX, file: *const c_char) -> c_int;
    pub fn OSSL_PROVIDER_get_params(provider: *const OSSL_PROVIDER, params: *mut OSSL_PARAM) -> c_int;
    pub fn OSSL_PROVIDER_query_operation(
        provider: *const OSSL_PROVIDER,
        operation: c_int,
        no_cache: *mut c_int,
    ) -> *const OSSL_ALGORITHM;
    pub fn OSSL_PROVIDER_unquery_operation(
        provider: *const OSSL_PROVIDER,
        operation: c_int,
        algorithms: *const OSSL_ALGORITHM,
    );

    pub fn EVP_CipherInit_ex2(
        ctx: *mut EVP_CIPHER_CTX,
        cipher: *const EVP_CIPHER,
        key: *const c_uchar,
        iv: *const c_uchar,
        enc: c_int,
        params: *const OSSL_PARAM,
    ) -> c_int;
    pub fn EVP_CipherFinal_ex(ctx: *mut EVP_CIPHER_CTX, out: *mut c_uchar, len: *mut c_int) -> c_int;

    pub fn EVP_PKEY_CTX_new_from_pkey(
        lib: *mut OSSL_LIB_CTX,
        key: *mut EVP_PKEY,
        properties: *const c_char,
    ) -> *mut EVP_PKEY_CTX;
    pub fn EVP_PKEY_derive_init_ex(ctx: *mut EVP_PKEY_CTX, params: *const OSSL_PARAM) -> c_int;
    pub fn EVP_PKEY_derive_set_peer_ex(ctx: *mut EVP_PKEY_CTX, peer: *mut EVP_PKEY, validate: c_int)
    -> c_int;
    pub fn EVP_PKEY_public_check_quick(ctx: *mut EVP_PKEY_CTX) -> c_int;
    pub fn EVP_PKEY_get_group_name(
        key: *const EVP_PKEY,
        name: *mut c_char,
        size: usize,
        len: *mut usize,
    ) -> c_int;
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

    pub fn d2i_AutoPrivateKey_ex(
        key: *mut *mut EVP_PKEY,
        der: *mut *const c_uchar,
        len: c_long,
        lib: *mut OSSL_LIB_CTX,
        properties: *const c_char,
    ) -> *mut EVP_PKEY;
    pub fn d2i_PUBKEY_ex(
        key: *mut *mut EVP_PKEY,
        der: *mut *const c_uchar,
        len: c_long,
        lib: *mut OSSL_LIB_CTX,
        properties: *const c_char,
    ) -> *mut EVP_PKEY;
    pub fn RAND_bytes_ex(lib: *mut OSSL_LIB_CTX, out: *mut c_uchar, len: usize, strength: u32) -> c_int;

    pub fn UI_null() -> *mut UI_METHOD;
    pub fn OSSL_STORE_open_ex(
        uri: *const c_char,
        lib: *mut OSSL_LIB_CTX,
        properties: *const c_char,
        ui: *const UI_METHOD,
        ui_data: *mut c_void,
        params: *const OSSL_PARAM,
        post: *const c_void,
        post_data: *mut c_void,
    ) -> *mut OSSL_STORE_CTX;
    pub fn OSSL_STORE_load(ctx: *mut OSSL_STORE_CTX) -> *mut OSSL_STORE_INFO;
    pub fn OSSL_STORE_eof(ctx: *mut OSSL_STORE_CTX) -> c_int;
    pub fn OSSL_STORE_close(ctx: *mut OSSL_STORE_CTX) -> c_int;
    pub fn OSSL_STORE_INFO_get_type(info: *const OSSL_STORE_INFO) -> c_int;
    pub fn OSSL_STORE_INFO_get1_PKEY(info: *const OSSL_STORE_INFO) -> *mut EVP_PKEY;
    pub fn OSSL_STORE_INFO_free(info: *mut OSSL_STORE_INFO);
}

/// `ENGINE_*`, which OpenSSL 4 does not have any more; see `engine`.
pub type EngineById = unsafe extern "C" fn(*const c_char) -> *mut ENGINE;
pub type EngineDo = unsafe extern "C" fn(*mut ENGINE) -> c_int;
pub type EngineText = unsafe extern "C" fn(*const ENGINE) -> *const c_char;
pub type EngineCommand = unsafe extern "C" fn(*mut ENGINE, *const c_char, *const c_char, c_int) -> c_int;
pub type EngineKey =
    unsafe extern "C" fn(*mut ENGINE, *const c_char, *mut UI_METHOD, *mut c_void) -> *mut EVP_PKEY;
