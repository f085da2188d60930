//! Batches of datagrams in.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{iovec, mmsghdr, sockaddr_storage};

use super::BATCH;
use super::control::{Arrived, Control, address_of, each_control};

/// What the kernel reads and writes beside the datagrams themselves. Kept, since to clear it would cost more than a datagram.
pub(super) struct Receiver(Box<Headers>);

struct Headers {
    names: [sockaddr_storage; BATCH],
    controls: [Control; BATCH],
    iovecs: [iovec; BATCH],
    messages: [mmsghdr; BATCH],
}

// SAFETY: the pointers inside are set anew for every call and mean nothing between calls.
unsafe impl Send for Receiver {}

impl Receiver {
    pub(super) fn new() -> Receiver {
        // SAFETY: all-zero bytes are valid values of these plain C structs.
        Receiver(Box::new(unsafe { zeroed() }))
    }

    /// Receives one datagram into each slot, as far as there are any and at most [`BATCH`]; `each` gets the number of the slot,
    /// how it came and its length. Those that do not fit their slot, and those without a sender, are dropped.
    pub(super) fn receive<'m>(
        &mut self,
        fd: BorrowedFd<'_>,
        slots: impl Iterator<Item = &'m mut [u8]>,
        mut each: impl FnMut(usize, Arrived, usize),
    ) -> io::Result<usize> {
        let Headers { names, controls, iovecs, messages } = &mut *self.0;
        let mut limit = 0;
        for (index, slot) in slots.take(BATCH).enumerate() {
            iovecs[index] = iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut messages[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as u32;
            header.msg_iov = &raw mut iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
            header.msg_flags = 0;
            limit = index + 1;
        }
        if limit == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: the first `limit` headers point to names, vectors and control space that belong to us, and to slots that
        // were lent for longer than this call, each with its true length; nothing else refers to that memory meanwhile.
        let got = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                limit as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        for (index, message) in messages.iter().take(got as usize).enumerate() {
            let header = &message.msg_hdr;
            let Some(from) = address_of(&names[index]) else { continue };
            let length = message.msg_len as usize;
            if header.msg_flags & libc::MSG_TRUNC != 0 || length > iovecs[index].iov_len {
                continue;
            }
            let mut arrived = Arrived { from, to: None, tos: 0, segment: 0, lost: None };
            each_control(header, |level, kind, data| arrived.note(level, kind, data));
            each(index, arrived, length);
        }
        Ok(got as usize)
    }
}
