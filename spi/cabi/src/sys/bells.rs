//! Bells that a plug-in rings by number, so that one it makes up, or rings when its queue is long gone, is a bell nobody hears.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{LazyLock, PoisonError, RwLock};

use spi::Doorbell;

#[derive(Default)]
struct Bells {
    last: u64,
    all: HashMap<u64, Doorbell>,
}

static BELLS: LazyLock<RwLock<Bells>> = LazyLock::new(RwLock::default);

/// A bell with a number. Numbers are not used twice.
pub(crate) struct Bell {
    number: u64,
    bell: Doorbell,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        let bell = Doorbell::between_threads()?;
        let mut bells = BELLS.write().unwrap_or_else(PoisonError::into_inner);
        bells.last += 1;
        let number = bells.last;
        bells.all.insert(number, bell.clone());
        Ok(Bell { number, bell })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    pub(crate) fn answer(&self) {
        self.bell.answer();
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        BELLS.write().unwrap_or_else(PoisonError::into_inner).all.remove(&self.number);
    }
}

/// `accel_host.ring`.
pub(super) unsafe extern "C" fn ring(bell: u64) {
    let bells = BELLS.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(bell) = bells.all.get(&bell) {
        bell.ring();
    }
}
