//! Memory of the driver's own that the device reads and writes at any time: rings, content descriptors, operands.
//!
//! No reference to its octets is ever made. Everything goes through copies, and the word that says whether a response is there
//! through an atomic.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::pci::Memory;

/// Octets of a small and of a huge page.
pub(crate) const PAGE: usize = 4096;
pub(crate) const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// One mapping, zeroed, with a file behind it.
pub(crate) struct Block {
    base: NonNull<u8>,
    len: usize,
    page: usize,
    file: OwnedFd,
}

// SAFETY: a Block is an address and a length; its octets are reached through raw pointers only, and no method gives out a
// reference. Whoever shares a Block between threads orders the accesses with locks of their own.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// Maps `len` octets, in huge pages where the system has some to spare.
    ///
    /// # Errors
    /// What the kernel says when it has no memory.
    pub(crate) fn map(len: usize) -> io::Result<Arc<Block>> {
        let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        // A huge page for a few octets would be a waste.
        let block = match len > HUGE_PAGE / 8 {
            true => Self::of(len, HUGE_PAGE, huge).or_else(|_| Self::of(len, PAGE, MemfdFlags::empty())),
            false => Self::of(len, PAGE, MemfdFlags::empty()),
        };
        block.map(Arc::new)
    }

    fn of(len: usize, page: usize, flags: MemfdFlags) -> io::Result<Block> {
        let len = len.max(1).next_multiple_of(page);
        let file = memfd_create("tussock-qat", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)?;
        ftruncate(&file, len as u64)?;
        // A server that is given the file must not take the memory away under us.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping of a file of our own, at an address of the kernel's choice, aliases nothing.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Keys pass through here: keep them out of core dumps. A kernel that cannot is no reason to stop.
        // SAFETY: the range is the mapping made above.
        let _ = unsafe { madvise(base.as_ptr().cast(), len, Advice::LinuxDontDump) };
        Ok(Block { base, len, page, file })
    }

    /// Octets.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Octets of its pages.
    pub(crate) fn page_len(&self) -> usize {
        self.page
    }

    /// What a function is to map.
    pub(crate) fn memory(&self) -> Memory<'_> {
        Memory { address: self.base.as_ptr() as usize, len: self.len, file: Some(self.file.as_fd()) }
    }

    fn place(&self, at: usize, len: usize) -> NonNull<u8> {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "offsets into own memory are the driver's own");
        // SAFETY: `at` is no larger than the length, so the result is in the mapping or just behind it.
        unsafe { self.base.add(at) }
    }

    /// Copies octets in.
    pub(crate) fn copy_in(&self, at: usize, octets: &[u8]) {
        let to = self.place(at, octets.len());
        // SAFETY: `place` checked the range; a slice never overlaps this mapping, of which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(octets.as_ptr(), to.as_ptr(), octets.len()) }
    }

    /// Copies octets out.
    pub(crate) fn copy_out(&self, at: usize, octets: &mut [u8]) {
        let from = self.place(at, octets.len());
        // SAFETY: as in `copy_in`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), octets.as_mut_ptr(), octets.len()) }
    }

    /// Fills octets; never left out by the optimiser, so it also wipes keys.
    pub(crate) fn fill(&self, at: usize, len: usize, octet: u8) {
        let to = self.place(at, len);
        // SAFETY: `place` checked the range.
        unsafe { std::ptr::write_bytes(to.as_ptr(), octet, len) };
        // Whatever the device or a later reader sees comes after the fill.
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        let at = self.place(at, 4).cast::<u32>();
        assert!(at.is_aligned(), "words lie on multiples of four");
        // SAFETY: in range and aligned; all accesses to such words of ours are through atomics or happen while the device has
        // nothing to do with them, and the mapping lives as long as the borrow of self.
        unsafe { AtomicU32::from_ptr(at.as_ptr()) }
    }

    /// A word the device writes, and with it everything it wrote before.
    pub(crate) fn load(&self, at: usize) -> u32 {
        u32::from_le(self.word(at).load(Ordering::Acquire))
    }

    /// Writes a word the device may overwrite later.
    pub(crate) fn store(&self, at: usize, value: u32) {
        self.word(at).store(value.to_le(), Ordering::Relaxed);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: base and len are those of mmap, and no pointer into the mapping outlives a call of a method.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_and_words_are_where_they_were_put() {
        let block = Block::map(100).unwrap();
        assert!(block.len() >= PAGE && block.memory().len == block.len());
        block.copy_in(8, &[1, 2, 3, 4, 5]);
        assert_eq!(block.load(8), 0x0403_0201);
        block.store(12, 0xa0b0_c0d0);
        let mut out = [0; 8];
        block.copy_out(8, &mut out);
        assert_eq!(out, [1, 2, 3, 4, 0xd0, 0xc0, 0xb0, 0xa0]);
        block.fill(8, 8, 0);
        assert_eq!((block.load(8), block.load(12)), (0, 0));
    }

    #[test]
    #[should_panic(expected = "driver's own")]
    fn nothing_outside_is_touched() {
        let block = Block::map(1).unwrap();
        block.copy_in(block.len() - 1, &[1, 2]);
    }
}
