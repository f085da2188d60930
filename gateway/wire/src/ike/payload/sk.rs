//! Encrypted payload (RFC 7296 section 3.14) and encrypted fragment (RFC 7383 section 2.5), still closed.

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::PayloadType;
use alloc::vec::Vec;

/// The encrypted payload, still closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Type of the first payload inside.
    pub first_inner: PayloadType,
    /// IV, ciphertext with padding, ICV.
    pub body: Vec<u8>,
}

/// One encrypted fragment, still closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Type of the first payload inside; meaningful in fragment 1 only, sent as NONE in the others.
    pub first_inner: PayloadType,
    /// Number of this fragment, from 1.
    pub number: u16,
    /// How many fragments the message has.
    pub total: u16,
    /// IV, ciphertext with padding, ICV.
    pub body: Vec<u8>,
}

impl Fragment {
    pub(crate) fn parse(first_inner: PayloadType, r: &mut Reader<'_>) -> Result<Self, ParseError> {
        let number = r.u16()?;
        let total = r.u16()?;
        check_fragment(number, total).map_err(|what| r.syntax(what))?;
        Ok(Fragment { first_inner, number, total, body: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.total.to_be_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// RFC 7383 section 2.5: numbers count from 1 to the total.
pub(crate) fn check_fragment(number: u16, total: u16) -> Result<(), &'static str> {
    if number == 0 || number > total { Err("fragment number outside 1..=total") } else { Ok(()) }
}
