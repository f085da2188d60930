//! The formats on the wire: bytes to values and back, and nothing else.
//!
//! No dependency, no clock, no I/O, no `unsafe`, and no panic on any input. Parsers bound what they keep (see
//! [`ike::limits`]); emitting what was parsed gives the same bytes again, reserved bits included.
//!
//! * [`ike`] — IKEv2 messages (RFC 7296, 7383): [`ike::Message`], [`ike::Payload`], the split of an encrypted message.
//! * [`numbers`] — the IANA registries as newtypes; unknown values are values like any other.
//! * [`ts`] — traffic selectors and their set operations.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod ike;
pub mod numbers;
pub mod ts;

pub use ts::TrafficSelector;
