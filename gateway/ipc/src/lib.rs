//! What the network side may ask of the side that holds the keys, what it is answered, what may be asked when, and the
//! channel between the two.
//!
//! Two rules shape the requests. The key side signs nothing it did not put together itself: it gets the messages and builds
//! the AUTH octets from them (RFC 7296 section 2.15). And every request names the realm, so that an address, a route or an
//! identity can be checked against what the realm allows.

#![forbid(unsafe_code)]

pub mod channel;
pub mod codec;
mod frame;
mod memory;
pub mod request;
mod socket;
pub mod table;
mod talk;

pub use channel::{NetworkEnd, Received, SecureEnd, Unsent, pair, pair_of};
pub use request::{
    Account, AuthInput, CertAsks, CertData, DnsChange, EapGrant, EapStep, IkeSaRef, MAX_CANDIDATES,
    MAX_EAP_LIST, MAX_EAP_PACKET, MAX_EAP_ROUNDS, MAX_EAP_TEXT, MAX_ORDERED, NeighbourChange, Offered,
    PeerProof, Refusal, Reply, Request, Role, RouteChange, SessionChange, SessionOrder, StopCause,
    TAP_ADDRESS, Traffic, TunOffload, TunSpec,
};
pub use socket::{Party, socket_pair};
pub use table::{Binding, Table};
pub use talk::Talk;
