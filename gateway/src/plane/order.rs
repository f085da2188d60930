//! What a lane is told, and what it tells.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use esp::{ChildId, ElsewhereSa, Encap, InboundSa, OutboundSa, Policy, UdpEncap};
use ipc::TunOffload;

use super::look::Look;
use super::queues::{DeviceOrder, DeviceReport};
use crate::backlog;

/// What the thread with the key exchange wants of a lane.
pub(crate) enum Order {
    /// A pair of SAs.
    Install(Box<Install>),
    /// Send with this one from now on.
    UseOutbound { line: ChildId, spi: u32 },
    /// Never send with this one again.
    Retire { line: ChildId, spi: u32 },
    /// A pair is gone.
    Remove { id: ike::ChildId, line: ChildId, spi_in: u32, spi_out: u32 },
    /// Another lane has an SA.
    Elsewhere(Box<ElsewhereSa>),
    /// It has not any more.
    NotElsewhere { line: ChildId, spi: u32 },
    /// The peer of a line is somewhere else.
    Move { line: ChildId, local: IpAddr, remote: IpAddr, encap: Option<UdpEncap> },
    /// The path to a peer takes no more than this.
    LowerMtu { remote: IpAddr, mtu: u16 },
    /// The SPD as the configuration has it.
    Policies(Arc<Vec<Policy>>),
    /// Budgets of CPU time, by their numbers.
    Shares(Arc<Vec<f64>>),
    /// What waits for SAs of this line waits in vain.
    AcquireFailed(ChildId),
    /// A queue of a TUN device; policies and SAs know it by its place.
    Tun { place: usize, fd: OwnedFd, ethernet: bool, offload: TunOffload },
    /// Packets in the clear are wanted, as blocks of a pcapng file.
    Capture(backlog::Sender),
    /// About a device, or an SA's place on one.
    Device(DeviceOrder),
    /// How are you?
    Look { sas: bool, ticket: u64 },
    /// The end.
    Stop,
}

/// A pair of SAs to install.
pub(crate) struct Install {
    /// The pair's name, for when it fails.
    pub(crate) id: ike::ChildId,
    /// Realm and child, for people.
    pub(crate) label: Arc<str>,
    pub(crate) inbound: InboundSa,
    pub(crate) outbound: OutboundSa,
    /// Whether to send with it at once, whatever else the line has.
    pub(crate) use_outbound: bool,
}

/// What a lane has to say.
pub(crate) enum Report {
    /// Something of the data path.
    Event(esp::Event),
    /// A pair could not be installed; it is not there.
    NotInstalled { id: ike::ChildId, why: String },
    /// A pair is gone, and has carried this.
    Removed { id: ike::ChildId, carried: ipc::Traffic },
    /// The peers of these inbound SAs were heard.
    Heard(Vec<u32>),
    /// The path to a peer takes no more than this.
    PathMtu { remote: IpAddr, mtu: u16 },
    /// An IKE message that came to a socket for ESP.
    Ike { local: SocketAddr, remote: SocketAddr, message: Vec<u8> },
    /// Somebody deleted the TUN device at this place.
    TunGone(usize),
    /// About a device.
    Device(DeviceReport),
    /// The answer to a look.
    Look { ticket: u64, look: Box<Look> },
}

/// Where an outer packet came from, short of its ToS.
pub(crate) fn raw_outer(from: IpAddr, to: IpAddr, tos: u8) -> esp::Outer {
    let plain = |address: IpAddr| SocketAddr::new(address, 0);
    esp::Outer { from: plain(from), to: plain(to), encap: Encap::Raw, tos }
}

/// When something was asked, and what has come since.
pub(crate) struct Gather<T> {
    /// When it was asked.
    pub(crate) since: Instant,
    /// Answers by lane.
    pub(crate) parts: Vec<Option<T>>,
}

impl<T> Gather<T> {
    pub(crate) fn new(lanes: usize, since: Instant) -> Self {
        Gather { since, parts: std::iter::repeat_with(|| None).take(lanes).collect() }
    }

    /// Takes in an answer; true when it was the last.
    pub(crate) fn add(&mut self, lane: u16, part: T) -> bool {
        if let Some(place) = self.parts.get_mut(usize::from(lane)) {
            *place = Some(part);
        }
        self.parts.iter().all(Option::is_some)
    }
}
