//! Packets that a route led into a TUN device and that policy lets pass in the clear: they go out again as they are, with
//! the mark that leads around the tunnel routes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Type};
use wire::ip::IpHeader;

/// Sockets that send whole IP packets.
pub struct Clear {
    v4: Option<socket2::Socket>,
    v6: Option<socket2::Socket>,
    refused: u64,
}

impl Clear {
    /// Opens a socket for each family the machine has.
    pub fn open(mark: u32) -> Clear {
        Clear { v4: raw(Domain::IPV4, mark).ok(), v6: raw(Domain::IPV6, mark).ok(), refused: 0 }
    }

    /// Sends one IP packet; what the kernel does not take is counted and gone.
    pub fn send(&mut self, packet: &[u8]) {
        let Ok(header) = IpHeader::parse(packet) else { return };
        let destination: IpAddr = header.dst;
        let socket = if destination.is_ipv4() { &self.v4 } else { &self.v6 };
        let sent =
            socket.as_ref().map(|socket| socket.send_to(packet, &SocketAddr::new(destination, 0).into()));
        if !matches!(sent, Some(Ok(_))) {
            self.refused += 1;
        }
    }

    /// Packets that could not be sent.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn raw(domain: Domain, mark: u32) -> io::Result<socket2::Socket> {
    // IPPROTO_RAW: the packet brings its own IP header.
    let socket = socket2::Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}
