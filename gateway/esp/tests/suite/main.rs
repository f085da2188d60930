//! Behaviour of the data path, two ends in memory over the software backend.
#![allow(clippy::unwrap_used)]

mod asynchronous;
mod golden;
mod hostile;
mod lanes;
mod moving;
mod policy;
mod rig;
mod size;
mod tunnel;
mod upkeep;
