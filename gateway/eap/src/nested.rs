//! EAP inside a tunnel: the same conversations once more, with the methods that are allowed in there. No key is needed,
//! since the tunnel has one.

use std::sync::Arc;

use spi::Secret;
use zeroize::Zeroizing;

use crate::config::{Inner, MethodKind, PeerConfig, Random, ServerConfig};
use crate::conversation::{Conversation, Step};
use crate::grant::Grant;
use crate::method::Proof;
use crate::peer::Peer;
use crate::server::Server;

/// What a conversation inside came to.
pub(crate) enum Said {
    /// A packet for the other side.
    Packet(Zeroizing<Vec<u8>>),
    /// Nothing to say.
    Nothing,
    /// The peer is who it says.
    Accepted { identity: String, method: String, msk: Option<Secret> },
    /// It failed.
    Refused(String),
}

impl From<Step> for Said {
    fn from(step: Step) -> Self {
        match step {
            Step::Wait => Said::Nothing,
            Step::Send(packet) => Said::Packet(Zeroizing::new(packet)),
            Step::Accepted { grant, .. } => {
                let Grant { identity, method, msk, .. } = *grant;
                Said::Accepted { identity, method, msk }
            }
            Step::Refused { why, .. } => Said::Refused(why),
        }
    }
}

/// The server's side.
pub(crate) struct NestedServer(Server);

impl NestedServer {
    /// `None` if no method is allowed inside.
    pub(crate) fn new(outer: &ServerConfig, random: &Random) -> Option<Self> {
        let methods = methods(&outer.inner);
        if methods.is_empty() {
            return None;
        }
        let config = ServerConfig {
            name: outer.name.clone(),
            methods,
            inner: Vec::new(),
            users: Arc::clone(&outer.users),
            tls: None,
            ask_identity: true,
            allow_keyless: true,
        };
        Some(NestedServer(Server::new(Arc::new(config), None, Arc::clone(random))))
    }

    /// Takes a packet of the peer, or begins.
    pub(crate) fn receive(&mut self, packet: Option<&[u8]>) -> Said {
        self.0.receive(packet).into()
    }

    /// Why the peer is refused already.
    pub(crate) fn failed(&self) -> Option<String> {
        self.0.failed()
    }

    /// The identifier of the request that is out.
    pub(crate) fn id(&self) -> u8 {
        self.0.id()
    }

    /// Has the next request bear this identifier.
    pub(crate) fn set_next_id(&mut self, id: u8) {
        self.0.set_next_id(id);
    }
}

/// The peer's side.
pub(crate) struct NestedPeer(Peer);

impl NestedPeer {
    pub(crate) fn new(outer: &PeerConfig, random: &Random) -> Self {
        let config = PeerConfig {
            identity: outer.identity.clone(),
            anonymous: None,
            password: outer.password.duplicate(),
            methods: methods(&outer.inner),
            inner: Vec::new(),
            tls: None,
            allow_keyless: true,
        };
        NestedPeer(Peer::new(Arc::new(config), Arc::clone(random)))
    }

    /// Our identity, that nobody asked for.
    pub(crate) fn introduction(&self) -> Option<Vec<u8>> {
        self.0.introduction()
    }

    /// Takes a packet of the server.
    pub(crate) fn receive(&mut self, packet: &[u8]) -> Said {
        self.0.receive(Some(packet)).into()
    }

    /// Goes on when there may be a password.
    pub(crate) fn poll(&mut self) -> Said {
        self.0.poll().into()
    }

    /// Why we have given up, if we have.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.0.lost()
    }

    /// What the method proved, if the server may call it a success now.
    pub(crate) fn content(&self) -> Option<Proof> {
        self.0.content()
    }
}

fn methods(inner: &[Inner]) -> Vec<MethodKind> {
    let eap = |inner: &Inner| match inner {
        Inner::Eap(kind) if !kind.needs_tls() => Some(*kind),
        _ => None,
    };
    inner.iter().filter_map(eap).collect()
}
