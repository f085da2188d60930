//! What the engine is told at the start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipc::CertAsks;
use policy::{Realm, Retransmission};

use crate::effect::KnownLease;

/// Finds the address of ours the system would send from to reach another; `None` when there is no route. Asked only when
/// neither the realm nor [`Config::listen`] says which address is ours.
pub type SourceFor = Arc<dyn Fn(IpAddr) -> Option<IpAddr> + Send + Sync>;

/// What the engine is told at the start.
#[derive(Clone)]
pub struct Config {
    /// The realms, in the order of the configuration; the order decides between equally good matches.
    pub realms: Vec<Arc<Realm>>,
    /// What an earlier run knew of the addresses of the realms' pools.
    pub leases: Vec<KnownLease>,
    /// SHA-1 hashes of the public keys of each realm's CAs, by realm name, for CERTREQ (RFC 7296 section 3.7).
    pub authorities: BTreeMap<String, CertAsks>,
    /// Addresses we listen on; unspecified ones are wildcards.
    pub listen: Vec<IpAddr>,
    /// Finds our address towards a peer.
    pub source_for: Option<SourceFor>,
    /// Port of plain IKE: 500.
    pub ike_port: u16,
    /// Port of IKE and ESP in UDP: 4500.
    pub natt_port: u16,
    /// Retransmission of requests.
    pub retransmission: Retransmission,
    /// Half-open IKE SAs from which on strangers must return a COOKIE (RFC 7296 section 2.6); 0: always.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs from which on requests of strangers are dropped.
    pub half_open_limit: usize,
    /// How long an IKE SA may stay half-open.
    pub half_open_life: Duration,
    /// All IKE SAs there may be.
    pub ike_sa_limit: usize,
    /// Child SAs one IKE SA may hold.
    pub children_limit: usize,
    /// Workers of the data path, one at least: the remainder of an inbound SPI by this number is the worker whose SA it is.
    pub lanes: u16,
    /// Child SAs for single workers (RFC 9611) that we ask for beside one child; 0: none.
    pub resources_asked: u16,
    /// Such SAs that a peer may have beside one child; 0: none. RFC 9611 section 4 recommends twice as many as the peer may have
    /// processors.
    pub resources_accepted: u16,
    /// Jobs and questions that may be out at once.
    pub in_flight_limit: usize,
    /// Whether to give [`Effect::KeyLog`](crate::Effect::KeyLog).
    pub key_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            realms: Vec::new(),
            leases: Vec::new(),
            authorities: BTreeMap::new(),
            listen: Vec::new(),
            source_for: None,
            ike_port: 500,
            natt_port: 4500,
            retransmission: Retransmission::default(),
            cookie_threshold: 64,
            half_open_limit: 1000,
            half_open_life: Duration::from_secs(30),
            ike_sa_limit: 1 << 17,
            children_limit: 256,
            lanes: 1,
            resources_asked: 16,
            resources_accepted: 64,
            in_flight_limit: 4096,
            key_log: false,
        }
    }
}
