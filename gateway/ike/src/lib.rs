//! IKEv2 (RFC 7296), both roles: datagrams, completions, replies and the time go in; effects come out.
//!
//! No clock, no socket, no thread and no randomness of its own. Read [`engine`] first, then [`effect`] for what it wants
//! done.

#![forbid(unsafe_code)]

mod auth;
mod child;
pub mod config;
pub mod cookie;
mod core;
mod create_child;
pub mod datagrams;
pub mod effect;
pub mod engine;
pub mod frag;
mod handler;
mod informational;
mod init;
mod keeper;
pub mod keymat;
mod lanes;
mod leases;
mod message;
pub mod narrow;
pub mod natd;
pub mod pool;
pub mod protect;
mod realms;
mod rekey_ike;
mod resource;
mod sa;
pub mod select;
mod session;
mod shelf;
pub mod status;
mod tasks;
pub mod timer;
pub mod window;

pub use child::selectors_text;
pub use config::{Config, SourceFor};
pub use effect::{
    ChildId, ChildInstall, ChildRemoved, Command, CommandId, DhcpLease, Effect, EspSignal, Event, IkeSaId,
    InnerAddress, KeyLogEntry, KnownLease, LeaseChange, Path, Why,
};
pub use engine::{Engine, Standing};
pub use pool::{LeaseState, LeaseView};
pub use session::Ending;
pub use status::{ChildView, IkeSaView, Repeats, Status};
