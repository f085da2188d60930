//! CREATE_CHILD_SA as responder: a new child, or the rekeying of one.
//!
//! After a rekey we go on sending through the old child: the initiator has the new one only when our response has arrived.
//! Its first packet on the new child, or its Delete of the old one, is the sign to switch; so no packet meets a peer that
//! does not know the SA.

use std::time::Duration;

use ipc::Role;
use spi::{CryptoOutput, DhPrivate, Group, Outcome, Secret, Token};
use wire::ike::{Ke, Nonce, Notify, Payload, PayloadList};
use wire::numbers::{ExchangeType, KeId, NotifyType, ProtocolId};

use super::{Choice, Ours, Progress, Theirs};
use crate::child::{ChildState, Entry};
use crate::core::{Core, DownKind, Op, Slot, Timer};
use crate::effect::{ChildId, Why};
use crate::init::{ke_len_fits, key_exchange_op};
use crate::sa::IkeSa;
use crate::select;

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
/// How long a child beside another waits for the peer's first packet: an answer that was lost has come a second time by then.
const GRANTED: Duration = Duration::from_secs(3);

/// The peer's exchange for a child, while a device works for it.
pub(crate) struct TheirChild {
    pub(crate) choice: Choice,
    /// The child being rekeyed.
    pub(crate) rekeys: Option<ChildId>,
    pub(crate) token: Option<Token>,
    request_id: u32,
    ni: Vec<u8>,
    nr: Vec<u8>,
    group: Option<Group>,
    public: Vec<u8>,
    peer_public: Vec<u8>,
}

impl IkeSa {
    pub(super) fn handle_child_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        // RFC 7296 section 2.25.2: nothing new on an SA we are replacing.
        if matches!(self.ours, Some(Ours::Rekey(_) | Ours::DeleteIke(..))) {
            return self.respond_error(cx, EXCHANGE, id, Notify::new(NotifyType::TEMPORARY_FAILURE));
        }
        if message.ts_i().is_none() || message.ts_r().is_none() {
            return self.refuse_syntax(cx, EXCHANGE, id, "no TSi or TSr");
        }
        let rekeys = match message.notify(NotifyType::REKEY_SA) {
            None => None,
            Some(notify) => match self.child_to_rekey(notify) {
                Ok(child) => Some(child),
                Err(refusal) => return self.respond_error(cx, EXCHANGE, id, refusal),
            },
        };
        let choice = match self.choose_child(cx, &message, rekeys, true) {
            Ok(choice) => choice,
            Err(refused) => {
                self.respond_error(cx, EXCHANGE, id, refused.notify.clone());
                return match refused.notify.kind {
                    NotifyType::TS_MAX_QUEUE => self.note_refused(cx, refused),
                    _ => self.child_failed(cx, refused.name, refused.why, false),
                };
            }
        };
        let group = choice.agreed.suite.group;
        let ke = message.ke();
        if let Some(group) = group {
            if ke.is_none_or(|ke| ke.method.0 != group.0) {
                cx.free_esp_spi(choice.agreed.spi_in);
                return self.respond_error(cx, EXCHANGE, id, select::invalid_ke(group));
            }
            if !ke.is_some_and(|ke| ke_len_fits(group, Role::Initiator, &ke.data)) {
                cx.free_esp_spi(choice.agreed.spi_in);
                return self.refuse_syntax(cx, EXCHANGE, id, "KE payload of the wrong length");
            }
        }
        let Some(Nonce(ni)) = message.nonce() else { return };
        let mut theirs = Box::new(TheirChild {
            choice,
            rekeys,
            token: None,
            request_id: id,
            ni: ni.clone(),
            nr: cx.nonce(),
            group,
            public: Vec::new(),
            peer_public: ke.map(|ke| ke.data.clone()).unwrap_or_default(),
        });
        let Some(group) = group else { return self.finish_their_child(cx, theirs, None) };
        theirs.token =
            cx.submit(self.id, Slot::Theirs, key_exchange_op(Role::Responder, group, &theirs.peer_public));
        if theirs.token.is_none() {
            return self.refuse_their_child(cx, &theirs, NotifyType::TEMPORARY_FAILURE);
        }
        self.theirs = Some(Theirs::Child(theirs));
    }

    /// The child a REKEY_SA speaks of: the SPI is the one of packets to the peer.
    fn child_to_rekey(&self, notify: &Notify) -> Result<ChildId, Notify> {
        // A protocol that is not ESP, or an SPI of another length, names nothing of ours.
        let named = notify.child_spi().filter(|(protocol, _)| *protocol == ProtocolId::ESP);
        let child = named.and_then(|(_, spi)| self.child_by_peer_spi(spi));
        match child.and_then(|id| Some((id, self.children.get(id)?))) {
            // It may be the one that the response on its way to us is about.
            None if matches!(self.ours, Some(Ours::Child(_))) => {
                Err(Notify::new(NotifyType::TEMPORARY_FAILURE))
            }
            None => Err(Notify {
                protocol: notify.protocol,
                kind: NotifyType::CHILD_SA_NOT_FOUND,
                spi: notify.spi.clone(),
                data: Vec::new(),
            }),
            Some((id, child)) if child.state == ChildState::Installed => Ok(id),
            // RFC 7296 sections 2.8.1 and 2.25.1: one that we are about to delete.
            Some(_) => Err(Notify::new(NotifyType::TEMPORARY_FAILURE)),
        }
    }

    pub(super) fn their_child_done(
        &mut self,
        cx: &mut Core,
        mut theirs: Box<TheirChild>,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        theirs.token = None;
        match (outcome, output) {
            (Outcome::Done, CryptoOutput::DhPair(private, public)) => {
                theirs.public = public;
                self.derive_their_secret(cx, theirs, private);
            }
            (Outcome::Done, CryptoOutput::Encapsulated(public, secret)) => {
                theirs.public = public;
                self.finish_their_child(cx, theirs, Some(&secret));
            }
            (Outcome::Done, CryptoOutput::Secret(secret)) => {
                self.finish_their_child(cx, theirs, Some(&secret))
            }
            (Outcome::Rejected(reject), _) => {
                // RFC 6989 section 2: in CREATE_CHILD_SA it is answered, with INVALID_SYNTAX.
                cx.free_esp_spi(theirs.choice.agreed.spi_in);
                self.refuse_syntax(cx, EXCHANGE, theirs.request_id, &format!("KE payload: {reject}"));
            }
            _ => self.refuse_their_child(cx, &theirs, NotifyType::TEMPORARY_FAILURE),
        }
    }

    fn derive_their_secret(&mut self, cx: &mut Core, mut theirs: Box<TheirChild>, private: DhPrivate) {
        let Some(group) = theirs.group else { return };
        let op = Op::Derive { group, ours: private, theirs: theirs.peer_public.clone() };
        theirs.token = cx.submit(self.id, Slot::Theirs, op);
        match theirs.token {
            None => self.refuse_their_child(cx, &theirs, NotifyType::TEMPORARY_FAILURE),
            Some(_) => self.theirs = Some(Theirs::Child(theirs)),
        }
    }

    fn refuse_their_child(&mut self, cx: &mut Core, theirs: &TheirChild, kind: NotifyType) {
        cx.free_esp_spi(theirs.choice.agreed.spi_in);
        self.respond_error(cx, EXCHANGE, theirs.request_id, Notify::new(kind));
    }

    fn finish_their_child(&mut self, cx: &mut Core, theirs: Box<TheirChild>, g_ir: Option<&Secret>) {
        // While the device worked, the child to be rekeyed may have gone, or the one beside which it is to be.
        let gone = |old| self.children.get(old).is_none_or(|c| c.state != ChildState::Installed);
        if theirs.rekeys.is_some_and(gone) || !self.is_place_good(theirs.choice.agreed.place) {
            return self.refuse_their_child(cx, &theirs, NotifyType::TEMPORARY_FAILURE);
        }
        let Some(keys) = self.child_keys(cx, &theirs.choice.agreed.suite, g_ir, &theirs.ni, &theirs.nr)
        else {
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        let ke = theirs.group.map(|group| Ke::new(KeId(group.0), theirs.public.clone()));
        let payloads = theirs.choice.payloads(Some((&theirs.nr, ke)));
        // Where another child serves meanwhile, the peer shows first that it has the new one.
        let outbound = theirs.rekeys.is_none() && theirs.choice.agreed.place.resource().is_none();
        let entry = Entry { initiator: false, replaces: theirs.rekeys, outbound };
        // Installed before the response leaves, so that the first packet through it finds it.
        let new = self.install_child(cx, theirs.choice.agreed, keys, entry);
        self.respond(cx, EXCHANGE, theirs.request_id, &payloads);
        if !outbound && theirs.rekeys.is_none() {
            cx.arm(Timer::Granted(new), GRANTED);
        }
        let Some(old) = theirs.rekeys else { return };
        if let Some(child) = self.children.get_mut(old) {
            child.state = ChildState::Replaced;
            cx.disarm(Timer::RekeyChild(old));
        }
        match &mut self.ours {
            Some(Ours::Child(ours)) if ours.rekeys == Some(old) => {
                if ours.progress == Progress::ExpectKeyPair {
                    // Nothing of ours was sent: there is no collision.
                    self.cancel_ours(cx);
                } else {
                    ours.collision = Some((new, theirs.ni.min(theirs.nr)));
                }
            }
            _ => {}
        }
    }
}
