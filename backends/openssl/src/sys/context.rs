//! A library context with providers of its own: what is loaded, fetched and configured here is nobody else's.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null, null_mut};

use openssl_sys::{self as ffi, OSSL_LIB_CTX, OSSL_PARAM, OSSL_PROVIDER};

use super::errors::{self, text};
use super::raw;

/// The library's major version.
pub(crate) fn major() -> u64 {
    // SAFETY: no pointers.
    let number = unsafe { ffi::OpenSSL_version_num() };
    number >> 28
}

/// The library by name and version, for example `OpenSSL 3.0.19`.
pub(crate) fn version() -> String {
    // SAFETY: a static string.
    let whole = text(unsafe { ffi::OpenSSL_version(0) }).unwrap_or_default();
    // What follows is the day of its release.
    whole.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Whether the library can pause jobs on this system at all.
pub(crate) fn can_pause() -> bool {
    // SAFETY: no pointers.
    unsafe { raw::ASYNC_is_capable() == 1 }
}

/// Where the library looks for providers when nobody says where.
pub(crate) fn modules_dir() -> PathBuf {
    const OPENSSL_MODULES_DIR: c_int = 8;
    if let Some(dir) = std::env::var_os("OPENSSL_MODULES") {
        return dir.into();
    }
    // SAFETY: a static string.
    let told = text(unsafe { ffi::OpenSSL_version(OPENSSL_MODULES_DIR) }).unwrap_or_default();
    // MODULESDIR: "/usr/lib/x86_64-linux-gnu/ossl-modules"
    told.split('"').nth(1).unwrap_or_default().into()
}

/// A library context and the providers in it, and the query with which algorithms are fetched. May be used by any number of
/// threads at once.
pub(crate) struct Context {
    lib: NonNull<OSSL_LIB_CTX>,
    providers: Vec<NonNull<OSSL_PROVIDER>>,
    query: CString,
}

// SAFETY: a library context and its providers have locks of their own (OSSL_LIB_CTX(3)); the query does not change once shared.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// An empty one.
    pub(crate) fn new() -> Result<Self, String> {
        // SAFETY: no pointers; null on failure.
        let lib = NonNull::new(unsafe { ffi::OSSL_LIB_CTX_new() }).ok_or_else(errors::take)?;
        Ok(Context { lib, providers: Vec::new(), query: CString::default() })
    }

    /// Reads a configuration file of OpenSSL's into it, before anything is loaded.
    pub(crate) fn configure(&mut self, file: &Path) -> Result<(), String> {
        let name = c_path(file)?;
        // SAFETY: the context is live, the name ends with a zero.
        match unsafe { raw::OSSL_LIB_CTX_load_config(self.lib.as_ptr(), name.as_ptr()) } {
            1 => Ok(()),
            _ => Err(errors::take()),
        }
    }

    /// From now on providers are looked for in this directory.
    pub(crate) fn look_in(&mut self, dir: &Path) -> Result<(), String> {
        let dir = c_path(dir)?;
        // SAFETY: as above; the string is copied.
        match unsafe { ffi::OSSL_PROVIDER_set_default_search_path(self.lib.as_ptr(), dir.as_ptr()) } {
            1 => Ok(()),
            _ => Err(errors::take()),
        }
    }

    /// Loads a provider by its name; the index is for [`about`](Context::about) and its like.
    pub(crate) fn load(&mut self, name: &str) -> Result<usize, String> {
        let name = CString::new(name).map_err(|_| "a name has no zero octet".to_owned())?;
        errors::clear();
        // SAFETY: the context is live, the name ends with a zero.
        let provider = unsafe { ffi::OSSL_PROVIDER_load(self.lib.as_ptr(), name.as_ptr()) };
        let provider = NonNull::new(provider).ok_or_else(errors::take)?;
        errors::clear();
        self.providers.push(provider);
        Ok(self.providers.len() - 1)
    }

    /// With which properties algorithms are fetched from now on; none: whatever there is.
    pub(crate) fn set_query(&mut self, query: &str) -> Result<(), String> {
        self.query = CString::new(query).map_err(|_| "a query has no zero octet".to_owned())?;
        Ok(())
    }

    /// Name and version as a provider tells them.
    pub(crate) fn about(&self, provider: usize) -> (String, String) {
        let ask = |key: &CStr| {
            let mut told: *const c_char = null();
            let mut params = [
                OSSL_PARAM {
                    key: key.as_ptr(),
                    data_type: raw::PARAM_UTF8_POINTER,
                    data: (&raw mut told).cast(),
                    data_size: 0,
                    return_size: raw::UNMODIFIED,
                },
                OSSL_PARAM { key: null(), data_type: 0, data: null_mut(), data_size: 0, return_size: 0 },
            ];
            let provider = self.providers.get(provider)?.as_ptr();
            // SAFETY: the provider is live; the list has its end, and the place for a pointer to a string of the provider's own
            // is live as long as the call.
            let ok = unsafe { raw::OSSL_PROVIDER_get_params(provider, params.as_mut_ptr()) };
            text(told).filter(|_| ok == 1)
        };
        (ask(c"name").unwrap_or_default(), ask(c"version").unwrap_or_default())
    }

    /// The different properties that a provider's algorithms are said to have.
    pub(crate) fn properties(&self, provider: usize) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let Some(provider) = self.providers.get(provider) else { return all };
        for operation in raw::OPERATIONS {
            let mut no_cache = 0;
            // SAFETY: the provider is live. The answer is null or a list that ends with a null name, and lives until it is
            // given back below.
            unsafe {
                let list = raw::OSSL_PROVIDER_query_operation(provider.as_ptr(), operation, &mut no_cache);
                let mut at = list;
                while !at.is_null() && !(*at).names.is_null() {
                    all.extend(text((*at).properties));
                    at = at.add(1);
                }
                if !list.is_null() {
                    raw::OSSL_PROVIDER_unquery_operation(provider.as_ptr(), operation, list);
                }
            }
        }
        all.sort();
        all.dedup();
        all
    }

    /// Random octets of the context's own generator; false: it has none, or it fails.
    pub(crate) fn random(&self, out: &mut [u8]) -> bool {
        // SAFETY: the context is live, out has the octets announced.
        let ok = unsafe { raw::RAND_bytes_ex(self.lib.as_ptr(), out.as_mut_ptr(), out.len(), 0) } == 1;
        if !ok {
            errors::clear();
        }
        ok
    }

    pub(super) fn lib(&self) -> *mut OSSL_LIB_CTX {
        self.lib.as_ptr()
    }

    /// The query; null where there is none.
    pub(super) fn query(&self) -> *const c_char {
        if self.query.is_empty() { null() } else { self.query.as_ptr() }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        for provider in self.providers.drain(..).rev() {
            // SAFETY: each was loaded once, and is let go once; whatever was fetched from it holds it in its own right.
            unsafe { ffi::OSSL_PROVIDER_unload(provider.as_ptr()) };
        }
        // SAFETY: made by new, freed once; everything that uses it holds an Arc of this value.
        unsafe { ffi::OSSL_LIB_CTX_free(self.lib.as_ptr()) }
    }
}

fn c_path(path: &Path) -> Result<CString, String> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "a path has no zero octet".to_owned())
}
