//! One worker's data path.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use spi::{Direction, EspBurst, PacketBuf, Pool};

use crate::counters::{Counters, DropReason};
use crate::output::{Output, Verdict};
use crate::sa::{
    Action, ChildId, Encap, InboundSa, InstallError, OutboundSa, Path, Policy, SaSummary, SaView, UdpEncap,
};

/// How the data path of one worker is dimensioned.
#[derive(Clone)]
pub struct Config {
    /// Where bursts are built: 64 KiB buffers and a little more hold a superpacket.
    pub pool: Pool,
    /// Flows whose decision is remembered; rounded up to a power of two.
    pub flows: usize,
    /// Bursts that may wait for room in one device's queue.
    pub waiting_bursts: usize,
    /// Packets that may wait for the SA of one child.
    pub waiting_packets: usize,
    /// Octets that may wait for SAs altogether.
    pub waiting_octets: usize,
    /// How long packets wait for an SA, and how often [`Event::Acquire`](crate::Event::Acquire) is raised for a child.
    pub acquire_retry: Duration,
    /// How long a burst that is done may wait for one that was submitted before it.
    pub reorder_hold: Duration,
    /// Source of our ICMPv4 errors; `None`: the destination of the packet they answer.
    pub icmp_v4: Option<IpAddr>,
    /// Source of our ICMPv6 errors; `None`: the destination of the packet they answer.
    pub icmp_v6: Option<IpAddr>,
    /// Lower the MSS option of TCP SYNs, both ways, to what the tunnel carries.
    pub clamp_mss: bool,
    /// Any number nobody can guess: spreads the hash tables.
    pub seed: u64,
}

impl Config {
    /// The usual dimensions.
    pub fn new(pool: Pool) -> Self {
        Config {
            pool,
            flows: 16 * 1024,
            waiting_bursts: 64,
            waiting_packets: 8,
            waiting_octets: 1 << 20,
            acquire_retry: Duration::from_secs(2),
            reorder_hold: Duration::from_millis(2),
            icmp_v4: None,
            icmp_v6: None,
            clamp_mss: true,
            seed: 0,
        }
    }
}

/// A packet or superpacket from an interface on the inner side.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a> {
    /// The interface.
    pub iface: u32,
    /// One IP packet, or one superpacket that `offload` says how to cut.
    pub bytes: &'a [u8],
    /// What the kernel left to us (`struct virtio_net_hdr`).
    pub offload: Offload,
}

/// Work the kernel left to us on a packet read from an interface with offloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum field holds the pseudo header's sum only: finish it over the octets from `start`, and write it
    /// at `start + offset`.
    pub checksum: Option<(u16, u16)>,
    /// Cut the payload into pieces.
    pub segments: Option<Segments>,
}

/// How a superpacket is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// What is repeated before each piece.
    pub kind: SegmentKind,
    /// Payload octets of each piece; the last may be shorter.
    pub size: u16,
}

/// Transport header of a superpacket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// One TCP segment too long.
    Tcp,
    /// Many UDP datagrams of one flow.
    Udp,
}

/// Where an outer packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Sender; port 0 with [`Encap::Raw`].
    pub from: SocketAddr,
    /// Our address it was sent to.
    pub to: SocketAddr,
    /// UDP or protocol 50.
    pub encap: Encap,
    /// ToS or traffic class of its IP header; the lower two bits are ECN.
    pub tos: u8,
}

/// The ESP data path of one worker: SAs, policies, flow cache and counters. Owned by that worker; no locks.
pub struct Esp {
    config: Config,
    counters: Counters,
}

impl Esp {
    /// One without SAs and policies: it drops everything.
    pub fn new(config: Config) -> Self {
        Esp { config, counters: Counters::default() }
    }
}

/// The control plane's side.
impl Esp {
    /// Makes a device queue known and says how many bursts it takes now ([`spi::Queue::room`]); returns its index.
    pub fn add_device(&mut self, _room: usize) -> usize {
        0
    }
    /// Corrects the number of bursts a queue would take now. Not needed in normal running: completions give room back.
    pub fn set_room(&mut self, _device: usize, _room: usize) {}
    /// Installs an SA to send with. It is used at once if its child has none; otherwise from [`use_outbound`](Esp::use_outbound) on.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn install_outbound(&mut self, _sa: OutboundSa, _now: Instant) -> Result<(), InstallError> {
        Ok(())
    }
    /// Installs an SA to receive with.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn install_inbound(&mut self, _sa: InboundSa, _now: Instant) -> Result<(), InstallError> {
        Ok(())
    }
    /// Sends with this SA from now on. False when the child has no such SA.
    pub fn use_outbound(&mut self, _child: ChildId, _spi: u32) -> bool {
        false
    }
    /// Removes an SA. Give its handle back to the device.
    pub fn remove(&mut self, _child: ChildId, _spi: u32, _dir: Direction) -> Option<SaSummary> {
        None
    }
    /// Removes all SAs of a child and what waits for it.
    pub fn remove_child(&mut self, _child: ChildId) -> Vec<SaSummary> {
        Vec::new()
    }
    /// The peer or we have moved: new outer addresses for all SAs of a child (RFC 4555, RFC 7296 section 2.23).
    pub fn update_peer(
        &mut self,
        _child: ChildId,
        _local: IpAddr,
        _remote: IpAddr,
        _encap: Option<UdpEncap>,
    ) {
    }
    /// The path takes packets of this many octets only (or again).
    pub fn update_mtu(&mut self, _child: ChildId, _path_mtu: u16) {}
    /// Replaces the SPD. SAs bring their own selectors and need no entry here.
    pub fn set_policies(&mut self, _policies: Vec<Policy>) {}
    /// The set-up of this child failed: drop what waits for it.
    pub fn acquire_failed(&mut self, _child: ChildId) {}
}

/// The data plane's side.
impl Esp {
    /// Takes a packet from the inner side: policy, SA, burst. Call [`flush`](Esp::flush) when there is no more to read.
    pub fn handle_inner(&mut self, _now: Instant, _packet: Inner<'_>, _out: &mut Output) -> Verdict {
        Verdict::Dropped(DropReason::NoPolicy)
    }
    /// Takes an ESP packet (from SPI to ICV) from the outer side; it is copied.
    pub fn handle_outer(&mut self, _now: Instant, _outer: &Outer, _packet: &[u8], _out: &mut Output) {}
    /// Takes a run of ESP packets received in one piece (UDP_GRO): the first `len` octets of `buf`, cut every `segment` octets. Not copied when they are of one tunnel mode SA.
    pub fn handle_outer_run(
        &mut self,
        _now: Instant,
        _outer: &Outer,
        _buf: PacketBuf,
        _len: usize,
        _segment: usize,
        _out: &mut Output,
    ) {
    }
    /// Submits what was gathered. Never wait on a timer with this: call it when there is no more to read.
    pub fn flush(&mut self, _now: Instant, _out: &mut Output) {}
    /// Takes a burst that came back from a device.
    pub fn on_done(&mut self, _now: Instant, _burst: EspBurst, _out: &mut Output) {}
    /// When [`handle_timeout`](Esp::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    /// Does what is due: late bursts, keepalives, dummy packets, packets that waited in vain.
    pub fn handle_timeout(&mut self, _now: Instant, _out: &mut Output) {}
    /// Judges a packet that arrived in the clear: `Err` says why it must be dropped (RFC 4301 section 5.2).
    ///
    /// # Errors
    /// The reason, already counted.
    pub fn check_cleartext(&mut self, _iface: u32, _packet: &[u8]) -> Result<(), DropReason> {
        Ok(())
    }
    /// Whether devices are behind: the worker should stop reading.
    pub fn congested(&self) -> bool {
        false
    }
}

/// Looking at it.
impl Esp {
    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
    /// All SAs.
    pub fn sas(&self) -> impl Iterator<Item = SaView<'_>> {
        std::iter::empty()
    }
    /// When the last authenticated packet of this child came: the peer was alive then (RFC 7296 section 2.4).
    pub fn last_heard(&self, _child: ChildId) -> Option<Instant> {
        None
    }
    /// What the SPD says of a packet's selectors.
    pub fn decide(&self, _flow: &crate::FlowKey) -> Option<Action> {
        let _ = &self.config;
        None
    }
}
