//! The memory a device may reach: windows of files that its user has mapped for it, by address on the bus.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};
use rustix::io::{pread, pwrite};

use crate::sys::Mapping;

/// Windows at one time; vfio-user's default, which its clients count on.
const MAX_WINDOWS: usize = 65535;

/// Reads and writes by address on the bus. Every access is checked; none can reach past a window.
pub trait Dma: Send + Sync {
    /// Fills `into`.
    ///
    /// # Errors
    /// Some octet is not mapped, or not for reading. What `into` holds then is undefined.
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault>;

    /// Writes all of `from`.
    ///
    /// # Errors
    /// Some octet is not mapped, or not for writing. Nothing has been written then.
    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault>;

    /// Writes `from` so that who sees its first four octets sees the rest as well.
    ///
    /// # Errors
    /// As [`write`](Dma::write).
    fn publish(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault>;
}

/// An access that did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaFault {
    /// No window covers this address, or the window has no memory behind it.
    Unmapped(u64),
    /// The window does not allow it.
    Forbidden(u64),
    /// The range wraps around the end of the address space.
    OutOfRange,
    /// The memory went away under the window.
    Lost(u64),
    /// The device was reset since the work began.
    Stale,
}

impl fmt::Display for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DmaFault::Unmapped(at) => write!(f, "no memory is mapped at {at:#x}"),
            DmaFault::Forbidden(at) => write!(f, "the window at {at:#x} does not allow this access"),
            DmaFault::OutOfRange => f.write_str("the range goes past the end of the address space"),
            DmaFault::Lost(at) => write!(f, "the file behind {at:#x} has become too short"),
            DmaFault::Stale => f.write_str("the device was reset since this work began"),
        }
    }
}

impl std::error::Error for DmaFault {}

/// What a window allows the device to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// To read.
    pub read: bool,
    /// To write.
    pub write: bool,
}

/// Where a window lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address on the bus.
    pub iova: u64,
    /// Octets.
    pub len: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// What the device may do there.
    pub access: Access,
}

/// A window that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// It is empty, or goes past the end of the address space or of the file.
    OutOfRange,
    /// It overlaps one that exists.
    Exists,
    /// There are as many as there may be.
    TooMany,
    /// The file cannot be mapped.
    NotMappable,
    /// Removing the range would cut a window in two.
    Cuts,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MapError::OutOfRange => {
                "the window is empty or goes past the end of its file or of the addresses"
            }
            MapError::Exists => "the window overlaps another",
            MapError::TooMany => "there are as many windows as there may be",
            MapError::NotMappable => "the file cannot be mapped",
            MapError::Cuts => "the range ends in the middle of a window",
        })
    }
}

impl std::error::Error for MapError {}

/// All windows of one device.
#[derive(Default)]
pub struct Space(RwLock<Table>);

#[derive(Default)]
struct Table {
    windows: BTreeMap<u64, Entry>,
    /// Files by device and inode: a guest behind an IOMMU maps thousands of pages of one memfd, and a process may have
    /// only some ten thousand mappings.
    files: HashMap<(u64, u64), Weak<File>>,
}

struct Entry {
    window: Window,
    /// None where the client has no file to offer, such as a device's own registers.
    file: Option<Arc<File>>,
}

/// How the octets of a file are reached.
enum File {
    /// It cannot become shorter, so its mapping is safe to touch.
    Mapped(Mapping),
    /// It can; touching a mapping past its end would be the end of us. System calls only fail.
    Calls(OwnedFd),
}

impl Space {
    /// Nothing mapped.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a window. Without a file it takes up its addresses and refuses every access.
    ///
    /// # Errors
    /// It is out of range, overlaps another, there are too many, or the file cannot be mapped.
    pub fn map(&self, window: Window, file: Option<OwnedFd>) -> Result<(), MapError> {
        let last = last(window.iova, window.len).ok_or(MapError::OutOfRange)?;
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if table.windows.len() >= MAX_WINDOWS {
            return Err(MapError::TooMany);
        }
        if table.windows.range(..=last).next_back().is_some_and(|(_, entry)| entry.last() >= window.iova) {
            return Err(MapError::Exists);
        }
        let file = match file {
            Some(fd) => Some(table.file(fd, &window)?),
            None => None,
        };
        table.windows.insert(window.iova, Entry { window, file });
        Ok(())
    }

    /// Removes all windows between `iova` and `iova + len - 1`, which there need not be any of. When this returns, no access
    /// to them is under way.
    ///
    /// # Errors
    /// The range is empty or wraps, or it covers only a part of some window; nothing is removed then.
    pub fn unmap(&self, iova: u64, len: u64) -> Result<usize, MapError> {
        let last = last(iova, len).ok_or(MapError::OutOfRange)?;
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = table.windows.range(..iova).next_back();
        let within = table.windows.range(iova..=last).next_back();
        if before.is_some_and(|(_, e)| e.last() >= iova) || within.is_some_and(|(_, e)| e.last() > last) {
            return Err(MapError::Cuts);
        }
        let found: Vec<u64> = table.windows.range(iova..=last).map(|(at, _)| *at).collect();
        for at in &found {
            table.windows.remove(at);
        }
        table.files.retain(|_, file| file.strong_count() > 0);
        Ok(found.len())
    }

    /// Removes all windows.
    pub fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Table::default();
    }

    /// How many windows there are.
    pub fn windows(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).windows.len()
    }
}

impl Dma for Space {
    fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), DmaFault> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        table.pieces(
            iova,
            into.len(),
            |access| access.read,
            |piece| {
                let part = into.get_mut(done..done + piece.len).ok_or(DmaFault::OutOfRange)?;
                done += piece.len;
                piece.read(part)
            },
        )
    }

    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // All or nothing: look at every piece before the first is touched.
        table.pieces(iova, from.len(), |access| access.write, |_| Ok(()))?;
        table.write(iova, from)
    }

    fn publish(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.pieces(iova, from.len(), |access| access.write, |_| Ok(()))?;
        let (flag, rest) = from.split_at_checked(4).ok_or(DmaFault::OutOfRange)?;
        table.write(iova.checked_add(4).ok_or(DmaFault::OutOfRange)?, rest)?;
        table.pieces(
            iova,
            flag.len(),
            |access| access.write,
            |piece| match piece.file {
                File::Mapped(mapping) if piece.len == 4 => {
                    mapping.store_release(piece.at, flag).ok_or(DmaFault::Lost(iova))
                }
                // In two pieces, or through the kernel, whose copies are in order.
                _ => table.write(iova, flag),
            },
        )
    }
}

/// A run of octets within one window.
struct Piece<'a> {
    file: &'a File,
    /// Where in the file.
    at: u64,
    len: usize,
    iova: u64,
}

impl Piece<'_> {
    fn read(&self, into: &mut [u8]) -> Result<(), DmaFault> {
        match self.file {
            File::Mapped(mapping) => mapping.read(self.at, into).ok_or(DmaFault::Lost(self.iova)),
            File::Calls(fd) => match pread(fd, &mut *into, self.at) {
                Ok(count) if count == into.len() => Ok(()),
                _ => Err(DmaFault::Lost(self.iova)),
            },
        }
    }

    fn write(&self, from: &[u8]) -> Result<(), DmaFault> {
        match self.file {
            File::Mapped(mapping) => mapping.write(self.at, from).ok_or(DmaFault::Lost(self.iova)),
            File::Calls(fd) => {
                // A write past the end would make the file longer again: that is not ours to do.
                let end = fstat(fd).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
                let fits =
                    end.is_some_and(|end| self.at.checked_add(from.len() as u64).is_some_and(|to| to <= end));
                match fits.then(|| pwrite(fd, from, self.at)) {
                    Some(Ok(count)) if count == from.len() => Ok(()),
                    _ => Err(DmaFault::Lost(self.iova)),
                }
            }
        }
    }
}

impl Table {
    fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        let mut rest = from;
        self.pieces(
            iova,
            from.len(),
            |access| access.write,
            |piece| {
                let (part, left) = rest.split_at_checked(piece.len).ok_or(DmaFault::OutOfRange)?;
                rest = left;
                piece.write(part)
            },
        )
    }

    /// Cuts a range at the borders of windows.
    fn pieces(
        &self,
        iova: u64,
        len: usize,
        allows: impl Fn(Access) -> bool,
        mut each: impl FnMut(Piece<'_>) -> Result<(), DmaFault>,
    ) -> Result<(), DmaFault> {
        if len == 0 {
            return Ok(());
        }
        let last = last(iova, len as u64).ok_or(DmaFault::OutOfRange)?;
        let mut at = iova;
        loop {
            let entry = self.windows.range(..=at).next_back().map(|(_, entry)| entry);
            let entry = entry.filter(|entry| entry.last() >= at).ok_or(DmaFault::Unmapped(at))?;
            let file = entry.file.as_deref().ok_or(DmaFault::Unmapped(at))?;
            if !allows(entry.window.access) {
                return Err(DmaFault::Forbidden(at));
            }
            let to = last.min(entry.last());
            let inside = at - entry.window.iova;
            // Neither sum overflows: the window was checked against its file when it was added.
            let piece =
                Piece { file, at: entry.window.offset + inside, len: (to - at) as usize + 1, iova: at };
            each(piece)?;
            if to == last {
                return Ok(());
            }
            at = to + 1;
        }
    }

    /// The file behind a descriptor, mapped once however many windows it has.
    fn file(&mut self, fd: OwnedFd, window: &Window) -> Result<Arc<File>, MapError> {
        let stat = fstat(&fd).map_err(|_| MapError::NotMappable)?;
        let len = u64::try_from(stat.st_size).map_err(|_| MapError::NotMappable)?;
        if window.offset.checked_add(window.len).is_none_or(|end| end > len) {
            return Err(MapError::OutOfRange);
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(file) = self.files.get(&key).and_then(Weak::upgrade) {
            // It may have grown since it was mapped.
            let reaches = match &*file {
                File::Mapped(mapping) => window.offset + window.len <= mapping.len(),
                File::Calls(_) => true,
            };
            if reaches {
                return Ok(file);
            }
        }
        let file = if keeps_its_length(&fd) {
            File::Mapped(Mapping::new(&fd, len).ok_or(MapError::NotMappable)?)
        } else {
            File::Calls(fd)
        };
        let file = Arc::new(file);
        self.files.insert(key, Arc::downgrade(&file));
        Ok(file)
    }
}

impl Entry {
    fn last(&self) -> u64 {
        self.window.iova + (self.window.len - 1)
    }
}

/// Whether a file can no longer become shorter. A memfd that allows seals is sealed for it.
fn keeps_its_length(fd: &OwnedFd) -> bool {
    let sealed = |fd| fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    sealed(fd) || (fcntl_add_seals(fd, SealFlags::SHRINK).is_ok() && sealed(fd))
}

/// The last address of a range; none if it is empty or wraps. A range may well end at the last address there is.
fn last(first: u64, len: u64) -> Option<u64> {
    first.checked_add(len.checked_sub(1)?)
}

#[cfg(test)]
mod tests;
