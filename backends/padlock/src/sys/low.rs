//! Memory in the lowest 2 GiB, where an address has 32 bits: MONTMUL's operand block has room for no more.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};

use zeroize::Zeroize;

/// Zeroed octets at low addresses that do not move, wiped before they are given back.
pub(crate) struct Low {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: this is the only owner of plain memory.
unsafe impl Send for Low {}

impl Low {
    /// `None`: no memory there.
    pub(crate) fn map(len: usize) -> Option<Low> {
        let len = len.max(1).next_multiple_of(4096);
        #[cfg(target_arch = "x86_64")]
        let low = libc::MAP_32BIT;
        #[cfg(not(target_arch = "x86_64"))]
        let low = 0;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | low;
        // SAFETY: a fresh mapping anywhere it likes takes nothing away from anybody.
        let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let low = Low { base: NonNull::new(base.cast())?, len };
        u32::try_from(low.address() + len).ok().map(|_| low)
    }

    /// The octets.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable for this length until drop, and zeroed by the kernel.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The octets, to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` of the only owner makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// The address of an offset.
    pub(crate) fn at(&mut self, offset: usize) -> *mut u8 {
        self.bytes_mut().split_at_mut(offset).1.as_mut_ptr()
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> usize {
        self.base.addr().get()
    }

    /// Whether so many octets lie at an offset.
    pub(crate) fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// The word at an offset.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        let octets = self.bytes().get(offset..offset + 4).and_then(|octets| octets.try_into().ok());
        u32::from_le_bytes(octets.expect("a word inside"))
    }

    /// Writes the word at an offset.
    pub(crate) fn set_word(&mut self, offset: usize, word: u32) {
        self.bytes_mut()[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        // SAFETY: mapped with this length, and unmapped once, here.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
