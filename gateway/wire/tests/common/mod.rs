//! What several test files build messages from.
#![allow(dead_code)]

use wire::ike::{Flags, Header, Message, Payload, Spi};
use wire::numbers::ExchangeType;

pub(crate) fn header(exchange: ExchangeType) -> Header {
    Header::new(Spi(0x1122_3344_5566_7788), Spi(0x99aa_bbcc_ddee_ff00), exchange, Flags::INITIATOR, 7)
}

/// A message of one payload of any type and content, lengths right.
pub(crate) fn raw(kind: u8, content: &[u8]) -> Vec<u8> {
    chain(&[(kind, 0, content)])
}

/// A message of payloads given as type, flags and content.
pub(crate) fn chain(payloads: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = Message::new(header(ExchangeType::INFORMATIONAL), Vec::new()).emit();
    bytes[16] = payloads.first().map_or(0, |p| p.0);
    for (i, (_, flags, content)) in payloads.iter().enumerate() {
        bytes.extend([payloads.get(i + 1).map_or(0, |p| p.0), *flags]);
        bytes.extend(((content.len() + 4) as u16).to_be_bytes());
        bytes.extend(*content);
    }
    fix_length(&mut bytes);
    bytes
}

/// Makes the header's length that of the bytes.
pub(crate) fn fix_length(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    bytes[24..28].copy_from_slice(&len.to_be_bytes());
}

/// The only payload of a message.
pub(crate) fn only(bytes: &[u8]) -> Payload {
    let message = Message::parse(bytes).expect("well-formed");
    assert_eq!(message.payloads.len(), 1);
    assert_eq!(message.emit(), bytes, "emit differs from what was parsed");
    message.payloads.into_iter().next().expect("one payload")
}
