//! The gateway: what drives the IKE engine and the ESP data path on a Linux machine.

pub mod config;
pub mod io;
