//! The provider: what OpenSSL calls first, and the list of what there is.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use openssl_sys::OSSL_PARAM;

use super::raw::{self, OSSL_ALGORITHM, OSSL_DISPATCH};
use super::{cipher, exchange, keymgmt, mac, signature};
use crate::hardware::Hardware;
use crate::options::{NAMES, Options};

/// `OSSL_OP_*` (openssl/core_dispatch.h).
const CIPHER: c_int = 2;
const MAC: c_int = 3;
const KEYMGMT: c_int = 10;
const KEYEXCH: c_int = 11;
const SIGNATURE: c_int = 12;

/// What every algorithm is said to have.
pub(super) const PROPERTIES: &CStr = c"provider=pausing";

/// One row of a list of algorithms.
pub(super) const fn row(names: &'static CStr, functions: &'static [OSSL_DISPATCH]) -> OSSL_ALGORITHM {
    OSSL_ALGORITHM {
        names: names.as_ptr(),
        properties: PROPERTIES.as_ptr(),
        implementation: functions.as_ptr(),
        description: null(),
    }
}

/// The end of such a list.
pub(super) const LAST: OSSL_ALGORITHM =
    OSSL_ALGORITHM { names: null(), properties: null(), implementation: null(), description: null() };

/// A row of a list of functions: a number of openssl/core_dispatch.h, and a function of the type that stands there.
macro_rules! functions {
    ($($id:literal => $function:expr),* $(,)?) => {
        &[$($crate::sys::raw::OSSL_DISPATCH { id: $id, function: $function as *const std::ffi::c_void },)* $crate::sys::raw::END]
    };
}
pub(super) use functions;

/// One loaded provider.
pub(super) struct Provider {
    pub(super) hardware: Arc<Hardware>,
}

impl Provider {
    /// The one that a call is about.
    ///
    /// # Safety
    /// The pointer is what `OSSL_provider_init` gave out, and the provider is not torn down.
    pub(super) unsafe fn hardware(of: *mut c_void) -> Arc<Hardware> {
        // SAFETY: the caller's.
        Arc::clone(unsafe { &(*of.cast::<Provider>()).hardware })
    }
}

/// What OpenSSL looks for in a module.
///
/// # Safety
/// Called by OpenSSL, with what openssl/core.h says.
#[unsafe(no_mangle)]
#[allow(unreachable_pub, reason = "OpenSSL reaches it by its name")]
pub unsafe extern "C" fn OSSL_provider_init(
    handle: *const c_void,
    from: *const OSSL_DISPATCH,
    to: *mut *const OSSL_DISPATCH,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: the list from OpenSSL ends with a zero.
    let given = unsafe { parameters(handle, from) };
    let started =
        Options::new(given).and_then(|options| Hardware::start(options).map_err(|error| error.to_string()));
    let hardware = match started {
        Ok(hardware) => Arc::new(hardware),
        Err(what) => {
            // There is no other place to say it to whoever starts the program.
            eprintln!("tussock-pausing: {what}");
            return 0;
        }
    };
    let provider = Box::new(Provider { hardware });
    // SAFETY: both are places that OpenSSL reads afterwards.
    unsafe {
        *to = FUNCTIONS.as_ptr();
        *context = Box::into_raw(provider).cast();
    }
    1
}

/// The parameters in the provider's section of the configuration.
unsafe fn parameters(handle: *const c_void, mut from: *const OSSL_DISPATCH) -> [Option<String>; 2] {
    const CORE_GET_PARAMS: c_int = 2;
    type GetParams = unsafe extern "C" fn(*const c_void, *mut OSSL_PARAM) -> c_int;
    let mut given = [None, None];
    // SAFETY: the list ends with a zero; the function of that number has that type. Values are copied at once.
    unsafe {
        while (*from).id != 0 && (*from).id != CORE_GET_PARAMS {
            from = from.add(1);
        }
        if (*from).id == 0 {
            return given;
        }
        let get = std::mem::transmute::<*const c_void, GetParams>((*from).function);
        for ((name, _), given) in NAMES.iter().zip(&mut given) {
            let mut value: *const c_char = null();
            let mut params = [
                OSSL_PARAM {
                    key: name.as_ptr(),
                    data_type: raw::PARAM_UTF8_POINTER,
                    data: (&raw mut value).cast(),
                    data_size: 0,
                    return_size: raw::UNMODIFIED,
                },
                OSSL_PARAM { key: null(), data_type: 0, data: null_mut(), data_size: 0, return_size: 0 },
            ];
            if get(handle, params.as_mut_ptr()) == 1 && !value.is_null() {
                *given = Some(CStr::from_ptr(value).to_string_lossy().into_owned());
            }
        }
    }
    given
}

static FUNCTIONS: &[OSSL_DISPATCH] = functions! {
    1024 => teardown as unsafe extern "C" fn(*mut c_void),
    1026 => get_params as unsafe extern "C" fn(*mut c_void, *mut OSSL_PARAM) -> c_int,
    1027 => query as unsafe extern "C" fn(*mut c_void, c_int, *mut c_int) -> *const OSSL_ALGORITHM,
};

unsafe extern "C" fn teardown(context: *mut c_void) {
    // SAFETY: made by OSSL_provider_init, torn down once. Whatever is still in use has its own share of the hardware.
    drop(unsafe { Box::from_raw(context.cast::<Provider>()) });
}

unsafe extern "C" fn get_params(_: *mut c_void, params: *mut OSSL_PARAM) -> c_int {
    let texts = [
        (c"name", c"tussock pausing provider"),
        (c"version", c"0.1.0"),
        (c"buildinfo", c"an emulator: its hardware is a thread"),
    ];
    // SAFETY: the list ends with a null key; the texts live for ever.
    unsafe {
        for (key, text) in texts {
            let param = raw::OSSL_PARAM_locate(params, key.as_ptr());
            if !param.is_null() && raw::OSSL_PARAM_set_utf8_ptr(param, text.as_ptr()) != 1 {
                return 0;
            }
        }
        let param = raw::OSSL_PARAM_locate(params, c"status".as_ptr());
        if !param.is_null() { raw::OSSL_PARAM_set_int(param, 1) } else { 1 }
    }
}

unsafe extern "C" fn query(_: *mut c_void, operation: c_int, no_cache: *mut c_int) -> *const OSSL_ALGORITHM {
    // SAFETY: a place of OpenSSL's.
    unsafe { *no_cache = 0 };
    match operation {
        CIPHER => cipher::ALGORITHMS.as_ptr(),
        MAC => mac::ALGORITHMS.as_ptr(),
        KEYMGMT => keymgmt::ALGORITHMS.as_ptr(),
        KEYEXCH => exchange::ALGORITHMS.as_ptr(),
        SIGNATURE => signature::ALGORITHMS.as_ptr(),
        _ => null(),
    }
}
