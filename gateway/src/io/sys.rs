//! The system calls without a safe interface: sockets with ancillary data (batches in and out with the local address and
//! ToS, the error queue), and the list of the machine's addresses. The only file of this crate with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{
    c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage,
};

/// Datagrams per call, in and out.
pub const BATCH: usize = 32;

/// `UDP_SEGMENT` and `UDP_GRO` of linux/udp.h.
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;

/// Room for ancillary data, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 256]);

/// A datagram that was received.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Sender; port 0 on raw sockets.
    pub from: SocketAddr,
    /// Our address it was sent to; `None` when the kernel did not say.
    pub to: Option<IpAddr>,
    /// ToS or traffic class.
    pub tos: u8,
    /// Octets of each datagram when the kernel gathered several into one (UDP_GRO); 0: it did not.
    pub segment: usize,
    /// Where it lies in the inbox.
    range: Range<usize>,
}

/// Memory for a batch of datagrams.
pub struct Inbox {
    memory: Vec<u8>,
    slot: usize,
    arrived: Vec<Arrived>,
}

impl Inbox {
    /// Room for datagrams of `slot` octets; longer ones are dropped.
    pub fn new(slot: usize) -> Inbox {
        Inbox { memory: vec![0; slot * BATCH], slot, arrived: Vec::new() }
    }

    /// Receives what is there, at most `limit` datagrams; what was here before is gone.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` when there is nothing.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        self.arrived.clear();
        // One without memory takes nothing.
        let limit =
            if self.slot == 0 { return Err(io::ErrorKind::WouldBlock.into()) } else { limit.min(BATCH) };
        // SAFETY: all-zero bytes are valid values of these plain C structs.
        let mut names: [sockaddr_storage; BATCH] = unsafe { zeroed() };
        let mut controls = [Control([0; 256]); BATCH];
        // SAFETY: as above.
        let mut iovecs: [iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above; null pointers with zero lengths.
        let mut messages: [mmsghdr; BATCH] = unsafe { zeroed() };
        for (index, chunk) in self.memory.chunks_exact_mut(self.slot).take(limit).enumerate() {
            iovecs[index] = iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: chunk.len() };
            let header = &mut messages[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as u32;
            header.msg_iov = &raw mut iovecs[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = size_of::<Control>();
        }
        // SAFETY: the first `limit` headers point to names, vectors, memory and control space that live until the call
        // returns, each with its true length, and nothing else refers to that memory meanwhile.
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
            if header.msg_flags & libc::MSG_TRUNC != 0 {
                continue;
            }
            let start = index * self.slot;
            let range = start..start + (message.msg_len as usize).min(self.slot);
            let mut arrived = Arrived { from, to: None, tos: 0, segment: 0, range };
            each_control(header, |level, kind, data| arrived.note(level, kind, data));
            self.arrived.push(arrived);
        }
        Ok(got as usize)
    }

    /// The datagrams of the last batch.
    pub fn datagrams(&self) -> impl Iterator<Item = (&Arrived, &[u8])> {
        self.arrived.iter().map(|arrived| (arrived, self.memory.get(arrived.range.clone()).unwrap_or(&[])))
    }
}

impl Arrived {
    fn note(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // struct in_pktinfo: interface, our address for an answer, destination in the header.
                if let Some(octets) = data.get(8..12).and_then(|o| <[u8; 4]>::try_from(o).ok()) {
                    self.to = Some(IpAddr::V4(Ipv4Addr::from(octets)));
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(octets) = data.get(..16).and_then(|o| <[u8; 16]>::try_from(o).ok()) {
                    self.to = Some(IpAddr::V6(Ipv6Addr::from(octets)));
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => self.tos = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.tos = int(data) as u8,
            (libc::IPPROTO_UDP, UDP_GRO) => self.segment = int(data).max(0) as usize,
            _ => {}
        }
    }
}

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

/// Sends at most [`BATCH`] datagrams and returns how many the kernel took.
///
/// # Errors
/// Why it did not take the first one.
pub fn send(fd: BorrowedFd<'_>, list: &[Outgoing<'_>]) -> io::Result<usize> {
    let count = list.len().min(BATCH);
    // SAFETY: all-zero bytes are valid values of these plain C structs.
    let mut names: [sockaddr_storage; BATCH] = unsafe { zeroed() };
    let mut controls = [Control([0; 256]); BATCH];
    // SAFETY: as above.
    let mut iovecs: [iovec; BATCH] = unsafe { zeroed() };
    // SAFETY: as above; null pointers with zero lengths.
    let mut messages: [mmsghdr; BATCH] = unsafe { zeroed() };
    for (index, out) in list.iter().take(count).enumerate() {
        let header = &mut messages[index].msg_hdr;
        header.msg_namelen = store(&mut names[index], out.to);
        header.msg_name = (&raw mut names[index]).cast();
        iovecs[index] = iovec { iov_base: out.bytes.as_ptr().cast_mut().cast(), iov_len: out.bytes.len() };
        header.msg_iov = &raw mut iovecs[index];
        header.msg_iovlen = 1;
        let used = write_control(&mut controls[index], out);
        if used > 0 {
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = used;
        }
    }
    // SAFETY: the first `count` headers point to names, vectors, bytes and control space that live until the call
    // returns; the kernel only reads through them.
    let sent =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

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
    let mut control = Control([0; 256]);
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

/// Sets a socket option that is an int.
///
/// # Errors
/// What the kernel says.
pub fn set_int(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value lives until the call returns and its length is that of an int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets the kernel gather datagrams of one flow into one (UDP_GRO).
///
/// # Errors
/// What a kernel without it says.
pub fn set_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_UDP, UDP_GRO, 1)
}

/// In a group of sockets bound to one port, gives the second those datagrams that begin with four zero octets (the
/// non-ESP marker of RFC 3948 section 2.2), and the first all others.
///
/// # Errors
/// What the kernel says.
pub fn steer_by_marker(fd: BorrowedFd<'_>) -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // A datagram too short for the load ends the program with 0: the first socket.
    let mut program = [
        libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: 0 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 1 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: 0 },
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: program and filter live until the call returns; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The path MTU that the kernel knows towards the peer of a connected UDP socket, octets of the IP packet.
///
/// # Errors
/// What the kernel says.
pub fn path_mtu(fd: BorrowedFd<'_>, v6: bool) -> io::Result<u32> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as u32;
    // SAFETY: the value and its length live until the call returns, and the kernel writes no more than that length.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast::<c_void>(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.max(0) as u32) }
}

/// The addresses of this machine's interfaces, with the interface's name.
///
/// # Errors
/// What the kernel says.
pub fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut head: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer is written on success only, and freed below.
    if unsafe { libc::getifaddrs(&raw mut head) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut at = head;
    while !at.is_null() {
        // SAFETY: getifaddrs gave a list of valid entries that ends with a null pointer.
        let entry = unsafe { &*at };
        at = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: an entry's address is as long as its family says; only the octets of that family are copied.
        let address = unsafe {
            let mut storage: sockaddr_storage = zeroed();
            let length = match c_int::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => size_of::<sockaddr_in>(),
                libc::AF_INET6 => size_of::<sockaddr_in6>(),
                _ => continue,
            };
            std::ptr::copy_nonoverlapping(
                entry.ifa_addr.cast::<u8>(),
                (&raw mut storage).cast::<u8>(),
                length,
            );
            address_of(&storage)
        };
        // SAFETY: an entry's name is a C string.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        if let Some(address) = address {
            found.push((name.to_string_lossy().into_owned(), address.ip()));
        }
    }
    // SAFETY: `head` came from getifaddrs, and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

fn write_control(control: &mut Control, out: &Outgoing<'_>) -> usize {
    let mut used = 0;
    let mut add = |level: c_int, kind: c_int, data: &[u8]| {
        const HEADER: usize = size_of::<cmsghdr>();
        let end = used + HEADER + data.len();
        let Some(space) = control.0.get_mut(used..end) else { return };
        // struct cmsghdr on 64-bit Linux: length (with the header), level, type; then the data.
        let (length, rest) = space.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        rest[8..].copy_from_slice(data);
        used = end.next_multiple_of(size_of::<usize>());
    };
    match out.from {
        Some(IpAddr::V4(from)) if !from.is_unspecified() => {
            // struct in_pktinfo: interface 0 (any), source address, destination (ignored).
            let mut info = [0u8; 12];
            info[4..8].copy_from_slice(&from.octets());
            add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(from)) if !from.is_unspecified() => {
            let mut info = [0u8; 20];
            info[..16].copy_from_slice(&from.octets());
            add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        _ => {}
    }
    if out.tos != 0 {
        let tos = c_int::from(out.tos).to_ne_bytes();
        match out.to {
            SocketAddr::V4(_) => add(libc::IPPROTO_IP, libc::IP_TOS, &tos),
            SocketAddr::V6(_) => add(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &tos),
        }
    }
    if out.segment != 0 {
        add(libc::IPPROTO_UDP, UDP_SEGMENT, &out.segment.to_ne_bytes());
    }
    used
}

fn each_control(header: &msghdr, mut each: impl FnMut(c_int, c_int, &[u8])) {
    // SAFETY: the kernel filled msg_control and msg_controllen of this header, or left both as we set them.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers that lie wholly inside the control space.
        let cmsg = unsafe { at.read_unaligned() };
        // SAFETY: the data of a control message follows its header, cmsg_len octets with the header counted.
        let data = unsafe {
            let length = (cmsg.cmsg_len as usize).saturating_sub(size_of::<cmsghdr>());
            std::slice::from_raw_parts(libc::CMSG_DATA(at), length)
        };
        each(cmsg.cmsg_level, cmsg.cmsg_type, data);
        // SAFETY: `at` is a header of this message's control space.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

fn int(data: &[u8]) -> c_int {
    data.get(..4).and_then(|o| o.try_into().ok()).map_or(0, c_int::from_ne_bytes)
}

fn address_of(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a sockaddr_in, which fits into every sockaddr_storage.
            let v4 = unsafe { (&raw const *storage).cast::<sockaddr_in>().read() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above for sockaddr_in6.
            let v6 = unsafe { (&raw const *storage).cast::<sockaddr_in6>().read() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // Flow labels are no part of an address here; the scope matters for link-local ones only.
            let scope = if address.is_unicast_link_local() { v6.sin6_scope_id } else { 0 };
            Some(SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, scope).into())
        }
        _ => None,
    }
}

fn store(storage: &mut sockaddr_storage, address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(v4) => {
            let raw = sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_in fits into every sockaddr_storage, which is at least as aligned.
            unsafe { (&raw mut *storage).cast::<sockaddr_in>().write(raw) };
            size_of::<sockaddr_in>() as u32
        }
        SocketAddr::V6(v6) => {
            let raw = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above for sockaddr_in6.
            unsafe { (&raw mut *storage).cast::<sockaddr_in6>().write(raw) };
            size_of::<sockaddr_in6>() as u32
        }
    }
}

const _: () = {
    assert!(size_of::<sockaddr_storage>() >= size_of::<sockaddr>());
    assert!(size_of::<cmsghdr>() == 16, "control messages are written by hand for 64-bit Linux");
};

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket, SocketAddr) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        set_int(receiver.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1).unwrap();
        set_int(receiver.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTOS, 1).unwrap();
        (UdpSocket::bind("0.0.0.0:0").unwrap(), receiver, to)
    }

    fn wait(inbox: &mut Inbox, socket: &UdpSocket) -> usize {
        for _ in 0..200 {
            match inbox.receive(socket.as_fd(), BATCH) {
                Ok(count) => return count,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        0
    }

    #[test]
    fn a_batch_arrives_with_addresses_and_tos_and_leaves_from_the_address_asked_for() {
        let (sender, receiver, to) = pair();
        let from = Some("127.0.0.2".parse().unwrap());
        let out = |bytes| Outgoing { bytes, to, from, tos: 0x2a, segment: 0 };
        assert_eq!(send(sender.as_fd(), &[out(b"one"), out(b"two!")]).unwrap(), 2);
        let mut inbox = Inbox::new(2048);
        let mut seen = Vec::new();
        while seen.len() < 2 && wait(&mut inbox, &receiver) > 0 {
            for (arrived, bytes) in inbox.datagrams() {
                assert_eq!(arrived.from.ip().to_string(), "127.0.0.2");
                assert_eq!(arrived.to, Some(to.ip()));
                assert_eq!(arrived.tos, 0x2a);
                seen.push(bytes.to_vec());
            }
        }
        assert_eq!(seen, [b"one".to_vec(), b"two!".to_vec()]);
    }

    #[test]
    fn the_kernel_cuts_a_long_buffer_into_segments() {
        let (sender, receiver, to) = pair();
        let bytes = [7u8; 250];
        let out = Outgoing { bytes: &bytes, to, from: None, tos: 0, segment: 100 };
        assert_eq!(send(sender.as_fd(), &[out]).unwrap(), 1);
        let mut inbox = Inbox::new(2048);
        let mut lengths = Vec::new();
        while lengths.len() < 3 && wait(&mut inbox, &receiver) > 0 {
            lengths.extend(inbox.datagrams().map(|(_, bytes)| bytes.len()));
        }
        assert_eq!(lengths, [100, 100, 50]);
    }

    #[test]
    fn a_refused_port_is_found_in_the_error_queue() {
        let (sender, receiver, to) = pair();
        set_int(sender.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1).unwrap();
        drop(receiver);
        let out = Outgoing { bytes: b"x", to, from: None, tos: 0, segment: 0 };
        assert_eq!(send(sender.as_fd(), &[out]).unwrap(), 1);
        let error = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            take_error(sender.as_fd()).ok().flatten()
        });
        let error = error.unwrap();
        assert_eq!((error.to, error.errno, error.mtu), (to, libc::ECONNREFUSED, None));
    }

    #[test]
    fn the_loopback_address_and_its_mtu_are_found() {
        let all = addresses().unwrap();
        assert!(all.iter().any(|(name, address)| name == "lo" && address.is_loopback()), "{all:?}");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        assert!(path_mtu(socket.as_fd(), false).unwrap() >= 1500);
    }

    #[test]
    fn marked_datagrams_go_to_the_second_socket_of_a_group() {
        let socket = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket
        };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = socket();
        first.bind(&any.into()).unwrap();
        let to = first.local_addr().unwrap().as_socket().unwrap();
        let second = socket();
        second.bind(&to.into()).unwrap();
        steer_by_marker(first.as_fd()).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in [&b"\0\0\0\0ike"[..], b"\xff", b"\x01\x02\x03\x04esp"] {
            sender.send_to(datagram, to).unwrap();
        }
        let (first, second): (UdpSocket, UdpSocket) = (first.into(), second.into());
        let mut inbox = Inbox::new(2048);
        let mut lengths = |socket: &UdpSocket, want: usize| {
            let mut all = Vec::new();
            while all.len() < want && wait(&mut inbox, socket) > 0 {
                all.extend(inbox.datagrams().map(|(_, bytes)| bytes.len()));
            }
            all
        };
        assert_eq!(lengths(&first, 2), [1, 7]);
        assert_eq!(lengths(&second, 1), [7]);
    }
}
