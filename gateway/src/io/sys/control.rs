//! Ancillary data and socket addresses, between the kernel's form and ours.
#![allow(unsafe_code)]

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, cmsghdr, msghdr, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};

use super::send::Outgoing;

/// `UDP_SEGMENT` and `UDP_GRO` of linux/udp.h.
pub(super) const UDP_SEGMENT: c_int = 103;
pub(super) const UDP_GRO: c_int = 104;

/// Room for ancillary data, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL]);

const CONTROL: usize = 192;

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
    /// Datagrams that the socket has dropped since it was opened, for want of room; `None`: the kernel did not say.
    pub lost: Option<u32>,
}

impl Arrived {
    pub(super) fn note(&mut self, level: c_int, kind: c_int, data: &[u8]) {
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
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.lost = Some(int(data) as u32),
            (libc::IPPROTO_UDP, UDP_GRO) => self.segment = int(data).max(0) as usize,
            _ => {}
        }
    }
}

pub(super) fn write_control(control: &mut Control, out: &Outgoing<'_>) -> usize {
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

pub(super) fn each_control(header: &msghdr, mut each: impl FnMut(c_int, c_int, &[u8])) {
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

pub(super) fn int(data: &[u8]) -> c_int {
    data.get(..4).and_then(|o| o.try_into().ok()).map_or(0, c_int::from_ne_bytes)
}

pub(super) fn address_of(storage: &sockaddr_storage) -> Option<SocketAddr> {
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

pub(super) fn store(storage: &mut sockaddr_storage, address: SocketAddr) -> u32 {
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
