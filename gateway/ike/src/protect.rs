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
        let i = (keys.sk_ei.duplicate(), keys.sk_ai.duplicate());
        Protection::of(suite, role, i, (keys.sk_er.duplicate(), keys.sk_ar.duplicate()))
    }

    /// The same with the keys themselves, encryption before integrity: the initiator's, the responder's.
    pub(crate) fn of(suite: SkSuite, role: Role, i: (Secret, Secret), r: (Secret, Secret)) -> Self {
        let i = DirectionKeys { encr: i.0, integ: i.1 };
        let r = DirectionKeys { encr: r.0, integ: r.1 };
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

    /// Whether the peer made this message, whatever is in it.
    pub(crate) fn is_authentic(&self, ops: &dyn ShortOps, datagram: &[u8], split: &SkSplit) -> bool {
        match self.open_plain(ops, datagram, split) {
            Ok(_) => true,
            Err(error) => error.is_authentic(),
        }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use spi::{Device, Encr, Integ};
    use std::sync::Arc;
    use wire::ike::{Body, Flags, Message, Nonce, Notify, PayloadList, Spi, Unknown};
    use wire::numbers::{ExchangeType, NotifyType};

    pub(crate) fn ops() -> Arc<dyn ShortOps> {
        soft::Soft::new(1).device().short_ops().unwrap()
    }

    /// Every kind of cipher an SK payload can have.
    pub(crate) const SUITES: [SkSuite; 7] = [
        SkSuite { encr: Encr::AES128_GCM16, integ: Integ::NONE },
        SkSuite { encr: Encr::AES256_CCM8, integ: Integ::NONE },
        SkSuite { encr: Encr::CHACHA20_POLY1305, integ: Integ::NONE },
        SkSuite { encr: Encr::AES256_CBC, integ: Integ::HMAC_SHA2_512_256 },
        SkSuite { encr: Encr::AES128_CBC, integ: Integ::HMAC_SHA1_96 },
        SkSuite { encr: Encr::AES128_CBC, integ: Integ::AES_XCBC_96 },
        SkSuite { encr: Encr::AES128_CTR, integ: Integ::HMAC_SHA2_256_128 },
    ];

    /// Both ends of one IKE SA.
    pub(crate) fn ends(suite: SkSuite) -> (Protection, Protection) {
        let encr = suite.encr.info().unwrap();
        let (e, a) = (encr.key_len + encr.salt_len, suite.integ.info().unwrap().key_len);
        let key = |n, len| Secret::new(vec![n; len]);
        let keys = IkeKeys {
            sk_d: key(1, 32),
            sk_ai: key(2, a),
            sk_ar: key(3, a),
            sk_ei: key(4, e),
            sk_er: key(5, e),
            sk_pi: key(6, 32),
            sk_pr: key(7, 32),
        };
        (Protection::new(suite, Role::Initiator, &keys), Protection::new(suite, Role::Responder, &keys))
    }

    pub(crate) fn request(id: u32) -> Header {
        Header::new(Spi(0x1234), Spi(0x5678), ExchangeType::INFORMATIONAL, Flags::INITIATOR, id)
    }

    impl Protection {
        /// For messages nobody would make otherwise.
        pub(crate) fn seal_in_place(&self, ops: &dyn ShortOps, message: &mut Vec<u8>, at: usize) {
            ops.sk_seal(self.suite, &self.own.encr, &self.own.integ, message, at).unwrap();
        }
    }

    fn notify(len: usize) -> Payload {
        Notify::with_data(NotifyType::INITIAL_CONTACT, vec![0xab; len]).into()
    }

    #[test]
    fn what_was_sealed_opens_at_the_other_end_only() {
        for suite in SUITES {
            let (ops, (mut a, b)) = (ops(), ends(suite));
            for len in 0..40 {
                let payloads = [notify(len), Nonce(vec![1; 16]).into()];
                let message = a.seal(&*ops, &request(1), &payloads).unwrap();
                assert_eq!(message.len(), a.sealed_len(8 + len + 20, false), "{suite:?}");
                let opened = b.open(&*ops, &message).unwrap();
                assert_eq!(opened.payloads, payloads);
                assert_eq!(opened.header.message_id, 1);
                assert_eq!(a.open(&*ops, &message), Err(OpenError::BadIcv), "not what we sent ourselves");
            }
        }
    }

    #[test]
    fn empty_message_is_a_message() {
        for suite in SUITES {
            let (ops, (mut a, b)) = (ops(), ends(suite));
            let message = a.seal(&*ops, &request(2), &[]).unwrap();
            assert_eq!(b.open(&*ops, &message).unwrap().payloads, []);
        }
    }

    #[test]
    fn no_iv_is_used_twice() {
        for suite in SUITES {
            let (ops, (mut a, _)) = (ops(), ends(suite));
            let mut seen = std::collections::HashSet::new();
            for _ in 0..100 {
                let message = a.seal(&*ops, &request(3), &[]).unwrap();
                assert!(seen.insert(message[32..32 + suite.iv_len()].to_vec()), "{suite:?}");
            }
        }
    }

    #[test]
    fn counter_of_ivs_that_is_used_up_seals_nothing() {
        let (ops, (mut a, _)) = (ops(), ends(SUITES[0]));
        a.next_iv = u64::MAX;
        assert!(matches!(a.seal(&*ops, &request(3), &[]), Err(SealError::Failed(_))));
    }

    #[test]
    fn every_flipped_bit_is_noticed_before_anything_is_believed() {
        for suite in SUITES {
            let (ops, (mut a, b)) = (ops(), ends(suite));
            let message = a.seal(&*ops, &request(4), &[notify(9)]).unwrap();
            for bit in 0..message.len() * 8 {
                let mut spoiled = message.clone();
                spoiled[bit / 8] ^= 1 << (bit % 8);
                let error = b.open(&*ops, &spoiled).unwrap_err();
                assert!(!error.is_authentic(), "{suite:?} bit {bit}: {error}");
            }
            for len in 0..message.len() {
                assert!(!b.open(&*ops, &message[..len]).unwrap_err().is_authentic());
            }
        }
    }

    /// A message whose inside is the given octets, padding included.
    fn with_inside(a: &mut Protection, first: PayloadType, inside: &[u8]) -> Vec<u8> {
        let ops = ops();
        let suite = a.suite;
        let mut message =
            sk_prefix(&request(5), &[], first, suite.iv_len() + inside.len() + suite.icv_len()).unwrap();
        let at = message.len();
        a.push_iv(&*ops, suite.iv_len(), &mut message).unwrap();
        message.extend_from_slice(inside);
        a.seal_in_place(&*ops, &mut message, at);
        message
    }

    #[test]
    fn any_padding_is_accepted_that_has_room() {
        for suite in SUITES {
            let (ops, (mut a, b)) = (ops(), ends(suite));
            let (first, plain) = emit_payload_chain(&[notify(0)]);
            let room = (plain.len() + 256).next_multiple_of(suite.block());
            let pad = room - plain.len() - 1;
            let mut inside = plain.clone();
            inside.resize(room - 1, 0xee);
            inside.push(u8::try_from(pad.min(255)).unwrap());
            let message = with_inside(&mut a, first, &inside);
            match pad {
                0..=255 => assert_eq!(b.open(&*ops, &message).unwrap().payloads, [notify(0)]),
                _ => assert!(b.open(&*ops, &message).is_err()),
            }
            let mut too_much = vec![0; suite.block().max(16)];
            *too_much.last_mut().unwrap() = 16.max(suite.block() as u8);
            let message = with_inside(&mut a, PayloadType::NONE, &too_much);
            assert!(matches!(b.open(&*ops, &message), Err(OpenError::Syntax(_))), "{suite:?}");
        }
    }

    #[test]
    fn malformed_inside_is_the_peers_fault() {
        let (ops, (mut a, b)) = (ops(), ends(SUITES[0]));
        let message = with_inside(&mut a, PayloadType::NONCE, &[0, 0, 0, 3, 0]);
        assert!(matches!(b.open(&*ops, &message), Err(OpenError::Syntax(_))));
        let message = with_inside(&mut a, PayloadType::SK, &[0, 0, 0, 8, 1, 2, 3, 4, 0]);
        assert!(matches!(b.open(&*ops, &message), Err(OpenError::Syntax(_))), "SK inside SK");
    }

    #[test]
    fn unknown_critical_payload_inside_is_told_from_an_unknown_one() {
        let (ops, (mut a, b)) = (ops(), ends(SUITES[0]));
        let unknown = |flags| Payload {
            flags,
            body: Body::Unknown(Unknown { kind: PayloadType(200), bytes: vec![1, 2, 3] }),
        };
        let message = a.seal(&*ops, &request(6), &[notify(1), unknown(0)]).unwrap();
        assert_eq!(b.open(&*ops, &message).unwrap().payloads.notifies().count(), 1);
        let message = a.seal(&*ops, &request(6), &[notify(1), unknown(Payload::CRITICAL)]).unwrap();
        let error = b.open(&*ops, &message).unwrap_err();
        assert_eq!(error, OpenError::UnsupportedCritical(PayloadType(200)));
        assert!(error.is_authentic());
    }

    #[test]
    fn messages_without_sk_are_told_from_spoiled_ones() {
        let (ops, (_, b)) = (ops(), ends(SUITES[0]));
        let plain = Message::new(request(7), vec![notify(3)]).emit();
        assert_eq!(b.open(&*ops, &plain), Err(OpenError::NotProtected));
        assert!(matches!(b.open(&*ops, &plain[..27]), Err(OpenError::Malformed(_))));
        let mut old = plain.clone();
        old[17] = 0x10;
        assert!(matches!(b.open(&*ops, &old), Err(OpenError::Malformed(_))));
    }

    #[test]
    fn body_without_room_for_iv_and_icv_is_refused() {
        for suite in SUITES {
            let (ops, (_, b)) = (ops(), ends(suite));
            for len in 0..suite.iv_len() + suite.icv_len() + 17 {
                let mut message = sk_prefix(&request(8), &[], PayloadType::NONE, len).unwrap();
                message.resize(message.len() + len, 0);
                assert_eq!(b.open(&*ops, &message), Err(OpenError::BadIcv), "{suite:?} {len}");
            }
        }
    }

    #[test]
    fn message_past_its_length_field_is_not_sent() {
        let (ops, (mut a, _)) = (ops(), ends(SUITES[3]));
        assert_eq!(a.seal(&*ops, &request(9), &[notify(40_000), notify(30_000)]), Err(SealError::TooLong));
    }

    proptest! {
        #[test]
        fn no_datagram_opens_without_the_keys(suite in 0usize..7, octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let (ops, (_, b)) = (ops(), ends(SUITES[suite]));
            prop_assert!(!b.open(&*ops, &octets).unwrap_err().is_authentic());
            let mut message = sk_prefix(&request(1), &[], PayloadType::NONE, octets.len()).unwrap();
            message.extend_from_slice(&octets);
            prop_assert_eq!(b.open(&*ops, &message), Err(OpenError::BadIcv));
        }
    }
}
