//! Memory that is locked by its addresses. The only file of the sandbox with unsafe code.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ops::Range;

use rustix::mm::{MlockFlags, mlock_with};

/// Keeps these addresses out of the swap: what is there now, and what comes there.
pub(super) fn lock(range: &Range<usize>) -> io::Result<()> {
    let at = std::ptr::with_exposed_provenance_mut::<c_void>(range.start);
    // SAFETY: nothing is read or written; of addresses that are not there the kernel says so.
    Ok(unsafe { mlock_with(at, range.len(), MlockFlags::ONFAULT) }?)
}
