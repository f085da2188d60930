//! Why a message did not parse, where, and what may be answered.

use crate::numbers::{NotifyType, PayloadType};
use core::fmt;

/// A message or payload chain that is not well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The payload it was found in; `None` for the header and the chain itself.
    pub payload: Option<PayloadType>,
    /// Offset in octets from the start of the slice that was given to the parser.
    pub offset: usize,
}

/// What is wrong with a message, grouped by what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fewer octets than an IKE header: nothing to answer.
    NotIke,
    /// The major version is not 2. Only a higher one is answered, with INVALID_MAJOR_VERSION (RFC 7296 section 2.5).
    MajorVersion(u8),
    /// A payload type we do not know, with the critical bit set (RFC 7296 section 2.5).
    UnsupportedCritical(PayloadType),
    /// Lengths or fixed fields that contradict each other; the text says which.
    InvalidSyntax(&'static str),
    /// More elements than [`limits`](super::limits) allow.
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound it crossed.
        limit: usize,
    },
}

impl ParseError {
    pub(crate) const fn header(kind: ErrorKind, offset: usize) -> Self {
        ParseError { kind, payload: None, offset }
    }

    /// The notification that answers this error and its data (one octet or none), `None` where silence is the answer. Whether it may
    /// be sent at all (authenticated or not, request or response) is the caller's decision.
    pub fn notify(&self) -> Option<(NotifyType, Option<u8>)> {
        match self.kind {
            ErrorKind::NotIke => None,
            // RFC 7296 section 2.5: the data is the highest version we speak; lower versions are just dropped.
            ErrorKind::MajorVersion(v) if v > 2 => Some((NotifyType::INVALID_MAJOR_VERSION, Some(2))),
            ErrorKind::MajorVersion(_) => None,
            ErrorKind::UnsupportedCritical(t) => Some((NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, Some(t.0))),
            ErrorKind::InvalidSyntax(_) | ErrorKind::TooMany { .. } => {
                Some((NotifyType::INVALID_SYNTAX, None))
            }
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::NotIke => f.write_str("shorter than an IKE header")?,
            ErrorKind::MajorVersion(v) => write!(f, "major version {v}")?,
            ErrorKind::UnsupportedCritical(t) => write!(f, "unsupported critical payload {t}")?,
            ErrorKind::InvalidSyntax(what) => f.write_str(what)?,
            ErrorKind::TooMany { what, limit } => write!(f, "more than {limit} {what}")?,
        }
        if let Some(payload) = self.payload {
            write!(f, " in payload {payload}")?;
        }
        write!(f, " at offset {}", self.offset)
    }
}

impl core::error::Error for ParseError {}

/// An element is longer than its length field can say; nothing was emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The payload whose length field overflows; `None` for the message itself.
    pub payload: Option<PayloadType>,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload {
            Some(p) => write!(f, "payload {p} is longer than its length field can say"),
            None => f.write_str("message is longer than its length field can say"),
        }
    }
}

impl core::error::Error for TooLong {}
