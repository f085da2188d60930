//! The encrypted message from outside: where the associated data ends and the ciphertext begins, and the octets that
//! go before a new one (RFC 7296 section 3.14, RFC 5282 section 5.1, RFC 7383 section 2.5).

use super::chain::{GENERIC_LEN, Walk, emit_chain};
use super::error::{ErrorKind, ParseError, TooLong};
use super::header::{HEADER_LEN, Header, check_header};
use super::message::patch_message_len;
use super::payload::Payload;
use super::payload::{check_fragment, is_understood};
use crate::numbers::PayloadType;
use alloc::vec::Vec;
use core::ops::Range;

/// An encrypted message by offsets into its datagram. Ranges are always inside the datagram they were made from.
///
/// With an AEAD the associated data is `..aad_len`. With encryption and separate integrity the ICV covers everything
/// before it, IV and ciphertext included: `..parts.icv.start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkSplit {
    /// The fixed header, checked.
    pub header: Header,
    /// Type of the first payload inside; to be ignored in fragments after the first.
    pub first_inner: PayloadType,
    /// Where the generic header of SK or SKF begins; 28 unless unencrypted payloads stand before it.
    pub payload_offset: usize,
    /// Octets of associated data: header, any unencrypted payloads, the payload header (with SKF: and its fragment
    /// numbers).
    pub aad_len: usize,
    /// IV, ciphertext and ICV: from `aad_len` to the end of the datagram.
    pub body: Range<usize>,
    /// The fragment's place, for SKF.
    pub fragment: Option<SkFragment>,
}

/// The place of a fragment in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkFragment {
    /// Number of this fragment, from 1.
    pub number: u16,
    /// How many fragments there are.
    pub total: u16,
}

/// The parts of an encrypted body, as ranges of the datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkParts {
    /// Initialisation vector.
    pub iv: Range<usize>,
    /// Ciphertext: payloads, padding, pad length.
    pub ciphertext: Range<usize>,
    /// Integrity check value, or AEAD tag.
    pub icv: Range<usize>,
}

impl SkSplit {
    /// Divides the body by the algorithm's lengths in octets; `None` when no octet of ciphertext (at least the pad
    /// length) is left.
    pub fn parts(&self, iv_len: usize, icv_len: usize) -> Option<SkParts> {
        let iv_end = self.body.start.checked_add(iv_len)?;
        let icv_start = self.body.end.checked_sub(icv_len)?;
        if iv_end >= icv_start {
            return None;
        }
        Some(SkParts {
            iv: self.body.start..iv_end,
            ciphertext: iv_end..icv_start,
            icv: icv_start..self.body.end,
        })
    }
}

/// Finds the encrypted payload of a message without allocation, looking at generic headers only. `None` where the
/// message has none and is well-formed so far.
///
/// # Errors
/// As [`Message::parse`](super::Message::parse), as far as it looks.
pub fn sk_split(datagram: &[u8]) -> Result<Option<SkSplit>, ParseError> {
    let header = check_header(datagram)?;
    let bytes = datagram.get(HEADER_LEN..).unwrap_or_default();
    let mut walk = Walk::new(header.next_payload, bytes, HEADER_LEN);
    let mut found = None;
    while let Some(mut link) = walk.next()? {
        let fragment = match link.kind {
            PayloadType::SK => None,
            PayloadType::SKF => {
                let (number, total) = (link.content.u16()?, link.content.u16()?);
                check_fragment(number, total).map_err(|what| link.content.syntax(what))?;
                Some(SkFragment { number, total })
            }
            kind if link.flags & Payload::CRITICAL != 0 && !is_understood(kind) => {
                let kind_of = ErrorKind::UnsupportedCritical(kind);
                return Err(ParseError { kind: kind_of, payload: Some(kind), offset: link.offset });
            }
            _ => continue,
        };
        let aad_len = link.content.offset();
        found = Some(SkSplit {
            header,
            first_inner: link.next,
            payload_offset: link.offset,
            aad_len,
            body: aad_len..aad_len + link.content.len(),
            fragment,
        });
    }
    Ok(found)
}

/// The octets before the IV of an encrypted message: header, `plain` payloads (usually none), generic header of SK, with all
/// lengths final for a body of `body_len` octets (IV, ciphertext with padding, ICV). They are the associated data
/// of an AEAD as they stand; append the body and the message is complete.
///
/// # Errors
/// [`TooLong`] when a payload exceeds 65535 octets.
pub fn sk_prefix(
    header: &Header,
    plain: &[Payload],
    first_inner: PayloadType,
    body_len: usize,
) -> Result<Vec<u8>, TooLong> {
    prefix(header, plain, PayloadType::SK, first_inner, &[], body_len)
}

/// The same for one fragment (RFC 7383): generic header of SKF and the fragment's numbers. `first_inner` goes into
/// fragment 1 only; the others name NONE.
///
/// # Errors
/// [`TooLong`] when a payload exceeds 65535 octets.
pub fn skf_prefix(
    header: &Header,
    plain: &[Payload],
    first_inner: PayloadType,
    fragment: SkFragment,
    body_len: usize,
) -> Result<Vec<u8>, TooLong> {
    let [a, b] = fragment.number.to_be_bytes();
    let [c, d] = fragment.total.to_be_bytes();
    let first_inner = if fragment.number == 1 { first_inner } else { PayloadType::NONE };
    prefix(header, plain, PayloadType::SKF, first_inner, &[a, b, c, d], body_len)
}

fn prefix(
    header: &Header,
    plain: &[Payload],
    kind: PayloadType,
    first_inner: PayloadType,
    numbers: &[u8],
    body_len: usize,
) -> Result<Vec<u8>, TooLong> {
    let too_long = TooLong { payload: Some(kind) };
    let len = body_len.checked_add(GENERIC_LEN + numbers.len()).ok_or(too_long)?;
    let len = u16::try_from(len).map_err(|_| too_long)?;
    let mut out = Vec::with_capacity(HEADER_LEN + usize::from(len) + 64);
    Header { next_payload: plain.first().map_or(kind, Payload::kind), ..*header }.emit_into(&mut out);
    emit_chain(plain, kind, &mut out)?;
    out.extend_from_slice(&[first_inner.0, 0]);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(numbers);
    patch_message_len(&mut out, body_len);
    Ok(out)
}
