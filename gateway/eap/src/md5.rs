//! EAP-MD5-Challenge (RFC 3748 section 5.4, RFC 1994): the peer proves a password, nobody proves anything to the peer,
//! and there is no key. Inside a tunnel only, unless somebody allowed it.

use std::sync::Arc;

use md5::{Digest, Md5};
use spi::Secret;
use subtle::ConstantTimeEq;

use crate::account::{Account, MAX_NAME};
use crate::ask::{Given, given};
use crate::config::{PeerConfig, Random, ServerConfig};
use crate::method::{PeerMethod, Proof, Reply, ServerMethod, Turn};

const NAME: &str = "EAP-MD5";

/// The server's side.
pub(crate) struct Md5Server {
    name: String,
    claimed: String,
    account: Account,
    challenge: [u8; 16],
    id: u8,
}

impl Md5Server {
    pub(crate) fn new(config: Arc<ServerConfig>, claimed: Option<String>, random: &Random) -> Self {
        let mut challenge = [0; 16];
        random(&mut challenge);
        let account = Account::find(&*config.users, random, claimed.as_deref());
        let claimed = claimed.unwrap_or_default();
        Md5Server { name: config.name.clone(), claimed, account, challenge, id: 0 }
    }
}

impl ServerMethod for Md5Server {
    fn begin(&mut self, id: u8) -> Turn {
        self.id = id;
        Turn::Ask(packet(&self.challenge, self.name.as_bytes()))
    }

    fn receive(&mut self, data: &[u8], _: u8) -> Turn {
        let Some((value, _)) = split(data).filter(|(value, _)| value.len() == 16) else {
            return Turn::Ignore;
        };
        let ours = hash(self.id, self.account.password(), &self.challenge);
        if self.account.admits(ours.ct_eq(value)) {
            let identity = std::mem::take(&mut self.claimed);
            return Turn::Accept(Proof { identity, method: NAME.into(), msk: None });
        }
        Turn::Refuse(self.account.refusal(self.claimed.as_bytes()))
    }
}

/// The peer's side.
pub(crate) struct Md5Peer {
    config: Arc<PeerConfig>,
    /// What was not answered yet: identifier and challenge.
    asked: Option<(u8, Vec<u8>)>,
    answered: bool,
}

impl Md5Peer {
    pub(crate) fn new(config: Arc<PeerConfig>) -> Self {
        Md5Peer { config, asked: None, answered: false }
    }
}

impl PeerMethod for Md5Peer {
    fn receive(&mut self, data: &[u8], id: u8) -> Reply {
        let Some((challenge, _)) = split(data).filter(|(value, _)| !value.is_empty()) else {
            return Reply::Ignore;
        };
        self.asked = Some((id, challenge.to_vec()));
        self.poll()
    }

    fn poll(&mut self) -> Reply {
        let Some((id, challenge)) = &self.asked else { return Reply::Wait };
        let value = match given(&self.config, None) {
            Given::Now(password) => hash(*id, &password, challenge),
            Given::Later => return Reply::Wait,
            Given::Never(why) => return Reply::Fail(None, why),
        };
        self.asked = None;
        self.answered = true;
        Reply::Answer(packet(&value, self.config.identity.as_bytes()))
    }

    fn succeed(&self) -> Option<Result<Proof, String>> {
        let proof = Proof { identity: self.config.identity.clone(), method: NAME.into(), msk: None };
        self.answered.then_some(Ok(proof))
    }
}

fn hash(id: u8, password: &Secret, challenge: &[u8]) -> [u8; 16] {
    Md5::new().chain_update([id]).chain_update(password.expose()).chain_update(challenge).finalize().into()
}

fn packet(value: &[u8; 16], name: &[u8]) -> Vec<u8> {
    let mut out = vec![16];
    out.extend_from_slice(value);
    out.extend_from_slice(name.get(..MAX_NAME).unwrap_or(name));
    out
}

fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = data.split_first()?;
    rest.split_at_checked(usize::from(*size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_that_of_chap() {
        // Calculated with `printf '\x05password0123456789abcdef' | md5sum`.
        let value = hash(5, &Secret::from_slice(b"password"), b"0123456789abcdef");
        let digits: String = value.iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(digits, "93bf4c8aca204bbb1b6929c622034320");
    }
}
