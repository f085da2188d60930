//! A client's socket: whole messages in, whole replies out, and never a wait.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

use crate::message::{HEADER_LEN, Header, MAX_FDS};
use crate::session::{Disconnect, Session};

/// Replies that wait for a client to read them; more, and his next commands wait too.
const MAX_BACKLOG: usize = 4 << 20;
/// Octets read at once: a claim of a megabyte is believed as it arrives.
const CHUNK: usize = 64 << 10;

/// A whole message.
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("it closed the connection")]
    Closed,
    #[error("it closed the connection in the middle of a message")]
    Torn,
    #[error("{0}")]
    Protocol(#[from] Disconnect),
    #[error("{0}")]
    Io(#[from] io::Error),
}

pub(crate) struct Connection {
    stream: UnixStream,
    head: [u8; HEADER_LEN],
    head_len: usize,
    body: Vec<u8>,
    /// Octets of the body that have come.
    body_len: usize,
    fds: Vec<OwnedFd>,
    out: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            head: [0; HEADER_LEN],
            head_len: 0,
            body: Vec::new(),
            body_len: 0,
            fds: Vec::new(),
            out: Vec::new(),
            sent: 0,
        })
    }

    /// The next message, if all of it has come.
    pub(crate) fn receive(&mut self) -> Result<Option<Frame>, Broken> {
        // The header first and by itself: descriptors come with the octets they were sent with, and so those that have
        // come when a message is whole are the message's.
        while self.head_len < HEADER_LEN {
            let mut head = self.head;
            let into = head.get_mut(self.head_len..).unwrap_or_default();
            let Some(count) = self.receive_some(into, self.head_len == 0)? else { return Ok(None) };
            self.head = head;
            self.head_len += count;
        }
        let header = Header::parse(&self.head);
        let need = Session::body_len(&header)?;
        while self.body_len < need {
            let mut body = std::mem::take(&mut self.body);
            body.resize(need.min(self.body_len + CHUNK), 0);
            let into = body.get_mut(self.body_len..).unwrap_or_default();
            let received = self.receive_some(into, false);
            self.body = body;
            match received? {
                Some(count) => self.body_len += count,
                None => return Ok(None),
            }
        }
        let mut body = std::mem::take(&mut self.body);
        body.truncate(need);
        self.head_len = 0;
        self.body_len = 0;
        Ok(Some(Frame { header, body, fds: std::mem::take(&mut self.fds) }))
    }

    /// Octets that are there; `None` if there are none yet.
    fn receive_some(&mut self, into: &mut [u8], between: bool) -> Result<Option<usize>, Broken> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut ancillary, flags) {
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(Broken::Closed),
            Err(error) => return Err(Broken::Io(error.into())),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > MAX_FDS {
            return Err(Disconnect::TooManyDescriptors.into());
        }
        match got.bytes {
            0 if between => Err(Broken::Closed),
            0 => Err(Broken::Torn),
            count => Ok(Some(count)),
        }
    }

    /// Where replies are put, to be sent by [`flush`](Connection::flush).
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            let rest = self.out.get(self.sent..).unwrap_or_default();
            match send(&self.stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.out.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        // A single long reply is no reason to hold its memory for ever.
        self.out.shrink_to(CHUNK);
        Ok(())
    }

    /// Whether replies wait to be sent.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether so many replies wait that no more commands should be taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.out.len() >= MAX_BACKLOG
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
