//! The control socket: a Unix socket, one JSON object a line each way.
//!
//! | module | what it holds |
//! |---|---|
//! | [`protocol`] | requests and answers |
//! | [`server`] | the gateway's end |
//! | [`client`] | the commands' end |
//! | [`passwords`] | the key side's own socket |
//! | [`lock`] | one gateway for each state folder |

pub mod client;
pub mod lock;
pub mod passwords;
pub mod protocol;
pub mod server;
