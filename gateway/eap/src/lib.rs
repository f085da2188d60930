//! EAP (RFC 3748) as a lower layer sees it: a conversation takes the other side's packets and says what to do next.
//!
//! It runs on the key side, where passwords and keys are; the network side carries the packets and learns the outcome.

mod account;
mod ask;
mod avp;
mod config;
mod conversation;
mod eap_tls;
mod grant;
mod gtc;
mod md5;
mod method;
mod mschap;
mod mschapv2;
mod nested;
mod peap;
mod peer;
mod server;
mod tls;
mod tls_peer;
mod tls_server;
mod ttls;

pub use config::{Answer, Inner, MethodKind, Password, PeerConfig, Prompt, Random, ServerConfig, Users};
pub use conversation::{Conversation, Step};
pub use grant::{Grant, Granted};
pub use peer::Peer;
pub use server::Server;
pub use tls::{Certificates, Clock, TlsClient, TlsServer, TlsVersions};
