//! What is due when. A heap of times; what was cancelled is found to be stale when its time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use spi::{Direction, Token};

use crate::esp::Esp;
use crate::output::Output;
use crate::sa::{ChildId, ShareId};

/// What may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Bursts of an outbound SA have waited long enough for one before them.
    OrderOut(Token),
    /// The same of an inbound SA.
    OrderIn(Token),
    /// A path may have been silent.
    Keepalive(Token),
    /// An outbound SA wants a dummy packet.
    Dummy(Token),
    /// Packets have waited long enough for an SA.
    Waiting(ChildId),
    /// A budget may have earned something.
    Share(ShareId),
}

/// All that is due some time.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Timers {
    pub(crate) fn push(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    fn pop(&mut self, now: Instant) -> Option<Due> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, due))| due)
    }

    fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

impl Esp {
    /// When [`handle_timeout`](Esp::handle_timeout) wants to be called; never earlier than needed for the data path's
    /// two milliseconds of order.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due: lets out bursts that waited for one before them, asks for keepalives, makes dummy packets, drops
    /// what waited in vain.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::OrderOut(token) => self.order_due(now, Direction::Seal, token, out),
                Due::OrderIn(token) => self.order_due(now, Direction::Open, token, out),
                Due::Keepalive(token) => self.keepalive_due(now, token, out),
                Due::Dummy(token) => self.dummy_due(now, token, out),
                Due::Waiting(child) => self.waiting_due(child),
                Due::Share(share) => self.share_due(now, share, out),
            }
        }
    }
}
