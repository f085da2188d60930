//! The formats on the wire: bytes to values and back, and nothing else.
//!
//! No dependency, no clock, no I/O, no `unsafe`, and no panic on any input. Parsers bound what they keep (see
//! [`ike::limits`]); emitting what was parsed gives the same bytes again, reserved bits included.
//!
//! * [`ike`] — IKEv2 messages (RFC 7296, 7383): [`ike::Message`], [`ike::Payload`], the split of an encrypted message.
//! * [`esp`], [`natt`] — the ESP header and trailer (RFC 4303), and what arrives on UDP port 4500 (RFC 3948).
//! * [`ip`] — IPv4 and IPv6 headers as the data path needs them: views, checksums, too-big messages, MSS.
//! * [`eap`] — the frame of EAP messages (RFC 3748).
//! * [`numbers`] — the IANA registries as newtypes; unknown values are values like any other.
//! * [`ts`] — traffic selectors and their set operations.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod eap;
pub mod esp;
pub mod ike;
pub mod ip;
pub mod natt;
pub mod numbers;
pub mod ts;

pub use ts::TrafficSelector;
