//! Which memory the device reaches, and where: addresses of its own are given out here, packet pools and the driver's blocks are
//! mapped at them, and addresses of this process are translated.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spi::Region;

use crate::pci::{Memory, PciError, PciFunction};
use crate::sys::mem::{Block, HUGE_PAGE};

/// Addresses below this are not given out: zero means "none" to the device.
const LEAST: u64 = 1 << 20;
/// Nor above this, which every IOMMU in use can translate.
const MOST: u64 = (1 << 39) - 1;
/// Nor these, where a write is an interrupt and not a write (Intel SDM volume 3, "Message Signalled Interrupts").
const INTERRUPTS: RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// A stretch of this process's memory, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    end: usize,
    iova: u64,
}

/// A copy of all windows, for one thread to translate with.
#[derive(Clone, Default)]
pub(crate) struct Windows {
    version: u64,
    all: Arc<[Window]>,
    last: usize,
}

impl Windows {
    /// The device's address of `len` octets, if it reaches all of them.
    pub(crate) fn find(&mut self, address: usize, len: usize) -> Option<u64> {
        let fits = |window: &Window| {
            window.start <= address && address.checked_add(len).is_some_and(|end| end <= window.end)
        };
        // Neighbouring bursts are mostly of one pool.
        if !self.all.get(self.last).is_some_and(fits) {
            self.last = self.all.iter().position(fits)?;
        }
        let window = self.all.get(self.last)?;
        Some(window.iova + (address - window.start) as u64)
    }
}

/// The device's address space.
pub(crate) struct Space {
    function: Arc<dyn PciFunction>,
    ranges: Vec<RangeInclusive<u64>>,
    page: u64,
    mapped: Mutex<BTreeMap<u64, Mapping>>,
    version: AtomicU64,
}

/// What keeps the memory alive as long as the device reaches it.
enum Memories {
    Region(Arc<Region>),
    Block(Arc<Block>),
}

struct Mapping {
    len: u64,
    what: Memories,
    /// The device reaches it now.
    live: bool,
}

impl Memories {
    fn memory(&self) -> Memory<'_> {
        match self {
            Memories::Region(region) => {
                Memory { address: region.address(), len: region.len(), file: region.file() }
            }
            Memories::Block(block) => block.memory(),
        }
    }
}

impl Space {
    pub(crate) fn new(function: Arc<dyn PciFunction>) -> Self {
        let mut ranges = Vec::new();
        for range in function.iovas() {
            // The hole for interrupts may be in the middle of what the other side offers.
            for part in [LEAST..=INTERRUPTS.start() - 1, INTERRUPTS.end() + 1..=MOST] {
                let (start, end) = ((*range.start()).max(*part.start()), (*range.end()).min(*part.end()));
                if start < end {
                    ranges.push(start..=end);
                }
            }
        }
        // The upper ones first: those below 4 GiB are better left to whoever needs them.
        ranges.sort_by_key(|range| std::cmp::Reverse(*range.start()));
        let page = function.page_len() as u64;
        Space { function, ranges, page, mapped: Mutex::default(), version: AtomicU64::new(1) }
    }

    /// Maps a pool, once.
    ///
    /// # Errors
    /// [`PciError`]: no memory may be locked, no address is free, or the other side says no.
    pub(crate) fn register(&self, region: &Arc<Region>) -> Result<(), PciError> {
        let mut mapped = self.lock();
        self.sweep(&mut mapped);
        let same = |mapping: &Mapping| match &mapping.what {
            Memories::Region(known) => Arc::ptr_eq(known, region),
            Memories::Block(_) => false,
        };
        if mapped.values().any(same) {
            return Ok(());
        }
        self.map(&mut mapped, region.page_len(), Memories::Region(Arc::clone(region)))?;
        Ok(())
    }

    /// Memory of the driver's own, zeroed, and the device's address of it: a multiple of `align`, which is a power of two.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn block(&self, len: usize, align: usize) -> Result<(Arc<Block>, u64), PciError> {
        let block =
            Block::map(len).map_err(|cause| PciError::refused("memory for rings and descriptors", cause))?;
        let mut mapped = self.lock();
        let what = Memories::Block(Arc::clone(&block));
        let iova = self.map(&mut mapped, block.page_len().max(align), what)?;
        Ok((block, iova))
    }

    fn map(
        &self,
        mapped: &mut BTreeMap<u64, Mapping>,
        align: usize,
        what: Memories,
    ) -> Result<u64, PciError> {
        let memory = what.memory();
        let align = self.page.max(align as u64);
        let len = memory.len as u64;
        if !len.is_multiple_of(self.page) || !(memory.address as u64).is_multiple_of(self.page) {
            return Err(PciError::Protocol(format!("the IOMMU maps pages of {} octets only", self.page)));
        }
        // Large pieces begin where a large translation can.
        let align = if len >= HUGE_PAGE as u64 { align.max(HUGE_PAGE as u64) } else { align };
        let iova = self.free(mapped, len, align).ok_or_else(|| {
            PciError::Unusable(
                "no addresses are left for the device: too many or too large packet pools".into(),
            )
        })?;
        self.function.map(iova, &memory)?;
        mapped.insert(iova, Mapping { len, what, live: true });
        self.version.fetch_add(1, Ordering::Release);
        Ok(iova)
    }

    /// The first free stretch, from below in each range.
    fn free(&self, mapped: &BTreeMap<u64, Mapping>, len: u64, align: u64) -> Option<u64> {
        for range in &self.ranges {
            let mut at = range.start().checked_next_multiple_of(align)?;
            for (iova, mapping) in mapped.range(..=*range.end()) {
                let end = iova + mapping.len;
                if end > at && *iova < at.saturating_add(len) {
                    at = end.checked_next_multiple_of(align)?;
                }
            }
            if at.checked_add(len - 1).is_some_and(|last| last <= *range.end()) {
                return Some(at);
            }
        }
        None
    }

    /// Takes back pools that nobody but this list knows any more: no buffer of theirs is anywhere.
    fn sweep(&self, mapped: &mut BTreeMap<u64, Mapping>) {
        let unused = |mapping: &Mapping| match &mapping.what {
            Memories::Region(region) => Arc::strong_count(region) == 1,
            Memories::Block(_) => false,
        };
        let gone: Vec<u64> =
            mapped.iter().filter(|(_, mapping)| unused(mapping)).map(|(iova, _)| *iova).collect();
        for iova in gone {
            let Some(mapping) = mapped.get(&iova) else { continue };
            if !mapping.live || self.function.unmap(iova, mapping.len as usize).is_ok() {
                mapped.remove(&iova);
                self.version.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Takes everything back until [`restore`](Space::restore).
    ///
    /// # Errors
    /// The first [`PciError`]: the device may still reach what could not be taken back.
    pub(crate) fn suspend(&self) -> Result<(), PciError> {
        let mut result = Ok(());
        for (iova, mapping) in self.lock().iter_mut().filter(|(_, mapping)| mapping.live) {
            match self.function.unmap(*iova, mapping.len as usize) {
                Ok(()) => mapping.live = false,
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Gives back what was taken, at the same addresses.
    ///
    /// # Errors
    /// [`PciError`] when it cannot be mapped any more.
    pub(crate) fn restore(&self) -> Result<(), PciError> {
        for (iova, mapping) in self.lock().iter_mut().filter(|(_, mapping)| !mapping.live) {
            self.function.map(*iova, &mapping.what.memory())?;
            mapping.live = true;
        }
        Ok(())
    }

    /// Takes everything back for good. What could not be taken back is leaked: the device may still write to it.
    ///
    /// # Errors
    /// The first [`PciError`].
    pub(crate) fn clear(&self) -> Result<(), PciError> {
        let mut mapped = self.lock();
        let mut result = Ok(());
        for (iova, mapping) in std::mem::take(&mut *mapped) {
            if !mapping.live {
                continue;
            }
            if let Err(error) = self.function.unmap(iova, mapping.len as usize) {
                std::mem::forget(mapping.what);
                result = result.and(Err(error));
            }
        }
        self.version.fetch_add(1, Ordering::Release);
        result
    }

    /// Brings a thread's copy up to date.
    pub(crate) fn refresh(&self, windows: &mut Windows) {
        if windows.version == self.version.load(Ordering::Acquire) {
            return;
        }
        let mapped = self.lock();
        let regions = mapped.iter().filter_map(|(iova, mapping)| match &mapping.what {
            Memories::Region(region) => {
                let start = region.address();
                Some(Window { start, end: start + region.len(), iova: *iova })
            }
            Memories::Block(_) => None,
        });
        windows.all = regions.collect();
        windows.version = self.version.load(Ordering::Acquire);
        windows.last = 0;
    }

    /// Octets the device reaches.
    pub(crate) fn reach(&self) -> u64 {
        self.lock().values().map(|mapping| mapping.len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Mapping>> {
        // The map changes in single steps.
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn space(ranges: Vec<RangeInclusive<u64>>) -> (Arc<Fake>, Space) {
        let fake = Arc::new(Fake { ranges, ..Fake::default() });
        let space = Space::new(Arc::clone(&fake) as Arc<dyn PciFunction>);
        (fake, space)
    }

    #[test]
    fn pools_are_mapped_once_translated_and_taken_back_when_they_are_gone() {
        let (fake, space) = space(vec![0..=u64::MAX]);
        let mut windows = Windows::default();
        let pool = spi::Pool::new(2048, 8).unwrap();
        space.refresh(&mut windows);
        assert_eq!(windows.find(pool.region().address(), 1), None, "unknown memory has an address");
        space.register(pool.region()).unwrap();
        space.register(pool.region()).unwrap();
        assert_eq!(fake.maps().len(), 1, "mapped twice");
        space.refresh(&mut windows);
        let (at, iova) = (pool.region().address(), fake.maps()[0].0);
        assert_eq!(windows.find(at, pool.region().len()), Some(iova));
        assert_eq!(windows.find(at + 100, 1), Some(iova + 100));
        assert_eq!(windows.find(at + 100, pool.region().len()), None, "the end is outside");
        assert_eq!(windows.find(at, usize::MAX), None);
        assert_eq!(space.reach(), pool.region().len() as u64);
        drop(pool);
        let other = spi::Pool::new(2048, 8).unwrap();
        space.register(other.region()).unwrap();
        assert_eq!(fake.maps().len(), 1, "a pool that is gone stays mapped");
        space.refresh(&mut windows);
        assert!(windows.find(other.region().address(), 1).is_some());
    }

    #[test]
    fn addresses_do_not_overlap_and_keep_out_of_the_holes() {
        let (fake, space) = space(vec![0..=0xfeff_ffff, 0x1_0000_0000..=0x1_000f_ffff]);
        let blocks: Vec<_> = (1..40).map(|n| space.block(n * 50_000, 1).unwrap()).collect();
        let mut last = 0;
        let mut maps = fake.maps();
        maps.sort_unstable();
        for (iova, len) in maps {
            assert!(iova >= last.max(LEAST), "{iova:#x} overlaps");
            last = iova + len as u64;
            assert!(last <= *INTERRUPTS.start() || iova > *INTERRUPTS.end(), "{iova:#x}");
            assert!(last <= 0x1_0010_0000);
        }
        assert_eq!(fake.maps().len(), blocks.len());
        space.clear().unwrap();
        assert!(fake.maps().is_empty());
    }

    #[test]
    fn a_full_address_space_says_so() {
        let (_, space) = space(vec![0x10_0000..=0x10_1fff]);
        space.block(4096, 1).unwrap();
        space.block(4096, 1).unwrap();
        assert!(space.block(4096, 1).err().unwrap().to_string().contains("no addresses are left"));
    }
}
