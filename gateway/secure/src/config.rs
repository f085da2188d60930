//! What the key side is told: realms, secrets, keys, trust. Plain data; whoever reads the configuration file fills it, with
//! [`crate::load`] for the files it names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use policy::{IdMatch, Realm};
use serde::{Deserialize, Serialize};
use spi::{KeySource, Secret};

/// Everything the key side is told. Holds secrets, so it has no `Debug` and no `Clone`.
#[derive(Default, Serialize, Deserialize)]
pub struct Config {
    /// The realms, in the order of the configuration.
    pub realms: Vec<Arc<Realm>>,
    /// Pre-shared keys, in the order of the configuration.
    pub psks: Vec<Psk>,
    /// Users of EAP, in the order of the configuration.
    pub users: Vec<EapUser>,
    /// Keys, certificates and trust of realms that authenticate by public key, by realm name.
    pub credentials: BTreeMap<String, Credentials>,
    /// RADIUS servers.
    pub radius: Option<Radius>,
    /// What is too weak.
    pub rules: Rules,
    /// Mark of the gateway's own packets, which keep out of tunnel routes; 0: there is none, and tunnel routes stand in the
    /// main table. What a reload says of it is not looked at.
    pub mark: u32,
    /// Where keys of peers are remembered that were believed at first use, fetched lists of revoked certificates, sessions that RADIUS
    /// servers let in and what those are still to be told, and what must be put back after a crash: the name servers of before. `None`: nowhere, and no name servers are changed.
    pub state_dir: Option<PathBuf>,
    /// The machine's resolv.conf, opened by somebody who still could.
    #[serde(skip)]
    pub resolv_conf: Option<std::fs::File>,
    /// Whether another key side was here before, for a gateway that still runs: its rules stay. What a reload says of it is not
    /// looked at.
    pub inherits: bool,
    /// What the drivers for long-term keys are told. What a reload says of it is not looked at.
    pub devices: registry::Config,
}

/// A pre-shared key and whose it is.
#[derive(Serialize, Deserialize)]
pub struct Psk {
    /// The identities that share it: ours and the peer's, in any order. One identity alone: it and anybody; none: anybody.
    pub ids: Vec<IdMatch>,
    /// The realm whose it is; `None`: of all.
    pub realm: Option<Arc<str>>,
    /// The key, any length but empty.
    #[serde(with = "crate::handed::secret")]
    pub secret: Secret,
}

/// A user of EAP: one that we let in, or one that we are.
#[derive(Serialize, Deserialize)]
pub struct EapUser {
    /// The EAP identity.
    pub name: String,
    /// The password.
    #[serde(with = "crate::handed::secret")]
    pub password: Secret,
    /// Realms it is for; empty: all.
    pub realms: Vec<String>,
}

impl EapUser {
    /// Whether it is for this realm.
    pub fn is_for(&self, realm: &str) -> bool {
        self.realms.is_empty() || self.realms.iter().any(|of| of == realm)
    }
}

/// RADIUS servers, and what they are told.
#[derive(Serialize, Deserialize)]
pub struct Radius {
    /// What we call ourselves.
    pub nas_identifier: String,
    /// Our address as they are told it.
    pub nas_address: Option<IpAddr>,
    /// The servers, most wanted first.
    pub servers: Vec<RadiusServer>,
    /// How long the first answer is waited for; each further try twice as long as the one before.
    pub timeout: Duration,
    /// How often one server is asked.
    pub tries: u8,
    /// How often accounting is sent where the server does not say.
    pub interim: Option<Duration>,
    /// Requests that come to us.
    pub dynamic: Option<RadiusDynamic>,
}

/// A RADIUS server.
#[derive(Serialize, Deserialize)]
pub struct RadiusServer {
    /// Its name, for messages.
    pub name: String,
    /// Where it authenticates.
    pub access: SocketAddr,
    /// Where it keeps accounts; `None`: it does not.
    pub accounting: Option<SocketAddr>,
    /// What it shares with us.
    #[serde(with = "crate::handed::secret")]
    pub secret: Secret,
    /// TLS, if it is spoken to that way.
    pub tls: Option<RadiusTls>,
}

/// How a RADIUS server is spoken to over TLS.
#[derive(Serialize, Deserialize)]
pub struct RadiusTls {
    /// The name its certificate is to be for.
    pub name: String,
    /// CAs that it is to come from.
    pub anchors: Vec<Certificate>,
    /// Our certificate and key.
    pub own: Option<OwnKey>,
}

/// Who may have sessions ended and changed.
#[derive(Serialize, Deserialize)]
pub struct RadiusDynamic {
    /// Where such requests come in.
    pub listen: SocketAddr,
    /// From which addresses.
    pub clients: Vec<IpAddr>,
    /// What they share with us.
    #[serde(with = "crate::handed::secret")]
    pub secret: Secret,
    /// Message-Authenticator and Event-Timestamp have to be there.
    pub strict: bool,
}

/// What may run inside a tunnel of EAP-TTLS or PEAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EapInner {
    /// The password as it is.
    Pap,
    /// MSCHAPv2 without EAP.
    MsChapV2,
    /// EAP-MSCHAPv2.
    EapMsChapV2,
    /// EAP-GTC.
    EapGtc,
    /// EAP-MD5.
    EapMd5,
}

/// What EAP methods in TLS need.
#[derive(Default, Serialize, Deserialize)]
pub struct EapCredentials {
    /// Our certificate and key. A server without uses the realm's.
    pub own: Option<OwnKey>,
    /// CAs that the other side's certificate is to come from.
    pub anchors: Vec<Certificate>,
    /// How revocation of that is looked at.
    pub revocation: Revocation,
    /// The name the server's certificate is to be for (client).
    pub server_name: Option<String>,
    /// What may run inside a tunnel; empty: what is usual.
    pub inner: Vec<EapInner>,
    /// Who we say we are before there is a tunnel (client).
    pub anonymous: Option<String>,
}

/// Public-key credentials of one realm.
#[derive(Default, Serialize, Deserialize)]
pub struct Credentials {
    /// How we prove ourselves; `None` where the realm uses a PSK for that.
    pub own: Option<OwnKey>,
    /// More of them: the first one whose CA the peer asks for is used.
    pub also: Vec<OwnKey>,
    /// How peers prove themselves; empty where the realm uses a PSK for that.
    pub trust: Trust,
    /// For EAP.
    pub eap: Option<EapCredentials>,
}

/// Our private key and what vouches for it.
#[derive(Serialize, Deserialize)]
pub struct OwnKey {
    /// The file or URI, for messages.
    pub name: String,
    /// The key.
    #[serde(with = "crate::handed::key")]
    pub source: KeySource,
    /// Our certificate first, then intermediate CAs to send along. Empty: the certificate that the key's device keeps beside it;
    /// without one the peer knows our raw public key.
    pub certs: Vec<OwnCertificate>,
    /// Where our certificate is to be had, for peers that would rather fetch it (RFC 7296 section 3.6).
    pub url: Option<String>,
}

/// A certificate of ours.
#[derive(Serialize, Deserialize)]
pub enum OwnCertificate {
    /// Read already.
    Given(Certificate),
    /// Kept by a device, under this URI.
    Stored(String),
}

impl From<Certificate> for OwnCertificate {
    fn from(certificate: Certificate) -> Self {
        OwnCertificate::Given(certificate)
    }
}

/// Whom a realm believes.
#[derive(Default, Serialize, Deserialize)]
pub struct Trust {
    /// CAs that may vouch for a peer.
    pub anchors: Vec<Certificate>,
    /// Certificates that are believed as they are, without a CA.
    pub pinned: Vec<Certificate>,
    /// Raw public keys: DER of the SubjectPublicKeyInfo, with a name for messages.
    pub keys: Vec<RawKey>,
    /// Whether the first key that a peer comes with is believed, and remembered ("leap of faith"). Goes with none of the others.
    pub first_use: bool,
    /// CAs between these and the peers', believed no more than if the peer had sent them.
    pub between: Vec<Certificate>,
    /// How revocation is looked at.
    pub revocation: Revocation,
    /// Whether certificates are fetched for peers.
    pub lookups: Lookups,
    /// Extended key usages that a peer's certificate may have.
    pub usages: spi::cert::Usages,
}

impl Trust {
    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() && self.pinned.is_empty() && self.keys.is_empty() && !self.first_use
    }
}

/// How a realm finds out whether a certificate was revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What is made of what was found.
    pub mode: RevocationMode,
    /// Lists besides those that certificates name.
    pub crls: Vec<CrlSource>,
    /// An OCSP responder that is asked before those that certificates name.
    pub ocsp: Option<String>,
    /// Certificates of OCSP responders that are believed as they are, besides the CAs and those the CAs name.
    pub signers: Vec<Certificate>,
}

/// What becomes of a peer by the status of its certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RevocationMode {
    /// Nobody asks.
    Off,
    /// Revoked is refused; a status that cannot be had is passed over.
    #[default]
    Relaxed,
    /// Every certificate below the CA needs a fresh status that says it is good.
    Strict,
}

/// A list of revoked certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrlSource {
    /// Read from a file.
    Given(Certificate),
    /// To be fetched: `http://…` or `ldap://…`.
    Url(String),
}

/// Whether certificates are fetched that a peer sends the URL of (RFC 7296 section 3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lookups {
    /// No.
    #[default]
    No,
    /// From servers with public addresses.
    Public,
    /// From any server.
    Anywhere,
}

/// A certificate and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The file, for messages.
    pub name: String,
    /// DER (RFC 5280).
    pub der: Vec<u8>,
}

/// A raw public key and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawKey {
    /// The file, for messages.
    pub name: String,
    /// DER of the SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
}

/// What is too weak to be believed or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Shortest RSA modulus of a peer or a CA, bits.
    pub min_rsa_bits: usize,
    /// Whether AUTH method 1 with SHA-1 is made and accepted, for peers without RFC 7427. RFC 8247 section 4.1 forbids it.
    pub rsa_sha1: bool,
    /// Whether RSA signs with PSS where the peer leaves the choice (RFC 7427). PKCS #1 v1.5 otherwise.
    pub rsa_pss: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { min_rsa_bits: 2048, rsa_sha1: false, rsa_pss: true }
    }
}
