//! The security association database (RFC 4301 section 4.4.2): SAs by SPI, and children with the SAs that follow each
//! other in them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use spi::{InFlight, PacketBuf, SaId, Token};
use wire::TrafficSelector;

use crate::acquire::Waiting;
use crate::counters::{DropCounters, DropReason};
use crate::esp::Outer;
use crate::flow::FlowKey;
use crate::hash::Seeded;
use crate::mtu::Framing;
use crate::output::{InnerPackets, OuterPackets};
use crate::reorder::Reorder;
use crate::replay::Window;
use crate::sa::{ChildId, InboundSa, Mode, OutboundSa, Path, PeerMoves, ShareId};
use crate::seq::{Sequence, Usage};
use crate::spd::{RuleId, selects_any};

/// What both directions of an SA have.
pub(crate) struct Common {
    pub(crate) child: ChildId,
    pub(crate) spi: u32,
    pub(crate) device: usize,
    pub(crate) sa: SaId,
    /// Bursts that are out under this handle.
    pub(crate) out: u32,
    pub(crate) framing: Framing,
    pub(crate) mode: Mode,
    pub(crate) path: Path,
    pub(crate) ts_local: Vec<TrafficSelector>,
    pub(crate) ts_remote: Vec<TrafficSelector>,
    pub(crate) usage: Usage,
    pub(crate) share: Option<ShareId>,
    pub(crate) last_used: Option<Instant>,
    /// The device has said that it does not know the SA.
    pub(crate) stale_told: bool,
    /// It stands in the list of those with a burst being gathered.
    pub(crate) listed: bool,
    /// A timer for the order is running.
    pub(crate) order_timer: bool,
    drops: Option<Box<DropCounters>>,
}

impl Common {
    /// Counts a drop at the SA; the caller counts it for the worker.
    pub(crate) fn drop(&mut self, reason: DropReason, packets: u64) {
        self.drops.get_or_insert_with(Box::default).add(reason, packets);
    }

    /// Its device was closed, if it is this one.
    pub(crate) fn forget_handle(&mut self, device: usize) {
        if self.device == device {
            (self.sa, self.out) = (crate::device::NO_HANDLE, 0);
        }
    }

    pub(crate) fn drops(&self) -> &DropCounters {
        static NONE: DropCounters = DropCounters::new();
        self.drops.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn selects(&self, flow: &FlowKey) -> bool {
        selects_any(&self.ts_local, &self.ts_remote, flow)
    }
}

/// An SA to send with.
pub(crate) struct OutSa {
    pub(crate) common: Common,
    /// What the control plane asked for; the selectors have moved to `common`.
    pub(crate) config: OutboundSa,
    pub(crate) seq: Sequence,
    /// Largest payload that fits the path.
    pub(crate) max_payload: usize,
    /// The burst being gathered, and where its next packet goes.
    pub(crate) open: Option<OpenBurst>,
    pub(crate) order: Reorder<OuterPackets>,
    /// Its place among the paths that are kept alive.
    pub(crate) keepalive: Option<Token>,
    /// Nothing new is sent with it.
    pub(crate) retired: bool,
    pub(crate) rules: Vec<RuleId>,
}

/// An SA to receive with.
pub(crate) struct InSa {
    pub(crate) common: Common,
    pub(crate) iface: u32,
    pub(crate) replay: Window,
    pub(crate) moves: PeerMoves,
    pub(crate) pair: Option<u32>,
    /// The last foreign address that was reported.
    pub(crate) reported: Option<SocketAddr>,
    pub(crate) open: Option<(OpenBurst, Outer)>,
    pub(crate) order: Reorder<InnerPackets>,
    /// Largest inner packet that the way back takes, for the MSS of what the peer's side opens; 0: not known.
    pub(crate) way_back: usize,
    /// The peer was heard on it since somebody asked.
    pub(crate) heard: bool,
}

/// A burst being gathered.
pub(crate) struct OpenBurst {
    pub(crate) buf: PacketBuf,
    pub(crate) at: usize,
}

/// A child and its SAs.
#[derive(Default)]
pub(crate) struct Child {
    /// Oldest first.
    pub(crate) outbound: Vec<Token>,
    pub(crate) inbound: Vec<Token>,
    /// The one to send with.
    pub(crate) current: Option<Token>,
    pub(crate) waiting: VecDeque<Waiting>,
    /// Before this, no other Acquire is raised.
    pub(crate) acquire_again: Option<Instant>,
    /// A timer for those waiting is running.
    pub(crate) wait_timer: bool,
}

impl Child {
    /// Whether nothing would be lost by forgetting it.
    pub(crate) fn is_idle(&self) -> bool {
        self.outbound.is_empty() && self.inbound.is_empty() && self.waiting.is_empty()
    }
}

/// The SAs of one worker.
pub(crate) struct Sad {
    pub(crate) outbound: InFlight<OutSa>,
    pub(crate) inbound: InFlight<InSa>,
    pub(crate) by_spi: HashMap<u32, Token, Seeded>,
    pub(crate) children: HashMap<ChildId, Child, Seeded>,
    pub(crate) elsewhere: HashMap<ChildId, Away, Seeded>,
}

/// What other workers have for a child.
#[derive(Default)]
pub(crate) struct Away {
    /// Oldest first.
    pub(crate) sas: Vec<AwaySa>,
    /// Before this, it is not told again that packets had to be handed over.
    pub(crate) tell_again: Option<Instant>,
}

/// An outbound SA of another worker.
pub(crate) struct AwaySa {
    pub(crate) spi: u32,
    pub(crate) lane: u16,
    pub(crate) ts_local: Vec<TrafficSelector>,
    pub(crate) ts_remote: Vec<TrafficSelector>,
    pub(crate) rules: Vec<RuleId>,
}

impl Sad {
    pub(crate) fn new(seed: u64) -> Self {
        Sad {
            outbound: InFlight::new(usize::MAX),
            inbound: InFlight::new(usize::MAX),
            by_spi: HashMap::with_hasher(Seeded(seed)),
            children: HashMap::with_hasher(Seeded(seed)),
            elsewhere: HashMap::with_hasher(Seeded(seed)),
        }
    }

    /// The outbound SA of a child with this SPI.
    pub(crate) fn find_outbound(&self, child: ChildId, spi: u32) -> Option<Token> {
        let has_spi = |t: &Token| self.outbound.peek(*t).is_some_and(|sa| sa.common.spi == spi);
        self.children.get(&child)?.outbound.iter().copied().find(has_spi)
    }

    /// The SA of a child to send a flow with: the current one, or the youngest other that takes it.
    pub(crate) fn choose(&self, child: ChildId, flow: &FlowKey) -> Option<Token> {
        let entry = self.children.get(&child)?;
        let takes =
            |t: &Token| self.outbound.peek(*t).is_some_and(|sa| !sa.retired && sa.common.selects(flow));
        let known = |t: &Token| self.outbound.peek(*t).is_some_and(|sa| !sa.config.waits);
        let youngest = |good: &dyn Fn(&Token) -> bool| entry.outbound.iter().rev().copied().find(good);
        let found = entry.current.filter(takes).or_else(|| youngest(&|t| takes(t) && known(t)));
        // Better one of which nothing was heard yet than none.
        found.or_else(|| self.lane_of(child, flow).is_none().then(|| youngest(&takes)).flatten())
    }

    /// The worker that has an SA of a child for a flow: the one with the youngest.
    pub(crate) fn lane_of(&self, child: ChildId, flow: &FlowKey) -> Option<u16> {
        let away = self.elsewhere.get(&child)?;
        let takes = |sa: &&AwaySa| selects_any(&sa.ts_local, &sa.ts_remote, flow);
        away.sas.iter().rev().find(takes).map(|sa| sa.lane)
    }

    /// When `token` was the one a child sent with, the youngest other takes its place.
    pub(crate) fn succeed(&mut self, child: ChildId, token: Token) {
        let Some(entry) = self.children.get_mut(&child) else { return };
        if entry.current == Some(token) {
            let good = |t: &&Token| {
                **t != token && self.outbound.peek(**t).is_some_and(|sa| !sa.retired && !sa.config.waits)
            };
            entry.current = entry.outbound.iter().rev().find(good).copied();
        }
        self.spread_mtu(child);
    }

    /// Tells the inbound SAs of a child how large packets are that it can send.
    pub(crate) fn spread_mtu(&mut self, child: ChildId) {
        let Some(entry) = self.children.get(&child) else { return };
        let way_back = entry.current.and_then(|t| self.outbound.peek(t)).map_or(0, OutSa::inner_mtu);
        for token in &entry.inbound {
            if let Some(sa) = self.inbound.slot(*token) {
                sa.way_back = way_back;
            }
        }
    }
}

impl OutSa {
    pub(crate) fn new(mut config: OutboundSa, framing: Framing, path: Path, max_payload: usize) -> Self {
        let common = Common {
            child: config.child,
            spi: config.spi,
            device: config.device,
            sa: config.sa,
            out: 0,
            framing,
            mode: config.mode,
            path,
            ts_local: std::mem::take(&mut config.ts_local),
            ts_remote: std::mem::take(&mut config.ts_remote),
            usage: Usage::new(config.limits),
            share: config.share,
            last_used: None,
            stale_told: false,
            listed: false,
            order_timer: false,
            drops: None,
        };
        OutSa {
            common,
            seq: Sequence::new(config.esn),
            max_payload,
            open: None,
            order: Reorder::new(),
            keepalive: None,
            retired: false,
            rules: Vec::new(),
            config,
        }
    }

    /// Largest inner packet that fits the path.
    pub(crate) fn inner_mtu(&self) -> usize {
        match self.common.mode {
            Mode::Tunnel { .. } => self.max_payload,
            Mode::Transport { local, .. } => self.max_payload + if local.is_ipv4() { 20 } else { 40 },
        }
    }
}

impl InSa {
    pub(crate) fn new(config: InboundSa, framing: Framing, path: Path) -> Self {
        let common = Common {
            child: config.child,
            spi: config.spi,
            device: config.device,
            sa: config.sa,
            out: 0,
            framing,
            mode: config.mode,
            path,
            ts_local: config.ts_local,
            ts_remote: config.ts_remote,
            usage: Usage::new(config.limits),
            share: config.share,
            last_used: None,
            stale_told: false,
            listed: false,
            order_timer: false,
            drops: None,
        };
        InSa {
            common,
            iface: config.iface,
            replay: Window::new(config.replay_window, config.esn),
            moves: config.moves,
            pair: config.pair,
            reported: None,
            open: None,
            order: Reorder::new(),
            way_back: 0,
            heard: false,
        }
    }
}
