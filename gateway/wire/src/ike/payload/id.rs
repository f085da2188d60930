//! Identification payloads (RFC 7296 section 3.5).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::IdType;
use alloc::vec::Vec;

/// Who the sender claims to be, or whom it expects to meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// What kind of name.
    pub kind: IdType,
    /// Reserved, as received: these octets are part of what AUTH covers (RFC 7296 section 2.15).
    pub reserved: [u8; 3],
    /// The name. Addresses have their exact length, every other known kind but NULL is not empty.
    pub data: Vec<u8>,
}

impl Id {
    /// An identity to send.
    pub fn new(kind: IdType, data: Vec<u8>) -> Self {
        Id { kind, reserved: [0; 3], data }
    }

    /// The payload content without its generic header: what the MACedID of AUTH is computed over
    /// (RFC 7296 section 2.15).
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.data.len());
        self.emit_into(&mut out);
        out
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let kind = IdType(r.u8()?);
        let reserved = r.array()?;
        let length_fits = match kind {
            IdType::IPV4_ADDR => r.len() == 4,
            IdType::IPV6_ADDR => r.len() == 16,
            // RFC 7619 section 2.2: the NULL identity has no data.
            IdType::NULL => r.is_empty(),
            _ => !r.is_empty(),
        };
        if !length_fits {
            return Err(r.syntax("identity length does not fit its type"));
        }
        Ok(Id { kind, reserved, data: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.kind.0);
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&self.data);
    }
}
