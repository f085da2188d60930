//! The chain of payloads, each naming the type of the next (RFC 7296 section 3.2).

use super::error::{ErrorKind, ParseError, TooLong};
use super::limits::MAX_PAYLOADS;
use super::payload::{Body, Payload};
use super::reader::Reader;
use crate::numbers::PayloadType;
use alloc::vec::Vec;

/// Octets of the generic payload header.
pub(crate) const GENERIC_LEN: usize = 4;

/// Where one payload of a chain lies and what its generic header says.
pub(crate) struct Link<'a> {
    pub(crate) kind: PayloadType,
    pub(crate) next: PayloadType,
    pub(crate) flags: u8,
    /// Offset of the generic header.
    pub(crate) offset: usize,
    pub(crate) content: Reader<'a>,
}

/// Walks a chain by its generic headers only. An encrypted payload ends the chain: its next-payload octet names
/// what is inside (RFC 7296 section 3.14).
pub(crate) struct Walk<'a> {
    reader: Reader<'a>,
    next: PayloadType,
    seen: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(first: PayloadType, bytes: &'a [u8], offset: usize) -> Self {
        Walk { reader: Reader::new(bytes, offset, None), next: first, seen: 0 }
    }

    pub(crate) fn next(&mut self) -> Result<Option<Link<'a>>, ParseError> {
        let kind = self.next;
        if kind == PayloadType::NONE {
            self.reader.finish("octets after the last payload")?;
            return Ok(None);
        }
        if self.seen == MAX_PAYLOADS {
            return Err(self.reader.too_many("payloads", MAX_PAYLOADS));
        }
        self.seen += 1;
        let offset = self.reader.offset();
        let at = |kind_of: ErrorKind| ParseError { kind: kind_of, payload: Some(kind), offset };
        let [next, flags, len @ ..] = self
            .reader
            .array::<GENERIC_LEN>()
            .map_err(|_| at(ErrorKind::InvalidSyntax("no room for the payload header")))?;
        let len = usize::from(u16::from_be_bytes(len))
            .checked_sub(GENERIC_LEN)
            .ok_or(at(ErrorKind::InvalidSyntax("payload length below 4")))?;
        let start = self.reader.offset();
        let content = self
            .reader
            .take(len)
            .map_err(|_| at(ErrorKind::InvalidSyntax("payload length exceeds the message")))?;
        let next = PayloadType(next);
        let closed = kind == PayloadType::SK || kind == PayloadType::SKF;
        self.next = if closed { PayloadType::NONE } else { next };
        Ok(Some(Link { kind, next, flags, offset, content: Reader::new(content, start, Some(kind)) }))
    }
}

/// Parses the payloads inside an opened SK, padding already removed. Offsets in errors count from `bytes`.
///
/// # Errors
/// Everything [`Message::parse`](super::Message::parse) reports but the header's errors; an SK or SKF inside is
/// invalid syntax.
pub fn parse_payload_chain(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload>, ParseError> {
    parse_chain(first, bytes, 0, Nesting::Inner)
}

/// Emits payloads as they stand inside SK: the type of the first (NONE for none) and the octets, without padding.
pub fn emit_payload_chain(payloads: &[Payload]) -> (PayloadType, Vec<u8>) {
    let mut out = Vec::new();
    // A payload past 65535 octets saturates its length field; `Message::try_emit` reports it where it can matter.
    let _ = emit_chain(payloads, PayloadType::NONE, &mut out);
    (payloads.first().map_or(PayloadType::NONE, Payload::kind), out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    Outer,
    Inner,
}

pub(crate) fn parse_chain(
    first: PayloadType,
    bytes: &[u8],
    offset: usize,
    nesting: Nesting,
) -> Result<Vec<Payload>, ParseError> {
    let mut walk = Walk::new(first, bytes, offset);
    let mut payloads = Vec::new();
    let mut unsupported = None;
    while let Some(link) = walk.next()? {
        let at = link.offset;
        let encrypted = link.kind == PayloadType::SK || link.kind == PayloadType::SKF;
        if nesting == Nesting::Inner && encrypted {
            return Err(link.content.syntax("encrypted payload inside another"));
        }
        let payload = Payload { flags: link.flags, body: Body::parse(link.kind, link.next, link.content)? };
        if payload.is_critical() && matches!(payload.body, Body::Unknown(_)) {
            unsupported = unsupported.or(Some((link.kind, at)));
        }
        payloads.push(payload);
    }
    // RFC 7296 section 2.5: the whole message is rejected for one unknown critical payload. Malformed syntax
    // elsewhere has been reported first: it says more.
    match unsupported {
        Some((kind, offset)) => {
            Err(ParseError { kind: ErrorKind::UnsupportedCritical(kind), payload: Some(kind), offset })
        }
        None => Ok(payloads),
    }
}

/// Appends the payloads; the last one names `after`, except an encrypted one, which names its first inner payload.
pub(crate) fn emit_chain(payloads: &[Payload], after: PayloadType, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let mut result = Ok(());
    for (i, payload) in payloads.iter().enumerate() {
        let following = payloads.get(i + 1).map_or(after, Payload::kind);
        let next = payload.body.first_inner().unwrap_or(following);
        let start = out.len();
        out.extend_from_slice(&[next.0, payload.flags, 0, 0]);
        payload.body.emit_into(out);
        let len = u16::try_from(out.len() - start).unwrap_or_else(|_| {
            result = Err(TooLong { payload: Some(payload.kind()) });
            u16::MAX
        });
        if let Some(field) = out.get_mut(start + 2..start + 4) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
    result
}
