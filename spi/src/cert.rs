//! The SPI for certificates: who vouches for a public key. Backends are the built-in path validator and, later, stores and
//! tokens. Control plane, on the side that holds keys; may take its time, so answers come by completion.

use std::sync::Arc;
use std::time::SystemTime;

use bitflags::bitflags;

use crate::inflight::Token;
use crate::queue::Queue;

/// A ring for certificate questions.
pub type CertQueue = dyn Queue<Job = CertJob, Done = CertDone>;

/// A question about a chain of certificates.
pub struct CertJob {
    /// The caller's name for it.
    pub token: Token,
    /// End-entity certificate first, DER (RFC 5280).
    pub chain: Vec<Vec<u8>>,
    /// DER of the trust anchors that count for this realm. Whoever asks again and again shares one list, so that the backend
    /// can know it again.
    pub anchors: Arc<[Vec<u8>]>,
    /// The moment to judge validity at.
    pub at: SystemTime,
    /// Extended key usages that let the end entity in.
    pub usages: Usages,
}

bitflags! {
    /// Extended key usages that a peer's certificate may have. One without the extension, or with anyExtendedKeyUsage, may have all.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Usages: u8 {
        /// ipsecIKE and the older ones for IPsec (RFC 4945 section 5.1.3.12).
        const IPSEC = 1;
        /// serverAuth, which many gateways' certificates have alone.
        const SERVER = 2;
        /// clientAuth.
        const CLIENT = 4;
    }
}

impl serde::Serialize for Usages {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(self.bits())
    }
}

impl<'de> serde::Deserialize<'de> for Usages {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u8::deserialize(from).map(Usages::from_bits_truncate)
    }
}

impl Default for Usages {
    fn default() -> Self {
        Usages::all()
    }
}

/// The answer.
pub struct CertDone {
    /// The caller's name for it.
    pub token: Token,
    /// What was found.
    pub verdict: Result<CertInfo, CertError>,
}

/// What a verified certificate says.
#[derive(Clone, Debug)]
pub struct CertInfo {
    /// DER of the SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// DER of the subject name.
    pub subject: Vec<u8>,
    /// Subject alternative names: DNS.
    pub dns: Vec<String>,
    /// Subject alternative names: e-mail.
    pub email: Vec<String>,
    /// Subject alternative names: addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// End of validity.
    pub not_after: SystemTime,
    /// DER of the path that was found good: the end entity first, the trust anchor last.
    pub path: Arc<[Vec<u8>]>,
}

/// Why a chain was refused. The text names the certificate and what is wrong with it, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertError {
    /// Not a certificate, or one with something critical we do not know.
    Malformed(String),
    /// No path to a trust anchor.
    Untrusted(String),
    /// Not yet, or no longer.
    NotValidNow(String),
    /// May not be used for IKE (RFC 4945 section 5.1.3).
    WrongUsage(String),
    /// Revoked.
    Revoked(String),
}

impl std::fmt::Display for CertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CertError::Malformed(s) => write!(f, "malformed certificate: {s}"),
            CertError::Untrusted(s) => write!(f, "no path to a trusted CA: {s}"),
            CertError::NotValidNow(s) => write!(f, "not valid at this time: {s}"),
            CertError::WrongUsage(s) => write!(f, "not usable for IKE: {s}"),
            CertError::Revoked(s) => write!(f, "revoked: {s}"),
        }
    }
}

impl std::error::Error for CertError {}
