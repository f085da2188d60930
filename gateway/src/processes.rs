//! Three processes: the supervisor, which may everything and does little; `tussock-gateway`, which faces the network and may
//! nothing; `tussock-secure`, which holds the keys and may change the machine's network. A fourth reads the configuration
//! and ends, so that no secret is ever in the supervisor's memory.
//!
//! ```text
//!            reader ── public part, secret part (memfds) ──> supervisor
//!   supervisor ── public part, control socket, its end of the channel ──> tussock-gateway
//!   supervisor ── secret part, the socket for passwords, its end of the channel ──> tussock-secure
//!   tussock-gateway <── questions and answers (ipc) ──> tussock-secure
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `words` | what supervisor and processes say to each other |
//! | `parts` | the two parts of a configuration, and how they are handed over |
//! | `users` | whom the processes run as |
//! | `reader` | the process that reads |
//! | `lend` | files of cards, which the gateway's user is given |
//! | `child` | a process, as the supervisor sees it |
//! | `supervisor` | the supervisor |
//! | [`gateway`], [`key_side`] | the programs `tussock-gateway` and `tussock-secure` |
//! | [`rehearsal`] | the key side alone, for tests |
//! | `upward` | the supervisor, as `tussock-gateway` sees it |

mod child;
pub mod gateway;
pub mod key_side;
mod lend;
mod parts;
pub(crate) mod reader;
pub mod rehearsal;
pub(crate) mod supervisor;
mod upward;
mod users;
mod words;

pub use users::User;
