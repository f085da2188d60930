//! Batches of datagrams out.
#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{iovec, mmsghdr, sockaddr_storage};

use super::BATCH;
use super::control::{Control, store, write_control};

/// A datagram to send.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// What.
    pub bytes: &'a [u8],
    /// To whom; the port means nothing on raw sockets.
    pub to: SocketAddr,
    /// From which of our addresses; `None`: what the kernel chooses.
    pub from: Option<IpAddr>,
    /// ToS or traffic class.
    pub tos: u8,
    /// Let the kernel cut `bytes` into datagrams of this many octets (UDP_SEGMENT); 0: it is one datagram.
    pub segment: u16,
}

/// What the kernel reads beside the datagrams themselves. Kept, since to clear it would cost more than a datagram.
pub struct Sender(Box<Headers>);

struct Headers {
    names: [sockaddr_storage; BATCH],
    controls: [Control; BATCH],
    iovecs: [iovec; BATCH],
    messages: [mmsghdr; BATCH],
}

// SAFETY: the pointers inside are set anew for every call and mean nothing between calls.
unsafe impl Send for Sender {}

impl Default for Sender {
    fn default() -> Self {
        // SAFETY: all-zero bytes are valid values of these plain C structs.
        Sender(Box::new(unsafe { zeroed() }))
    }
}

impl Sender {
    /// Sends at most [`BATCH`] datagrams and returns how many the kernel took.
    ///
    /// # Errors
    /// Why it did not take the first one.
    pub fn send(&mut self, fd: BorrowedFd<'_>, list: &[Outgoing<'_>]) -> io::Result<usize> {
        let Headers { names, controls, iovecs, messages } = &mut *self.0;
        let count = list.len().min(BATCH);
        for (index, out) in list.iter().take(count).enumerate() {
            let header = &mut messages[index].msg_hdr;
            header.msg_namelen = store(&mut names[index], out.to);
            header.msg_name = (&raw mut names[index]).cast();
            let base = out.bytes.as_ptr().cast_mut().cast();
            iovecs[index] = iovec { iov_base: base, iov_len: out.bytes.len() };
            header.msg_iov = &raw mut iovecs[index];
            header.msg_iovlen = 1;
            header.msg_controllen = write_control(&mut controls[index], out);
            header.msg_control = match header.msg_controllen {
                0 => std::ptr::null_mut(),
                _ => (&raw mut controls[index]).cast(),
            };
        }
        // SAFETY: the first `count` headers point to names, vectors and control space that belong to us, and to octets that
        // were lent for longer than this call; the kernel only reads through them.
        let sent = unsafe {
            libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}
