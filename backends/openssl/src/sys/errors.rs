//! What OpenSSL says went wrong.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

use openssl_sys as ffi;

use super::raw;

/// Errors that are told; the first ones are the causes.
const MOST: usize = 4;

/// Empties the thread's queue of errors and says what was in it, causes first.
pub(crate) fn take() -> String {
    let mut told: Vec<String> = Vec::new();
    loop {
        let (mut data, mut flags): (*const c_char, _) = (null_mut(), 0);
        // SAFETY: places that are not null are live; what is put into `data` stays valid until the queue is touched again.
        let code =
            unsafe { ffi::ERR_get_error_all(null_mut(), null_mut(), null_mut(), &mut data, &mut flags) };
        if code == 0 {
            break;
        }
        // SAFETY: static strings, or null.
        let (lib, reason) = unsafe { (raw::ERR_lib_error_string(code), raw::ERR_reason_error_string(code)) };
        let parts = [text(lib), text(reason), text(data)];
        let line: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let line = line.join(": ");
        if !line.is_empty() && !told.contains(&line) && told.len() < MOST {
            told.push(line);
        }
    }
    match told.is_empty() {
        true => "OpenSSL gives no reason".to_owned(),
        false => told.join("; "),
    }
}

/// Forgets what is in the queue: what was tried may fail, and did.
pub(crate) fn clear() {
    // SAFETY: touches only the thread's own queue.
    unsafe { ffi::ERR_clear_error() }
}

/// A copy of a C string that may be missing; never longer than a line.
pub(super) fn text(from: *const c_char) -> Option<String> {
    if from.is_null() {
        return None;
    }
    // SAFETY: the library's strings end with a zero.
    let text = unsafe { CStr::from_ptr(from) }.to_string_lossy();
    Some(text.chars().filter(|c| !c.is_control()).take(300).collect())
}
