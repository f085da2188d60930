//! What comes out: work for devices, packets for sockets and interfaces, events for the control plane.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use spi::{Direction, EspBurst, Outcome, PacketBuf, SaId};

use crate::counters::DropReason;
use crate::esp::Offload;
use crate::flow::FlowKey;
use crate::sa::{ChildId, Path};

/// Everything the data path wants done. The worker empties it after each turn and uses it again.
#[derive(Default)]
pub struct Output {
    /// For each device queue the bursts to submit, in order. There is room for all of them. When the queue is
    /// [`Closed`](spi::Closed), hand them to [`Esp::on_done`](crate::Esp::on_done) as they are: they count as failed.
    pub submit: Vec<VecDeque<EspBurst>>,
    /// Sealed packets, to send.
    pub outer: VecDeque<OuterPackets>,
    /// Opened packets and ICMP errors, to write to interfaces.
    pub inner: VecDeque<InnerPackets>,
    /// Packets whose SA another worker has.
    pub elsewhere: VecDeque<HandOver>,
    /// Something is wanted to leave now: flush, and submit, before more is read.
    pub hurry: bool,
    /// Paths that want a NAT keepalive: one octet 0xff in UDP (RFC 3948 section 2.3).
    pub keepalives: VecDeque<Path>,
    /// Handles that moved SAs left behind on these devices, and that nothing is out on any more: to be removed there.
    pub left: VecDeque<(usize, SaId)>,
    /// For the control plane.
    pub events: VecDeque<Event>,
}

impl Output {
    /// An empty one.
    pub fn new() -> Self {
        Output::default()
    }

    pub(crate) fn push(&mut self, device: usize, burst: EspBurst) {
        if self.submit.len() <= device {
            self.submit.resize_with(device + 1, VecDeque::new);
        }
        self.submit[device].push_back(burst);
    }
}

/// A packet or superpacket for another worker: to its [`Esp::handle_inner`](crate::Esp::handle_inner), marked as handed over.
pub struct HandOver {
    /// The worker.
    pub lane: u16,
    /// The interface it came from.
    pub iface: u32,
    /// What the kernel left to us.
    pub offload: Offload,
    /// Whether it goes before others.
    pub critical: bool,
    /// The packet is the only operation.
    pub buf: PacketBuf,
}

impl HandOver {
    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        self.buf.op_bytes(0)
    }
}

/// What became of a packet that came from the inner side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was copied into a burst, waits for an SA, or was answered; the caller is done with it.
    Taken,
    /// Policy lets it go in the clear; the caller forwards it.
    Bypass,
    /// Dropped and counted.
    Dropped(DropReason),
}

/// What the control plane should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Traffic wants an SA of this child. Raised once per child and retry interval.
    Acquire {
        /// The child to set up.
        child: ChildId,
        /// The packet that wants it, for the first traffic selector of the request (RFC 7296 section 2.9).
        flow: FlowKey,
    },
    /// Packets of this child have to be handed to another worker, since this one has no SA for it. Raised once per child and
    /// retry interval.
    Elsewhere {
        /// The child.
        child: ChildId,
        /// The peer's SPI of the SA they go to.
        spi: u32,
    },
    /// An SA has carried so much that it should be re-keyed. Raised once per SA.
    Rekey {
        /// Its child.
        child: ChildId,
        /// Its SPI.
        spi: u32,
        /// Which way it goes.
        dir: Direction,
    },
    /// An SA has carried all it may and carries nothing more. Raised once per SA.
    Expired {
        /// Its child.
        child: ChildId,
        /// Its SPI.
        spi: u32,
        /// Which way it goes.
        dir: Direction,
    },
    /// The first packet on this inbound SA was authenticated: the peer has it and uses it.
    FirstPacket {
        /// Its child.
        child: ChildId,
        /// Our SPI.
        spi: u32,
    },
    /// The newest authenticated packet came from an address that is not the peer's (RFC 7296 section 2.23).
    Rebound {
        /// The child.
        child: ChildId,
        /// Our SPI.
        spi: u32,
        /// Where it came from.
        from: SocketAddr,
    },
    /// A packet with an SPI that names nothing; rate limited, unauthenticated, a hint at most (RFC 7296 section 1.5).
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// Who sent it, as far as can be believed.
        from: SocketAddr,
    },
    /// The device no longer knows this SA: install it there again and say so with
    /// [`Esp::move_sa`](crate::Esp::move_sa).
    StaleSa {
        /// Its child.
        child: ChildId,
        /// Its SPI.
        spi: u32,
        /// Which way it goes.
        dir: Direction,
    },
}

/// A run of packets that can go to the kernel in one call: equal in length and metadata, one after the other in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where in the buffer.
    pub range: Range<usize>,
    /// Octets of each packet; the last may be shorter (as UDP_SEGMENT wants it).
    pub segment: usize,
    /// How many packets.
    pub count: usize,
    /// ToS or traffic class of the outer header.
    pub tos: u8,
    /// Don't-fragment bit of the outer header.
    pub df: bool,
}

/// Bit of an operation's mark that says: set DF outside. The low octet of the mark is the outer ToS.
pub(crate) const MARK_DF: u16 = 0x100;

/// Sealed packets of one SA, ready to be sent.
pub struct OuterPackets {
    /// Where to.
    pub path: Path,
    /// The child they belong to, for [`Esp::update_mtu`](crate::Esp::update_mtu) when the kernel says they are too big.
    pub child: ChildId,
    /// The octets. Operations that did not succeed have length 0.
    pub buf: PacketBuf,
}

impl OuterPackets {
    /// The packets, gathered into the longest runs of at most `max_segments` packets and `max_octets` octets.
    pub fn runs(&self, max_segments: usize, max_octets: usize) -> impl Iterator<Item = Run> + '_ {
        let ops = self.buf.ops();
        let mut next = 0;
        std::iter::from_fn(move || {
            while ops.get(next).is_some_and(|op| op.len == 0) {
                next += 1;
            }
            let first = ops.get(next)?;
            let segment = first.len as usize;
            let start = first.at as usize;
            let mut end = start + segment;
            let mut count = 1;
            next += 1;
            // UDP_SEGMENT cuts at equal lengths; only the last piece may be shorter, and it ends the run.
            while let Some(op) = ops.get(next) {
                let len = op.len as usize;
                let fits = op.at as usize == end
                    && op.mark == first.mark
                    && len != 0
                    && len <= segment
                    && count < max_segments
                    && end + len - start <= max_octets;
                if !fits {
                    break;
                }
                end += len;
                count += 1;
                next += 1;
                if len < segment {
                    break;
                }
            }
            Some(Run {
                range: start..end,
                segment,
                count,
                tos: first.mark as u8,
                df: first.mark & MARK_DF != 0,
            })
        })
    }

    /// Number of packets to send.
    pub fn len(&self) -> usize {
        self.buf.ops().iter().filter(|op| op.len > 0).count()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Opened packets of one SA, or one ICMP error, ready to be written to an interface.
pub struct InnerPackets {
    /// The interface.
    pub iface: u32,
    /// The child they came through; `None` for ICMP errors of our own.
    pub child: Option<ChildId>,
    /// The octets. Operations whose packet was dropped have length 0.
    pub buf: PacketBuf,
}

impl InnerPackets {
    /// The IP packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let bytes = self.buf.bytes();
        self.buf
            .ops()
            .iter()
            .filter(|op| op.len > 0 && op.outcome == Outcome::Done)
            .filter_map(|op| bytes.get(op.at as usize..op.at as usize + op.len as usize))
    }

    /// Number of packets to write.
    pub fn len(&self) -> usize {
        self.packets().count()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
