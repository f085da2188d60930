//! Memory that devices may write to: one mapping per pool, cut into chunks that have exactly one owner each.
//! The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// One anonymous mapping, page aligned and zeroed, unmapped when the last chunk has gone.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a Region is an address and a length; bytes are reached only through Chunks, of which no two overlap.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives no access to the bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` octets, rounded up to whole pages.
    ///
    /// # Errors
    /// What the kernel says: out of memory, or over a limit.
    pub fn map(len: usize) -> io::Result<Arc<Region>> {
        let len = len.max(1).next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Plain packets pass through here: keep them out of core dumps. A kernel that cannot is no reason to stop.
        // SAFETY: the range is the mapping made above.
        let _ = unsafe { madvise(base.as_ptr().cast::<c_void>(), len, Advice::LinuxDontDump) };
        Ok(Arc::new(Region { base, len }))
    }

    /// Address of the first octet, for a driver that maps the region for its device.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Octets.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Cuts the region into chunks of `size` octets. Takes the region's only other handle, so it can happen once.
    pub(crate) fn cut(self: Arc<Self>, size: usize) -> Vec<Chunk> {
        assert_eq!(Arc::strong_count(&self), 1, "a region is cut once, before it is shared");
        let count = self.len / size.max(1);
        (0..count).map(|i| Chunk { region: Arc::clone(&self), offset: i * size, len: size }).collect()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and len are those of mmap, and no Chunk is left, since each holds an Arc of this region.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// The only owner of `len` octets of a region.
pub(crate) struct Chunk {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

impl Chunk {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn address(&self) -> usize {
        self.region.address() + self.offset
    }

    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `cut` made offset and len lie inside the mapping and no two chunks overlap; the borrow of self
        // keeps writers out.
        unsafe { std::slice::from_raw_parts(self.region.base.as_ptr().add(self.offset), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` of the only owner makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.region.base.as_ptr().add(self.offset), self.len) }
    }
}
