//! The channel within one process: a pair of bounded queues with a doorbell each way. For tests, benches and a gateway that is one
//! process.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::ArrayQueue;
use spi::{Doorbell, Token};

use crate::channel::{MAX_BACKLOG, Received, Unsent, gone};
use crate::request::{IkeSaRef, Reply, Request};

struct Shared {
    requests: ArrayQueue<(Token, Request)>,
    replies: ArrayQueue<(Token, Reply)>,
    to_secure: Doorbell,
    to_network: Doorbell,
    network_gone: AtomicBool,
    secure_gone: AtomicBool,
}

/// A pair of ends with room for `depth` questions, at least one.
///
/// # Errors
/// Out of file descriptors.
pub(crate) fn pair_of(depth: usize) -> io::Result<(Network, Secure)> {
    let depth = depth.max(1);
    let shared = Arc::new(Shared {
        requests: ArrayQueue::new(depth),
        replies: ArrayQueue::new(depth),
        to_secure: Doorbell::between_threads()?,
        to_network: Doorbell::between_threads()?,
        network_gone: AtomicBool::new(false),
        secure_gone: AtomicBool::new(false),
    });
    let network =
        Network { shared: Arc::clone(&shared), out: BTreeSet::new(), forgotten: VecDeque::new(), depth };
    Ok((network, Secure { shared }))
}

/// The end of the side that faces the network.
pub(crate) struct Network {
    shared: Arc<Shared>,
    out: BTreeSet<Token>,
    forgotten: VecDeque<IkeSaRef>,
    depth: usize,
}

impl Network {
    /// Asks. The answer comes out of [`poll`](Network::poll) with the same token, in any order. [`Request::Forget`] has
    /// no answer, takes no room and is never lost.
    ///
    /// # Errors
    /// [`Unsent`] with the question, when `depth` questions are out or the other side is gone.
    pub(crate) fn submit(&mut self, token: Token, request: Request) -> Result<(), Unsent> {
        if self.is_closed() {
            return Err(Unsent { request: Box::new(request), closed: true });
        }
        if let Request::Forget { sa } = request {
            if self.forgotten.len() >= MAX_BACKLOG {
                return Err(Unsent { request: Box::new(request), closed: false });
            }
            self.forgotten.push_back(sa);
            self.flush();
            return Ok(());
        }
        // What is to be forgotten goes first, so that the order of the two stays.
        self.flush();
        if self.out.len() >= self.depth || !self.forgotten.is_empty() {
            return Err(Unsent { request: Box::new(request), closed: false });
        }
        match self.shared.requests.push((token, request)) {
            Ok(()) => {
                self.out.insert(token);
                self.shared.to_secure.ring();
                Ok(())
            }
            Err((_, request)) => Err(Unsent { request: Box::new(request), closed: false }),
        }
    }

    /// Gives up to `budget` answers to `on_reply`; returns how many. Answers to tokens that are not out are dropped.
    pub(crate) fn poll(&mut self, budget: usize, mut on_reply: impl FnMut(Token, Reply)) -> usize {
        self.shared.to_network.answer();
        self.flush();
        let closed = self.is_closed();
        let mut delivered = 0;
        while delivered < budget {
            if let Some((token, reply)) = self.shared.replies.pop() {
                if self.out.remove(&token) {
                    delivered += 1;
                    on_reply(token, reply);
                }
            } else if closed && let Some(token) = self.out.pop_first() {
                delivered += 1;
                on_reply(token, gone());
            } else {
                return delivered;
            }
        }
        if !self.shared.replies.is_empty() || (closed && !self.out.is_empty()) {
            // The bell was answered; whoever sleeps on it must hear of the rest.
            self.shared.to_network.ring();
        }
        delivered
    }

    /// Readable when [`poll`](Network::poll) has something to say.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.to_network.as_fd()
    }

    /// Questions that `submit` would take now.
    pub(crate) fn room(&self) -> usize {
        self.depth - self.out.len().min(self.depth)
    }

    /// Questions that are out.
    pub(crate) fn in_flight(&self) -> usize {
        self.out.len()
    }

    /// Whether the key side is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.secure_gone.load(Ordering::Acquire)
    }

    fn flush(&mut self) {
        while let Some(sa) = self.forgotten.pop_front() {
            if self.shared.requests.push((Token(0), Request::Forget { sa })).is_err() {
                self.forgotten.push_front(sa);
                break;
            }
            self.shared.to_secure.ring();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.network_gone.store(true, Ordering::Release);
        self.shared.to_secure.ring();
    }
}

/// The end of the side that holds the keys.
pub(crate) struct Secure {
    shared: Arc<Shared>,
}

impl Secure {
    /// The next question, if one is there.
    pub(crate) fn try_recv(&mut self) -> Received {
        self.shared.to_secure.answer();
        // Looked at before the queue: what was asked before the other side went is still worth an answer to nobody,
        // and after it nothing can come.
        let gone = self.shared.network_gone.load(Ordering::Acquire);
        match self.shared.requests.pop() {
            Some((token, request)) => {
                if !self.shared.requests.is_empty() {
                    self.shared.to_secure.ring();
                }
                Received::Request(token, Box::new(request))
            }
            None if gone => {
                // Whoever sleeps on the doorbell once more must wake again.
                self.shared.to_secure.ring();
                Received::Closed
            }
            None => Received::Nothing,
        }
    }

    /// Answers. Room is always there for as many answers as there are questions out; an answer to nothing is dropped.
    pub(crate) fn reply(&mut self, token: Token, reply: Reply) {
        if self.shared.replies.push((token, reply)).is_ok() {
            self.shared.to_network.ring();
        }
    }

    /// Readable when [`try_recv`](Secure::try_recv) has something to say.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.to_secure.as_fd()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.shared.secure_gone.store(true, Ordering::Release);
        self.shared.to_network.ring();
    }
}
