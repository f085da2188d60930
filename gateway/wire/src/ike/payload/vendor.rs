//! Vendor ID payload (RFC 7296 section 3.12), and payloads of types we do not know.

use crate::numbers::PayloadType;
use alloc::vec::Vec;

/// Opaque octets that name an implementation or an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendor(pub Vec<u8>);

/// A payload of a type this crate does not know, kept verbatim. The critical bit is in
/// [`Payload::flags`](super::Payload::flags); parsing fails when it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The type.
    pub kind: PayloadType,
    /// The content without the generic header.
    pub bytes: Vec<u8>,
}
