//! IKEv2 messages: header, payloads, the chain, and the split of encrypted messages.
//!
//! ```text
//! datagram -> peek_header (dispatch by SPI) -> Message::parse         (unencrypted exchanges)
//!                                          \-> sk_split -> open AEAD -> parse_payload_chain(first_inner, plaintext)
//! ```
//!
//! Emission mirrors it: [`Message::emit`], or [`emit_payload_chain`] then [`sk_prefix`] / [`skf_prefix`].

mod chain;
mod error;
mod header;
pub mod limits;
mod list;
mod message;
pub mod payload;
mod reader;
mod sk;

pub use chain::{emit_payload_chain, parse_payload_chain};
pub use error::{ErrorKind, ParseError, TooLong};
pub use header::{Flags, HEADER_LEN, Header, IkeSpi, Spi, peek_header};
pub use list::PayloadList;
pub use message::Message;
pub use payload::{
    Attribute, Auth, Body, Cert, CertReq, CfgAttr, Cp, Delete, Eap, Encrypted, Fragment, GatewayId, Id, Ke,
    Nonce, Notify, Payload, Proposal, Redirect, Sa, Transform, TsEntry, TsPayload, Unknown, Vendor,
};
pub use sk::{SkFragment, SkParts, SkSplit, sk_prefix, sk_split, skf_prefix};
