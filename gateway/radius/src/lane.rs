//! A socket to a server, and its identifiers: there are 256 (RFC 2865 section 3), and to have more questions out takes more
//! sockets (section 2.5).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::Ticket;

/// Names a lane. Not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey(pub u32);

/// See the module.
pub(crate) struct Lane {
    /// Whether it is connected.
    pub(crate) open: bool,
    by_identifier: Box<[Option<Ticket>; 256]>,
    /// Free ones; who was given back last is taken last.
    free: VecDeque<u8>,
    idle_since: Option<Instant>,
}

impl Default for Lane {
    fn default() -> Self {
        Lane {
            open: false,
            by_identifier: Box::new([None; 256]),
            free: (0..=255).collect(),
            idle_since: None,
        }
    }
}

impl Lane {
    /// An identifier for a question; `None` when all are taken.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<u8> {
        let identifier = self.free.pop_front()?;
        self.by_identifier[usize::from(identifier)] = Some(ticket);
        self.idle_since = None;
        Some(identifier)
    }

    /// The question is answered or given up.
    pub(crate) fn give_back(&mut self, now: Instant, identifier: u8) {
        if self.by_identifier[usize::from(identifier)].take().is_some() {
            self.free.push_back(identifier);
        }
        if self.free() == 256 {
            self.idle_since = Some(now);
        }
    }

    /// Whose it is.
    pub(crate) fn ticket(&self, identifier: u8) -> Option<Ticket> {
        self.by_identifier[usize::from(identifier)]
    }

    /// All that are out.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.by_identifier.iter().flatten().copied().collect()
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// Whether nothing has been out for so long.
    pub(crate) fn idle(&self, now: Instant, limit: Duration) -> bool {
        self.idle_at(limit).is_some_and(|at| at <= now)
    }

    /// When that is.
    pub(crate) fn idle_at(&self, limit: Duration) -> Option<Instant> {
        self.idle_since.map(|since| since + limit)
    }
}
