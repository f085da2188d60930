//! A doorbell: an eventfd that a device or a helper thread rings and a worker sleeps on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// A doorbell. Clones ring the same bell.
#[derive(Clone)]
pub struct Doorbell {
    fd: Arc<OwnedFd>,
}

impl Doorbell {
    /// A new bell, silent.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Doorbell { fd: Arc::new(fd) })
    }

    /// Rings. Any thread; never blocks; many rings before an answer count as one.
    pub fn ring(&self) {
        // EAGAIN means that the counter is full, so the bell is ringing already.
        let _ = write(&*self.fd, &1u64.to_ne_bytes());
    }

    /// Silences the bell; returns whether it had rung.
    pub fn answer(&self) -> bool {
        let mut count = [0u8; 8];
        matches!(read(&*self.fd, &mut count), Ok(8))
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Doorbell;

    #[test]
    fn rings_once_however_often_it_was_rung() {
        let bell = Doorbell::new().unwrap();
        assert!(!bell.answer());
        bell.ring();
        bell.clone().ring();
        assert!(bell.answer());
        assert!(!bell.answer());
    }
}
