//! What a token does its work with: so many at a time, each so long. Others wait, as they do at a real token that has one processor.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The engine. Whoever has a place in it holds a [`Place`].
#[derive(Default)]
pub struct Engine {
    busy: Mutex<usize>,
    free: Condvar,
}

/// A place in the engine, until it is dropped.
pub struct Place<'a> {
    engine: &'a Engine,
    /// How many have one now, this one included.
    pub busy: usize,
}

impl Engine {
    /// Waits for one of so many places.
    pub fn enter(&self, places: usize) -> Place<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy =
            self.free.wait_while(busy, |busy| *busy >= places.max(1)).unwrap_or_else(PoisonError::into_inner);
        *busy += 1;
        Place { engine: self, busy: *busy }
    }
}

impl Place<'_> {
    /// Works for so long.
    pub fn work(&self, ms: u64) {
        if ms > 0 {
            std::thread::sleep(Duration::from_millis(ms));
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.engine.busy.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.engine.free.notify_one();
    }
}
