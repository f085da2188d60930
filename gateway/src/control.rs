//! The control socket: a Unix socket, one JSON object a line each way.
//!
//! | module | what it holds |
//! |---|---|
//! | [`protocol`] | requests and answers |
//! | [`server`] | the gateway's end |
//! | [`client`] | the commands' end |
//! | [`lock`] | one gateway for each state folder |

pub mod client;
pub mod lock;
pub mod protocol;
pub mod server;
