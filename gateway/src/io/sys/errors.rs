//! A socket's error queue: what came back for what was sent.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{iovec, msghdr, sockaddr_storage};

use super::control::{Control, address_of, each_control, int};

/// An error that came back for something we sent (RFC 792, RFC 4443, or our own stack's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendError {
    /// To whom it was sent.
    pub to: SocketAddr,
    /// The kernel's number for it.
    pub errno: i32,
    /// The path MTU, when that was what was wrong.
    pub mtu: Option<u32>,
    /// Whether our own stack said so, not somebody out there.
    pub local: bool,
}

/// Takes one error off a socket's error queue.
///
/// # Errors
/// What the kernel says; `WouldBlock` when there is none.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<SendError>> {
    // SAFETY: all-zero bytes are valid values of these plain C structs.
    let mut name: sockaddr_storage = unsafe { zeroed() };
    let mut control = Control([0; _]);
    let mut payload = [0u8; 64];
    let mut vector = iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: as above.
    let mut header: msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<sockaddr_storage>() as u32;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>();
    // SAFETY: the header points to memory that lives until the call returns, each piece with its true length.
    let got =
        unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(to) = address_of(&name) else { return Ok(None) };
    let mut found = None;
    each_control(&header, |level, kind, data| {
        let ours = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        // struct sock_extended_err: errno u32, origin, type, code, pad, info u32, data u32.
        if let (true, Some(error)) = (ours, data.get(..16)) {
            let errno = int(error);
            let info = error.get(8..).map_or(0, int) as u32;
            found = Some(SendError {
                to,
                errno,
                mtu: (errno == libc::EMSGSIZE && info > 0).then_some(info),
                local: error[4] == libc::SO_EE_ORIGIN_LOCAL,
            });
        }
    });
    Ok(found)
}
