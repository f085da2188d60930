//! Behaviour of the key side, without a thread.

mod cabinet;
mod chain;
mod eap;
mod golden;
mod proofs;
mod status;
mod turns;
