//! EAP (RFC 3748) as a lower layer sees it: a conversation takes the other side's packets and says what to do next.
//!
//! It runs on the key side, where passwords and keys are; the network side carries the packets and learns the outcome.

mod conversation;
mod grant;

pub use conversation::{Conversation, Step};
pub use grant::{Grant, Granted};
