//! EAP (RFC 3748) as a lower layer sees it: a conversation takes the other side's packets and says what to do next.
//!
//! It runs on the key side, where passwords and keys are; the network side carries the packets and learns the outcome. There is
//! no socket and no thread in here, and no clock but the one that certificates are judged by. A conversation has an end
//! whatever comes: packets that go on are counted, and packets out of place, too.
//!
//! | method | type | by | inside | MSK |
//! |---|---|---|---|---|
//! | EAP-MD5 | 4 | RFC 3748, RFC 1994 | | none |
//! | EAP-GTC | 6 | RFC 3748 | | none |
//! | EAP-TLS | 13 | RFC 5216, RFC 9190 | | 64 octets |
//! | EAP-TTLS | 21 | RFC 5281, RFC 9427 | PAP, MSCHAPv2, EAP | 64 octets |
//! | PEAP | 25 | \[MS-PEAP\] version 0, RFC 9427 | EAP | 64 octets |
//! | EAP-MSCHAPv2 | 26 | RFC 2759, RFC 3079 | | 64 octets, 32 of them zero |
//!
//! No packet of ours is longer than 1020 octets. A message of TLS is at most 64 KiB, what is inside it at most 16 KiB, a name 253
//! octets, a password 1024, a conversation 160 packets each way.
//!
//! # Driving a conversation
//!
//! What follows is a server and a peer in one process. A gateway has one of them, and the packets come from and go to the other
//! side, in IKE_AUTH or in RADIUS.
//!
//! ```
//! use std::sync::Arc;
//!
//! use eap::{Conversation, MethodKind, Password, Peer, PeerConfig, Random, Server, ServerConfig, Step, Users};
//! use spi::Secret;
//!
//! struct Alice;
//! impl Users for Alice {
//!     fn password(&self, name: &str) -> Option<Secret> {
//!         (name == "alice").then(|| Secret::from_slice(b"wonderland"))
//!     }
//! }
//!
//! // A gateway takes these from `spi::ShortOps::random`.
//! let random: Random = Arc::new(|out: &mut [u8]| out.fill(7));
//!
//! let server = ServerConfig {
//!     name: "moon".into(),
//!     methods: vec![MethodKind::MsChapV2],
//!     inner: vec![],
//!     users: Arc::new(Alice),
//!     tls: None,
//!     ask_identity: true,
//!     allow_keyless: false,
//! };
//! let peer = PeerConfig {
//!     identity: "alice".into(),
//!     anonymous: None,
//!     password: Password::Known(Secret::from_slice(b"wonderland")),
//!     methods: vec![MethodKind::MsChapV2],
//!     inner: vec![],
//!     tls: None,
//!     allow_keyless: false,
//! };
//! // When the configuration is read: what is missing is said to the one who wrote it.
//! server.check()?;
//! peer.check()?;
//!
//! // The responder of IKEv2 knows what IDi says; `None` asks in any case.
//! let mut server = Server::new(Arc::new(server), None, Arc::clone(&random));
//! let mut peer = Peer::new(Arc::new(peer), random);
//! let mut step = server.receive(None);
//! let granted = loop {
//!     let packet = match step {
//!         Step::Send(packet) => packet,
//!         // The last packet, EAP-Success, goes out as well. Then MSK makes AUTH.
//!         Step::Accepted { packet: Some(packet), grant } => {
//!             let Step::Accepted { grant: theirs, .. } = peer.receive(Some(&packet)) else { panic!() };
//!             let (ours, theirs) = (grant.msk.as_ref().unwrap(), theirs.msk.unwrap());
//!             assert!(ours.ct_eq(theirs.expose()));
//!             break grant;
//!         }
//!         // `Refused` has EAP-Failure for the other side and a reason for the log; `Wait` has nothing to send: a packet
//!         // that has no place here, or a question to somebody else, after whose answer `poll` is called.
//!         _ => panic!(),
//!     };
//!     let Step::Send(response) = peer.receive(Some(&packet)) else { panic!() };
//!     step = server.receive(Some(&response));
//! };
//! assert_eq!(granted.identity, "alice");
//! # Ok::<(), String>(())
//! ```
//!
//! A verification of certificates is some milliseconds of the thread that calls [`Conversation::receive`].
#![forbid(unsafe_code)]

mod account;
mod ask;
mod avp;
mod config;
mod conversation;
mod eap_tls;
mod grant;
mod gtc;
mod judge;
mod md5;
mod method;
mod mschap;
mod mschapv2;
mod nested;
mod peap;
mod peap_binding;
mod peer;
mod server;
mod tls;
mod tls_peer;
mod tls_server;
mod ttls;

pub use config::{Answer, Inner, MethodKind, Password, PeerConfig, Prompt, Random, ServerConfig, Users};
pub use conversation::{Conversation, Step};
pub use grant::{Grant, Granted};
pub use judge::{Inquiry, Judge};
pub use peer::Peer;
pub use server::Server;
pub use tls::{Certificates, Clock, TlsClient, TlsServer, TlsVersions};
