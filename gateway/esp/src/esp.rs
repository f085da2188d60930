//! One worker's data path.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use spi::{Direction, InFlight, Pool, Token};

use crate::counters::Counters;
use crate::device::{Device, Job, Leaving};
use crate::flow::FlowCache;
use crate::keepalive::Keepalives;
use crate::outbound::Decision;
use crate::sa::{ChildId, Encap, SaView};
use crate::sad::{Common, OutSa, Sad};
use crate::share::Shares;
use crate::spd::{RuleId, Spd};
use crate::timer::Timers;

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
    pub icmp_v4: Option<Ipv4Addr>,
    /// Source of our ICMPv6 errors; `None`: the destination of the packet they answer.
    pub icmp_v6: Option<Ipv6Addr>,
    /// Lower the MSS option of TCP SYNs, both ways, to what the tunnel carries.
    pub clamp_mss: bool,
    /// MTU of the devices on the inner side, octets: the MSS is lowered to what fits there, too.
    pub device_mtu: u16,
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
            device_mtu: u16::MAX,
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
    /// What goes before other packets and is dropped last: a routing protocol that must not die of load.
    pub critical: bool,
    /// Another worker handed it over, since the SA should be here.
    pub handed: bool,
}

impl<'a> Inner<'a> {
    /// A packet of no special kind, read from an interface.
    pub fn new(iface: u32, bytes: &'a [u8], offload: Offload) -> Inner<'a> {
        Inner { iface, bytes, offload, critical: false, handed: false }
    }
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
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) sad: Sad,
    pub(crate) spd: Spd,
    pub(crate) static_rules: Vec<RuleId>,
    pub(crate) flows: FlowCache<Decision>,
    pub(crate) devices: Vec<Device>,
    pub(crate) jobs: InFlight<Job>,
    /// Handles that moved SAs left, with bursts still out on them.
    pub(crate) leaving: Vec<Leaving>,
    /// How often [`tick`](Esp::tick) was called.
    pub(crate) ticks: u32,
    /// SAs with a burst being gathered.
    pub(crate) open_outbound: Vec<Token>,
    pub(crate) open_inbound: Vec<Token>,
    /// Children whose waiting packets may go.
    pub(crate) served: Vec<ChildId>,
    pub(crate) waiting_octets: usize,
    pub(crate) timers: Timers,
    pub(crate) keepalives: Keepalives,
    pub(crate) icmp_rate: Rate,
    pub(crate) unknown_rate: Rate,
    pub(crate) questions: Rate,
    /// Inbound SAs on which the peer was heard since somebody asked.
    pub(crate) heard: Vec<Token>,
    pub(crate) shares: Shares,
    /// A packet that has to be changed before it is cut.
    pub(crate) scratch: Vec<u8>,
}

impl Esp {
    /// One without SAs and policies: it drops everything.
    pub fn new(config: Config) -> Self {
        let seed = config.seed;
        Esp {
            flows: FlowCache::new(config.flows, seed),
            config,
            counters: Counters::default(),
            sad: Sad::new(seed),
            spd: Spd::new(seed),
            static_rules: Vec::new(),
            devices: Vec::new(),
            jobs: InFlight::new(usize::MAX),
            leaving: Vec::new(),
            ticks: 0,
            open_outbound: Vec::new(),
            open_inbound: Vec::new(),
            served: Vec::new(),
            waiting_octets: 0,
            timers: Timers::default(),
            keepalives: Keepalives::new(seed),
            icmp_rate: Rate::new(100),
            unknown_rate: Rate::new(10),
            questions: Rate::new(100),
            heard: Vec::new(),
            shares: Shares::default(),
            scratch: Vec::new(),
        }
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All SAs, in no order.
    pub fn sas(&self) -> impl Iterator<Item = SaView<'_>> {
        self.sad.children.values().flat_map(|child| {
            let outbound = child.outbound.iter().filter_map(|token| {
                let sa = self.sad.outbound.peek(*token)?;
                Some(view(&sa.common, Direction::Seal, child.current == Some(*token), sa.seq.last()))
            });
            let inbound = child.inbound.iter().filter_map(|token| {
                let sa = self.sad.inbound.peek(*token)?;
                Some(view(&sa.common, Direction::Open, true, sa.replay.top()))
            });
            outbound.chain(inbound)
        })
    }

    /// How many SAs there are, both directions.
    pub fn sa_count(&self) -> usize {
        self.sad.outbound.len() + self.sad.inbound.len()
    }

    /// SPIs of the inbound SAs on which authenticated packets came since this was asked the last time: their peers are alive
    /// (RFC 7296 section 2.4).
    pub fn take_heard(&mut self) -> Vec<u32> {
        let inbound = &mut self.sad.inbound;
        let mut spis = Vec::with_capacity(self.heard.len());
        for token in self.heard.drain(..) {
            if let Some(sa) = inbound.slot(token) {
                sa.heard = false;
                spis.push(sa.common.spi);
            }
        }
        spis
    }

    /// Whether [`take_heard`](Esp::take_heard) has something to tell.
    pub fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Largest inner packet that the child's current SA carries, octets; for the interface's MTU.
    pub fn inner_mtu(&self, child: ChildId) -> Option<usize> {
        let current = self.sad.children.get(&child)?.current?;
        self.sad.outbound.peek(current).map(OutSa::inner_mtu)
    }
}

fn view(sa: &Common, dir: Direction, current: bool, seq: u64) -> SaView<'_> {
    SaView {
        child: sa.child,
        spi: sa.spi,
        dir,
        device: sa.device,
        sa: sa.sa,
        mode: sa.mode,
        path: sa.path,
        current,
        packets: sa.usage.packets,
        bytes: sa.usage.bytes,
        seq,
        last_used: sa.last_used,
        drops: sa.drops(),
    }
}

/// So many a second, saved up for one second.
pub(crate) struct Rate {
    per_second: u32,
    left: u32,
    since: Option<Instant>,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        Rate { per_second, left: per_second, since: None }
    }

    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Duration::from_secs(1) {
            (self.left, self.since) = (self.per_second, Some(now));
        }
        let allowed = self.left > 0;
        self.left -= u32::from(allowed);
        allowed
    }
}
