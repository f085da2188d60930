//! Memory shared with somebody who writes to it whenever he likes. The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A file in our address space, from its beginning. Its owner has promised (by a seal) not to make it shorter.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: u64,
}

// SAFETY: a Mapping is an address and a length; its octets are reached only through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file; for reading alone if it was opened so.
    pub(crate) fn new(fd: &OwnedFd, len: u64) -> Option<Mapping> {
        let size = usize::try_from(len).ok().filter(|size| *size > 0)?;
        let try_with = |protection| {
            // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
            unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, fd, 0) }
        };
        // Without the right to write, writes must not reach the mapping; so there is no mapping then.
        let base = try_with(ProtFlags::READ | ProtFlags::WRITE).ok()?;
        Some(Mapping { base: NonNull::new(base.cast())?, len })
    }

    /// Octets.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Copies from the mapping; nothing if the range is not inside.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        let from = self.inside(at, into.len())?;
        let mut done = 0;
        while done < into.len() {
            // SAFETY: `done` is below the length that `inside` has checked.
            let here = unsafe { from.add(done) };
            if into.len() - done >= 8 && here.align_offset(8) == 0 {
                // SAFETY: aligned, and eight octets are inside; they are shared, hence the atomic.
                let word = unsafe { AtomicU64::from_ptr(here.cast()) }.load(Ordering::Relaxed);
                into.get_mut(done..done + 8)?.copy_from_slice(&word.to_ne_bytes());
                done += 8;
            } else {
                // SAFETY: one octet, inside; shared, hence the atomic.
                *into.get_mut(done)? = unsafe { AtomicU8::from_ptr(here) }.load(Ordering::Relaxed);
                done += 1;
            }
        }
        // What is read through a pointer found in memory must not be older than the pointer.
        std::sync::atomic::fence(Ordering::Acquire);
        Some(())
    }

    /// Copies into the mapping; nothing if the range is not inside.
    pub(crate) fn write(&self, at: u64, from: &[u8]) -> Option<()> {
        let to = self.inside(at, from.len())?;
        let mut rest = from;
        let mut done = 0;
        while !rest.is_empty() {
            // SAFETY: `done` is below the length that `inside` has checked.
            let here = unsafe { to.add(done) };
            match rest.split_first_chunk::<8>() {
                Some((word, left)) if here.align_offset(8) == 0 => {
                    // SAFETY: aligned, and eight octets are inside; they are shared, hence the atomic.
                    unsafe { AtomicU64::from_ptr(here.cast()) }
                        .store(u64::from_ne_bytes(*word), Ordering::Relaxed);
                    rest = left;
                    done += 8;
                }
                _ => {
                    let (octet, left) = rest.split_first()?;
                    // SAFETY: one octet, inside; shared, hence the atomic.
                    unsafe { AtomicU8::from_ptr(here) }.store(*octet, Ordering::Relaxed);
                    rest = left;
                    done += 1;
                }
            }
        }
        Some(())
    }

    /// Stores four octets after everything that was written before; in one piece if they are aligned.
    pub(crate) fn store_release(&self, at: u64, flag: &[u8]) -> Option<()> {
        let to = self.inside(at, 4)?;
        std::sync::atomic::fence(Ordering::Release);
        if to.align_offset(4) != 0 {
            return self.write(at, flag);
        }
        let word = u32::from_ne_bytes(*flag.first_chunk()?);
        // SAFETY: aligned, and four octets are inside; they are shared, hence the atomic.
        unsafe { AtomicU32::from_ptr(to.cast()) }.store(word, Ordering::Release);
        Some(())
    }

    fn inside(&self, at: u64, len: usize) -> Option<*mut u8> {
        if at.checked_add(len as u64)? > self.len {
            return None;
        }
        // SAFETY: the offset is within the mapping, or just behind its end.
        Some(unsafe { self.base.as_ptr().add(usize::try_from(at).ok()?) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of mmap, and nobody borrows from a Mapping.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}
