//! IKE_SA_INIT (RFC 7296 section 1.2): what both sides do alike once a device has answered.

mod initiator;
mod responder;

pub(crate) use initiator::initiate;
pub(crate) use responder::{admit, send_stateless};

use ipc::Role;
use spi::{CryptoOutput, Group, Outcome, Secret};
use wire::ike::{Nonce, PayloadList};

use crate::core::{Core, DownKind, Op, Slot};
use crate::effect::Why;
use crate::keymat::{IkeKeys, IkeSuite, skeyseed};
use crate::sa::{IkeSa, State};

impl IkeSa {
    /// A job of IKE_SA_INIT is done.
    pub(crate) fn init_done(&mut self, cx: &mut Core, outcome: Outcome, output: CryptoOutput) {
        if let Some(setup) = &mut self.setup {
            setup.crypto = None;
        }
        match (self.state, self.role, outcome, output) {
            (State::ExpectKeyPair, _, Outcome::Done, CryptoOutput::DhPair(private, public)) => {
                let Some(setup) = &mut self.setup else { return };
                setup.private = Some(private);
                setup.public = public;
                match self.role {
                    Role::Initiator => self.send_init_request(cx),
                    Role::Responder => self.derive_init_secret(cx),
                }
            }
            // The responder's half of a KEM gives both at once.
            (
                State::ExpectKeyPair,
                Role::Responder,
                Outcome::Done,
                CryptoOutput::Encapsulated(public, secret),
            ) => {
                let Some(setup) = &mut self.setup else { return };
                setup.public = public;
                self.derive_ike_keys(cx, &secret);
            }
            (State::ExpectSecret, _, Outcome::Done, CryptoOutput::Secret(secret)) => {
                self.derive_ike_keys(cx, &secret)
            }
            (_, _, Outcome::Rejected(reject), _) => {
                // RFC 6989 section 2: a bad public value ends the exchange, without an answer to somebody unauthenticated.
                let why = format!("KE payload: {reject}");
                self.close(cx, DownKind::Failed, Why::PeerMisbehaved(why));
            }
            (_, _, Outcome::Failed(fault), _) => {
                self.close(cx, DownKind::Failed, Why::Device(format!("key exchange: {fault}")));
            }
            _ => self.close(
                cx,
                DownKind::Failed,
                Why::Device("key exchange: the device gave something else".into()),
            ),
        }
    }

    /// Combines both public values.
    pub(super) fn derive_init_secret(&mut self, cx: &mut Core) {
        let id = self.id;
        self.state = State::ExpectSecret;
        let Some(setup) = &mut self.setup else { return };
        let Some(ours) = setup.private.take() else { return };
        let op = Op::Derive { group: setup.group, ours, theirs: setup.peer_public.clone() };
        setup.crypto = cx.submit(id, Slot::Init, op);
        if setup.crypto.is_none() {
            self.close(cx, DownKind::Failed, Why::Device("too many key exchanges are under way".into()));
        }
    }

    fn derive_ike_keys(&mut self, cx: &mut Core, secret: &Secret) {
        let Some(suite) = self.suite else { return };
        let Some(setup) = &self.setup else { return };
        let keys = skeyseed(&*cx.ops, suite.prf, &setup.ni, &setup.nr, secret).and_then(|seed| {
            IkeKeys::derive(&*cx.ops, &suite, &seed, &setup.ni, &setup.nr, self.spi_i, self.spi_r)
        });
        match keys {
            Ok(keys) => {
                self.take_keys(cx, suite, keys);
                match self.role {
                    Role::Initiator => self.begin_auth(cx),
                    Role::Responder => self.send_init_response(cx),
                }
            }
            Err(fault) => self.close(cx, DownKind::Failed, Why::Device(format!("key schedule: {fault}"))),
        }
    }

    /// Starts making our public value, or, as responder of a KEM, the ciphertext.
    pub(super) fn begin_key_exchange(&mut self, cx: &mut Core) -> bool {
        let id = self.id;
        self.state = State::ExpectKeyPair;
        let Some(setup) = &mut self.setup else { return false };
        let op = key_exchange_op(self.role, setup.group, &setup.peer_public);
        setup.crypto = cx.submit(id, Slot::Init, op);
        setup.crypto.is_some()
    }
}

/// The first job of one side of a key exchange.
pub(crate) fn key_exchange_op(role: Role, group: Group, theirs: &[u8]) -> Op {
    use spi::alg::GroupKind;
    match (role, group.info().map(|i| i.kind)) {
        (Role::Responder, Some(GroupKind::Kem)) => Op::Encapsulate { group, theirs: theirs.to_vec() },
        _ => Op::Generate(group),
    }
}

/// Whether KE data has the length the group wants from this side (RFC 7296 section 3.4).
pub(crate) fn ke_len_fits(group: Group, from: Role, data: &[u8]) -> bool {
    group
        .info()
        .is_some_and(|i| data.len() == if from == Role::Initiator { i.public_len } else { i.response_len })
}

/// Whether a nonce is long enough for the PRF: at least half its key (RFC 7296 section 2.10); the parser has checked 16 to 256.
pub(crate) fn nonce_fits(suite: &IkeSuite, nonce: &[u8]) -> bool {
    suite.prf.info().is_some_and(|i| nonce.len() >= (i.key_len / 2).max(16))
}

/// The nonce of a message.
pub(crate) fn nonce_of(payloads: &[wire::ike::Payload]) -> Option<Vec<u8>> {
    payloads.nonce().map(|Nonce(octets)| octets.clone())
}
