//! Bounds on what one message may contain. A 64 KiB datagram of smallest elements fails early instead of becoming
//! tens of thousands of heap objects; real messages stay an order of magnitude below each bound.

/// Payloads in one chain (outer message, or inside SK).
pub const MAX_PAYLOADS: usize = 128;
/// Proposals in one SA payload.
pub const MAX_PROPOSALS: usize = 128;
/// Transforms in one SA payload, over all its proposals.
pub const MAX_TRANSFORMS: usize = 1024;
/// Attributes of one transform.
pub const MAX_ATTRIBUTES: usize = 8;
/// Selectors in one TS payload: all the count octet can say.
pub const MAX_SELECTORS: usize = 255;
/// Attributes in one configuration payload.
pub const MAX_CFG_ATTRIBUTES: usize = 256;
/// SPIs in one Delete payload.
pub const MAX_DELETE_SPIS: usize = 1024;
/// Payloads named by [`Message::summary`](super::Message::summary), and transforms by a proposal's `Display`, before
/// they say how many follow.
pub const MAX_SUMMARY: usize = 24;
/// Nonce lengths, octets, both ends included (RFC 7296 section 3.9).
pub const NONCE_LEN: core::ops::RangeInclusive<usize> = 16..=256;
