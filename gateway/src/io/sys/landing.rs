//! Batches of datagrams into packet buffers: a run of ESP packets is opened where the kernel put it.

use std::io;
use std::os::fd::BorrowedFd;

use spi::{PacketBuf, Pool};

use super::control::Arrived;
use super::receive::Receiver;

/// Datagrams in one call. With UDP_GRO each of them may be 64 KiB; more would push the first out of the cache before it is
/// looked at.
pub const LANDINGS: usize = 8;

/// Buffers that wait for datagrams.
pub struct Landing {
    receiver: Receiver,
    waiting: Vec<PacketBuf>,
    arrived: Vec<(Arrived, PacketBuf, usize)>,
    came: Vec<(usize, Arrived, usize)>,
}

impl Default for Landing {
    fn default() -> Self {
        Landing::new()
    }
}

impl Landing {
    /// One without buffers; they come from the pool when they are needed.
    pub fn new() -> Landing {
        Landing { receiver: Receiver::new(), waiting: Vec::new(), arrived: Vec::new(), came: Vec::new() }
    }

    /// Receives what is there, at most `limit` datagrams; what was here before is gone. The kernel may tell more than are
    /// handed out: those that were too long.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` when there is nothing, or no buffer to put it in.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, pool: &Pool, limit: usize) -> io::Result<usize> {
        self.arrived.clear();
        let limit = limit.min(LANDINGS);
        while self.waiting.len() < limit
            && let Some(buf) = pool.take()
        {
            self.waiting.push(buf);
        }
        let Landing { receiver, waiting, arrived, came } = self;
        came.clear();
        // The buffer that came last is hot, and used first.
        let slots = waiting.iter_mut().rev().take(limit).map(PacketBuf::bytes_mut);
        let count = receiver.receive(fd, slots, |index, how, length| came.push((index, how, length)))?;
        let last = waiting.len() - 1;
        for (index, how, length) in came.drain(..) {
            // What stands behind this one and was not filled takes its place.
            arrived.push((how, waiting.swap_remove(last - index), length));
        }
        Ok(count)
    }

    /// How the datagrams of the last batch came, and their lengths.
    pub fn datagrams(&self) -> impl Iterator<Item = (&Arrived, usize)> {
        self.arrived.iter().map(|(how, _, length)| (how, *length))
    }

    /// The datagrams of the last batch, in their order; each with its buffer and length.
    pub fn take(&mut self) -> impl Iterator<Item = (Arrived, PacketBuf, usize)> {
        self.arrived.drain(..)
    }
}
