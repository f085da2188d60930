//! Behaviour of the key side, without a thread.

mod chain;
mod golden;
mod proofs;
mod turns;
