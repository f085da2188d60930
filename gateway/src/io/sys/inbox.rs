//! Batches of datagrams into plain memory.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::BATCH;
use super::control::Arrived;
use super::receive::Receiver;

/// Memory for a batch of datagrams.
pub struct Inbox {
    receiver: Receiver,
    memory: Vec<u8>,
    slot: usize,
    arrived: Vec<(Arrived, Range<usize>)>,
}

impl Inbox {
    /// Room for datagrams of `slot` octets, at least one; longer ones are dropped.
    pub fn new(slot: usize) -> Inbox {
        let slot = slot.max(1);
        Inbox { receiver: Receiver::new(), memory: vec![0; slot * BATCH], slot, arrived: Vec::new() }
    }

    /// Receives what is there, at most `limit` datagrams; what was here before is gone.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` when there is nothing.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        self.arrived.clear();
        let Inbox { receiver, memory, slot, arrived } = self;
        receiver.receive(fd, memory.chunks_exact_mut(*slot).take(limit), |index, how, length| {
            let start = index * *slot;
            arrived.push((how, start..start + length));
        })
    }

    /// The datagrams of the last batch.
    pub fn datagrams(&self) -> impl Iterator<Item = (&Arrived, &[u8])> {
        self.arrived.iter().map(|(how, range)| (how, self.memory.get(range.clone()).unwrap_or(&[])))
    }
}
