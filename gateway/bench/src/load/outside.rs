//! Ports 500 and 4500 of all peers at once: two sockets, and the kernel lets every address of a range be ours.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use wire::natt::{Datagram, NON_ESP_MARKER, classify};

use crate::sys;

/// Where peer 0 lives. The next one has the next address.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// How many there can be, so that all are in 172.16.0.0/12.
pub const MOST: u32 = 1_000_000;

const BUFFERS: usize = 16 << 20;

/// Which of the two ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Port {
    /// 500: bare messages.
    Ike,
    /// 4500: messages behind a marker, among ESP.
    NatT,
}

/// The two sockets.
pub struct Outside {
    ike: UdpSocket,
    nat_t: UdpSocket,
    buffer: Vec<u8>,
}

/// A message that arrived.
pub struct Arrived {
    /// Where.
    pub port: Port,
    /// Which peer it is for.
    pub peer: u32,
    /// The gateway's address and port.
    pub from: SocketAddrV4,
    /// The message, without marker.
    pub message: Vec<u8>,
}

impl Outside {
    /// Takes the ports.
    pub fn new() -> Result<Outside> {
        let open = |port: u16| -> Result<UdpSocket> {
            let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            let socket = UdpSocket::bind(at).with_context(|| format!("port {port} cannot be had"))?;
            sys::set_pktinfo(&socket)?;
            sys::set_buffers(&socket, BUFFERS)?;
            Ok(socket)
        };
        Ok(Outside { ike: open(500)?, nat_t: open(4500)?, buffer: vec![0; 1 << 16] })
    }

    /// The sockets, to wait for.
    pub fn sockets(&self) -> [&UdpSocket; 2] {
        [&self.ike, &self.nat_t]
    }

    /// Sends a message of a peer.
    pub fn send(&self, port: Port, peer: u32, to: SocketAddrV4, message: &[u8]) {
        let from = address(peer);
        // One that the kernel does not take is lost, as any other may be; it is sent again.
        match port {
            Port::Ike => sys::send_from(&self.ike, message, from, to).ok(),
            Port::NatT => sys::send_from(&self.nat_t, &[&NON_ESP_MARKER, message].concat(), from, to).ok(),
        };
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&mut self, port: Port) -> Result<Option<Arrived>> {
        let socket = match port {
            Port::Ike => &self.ike,
            Port::NatT => &self.nat_t,
        };
        loop {
            let arrived = match sys::receive(socket, &mut self.buffer) {
                Ok(arrived) => arrived,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let bytes = self.buffer.get(..arrived.len).unwrap_or_default();
            let message = match (port, classify(bytes)) {
                (Port::Ike, _) => bytes,
                (Port::NatT, Datagram::Ike(message)) => message,
                // ESP and keepalives: nobody is at home.
                (Port::NatT, _) => continue,
            };
            let peer = u32::from(arrived.to).wrapping_sub(u32::from(FIRST));
            if peer < MOST {
                return Ok(Some(Arrived { port, peer, from: arrived.from, message: message.to_vec() }));
            }
        }
    }
}

/// A peer's address.
pub fn address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST).wrapping_add(peer))
}
