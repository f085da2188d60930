//! The two namespaces, as `cargo xtask bench floor` lays them out, and sockets and devices in them.
//!
//! ```text
//!                     left                                 right
//!   feeder tun1 10.7.0.1 ── tun0 10.8.0.1      ┊      tun0 10.9.0.2, a socket
//!                      eth0 10.0.0.1 ══════════┊══════ eth0 10.0.0.2
//!   routes on the left: 10.9.0.0/16 to tun0, 10.66.0.0/16 to nowhere
//! ```

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::packet::Ends;
use crate::sys;

/// Socket buffers that a round never fills.
const BUFFERS: usize = 64 << 20;
/// The ports of what is sent through the tunnel.
const INNER_PORTS: [u16; 2] = [7000, 7001];

const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
/// Addresses at the two ends of the tunnel.
const INSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
/// From the feeder through the left TUN device.
pub const THROUGH: Ends = Ends {
    v4: [Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(10, 9, 0, 2)],
    v6: [Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2)],
};
/// To where a route says that packets end.
pub const NOWHERE: Ends = Ends {
    v4: [Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(10, 66, 0, 2)],
    v6: [Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 2)],
};

/// Where the namespaces are.
pub struct Place {
    left: PathBuf,
    right: PathBuf,
}

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Where packets go out.
    Left,
    /// Where they come in.
    Right,
}

impl Place {
    /// By the names that `ip netns` knows them by.
    pub fn new(left: &str, right: &str) -> Place {
        let path = |name: &str| Path::new("/run/netns").join(name);
        Place { left: path(left), right: path(right) }
    }

    /// Two sockets on the veth pair, the left one connected to the right one.
    pub fn outside(&self) -> Result<(UdpSocket, UdpSocket)> {
        let [from, to] = OUTSIDE.map(|address| SocketAddrV4::new(address, 4500));
        Ok((self.socket(Side::Left, from, Some(to))?, self.socket(Side::Right, to, None)?))
    }

    /// Two sockets, one at each end of the tunnel, the left one connected to the right one.
    pub fn inside(&self) -> Result<(UdpSocket, UdpSocket)> {
        let from = SocketAddrV4::new(INSIDE[0], INNER_PORTS[0]);
        let to = SocketAddrV4::new(INSIDE[1], INNER_PORTS[1]);
        Ok((self.socket(Side::Left, from, Some(to))?, self.socket(Side::Right, to, None)?))
    }

    fn socket(&self, side: Side, at: SocketAddrV4, peer: Option<SocketAddrV4>) -> Result<UdpSocket> {
        self.enter(side)?;
        let socket = UdpSocket::bind(at).with_context(|| format!("no socket at {at} on the {side:?}"))?;
        sys::set_buffers(&socket, BUFFERS)?;
        if let Some(peer) = peer {
            socket.connect(peer)?;
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// A TUN device of a side.
    pub fn tun(&self, side: Side, name: &str, superpackets: bool) -> Result<OwnedFd> {
        self.enter(side)?;
        let what = if superpackets { "with segmentation offload" } else { "without offload" };
        sys::open_tun(name, superpackets).with_context(|| format!("no TUN device {name} {what}, {side:?}"))
    }

    /// Moves this thread there: what it opens from now on belongs to that namespace, and keeps doing so.
    fn enter(&self, side: Side) -> Result<()> {
        let path = match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        };
        let file = File::open(path).with_context(|| format!("no namespace {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}
