//! Interrupts, as eventfds that somebody else waits on.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::write;

/// The interrupts of one kind that a device has.
#[derive(Debug)]
pub struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Debug, Default)]
struct Vector {
    eventfd: Option<OwnedFd>,
    masked: bool,
    /// It was raised while masked.
    pending: bool,
    raised: u64,
}

/// What was asked of interrupts that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqError {
    /// There are not so many.
    NoSuchVector,
    /// What was given is not an eventfd.
    NotAnEventfd,
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IrqError::NoSuchVector => "the device has not so many interrupts of this kind",
            IrqError::NotAnEventfd => "the descriptor is not an eventfd",
        })
    }
}

impl std::error::Error for IrqError {}

impl Vectors {
    /// So many interrupts, all unconnected.
    pub fn new(count: usize) -> Self {
        Vectors { vectors: (0..count).map(|_| Vector::default()).collect() }
    }

    /// Connects vector `at` with an eventfd, or disconnects it. What was raised meanwhile is forgotten.
    ///
    /// # Errors
    /// There is no such vector, or the descriptor is something else: writing to a pipe could block the device.
    pub fn connect(&mut self, at: usize, eventfd: Option<OwnedFd>) -> Result<(), IrqError> {
        let vector = self.vectors.get_mut(at).ok_or(IrqError::NoSuchVector)?;
        if let Some(fd) = &eventfd {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            if !link.is_ok_and(|link| link.to_string_lossy().contains("[eventfd]")) {
                return Err(IrqError::NotAnEventfd);
            }
            // An eventfd whose counter is full would otherwise hold up whoever raises the interrupt.
            let flags = fcntl_getfl(fd).map_err(|_| IrqError::NotAnEventfd)?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(|_| IrqError::NotAnEventfd)?;
        }
        *vector = Vector { eventfd, raised: vector.raised, ..Vector::default() };
        Ok(())
    }

    /// Disconnects all.
    pub fn disconnect_all(&mut self) {
        for vector in &mut self.vectors {
            *vector = Vector { raised: vector.raised, ..Vector::default() };
        }
    }

    /// Raises an interrupt; one that is masked is raised when it is unmasked. Never blocks.
    pub fn raise(&mut self, at: usize) {
        let Some(vector) = self.vectors.get_mut(at) else { return };
        vector.raised += 1;
        if vector.masked {
            vector.pending = true;
        } else if let Some(fd) = &vector.eventfd {
            // EAGAIN means that the counter is full: it is raised already.
            let _ = write(fd, &1u64.to_ne_bytes());
        }
    }

    /// Masks or unmasks a vector.
    ///
    /// # Errors
    /// There is no such vector.
    pub fn mask(&mut self, at: usize, masked: bool) -> Result<(), IrqError> {
        let vector = self.vectors.get_mut(at).ok_or(IrqError::NoSuchVector)?;
        vector.masked = masked;
        if !masked && std::mem::take(&mut vector.pending) {
            self.raise(at);
        }
        Ok(())
    }

    /// Whether somebody waits on this vector.
    pub fn connected(&self, at: usize) -> bool {
        self.vectors.get(at).is_some_and(|vector| vector.eventfd.is_some())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// How often vector `at` was raised, connected or not.
    pub fn raised(&self, at: usize) -> u64 {
        self.vectors.get(at).map_or(0, |vector| vector.raised)
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::read;

    use super::*;

    fn count(fd: &OwnedFd) -> u64 {
        let mut octets = [0; 8];
        read(fd, &mut octets).map_or(0, |_| u64::from_ne_bytes(octets))
    }

    #[test]
    fn a_masked_interrupt_is_raised_when_it_is_unmasked() {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let mut vectors = Vectors::new(2);
        vectors.connect(1, Some(fd.try_clone().unwrap())).unwrap();
        vectors.raise(1);
        vectors.raise(0);
        assert_eq!(count(&fd), 1);
        vectors.mask(1, true).unwrap();
        vectors.raise(1);
        assert_eq!(count(&fd), 0);
        vectors.mask(1, false).unwrap();
        assert_eq!(count(&fd), 1);
        vectors.disconnect_all();
        vectors.raise(1);
        assert_eq!((count(&fd), vectors.raised(1)), (0, 4));
    }

    #[test]
    fn a_full_counter_does_not_block_and_a_pipe_is_refused() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let mut vectors = Vectors::new(1);
        vectors.connect(0, Some(fd.try_clone().unwrap())).unwrap();
        write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        vectors.raise(0);
        let (_, pipe) = rustix::pipe::pipe().unwrap();
        assert_eq!(vectors.connect(0, Some(pipe)), Err(IrqError::NotAnEventfd));
        assert_eq!(vectors.connect(1, None), Err(IrqError::NoSuchVector));
    }
}
