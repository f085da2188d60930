//! A connection to a vfio-user server.
//!
//! Whoever asks waits for the answer, one at a time and not for ever. Whoever only tells something, as the data path does, never
//! waits: what the socket does not take at once is kept, in order, and goes out before anything later. A server that does not
//! keep the rules is not spoken to any more.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recv, send, sendmsg, socket_with,
};

use super::wire::{HEADER, Header, LONGEST, Message};
use crate::pci::PciError;

/// How long an answer may take: steps, and their length. Steps are counted, so that a process that was stopped has not waited.
const STEPS: usize = 250;
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Octets that are kept for a server that does not read, at most.
const KEPT: usize = 256 * 1024;

/// A connection.
pub(super) struct Line {
    socket: OwnedFd,
    /// What the socket has not taken yet.
    out: Mutex<Vec<u8>>,
    /// Whoever holds this asks and listens.
    asking: Mutex<Asking>,
    broken: OnceLock<String>,
}

#[derive(Default)]
struct Asking {
    next: u16,
    heard: Vec<u8>,
}

impl Line {
    /// # Errors
    /// [`PciError::Refused`]: nobody listens there.
    pub(super) fn connect(path: &Path) -> Result<Line, PciError> {
        let refused = |cause: Errno| {
            PciError::refused(
                format!("connecting to {} (is what serves the card started there?)", path.display()),
                cause,
            )
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(refused)?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(refused)?).map_err(|cause| match cause {
            Errno::AGAIN => PciError::Gone(format!("the server at {} takes no more clients", path.display())),
            cause => refused(cause),
        })?;
        Ok(Line { socket, out: Mutex::default(), asking: Mutex::default(), broken: OnceLock::new() })
    }

    /// Why it is not spoken to any more.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }

    /// Tells something that is not answered. Never waits.
    pub(super) fn tell(&self, message: Message) {
        if self.broken.get().is_some() {
            return;
        }
        let octets = message.finish(0, false);
        let mut out = self.out();
        if out.len() + octets.len() > KEPT {
            return self.give_up("the server does not read what it is told".into());
        }
        out.extend(octets);
        self.flush(&mut out);
    }

    /// Asks, and waits for the answer: what follows its header.
    ///
    /// # Errors
    /// [`PciError`]: the server says no, or there is none any more.
    pub(super) fn ask(
        &self,
        what: &str,
        message: Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, PciError> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let id = asking.next;
        asking.next = id.wrapping_add(1);
        let command = message.command();
        let octets = message.finish(id, true);
        let mut sent = false;
        for _ in 0..STEPS {
            if !sent {
                sent = self.send(&octets, fds);
            } else {
                self.flush(&mut self.out());
            }
            if sent && let Some((header, body)) = self.hear(&mut asking) {
                if header.id != id || header.command != command {
                    self.give_up(format!("the server answers something else than {what}"));
                    break;
                }
                return match header.error {
                    None => Ok(body),
                    Some(number) => {
                        let errno =
                            if (1..4096).contains(&number) { number } else { Errno::IO.raw_os_error() };
                        Err(PciError::refused(what, std::io::Error::from_raw_os_error(errno)))
                    }
                };
            }
            if self.broken.get().is_some() {
                break;
            }
            let wants = match sent && self.out().is_empty() {
                true => PollFlags::IN,
                false => PollFlags::IN | PollFlags::OUT,
            };
            // However it ends: the socket is looked at.
            let _ = poll(&mut [PollFd::new(&self.socket, wants)], Some(&STEP));
        }
        self.give_up(format!("the server does not answer {what}; is it in use by somebody else?"));
        Err(PciError::Gone(self.broken().unwrap_or_default().into()))
    }

    /// Sends a message with descriptors, if all that comes before it has gone out; true when it has begun to go out.
    fn send(&self, octets: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let mut out = self.out();
        self.flush(&mut out);
        if !out.is_empty() || self.broken.get().is_some() {
            return false;
        }
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            self.give_up("more descriptors than a message carries".into());
            return false;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&self.socket, &[IoSlice::new(octets)], &mut ancillary, flags) {
            // The descriptors have gone with the first octet.
            Ok(count) => {
                out.extend(octets.get(count..).unwrap_or_default());
                true
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => false,
            Err(error) => {
                self.give_up(format!("the server has gone: {error}"));
                false
            }
        }
    }

    fn flush(&self, out: &mut Vec<u8>) {
        while !out.is_empty() {
            match send(&self.socket, out, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(0) => break,
                Ok(count) => {
                    out.drain(..count.min(out.len()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(error) => {
                    out.clear();
                    self.give_up(format!("the server has gone: {error}"));
                }
            }
        }
    }

    /// The next message, if all of it is there.
    fn hear(&self, asking: &mut Asking) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some(head) = asking.heard.first_chunk::<HEADER>() {
                let Some(header) = Header::parse(head) else {
                    self.give_up("the server sends a message of an impossible length".into());
                    return None;
                };
                if !header.is_reply {
                    // It wants to read or write memory for which it was given a file.
                    self.give_up(format!("the server asks us for something (command {})", header.command));
                    return None;
                }
                if asking.heard.len() >= HEADER + header.rest {
                    let rest = asking.heard.split_off(HEADER + header.rest);
                    let mut body = std::mem::replace(&mut asking.heard, rest);
                    body.drain(..HEADER);
                    return Some((header, body));
                }
            }
            let mut octets = [0; 4096];
            if asking.heard.len() > LONGEST {
                self.give_up("the server sends more than was asked for".into());
                return None;
            }
            match recv(&self.socket, &mut octets, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.give_up("the server has closed the connection".into());
                    return None;
                }
                Ok((count, _)) => asking.heard.extend(&octets[..count.min(octets.len())]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    self.give_up(format!("the server has gone: {error}"));
                    return None;
                }
            }
        }
    }

    fn give_up(&self, why: String) {
        if self.broken.set(why).is_ok() {
            // The server learns of it too, and lets go of our memory.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        }
    }

    fn out(&self) -> MutexGuard<'_, Vec<u8>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
