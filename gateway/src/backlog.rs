//! A channel for captured packets that is bounded by octets too: inner packets may be 64 KiB each, and whoever captures may
//! stop reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// The giving end. Clones give into the same channel.
#[derive(Clone)]
pub struct Sender {
    to: mpsc::Sender<Vec<u8>>,
    held: Arc<AtomicUsize>,
    octets: usize,
}

/// The taking end.
pub struct Receiver {
    from: mpsc::Receiver<Vec<u8>>,
    held: Arc<AtomicUsize>,
}

/// Why a block was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// There is no room.
    Full,
    /// Nobody takes any more.
    Gone,
}

/// Both ends of a channel for so many blocks with so many octets in all.
pub fn channel(blocks: usize, octets: usize) -> (Sender, Receiver) {
    let (to, from) = mpsc::channel(blocks.max(1));
    let held = Arc::new(AtomicUsize::new(0));
    (Sender { to, held: Arc::clone(&held), octets }, Receiver { from, held })
}

impl Sender {
    /// Gives a block. Never waits.
    ///
    /// # Errors
    /// [`NotTaken`]; the block is gone then.
    pub fn give(&self, block: Vec<u8>) -> Result<(), NotTaken> {
        let length = block.len();
        // One end adds and the other takes away: what is read here can only be too much.
        if self.held.load(Ordering::Relaxed).saturating_add(length) > self.octets && !self.is_closed() {
            return Err(NotTaken::Full);
        }
        self.held.fetch_add(length, Ordering::Relaxed);
        self.to.try_send(block).map_err(|error| {
            self.held.fetch_sub(length, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => NotTaken::Full,
                mpsc::error::TrySendError::Closed(_) => NotTaken::Gone,
            }
        })
    }

    /// Whether nobody takes any more.
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }
}

impl Receiver {
    /// The next block, oldest first; `None` when there will be none.
    pub async fn take(&mut self) -> Option<Vec<u8>> {
        let block = self.from.recv().await?;
        self.held.fetch_sub(block.len(), Ordering::Relaxed);
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_the_number_and_the_octets_are_bounded() {
        let (to, mut from) = channel(3, 100);
        assert_eq!(to.give(vec![1; 60]), Ok(()));
        assert_eq!(to.give(vec![2; 60]), Err(NotTaken::Full), "too many octets");
        assert_eq!(to.give(vec![3; 1]), Ok(()));
        assert_eq!(to.give(vec![4; 1]), Ok(()));
        assert_eq!(to.give(vec![5; 1]), Err(NotTaken::Full), "too many blocks");
        assert_eq!(from.take().await.map(|block| block.len()), Some(60));
        assert_eq!(to.give(vec![6; 60]), Ok(()), "there is room again");
        drop(from);
        assert_eq!(to.give(vec![7; 60]), Err(NotTaken::Gone));
    }
}
