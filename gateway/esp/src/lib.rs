//! The ESP data path (RFC 4301, RFC 4303) of one worker, without any I/O.
#![forbid(unsafe_code)]

mod counters;
mod ecn;
mod esp;
mod flow;
mod output;
mod packet;
mod reorder;
mod replay;
mod sa;
mod seq;
mod spd;

pub use counters::{Counters, DropCounters, DropReason};
pub use esp::{Config, Esp, Inner, Offload, Outer, SegmentKind, Segments};
pub use flow::FlowKey;
pub use output::{Event, InnerPackets, OuterPackets, Output, Run, Verdict};
pub use sa::{
    Action, ChildId, DfPolicy, DscpPolicy, EcnPolicy, Encap, InboundSa, InstallError, Limits, MAX_SELECTORS,
    Mode, OutboundSa, Path, PeerMoves, Policy, SaSummary, SaView, UdpEncap,
};
