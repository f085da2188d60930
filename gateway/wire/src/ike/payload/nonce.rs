//! Nonce payload (RFC 7296 section 3.9).

use crate::ike::error::ParseError;
use crate::ike::limits::NONCE_LEN;
use crate::ike::reader::Reader;
use alloc::vec::Vec;

/// 16 to 256 octets of freshness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(pub Vec<u8>);

impl Nonce {
    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        if !NONCE_LEN.contains(&r.len()) {
            return Err(r.syntax("nonce length outside 16..=256"));
        }
        Ok(Nonce(r.rest().into()))
    }
}
