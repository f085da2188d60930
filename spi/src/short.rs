//! Primitives of a few microseconds, done at once on the caller's thread: the PRF of the IKE key schedule, the protection
//! of one IKE message, a hash, random octets. Queueing these would cost more than doing them (docs/decisions).

use std::ops::Range;

use crate::alg::{Encr, Hash, Integ, Prf};
use crate::outcome::{Fault, Reject};
use crate::secret::Secret;

/// Algorithms that protect an SK payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkSuite {
    /// Encryption.
    pub encr: Encr,
    /// Integrity; [`Integ::NONE`] with combined-mode ciphers (RFC 5282).
    pub integ: Integ,
}

impl SkSuite {
    /// Octets of IV in front of the ciphertext; 0 for an unknown algorithm.
    pub fn iv_len(&self) -> usize {
        self.encr.info().map_or(0, |i| i.iv_len)
    }

    /// Octets of ICV at the end of the payload.
    pub fn icv_len(&self) -> usize {
        self.encr.info().map_or(0, |i| i.icv_len) + self.integ.info().map_or(0, |i| i.icv_len)
    }

    /// Plaintext with its Pad Length octet must be a multiple of this.
    pub fn block(&self) -> usize {
        // RFC 5282 section 3: combined modes need no padding; CBC fills its block.
        self.encr.info().map_or(1, |i| if i.kind == crate::alg::EncrKind::Cbc { i.block } else { 1 })
    }
}

/// Why an SK payload was not opened, or a primitive gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortError {
    /// A verdict on the input.
    Rejected(Reject),
    /// The provider could not: unknown algorithm, wrong key length.
    Failed(Fault),
}

impl From<Fault> for ShortError {
    fn from(fault: Fault) -> Self {
        ShortError::Failed(fault)
    }
}

impl std::fmt::Display for ShortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ShortError::Rejected(reject) => reject.fmt(f),
            ShortError::Failed(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ShortError {}

/// Short synchronous primitives. Every implementation bounds its time to microseconds per kilobyte.
pub trait ShortOps: Send + Sync {
    /// `prf(key, data)` over the concatenation of `data` (RFC 7296 section 2.13). Keys of any length are taken as the
    /// PRF's own document says (RFC 2104 for HMAC, RFC 4434 and RFC 4615 for AES-XCBC and AES-CMAC).
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`](crate::FaultKind) for an unknown PRF.
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Result<Secret, Fault>;

    /// A plain hash over the concatenation of `data`.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`](crate::FaultKind) for [`Hash::Identity`].
    fn hash(&self, hash: Hash, data: &[&[u8]]) -> Result<Vec<u8>, Fault>;

    /// Protects an IKE message. `message[..at]` is everything up to and including the generic header of the SK (or SKF)
    /// payload with all lengths already final; `message[at..]` is the IV followed by the padded plaintext. Encrypts in
    /// place and appends the ICV. With a combined mode `message[..at]` is the associated data (RFC 5282 section 5.1);
    /// otherwise the ICV covers the whole message before it (RFC 7296 section 3.14).
    ///
    /// # Errors
    /// A [`Fault`] when the suite is unknown or a key has the wrong length; the message is then undefined.
    fn sk_seal(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut Vec<u8>,
        at: usize,
    ) -> Result<(), Fault>;

    /// Checks and opens an IKE message in place; `at` as in [`sk_seal`](ShortOps::sk_seal), and the ICV is the end of
    /// `message`. Returns where the plaintext (payloads, padding, Pad Length) lies. Nothing is decrypted unless the ICV
    /// is right.
    ///
    /// # Errors
    /// [`Reject::BadIcv`], [`Reject::BadLength`], or a [`Fault`].
    fn sk_open(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut [u8],
        at: usize,
    ) -> Result<Range<usize>, ShortError>;

    /// Fills `out` with random octets fit for keys and nonces.
    fn random(&self, out: &mut [u8]);
}
