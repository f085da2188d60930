//! The frame of EAP messages (RFC 3748 section 4): code, identifier, length, and the method's type.

use crate::numbers::{EapCode, EapType};
use alloc::vec::Vec;
use core::fmt;

/// One EAP message, borrowed. `Debug` leaves out the data: some methods carry passwords.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EapMessage<'a> {
    /// Request, response, success or failure.
    pub code: EapCode,
    /// Ties a response to its request.
    pub identifier: u8,
    /// The method, in requests and responses.
    pub kind: Option<EapType>,
    /// What follows the type octet.
    pub data: &'a [u8],
}

impl fmt::Debug for EapMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP {} {} ", self.code, self.identifier)?;
        if let Some(kind) = self.kind {
            write!(f, "{kind} ")?;
        }
        write!(f, "({} octets)", self.data.len())
    }
}

/// Octets that are not an EAP message; RFC 3748 has them dropped silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EapError {
    /// Fewer octets than the length field says, or than the fixed part needs.
    Truncated,
    /// A code other than 1 to 4.
    Code(u8),
    /// A request or response without a type, or a success or failure with data.
    Length,
}

impl fmt::Display for EapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EapError::Truncated => f.write_str("EAP message is truncated"),
            EapError::Code(code) => write!(f, "EAP code {code}"),
            EapError::Length => f.write_str("EAP length does not fit the code"),
        }
    }
}

impl core::error::Error for EapError {}

impl<'a> EapMessage<'a> {
    /// Reads one message. Octets past the length field are padding of the lower layer and ignored (RFC 3748 section
    /// 4.1).
    ///
    /// # Errors
    /// See [`EapError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EapError> {
        let ([code, identifier, hi, lo], rest) = bytes.split_first_chunk::<4>().ok_or(EapError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        let body = length.checked_sub(4).and_then(|n| rest.get(..n)).ok_or(EapError::Truncated)?;
        let code = EapCode(*code);
        let (kind, data) = match code {
            EapCode::REQUEST | EapCode::RESPONSE => {
                let (kind, data) = body.split_first().ok_or(EapError::Length)?;
                (Some(EapType(*kind)), data)
            }
            EapCode::SUCCESS | EapCode::FAILURE if body.is_empty() => (None, body),
            EapCode::SUCCESS | EapCode::FAILURE => return Err(EapError::Length),
            EapCode(code) => return Err(EapError::Code(code)),
        };
        Ok(EapMessage { code, identifier: *identifier, kind, data })
    }

    /// The octets of the message; `None` when it is longer than its length field can say.
    pub fn emit(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(4 + usize::from(self.kind.is_some()) + self.data.len()).ok()?;
        let mut out = Vec::with_capacity(length.into());
        out.extend_from_slice(&[self.code.0, self.identifier]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend(self.kind.map(|t| t.0));
        out.extend_from_slice(self.data);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_response_is_read_and_written_alike() {
        let bytes = [2, 7, 0, 8, 1, b'b', b'o', b'b'];
        let message = EapMessage::parse(&bytes).unwrap();
        assert_eq!((message.kind, message.data), (Some(EapType::IDENTITY), b"bob".as_slice()));
        assert_eq!(message.emit().unwrap(), bytes);
    }

    #[test]
    fn padding_after_the_length_is_ignored_and_shortage_is_not() {
        assert_eq!(EapMessage::parse(&[3, 1, 0, 4, 9, 9]).unwrap().data, b"");
        assert_eq!(EapMessage::parse(&[1, 1, 0, 9, 1]), Err(EapError::Truncated));
        assert_eq!(EapMessage::parse(&[1, 1, 0, 3, 1]), Err(EapError::Truncated));
        assert_eq!(EapMessage::parse(&[1, 1]), Err(EapError::Truncated));
    }

    #[test]
    fn codes_and_lengths_that_contradict_are_refused() {
        assert_eq!(EapMessage::parse(&[1, 1, 0, 4]), Err(EapError::Length));
        assert_eq!(EapMessage::parse(&[4, 1, 0, 5, 0]), Err(EapError::Length));
        assert_eq!(EapMessage::parse(&[5, 1, 0, 4]), Err(EapError::Code(5)));
    }
}
