//! The system calls without a safe interface: TUN devices with headers for segmentation offload, datagrams with ancillary
//! data. The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_in};
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl};

/// Datagrams per call.
pub const BATCH: usize = 64;

const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;

const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// `_IOW('T', 202, int)`, which takes a `struct ifreq` all the same.
const TUNSETIFF: Opcode = 0x4004_54ca;
/// `_IOW('T', 208, unsigned int)`.
const TUNSETOFFLOAD: Opcode = 0x4004_54d0;

/// Checksums left open, TCP and UDP segmentation for both IP versions (linux/if_tun.h).
const OFFLOADS: usize = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;

/// `struct ifreq` as far as TUNSETIFF looks at it.
#[repr(C, align(8))]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Opens a TUN device of this namespace. With `superpackets` every packet has a `virtio_net_hdr` before it, and may be many
/// packets in one.
///
/// # Errors
/// What the kernel says: no such device, or one without UDP segmentation (before Linux 6.2).
pub fn open_tun(name: &str, superpackets: bool) -> io::Result<OwnedFd> {
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut request = IfReq { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    if superpackets {
        request.flags |= IFF_VNET_HDR;
    }
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, and `IfReq` is as large as that.
    let update = unsafe { Updater::<TUNSETIFF, IfReq>::new(&mut request) };
    // SAFETY: `fd` is open, and the kernel keeps no pointer to the request after the call.
    unsafe { ioctl(fd.as_fd(), update) }?;
    let offloads = if superpackets { OFFLOADS } else { 0 };
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let set = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads) };
    // SAFETY: `fd` is an open TUN device.
    unsafe { ioctl(fd.as_fd(), set) }?;
    Ok(fd)
}

/// Lets the kernel cut what is sent on this socket into datagrams of `size` octets (UDP_SEGMENT); 0: it does not.
///
/// # Errors
/// What a kernel without it says.
pub fn set_segment(fd: impl AsFd, size: usize) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_UDP, UDP_SEGMENT, size as c_int)
}

/// Lets the kernel gather datagrams of one flow into one (UDP_GRO).
///
/// # Errors
/// What a kernel without it says.
pub fn set_gro(fd: impl AsFd) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_UDP, UDP_GRO, 1)
}

/// Asks for the address each datagram was sent to.
///
/// # Errors
/// What the kernel says.
pub fn set_pktinfo(fd: impl AsFd) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// Large socket buffers, beyond what an ordinary user may ask for.
///
/// # Errors
/// What the kernel says.
pub fn set_buffers(fd: impl AsFd, octets: usize) -> io::Result<()> {
    set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets as c_int)?;
    set_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, octets as c_int)
}

fn set_int(fd: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value lives until the call returns and its length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for ancillary data, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A control message with one int, and one with a `struct in_pktinfo`, as they lie in [`Control`].
const HEADER: usize = size_of::<cmsghdr>();
const PKTINFO_LEN: usize = 12;

/// What was received.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Octets, of all segments together.
    pub len: usize,
    /// Octets of each segment; 0: there is one.
    pub segment: usize,
    /// The sender.
    pub from: SocketAddrV4,
    /// The address it was sent to, where that was asked for.
    pub to: Ipv4Addr,
}

/// Receives one datagram, or as many as the kernel gathered into one; does not wait.
///
/// # Errors
/// What the kernel says; `WouldBlock` when there is nothing.
pub fn receive(fd: impl AsFd, into: &mut [u8]) -> io::Result<Arrived> {
    let mut control = Control([0; 64]);
    // SAFETY: all-zero octets are a valid value of this plain C struct.
    let mut name: sockaddr_in = unsafe { zeroed() };
    let mut vector = iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: as above; null pointers with zero lengths.
    let mut header: msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<sockaddr_in>() as u32;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>();
    // SAFETY: the header points to memory that lives until the call returns, each piece with its true length.
    let got = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let from =
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port));
    let mut arrived = Arrived { len: got as usize, segment: 0, from, to: Ipv4Addr::UNSPECIFIED };
    let mut rest = control.0.get(..header.msg_controllen).unwrap_or_default();
    while let Some((head, _)) = rest.split_first_chunk::<HEADER>() {
        let [a, b, c, d, e, f, g, h, level @ .., k0, k1, k2, k3] = *head;
        let len = usize::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let (level, kind) = (i32::from_ne_bytes(level), i32::from_ne_bytes([k0, k1, k2, k3]));
        let data = rest.get(HEADER..len).unwrap_or_default();
        match (level, kind, data) {
            (libc::IPPROTO_UDP, UDP_GRO, [w, x, y, z, ..]) => {
                arrived.segment = i32::from_ne_bytes([*w, *x, *y, *z]).max(0) as usize;
            }
            // struct in_pktinfo: interface, our address for an answer, destination in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO, [_, _, _, _, _, _, _, _, w, x, y, z]) => {
                arrived.to = Ipv4Addr::new(*w, *x, *y, *z);
            }
            _ => {}
        }
        rest = rest.get(len.max(HEADER).next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(arrived)
}

/// Sends one datagram from one of our addresses.
///
/// # Errors
/// What the kernel says.
pub fn send_from(fd: impl AsFd, bytes: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let mut control = Control([0; 64]);
    let len = HEADER + PKTINFO_LEN;
    let parts: [&[u8]; 5] = [
        &len.to_ne_bytes(),
        &libc::IPPROTO_IP.to_ne_bytes(),
        &libc::IP_PKTINFO.to_ne_bytes(),
        // Any interface; then the source address.
        &[0; 4],
        &from.octets(),
    ];
    let octets = parts.into_iter().flatten();
    control.0.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
    // SAFETY: all-zero octets are a valid value of this plain C struct.
    let mut name: sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as u16;
    name.sin_port = to.port().to_be();
    name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
    let mut vector = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: as above; null pointers with zero lengths.
    let mut header: msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<sockaddr_in>() as u32;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = len.next_multiple_of(8);
    // SAFETY: the header points to memory that lives until the call returns; the kernel only reads through it.
    let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const header, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends the same datagram up to [`BATCH`] times in one call on a connected socket; returns how many the kernel took.
///
/// # Errors
/// Why it did not take the first.
pub fn send_many(fd: impl AsFd, bytes: &[u8], times: usize) -> io::Result<usize> {
    let mut vector = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all-zero octets are valid values of these plain C structs.
    let mut messages: [mmsghdr; BATCH] = unsafe { zeroed() };
    let times = times.min(BATCH);
    for message in messages.iter_mut().take(times) {
        message.msg_hdr.msg_iov = &raw mut vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `times` headers point to one vector and its octets, which live until the call returns; the kernel
    // only reads through them.
    let sent = unsafe { libc::sendmmsg(fd.as_fd().as_raw_fd(), messages.as_mut_ptr(), times as u32, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// The ones' complement sum of octets in network order, not folded. An even number of octets, or the last piece.
pub fn sum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { sum_avx2(bytes) };
    }
    sum_words(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(bytes: &[u8]) -> u64 {
    sum_words(bytes)
}

/// The sum does not mind the order of octets as long as it is put back at the end (RFC 1071 section 2 (B)): added up as they
/// lie, in words wide enough that nothing is carried.
#[inline(always)]
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    total += u64::from(u32::from_ne_bytes(last));
    total
}

const _: () = assert!(HEADER == 16, "control messages are read and written by hand for 64-bit Linux");

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn receiver() -> (UdpSocket, SocketAddrV4) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(at) = socket.local_addr().unwrap() else { panic!() };
        (socket, at)
    }

    #[test]
    fn a_datagram_leaves_from_the_address_asked_for_and_tells_where_it_was_sent() {
        let (to, at) = receiver();
        set_pktinfo(&to).unwrap();
        let from = UdpSocket::bind("0.0.0.0:0").unwrap();
        send_from(&from, b"one", Ipv4Addr::new(127, 0, 0, 9), at).unwrap();
        let mut buffer = [0; 16];
        let arrived = receive(&to, &mut buffer).unwrap();
        assert_eq!((arrived.len, arrived.from.ip().octets(), arrived.to), (3, [127, 0, 0, 9], *at.ip()));
    }

    #[test]
    fn segments_are_cut_and_gathered_by_the_kernel() {
        let (to, at) = receiver();
        set_gro(&to).unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        from.connect(at).unwrap();
        set_segment(&from, 100).unwrap();
        from.send(&[7; 250]).unwrap();
        let mut buffer = [0; 1000];
        let (mut total, mut segment) = (0, 0);
        while let Ok(arrived) = receive(&to, &mut buffer) {
            total += arrived.len;
            segment = segment.max(arrived.segment);
        }
        assert_eq!((total, segment), (250, 100));
        set_segment(&from, 0).unwrap();
        assert_eq!(send_many(&from, b"x", 3).unwrap(), 3);
    }

    #[test]
    fn the_fast_sum_is_the_plain_one() {
        let bytes: Vec<u8> = (0..1401u32).map(|n| (n * 7 + 3) as u8).collect();
        for len in [0, 1, 2, 3, 63, 64, 1400, 1401] {
            assert_eq!(sum(&bytes[..len]), sum_words(&bytes[..len]));
        }
    }
}
