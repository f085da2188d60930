//! The system calls without a safe interface: sockets with ancillary data (batches in and out with the local address and
//! ToS, the error queue), steering between sockets, vectors of octets into a TUN device, and the list of the machine's
//! addresses. The only folder of this crate with unsafe code.
#![allow(unsafe_code)]

mod control;
mod errors;
mod inbox;
mod landing;
mod receive;
mod send;
mod steer;

use std::ffi::c_void;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, sockaddr_in, sockaddr_in6, sockaddr_storage};

pub use control::Arrived;
pub use errors::{SendError, take_error};
pub use inbox::Inbox;
pub use landing::{LANDINGS, Landing};
pub use send::{Outgoing, Sender};
pub use steer::{steer_by_spi, take_lane_only};

use control::{UDP_GRO, address_of};

/// Datagrams per call, in and out.
pub const BATCH: usize = 32;

/// Lets the kernel gather datagrams of one flow into one (UDP_GRO).
///
/// # Errors
/// What a kernel without it says.
pub fn set_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::IPPROTO_UDP, UDP_GRO, 1)
}

/// Octets that wait in a socket's receive buffer, as the kernel counts them (`SO_MEMINFO`), and those it may hold.
///
/// # Errors
/// What the kernel says.
pub fn queued(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_RCVBUF are the first two of nine numbers.
    let mut values = [0u32; 9];
    let mut length = size_of::<[u32; 9]>() as u32;
    // SAFETY: values and their length live until the call returns, and the kernel writes no more than that length.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((values[0], values[1])) }
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

/// An address of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The length of the network it is of.
    pub prefix: u8,
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// What the kernel says.
pub fn addresses() -> io::Result<Vec<InterfaceAddress>> {
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
        if entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: address and mask are null, or as long as the address's family says.
        let (address, mask) = unsafe { (copied(entry.ifa_addr), copied(entry.ifa_netmask)) };
        // SAFETY: an entry's name is a C string.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        if let Some(address) = address {
            let prefix = match mask {
                Some(IpAddr::V4(mask)) => u32::from(mask).count_ones() as u8,
                Some(IpAddr::V6(mask)) => u128::from(mask).count_ones() as u8,
                None if address.is_ipv4() => 32,
                None => 128,
            };
            found.push(InterfaceAddress { name: name.to_string_lossy().into_owned(), address, prefix });
        }
    }
    // SAFETY: `head` came from getifaddrs, and nothing refers to the list any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

/// The address in a `sockaddr`, if it is of a family of ours.
///
/// # Safety
/// It is null, or there are as many octets as its family says.
unsafe fn copied(from: *const libc::sockaddr) -> Option<IpAddr> {
    if from.is_null() {
        return None;
    }
    // SAFETY: see above; only the octets of the family are copied, into storage that is larger.
    unsafe {
        let mut storage: sockaddr_storage = zeroed();
        let length = match c_int::from((*from).sa_family) {
            libc::AF_INET => size_of::<sockaddr_in>(),
            libc::AF_INET6 => size_of::<sockaddr_in6>(),
            _ => return None,
        };
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut storage).cast::<u8>(), length);
        Some(address_of(&storage)?.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use spi::Pool;

    use super::*;

    fn send(fd: BorrowedFd<'_>, list: &[Outgoing<'_>]) -> io::Result<usize> {
        Sender::default().send(fd, list)
    }

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
        assert!(
            all.iter().any(|own| own.name == "lo" && own.address.is_loopback() && own.prefix > 0),
            "{all:?}"
        );
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        assert!(path_mtu(socket.as_fd(), false).unwrap() >= 1500);
    }

    #[test]
    fn each_datagram_goes_to_the_socket_of_its_lane_and_marked_ones_to_the_last() {
        let socket = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket
        };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = socket();
        first.bind(&any.into()).unwrap();
        let to = first.local_addr().unwrap().as_socket().unwrap();
        let mut all: Vec<UdpSocket> = vec![first.into()];
        for _ in 0..3 {
            let next = socket();
            next.bind(&to.into()).unwrap();
            all.push(next.into());
        }
        steer_by_spi(all[3].as_fd(), 3).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let esp = |spi: u32| [&spi.to_be_bytes()[..], b"esp"].concat();
        for datagram in [&b"\0\0\0\0ike"[..], b"\xff", &esp(300), &esp(301), &esp(302), &esp(u32::MAX)] {
            sender.send_to(datagram, to).unwrap();
        }
        let mut inbox = Inbox::new(2048);
        let mut first_octets = |socket: &UdpSocket, want: usize| {
            let mut all = Vec::new();
            while all.len() < want && wait(&mut inbox, socket) > 0 {
                all.extend(inbox.datagrams().map(|(_, bytes)| bytes[bytes.len().min(4) - 1]));
            }
            all
        };
        assert_eq!(first_octets(&all[3], 1), [0], "the marker");
        assert_eq!(first_octets(&all[0], 3), [0xff, 44, 0xff], "too short; 300; 2^32 - 1 = 3 * 1431655765");
        assert_eq!((first_octets(&all[1], 1), first_octets(&all[2], 1)), (vec![45], vec![46]));
    }

    #[test]
    fn datagrams_land_in_packet_buffers_in_their_order() {
        let (sender, receiver, to) = pair();
        let pool = Pool::new(2048, 4).unwrap();
        let mut landing = Landing::new();
        for round in 0..50u8 {
            for n in 0..3 {
                sender.send_to(&[round, n, 0, 0, 0][..2 + usize::from(n)], to).unwrap();
            }
            // Too long for a buffer: gone, and in nobody's way.
            sender.send_to(&[9; 3000], to).unwrap();
            sender.send_to(&[round, 3], to).unwrap();
            let mut seen = Vec::new();
            while seen.len() < 4 {
                match landing.receive(receiver.as_fd(), &pool, LANDINGS) {
                    Ok(_) => {
                        for (arrived, buf, length) in landing.take() {
                            assert_eq!(
                                arrived.from,
                                sender
                                    .local_addr()
                                    .map(|a| SocketAddr::new("127.0.0.1".parse().unwrap(), a.port()))
                                    .unwrap()
                            );
                            seen.push((buf.bytes()[0], buf.bytes()[1], length));
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            assert_eq!(seen, [(round, 0, 2), (round, 1, 3), (round, 2, 4), (round, 3, 2)]);
        }
        let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        drop(landing);
        assert_eq!(pool.available() + held.len(), 4, "every buffer came home");
    }

    #[test]
    fn a_socket_says_how_much_waits_and_what_it_lost() {
        let (sender, receiver, to) = pair();
        set_int(receiver.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1).unwrap();
        set_int(receiver.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        assert_eq!(queued(receiver.as_fd()).unwrap().0, 0);
        for _ in 0..100 {
            sender.send_to(&[1; 1000], to).unwrap();
        }
        let (waiting, room) = queued(receiver.as_fd()).unwrap();
        assert!(waiting > 0 && room >= 4096, "{waiting} of {room}");
        let mut inbox = Inbox::new(2048);
        while inbox.receive(receiver.as_fd(), BATCH).is_ok() {}
        sender.send_to(&[1; 10], to).unwrap();
        assert_eq!(wait(&mut inbox, &receiver), 1);
        let lost = inbox.datagrams().next().unwrap().0.lost.unwrap();
        assert!((50..100).contains(&lost), "{lost}");
    }
}
