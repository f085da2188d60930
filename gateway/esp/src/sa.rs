//! What the control plane says: SAs to install, policies to follow, and what it gets to see of them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use spi::{Direction, Encr, Integ, SaId};
use wire::TrafficSelector;

use crate::counters::DropCounters;

/// A child of a realm, as one thing over all its re-keyings: the SAs that follow each other share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(pub u64);

/// What stands between the outer header and the payload (RFC 4303 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A whole IP packet is carried between two gateways.
    Tunnel {
        /// Our outer address.
        local: IpAddr,
        /// The peer's outer address.
        remote: IpAddr,
    },
    /// The payload of a packet between two hosts is carried.
    Transport {
        /// Our address.
        local: IpAddr,
        /// The peer's address as we see it.
        remote: IpAddr,
        /// The addresses as the peer wrote them before a NAT changed them, `(ours, its own)`: checksums over the
        /// pseudo header are corrected with them (RFC 3948 section 3.1.2).
        original: Option<(IpAddr, IpAddr)>,
    },
}

impl Mode {
    /// Our outer address.
    pub fn local(&self) -> IpAddr {
        match *self {
            Mode::Tunnel { local, .. } | Mode::Transport { local, .. } => local,
        }
    }

    /// The peer's outer address.
    pub fn remote(&self) -> IpAddr {
        match *self {
            Mode::Tunnel { remote, .. } | Mode::Transport { remote, .. } => remote,
        }
    }

    /// Whether whole IP packets are carried.
    pub fn is_tunnel(&self) -> bool {
        matches!(self, Mode::Tunnel { .. })
    }
}

/// The two ends of UDP encapsulation (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpEncap {
    /// Our address and port, usually 4500.
    pub local: SocketAddr,
    /// The peer's address and port, as the last NAT shows them.
    pub remote: SocketAddr,
}

/// How ESP packets stand in IP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// IP protocol 50; the kernel's raw socket writes the IP header.
    Raw,
    /// UDP, RFC 3948; the kernel's UDP socket writes both headers.
    Udp,
}

/// Where outer packets go: the socket to use is found by `encap` and `local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our end; port 0 with [`Encap::Raw`].
    pub local: SocketAddr,
    /// The peer's end; port 0 with [`Encap::Raw`].
    pub remote: SocketAddr,
    /// UDP or protocol 50.
    pub encap: Encap,
}

/// The don't-fragment bit of the outer header (RFC 4301 section 8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DfPolicy {
    /// As the inner packet has it; IPv6 counts as set.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Always clear.
    Clear,
}

/// The DSCP of the outer header (RFC 4301 section 5.1.2, RFC 2983).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DscpPolicy {
    /// As the inner packet has it.
    #[default]
    Copy,
    /// This value, 0 to 63, hiding the inner one.
    Fixed(u8),
}

/// The ECN field at tunnel entry (RFC 6040 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnPolicy {
    /// Normal mode: the outer field is a copy of the inner one.
    #[default]
    Copy,
    /// Compatibility mode: the outer field says not ECN-capable.
    Clear,
}

/// What to do when an authenticated packet comes from a new address (RFC 7296 section 2.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerMoves {
    /// Raise [`Event::Rebound`](crate::Event::Rebound) only.
    #[default]
    Report,
    /// Raise the event and send to the new address at once. Right for a peer behind a NAT, when we are not behind one.
    Follow,
}

/// How much an SA may carry: reaching `soft_*` raises an event once, reaching `hard_*` stops the SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload octets until re-keying is asked for.
    pub soft_bytes: u64,
    /// Payload octets until nothing more is carried.
    pub hard_bytes: u64,
    /// Packets until re-keying is asked for.
    pub soft_packets: u64,
    /// Packets until nothing more is carried.
    pub hard_packets: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { soft_bytes: u64::MAX, hard_bytes: u64::MAX, soft_packets: u64::MAX, hard_packets: u64::MAX }
    }
}

/// An SA to send with. Its keys are already in the device: `device` and `sa` name them.
#[derive(Clone, Debug)]
pub struct OutboundSa {
    /// The child it belongs to.
    pub child: ChildId,
    /// The peer's SPI.
    pub spi: u32,
    /// Index of the device's queue, as [`Esp::add_device`](crate::Esp::add_device) returned it.
    pub device: usize,
    /// The device's handle.
    pub sa: SaId,
    /// Encryption algorithm, for lengths.
    pub encr: Encr,
    /// Integrity algorithm, for lengths; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Tunnel or transport, and the outer addresses.
    pub mode: Mode,
    /// UDP encapsulation; `None` sends protocol 50.
    pub encap: Option<UdpEncap>,
    /// Our side of the negotiated selectors.
    pub ts_local: Vec<TrafficSelector>,
    /// The peer's side of the negotiated selectors.
    pub ts_remote: Vec<TrafficSelector>,
    /// Interface the traffic must come from; `None`: any.
    pub iface: Option<u32>,
    /// Place among the policies; lower goes first.
    pub priority: u32,
    /// Pad inner packets to this many octets, as far as the MTU allows (RFC 4303 section 2.7).
    pub tfc: Option<u16>,
    /// Send a dummy packet this often (RFC 4303 section 2.6).
    pub dummy: Option<Duration>,
    /// Send a NAT keepalive after this much silence on the path (RFC 3948 section 4).
    pub keepalive: Option<Duration>,
    /// Outer don't-fragment bit.
    pub df: DfPolicy,
    /// Outer DSCP.
    pub dscp: DscpPolicy,
    /// Outer ECN.
    pub ecn: EcnPolicy,
    /// Octets an outer IP packet may have on this path, its IP header included.
    pub path_mtu: u16,
    /// How much it may carry.
    pub limits: Limits,
    /// Not to be sent with before the peer was heard on its pair, or [`use_outbound`](crate::Esp::use_outbound) says so, as long as
    /// the child has another SA here or elsewhere.
    pub waits: bool,
    /// Each packet goes to the device as soon as it is taken; otherwise bursts are gathered while there is more to read.
    pub at_once: bool,
    /// The budget its work is charged to, as [`Esp::set_shares`](crate::Esp::set_shares) numbered it.
    pub share: Option<ShareId>,
}

/// An outbound SA of another worker: packets for it that come here are handed over.
#[derive(Clone, Debug)]
pub struct ElsewhereSa {
    /// The child it belongs to.
    pub child: ChildId,
    /// The peer's SPI, to take it back by.
    pub spi: u32,
    /// The worker that has it.
    pub lane: u16,
    /// Our side of the negotiated selectors.
    pub ts_local: Vec<TrafficSelector>,
    /// The peer's side of the negotiated selectors.
    pub ts_remote: Vec<TrafficSelector>,
    /// Interface the traffic must come from; `None`: any.
    pub iface: Option<u32>,
    /// Place among the policies; lower goes first.
    pub priority: u32,
}

/// A budget of CPU time that several SAs share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareId(pub u16);

/// An SA to receive with. Its keys are already in the device: `device` and `sa` name them.
#[derive(Clone, Debug)]
pub struct InboundSa {
    /// The child it belongs to.
    pub child: ChildId,
    /// Our SPI; unique in this worker, 256 or more (RFC 4303 section 2.1).
    pub spi: u32,
    /// Index of the device's queue, as [`Esp::add_device`](crate::Esp::add_device) returned it.
    pub device: usize,
    /// The device's handle.
    pub sa: SaId,
    /// Encryption algorithm, for lengths.
    pub encr: Encr,
    /// Integrity algorithm, for lengths; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Tunnel or transport, and the outer addresses.
    pub mode: Mode,
    /// UDP encapsulation as negotiated. Packets of either form are accepted whatever stands here.
    pub encap: Option<UdpEncap>,
    /// Our side of the negotiated selectors.
    pub ts_local: Vec<TrafficSelector>,
    /// The peer's side of the negotiated selectors.
    pub ts_remote: Vec<TrafficSelector>,
    /// Interface that opened packets are written to.
    pub iface: u32,
    /// Packets the replay window remembers: 32 to 65536; 0 turns replay protection off, not allowed with ESN.
    pub replay_window: u32,
    /// What to do when the peer's address changes.
    pub moves: PeerMoves,
    /// SPI of the outbound SA made together with this one. The first packet that authenticates shows that the peer
    /// uses the pair, and switches the child's sending to it (RFC 7296 section 2.8).
    pub pair: Option<u32>,
    /// How much it may carry.
    pub limits: Limits,
    /// The budget its work is charged to.
    pub share: Option<ShareId>,
}

/// What the SPD does with a packet (RFC 4301 section 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only through an SA of this child.
    Protect(ChildId),
    /// In the clear.
    Bypass,
    /// Not at all.
    Discard,
}

/// One entry of the SPD: every pair of one local and one remote selector.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What to do.
    pub action: Action,
    /// Lower goes first; among equals the longer prefixes.
    pub priority: u32,
    /// Selectors of our side.
    pub local: Vec<TrafficSelector>,
    /// Selectors of the other side.
    pub remote: Vec<TrafficSelector>,
    /// Interface on our side; `None`: any.
    pub iface: Option<u32>,
}

/// Why an SA was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// SPI 0 to 255 (RFC 4303 section 2.1).
    #[error("the SPI is reserved")]
    SpiReserved,
    /// The SPI names an SA already.
    #[error("the SPI is in use")]
    SpiInUse,
    /// An algorithm that is not in the table, or a pair that cannot be together.
    #[error("unknown algorithm or combination")]
    Algorithm,
    /// No queue has that index.
    #[error("no such device queue")]
    NoSuchDevice,
    /// A replay window of a size that cannot be, or none with ESN.
    #[error("impossible replay window")]
    ReplayWindow,
    /// No selectors, or more than [`MAX_SELECTORS`] on a side.
    #[error("no selectors or too many")]
    Selectors,
    /// The path MTU leaves no room for a packet.
    #[error("the path MTU is too small")]
    PathMtu,
}

/// Traffic selectors an SA or a policy may have on one side.
pub const MAX_SELECTORS: usize = 64;

/// What is left of an SA that was removed: the device's handle to give back, and the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaSummary {
    /// The child it belonged to.
    pub child: ChildId,
    /// Its SPI.
    pub spi: u32,
    /// Which way it went.
    pub dir: Direction,
    /// Index of the device's queue.
    pub device: usize,
    /// The device's handle, to be removed there.
    pub sa: SaId,
    /// Packets carried.
    pub packets: u64,
    /// Payload octets carried.
    pub bytes: u64,
}

/// An installed SA, to look at.
#[derive(Clone, Copy, Debug)]
pub struct SaView<'a> {
    /// The child it belongs to.
    pub child: ChildId,
    /// Its SPI.
    pub spi: u32,
    /// Which way it goes.
    pub dir: Direction,
    /// Index of the device's queue.
    pub device: usize,
    /// The device's handle.
    pub sa: SaId,
    /// Mode and outer addresses.
    pub mode: Mode,
    /// Where its packets go or came from last.
    pub path: Path,
    /// Whether it is the one its child sends with; always true for inbound SAs.
    pub current: bool,
    /// Packets carried.
    pub packets: u64,
    /// Payload octets carried.
    pub bytes: u64,
    /// Last sequence number given out, or highest one authenticated.
    pub seq: u64,
    /// When it last carried a packet.
    pub last_used: Option<Instant>,
    /// Packets dropped, by reason.
    pub drops: &'a DropCounters,
}
