//! Sleeping until one of many descriptors has something.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Nothing, for now; errors are reported all the same.
    Pause,
}

/// A set of descriptors, each known by a number of the caller's.
pub struct Epoll {
    fd: OwnedFd,
}

/// Descriptors reported at one time; the others come the next time.
const EVENTS: usize = 64;

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Adds a descriptor; it is reported as long as it is readable.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add(&self, fd: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.fd, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// Changes what to wait for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn change(&self, fd: impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => epoll::EventFlags::IN,
            Interest::Pause => epoll::EventFlags::empty(),
        };
        Ok(epoll::modify(&self.fd, fd, epoll::EventData::new_u64(key), flags)?)
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, fd)?)
    }

    /// Sleeps until something happens or the time is over (`None`: however long it takes), and tells the keys.
    ///
    /// # Errors
    /// What the kernel says; interruption by a signal is not an error.
    pub fn wait(&self, limit: Option<Duration>, mut ready: impl FnMut(u64)) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        match epoll::wait(&self.fd, &mut events, limit.as_ref()) {
            Ok((events, _)) => events.iter().for_each(|event| ready(event.data.u64())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_bell_wakes_and_a_paused_one_does_not() {
        let epoll = Epoll::new().unwrap();
        let bell = spi::Doorbell::new().unwrap();
        epoll.add(&bell, 7).unwrap();
        bell.ring();
        let mut seen = Vec::new();
        epoll.wait(Some(Duration::from_secs(5)), |key| seen.push(key)).unwrap();
        assert_eq!(seen, [7]);
        epoll.change(&bell, 7, Interest::Pause).unwrap();
        epoll.wait(Some(Duration::from_millis(1)), |key| seen.push(key)).unwrap();
        assert_eq!(seen, [7]);
    }
}
