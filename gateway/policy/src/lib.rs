//! Who may be whom and reach what: identities, proposals, realms. Pure data and pure decisions, the same on the side that
//! faces the network and on the side that holds the keys.

#![forbid(unsafe_code)]

pub mod choose;
pub mod dn;
pub mod eap;
pub mod id;
pub mod lifetime;
pub mod pool;
pub mod proposal;
pub mod rdn;
pub mod realm;
pub mod rule;
pub mod selector;
mod token;

pub use choose::{Ambiguity, ambiguities, choose_realm, realms_by_path};
pub use dn::DnError;
pub use eap::{EapMethod, EapPolicy, identity_of_user};
pub use id::{IdError, IdMatch, Identity, MAX_ID_LEN};
pub use lifetime::{Dpd, DpdAction, Lifetime, Retransmission};
pub use pool::{DhcpSource, Pool, PoolRange, VirtualIpRequest};
pub use proposal::{EspProposal, IkeProposal, ProposalError, SIGNATURE_HASHES};
pub use rdn::RdnSet;
pub use realm::{
    AuthPolicy, Child, ChildMode, Childless, Encap, Realm, RemoteAddress, SelectorSpec, SignMethod, Start,
};
pub use rule::{Claims, EapPattern, Peers, Rank, Rule, RuleError};
pub use selector::SelectorError;
