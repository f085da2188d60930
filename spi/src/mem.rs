//! Memory that devices may write to: one mapping per pool, cut into chunks that have exactly one owner each.
//! The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// What a device wants of memory it is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Pages of 2 MiB, where the system has some set aside: an IOMMU then keeps a pool in a handful of translations.
    HugePages = 1,
    /// A file behind the memory, for a device in another process, which maps it too.
    File = 2,
}

static WISHES: AtomicU8 = AtomicU8::new(0);

/// Grants a wish for every region that is mapped from now on, in the whole process. Drivers ask when they have found a device,
/// which is before pools are made. Wishes only ever add up; pages of 2 MiB are used where there are any, and nothing fails
/// for want of them.
pub fn grant(wish: Wish) {
    WISHES.fetch_or(wish as u8, Ordering::Relaxed);
}

fn granted(wish: Wish) -> bool {
    WISHES.load(Ordering::Relaxed) & wish as u8 != 0
}

/// Octets of a small page and of a huge one.
const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// One mapping, page aligned and zeroed, unmapped when the last chunk has gone. Anonymous, unless a device wished for more.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    page: usize,
    file: Option<OwnedFd>,
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
        let huge = granted(Wish::HugePages);
        // Rounding a small region up to a huge page would waste most of it.
        let region = match huge && len > HUGE_PAGE / 2 {
            true => Self::of_file(len, HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).ok(),
            false => None,
        };
        let region = match region {
            Some(region) => region,
            None if granted(Wish::File) => Self::of_file(len, PAGE, MemfdFlags::empty())?,
            None => Self::anonymous(len)?,
        };
        if huge && region.file.is_none() {
            // None were set aside: the kernel may still put some together.
            region.advise(Advice::LinuxHugepage);
        }
        // Plain packets pass through here: keep them out of core dumps. A kernel that cannot is no reason to stop.
        region.advise(Advice::LinuxDontDump);
        Ok(Arc::new(region))
    }

    fn anonymous(len: usize) -> io::Result<Region> {
        let len = len.max(1).next_multiple_of(PAGE);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { base, len, page: PAGE, file: None })
    }

    fn of_file(len: usize, page: usize, flags: MemfdFlags) -> io::Result<Region> {
        let len = len.max(1).next_multiple_of(page);
        let file = memfd_create("tussock-packets", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)?;
        ftruncate(&file, len as u64)?;
        // A process that is given the file must not take the memory away under us.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // Huge pages are reserved here: there are enough, or this fails, and no later touch finds none.
        // SAFETY: a fresh mapping of a file nobody else has, at an address of the kernel's choice, aliases nothing. Who is given
        // the file is a device, by the rules of Device::register.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { base, len, page, file: Some(file) })
    }

    fn advise(&self, advice: Advice) {
        // SAFETY: the range is the mapping of this region; no advice given here changes what it holds.
        let _ = unsafe { madvise(self.base.as_ptr().cast::<c_void>(), self.len, advice) };
    }

    /// Address of the first octet, for a driver that maps the region for its device.
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// The file behind the memory, which begins at its first octet; `None` unless somebody wished for one or for huge pages.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Octets of the pages it is certainly made of.
    pub fn page_len(&self) -> usize {
        self.page
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
    fn a_wish_for_a_file_is_granted_and_one_for_huge_pages_never_fails() {
        assert!(Region::anonymous(5000).unwrap().file().is_none());
        let region = Region::of_file(5000, PAGE, MemfdFlags::empty()).unwrap();
        assert_eq!((region.len(), region.page_len()), (8192, PAGE));
        let mut chunks = Arc::new(region).cut(64);
        chunks[1].bytes_mut().fill(7);
        let mut seen = [0; 65];
        let file = chunks[0].region().file().unwrap();
        assert_eq!(rustix::io::pread(file, &mut seen, 64).unwrap(), 65, "the file is as long as the region");
        assert!(ftruncate(file, 0).is_err(), "whoever has the file can take the memory away");
        assert!(seen[..64].iter().all(|octet| *octet == 7) && seen[64] == 0);
        grant(Wish::HugePages);
        grant(Wish::File);
        let region = Region::map(HUGE_PAGE + 1).unwrap();
        assert!(
            region.file().is_some()
                && region.len() > HUGE_PAGE
                && region.len().is_multiple_of(region.page_len())
        );
        assert_eq!(Region::map(64).unwrap().page_len(), PAGE, "a huge page for a few octets");
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
