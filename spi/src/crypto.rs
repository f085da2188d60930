//! Vocabulary 2: operations of the key exchange. Few, slow and of many kinds, so they go one by one.

use crate::alg::{Group, SignScheme};
use crate::inflight::Token;
use crate::outcome::Outcome;
use crate::queue::Queue;
use crate::secret::Secret;

/// A ring for operations.
pub type CryptoQueue = dyn Queue<Job = CryptoJob, Done = CryptoDone>;

/// A device's handle of a long-term private key. Stale after a reset, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// Place in the device's table.
    pub index: u32,
    /// Epoch in which the key was opened.
    pub epoch: u32,
}

/// Where a long-term private key comes from.
#[non_exhaustive]
pub enum KeySource {
    /// DER of an RFC 5958 PrivateKeyInfo, RFC 8017 RSAPrivateKey or RFC 5915 ECPrivateKey.
    Der(Secret),
    /// A key that stays where it is, by RFC 7512 URI.
    Uri(String),
}

/// What a device says about a key it opened.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// The handle for [`CryptoOp::Sign`].
    pub id: KeyId,
    /// DER of the SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
    pub spki: Vec<u8>,
    /// Schemes the key can sign with, best first.
    pub schemes: Vec<SignScheme>,
}

/// The private half of an ephemeral key exchange.
#[non_exhaustive]
pub enum DhPrivate {
    /// The value itself, so that any device can finish what another began. Format is the group's own: exponent or
    /// scalar, big-endian (MODP, ECP), little-endian (X25519, X448), the decapsulation key or seed (ML-KEM).
    Bytes(Secret),
    /// Stays in the device; a reset loses it.
    Handle(KeyId),
}

/// One operation to carry out.
#[non_exhaustive]
pub enum CryptoOp {
    /// Make an ephemeral key pair. Gives [`CryptoOutput::DhPair`].
    DhGenerate {
        /// The group or KEM.
        group: Group,
    },
    /// Combine our private half with the peer's public value (or KEM ciphertext). Gives [`CryptoOutput::Secret`] of
    /// exactly [`GroupInfo::secret_len`](crate::alg::GroupInfo::secret_len) octets, leading zeroes kept (RFC 7296
    /// section 2.14).
    DhDerive {
        /// The group or KEM.
        group: Group,
        /// Our half.
        ours: DhPrivate,
        /// Theirs, as it stands in the KE payload.
        theirs: Vec<u8>,
    },
    /// The responder's half of a KEM: a fresh secret for the peer's public key. Gives [`CryptoOutput::Encapsulated`].
    KemEncapsulate {
        /// The KEM.
        group: Group,
        /// The peer's encapsulation key, as it stands in the KE payload.
        theirs: Vec<u8>,
    },
    /// Sign. The device hashes: octets go in, not a digest. Gives [`CryptoOutput::Signature`].
    Sign {
        /// The key.
        key: KeyId,
        /// Algorithm, padding and hash.
        scheme: SignScheme,
        /// What to sign.
        octets: Vec<u8>,
    },
    /// Verify. [`Outcome::Done`] means that the signature is good; [`Reject::BadSignature`](crate::Reject) that it is not.
    Verify {
        /// DER of the SubjectPublicKeyInfo.
        spki: Vec<u8>,
        /// Algorithm, padding and hash.
        scheme: SignScheme,
        /// What was signed.
        octets: Vec<u8>,
        /// The signature: RSA as it is, ECDSA as `r | s` of equal lengths or as DER (the scheme says which), EdDSA as it is.
        signature: Vec<u8>,
    },
    /// Random octets, 1 to 65536. Gives [`CryptoOutput::Secret`].
    Random {
        /// How many.
        len: usize,
    },
}

/// What an operation gave.
#[non_exhaustive]
pub enum CryptoOutput {
    /// Nothing, or it did not get so far.
    None,
    /// Private half and public value for the KE payload.
    DhPair(DhPrivate, Vec<u8>),
    /// A shared secret or random octets.
    Secret(Secret),
    /// KEM ciphertext for the KE payload, and the shared secret.
    Encapsulated(Vec<u8>, Secret),
    /// A signature.
    Signature(Vec<u8>),
}

/// A job.
pub struct CryptoJob {
    /// The caller's name for it.
    pub token: Token,
    /// What to do.
    pub op: CryptoOp,
}

/// A job that came back.
pub struct CryptoDone {
    /// The caller's name for it.
    pub token: Token,
    /// How it ended.
    pub outcome: Outcome,
    /// What it gave; [`CryptoOutput::None`] unless `outcome` is [`Outcome::Done`].
    pub output: CryptoOutput,
}
