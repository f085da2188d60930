//! Requests and replies as octets, for two sides that are two processes. What comes from the other side is bounded twice: a
//! message is no longer than [`MAX_MESSAGE`], and each field holds no more than an honest other side would put there.
//!
//! The format is postcard's, and both sides are of one build: the supervisor sees to that. Descriptors go beside the octets.

use std::os::fd::OwnedFd;

use policy::Identity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::request::{
    Account, AuthInput, CertData, DnsChange, EapGrant, EapStep, MAX_CANDIDATES, MAX_EAP_LIST, MAX_EAP_PACKET,
    MAX_EAP_TEXT, MAX_ORDERED, NeighbourChange, Offered, PeerProof, Refusal, Reply, Request, RouteChange,
    TunSpec,
};

/// Longest message, octets: an IKE_SA_INIT message and the certificates of an IKE_AUTH message, each as long as UDP allows.
pub const MAX_MESSAGE: usize = 192 * 1024;
/// Descriptors beside one message, at most; the kernel passes 253.
pub const MAX_FDS: usize = 128;

/// Longest IKE message (UDP).
const MAX_IKE: usize = 65_535;
/// RFC 7296 section 2.10: nonces are between 16 and 256 octets.
const MAX_NONCE: usize = 256;
/// The longest output of a PRF there is.
const MAX_PRF: usize = 64;
/// Two PRF outputs and a message ID (RFC 9242 section 3.3.2).
const MAX_INT_AUTH: usize = 2 * MAX_PRF + 4;
/// Signatures and what stands before them in RFC 7427; those of lattices have some thousand octets.
const MAX_PROOF: usize = 16 * 1024;
/// CERT payloads of one message.
const MAX_CERTS: usize = 64;
/// Hashes in SIGNATURE_HASH_ALGORITHMS.
const MAX_HASHES: usize = 64;
/// CAs in CERTREQ payloads: as many as fit into one message.
const MAX_AUTHORITIES: usize = MAX_IKE / 20;
/// Names of realms.
const MAX_NAME: usize = 64;
/// Name servers, and domains to ask them for, of one realm.
const MAX_SERVERS: usize = 64;
const MAX_DOMAINS: usize = 64;
/// A domain (RFC 1035 section 2.3.4).
const MAX_DOMAIN: usize = 255;
/// Names of devices.
const MAX_DEVICE: usize = 15;
/// Texts for the operator.
const MAX_TEXT: usize = 16 * 1024;

/// Why octets are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Broken {
    /// They are longer than any message.
    #[error("a message of more than {MAX_MESSAGE} octets")]
    TooLong,
    /// They do not read as one.
    #[error("not a message")]
    Malformed,
    /// A field holds more than it may.
    #[error("too much in `{0}`")]
    TooMuch(&'static str),
    /// Descriptors that the message is not about, or none where it is about one.
    #[error("the wrong number of descriptors")]
    Descriptors,
}

/// What crosses the boundary.
pub trait Message: Serialize + DeserializeOwned {
    /// Whether each field is within its bounds.
    ///
    /// # Errors
    /// [`Broken::TooMuch`] with the field.
    fn check(&self) -> Result<(), Broken>;

    /// Takes the descriptors out, which go beside the octets.
    fn take_fds(&mut self) -> Vec<OwnedFd>;

    /// Puts in those that came.
    ///
    /// # Errors
    /// [`Broken::Descriptors`].
    fn give_fds(&mut self, fds: Vec<OwnedFd>) -> Result<(), Broken>;
}

/// The octets of a message, without its descriptors.
///
/// # Errors
/// [`Broken::TooLong`], or a field is out of its bounds: the other side would not take it.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, Broken> {
    message.check()?;
    let octets = postcard::to_stdvec(message).map_err(|_| Broken::Malformed)?;
    if octets.len() > MAX_MESSAGE { Err(Broken::TooLong) } else { Ok(octets) }
}

/// The message that these octets are, all of them, with the descriptors that came beside it.
///
/// # Errors
/// [`Broken`].
pub fn decode<M: Message>(octets: &[u8], fds: Vec<OwnedFd>) -> Result<M, Broken> {
    if octets.len() > MAX_MESSAGE {
        return Err(Broken::TooLong);
    }
    let (mut message, rest): (M, &[u8]) = postcard::take_from_bytes(octets).map_err(|_| Broken::Malformed)?;
    if !rest.is_empty() {
        return Err(Broken::Malformed);
    }
    message.check()?;
    message.give_fds(fds)?;
    Ok(message)
}

impl Message for Request {
    fn check(&self) -> Result<(), Broken> {
        match self {
            Request::MakeAuth { sa: _, realm, own_id, peer_id, input, offered } => {
                within("realm", realm.len(), MAX_NAME)?;
                identity(own_id)?;
                peer_id.as_ref().map_or(Ok(()), identity)?;
                auth_input(input)?;
                let Offered { hashes, authorities, ocsp: _, urls: _ } = offered;
                within("hashes", hashes.len(), MAX_HASHES)?;
                within("authorities", authorities.len(), MAX_AUTHORITIES)
            }
            Request::CheckAuth { sa: _, realms, asked, peer_id, input, proof } => {
                within("realms", realms.len(), MAX_CANDIDATES)?;
                realms.iter().try_for_each(|realm| within("realm", realm.len(), MAX_NAME))?;
                asked.as_ref().map_or(Ok(()), identity)?;
                identity(peer_id)?;
                auth_input(input)?;
                let PeerProof { method: _, data, certs } = proof;
                within("proof", data.len(), MAX_PROOF)?;
                certificates(certs)
            }
            Request::EapBegin { sa: _, role: _, realms, asked, peer_id, remote: _ } => {
                within("realms", realms.len(), MAX_CANDIDATES)?;
                realms.iter().try_for_each(|realm| within("realm", realm.len(), MAX_NAME))?;
                asked.as_ref().map_or(Ok(()), identity)?;
                identity(peer_id)
            }
            Request::EapPacket { sa: _, packet } => within("packet", packet.len(), MAX_EAP_PACKET),
            Request::EapWait { sa: _ } => Ok(()),
            Request::EapMakeAuth { sa: _, input } => auth_input(input),
            Request::EapCheckAuth { sa: _, input, proof } => {
                auth_input(input)?;
                let PeerProof { method: _, data, certs } = proof;
                within("proof", data.len(), MAX_PROOF)?;
                certificates(certs)
            }
            Request::Account { session: _, what } => match what {
                Account::Start(addresses) => within("addresses", addresses.len(), MAX_EAP_LIST),
                Account::Interim(_) | Account::Stop(_, _) => Ok(()),
            },
            Request::AwaitSessionOrder => Ok(()),
            Request::Forget { sa: _ } => Ok(()),
            Request::OpenTun(spec) | Request::AdoptTun { spec, queue: _ } => tun(spec),
            Request::Route(RouteChange { realm, destination: _, device, source: _, add: _ }) => {
                within("realm", realm.len(), MAX_NAME)?;
                within("device", device.len(), MAX_DEVICE)
            }
            Request::Address { realm, device, address: _, prefix: _, add: _ }
            | Request::Neighbour(NeighbourChange { realm, device, address: _, add: _ }) => {
                within("realm", realm.len(), MAX_NAME)?;
                within("device", device.len(), MAX_DEVICE)
            }
            Request::Dns(DnsChange { realm, device, servers, domains, add: _ }) => {
                within("realm", realm.len(), MAX_NAME)?;
                within("device", device.len(), MAX_DEVICE)?;
                within("servers", servers.len(), MAX_SERVERS)?;
                within("domains", domains.len(), MAX_DOMAINS)?;
                domains.iter().try_for_each(|domain| within("domain", domain.len(), MAX_DOMAIN))
            }
        }
    }

    fn take_fds(&mut self) -> Vec<OwnedFd> {
        match self {
            Request::AdoptTun { queue, .. } => queue.take().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    fn give_fds(&mut self, mut fds: Vec<OwnedFd>) -> Result<(), Broken> {
        match self {
            Request::AdoptTun { queue, .. } if fds.len() == 1 => *queue = fds.pop(),
            Request::AdoptTun { .. } => return Err(Broken::Descriptors),
            _ if fds.is_empty() => {}
            _ => return Err(Broken::Descriptors),
        }
        Ok(())
    }
}

impl Message for Reply {
    fn check(&self) -> Result<(), Broken> {
        match self {
            Reply::Ok => Ok(()),
            Reply::Proof { method: _, data, certs } => {
                within("proof", data.len(), MAX_PROOF)?;
                certificates(certs)
            }
            Reply::PeerAccepted { realm, how } => {
                within("realm", realm.len(), MAX_NAME)?;
                within("how", how.len(), MAX_TEXT)
            }
            Reply::Eap(step) => eap_step(step),
            Reply::SessionOrder(order) => within("sessions", order.sessions.len(), MAX_ORDERED),
            Reply::Tun { queues, name, offload: _ } => {
                within("queues", queues.len(), MAX_FDS)?;
                within("device", name.len(), MAX_DEVICE)
            }
            Reply::Refused(refusal) => {
                let (Refusal::AuthenticationFailed(text)
                | Refusal::NoCredential(text)
                | Refusal::NotAllowed(text)
                | Refusal::OutOfTurn(text)
                | Refusal::System(text)) = refusal;
                within("refusal", text.len(), MAX_TEXT)
            }
        }
    }

    fn take_fds(&mut self) -> Vec<OwnedFd> {
        match self {
            Reply::Tun { queues, .. } => std::mem::take(queues),
            _ => Vec::new(),
        }
    }

    fn give_fds(&mut self, fds: Vec<OwnedFd>) -> Result<(), Broken> {
        match self {
            Reply::Tun { queues, .. } if !fds.is_empty() => *queues = fds,
            Reply::Tun { .. } => return Err(Broken::Descriptors),
            _ if fds.is_empty() => {}
            _ => return Err(Broken::Descriptors),
        }
        Ok(())
    }
}

fn within(field: &'static str, len: usize, most: usize) -> Result<(), Broken> {
    if len <= most { Ok(()) } else { Err(Broken::TooMuch(field)) }
}

fn auth_input(input: &AuthInput) -> Result<(), Broken> {
    let AuthInput { role: _, message, nonce, maced_id, prf: _, int_auth } = input;
    within("message", message.len(), MAX_IKE)?;
    within("nonce", nonce.len(), MAX_NONCE)?;
    within("maced_id", maced_id.len(), MAX_PRF)?;
    within("int_auth", int_auth.len(), MAX_INT_AUTH)
}

fn eap_step(step: &EapStep) -> Result<(), Broken> {
    let octets =
        |packet: &Option<Vec<u8>>| within("packet", packet.as_ref().map_or(0, Vec::len), MAX_EAP_PACKET);
    match step {
        EapStep::Send(packet) => within("packet", packet.len(), MAX_EAP_PACKET),
        EapStep::Regret { packet, why } => {
            within("packet", packet.len(), MAX_EAP_PACKET)?;
            within("why", why.len(), MAX_TEXT)
        }
        EapStep::Ready => Ok(()),
        EapStep::WantPassword(user) => within("user", user.len(), MAX_EAP_TEXT),
        EapStep::Accepted { packet, realm, grant } => {
            octets(packet)?;
            within("realm", realm.len(), MAX_NAME)?;
            eap_grant(grant)
        }
        EapStep::Refused { packet, why } => {
            octets(packet)?;
            within("why", why.len(), MAX_TEXT)
        }
    }
}

fn eap_grant(grant: &EapGrant) -> Result<(), Broken> {
    let EapGrant {
        identity,
        method,
        keyed: _,
        addresses,
        dns,
        session_timeout: _,
        interim: _,
        groups,
        class,
        accounted: _,
    } = grant;
    within("identity", identity.len(), MAX_EAP_TEXT)?;
    within("method", method.len(), MAX_EAP_TEXT)?;
    for list in [addresses.len(), dns.len(), groups.len(), class.len()] {
        within("grant", list, MAX_EAP_LIST)?;
    }
    groups.iter().try_for_each(|group| within("group", group.len(), MAX_EAP_TEXT))?;
    class.iter().try_for_each(|class| within("class", class.len(), MAX_EAP_TEXT))
}

fn certificates(certs: &[CertData]) -> Result<(), Broken> {
    within("certs", certs.len(), MAX_CERTS)?;
    // Of one they are bounded by the message.
    within("certs", certs.iter().map(|cert| cert.data.len()).sum(), MAX_MESSAGE)
}

fn tun(spec: &TunSpec) -> Result<(), Broken> {
    let TunSpec { name, mtu: _, queues: _, offload: _, ethernet: _ } = spec;
    within("device", name.len(), MAX_DEVICE)
}

/// An identity is one that a payload could have brought: nothing else was ever parsed, and code behind here may count on that.
fn identity(identity: &Identity) -> Result<(), Broken> {
    let (kind, data) = identity.to_wire();
    within("identity", data.len(), policy::MAX_ID_LEN)?;
    match Identity::from_wire(kind, &data) {
        Ok(again) if again == *identity => Ok(()),
        // Nobody has a number of ours, which no payload brings.
        Ok(Identity::Anonymous(_)) => Ok(()),
        _ => Err(Broken::Malformed),
    }
}

#[cfg(test)]
mod tests;
