//! What a device says about the engines inside it: several pieces of code or silicon that carry the same transform, of which it
//! picks one for each packet. For people to read; nothing is decided by it.

use crate::alg::{Encr, Integ};
use crate::esp::Direction;
use crate::measure::Load;

/// One engine, for one transform or for all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineReport {
    /// Its name, for example `aws-lc`.
    pub engine: &'static str,
    /// The transform this is about; `None`: every one.
    pub transform: Option<(Encr, Integ)>,
    /// What it was measured to cost, where it was.
    pub costs: Vec<EngineCost>,
    /// Why it is used, or not, or not there at all; one line.
    pub why: String,
}

/// What an engine costs under one load, in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineCost {
    /// Seal or open.
    pub dir: Direction,
    /// Size and number of packets.
    pub load: Load,
    /// CPU time, nanoseconds per packet.
    pub cpu_ns: f64,
    /// Whether packets like these go to this engine.
    pub picked: bool,
}
