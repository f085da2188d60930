//! A doorbell: an eventfd that a device or a helper thread rings and a worker sleeps on.
//!
//! Whoever parks results for a sleeper does so first and rings then; the sleeper answers the bell first and looks for results
//! then. In that order nothing is slept through.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, write};

/// A doorbell. Clones ring the same bell.
#[derive(Clone)]
pub struct Doorbell {
    fd: Arc<OwnedFd>,
    /// Whether it has been rung and not answered; only where nobody rings but through [`Doorbell::ring`].
    rung: Option<Arc<AtomicBool>>,
}

impl Doorbell {
    /// A new bell, silent. Its descriptor may be given to whoever rings by writing to it, the kernel included.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Doorbell { fd: Arc::new(fd), rung: None })
    }

    /// A new bell that only threads of this process ring, by [`ring`](Doorbell::ring): a bell that rings already is not rung
    /// again, and a silent one is not read, so neither costs a system call.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn between_threads() -> io::Result<Self> {
        Ok(Doorbell { rung: Some(Arc::default()), ..Doorbell::new()? })
    }

    /// Rings. Any thread; never blocks; many rings before an answer count as one.
    pub fn ring(&self) {
        if self.rung.as_ref().is_some_and(|rung| rung.swap(true, Ordering::SeqCst)) {
            return;
        }
        // EAGAIN means that the counter is full, so the bell is ringing already.
        let _ = write(&*self.fd, &1u64.to_ne_bytes());
    }

    /// Silences the bell; returns whether it had rung.
    pub fn answer(&self) -> bool {
        if self.rung.as_ref().is_some_and(|rung| !rung.load(Ordering::SeqCst)) {
            return false;
        }
        let mut count = [0u8; 8];
        let read = matches!(read(&*self.fd, &mut count), Ok(8));
        match &self.rung {
            // Read first, cleared then: a ring between the two is lost, and what it was for is seen by whoever asked, who
            // looks for results now. The other way round, a bell could fall silent that counts as ringing. Swapped, not
            // stored, so that whoever looks now sees everything that was parked before the last ring.
            Some(rung) if read => drop(rung.swap(false, Ordering::SeqCst)),
            // It counts as rung and its ringer has not written yet: the descriptor will tell, once more, of what is seen now.
            Some(_) => return true,
            None => {}
        }
        read
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::Doorbell;

    #[test]
    fn rings_once_however_often_it_was_rung() {
        for bell in [Doorbell::new().unwrap(), Doorbell::between_threads().unwrap()] {
            assert!(!bell.answer());
            bell.ring();
            bell.clone().ring();
            assert!(bell.answer());
            assert!(!bell.answer());
            bell.ring();
            assert!(bell.answer());
        }
    }

    /// Results are parked by several threads, and one sleeps on the bell whenever it has seen all there were.
    #[test]
    fn nobody_sleeps_through_a_ring() {
        const EACH: usize = 20_000;
        let bell = Doorbell::between_threads().unwrap();
        let parked = Arc::new(AtomicUsize::new(0));
        let ringers: Vec<_> = (0..3)
            .map(|_| {
                let (bell, parked) = (bell.clone(), Arc::clone(&parked));
                std::thread::spawn(move || {
                    for n in 0..EACH {
                        parked.fetch_add(1, Ordering::SeqCst);
                        bell.ring();
                        if n % 64 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < 3 * EACH {
            bell.answer();
            let all = parked.load(Ordering::SeqCst);
            if all == seen {
                let mut fds = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
                let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(poll(&mut fds, Some(&limit)), Ok(1), "asleep with {} of {}", seen, 3 * EACH);
            }
            seen = all;
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        // What was rung last and seen already may wake once more, and then all is quiet.
        bell.answer();
        bell.answer();
        let mut fds = [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0));
    }
}
