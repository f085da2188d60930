//! IKEv2 (RFC 7296), both roles: datagrams, completions, replies and the time go in; effects come out.
//!
//! No clock, no socket, no thread and no randomness of its own. Read [`engine`] first, then [`effect`] for what it wants
//! done.

#![forbid(unsafe_code)]

pub mod config;
pub mod cookie;
pub mod effect;
pub mod engine;
pub mod frag;
pub mod keymat;
pub mod narrow;
pub mod natd;
pub mod pool;
pub mod protect;
pub mod select;
pub mod status;
pub mod timer;
pub mod window;

pub use config::{Config, SourceFor};
pub use effect::{
    ChildId, ChildInstall, ChildRemoved, Command, CommandId, Effect, EspSignal, Event, InnerAddress, IkeSaId, KeyLogEntry, Path,
    Why,
};
pub use engine::Engine;
pub use status::{ChildView, IkeSaView, Status};
