//! What a lane shows of itself.

use esp::{ChildId, Counters, DropCounters, LineView, ShareView};
use ipc::TunOffload;
use spi::Direction;

use super::Plane;
use super::queues::QueueLook;
use crate::dispatch::Served;
use crate::io::socket::{Port, Socket, Traffic};
use crate::io::tun::TunTraffic;

/// How a lane is.
pub(crate) struct Look {
    pub(crate) counters: Counters,
    pub(crate) served: Served,
    pub(crate) keepalives_in: u64,
    pub(crate) clear_refused: u64,
    pub(crate) capture_lost: u64,
    /// Buffers that are free, and all there are.
    pub(crate) buffers: (usize, usize),
    pub(crate) waiting: Waiting,
    /// Lines before the devices, and the queues on them, by device.
    pub(crate) lines: Vec<(LineView, QueueLook)>,
    pub(crate) sockets: Vec<SocketLook>,
    /// By the place of the device.
    pub(crate) tuns: Vec<Option<(TunTraffic, TunOffload)>>,
    pub(crate) shares: Vec<ShareView>,
    /// SAs it has, both directions.
    pub(crate) sa_count: usize,
    /// Its SAs, if they were asked for.
    pub(crate) sas: Vec<SaLook>,
}

/// Packets that wait for their turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) critical: usize,
    pub(crate) packets: usize,
    /// Handed over by other lanes: critical and others.
    pub(crate) handed: (usize, usize),
    /// Those that found no room.
    pub(crate) handed_refused: u64,
}

/// A socket.
pub(crate) struct SocketLook {
    pub(crate) port: Port,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) traffic: Traffic,
    pub(crate) queued: (u32, u32),
    pub(crate) offload: (bool, bool),
}

/// What an SA has carried.
pub(crate) struct SaLook {
    pub(crate) line: ChildId,
    pub(crate) spi: u32,
    pub(crate) dir: Direction,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) current: bool,
    pub(crate) drops: DropCounters,
}

/// Looks at a socket.
pub(crate) fn socket(socket: &Socket) -> SocketLook {
    SocketLook {
        port: socket.port(),
        address: socket.bound(),
        traffic: socket.traffic(),
        queued: socket.queued(),
        offload: (socket.cuts_segments(), socket.gathers_segments()),
    }
}

impl Plane {
    /// How it is now.
    pub(crate) fn look(&self, sas: bool) -> Look {
        let (critical, packets) = self.intake.gauge();
        let (handed_critical, handed, handed_refused) = self.letterboxes[usize::from(self.lane)].gauge();
        let queues = self.queues.looks();
        let view = |sa: esp::SaView<'_>| SaLook {
            line: sa.child,
            spi: sa.spi,
            dir: sa.dir,
            packets: sa.packets,
            bytes: sa.bytes,
            current: sa.current,
            drops: sa.drops.clone(),
        };
        Look {
            counters: self.esp.counters().clone(),
            served: self.served,
            keepalives_in: self.keepalives_in,
            clear_refused: self.clear.refused(),
            capture_lost: self.tap.lost(),
            buffers: (self.pool.available(), super::BUFFERS),
            waiting: Waiting { critical, packets, handed: (handed_critical, handed), handed_refused },
            lines: self.esp.lines().zip(queues).collect(),
            sockets: self.sockets.all().iter().map(socket).collect(),
            tuns: self
                .tuns
                .iter()
                .map(|tun| tun.as_ref().map(|tun| (tun.traffic(), tun.offload())))
                .collect(),
            shares: self.esp.shares().collect(),
            sa_count: self.esp.sa_count(),
            sas: if sas { self.esp.sas().map(view).collect() } else { Vec::new() },
        }
    }
}
