//! A RADIUS client (RFC 2865, 2866, 2869, 3579, 5176, 5997, 6614): what a gateway needs to let others say who may come in.
//!
//! It runs on the key side: shared secrets and the keys that servers give stay there.
//!
//! | module | what it holds |
//! |---|---|
//! | [`packet`], [`attribute`] | formats, and what proves a packet |
//! | `mppe` | the key in an Access-Accept (RFC 2548) |
//! | [`passthrough`] | EAP between a peer and a server: a [`eap::Conversation`]; the attributes that we send |
//! | [`granted`](eap::Granted) | the attributes that we understand, in `granted.rs` |
//! | [`engine`], `lane` | which server, which identifier, again, or the next one; no socket and no clock |
//! | [`accounting`] | records, kept until a server has them |
//! | [`journal`] | what of that outlives this process |
//! | [`dynamic`] | Disconnect and CoA: requests that come to us |
//! | [`client`] | handles; they ask a thread, which has the sockets (`thread`, `tls`) |
//! | [`config`] | what it is told |
#![forbid(unsafe_code)]

pub mod accounting;
pub mod attribute;
pub mod client;
pub mod config;
pub mod dynamic;
pub mod engine;
mod granted;
pub mod journal;
mod lane;
mod mppe;
pub mod packet;
pub mod passthrough;
mod thread;
mod tls;

pub use accounting::{Cause, Known, Session, Traffic, What};
pub use client::{Client, Running, Status};
pub use config::{Config, Dynamic, DynamicClient, Patience, Server, Tls, Whose};
pub use dynamic::{Demand, DemandId, Demanded, ErrorCause, Verdict, Which};
pub use passthrough::{Details, Passthrough};
