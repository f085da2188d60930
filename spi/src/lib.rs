//! The service provider interface: what a crypto or ESP accelerator looks like to the gateway.
//!
//! Read [`queue`] first: it holds the contract every backend owes. Then the two vocabularies, [`esp`] (bursts of
//! packets) and [`crypto`] (one job per slow operation), and [`device`], which is all a backend exports.
//!
//! | module | what it holds |
//! |---|---|
//! | [`queue`] | `Queue`, `Completions`, `Polled`, `Closed`: the contract |
//! | [`esp`] | `EspBurst`, `EspOp`, `SaParams`, `SaId`: packets |
//! | [`crypto`] | `CryptoJob`, `CryptoOp`, `CryptoDone`, keys: operations |
//! | [`short`] | `ShortOps`: primitives of a few microseconds, done on the caller's thread |
//! | [`device`] | `Driver`, `Device`, `Health` |
//! | [`caps`] | `Caps`: what a device can do, as data |
//! | [`outcome`] | verdict, caller's mistake and device fault, kept apart |
//! | [`buf`], [`mem`] | `PacketBuf`, `Pool`, `Region`: memory a device may write to |
//! | [`inflight`] | `Token`, `InFlight`: the caller's table of work that is out |
//! | [`secret`] | `Secret`: zeroized, never printed |
//! | [`alg`] | IANA numbers, names and lengths |
//! | [`doorbell`] | an eventfd a device rings and a worker sleeps on |
//! | [`measure`], [`engine`] | `Meter`: what a device costs, measured; `EngineReport`: what it says of its own parts |
//! | [`stats`] | `Stats`: what a device counts |
//! | [`table`] | a backend's table of SAs and keys, with handles that turn stale |
//! | [`inline`], [`offthread`], [`pend`] | adapters: a function, a blocking call, a future |
//! | [`cert`], [`eap`], [`trace`] | the SPIs for certificates, EAP methods and logging |
//!
//! This crate depends on nothing else of the project.

pub mod alg;
pub mod buf;
pub mod caps;
pub mod cert;
pub mod crypto;
pub mod device;
pub mod doorbell;
pub mod eap;
pub mod engine;
pub mod esp;
pub mod inflight;
pub mod inline;
pub mod measure;
pub mod mem;
pub mod offthread;
pub mod outcome;
pub mod pend;
pub mod queue;
pub mod secret;
pub mod short;
pub mod stats;
pub mod table;
pub mod trace;

pub use alg::{Encr, Group, Hash, Integ, Prf, SignScheme};
pub use buf::{PacketBuf, Pool};
pub use caps::Caps;
pub use crypto::{CryptoDone, CryptoJob, CryptoOp, CryptoOutput, CryptoQueue, DhPrivate, KeyId, KeySource};
pub use device::{Device, DeviceDesc, Driver, Health, QueueConfig, Unusable};
pub use doorbell::Doorbell;
pub use engine::{EngineCost, EngineReport};
pub use esp::{Direction, EspBurst, EspOp, EspQueue, SaId, SaParams};
pub use inflight::{InFlight, Token};
pub use mem::Region;
pub use outcome::{Fault, FaultKind, Misuse, Outcome, Reject};
pub use queue::{Closed, Completions, Polled, Queue};
pub use secret::Secret;
pub use short::{ShortOps, SkSuite};
pub use stats::Stats;
