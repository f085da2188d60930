//! A whole message: header and payload chain.

use super::chain::{Nesting, emit_chain, parse_chain};
use super::error::{ParseError, TooLong};
use super::header::{HEADER_LEN, Header, check_header};
use super::limits::MAX_SUMMARY;
use super::payload::{Body, Payload};
use crate::numbers::PayloadType;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// A message: what [`parse`](Message::parse) found, or what [`emit`](Message::emit) is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The fixed header. Emission computes `next_payload` and `length` from the payloads.
    pub header: Header,
    /// The payloads in order. An SK or SKF can only be the last.
    pub payloads: Vec<Payload>,
}

impl Message {
    /// A message to send.
    pub fn new(header: Header, payloads: Vec<Payload>) -> Self {
        Message { header, payloads }
    }

    /// Parses one IKE message, without the non-ESP marker of port 4500. Encrypted payloads stay closed.
    ///
    /// # Errors
    /// A short datagram, another major version, a length field that differs from the datagram's, any malformed
    /// payload, too many elements, or an unknown payload with the critical bit.
    pub fn parse(datagram: &[u8]) -> Result<Message, ParseError> {
        let header = check_header(datagram)?;
        let bytes = datagram.get(HEADER_LEN..).unwrap_or_default();
        let payloads = parse_chain(header.next_payload, bytes, HEADER_LEN, Nesting::Outer)?;
        Ok(Message { header, payloads })
    }

    /// The octets of the message. What was parsed comes out as it came in, reserved bits included. A payload too
    /// long for its length field saturates it, so that no receiver accepts it; see [`try_emit`](Self::try_emit).
    pub fn emit(&self) -> Vec<u8> {
        self.emit_checked().0
    }

    /// The octets of the message.
    ///
    /// # Errors
    /// [`TooLong`] when a payload exceeds 65535 octets.
    pub fn try_emit(&self) -> Result<Vec<u8>, TooLong> {
        let (out, result) = self.emit_checked();
        result.map(|()| out)
    }

    fn emit_checked(&self) -> (Vec<u8>, Result<(), TooLong>) {
        let mut out = Vec::with_capacity(512);
        let first = self.payloads.first().map_or(PayloadType::NONE, Payload::kind);
        Header { next_payload: first, ..self.header }.emit_into(&mut out);
        let result = emit_chain(&self.payloads, PayloadType::NONE, &mut out);
        patch_message_len(&mut out, 0);
        (out, result)
    }

    /// One line: `IKE_SA_INIT request 0 [ SA KE No N(NATD_S_IP) ]`. Bounded: past
    /// [`MAX_SUMMARY`] payloads it says how many follow.
    pub fn summary(&self) -> String {
        summary(&self.header, &self.payloads)
    }

    /// The same line for payloads that came out of SK.
    pub fn summary_of(header: &Header, payloads: &[Payload]) -> String {
        summary(header, payloads)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_summary(f, &self.header, &self.payloads)
    }
}

fn summary(header: &Header, payloads: &[Payload]) -> String {
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = write_summary(&mut line, header, payloads);
    line
}

fn write_summary(f: &mut impl Write, header: &Header, payloads: &[Payload]) -> fmt::Result {
    let direction = if header.is_response() { "response" } else { "request" };
    write!(f, "{} {direction} {} [", header.exchange, header.message_id)?;
    for payload in payloads.iter().take(MAX_SUMMARY) {
        write_payload(f, &payload.body)?;
    }
    match payloads.len().checked_sub(MAX_SUMMARY) {
        Some(more @ 1..) => write!(f, " … {more} more ]"),
        _ => f.write_str(" ]"),
    }
}

fn write_payload(f: &mut impl Write, body: &Body) -> fmt::Result {
    match body {
        Body::Notify(n) => match n.kind.short() {
            Some(name) => write!(f, " N({name})"),
            None => write!(f, " N({})", n.kind),
        },
        Body::Cp(cp) => match cp.kind.name() {
            Some(name) => write!(f, " CP({})", name.strip_prefix("CFG_").unwrap_or(name)),
            None => write!(f, " CP({})", cp.kind),
        },
        Body::Skf(skf) => write!(f, " SKF({}/{})", skf.number, skf.total),
        Body::Unknown(u) if u.kind.name().is_none() => write!(f, " ?{}", u.kind),
        other => write!(f, " {}", other.kind()),
    }
}

/// Writes the final length, `out` and `more` octets to come, into the header at the start of `out`.
pub(crate) fn patch_message_len(out: &mut [u8], more: usize) {
    let len = u32::try_from(out.len() + more).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(24..28) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}
