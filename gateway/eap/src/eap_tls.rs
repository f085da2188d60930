//! EAP-TLS (type 13, RFC 5216, RFC 9190): the handshake is all of it. In TLS 1.3 the server says with one octet of 0 that
//! nothing of its own follows, and a peer believes no success before.

use std::sync::Arc;

use crate::config::PeerConfig;
use crate::method::Found;
use crate::tls::{Channel, names};
use crate::tls_peer::{Inner, Next};
use crate::tls_server::{Inside, Within};

/// RFC 9190 section 2.5.
const PROTECTED_SUCCESS: [u8; 1] = [0];

/// The server's side, after the handshake.
pub(crate) struct TlsInside {
    claimed: Option<String>,
}

impl TlsInside {
    pub(crate) fn new(claimed: Option<String>) -> Self {
        TlsInside { claimed }
    }

    /// Who the certificate is for. Of several names it is the one the peer said, else the first; what the peer said
    /// and the certificate does not counts for nothing.
    fn accept(&self, channel: &Channel) -> Within {
        let mut names = channel.certificate().map(names).unwrap_or_default();
        let claimed = self.claimed.as_ref();
        let at = names.iter().position(|name| Some(name) == claimed).unwrap_or(0);
        if at < names.len() {
            return Within::Accept(Found { identity: names.swap_remove(at), inner: None, msk: None });
        }
        Within::Refuse("the peer's certificate has no name".into())
    }
}

impl Inside for TlsInside {
    fn begin(&mut self, channel: &Channel, _: u8) -> Within {
        if channel.is_tls13() { Within::Write(PROTECTED_SUCCESS.to_vec()) } else { self.accept(channel) }
    }

    fn receive(&mut self, plain: &[u8], channel: &Channel, _: u8) -> Within {
        if plain.is_empty() {
            self.accept(channel)
        } else {
            Within::Refuse("data after the handshake".into())
        }
    }
}

/// The peer's side, after the handshake.
pub(crate) struct TlsWithin {
    config: Arc<PeerConfig>,
    done: bool,
}

impl TlsWithin {
    pub(crate) fn new(config: Arc<PeerConfig>) -> Self {
        TlsWithin { config, done: false }
    }
}

impl Inner for TlsWithin {
    fn begin(&mut self, channel: &Channel) -> Next {
        self.done = !channel.is_tls13();
        Next::Listen
    }

    fn receive(&mut self, plain: &[u8], _: u8, _: &Channel) -> Next {
        if plain == PROTECTED_SUCCESS && !self.done {
            self.done = true;
        } else if !plain.is_empty() {
            return Next::Fail(None, "the server sent data after the handshake".into());
        }
        Next::Listen
    }

    fn succeed(&self) -> Option<Found> {
        self.done.then(|| Found { identity: self.config.identity.clone(), inner: None, msk: None })
    }
}
