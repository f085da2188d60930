//! Memory that devices may write to: one mapping per pool, cut into chunks that have exactly one owner each.
//! The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

/// Places for a fixed number of things, last in first out, for any number of threads and without a lock. Last in first out
/// because what was used a moment ago is still in the cache, and because memory that is never needed is then never touched.
///
/// Who takes a thing gets its place's number too, and brings it back there.
pub(crate) struct Shelf<T> {
    /// Number of the place on top, and above it a count of changes: a place that was taken and brought back in between is
    /// then not mistaken for one that never moved.
    top: AtomicU64,
    below: Box<[AtomicU32]>,
    places: Box<[UnsafeCell<Option<T>>]>,
    there: AtomicU64,
}

/// No place.
const NONE: u32 = u32::MAX;

// SAFETY: a place is touched only by whoever took its number off the stack or has not put it back yet, one thread at a time;
// the compare-and-exchange that passes the number on orders the accesses.
unsafe impl<T: Send> Sync for Shelf<T> {}

impl<T> Shelf<T> {
    pub(crate) fn new(things: Vec<T>) -> Self {
        let count = things.len();
        let below = (0..count as u32).map(|place| AtomicU32::new(place.checked_sub(1).unwrap_or(NONE)));
        Shelf {
            top: AtomicU64::new((count as u32).checked_sub(1).unwrap_or(NONE).into()),
            below: below.collect(),
            places: things.into_iter().map(|thing| UnsafeCell::new(Some(thing))).collect(),
            there: AtomicU64::new(count as u64),
        }
    }

    pub(crate) fn take(&self) -> Option<(u32, T)> {
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            let place = top as u32;
            let below = self.below.get(place as usize)?.load(Ordering::Relaxed);
            let new = changed(top, below);
            match self.top.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.there.fetch_sub(1, Ordering::Relaxed);
                    // SAFETY: the number is off the stack and ours alone until `give` puts it back.
                    let thing = unsafe { &mut *self.places[place as usize].get() }.take();
                    return thing.map(|thing| (place, thing));
                }
                Err(now) => top = now,
            }
        }
    }

    /// Brings back what [`take`](Shelf::take) gave, to its place.
    pub(crate) fn give(&self, place: u32, thing: T) {
        // SAFETY: the caller holds what was taken from this place, so its number is off the stack and nobody else's.
        unsafe { *self.places[place as usize].get() = Some(thing) };
        let mut top = self.top.load(Ordering::Acquire);
        loop {
            self.below[place as usize].store(top as u32, Ordering::Relaxed);
            let new = changed(top, place);
            match self.top.compare_exchange_weak(top, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => top = now,
            }
        }
        self.there.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are there, give or take those being moved.
    pub(crate) fn len(&self) -> usize {
        self.there.load(Ordering::Relaxed) as usize
    }
}

fn changed(top: u64, place: u32) -> u64 {
    ((top >> 32).wrapping_add(1) << 32) | u64::from(place)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_brought_back_is_the_first_to_be_taken() {
        let shelf = Shelf::new(vec!['a', 'b', 'c']);
        let (place, thing) = shelf.take().unwrap();
        assert_eq!((thing, shelf.len()), ('c', 2));
        let (other, _) = shelf.take().unwrap();
        shelf.give(place, 'x');
        shelf.give(other, 'y');
        let all: Vec<char> = std::iter::from_fn(|| shelf.take()).map(|(_, thing)| thing).collect();
        assert_eq!(all, ['y', 'x', 'a']);
        assert!(shelf.take().is_none() && shelf.len() == 0);
        assert!(Shelf::<u8>::new(vec![]).take().is_none());
    }

    #[test]
    fn no_two_threads_hold_one_thing() {
        let things: Vec<Box<u64>> = (0..8).map(|_| Box::new(0)).collect();
        let (shelf, count) = (Shelf::new(things), AtomicU64::new(0));
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..20_000 {
                        let held: Vec<_> = (0..3).filter_map(|_| shelf.take()).collect();
                        for (place, mut thing) in held {
                            *thing += 1;
                            count.fetch_add(1, Ordering::Relaxed);
                            shelf.give(place, thing);
                        }
                    }
                });
            }
        });
        let all: Vec<_> = std::iter::from_fn(|| shelf.take()).collect();
        assert_eq!(all.len(), 8);
        let sum: u64 = all.iter().map(|(_, thing)| **thing).sum();
        assert_eq!(sum, count.load(Ordering::Relaxed), "an addition was lost");
    }
}
