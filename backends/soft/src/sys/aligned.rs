//! Memory for what ipsec-mb lays out: as long as it says, on a cache line, wiped before it is given back.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::NonNull;

/// What the library wants every structure aligned to.
const LINE: usize = 64;
/// What the allocator aligns to by itself. Asked for more, it leaves holes that are longer than the rest of a line.
const GIVEN: usize = 16;

/// Zeroed octets that begin on a cache line and do not move.
pub(crate) struct Aligned {
    /// As it was allocated; the octets begin at the first line.
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: this is the only owner of plain memory.
unsafe impl Send for Aligned {}
// SAFETY: `&Aligned` gives no way to write.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// `None`: no memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        // SAFETY: the layout has a size that is not zero, since it has room to align.
        let base = NonNull::new(unsafe { alloc_zeroed(Self::layout(len)?) })?;
        Some(Aligned { base, len })
    }

    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.start().cast_const().cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut c_void {
        self.start().cast()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the octets are ours and were initialised when they were allocated.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` of the only owner makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.len) }
    }

    /// Overwrites all octets with zeroes.
    pub(crate) fn wipe(&mut self) {
        // SAFETY: the octets are ours alone.
        unsafe { aws_lc_sys::OPENSSL_cleanse(self.as_mut_ptr(), self.len) };
    }

    fn start(&self) -> *mut u8 {
        let skip = self.base.addr().get().wrapping_neg() % LINE;
        // SAFETY: less than a line is skipped, and of a base on 16 octets no more than the room that `layout` adds.
        unsafe { self.base.as_ptr().add(skip) }
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(LINE - GIVEN)?, GIVEN).ok()
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        self.wipe();
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated with this very layout, and freed once, here.
            unsafe { dealloc(self.base.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Aligned;

    #[test]
    fn memory_begins_on_a_line_and_is_zeroed() {
        for len in [0, 1, 63, 64, 1008, 200_744] {
            let mut block = Aligned::new(len).unwrap();
            assert_eq!(block.as_ptr() as usize % 64, 0);
            assert!(block.bytes().len() == len && block.bytes().iter().all(|octet| *octet == 0));
            block.bytes_mut().fill(7);
        }
    }
}
