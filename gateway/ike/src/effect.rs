//! What the engine wants done, and what it must be told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipc::{IkeSaRef, Request};
use policy::{ChildMode, Identity};
use spi::{CryptoJob, Encr, Integ, Secret, Token};
use wire::TrafficSelector;

use crate::keymat::IkeSuite;
use crate::pool::LeaseState;
use crate::select::EspSuite;

/// Name of an IKE SA, never reused; the same as towards the key side.
pub type IkeSaId = IkeSaRef;

/// Name of a Child SA pair, never reused. A rekeyed child has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(pub u64);

/// Name of a command, chosen by whoever gives it, to match the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// Two addresses a datagram goes between, ours first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Ours. The port says which socket: 500 or 4500 (or what the configuration has in their place).
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// Something the engine wants done.
pub enum Effect {
    /// Send an IKE message. On the NAT-traversal socket the sender puts the non-ESP marker in front (RFC 3948 section 2.2).
    Send {
        /// From where to where.
        path: Path,
        /// The message.
        message: Vec<u8>,
    },
    /// Submit to the crypto queue; the completion goes to `handle_crypto`.
    Crypto(CryptoJob),
    /// Ask the key side; the answer goes to `handle_reply` with the token. `Forget` has no answer.
    Ask {
        /// To match the answer.
        token: Token,
        /// The question.
        request: Request,
    },
    /// A Child SA pair is agreed on: install the inbound SA at once; the outbound one too, and use it as `use_outbound` says.
    InstallChild(Box<ChildInstall>),
    /// From now on send through this child's outbound SA (it was installed with `use_outbound` false).
    UseOutbound(ChildId),
    /// Never send through this child's outbound SA again: the peer has let it go. What comes in is still taken, until
    /// [`RemoveChild`](Effect::RemoveChild).
    RetireChild(ChildId),
    /// A Child SA pair is gone.
    RemoveChild(ChildRemoved),
    /// The peer of these children is at another address now, with or without UDP encapsulation.
    MovePath {
        /// The children.
        children: Vec<ChildId>,
        /// Where to send from and to.
        path: Path,
        /// Encapsulate in UDP.
        encap: bool,
    },
    /// We were given addresses (as client), or gave one (as server): for routes and `dynamic` selectors.
    Addresses {
        /// The IKE SA.
        sa: IkeSaId,
        /// Its realm.
        realm: Arc<str>,
        /// What was assigned to us; empty when we are the server.
        ours: Vec<InnerAddress>,
        /// Name servers for us.
        dns: Vec<IpAddr>,
        /// Domains to ask them for; empty: everything.
        domains: Vec<String>,
        /// False when they are taken back.
        add: bool,
    },
    /// What has become of an address of a realm's pool: to be remembered over a restart.
    Lease(LeaseChange),
    /// Ask the realm's DHCP server for an address of a family; the answer goes to `handle_address` with the token.
    WantAddress {
        /// To match the answer.
        token: Token,
        /// The realm.
        realm: Arc<str>,
        /// For whom.
        identity: Identity,
        /// Of IPv4 or else of IPv6.
        v4: bool,
        /// The address it would like, as it had it before.
        hint: Option<IpAddr>,
    },
    /// Something for the log, `events` and counters.
    Event(Event),
    /// Keys for Wireshark. Only when the engine was told to give them.
    KeyLog(KeyLogEntry),
    /// A command ended.
    Answer {
        /// Which.
        command: CommandId,
        /// Done, or why not, for the operator.
        result: Result<String, String>,
    },
}

/// What a DHCP server gives a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpLease {
    /// The address.
    pub address: IpAddr,
    /// Name servers that go with it.
    pub dns: Vec<IpAddr>,
    /// Domains that go with it.
    pub domains: Vec<Arc<str>>,
}

/// What has become of an address of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseChange {
    /// The realm.
    pub realm: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// Whose it is, or was.
    pub identity: Identity,
    /// What has become of it.
    pub state: LeaseState,
}

/// What an earlier run knew of an address.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownLease {
    /// The realm.
    pub realm: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub identity: Identity,
    /// How long ago it was last in use.
    pub idle: Duration,
}

/// An inner address with its prefix length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InnerAddress {
    /// The address.
    pub address: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// A Child SA pair to install.
pub struct ChildInstall {
    /// Its name.
    pub id: ChildId,
    /// Of which IKE SA.
    pub ike: IkeSaId,
    /// The realm.
    pub realm: Arc<str>,
    /// The child's name in the realm.
    pub name: Arc<str>,
    /// The child it replaces, which stays until `RemoveChild`.
    pub replaces: Option<ChildId>,
    /// SPI of packets to us.
    pub spi_in: u32,
    /// SPI of packets to the peer.
    pub spi_out: u32,
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`Integ::NONE`] with combined modes.
    pub integ: Integ,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Encryption key with salt, inbound.
    pub encr_key_in: Secret,
    /// Integrity key, inbound.
    pub integ_key_in: Secret,
    /// Encryption key with salt, outbound.
    pub encr_key_out: Secret,
    /// Integrity key, outbound.
    pub integ_key_out: Secret,
    /// Tunnel or transport, as agreed.
    pub mode: ChildMode,
    /// Our selectors, narrowed.
    pub ts_local: Arc<[TrafficSelector]>,
    /// The peer's selectors, narrowed.
    pub ts_remote: Arc<[TrafficSelector]>,
    /// Networks among them that the peer has named as behind it, which are to have routes of their own.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Where the outer packets go.
    pub path: Path,
    /// ESP in UDP.
    pub encap: bool,
    /// Whether there is a NAT in front of us, so that keepalives are due (RFC 3948 section 4).
    pub keepalive: bool,
    /// Whether the peer is behind a NAT and may move.
    pub peer_behind_nat: bool,
    /// Use the outbound SA at once. False for the side that must wait for the peer's first packet or Delete.
    pub use_outbound: bool,
    /// Octets and packets after which [`EspSignal::SoftLimit`] is due; 0: never.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_packets: u64,
    /// The worker of the data path whose SA it is: `spi_in` divided by their number leaves it.
    pub lane: u16,
    /// The worker for which alone it is (RFC 9611); `None`: it is for all.
    pub resource: Option<u16>,
    /// The child that is for all, beside which this one is for one. It goes when that goes; its successor takes its place.
    pub fallback: Option<ChildId>,
}

/// A Child SA pair that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildRemoved {
    /// Which.
    pub id: ChildId,
    /// Its inbound SPI.
    pub spi_in: u32,
    /// Its outbound SPI.
    pub spi_out: u32,
    /// Whether another pair carries the same traffic on.
    pub replaced: bool,
}

/// What the data path tells the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum EspSignal {
    /// A packet wants a Child SA that is not there (RFC 4301 section 4.4.1). Selectors of the packet go first in TSi/TSr
    /// (RFC 7296 section 2.9).
    Acquire {
        /// The realm whose policy matched.
        realm: Arc<str>,
        /// The child's name.
        child: Arc<str>,
        /// The packet: our side.
        local: TrafficSelector,
        /// The packet: the peer's side.
        remote: TrafficSelector,
    },
    /// Time to rekey: octets, packets or sequence numbers are running out.
    SoftLimit(ChildId),
    /// The SA stopped carrying traffic.
    HardLimit(ChildId),
    /// What [`Effect::InstallChild`] asked for could not be done: there is no such pair.
    NotInstalled(ChildId),
    /// Authenticated packets came in on this child's inbound SA since last asked (liveness, and the sign that the peer uses
    /// a new SA).
    PeerAlive(ChildId),
    /// An authenticated packet came from a new address (RFC 7296 section 2.23).
    PeerMoved {
        /// On which child.
        child: ChildId,
        /// From where.
        remote: SocketAddr,
    },
    /// A worker has packets for a child that is not its own, and would rather have an SA for itself (RFC 9611). May be said for
    /// every packet.
    WantResource {
        /// The child that serves it meanwhile.
        child: ChildId,
        /// The worker.
        resource: u16,
    },
}

/// What an operator may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bring up a realm with all its `start` children, or one child.
    Up {
        /// The realm.
        realm: String,
        /// One child only.
        child: Option<String>,
    },
    /// Take down a realm, or one child.
    Down {
        /// The realm.
        realm: String,
        /// One child only.
        child: Option<String>,
    },
    /// Rekey the IKE SA (no child named) or a child.
    Rekey {
        /// The realm.
        realm: String,
        /// The child; `None`: the IKE SA.
        child: Option<String>,
    },
    /// Forget who had addresses that are not in use now.
    ForgetLeases {
        /// Of one realm only.
        realm: Option<String>,
        /// Those of one identity only, as it is shown.
        identity: Option<String>,
        /// One address only.
        address: Option<IpAddr>,
    },
    /// Send Deletes on everything and stop; answered when all are acknowledged or given up.
    Shutdown,
}

/// Why something failed, by whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The peer broke a rule.
    PeerMisbehaved(String),
    /// Nothing in common.
    Incompatible(String),
    /// The peer refused, with this notify.
    PeerRefused(String),
    /// Authentication failed, on our side or theirs.
    Authentication(String),
    /// Nothing came back.
    Timeout(String),
    /// Our configuration.
    Misconfigured(String),
    /// A device or the key side could not.
    Device(String),
    /// Asked for, or in the normal course.
    Normal(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::PeerMisbehaved(s) => write!(f, "peer broke a rule: {s}"),
            Why::Incompatible(s) => write!(f, "nothing in common: {s}"),
            Why::PeerRefused(s) => write!(f, "peer refused: {s}"),
            Why::Authentication(s) => write!(f, "authentication: {s}"),
            Why::Timeout(s) => write!(f, "no answer: {s}"),
            Why::Misconfigured(s) => write!(f, "configuration: {s}"),
            Why::Device(s) => write!(f, "device: {s}"),
            Why::Normal(s) => f.write_str(s),
        }
    }
}

/// Something happened. Holds no secret.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An IKE SA is up.
    IkeEstablished {
        /// Which.
        sa: IkeSaId,
        /// The realm.
        realm: Arc<str>,
        /// The peer's identity.
        peer: Identity,
        /// Where.
        path: Path,
        /// The suite; prints as proposals write it.
        suite: IkeSuite,
        /// How the peer proved itself.
        how: Arc<str>,
    },
    /// An IKE SA was rekeyed: the first is replaced by the second.
    IkeRekeyed {
        /// Old.
        old: IkeSaId,
        /// New.
        new: IkeSaId,
    },
    /// An IKE SA is gone, or never came up.
    IkeClosed {
        /// Which.
        sa: IkeSaId,
        /// The realm, when it was known.
        realm: Option<Arc<str>>,
        /// The peer's address.
        remote: SocketAddr,
        /// Why.
        why: Why,
        /// Whether it ever was up.
        was_up: bool,
    },
    /// A Child SA pair is up.
    ChildEstablished {
        /// Which.
        id: ChildId,
        /// The realm.
        realm: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// The suite; prints as proposals write it.
        suite: EspSuite,
        /// Our selectors.
        ts_local: Arc<[TrafficSelector]>,
        /// The peer's selectors.
        ts_remote: Arc<[TrafficSelector]>,
        /// The child it replaces.
        replaces: Option<ChildId>,
        /// The worker it is for, if it is for one alone (RFC 9611).
        resource: Option<u16>,
    },
    /// The peer gives no Child SA for one worker alone (RFC 9611); the one for all serves it.
    ResourceRefused {
        /// The realm.
        realm: Arc<str>,
        /// The child's name.
        name: Arc<str>,
        /// The worker.
        resource: u16,
        /// Why.
        why: Why,
    },
    /// A Child SA pair is gone.
    ChildClosed {
        /// Which.
        id: ChildId,
        /// The realm.
        realm: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Why.
        why: Why,
    },
    /// Setting up or rekeying a Child SA failed; the IKE SA lives on.
    ChildFailed {
        /// The realm.
        realm: Arc<str>,
        /// Its name, when known.
        name: Arc<str>,
        /// Why.
        why: Why,
    },
    /// The peer does not answer.
    PeerDead {
        /// Which.
        sa: IkeSaId,
        /// The realm.
        realm: Arc<str>,
        /// After this long.
        after: Duration,
    },
    /// The peer is at another address.
    PeerMoved {
        /// Which.
        sa: IkeSaId,
        /// Where it is now.
        path: Path,
    },
    /// Somebody has to give a password, so that EAP can go on.
    PasswordWanted {
        /// Which.
        sa: IkeSaId,
        /// The realm.
        realm: Arc<str>,
        /// Whose password.
        user: String,
    },
    /// A message was dropped; counted by reason, reported at a bounded rate.
    Dropped {
        /// From where.
        remote: SocketAddr,
        /// Why.
        reason: &'static str,
    },
    /// The peer sent configuration that we do not act on.
    ConfigurationIgnored {
        /// Which IKE SA.
        sa: IkeSaId,
        /// The realm.
        realm: Arc<str>,
        /// What, and why not.
        what: String,
    },
    /// COOKIE switched on or off.
    Cookies {
        /// On.
        on: bool,
        /// Half-open IKE SAs now.
        half_open: usize,
    },
}

/// Keys for Wireshark's IKEv2 and ESP tables.
pub enum KeyLogEntry {
    /// One IKE SA.
    Ike {
        /// Initiator's SPI.
        spi_i: u64,
        /// Responder's SPI.
        spi_r: u64,
        /// SK_ei.
        sk_ei: Secret,
        /// SK_er.
        sk_er: Secret,
        /// SK_ai; empty with combined modes.
        sk_ai: Secret,
        /// SK_ar.
        sk_ar: Secret,
        /// Encryption.
        encr: Encr,
        /// Integrity.
        integ: Integ,
    },
    /// One direction of a Child SA.
    Esp {
        /// Source of the packets.
        source: IpAddr,
        /// Destination.
        destination: IpAddr,
        /// SPI.
        spi: u32,
        /// Encryption.
        encr: Encr,
        /// Integrity.
        integ: Integ,
        /// Encryption key with salt.
        encr_key: Secret,
        /// Integrity key.
        integ_key: Secret,
    },
}
