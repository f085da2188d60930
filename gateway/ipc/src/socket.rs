//! The channel between two processes: a pair of SOCK_SEQPACKET sockets. Both ends are non-blocking and keep what the kernel
//! does not take yet, in its order and bounded.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use spi::{Doorbell, Token};

use crate::channel::{MAX_BACKLOG, Received, Unsent, gone};
use crate::codec::{MAX_FDS, Message};
use crate::frame::{self, Assembler, Datagram, MAX_DATAGRAM};
use crate::request::{IkeSaRef, Refusal, Reply, Request};

/// Octets the kernel keeps for the other side, as far as it lets us: several long messages.
const BUFFER: usize = 1 << 20;
/// Answers that wait because the other side does not read; when there are so many, its questions wait too.
const MAX_UNREAD: usize = 256;
/// Datagrams of a message looked at in one go, so that one that never ends does not keep us.
const AT_ONCE: usize = 64;

/// Who is at the other end. The kernel says with each datagram who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// Two sockets that are connected to each other, one for each process.
///
/// # Errors
/// Out of file descriptors.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// What both ends are made of.
pub(crate) struct Wire {
    socket: OwnedFd,
    /// Readable when the socket or `wake` has something, or can take what waits.
    pub(crate) epoll: OwnedFd,
    wake: Doorbell,
    party: Option<Party>,
    pub(crate) unsent: VecDeque<Datagram>,
    assembler: Assembler,
    buffer: Box<[u8]>,
    armed: epoll::EventFlags,
    pub(crate) closed: bool,
}

impl Wire {
    pub(crate) fn new(socket: OwnedFd, party: Option<Party>) -> io::Result<Wire> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        sockopt::set_socket_passcred(&socket, true)?;
        // Who may have more than the system's limit gets it; what there is by default is enough for one message.
        if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
        }
        let (epoll, wake) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Doorbell::new()?);
        let armed = epoll::EventFlags::IN;
        epoll::add(&epoll, &socket, epoll::EventData::new_u64(0), armed)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(1), armed)?;
        // One octet more than a datagram may have shows that one is longer.
        let buffer = vec![0; MAX_DATAGRAM + 1].into_boxed_slice();
        let (unsent, assembler) = (VecDeque::new(), Assembler::default());
        Ok(Wire { socket, epoll, wake, party, unsent, assembler, buffer, armed, closed: false })
    }

    /// Sends what waits, as far as it goes.
    pub(crate) fn flush(&mut self) {
        while !self.closed
            && let Some(datagram) = self.unsent.pop_front()
        {
            match send(self.socket.as_fd(), &datagram) {
                Ok(_) => {}
                Err(Errno::INTR) => self.unsent.push_front(datagram),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => {
                    self.unsent.push_front(datagram);
                    break;
                }
                Err(error) => self.close(&error),
            }
        }
        self.arm();
    }

    /// The next message, if one is there. What it is must be what `M` reads.
    pub(crate) fn receive<M: Message>(&mut self) -> Option<(Token, M)> {
        for _ in 0..AT_ONCE {
            if self.closed {
                return None;
            }
            let (length, fds) = match receive(self.socket.as_fd(), &mut self.buffer, self.party) {
                Ok(Some(got)) => got,
                Ok(None) => {
                    self.close(&"it hung up");
                    return None;
                }
                Err(Receiving::Nothing) => return None,
                Err(Receiving::Wrong(what)) => {
                    self.close(&what);
                    return None;
                }
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            match self.assembler.take(datagram, fds) {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(broken) => self.close(&broken),
            }
        }
        None
    }

    fn close(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.closed, true) {
            tracing::debug!(%why, "the channel between the two sides is closed");
            self.unsent.clear();
        }
    }

    /// Has the doorbell ring for what matters now.
    fn arm(&mut self) {
        let mut wanted = epoll::EventFlags::empty();
        wanted.set(epoll::EventFlags::IN, self.unsent.len() < MAX_UNREAD);
        wanted.set(epoll::EventFlags::OUT, !self.unsent.is_empty());
        if wanted != self.armed
            && epoll::modify(&self.epoll, &self.socket, epoll::EventData::new_u64(0), wanted).is_ok()
        {
            self.armed = wanted;
        }
    }
}

pub(crate) fn send(socket: BorrowedFd<'_>, datagram: &Datagram) -> Result<usize, Errno> {
    let fds: Vec<BorrowedFd<'_>> = datagram.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&datagram.octets)], &mut control, SendFlags::NOSIGNAL)
}

enum Receiving {
    Nothing,
    Wrong(String),
}

/// A datagram's length and its descriptors; `None`: the other side hung up.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    party: Option<Party>,
) -> Result<Option<(usize, Vec<OwnedFd>)>, Receiving> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let into = &mut [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Receiving::Nothing),
            Err(error) => return Err(Receiving::Wrong(error.to_string())),
            Ok(got) => break got,
        }
    };
    let (mut fds, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            _ => {}
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Receiving::Wrong("a datagram that is too long".into()));
    }
    if let Some(party) = party {
        let is = |sender: rustix::net::UCred| {
            sender.pid.as_raw_nonzero().get() == party.pid && sender.uid.as_raw() == party.uid
        };
        if !sender.is_some_and(is) {
            return Err(Receiving::Wrong("a datagram of another process".into()));
        }
    }
    Ok(Some((got.bytes, fds)))
}

/// The network side's end.
pub(crate) struct Network {
    wire: Wire,
    out: BTreeSet<Token>,
    forgotten: VecDeque<IkeSaRef>,
    /// Answers of our own to questions that could not go out.
    refused: VecDeque<(Token, Reply)>,
    depth: usize,
}

impl Network {
    pub(crate) fn new(socket: OwnedFd, party: Option<Party>, depth: usize) -> io::Result<Network> {
        let wire = Wire::new(socket, party)?;
        let (forgotten, refused) = (VecDeque::new(), VecDeque::new());
        Ok(Network { wire, out: BTreeSet::new(), forgotten, refused, depth })
    }

    pub(crate) fn submit(&mut self, token: Token, mut request: Request) -> Result<(), Unsent> {
        if self.wire.closed {
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
        if self.out.len() >= self.depth || !self.forgotten.is_empty() || !self.wire.unsent.is_empty() {
            return Err(Unsent { request: Box::new(request), closed: false });
        }
        self.out.insert(token);
        match frame::cut(token, &mut request) {
            Ok(datagrams) => {
                self.wire.unsent.extend(datagrams);
                self.wire.flush();
            }
            Err(broken) => {
                // Nothing an honest peer makes us ask is so long; the question is answered here.
                let why = Refusal::System(format!("a question that is no question: {broken}"));
                self.refused.push_back((token, Reply::Refused(why)));
                self.wire.wake.ring();
            }
        }
        Ok(())
    }

    pub(crate) fn poll(&mut self, budget: usize, mut on_reply: impl FnMut(Token, Reply)) -> usize {
        self.wire.wake.answer();
        self.flush();
        let mut delivered = 0;
        while delivered < budget {
            if let Some((token, reply)) = self.refused.pop_front() {
                self.out.remove(&token);
                delivered += 1;
                on_reply(token, reply);
            } else if let Some((token, reply)) = self.wire.receive::<Reply>() {
                if self.out.remove(&token) {
                    delivered += 1;
                    on_reply(token, reply);
                }
            } else if self.wire.closed
                && let Some(token) = self.out.pop_first()
            {
                delivered += 1;
                on_reply(token, gone());
            } else {
                break;
            }
        }
        if self.wire.closed {
            // It would ring for ever.
            let _ = epoll::delete(&self.wire.epoll, &self.wire.socket);
            if !self.out.is_empty() {
                self.wire.wake.ring();
            }
        }
        delivered
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.wire.epoll.as_fd()
    }

    pub(crate) fn room(&self) -> usize {
        self.depth - self.out.len().min(self.depth)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.wire.closed
    }

    fn flush(&mut self) {
        self.wire.flush();
        while self.wire.unsent.is_empty()
            && !self.wire.closed
            && let Some(sa) = self.forgotten.pop_front()
        {
            if let Ok(datagrams) = frame::cut(Token(0), &mut Request::Forget { sa }) {
                self.wire.unsent.extend(datagrams);
            }
            self.wire.flush();
        }
    }
}

/// The key side's end.
pub(crate) struct Secure {
    wire: Wire,
}

impl Secure {
    pub(crate) fn new(socket: OwnedFd, party: Option<Party>) -> io::Result<Secure> {
        Ok(Secure { wire: Wire::new(socket, party)? })
    }

    pub(crate) fn try_recv(&mut self) -> Received {
        self.wire.flush();
        if self.wire.unsent.len() >= MAX_UNREAD {
            return Received::Nothing;
        }
        match self.wire.receive() {
            Some((token, request)) => Received::Request(token, Box::new(request)),
            None if self.wire.closed => Received::Closed,
            None => Received::Nothing,
        }
    }

    pub(crate) fn reply(&mut self, token: Token, mut reply: Reply) {
        let datagrams = frame::cut(token, &mut reply).or_else(|broken| {
            let why = format!("the answer cannot be given: {broken}");
            frame::cut(token, &mut Reply::Refused(Refusal::System(why)))
        });
        self.wire.unsent.extend(datagrams.into_iter().flatten());
        self.wire.flush();
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.wire.epoll.as_fd()
    }
}
