//! TUNSETIFF, the one call for which there is no safe interface.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Result;
use rustix::ioctl::{Updater, ioctl};

/// Packets without Ethernet headers.
const IFF_TUN: u16 = 0x0001;
/// No four octets of flags and protocol before each packet.
const IFF_NO_PI: u16 = 0x1000;
/// Several descriptors for one device.
const IFF_MULTI_QUEUE: u16 = 0x0100;

/// `_IOW('T', 202, int)`; takes a `struct ifreq` all the same.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;

/// `struct ifreq` as far as TUNSETIFF looks at it: 40 octets on 64-bit machines, 32 on others.
#[repr(C, align(8))]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens one queue of the TUN device of that name and makes the device if there is none. The device is gone when its last
/// queue is closed.
///
/// # Errors
/// Whatever the kernel says: no `/dev/net/tun`, no privilege, a device of that name that is in use or no TUN device.
pub(crate) fn open_queue(name: &str, multi_queue: bool) -> Result<OwnedFd> {
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut request = IfReq { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    if multi_queue {
        request.flags |= IFF_MULTI_QUEUE;
    }
    // One octet less than there is: the kernel wants a NUL at the end.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, and `IfReq` is as large as that or larger.
    let update = unsafe { Updater::<TUNSETIFF, IfReq>::new(&mut request) };
    // SAFETY: `fd` is open, and the kernel keeps no pointer to the request after the call.
    unsafe { ioctl(fd.as_fd(), update) }?;
    Ok(fd)
}
