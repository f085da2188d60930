//! The channel between the two sides: an in-memory pair of bounded queues with a doorbell each way.
//!
//! The network side never blocks: [`NetworkEnd::submit`] hands back what does not fit, [`NetworkEnd::poll`] gives what is
//! there. The key side may sleep in [`SecureEnd::recv`], or wait for its doorbell together with those of its devices.
//! Every question that was taken is answered exactly once: if the key side is gone, with a refusal that says so.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use rustix::event::{PollFd, PollFlags, Timespec};
use spi::{Doorbell, Token};

use crate::request::{IkeSaRef, Refusal, Reply, Request};

/// Questions that may be out at once, unless [`pair_of`] says otherwise.
pub const DEPTH: usize = 4096;

/// `Forget`s that wait for room; more than any gateway has IKE SAs.
const MAX_BACKLOG: usize = 1 << 18;

struct Shared {
    requests: ArrayQueue<(Token, Request)>,
    replies: ArrayQueue<(Token, Reply)>,
    to_secure: Doorbell,
    to_network: Doorbell,
    network_gone: AtomicBool,
    secure_gone: AtomicBool,
}

/// A pair of ends with room for [`DEPTH`] questions.
///
/// # Errors
/// Out of file descriptors.
pub fn pair() -> io::Result<(NetworkEnd, SecureEnd)> {
    pair_of(DEPTH)
}

/// A pair of ends with room for `depth` questions, at least one.
///
/// # Errors
/// Out of file descriptors.
pub fn pair_of(depth: usize) -> io::Result<(NetworkEnd, SecureEnd)> {
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
        NetworkEnd { shared: Arc::clone(&shared), out: BTreeSet::new(), forgotten: VecDeque::new(), depth };
    Ok((network, SecureEnd { shared }))
}

/// The end of the side that faces the network.
pub struct NetworkEnd {
    shared: Arc<Shared>,
    out: BTreeSet<Token>,
    forgotten: VecDeque<IkeSaRef>,
    depth: usize,
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
    /// Asks. The answer comes out of [`poll`](NetworkEnd::poll) with the same token, in any order. [`Request::Forget`] has
    /// no answer, takes no room and is never lost.
    ///
    /// # Errors
    /// [`Unsent`] with the question, when `depth` questions are out or the other side is gone.
    pub fn submit(&mut self, token: Token, request: Request) -> Result<(), Unsent> {
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
    pub fn poll(&mut self, budget: usize, mut on_reply: impl FnMut(Token, Reply)) -> usize {
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
                on_reply(token, Reply::Refused(Refusal::System("the key side is gone".into())));
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

    /// Readable when [`poll`](NetworkEnd::poll) has something to say.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.to_network.as_fd()
    }

    /// Questions that `submit` would take now.
    pub fn room(&self) -> usize {
        self.depth - self.out.len().min(self.depth)
    }

    /// Questions that are out.
    pub fn in_flight(&self) -> usize {
        self.out.len()
    }

    /// Whether the key side is gone.
    pub fn is_closed(&self) -> bool {
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

impl AsFd for NetworkEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell()
    }
}

impl Drop for NetworkEnd {
    fn drop(&mut self) {
        self.shared.network_gone.store(true, Ordering::Release);
        self.shared.to_secure.ring();
    }
}

/// What [`SecureEnd`] received.
pub enum Received {
    /// A question, to be answered with its token.
    Request(Token, Box<Request>),
    /// Nothing now.
    Nothing,
    /// Nothing ever again: the network side is gone.
    Closed,
}

/// The end of the side that holds the keys.
pub struct SecureEnd {
    shared: Arc<Shared>,
}

impl SecureEnd {
    /// The next question, if one is there.
    pub fn try_recv(&mut self) -> Received {
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
            let mut fds = [PollFd::new(&self.shared.to_secure, PollFlags::IN)];
            // An interrupted wait is a short one; the loop looks again.
            let _ = rustix::event::poll(&mut fds, left.as_ref());
        }
    }

    /// Answers. Room is always there for as many answers as there are questions out; an answer to nothing is dropped.
    pub fn reply(&mut self, token: Token, reply: Reply) {
        if self.shared.replies.push((token, reply)).is_ok() {
            self.shared.to_network.ring();
        }
    }

    /// Readable when [`try_recv`](SecureEnd::try_recv) has something to say.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.shared.to_secure.as_fd()
    }
}

impl AsFd for SecureEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell()
    }
}

impl Drop for SecureEnd {
    fn drop(&mut self) {
        self.shared.secure_gone.store(true, Ordering::Release);
        self.shared.to_network.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::TunSpec;

    fn question() -> Request {
        Request::OpenTun(TunSpec { name: "t".into(), mtu: 1400, queues: 1, offload: false, ethernet: false })
    }

    fn rung(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
    }

    #[test]
    fn answers_come_with_their_tokens_and_both_bells_ring() {
        let (mut net, mut sec) = pair_of(4).unwrap();
        net.submit(Token(1), question()).unwrap();
        net.submit(Token(2), question()).unwrap();
        assert!(rung(sec.doorbell()));
        let Received::Request(first, _) = sec.recv(None) else { panic!() };
        assert!(rung(sec.doorbell()), "one is left");
        let Received::Request(second, _) = sec.recv(None) else { panic!() };
        assert!(!rung(sec.doorbell()));
        assert!(!rung(net.doorbell()));
        sec.reply(second, Reply::Ok);
        sec.reply(first, Reply::Ok);
        assert!(rung(net.doorbell()));
        let mut got = Vec::new();
        assert_eq!(net.poll(1, |t, _| got.push(t)), 1);
        assert!(rung(net.doorbell()), "the budget left one");
        assert_eq!(net.poll(9, |t, _| got.push(t)), 1);
        assert_eq!(got, [Token(2), Token(1)]);
        assert!(!rung(net.doorbell()) && net.in_flight() == 0);
    }

    #[test]
    fn a_full_channel_hands_the_question_back() {
        let (mut net, mut sec) = pair_of(2).unwrap();
        net.submit(Token(1), question()).unwrap();
        net.submit(Token(2), question()).unwrap();
        let unsent = net.submit(Token(3), question()).unwrap_err();
        assert!(!unsent.closed && matches!(*unsent.request, Request::OpenTun(_)));
        // Taken out of the queue but not answered: still out.
        assert!(matches!(sec.try_recv(), Received::Request(..)));
        assert!(net.submit(Token(3), question()).is_err());
        sec.reply(Token(1), Reply::Ok);
        net.poll(9, |_, _| ());
        net.submit(Token(3), *unsent.request).unwrap();
    }

    #[test]
    fn forget_is_never_lost_and_keeps_its_place() {
        let (mut net, mut sec) = pair_of(1).unwrap();
        net.submit(Token(1), question()).unwrap();
        for n in 0..5 {
            net.submit(Token(0), Request::Forget { sa: IkeSaRef(n) }).unwrap();
        }
        let Received::Request(Token(1), _) = sec.try_recv() else { panic!() };
        sec.reply(Token(1), Reply::Ok);
        let mut seen = Vec::new();
        for _ in 0..10 {
            net.poll(9, |_, _| ());
            if let Received::Request(_, request) = sec.try_recv()
                && let Request::Forget { sa } = *request
            {
                seen.push(sa.0);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn answers_nobody_waits_for_are_dropped() {
        let (mut net, mut sec) = pair_of(2).unwrap();
        net.submit(Token(1), question()).unwrap();
        sec.reply(Token(7), Reply::Ok);
        sec.reply(Token(1), Reply::Ok);
        let mut got = Vec::new();
        net.poll(9, |t, _| got.push(t));
        assert_eq!(got, [Token(1)]);
    }

    #[test]
    fn each_side_learns_that_the_other_is_gone() {
        let (mut net, sec) = pair_of(4).unwrap();
        net.submit(Token(1), question()).unwrap();
        drop(sec);
        assert!(rung(net.doorbell()));
        let mut refused = 0;
        net.poll(9, |t, reply| {
            assert!(t == Token(1) && matches!(reply, Reply::Refused(Refusal::System(_))));
            refused += 1;
        });
        assert_eq!(refused, 1, "a question that was out is answered");
        assert!(net.submit(Token(2), question()).unwrap_err().closed);

        let (mut net, mut sec) = pair_of(4).unwrap();
        net.submit(Token(1), question()).unwrap();
        drop(net);
        assert!(matches!(sec.recv(None), Received::Request(..)), "what was asked comes first");
        assert!(matches!(sec.recv(None), Received::Closed));
        assert!(matches!(sec.recv(None), Received::Closed), "and again");
    }

    #[test]
    fn waiting_ends_by_a_question_or_by_the_limit() {
        let (mut net, mut sec) = pair().unwrap();
        assert!(matches!(sec.recv(Some(Duration::from_millis(1))), Received::Nothing));
        let helper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            net.submit(Token(5), question()).unwrap();
            net
        });
        assert!(matches!(sec.recv(Some(Duration::from_secs(10))), Received::Request(Token(5), _)));
        drop(helper.join());
    }
}
