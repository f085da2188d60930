//! The engine: what goes in and what comes out. Everything else of this crate hangs below.

use std::sync::Arc;
use std::time::Instant;

use ipc::Reply;
use policy::Realm;
use spi::{CryptoDone, ShortOps, Token};

use crate::config::Config;
use crate::effect::{Command, CommandId, Effect, EspSignal, Path};
use crate::status::Status;

/// All IKE SAs of one gateway. Every call may append to `fx`; the caller carries the effects out in their order.
pub struct Engine {
    config: Config,
    ops: Arc<dyn ShortOps>,
    now: Instant,
}

impl Engine {
    /// An engine without any SA. Nothing happens before [`start`](Engine::start) or the first datagram.
    pub fn new(config: Config, short: Arc<dyn ShortOps>, now: Instant) -> Engine {
        Engine { config, ops: short, now }
    }

    /// Brings up what is to be up by itself: realms and children with `start = boot`.
    pub fn start(&mut self, now: Instant, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Takes an IKE message; a non-ESP marker is removed already, and `natt` says whether there was one (RFC 3948 section
    /// 2.2).
    pub fn handle_datagram(&mut self, now: Instant, _path: Path, _message: &[u8], _natt: bool, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Takes the completion of an [`Effect::Crypto`]. Late, doubled and invented ones are counted and ignored.
    pub fn handle_crypto(&mut self, now: Instant, _done: CryptoDone, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Takes the answer to an [`Effect::Ask`].
    pub fn handle_reply(&mut self, now: Instant, _token: Token, _reply: Reply, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Takes a signal of the data path.
    pub fn handle_esp(&mut self, now: Instant, _signal: EspSignal, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Takes a command; [`Effect::Answer`] follows when it is done.
    pub fn handle_command(&mut self, now: Instant, _id: CommandId, _command: Command, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// Does what is due. Call it at or after [`poll_timeout`](Engine::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant, _fx: &mut Vec<Effect>) {
        self.now = now;
    }

    /// When [`handle_timeout`](Engine::handle_timeout) has something to do; changes with every call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Jobs the crypto queue would take now: the load signal for COOKIE.
    pub fn set_crypto_room(&mut self, _room: usize) {}

    /// Puts other realms in the place of the present ones. SAs of realms that did not change stay up; those of changed and
    /// vanished ones are deleted; what is to be up by itself comes up.
    pub fn reload(&mut self, now: Instant, realms: Vec<Arc<Realm>>, _fx: &mut Vec<Effect>) {
        self.now = now;
        self.config.realms = realms;
    }

    /// Hashes of the CAs of a realm, for CERTREQ.
    pub fn set_authorities(&mut self, realm: &str, authorities: Vec<[u8; 20]>) {
        self.config.authorities.insert(realm.to_owned(), authorities);
    }

    /// What is there, for people.
    pub fn status(&self) -> Status {
        let _ = &self.ops;
        Status::default()
    }
}
