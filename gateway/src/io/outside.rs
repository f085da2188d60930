//! All sockets towards the outside.
//!
//! On each address there are two sockets for UDP 4500: the kernel gives IKE messages (by their non-ESP marker) to one and
//! ESP to the other, so that a flood of data cannot push IKE out of a receive buffer. They are a SO_REUSEPORT group, which
//! would let a second gateway of the same user join in unnoticed; a trial bind without the option comes first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use thiserror::Error;

use super::socket::{Port, Socket};
use super::sys;

/// UDP port of IKE.
pub const IKE_PORT: u16 = 500;
/// UDP port of IKE and ESP with NAT traversal.
pub const NATT_PORT: u16 = 4500;

/// Why a socket could not be had.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Somebody has the port.
    #[error("{0} is in use: is another IKE daemon running?")]
    InUse(String),
    /// Not allowed to.
    #[error(
        "no permission for {0}: run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE"
    )]
    NotPermitted(String),
    /// The address is not ours.
    #[error("{0}: no interface has this address")]
    NotOurs(String),
    /// Anything else.
    #[error("{0}: {1}")]
    Other(String, io::Error),
}

/// What a socket may bring in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// IKE only.
    Ike,
    /// ESP only, and what was steered wrongly.
    Data,
    /// Both, for want of steering.
    Both,
}

/// The sockets; each is known by its place in the list.
pub struct Outside {
    sockets: Vec<Socket>,
    classes: Vec<Class>,
}

impl Outside {
    /// Opens all sockets on these addresses. Without `strict` an address of a family the machine does not have is passed
    /// over, as long as another is left.
    ///
    /// # Errors
    /// Why one could not be had.
    pub fn open(listen: &[IpAddr], mark: u32, strict: bool) -> Result<Outside, OpenError> {
        let (mut sockets, mut classes) = (Vec::new(), Vec::new());
        for address in listen {
            match open_on(*address, mark) {
                Ok(opened) => {
                    for (socket, class) in opened {
                        sockets.push(socket);
                        classes.push(class);
                    }
                }
                Err(OpenError::Other(what, error)) if !strict && address.is_ipv6() => {
                    tracing::warn!(%what, %error, "IPv6 is not to be had");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Outside { sockets, classes })
    }

    /// The socket to send from `local` with.
    pub fn pick(&mut self, port: Port, local: IpAddr) -> Option<&mut Socket> {
        // One bound to the address itself before one bound to all.
        let exact = self.sockets.iter().position(|s| s.port() == port && s.bound().ip() == local);
        let place =
            exact.or_else(|| self.sockets.iter().position(|s| s.port() == port && s.serves(local)))?;
        self.sockets.get_mut(place)
    }

    /// The socket at a place.
    pub fn at(&mut self, place: usize) -> Option<&mut Socket> {
        self.sockets.get_mut(place)
    }

    /// What the socket at a place may bring in.
    pub fn class(&self, place: usize) -> Class {
        self.classes.get(place).copied().unwrap_or(Class::Both)
    }

    /// All sockets.
    pub fn all(&self) -> &[Socket] {
        &self.sockets
    }
}

fn open_on(address: IpAddr, mark: u32) -> Result<Vec<(Socket, Class)>, OpenError> {
    let udp = |port| SocketAddr::new(address, port);
    let open = |port: Port, to: SocketAddr, share: bool| {
        Socket::open(port, to, mark, share).map_err(|error| explain(port, to, error))
    };
    let ike = open(Port::Ike, udp(IKE_PORT), false)?;
    drop(open(Port::Natt, udp(NATT_PORT), false)?);
    let data = open(Port::Natt, udp(NATT_PORT), true)?;
    let marked = open(Port::Natt, udp(NATT_PORT), true)?;
    let raw = open(Port::Raw, udp(0), false)?;
    match sys::steer_by_marker(marked.as_fd()) {
        Ok(()) => Ok(vec![(ike, Class::Ike), (data, Class::Data), (marked, Class::Ike), (raw, Class::Data)]),
        // Without steering the kernel would spread datagrams by a hash, which is of no use.
        Err(error) => {
            tracing::warn!(%error, "IKE and ESP share one receive buffer on port 4500");
            Ok(vec![(ike, Class::Ike), (data, Class::Both), (raw, Class::Data)])
        }
    }
}

fn explain(port: Port, address: SocketAddr, error: io::Error) -> OpenError {
    let what = match port {
        Port::Ike | Port::Natt => format!("UDP {address}"),
        Port::Raw => format!("IP protocol 50 on {}", address.ip()),
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse(what),
        io::ErrorKind::PermissionDenied => OpenError::NotPermitted(what),
        io::ErrorKind::AddrNotAvailable if !address.ip().is_unspecified() => OpenError::NotOurs(what),
        _ => OpenError::Other(what, error),
    }
}
