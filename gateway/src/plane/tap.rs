//! Copies of inner packets for whoever captures. Costs nothing while nobody does.

use std::time::SystemTime;

use crate::backlog::{NotTaken, Sender};
use crate::pcapng;

/// Those who capture, at one time.
const LISTENERS: usize = 4;

/// Interface number of packets before they are sealed.
pub(super) const BEFORE: u32 = 0;
/// Interface number of packets after they were opened.
pub(super) const AFTER: u32 = 1;

/// The listeners.
#[derive(Default)]
pub(super) struct Tap {
    listeners: Vec<Sender>,
    lost: u64,
}

impl Tap {
    /// Whether there is a place for one more listener.
    pub(super) fn has_room(&mut self) -> bool {
        // Those that went are not noticed while no packet comes.
        self.listeners.retain(|listener| !listener.is_closed());
        self.listeners.len() < LISTENERS
    }

    /// Takes in a listener, who has the file's beginning already; with too many there it gets nothing.
    pub(super) fn add(&mut self, to: Sender) {
        if self.has_room() {
            self.listeners.push(to);
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_open(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Gives a packet to all; one that does not keep up loses it, one that is gone is forgotten.
    pub(super) fn packet(&mut self, interface: u32, bytes: &[u8], comment: &str) {
        let block = pcapng::packet(interface, SystemTime::now(), bytes, comment);
        let mut lost = 0;
        self.listeners.retain(|to| match to.give(block.clone()) {
            Ok(()) => true,
            Err(NotTaken::Full) => {
                lost += 1;
                true
            }
            Err(NotTaken::Gone) => false,
        });
        self.lost += lost;
    }

    /// Packets that listeners were too slow for.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backlog::channel;

    #[tokio::test]
    async fn slow_listeners_lose_packets_and_gone_ones_are_forgotten() {
        let mut tap = Tap::default();
        let (to, mut from) = channel(1, 1 << 20);
        tap.add(to);
        tap.packet(BEFORE, b"a", "");
        tap.packet(AFTER, b"b", "");
        assert_eq!(tap.lost(), 1);
        assert!(from.take().await.is_some());
        drop(from);
        tap.packet(BEFORE, b"c", "");
        assert!(!tap.is_open());
    }

    #[tokio::test]
    async fn listeners_that_came_and_went_take_no_places() {
        let mut tap = Tap::default();
        for _ in 0..=LISTENERS {
            let (to, from) = channel(2, 1 << 20);
            assert!(tap.has_room(), "there is a place");
            tap.add(to);
            drop(from);
        }
    }
}
