//! What `status` and `sas` show. Holds no secret.

use std::net::SocketAddr;
use std::time::Instant;

use ipc::Role;
use policy::{ChildMode, Identity};
use wire::TrafficSelector;

use crate::effect::{ChildId, IkeSaId, InnerAddress, Path};

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
    pub leases: Vec<(String, usize)>,
    /// Messages dropped, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// One IKE SA.
#[derive(Clone, Debug)]
pub struct IkeSaView {
    /// Its name.
    pub id: IkeSaId,
    /// The realm, once known.
    pub realm: Option<String>,
    /// Which end we are.
    pub role: Role,
    /// What is awaited, or `Established`.
    pub state: &'static str,
    /// The identity we claim.
    pub own_id: Option<Identity>,
    /// The peer's identity, once it is proved.
    pub peer_id: Option<Identity>,
    /// How the peer proved it.
    pub how: Option<String>,
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
    pub name: String,
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
    pub ts_local: Vec<TrafficSelector>,
    /// The peer's selectors.
    pub ts_remote: Vec<TrafficSelector>,
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
}
