//! Requests and replies.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::Identity;
use serde::{Deserialize, Serialize};
use spi::{Hash, Prf};

/// The network side's name of an IKE SA. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IkeSaRef(pub u64);

/// Which end of the IKE_SA_INIT exchange we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// We sent the request.
    Initiator,
    /// We answered it.
    Responder,
}

/// Realms that one question may name.
pub const MAX_CANDIDATES: usize = 16;

/// A question to the key side.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug))]
pub enum Request {
    /// Prove who we are. Answered by [`Reply::Proof`] or [`Reply::Refused`].
    MakeAuth {
        /// For which IKE SA; at most one `MakeAuth` each.
        sa: IkeSaRef,
        /// Whose policy, keys and certificates.
        realm: Arc<str>,
        /// The identity we claim.
        own_id: Identity,
        /// The identity the peer claims or is expected to have, to find a PSK by; `None` when unknown yet.
        peer_id: Option<Identity>,
        /// From what the octets are built.
        input: AuthInput,
        /// What the peer said it understands.
        offered: Offered,
    },
    /// Check the peer's proof. Answered by [`Reply::PeerAccepted`] or [`Reply::Refused`].
    CheckAuth {
        /// For which IKE SA.
        sa: IkeSaRef,
        /// Whose policy and trust anchors: realms that the peer may belong to, best first, at most [`MAX_CANDIDATES`]. With what
        /// its certificate says the key side finds out which one it is.
        realms: Vec<Arc<str>>,
        /// Whom the peer asked for, as initiator: who we are towards it.
        asked: Option<Identity>,
        /// The identity the peer claims.
        peer_id: Identity,
        /// From what the octets are built.
        input: AuthInput,
        /// What the peer sent.
        proof: PeerProof,
    },
    /// Begin EAP, in a realm that wants it. Answered by [`Reply::Eap`] or [`Reply::Refused`].
    EapBegin {
        /// For which IKE SA; once.
        sa: IkeSaRef,
        /// Which end we are: the responder is the EAP server.
        role: Role,
        /// Whose policy, methods and credentials: realms that the peer may belong to, best first, at most [`MAX_CANDIDATES`]. The
        /// first one's are used; to which it belongs is known when it is known who it is.
        realms: Vec<Arc<str>>,
        /// Whom the peer asked for, as initiator: who we are towards it.
        asked: Option<Identity>,
        /// The identity the peer claims in IKE.
        peer_id: Identity,
        /// From where the peer speaks, for a RADIUS server.
        remote: IpAddr,
    },
    /// The peer's next EAP packet; at most [`MAX_EAP_ROUNDS`] of at most [`MAX_EAP_PACKET`] octets. Answered by [`Reply::Eap`].
    EapPacket {
        /// For which IKE SA.
        sa: IkeSaRef,
        /// From the code octet on.
        packet: Vec<u8>,
    },
    /// Go on after [`EapStep::WantPassword`]. Answered by [`Reply::Eap`] when the password is there.
    EapWait {
        /// For which IKE SA.
        sa: IkeSaRef,
    },
    /// Prove with the key that EAP gave that we are who has spoken EAP (RFC 7296 section 2.16). Answered by [`Reply::Proof`].
    EapMakeAuth {
        /// For which IKE SA; once.
        sa: IkeSaRef,
        /// From what the octets are built.
        input: AuthInput,
    },
    /// Check the peer's proof with the key that EAP gave. Answered by [`Reply::PeerAccepted`] or [`Reply::Refused`].
    EapCheckAuth {
        /// For which IKE SA; once.
        sa: IkeSaRef,
        /// From what the octets are built.
        input: AuthInput,
        /// What the peer sent.
        proof: PeerProof,
    },
    /// What happened to a session that a RADIUS server let in, for accounting. Answered by [`Reply::Ok`] or
    /// [`Reply::Refused`].
    Account {
        /// The IKE SA that the session began with; it keeps that name when the SA is rekeyed.
        session: IkeSaRef,
        /// What happened.
        what: Account,
    },
    /// Wait for something that is to be done to sessions; asking again says that the last one is done. Answered by
    /// [`Reply::SessionOrder`], maybe after days.
    AwaitSessionOrder,
    /// The IKE SA is gone: forget what was kept for it. Not answered.
    Forget {
        /// Which.
        sa: IkeSaRef,
    },
    /// Make a TUN device, or take over one of ours that is left. Answered by [`Reply::Tun`].
    OpenTun(TunSpec),
    /// Take over a TUN device that the one who asks has: the key side was started anew, and knows of none. Answered by
    /// [`Reply::Ok`].
    AdoptTun {
        /// What it was asked to be.
        spec: TunSpec,
        /// A queue of it, which shows that it is ours; between processes it goes beside the message.
        #[serde(skip)]
        queue: Option<std::os::fd::OwnedFd>,
    },
    /// Add or remove a route. Answered by [`Reply::Ok`] or [`Reply::Refused`].
    Route(RouteChange),
    /// Add or remove an address on a TUN device.
    Address {
        /// Whose policy allows it.
        realm: Arc<str>,
        /// The device.
        device: Arc<str>,
        /// The address.
        address: IpAddr,
        /// Prefix length in bits.
        prefix: u8,
        /// Add or remove.
        add: bool,
    },
    /// Use name servers, or no longer.
    Dns(DnsChange),
    /// Answer for an address on a device of the machine, or no longer.
    Neighbour(NeighbourChange),
}

/// Name servers that came with an inner address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsChange {
    /// Whose policy allows it; it has one set of them at a time.
    pub realm: Arc<str>,
    /// The TUN device behind which they are.
    pub device: Arc<str>,
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// Domains to ask them for, in lower case and without trailing dots; empty: everything.
    pub domains: Vec<String>,
    /// Use them, or no longer.
    pub add: bool,
}

/// An address of a client for which the machine answers on another device (proxy ARP, proxy ND).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourChange {
    /// Whose policy allows it.
    pub realm: Arc<str>,
    /// The device on which is answered; none of ours.
    pub device: Arc<str>,
    /// The address.
    pub address: IpAddr,
    /// Answer, or no longer.
    pub add: bool,
}

/// From what the signed octets are put together: `message | nonce | maced_id` (RFC 7296 section 2.15).
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone, Debug))]
pub struct AuthInput {
    /// Which end we are.
    pub role: Role,
    /// The IKE_SA_INIT message of the side that proves itself, as it went over the wire, without a non-ESP marker.
    pub message: Vec<u8>,
    /// The nonce of the other side.
    pub nonce: Vec<u8>,
    /// `prf(SK_pi or SK_pr, ID payload body)` of the side that proves itself.
    pub maced_id: Vec<u8>,
    /// The negotiated PRF.
    pub prf: Prf,
    /// Octets appended after `maced_id` (IntAuth of RFC 9242); empty without IKE_INTERMEDIATE.
    pub int_auth: Vec<u8>,
}

/// What the peer said it understands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Offered {
    /// SIGNATURE_HASH_ALGORITHMS; empty: the peer does not know RFC 7427.
    pub hashes: Vec<Hash>,
    /// Hashes of CA public keys from its CERTREQ payloads, 20 octets each.
    pub authorities: Vec<[u8; 20]>,
    /// Whether it asks for an OCSP answer about our certificate (RFC 4806).
    pub ocsp: bool,
    /// Whether it fetches certificates (HTTP_CERT_LOOKUP_SUPPORTED, RFC 7296 section 3.6).
    pub urls: bool,
}

/// What the peers of a realm are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertAsks {
    /// Hashes of the keys of its CAs.
    pub authorities: Vec<[u8; 20]>,
    /// Hashes of the keys of OCSP responders it believes, besides its CAs and whom these name; `None`: it does not look at
    /// revocation.
    pub responders: Option<Vec<[u8; 20]>>,
    /// Whether it fetches certificates by their URL.
    pub urls: bool,
}

/// A CERT payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertData {
    /// Cert Encoding (RFC 7296 section 3.6): 4 X.509 signature, 15 raw public key (RFC 7670).
    pub encoding: u8,
    /// The data.
    pub data: Vec<u8>,
}

/// The peer's AUTH and CERT payloads.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone, Debug))]
pub struct PeerProof {
    /// Auth Method.
    pub method: u8,
    /// Authentication data.
    pub data: Vec<u8>,
    /// CERT payloads in their order; the first is the end entity's.
    pub certs: Vec<CertData>,
}

/// A TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunSpec {
    /// Name, at most 15 octets.
    pub name: String,
    /// MTU in octets.
    pub mtu: u16,
    /// Queues.
    pub queues: u16,
    /// Whether each packet is to come with a `virtio_net_hdr`, and superpackets with it, as far as the kernel has them.
    pub offload: bool,
    /// Whether it is to be a TAP device: each packet with an Ethernet header, the device with [`TAP_ADDRESS`].
    pub ethernet: bool,
}

/// Hardware address of the TAP devices we make; locally administered.
pub const TAP_ADDRESS: [u8; 6] = [0x02, b't', b's', b'k', 0, 1];

/// What a TUN device leaves to us, and lets us leave to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunOffload {
    /// A `virtio_net_hdr` of ten octets stands before each packet, both ways; the rest below needs it.
    pub header: bool,
    /// Checksums.
    pub checksum: bool,
    /// Cutting TCP superpackets.
    pub tcp: bool,
    /// Cutting UDP superpackets; kernels before 6.2 do not know it.
    pub udp: bool,
}

/// A route into a TUN device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteChange {
    /// Whose policy allows it.
    pub realm: Arc<str>,
    /// Destination and prefix length in bits.
    pub destination: (IpAddr, u8),
    /// The device.
    pub device: Arc<str>,
    /// Preferred source address, so that the gateway's own packets match the selectors.
    pub source: Option<IpAddr>,
    /// Add or remove.
    pub add: bool,
}

/// EAP packets of the peer in one conversation; long chains of certificates in small fragments take some fifty.
pub const MAX_EAP_ROUNDS: u16 = 60;

/// Longest EAP packet, octets. Methods with certificates cut them into smaller ones themselves.
pub const MAX_EAP_PACKET: usize = 8192;

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Account {
    /// It is up, with these inner addresses; at most [`MAX_EAP_LIST`].
    Start(Vec<IpAddr>),
    /// It has carried so much.
    Interim(Traffic),
    /// It is over.
    Stop(Traffic, StopCause),
}

/// What a session has carried, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From the peer.
    pub octets_in: u64,
    /// To the peer.
    pub octets_out: u64,
    /// From the peer.
    pub packets_in: u64,
    /// To the peer.
    pub packets_out: u64,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// The peer said so.
    Peer,
    /// The peer does not answer.
    Silence,
    /// Its time was over.
    Time,
    /// Somebody with authority said so.
    Order,
    /// The gateway ends.
    Shutdown,
    /// The same peer came anew.
    Replaced,
    /// Something went wrong.
    Failure,
}

/// What is to be done to sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOrder {
    /// The IKE SAs that they began with; at most [`MAX_ORDERED`].
    pub sessions: Vec<IkeSaRef>,
    /// What.
    pub what: SessionChange,
}

/// What can be done to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionChange {
    /// Take it down.
    End,
    /// Let it stay so long from now, and account for it so often.
    Change {
        /// How long.
        timeout: Option<Duration>,
        /// How often.
        interim: Option<Duration>,
    },
}

/// Sessions in one order.
pub const MAX_ORDERED: usize = 256;

/// How EAP goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EapStep {
    /// Send this packet; the peer's next is awaited.
    Send(Vec<u8>),
    /// The same, and the peer is refused already: it is told so by the packet, and may go without another word. For the operator it is
    /// then the reason. Holds no secret.
    Regret {
        /// To send.
        packet: Vec<u8>,
        /// Why it is refused.
        why: String,
    },
    /// Nothing to send: the peer's first packet is awaited (we are the client).
    Ready,
    /// The password of this user is not configured: somebody has to give it. [`Request::EapWait`] goes on.
    WantPassword(String),
    /// It is over, and succeeded.
    Accepted {
        /// EAP-Success to send, if we are the server.
        packet: Option<Vec<u8>>,
        /// The realm that the peer belongs to: one of those that came into question.
        realm: Arc<str>,
        /// Who and what.
        grant: Box<EapGrant>,
    },
    /// It is over, and failed.
    Refused {
        /// EAP-Failure to send, if we are the server.
        packet: Option<Vec<u8>>,
        /// Why, for the operator. Holds no secret.
        why: String,
    },
}

/// What came of EAP. The key stays on the key side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EapGrant {
    /// Who was authenticated, as the method knows it; at most [`MAX_EAP_TEXT`] octets.
    pub identity: String,
    /// The method, for people.
    pub method: String,
    /// Whether there is a key, with which both sides have to prove themselves.
    pub keyed: bool,
    /// Inner addresses for the peer.
    pub addresses: Vec<IpAddr>,
    /// Name servers for it.
    pub dns: Vec<IpAddr>,
    /// How long it may stay.
    pub session_timeout: Option<Duration>,
    /// How often accounting is to be sent.
    pub interim: Option<Duration>,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// Class attributes, which accounting gives back as they are.
    pub class: Vec<Vec<u8>>,
    /// Whether [`Request::Account`] is wanted.
    pub accounted: bool,
}

/// Longest text in [`EapGrant`], octets.
pub const MAX_EAP_TEXT: usize = 256;

/// Longest list in [`EapGrant`].
pub const MAX_EAP_LIST: usize = 16;

/// An answer.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug))]
pub enum Reply {
    /// Done.
    Ok,
    /// Our AUTH payload and the certificates that go with it.
    Proof {
        /// Auth Method.
        method: u8,
        /// Authentication data.
        data: Vec<u8>,
        /// CERT payloads, end entity first.
        certs: Vec<CertData>,
    },
    /// The peer is who it claims to be.
    PeerAccepted {
        /// In which of the realms.
        realm: Arc<str>,
        /// How it proved it, for the log: `PSK`, `ECDSA P-256 SHA2-256, certificate of CN=…`.
        how: Arc<str>,
    },
    /// How EAP goes on.
    Eap(EapStep),
    /// Something is to be done to sessions.
    SessionOrder(SessionOrder),
    /// A TUN device, one descriptor for each queue.
    Tun {
        /// The descriptors; between processes they go beside the message.
        #[serde(skip)]
        queues: Vec<std::os::fd::OwnedFd>,
        /// The name it has now.
        name: String,
        /// What the kernel granted.
        offload: TunOffload,
    },
    /// No, and why.
    Refused(Refusal),
}

/// Why not. The text is for the operator and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer's proof is wrong, or there is nothing to check it with: AUTHENTICATION_FAILED.
    AuthenticationFailed(String),
    /// We have no key or secret to prove ourselves with.
    NoCredential(String),
    /// The realm's policy does not allow it.
    NotAllowed(String),
    /// Asked in the wrong phase or a second time.
    OutOfTurn(String),
    /// The system said no.
    System(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::AuthenticationFailed(s) => write!(f, "authentication failed: {s}"),
            Refusal::NoCredential(s) => write!(f, "no credential: {s}"),
            Refusal::NotAllowed(s) => write!(f, "not allowed: {s}"),
            Refusal::OutOfTurn(s) => write!(f, "out of turn: {s}"),
            Refusal::System(s) => write!(f, "system: {s}"),
        }
    }
}
