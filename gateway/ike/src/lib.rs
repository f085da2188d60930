//! IKEv2 (RFC 7296), both roles: datagrams, completions, replies and the time go in; effects come out.
//!
//! No clock, no socket, no thread and no randomness of its own. Read [`engine`] first, then [`effect`] for what it wants
//! done.

#![forbid(unsafe_code)]

pub mod config;
pub mod effect;
pub mod engine;
pub mod status;

pub use config::{Config, SourceFor};
pub use effect::{
    ChildId, ChildInstall, ChildRemoved, Command, CommandId, Effect, EspSignal, Event, InnerAddress, IkeSaId, KeyLogEntry, Path,
    Why,
};
pub use engine::Engine;
pub use status::{ChildView, IkeSaView, Status};
