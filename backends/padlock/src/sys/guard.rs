//! For tests: memory behind which there is none.
#![allow(unsafe_code)]

use std::ptr::null_mut;

const PAGE: usize = 4096;

/// Some pages, and one behind them that cannot be touched.
pub(crate) struct Guarded {
    base: *mut u8,
    len: usize,
}

impl Guarded {
    pub(crate) fn new(pages: usize) -> Guarded {
        let len = pages * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping anywhere it likes, of pages that cannot be touched.
        let base = unsafe { libc::mmap(null_mut(), len + PAGE, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: all but the last page of that mapping.
        assert_eq!(unsafe { libc::mprotect(base, len, libc::PROT_READ | libc::PROT_WRITE) }, 0);
        Guarded { base: base.cast(), len }
    }

    /// What can be touched.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped and writable until drop, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and unmapped once, here.
        unsafe { libc::munmap(self.base.cast(), self.len + PAGE) };
    }
}
