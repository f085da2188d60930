//! Realms: the policy that peers of one role share. Holds no secret; those are found by realm name and identity on the
//! side that keeps keys.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spi::SignScheme;
use wire::TrafficSelector;

use crate::eap::EapPolicy;
use crate::id::Identity;
use crate::lifetime::{Dpd, Lifetime};
use crate::pool::{Pool, VirtualIpRequest};
use crate::proposal::{EspProposal, IkeProposal};
use crate::rule::Peers;

/// A realm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Realm {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Our addresses it is reachable at; empty: any.
    pub local: Vec<IpAddr>,
    /// Where its peers are; empty: anywhere.
    pub remote: Vec<RemoteAddress>,
    /// IKE proposals, preferred first.
    pub ike: Vec<IkeProposal>,
    /// Who we are.
    pub local_id: Identity,
    /// Who we are besides, to a peer that asks for one of these.
    pub aliases: Vec<Identity>,
    /// How we prove it.
    pub local_auth: AuthPolicy,
    /// Who the peer may be.
    pub remote_id: Peers,
    /// How it must prove it.
    pub remote_auth: AuthPolicy,
    /// How EAP is done, where one of the two is [`AuthPolicy::Eap`].
    pub eap: EapPolicy,
    /// By which signatures, where it does so by signature; empty: by any.
    pub methods: Vec<SignMethod>,
    /// Children, preferred first when narrowing for a peer.
    pub children: Vec<Child>,
    /// When to bring it up by ourselves.
    pub start: Start,
    /// ESP in UDP or raw.
    pub encap: Encap,
    /// Whether IKE fragmentation (RFC 7383) is offered and accepted.
    pub fragmentation: bool,
    /// Longest IKE datagram we send when fragmenting, IP header included; octets.
    pub fragment_size: u16,
    /// IKE SAs without a Child SA (RFC 6023).
    pub childless: Childless,
    /// When the IKE SA is rekeyed.
    pub ike_rekey: Lifetime,
    /// When it is replaced by a new one with fresh authentication; zero time: never.
    pub ike_reauth: Lifetime,
    /// Liveness.
    pub dpd: Dpd,
    /// Addresses we ask for as a client.
    pub virtual_ip: VirtualIpRequest,
    /// Addresses we hand out as a server.
    pub pool: Option<Pool>,
    /// Whether a second IKE SA of the same identity replaces the first (RFC 7296 section 2.4, INITIAL_CONTACT).
    pub unique: bool,
    /// The worker of the data path that carries its Child SAs; `None`: whichever has the fewest.
    pub worker: Option<u16>,
}

/// Where a peer may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemoteAddress {
    /// One address; the first of these is where we initiate to.
    Host(IpAddr),
    /// A prefix: address and length in bits.
    Prefix(IpAddr, u8),
}

/// A way of authenticating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthPolicy {
    /// Pre-shared key (RFC 7296 section 2.15).
    Psk,
    /// Signature by certificate or raw public key (RFC 7427 and the older methods).
    Pubkey,
    /// EAP (RFC 7296 section 2.16); which methods, and how, says [`Realm::eap`]. The initiator's only; the responder's too
    /// where EAP alone is agreed on (RFC 5998).
    Eap,
    /// Not at all (RFC 7619): whoever it is remains unknown.
    Null,
}

/// A kind of signature, as far as a realm may insist on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignMethod {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1,
    /// RSASSA-PSS.
    RsaPss,
    /// ECDSA on any curve.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// Ed448.
    Ed448,
}

impl SignMethod {
    /// All of them.
    pub const ALL: [SignMethod; 5] =
        [SignMethod::RsaPkcs1, SignMethod::RsaPss, SignMethod::Ecdsa, SignMethod::Ed25519, SignMethod::Ed448];

    /// Which of them a scheme is of; `None` for one that is none of these.
    pub const fn of(scheme: SignScheme) -> Option<Self> {
        Some(match scheme {
            SignScheme::RsaPkcs1(_) => SignMethod::RsaPkcs1,
            SignScheme::RsaPss(_) => SignMethod::RsaPss,
            SignScheme::EcdsaPlain(..) | SignScheme::EcdsaDer(..) => SignMethod::Ecdsa,
            SignScheme::Ed25519 => SignMethod::Ed25519,
            SignScheme::Ed448 => SignMethod::Ed448,
            _ => return None,
        })
    }

    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            SignMethod::RsaPkcs1 => "rsa-pkcs1",
            SignMethod::RsaPss => "rsa-pss",
            SignMethod::Ecdsa => "ecdsa",
            SignMethod::Ed25519 => "ed25519",
            SignMethod::Ed448 => "ed448",
        }
    }
}

impl Realm {
    /// Whether we go by this name here.
    pub fn is_called(&self, id: &Identity) -> bool {
        self.local_id == *id || self.aliases.contains(id)
    }

    /// Who we are to a peer that asked for `idr`, or for nobody.
    pub fn own_id(&self, idr: Option<&Identity>) -> &Identity {
        idr.and_then(|idr| self.aliases.iter().find(|alias| *alias == idr)).unwrap_or(&self.local_id)
    }

    /// Whether it takes signatures of this kind.
    pub fn takes(&self, method: SignMethod) -> bool {
        self.methods.is_empty() || self.methods.contains(&method)
    }
}

/// When to set up an SA by ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// As soon as the gateway runs.
    Boot,
    /// When a packet needs it.
    Traffic,
    /// When asked to, or by the peer.
    Manual,
}

/// How ESP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encap {
    /// In UDP when the peer is one of ours or there is a NAT; raw otherwise.
    Auto,
    /// Always in UDP.
    Udp,
    /// Never in UDP, unless there is a NAT.
    Raw,
}

/// IKE SAs without a Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Childless {
    /// If the peer asks for it.
    Allow,
    /// Ask for it where the peer can.
    Prefer,
    /// Refuse.
    Never,
}

/// A Child SA to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Child {
    /// Name in the configuration, unique in its realm.
    pub name: Arc<str>,
    /// Tunnel or transport.
    pub mode: ChildMode,
    /// What is ours.
    pub local: Vec<SelectorSpec>,
    /// What is the peer's.
    pub remote: Vec<SelectorSpec>,
    /// ESP proposals, preferred first.
    pub esp: Vec<EspProposal>,
    /// When to bring it up.
    pub start: Start,
    /// When it is rekeyed.
    pub rekey: Lifetime,
    /// Anti-replay window in packets; 0: off.
    pub replay_window: u32,
    /// Pad outgoing packets to this many octets of inner packet (RFC 4303 section 2.7); 0: off.
    pub tfc: u16,
    /// Copy the DF bit of the inner packet to the outer header.
    pub copy_df: bool,
    /// Copy DSCP to the outer header (RFC 4301 section 5.1.2).
    pub copy_dscp: bool,
    /// Name of the TUN device; empty: the gateway's default.
    pub tun: Arc<str>,
}

/// Tunnel or transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildMode {
    /// A packet in a packet.
    Tunnel,
    /// Only between the two gateways themselves.
    Transport,
}

/// A traffic selector as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectorSpec {
    /// A fixed range.
    Fixed(TrafficSelector),
    /// The host's own address: the virtual one if there is one, else the outer one; with this protocol and port range.
    Dynamic {
        /// IP protocol; 0: any.
        protocol: u8,
        /// First port.
        start_port: u16,
        /// Last port.
        end_port: u16,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lifetime::DpdAction;
    use std::time::Duration;

    /// A realm of moon.lab.test with this `remote_id` and these `remote` addresses.
    pub(crate) fn realm(name: &str, remote_id: &str, remote: &[&str]) -> Realm {
        let remote = remote.iter().map(|text| match text.split_once('/') {
            Some((address, len)) => RemoteAddress::Prefix(address.parse().unwrap(), len.parse().unwrap()),
            None => RemoteAddress::Host(text.parse().unwrap()),
        });
        Realm {
            name: name.into(),
            local: vec![],
            remote: remote.collect(),
            ike: IkeProposal::defaults(),
            local_id: Identity::parse("moon.lab.test").unwrap(),
            aliases: vec![],
            local_auth: AuthPolicy::Psk,
            remote_id: Peers::parse([remote_id]).unwrap(),
            remote_auth: AuthPolicy::Psk,
            eap: EapPolicy::default(),
            methods: vec![],
            children: vec![],
            start: Start::Manual,
            encap: Encap::Auto,
            fragmentation: true,
            fragment_size: 1280,
            childless: Childless::Allow,
            ike_rekey: Lifetime::of(Duration::from_secs(14400)),
            ike_reauth: Lifetime::of(Duration::ZERO),
            dpd: Dpd { delay: Duration::from_secs(30), action: DpdAction::Restart },
            virtual_ip: VirtualIpRequest::default(),
            pool: None,
            unique: true,
            worker: None,
        }
    }
}
