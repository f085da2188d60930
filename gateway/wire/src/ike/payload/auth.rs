//! Authentication payload (RFC 7296 section 3.8, RFC 7427 section 3).

use crate::ike::error::ParseError;
use crate::ike::reader::Reader;
use crate::numbers::AuthMethod;
use alloc::vec::Vec;

/// Proof of identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// How the proof was made.
    pub method: AuthMethod,
    /// Reserved, as received.
    pub reserved: [u8; 3],
    /// The proof.
    pub data: Vec<u8>,
}

impl Auth {
    /// A proof to send.
    pub fn new(method: AuthMethod, data: Vec<u8>) -> Self {
        Auth { method, reserved: [0; 3], data }
    }

    /// A digital signature of RFC 7427: a one-octet length, the DER AlgorithmIdentifier, the signature. `None`
    /// when the identifier is longer than 255 octets.
    pub fn digital_signature(algorithm: &[u8], signature: &[u8]) -> Option<Self> {
        let mut data = Vec::with_capacity(1 + algorithm.len() + signature.len());
        data.push(u8::try_from(algorithm.len()).ok()?);
        data.extend_from_slice(algorithm);
        data.extend_from_slice(signature);
        Some(Self::new(AuthMethod::DIGITAL_SIGNATURE, data))
    }

    /// The DER AlgorithmIdentifier and the signature of method 14 (RFC 7427 section 3); `None` for other methods
    /// and when the length octet promises more than there is.
    pub fn signature(&self) -> Option<(&[u8], &[u8])> {
        if self.method != AuthMethod::DIGITAL_SIGNATURE {
            return None;
        }
        let (len, rest) = self.data.split_first()?;
        rest.split_at_checked(usize::from(*len))
    }

    pub(crate) fn parse(r: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Auth { method: AuthMethod(r.u8()?), reserved: r.array()?, data: r.rest().into() })
    }

    pub(crate) fn emit_into(&self, out: &mut Vec<u8>) {
        out.push(self.method.0);
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&self.data);
    }
}
