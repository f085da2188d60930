//! Behaviour of the key side, without a thread.

mod answers;
mod cabinet;
mod chain;
mod directory;
mod eap;
mod eap_status;
mod golden;
mod proofs;
mod realms;
mod second;
mod status;
mod turns;
