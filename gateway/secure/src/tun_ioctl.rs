//! TUNSETIFF and TUNSETOFFLOAD, the calls for which there is no safe interface (`linux/if_tun.h`).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc::{TunOffload, TunSpec};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Updater, ioctl};

/// Packets without Ethernet headers.
const IFF_TUN: u16 = 0x0001;
/// Packets with them.
const IFF_TAP: u16 = 0x0002;
/// No four octets of flags and protocol before each packet.
const IFF_NO_PI: u16 = 0x1000;
/// Several descriptors for one device.
const IFF_MULTI_QUEUE: u16 = 0x0100;
/// A `virtio_net_hdr` before each packet.
const IFF_VNET_HDR: u16 = 0x4000;

/// What may be left to whoever reads: checksums; TCP superpackets of both families, with ECN; UDP superpackets.
const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO: usize = 0x02 | 0x04 | 0x08;
const TUN_F_USO: usize = 0x20 | 0x40;

/// `_IOW('T', 202, int)`; takes a `struct ifreq` all the same.
const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
/// `_IOW('T', 208, unsigned int)`; takes the number itself.
const TUNSETOFFLOAD: rustix::ioctl::Opcode = 0x4004_54d0;

/// `_IOR('T', 210, unsigned int)`; writes a `struct ifreq` all the same.
const TUNGETIFF: rustix::ioctl::Opcode = 0x8004_54d2;

/// `struct ifreq` as far as TUNSETIFF looks at it: 40 octets on 64-bit machines, 32 on others.
#[repr(C, align(8))]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens the queues of the TUN device of that name and makes the device. It is gone when its last queue is closed. A kernel
/// that cannot have several queues gives one, and one that has no offloads gives none.
///
/// # Errors
/// As [`open_queue`].
pub(crate) fn open_queues(spec: &TunSpec) -> Result<(Vec<OwnedFd>, TunOffload)> {
    let TunSpec { name, queues: count, offload, ethernet, .. } = spec;
    let kind = if *ethernet { IFF_TAP } else { IFF_TUN };
    let mut header = *offload;
    let mut several = *count > 1;
    let first = loop {
        match open_queue(name, kind, several, header) {
            // A flag it does not know; which one it does not say.
            Err(Errno::INVAL) if header => header = false,
            Err(Errno::INVAL) if several => (several, header) = (false, *offload),
            other => break other?,
        }
    };
    let mut queues = vec![first];
    while several && queues.len() < usize::from(*count) {
        queues.push(open_queue(name, kind, true, header)?);
    }
    let granted = if header { grant(queues[0].as_fd()) } else { TunOffload::default() };
    Ok((queues, granted))
}

/// Whether a descriptor is a queue of the TUN (or TAP) device of that name.
///
/// # Errors
/// Whatever the kernel says of a descriptor that is none of any device.
pub(crate) fn is_queue_of(fd: BorrowedFd<'_>, name: &str, ethernet: bool) -> Result<bool> {
    let mut request = IfReq { name: [0; 16], flags: 0, rest: [0; 22] };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, and `IfReq` is as large as that or larger.
    let update = unsafe { Updater::<TUNGETIFF, IfReq>::new(&mut request) };
    // SAFETY: `fd` is open, and the kernel keeps no pointer to the request after the call. A descriptor that is no TUN
    // device's has no such call, or one (the number is the TUN driver's own) that writes no more than this.
    unsafe { ioctl(fd, update) }?;
    let told = request.name.split(|octet| *octet == 0).next().unwrap_or_default();
    let kind = if ethernet { IFF_TAP } else { IFF_TUN };
    Ok(told == name.as_bytes() && request.flags & (IFF_TUN | IFF_TAP) == kind)
}

/// Takes over as much work as the kernel leaves. It is a matter of the device: one queue is enough.
fn grant(fd: BorrowedFd<'_>) -> TunOffload {
    let set = |flags: usize| {
        // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
        let setter = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags) };
        // SAFETY: as above.
        unsafe { ioctl(fd, setter) }.is_ok()
    };
    let all = TunOffload { header: true, checksum: true, tcp: true, udp: true };
    if set(TUN_F_CSUM | TUN_F_TSO | TUN_F_USO) {
        all
    } else if set(TUN_F_CSUM | TUN_F_TSO) {
        TunOffload { udp: false, ..all }
    } else if set(TUN_F_CSUM) {
        TunOffload { udp: false, tcp: false, ..all }
    } else {
        TunOffload { header: true, ..TunOffload::default() }
    }
}

/// Opens one queue of the TUN device of that name and makes the device if there is none.
///
/// # Errors
/// Whatever the kernel says: no `/dev/net/tun`, no privilege, a device of that name that is in use or no TUN device.
fn open_queue(name: &str, kind: u16, multi_queue: bool, header: bool) -> Result<OwnedFd> {
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut request = IfReq { name: [0; 16], flags: kind | IFF_NO_PI, rest: [0; 22] };
    if multi_queue {
        request.flags |= IFF_MULTI_QUEUE;
    }
    if header {
        request.flags |= IFF_VNET_HDR;
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
