//! The channel between the two sides, in memory or between two processes.
//!
//! The network side never blocks: [`NetworkEnd::submit`] hands back what does not fit, [`NetworkEnd::poll`] gives what is
//! there. The key side may sleep in [`SecureEnd::recv`], or wait for its doorbell together with those of its devices.
//! Every question that was taken is answered exactly once: if the key side is gone, with a refusal that says so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use spi::Token;

use crate::memory;
use crate::request::{Refusal, Reply, Request};
use crate::socket::{self, Party};

/// Questions that may be out at once, unless [`pair_of`] says otherwise.
pub const DEPTH: usize = 4096;

/// `Forget`s that wait for room; more than any gateway has IKE SAs.
pub(crate) const MAX_BACKLOG: usize = 1 << 18;

/// A pair of ends within this process, with room for [`DEPTH`] questions.
///
/// # Errors
/// Out of file descriptors.
pub fn pair() -> io::Result<(NetworkEnd, SecureEnd)> {
    pair_of(DEPTH)
}

/// A pair of ends within this process, with room for `depth` questions, at least one.
///
/// # Errors
/// Out of file descriptors.
pub fn pair_of(depth: usize) -> io::Result<(NetworkEnd, SecureEnd)> {
    let (network, secure) = memory::pair_of(depth)?;
    Ok((NetworkEnd(Net::Memory(network)), SecureEnd(Sec::Memory(secure))))
}

/// The end of the side that faces the network.
pub struct NetworkEnd(Net);

enum Net {
    Memory(memory::Network),
    Socket(Box<socket::Network>),
}

/// A question that was not taken.
pub struct Unsent {
    /// The question.
    pub request: Box<Request>,
    /// Whether the other side is gone for good; otherwise there was no room, and later there may be.
    pub closed: bool,
}

impl std::fmt::Debug for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The question holds messages and nonces; what matters is why it was not taken.
        f.debug_struct("Unsent").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl NetworkEnd {
    /// The end in this process of a socket pair ([`socket_pair`](crate::socket_pair)) whose other end `party` has.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_socket(socket: OwnedFd, party: Option<Party>) -> io::Result<NetworkEnd> {
        Ok(NetworkEnd(Net::Socket(Box::new(socket::Network::new(socket, party, DEPTH)?))))
    }

    /// Asks. The answer comes out of [`poll`](NetworkEnd::poll) with the same token, in any order. [`Request::Forget`] has
    /// no answer, takes no room and is never lost.
    ///
    /// # Errors
    /// [`Unsent`] with the question, when too many questions are out or the other side is gone.
    pub fn submit(&mut self, token: Token, request: Request) -> Result<(), Unsent> {
        match &mut self.0 {
            Net::Memory(end) => end.submit(token, request),
            Net::Socket(end) => end.submit(token, request),
        }
    }

    /// Gives up to `budget` answers to `on_reply`; returns how many. Answers to tokens that are not out are dropped.
    pub fn poll(&mut self, budget: usize, on_reply: impl FnMut(Token, Reply)) -> usize {
        match &mut self.0 {
            Net::Memory(end) => end.poll(budget, on_reply),
            Net::Socket(end) => end.poll(budget, on_reply),
        }
    }

    /// Readable when [`poll`](NetworkEnd::poll) has something to say.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Net::Memory(end) => end.doorbell(),
            Net::Socket(end) => end.doorbell(),
        }
    }

    /// Questions that `submit` would take now.
    pub fn room(&self) -> usize {
        match &self.0 {
            Net::Memory(end) => end.room(),
            Net::Socket(end) => end.room(),
        }
    }

    /// Questions that are out.
    pub fn in_flight(&self) -> usize {
        match &self.0 {
            Net::Memory(end) => end.in_flight(),
            Net::Socket(end) => end.in_flight(),
        }
    }

    /// Whether the key side is gone.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Net::Memory(end) => end.is_closed(),
            Net::Socket(end) => end.is_closed(),
        }
    }
}

impl AsFd for NetworkEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell()
    }
}

/// What [`SecureEnd`] received.
pub enum Received {
    /// A question, to be answered with its token.
    Request(Token, Box<Request>),
    /// Nothing now.
    Nothing,
    /// Nothing ever again: the network side is gone, or it said what nobody says.
    Closed,
}

/// The end of the side that holds the keys.
pub struct SecureEnd(Sec);

enum Sec {
    Memory(memory::Secure),
    Socket(Box<socket::Secure>),
}

impl SecureEnd {
    /// The end in this process of a socket pair ([`socket_pair`](crate::socket_pair)) whose other end `party` has.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_socket(socket: OwnedFd, party: Option<Party>) -> io::Result<SecureEnd> {
        Ok(SecureEnd(Sec::Socket(Box::new(socket::Secure::new(socket, party)?))))
    }

    /// The next question, if one is there.
    pub fn try_recv(&mut self) -> Received {
        match &mut self.0 {
            Sec::Memory(end) => end.try_recv(),
            Sec::Socket(end) => end.try_recv(),
        }
    }

    /// Waits for the next question, for ever or for so long.
    pub fn recv(&mut self, limit: Option<Duration>) -> Received {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            match self.try_recv() {
                Received::Nothing => {}
                other => return other,
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Received::Nothing;
            }
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut fds = [PollFd::from_borrowed_fd(self.doorbell(), PollFlags::IN)];
            // An interrupted wait is a short one; the loop looks again.
            let _ = rustix::event::poll(&mut fds, left.as_ref());
        }
    }

    /// Answers. Never waits; an answer to nothing is dropped by the other side.
    pub fn reply(&mut self, token: Token, reply: Reply) {
        match &mut self.0 {
            Sec::Memory(end) => end.reply(token, reply),
            Sec::Socket(end) => end.reply(token, reply),
        }
    }

    /// Readable when [`try_recv`](SecureEnd::try_recv) has something to say.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Sec::Memory(end) => end.doorbell(),
            Sec::Socket(end) => end.doorbell(),
        }
    }
}

impl AsFd for SecureEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell()
    }
}

/// The answer to whatever was asked of a key side that is gone.
pub(crate) fn gone() -> Reply {
    Reply::Refused(Refusal::System("the key side is gone".into()))
}

#[cfg(test)]
mod tests;
