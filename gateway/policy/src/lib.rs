//! Who may be whom and reach what: identities, proposals, realms. Pure data and pure decisions, the same on the side that
//! faces the network and on the side that holds the keys.

#![forbid(unsafe_code)]

pub mod id;
pub mod lifetime;
pub mod proposal;
pub mod realm;

pub use id::{IdMatch, Identity};
pub use lifetime::{Dpd, DpdAction, Lifetime, Retransmission};
pub use proposal::{EspProposal, IkeProposal};
pub use realm::{AuthPolicy, Child, ChildMode, Childless, Encap, Pool, Realm, RemoteAddress, SelectorSpec, Start, VirtualIpRequest};
