//! Encrypted messages: sealing and opening the SK payload (RFC 7296 section 3.14, RFC 5282).
//!
//! Opening goes in this order, and stops at the first thing that is wrong:
//!
//! 1. find the encrypted payload by generic headers alone ([`wire::ike::sk_split`]);
//! 2. check the ICV and decrypt;
//! 3. take the padding off and parse what was inside.
//!
//! What fails before or in 2 was said by anybody; what fails in 3 was said by the peer and may be answered.

use std::fmt;

use ipc::Role;
use spi::alg::EncrKind;
use spi::short::ShortError;
use spi::{Fault, FaultKind, Secret, ShortOps, SkSuite};
use wire::ike::{
    ErrorKind, Header, ParseError, Payload, SkFragment, SkSplit, emit_payload_chain, parse_payload_chain,
    sk_prefix, sk_split, skf_prefix,
};
use wire::numbers::PayloadType;

use crate::keymat::IkeKeys;

/// Both directions of an IKE SA's message protection.
pub struct Protection {
    suite: SkSuite,
    own: DirectionKeys,
    peer: DirectionKeys,
    /// The next IV of counter and combined modes. Each direction has keys of its own, so counting from 1 never repeats.
    next_iv: u64,
}

struct DirectionKeys {
    encr: Secret,
    integ: Secret,
}

/// A message that was authentic and well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The fixed header.
    pub header: Header,
    /// What was inside SK. Payloads that stood outside are left out: nothing we know may stand there.
    pub payloads: Vec<Payload>,
}

/// Why a message was not opened. [`is_authentic`](OpenError::is_authentic) says whether the peer itself is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Malformed before anything could be authenticated. Anybody may have sent it: drop (RFC 7296 section 2.21).
    Malformed(ParseError),
    /// There is no encrypted payload.
    NotProtected,
    /// It is a fragment, for [`Reassembly`](crate::frag::Reassembly).
    IsFragment,
    /// The ICV is wrong, or there is no room for one.
    BadIcv,
    /// The provider could not.
    Failed(Fault),
    /// Authentic, and malformed inside: INVALID_SYNTAX.
    Syntax(ParseError),
    /// Authentic, with an unknown payload that is critical: UNSUPPORTED_CRITICAL_PAYLOAD.
    UnsupportedCritical(PayloadType),
}

impl OpenError {
    /// Whether the ICV was right, so that the peer may be told (RFC 7296 section 2.21.2 and 2.21.3).
    pub fn is_authentic(&self) -> bool {
        matches!(self, OpenError::Syntax(_) | OpenError::UnsupportedCritical(_))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Malformed(e) => write!(f, "malformed: {e}"),
            OpenError::NotProtected => f.write_str("not encrypted"),
            OpenError::IsFragment => f.write_str("a fragment"),
            OpenError::BadIcv => f.write_str("integrity check failed"),
            OpenError::Failed(fault) => fault.fmt(f),
            OpenError::Syntax(e) => write!(f, "malformed inside: {e}"),
            OpenError::UnsupportedCritical(t) => write!(f, "unknown critical payload {t}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a message was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// Longer than the length fields can say.
    TooLong,
    /// The provider could not.
    Failed(Fault),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::TooLong => f.write_str("message too long"),
            SealError::Failed(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for SealError {}

impl From<Fault> for SealError {
    fn from(fault: Fault) -> Self {
        SealError::Failed(fault)
    }
}

impl From<wire::ike::TooLong> for SealError {
    fn from(_: wire::ike::TooLong) -> Self {
        SealError::TooLong
    }
}

impl Protection {
    /// Protection with the keys of an IKE SA of which we are `role` (who began the SA, not the exchange).
    pub fn new(suite: SkSuite, role: Role, keys: &IkeKeys) -> Self {
        let i = DirectionKeys { encr: keys.sk_ei.duplicate(), integ: keys.sk_ai.duplicate() };
        let r = DirectionKeys { encr: keys.sk_er.duplicate(), integ: keys.sk_ar.duplicate() };
        let (own, peer) = match role {
            Role::Initiator => (i, r),
            Role::Responder => (r, i),
        };
        Protection { suite, own, peer, next_iv: 1 }
    }

    /// The message of `payloads` in one SK payload. Retransmit the octets; sealing again makes other ones.
    ///
    /// # Errors
    /// [`SealError::TooLong`] past 65535 octets of SK payload, or a [`Fault`].
    pub fn seal(
        &mut self,
        ops: &dyn ShortOps,
        header: &Header,
        payloads: &[Payload],
    ) -> Result<Vec<u8>, SealError> {
        let (first, plain) = emit_payload_chain(payloads);
        self.seal_plain(ops, header, first, &plain, None)
    }

    /// Opens a message with an SK payload.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, ops: &dyn ShortOps, datagram: &[u8]) -> Result<Opened, OpenError> {
        let split = split(datagram)?;
        if split.fragment.is_some() {
            return Err(OpenError::IsFragment);
        }
        let plain = self.open_plain(ops, datagram, &split)?;
        let payloads = parse_inside(split.first_inner, &plain)?;
        Ok(Opened { header: split.header, payloads })
    }

    /// The lengths of the algorithms.
    pub fn suite(&self) -> SkSuite {
        self.suite
    }

    /// Octets of a message around `plain_len` octets of payloads.
    pub(crate) fn sealed_len(&self, plain_len: usize, fragment: bool) -> usize {
        let head = wire::ike::HEADER_LEN + GENERIC_LEN + if fragment { FRAGMENT_LEN } else { 0 };
        head + self.suite.iv_len() + (plain_len + 1).next_multiple_of(self.block()) + self.suite.icv_len()
    }

    /// Seals octets that stand for payloads, or for a fragment of them.
    pub(crate) fn seal_plain(
        &mut self,
        ops: &dyn ShortOps,
        header: &Header,
        first_inner: PayloadType,
        plain: &[u8],
        fragment: Option<SkFragment>,
    ) -> Result<Vec<u8>, SealError> {
        let iv_len = self.suite.iv_len();
        let padded = (plain.len() + 1).next_multiple_of(self.block());
        let body_len = iv_len + padded + self.suite.icv_len();
        let mut message = match fragment {
            None => sk_prefix(header, &[], first_inner, body_len)?,
            Some(place) => skf_prefix(header, &[], first_inner, place, body_len)?,
        };
        message.reserve_exact(body_len);
        let at = message.len();
        self.push_iv(ops, iv_len, &mut message)?;
        message.extend_from_slice(plain);
        let pad = padded - plain.len() - 1;
        message.resize(message.len() + pad, 0);
        // Less than a block, and no block is longer than 16 octets.
        message.push(pad as u8);
        ops.sk_seal(self.suite, &self.own.encr, &self.own.integ, &mut message, at)?;
        Ok(message)
    }

    /// Checks and decrypts one encrypted payload: the plaintext without its padding.
    pub(crate) fn open_plain(
        &self,
        ops: &dyn ShortOps,
        datagram: &[u8],
        split: &SkSplit,
    ) -> Result<Vec<u8>, OpenError> {
        let mut message = datagram.to_vec();
        let inside =
            match ops.sk_open(self.suite, &self.peer.encr, &self.peer.integ, &mut message, split.aad_len) {
                Ok(range) => range,
                Err(ShortError::Rejected(_)) => return Err(OpenError::BadIcv),
                Err(ShortError::Failed(fault)) => return Err(OpenError::Failed(fault)),
            };
        let bad_padding = OpenError::Syntax(ParseError {
            kind: ErrorKind::InvalidSyntax("padding longer than what it pads"),
            payload: Some(PayloadType::SK),
            offset: split.body.start,
        });
        // RFC 7296 section 3.14: any padding is accepted as long as there is room for it.
        message.truncate(inside.end);
        let Some(pad) = message.pop() else { return Err(bad_padding) };
        let end = message
            .len()
            .checked_sub(usize::from(pad))
            .filter(|end| *end >= inside.start)
            .ok_or(bad_padding)?;
        message.truncate(end);
        message.drain(..inside.start);
        Ok(message)
    }

    fn push_iv(&mut self, ops: &dyn ShortOps, iv_len: usize, message: &mut Vec<u8>) -> Result<(), SealError> {
        match self.suite.encr.info().map(|i| i.kind) {
            // RFC 7296 section 3.14: with CBC the IV must not be predictable.
            Some(EncrKind::Cbc) => {
                let start = message.len();
                message.resize(start + iv_len, 0);
                ops.random(message.get_mut(start..).unwrap_or_default());
            }
            // RFC 5282 section 3.1: what counts is that it never repeats under a key.
            Some(_) => {
                let iv = self.next_iv.to_be_bytes();
                self.next_iv = self.next_iv.checked_add(1).ok_or(Fault::new(FaultKind::Exhausted))?;
                message.extend_from_slice(iv.get(..iv_len).unwrap_or(&iv));
            }
            None => return Err(Fault::new(FaultKind::Unsupported).into()),
        }
        Ok(())
    }

    fn block(&self) -> usize {
        self.suite.block().max(1)
    }
}

/// Finds the encrypted payload.
pub(crate) fn split(datagram: &[u8]) -> Result<SkSplit, OpenError> {
    sk_split(datagram).map_err(OpenError::Malformed)?.ok_or(OpenError::NotProtected)
}

/// Parses what was inside SK.
pub(crate) fn parse_inside(first: PayloadType, plain: &[u8]) -> Result<Vec<Payload>, OpenError> {
    parse_payload_chain(first, plain).map_err(|e| match e.kind {
        ErrorKind::UnsupportedCritical(kind) => OpenError::UnsupportedCritical(kind),
        _ => OpenError::Syntax(e),
    })
}

/// Octets of a generic payload header.
const GENERIC_LEN: usize = 4;
/// Octets of fragment number and total in SKF.
const FRAGMENT_LEN: usize = 4;
