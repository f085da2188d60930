//! What `status` and `sas` show. Holds no secret.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipc::{EapGrant, Role};
use policy::{ChildMode, Identity};
use wire::TrafficSelector;

use crate::core::Core;
use crate::effect::{ChildId, IkeSaId, InnerAddress, Path};
use crate::engine::Engine;
use crate::sa::{IkeSa, State};

/// The whole engine at one moment.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The IKE SAs, oldest first.
    pub sas: Vec<IkeSaView>,
    /// IKE SAs not yet authenticated.
    pub half_open: usize,
    /// Whether strangers must return a COOKIE.
    pub cookies: bool,
    /// Jobs and questions that are out.
    pub in_flight: usize,
    /// Addresses handed out, by realm.
    pub leases: Vec<(Arc<str>, usize)>,
    /// Messages dropped, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Requests that were sent more than once.
    pub repeats: Repeats,
}

/// Requests that were sent more than once: a message was lost, or an end was slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Ours, each time again.
    pub sent: u64,
    /// Those of peers, each time again, whether they could be answered at once or not.
    pub received: u64,
}

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaView {
    /// Its name.
    pub id: IkeSaId,
    /// The realm, once known.
    pub realm: Option<Arc<str>>,
    /// Which end we are.
    pub role: Role,
    /// What is awaited, or `Established`.
    pub state: &'static str,
    /// The identity we claim.
    pub own_id: Option<Identity>,
    /// The peer's identity, once it is proved.
    pub peer_id: Option<Identity>,
    /// What the peer called itself in IKE, where EAP has named it otherwise.
    pub ike_id: Option<Identity>,
    /// What came of EAP.
    pub granted: Option<Arc<EapGrant>>,
    /// When its session is over.
    pub session_until: Option<Instant>,
    /// How the peer proved it.
    pub how: Option<Arc<str>>,
    /// Between which addresses.
    pub path: Path,
    /// Whether there is a NAT in front of us.
    pub we_behind_nat: bool,
    /// Whether there is a NAT in front of the peer.
    pub peer_behind_nat: bool,
    /// The initiator's SPI.
    pub spi_i: u64,
    /// The responder's SPI; 0 when unknown yet.
    pub spi_r: u64,
    /// The suite, as proposals write it; empty when not agreed on yet.
    pub suite: String,
    /// Since when it exists.
    pub created: Instant,
    /// Since when it is up.
    pub established: Option<Instant>,
    /// When we rekey it.
    pub rekey_at: Option<Instant>,
    /// When we replace it with fresh authentication.
    pub reauth_at: Option<Instant>,
    /// Sign of life from the peer, the last one.
    pub heard: Instant,
    /// Inner addresses the peer has from us, or we from it.
    pub addresses: Vec<InnerAddress>,
    /// Its children.
    pub children: Vec<ChildView>,
}

/// One Child SA pair.
#[derive(Clone, Debug)]
pub struct ChildView {
    /// Its name.
    pub id: ChildId,
    /// The child's name in the realm.
    pub name: Arc<str>,
    /// `Installed`, or what is going on with it.
    pub state: &'static str,
    /// SPI of packets to us.
    pub spi_in: u32,
    /// SPI of packets to the peer.
    pub spi_out: u32,
    /// The suite, as proposals write it.
    pub suite: String,
    /// Tunnel or transport.
    pub mode: ChildMode,
    /// Our selectors.
    pub ts_local: Arc<[TrafficSelector]>,
    /// The peer's selectors.
    pub ts_remote: Arc<[TrafficSelector]>,
    /// The peer's address, and whether ESP is in UDP.
    pub remote: SocketAddr,
    /// ESP in UDP.
    pub encap: bool,
    /// Since when it is installed.
    pub installed: Instant,
    /// When we rekey it.
    pub rekey_at: Option<Instant>,
    /// When it is given up.
    pub expires_at: Option<Instant>,
    /// The worker of the data path whose SA it is.
    pub lane: u16,
    /// The worker it is for, if it is for one alone (RFC 9611).
    pub resource: Option<u16>,
}

/// Looks at an engine.
pub(crate) fn of(engine: &Engine) -> Status {
    let core = &engine.core;
    Status {
        sas: engine
            .sas
            .values()
            .filter(|sa| !matches!(sa.state, State::Closed | State::Gone))
            .map(|sa| sa_view(core, sa))
            .collect(),
        half_open: core.half_open,
        cookies: core.gate.is_on(),
        in_flight: core.in_flight(),
        leases: core.pools.iter().map(|(realm, (_, pool))| (realm.clone(), pool.in_use())).collect(),
        dropped: core.dropped.iter().map(|(reason, count)| (*reason, *count)).collect(),
        repeats: core.repeats,
    }
}

fn sa_view(core: &Core, sa: &IkeSa) -> IkeSaView {
    let (path, encap) = sa.esp_path(core);
    let children = sa.children.iter().map(|(id, c)| ChildView {
        id,
        name: c.name.clone(),
        state: c.state.name(),
        spi_in: c.spi_in,
        spi_out: c.spi_out,
        suite: c.suite.to_string(),
        mode: c.mode,
        ts_local: c.selectors.local.clone(),
        ts_remote: c.selectors.remote.clone(),
        remote: path.remote,
        encap,
        installed: c.installed,
        rekey_at: c.rekey_at,
        expires_at: c.expires_at,
        lane: c.place.lane,
        resource: c.place.resource(),
    });
    IkeSaView {
        id: sa.id,
        realm: sa.realm.as_ref().map(|r| r.name.clone()),
        role: sa.role,
        state: sa.state.name(),
        own_id: sa.own_id().cloned(),
        peer_id: sa.peer_id.clone(),
        ike_id: sa.ike_id.clone(),
        granted: sa.granted.clone(),
        session_until: sa.session_until,
        how: sa.how.clone(),
        path: sa.path,
        we_behind_nat: sa.nat.we_behind,
        peer_behind_nat: sa.nat.peer_behind,
        spi_i: sa.spi_i.0,
        spi_r: sa.spi_r.0,
        suite: sa.suite.map(|s| s.to_string()).unwrap_or_default(),
        created: sa.created,
        established: sa.established,
        rekey_at: sa.rekey_at,
        reauth_at: sa.reauth_at,
        heard: sa.heard,
        addresses: sa.ext.cfg().ours.iter().chain(&sa.ext.cfg().leased).copied().collect(),
        children: children.collect(),
    }
}
