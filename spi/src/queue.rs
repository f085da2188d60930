//! The queue contract: one submission/completion ring between a worker thread and a device.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// One submission/completion ring, owned by one worker thread.
///
/// What every implementation owes, and `hwtest` checks:
///
/// 1. **Exactly once.** Every job taken by [`submit`](Queue::submit) comes out of exactly one
///    [`on_done`](Completions::on_done), also across a reset (as [`FaultKind::Aborted`](crate::FaultKind)), as long as
///    the owner keeps polling. A queue that is dropped with work out waits until the device can no longer write to
///    the buffers it holds, then gives them back to their pools.
/// 2. **Callbacks only in [`poll`](Queue::poll)**, on the thread that called it; never from `submit`, an interrupt or
///    a helper thread. A backend that finishes elsewhere parks the result and rings its doorbell.
/// 3. **Never blocks.** Neither call waits on the device.
/// 4. **Any order**, unless the device's caps say `in_order`.
/// 5. **A full ring is not an error**: what does not fit stays in `jobs`, untouched.
/// 6. **[`room`](Queue::room) is a promise**: that many jobs the next `submit` takes, whatever happens in between, short
///    of the device failing.
pub trait Queue: Send {
    /// What goes in.
    type Job;
    /// What comes back.
    type Done;

    /// Moves jobs off the front of `jobs` until it is empty or the ring is full; returns how many were taken.
    ///
    /// # Errors
    /// [`Closed`] when the device is resetting, failed or gone; `jobs` is untouched then.
    fn submit(&mut self, jobs: &mut VecDeque<Self::Job>) -> Result<usize, Closed>;

    /// Delivers up to `budget` completions to `to`.
    fn poll(&mut self, budget: usize, to: &mut dyn Completions<Self::Done>) -> Polled;

    /// Jobs that `submit` would certainly take now. Ask before spending a sequence number.
    fn room(&self) -> usize;

    /// Jobs taken and not yet given back.
    fn in_flight(&self) -> usize;

    /// An eventfd that is readable when `poll` has something to say; `None` means: poll whenever work is out.
    fn doorbell(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// The completion callback. Any `FnMut(D)` is one.
pub trait Completions<D> {
    /// Takes one completed job. May not call back into the queue that is being polled.
    fn on_done(&mut self, done: D);
}

impl<D, F: FnMut(D)> Completions<D> for F {
    fn on_done(&mut self, done: D) {
        self(done)
    }
}

/// What a call of [`Queue::poll`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Completions delivered by this call.
    pub delivered: usize,
    /// Whether another call would deliver something at once.
    pub more: bool,
}

/// The queue takes no new work: its device is resetting, failed or gone. Keep polling what is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the queue takes no new work")
    }
}

impl std::error::Error for Closed {}
