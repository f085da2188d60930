//! Key exchange payload (RFC 7296 section 3.4).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::KeId;
use alloc::vec::Vec;

/// A public value for one key exchange method. Whether its length fits the method is the engine's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ke {
    /// The method.
    pub method: KeId,
    /// Reserved, as received.
    pub reserved: [u8; 2],
    /// The public value.
    pub data: Vec<u8>,
}

impl Ke {
    /// A payload to send.
    pub fn new(method: KeId, data: Vec<u8>) -> Self {
        Ke { method, reserved: [0; 2], data }
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Ke { method: KeId(r.u16()?), reserved: r.array()?, data: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.method.0.to_be_bytes());
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&self.data);
    }
}
