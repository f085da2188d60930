//! All sockets towards the outside.
//!
//! On each address there are several sockets for UDP 4500: the kernel gives IKE messages (by their non-ESP marker) to one, so
//! that a flood of data cannot push IKE out of a receive buffer, and ESP to one for each lane of the data path, by SPI. They
//! are a SO_REUSEPORT group, which would let a second gateway of the same user join in unnoticed; a trial bind without the
//! option comes first.

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

/// The sockets of one kind of work; each is known by its place in the list.
#[derive(Default)]
pub struct Sockets(Vec<Socket>);

impl Sockets {
    /// The socket to send from `local` with.
    pub fn pick(&mut self, port: Port, local: IpAddr) -> Option<&mut Socket> {
        // One bound to the address itself before one bound to all.
        let exact = self.0.iter().position(|s| s.port() == port && s.bound().ip() == local);
        let place = exact.or_else(|| self.0.iter().position(|s| s.port() == port && s.serves(local)))?;
        self.0.get_mut(place)
    }

    /// The socket at a place.
    pub fn at(&mut self, place: usize) -> Option<&mut Socket> {
        self.0.get_mut(place)
    }

    /// All sockets.
    pub fn all(&self) -> &[Socket] {
        &self.0
    }
}

/// All sockets.
pub struct Outside {
    /// For IKE.
    pub ike: Sockets,
    /// For ESP, by lane.
    pub data: Vec<Sockets>,
}

impl Outside {
    /// Opens all sockets on these addresses, those for ESP once for each lane. Without `strict` an address of a family the
    /// machine does not have is passed over, as long as another is left; what was passed over is said.
    ///
    /// # Errors
    /// Why one could not be had.
    pub fn open(
        listen: &[IpAddr],
        mark: u32,
        strict: bool,
        lanes: u16,
    ) -> Result<(Outside, Vec<String>), OpenError> {
        let data = std::iter::repeat_with(Sockets::default).take(lanes.max(1).into()).collect();
        let (mut outside, mut missing) = (Outside { ike: Sockets::default(), data }, Vec::new());
        for address in listen {
            match outside.open_on(*address, mark) {
                Ok(()) => {}
                Err(OpenError::Other(what, error)) if !strict && address.is_ipv6() => {
                    missing.push(format!("IPv6 is not to be had: {what}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((outside, missing))
    }

    fn open_on(&mut self, address: IpAddr, mark: u32) -> Result<(), OpenError> {
        let udp = |port| SocketAddr::new(address, port);
        let open = |port: Port, to: SocketAddr, share: bool| {
            Socket::open(port, to, mark, share).map_err(|error| explain(port, to, error))
        };
        let lanes = self.data.len() as u16;
        let ike = open(Port::Ike, udp(IKE_PORT), false)?;
        drop(open(Port::Natt, udp(NATT_PORT), false)?);
        // Their order is their number in the group: lanes first, IKE last.
        let data =
            (0..lanes).map(|_| open(Port::Natt, udp(NATT_PORT), true)).collect::<Result<Vec<_>, _>>()?;
        let marked = open(Port::Natt, udp(NATT_PORT), true)?;
        let what = explain_steering(address);
        sys::steer_by_spi(marked.as_fd(), lanes).map_err(|error| OpenError::Other(what.clone(), error))?;
        for (lane, (sockets, data)) in self.data.iter_mut().zip(data).enumerate() {
            let raw = open(Port::Raw, udp(0), false)?;
            if lanes > 1 {
                sys::take_lane_only(raw.as_fd(), address.is_ipv6(), lane as u16, lanes)
                    .map_err(|error| OpenError::Other(what.clone(), error))?;
            }
            sockets.0.extend([data, raw]);
        }
        self.ike.0.extend([ike, marked]);
        Ok(())
    }
}

fn explain_steering(address: IpAddr) -> String {
    format!("steering ESP and IKE on {address} to sockets of their own (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5)")
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
