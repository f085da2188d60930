//! An epoll set: what a queue's doorbell is made of. Providers' descriptors are in it by number.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// The set. Readable when one of its descriptors is.
pub(crate) struct Watch {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

// SAFETY: an event's data is a union of a number and a pointer; only numbers are ever put into it.
unsafe impl Send for Watch {}

impl Watch {
    /// An empty one.
    pub(crate) fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Watch { set, events: Vec::with_capacity(256) })
    }

    /// Adds a descriptor of ours, which rings as long as it is readable.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, mark: u64) -> io::Result<()> {
        Ok(epoll::add(&self.set, fd, epoll::EventData::new_u64(mark), epoll::EventFlags::IN)?)
    }

    /// Has a descriptor of ours heard, or not: what is not heard does not make the set readable.
    pub(crate) fn hear(&self, fd: BorrowedFd<'_>, mark: u64, heard: bool) {
        let flags = if heard { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        // It is in the set, and nothing else can be wrong with it.
        let _ = epoll::modify(&self.set, fd, epoll::EventData::new_u64(mark), flags);
    }

    /// Lets a provider's descriptor ring once; it is added if it is new. False: it is not open, or cannot be waited for.
    pub(crate) fn arm(&self, fd: RawFd, mark: u64) -> bool {
        let (flags, mark) =
            (epoll::EventFlags::IN | epoll::EventFlags::ONESHOT, epoll::EventData::new_u64(mark));
        let Some(fd) = number(fd) else { return false };
        match epoll::modify(&self.set, fd, mark, flags) {
            Ok(()) => true,
            Err(_) => epoll::add(&self.set, fd, mark, flags).is_ok(),
        }
    }

    /// Takes a provider's descriptor out, if it is in.
    pub(crate) fn remove(&self, fd: RawFd) {
        if let Some(fd) = number(fd) {
            // It may be closed already, and then it is out.
            let _ = epoll::delete(&self.set, fd);
        }
    }

    /// The marks of what is readable, waiting no longer than that.
    pub(crate) fn ready(&mut self, limit: std::time::Duration) -> Vec<u64> {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        self.events.clear();
        // Interrupted is as good as nothing yet.
        let _ = epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&limit));
        self.events.iter().map(|event| event.data.u64()).collect()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

/// A descriptor by the number that a provider gave; providers are not believed to be able to count.
fn number<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: -1 is excluded. The number goes to epoll_ctl and nowhere else, and that refuses what is not open; no octet is read or
    // written through it, and nothing is closed.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}
