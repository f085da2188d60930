//! EAP-GTC (RFC 3748 section 5.6): the server asks, the peer says its password as it is. Inside a tunnel only, unless
//! somebody allowed it.

use std::sync::Arc;

use crate::account::{Account, printable};
use crate::ask::{Given, given};
use crate::config::{PeerConfig, Random, ServerConfig};
use crate::method::{PeerMethod, Proof, Reply, ServerMethod, Turn};

const NAME: &str = "EAP-GTC";
/// Octets of a password that are looked at.
pub(crate) const MAX_PASSWORD: usize = 1024;

/// The server's side.
pub(crate) struct GtcServer {
    config: Arc<ServerConfig>,
    claimed: String,
    random: Random,
}

impl GtcServer {
    pub(crate) fn new(config: Arc<ServerConfig>, claimed: Option<String>, random: Random) -> Self {
        GtcServer { config, claimed: claimed.unwrap_or_default(), random }
    }
}

impl ServerMethod for GtcServer {
    fn begin(&mut self, _: u8) -> Turn {
        Turn::Ask(b"Password:".to_vec())
    }

    fn receive(&mut self, data: &[u8], _: u8) -> Turn {
        if data.is_empty() || data.len() > MAX_PASSWORD {
            return Turn::Ignore;
        }
        let account = Account::find(&*self.config.users, &self.random, Some(&self.claimed));
        if account.is_password(data) {
            let identity = std::mem::take(&mut self.claimed);
            return Turn::Accept(Proof { identity, method: NAME.into(), msk: None });
        }
        Turn::Refuse(account.refusal(self.claimed.as_bytes()))
    }
}

/// The peer's side.
pub(crate) struct GtcPeer {
    config: Arc<PeerConfig>,
    /// What was asked and not answered yet.
    asked: Option<String>,
    answered: bool,
}

impl GtcPeer {
    pub(crate) fn new(config: Arc<PeerConfig>) -> Self {
        GtcPeer { config, asked: None, answered: false }
    }
}

impl PeerMethod for GtcPeer {
    fn receive(&mut self, data: &[u8], _: u8) -> Reply {
        self.asked = Some(printable(data));
        self.poll()
    }

    fn poll(&mut self) -> Reply {
        let Some(question) = &self.asked else { return Reply::Wait };
        let password = match given(&self.config, Some(question)) {
            Given::Now(password) => password,
            Given::Later => return Reply::Wait,
            Given::Never(why) => return Reply::Fail(None, why),
        };
        self.asked = None;
        self.answered = true;
        Reply::Answer(password.expose().to_vec())
    }

    fn succeed(&self) -> Option<Result<Proof, String>> {
        let proof = Proof { identity: self.config.identity.clone(), method: NAME.into(), msk: None };
        self.answered.then_some(Ok(proof))
    }
}
