//! The ESP data path (RFC 4301, RFC 4303) of one worker, without any I/O: no clock, no syscall, no thread, no `unsafe`.
//!
//! [`Esp`] is owned by one worker. The control plane installs SAs (whose keys are in a device already) and policies;
//! the worker hands in packets and completions with the time, and empties [`Output`] after each turn: bursts to submit,
//! packets to send, packets to write, events.
//!
//! ```text
//! interface ──► handle_inner ──► Output::submit ──► device ──► on_done ──► Output::outer ──► socket
//! socket ─────► handle_outer ──► Output::submit ──► device ──► on_done ──► Output::inner ──► interface
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `esp`, `sa`, `output`, `counters` | the public face: configuration, SAs and policies, what comes out, what is counted |
//! | `outbound`, `inbound`, `device` | the two walks, and bursts on their way to devices and back |
//! | `control`, `sad`, `spd`, `flow` | SAs by SPI, the indexed SPD, the memory of its decisions |
//! | `seq`, `replay`, `reorder` | numbers out, numbers in, order |
//! | `mtu`, `ecn`, `transport`, `segment`, `packet` | rules about inner and outer headers |
//! | `coalesce` | packets of one flow, joined for an interface with offloads |
//! | `elsewhere` | packets whose SA another worker has |
//! | `share` | budgets of CPU time |
//! | `acquire`, `keepalive`, `timer` | packets that wait for an SA, NAT keepalives, what is due when |
#![forbid(unsafe_code)]

mod acquire;
mod coalesce;
mod control;
mod counters;
mod device;
mod ecn;
mod elsewhere;
mod esp;
mod flow;
mod fuzz;
mod hash;
mod inbound;
mod keepalive;
mod mtu;
mod outbound;
mod output;
mod packet;
mod reorder;
mod replay;
mod sa;
mod sad;
mod segment;
mod seq;
mod share;
mod spd;
mod timer;
mod transport;

pub use coalesce::{Coalescer, Joinable, Piece, Train};
pub use counters::{Counters, DropCounters, DropReason};
pub use device::{Faults, LineView};
pub use esp::{Config, Esp, Inner, Offload, Outer, SegmentKind, Segments};
pub use flow::FlowKey;
pub use fuzz::fuzz_inbound;
pub use output::{Event, HandOver, InnerPackets, OuterPackets, Output, Run, Verdict};
pub use sa::{
    Action, ChildId, DfPolicy, DscpPolicy, EcnPolicy, ElsewhereSa, Encap, InboundSa, InstallError, Limits,
    MAX_SELECTORS, Mode, OutboundSa, Path, PeerMoves, Policy, SaSummary, SaView, ShareId, UdpEncap,
};
pub use segment::cut;
pub use share::ShareView;
