//! CREATE_CHILD_SA as initiator: a new child, or the rekeying of one (RFC 7296 sections 1.3.1, 1.3.3, 2.8).
//!
//! The side that rekeys switches at once: when the response is in, packets go through the new child and a Delete of the old
//! one follows. When both sides rekey the same child at the same time, the pair with the lowest of the four nonces goes, and
//! its maker deletes it (section 2.8.1).

use std::time::Duration;

use ipc::Role;
use spi::{CryptoOutput, DhPrivate, Group, Outcome, Secret, Token};
use wire::ike::{Ke, Nonce, Notify, Payload, PayloadList};
use wire::numbers::{ExchangeType, KeId, NotifyType, ProtocolId};

use super::Ours;
use crate::child::{Agreed, ChildOffer, ChildState, Entry, REDUNDANT, selectors_text};
use crate::core::{Core, DownKind, Op, Slot, Timer};
use crate::effect::{ChildId, Why};
use crate::init::ke_len_fits;
use crate::narrow;
use crate::sa::{IkeSa, Wanted};
use crate::select;
use crate::tasks::Task;

/// Times an exchange is begun anew for another group or narrower selectors.
const MAX_RESTARTS: u8 = 3;

/// Wait after TEMPORARY_FAILURE before trying again; up to as much again at random, so that two sides fall out of step
/// (RFC 7296 section 2.25).
pub(crate) const TEMPORARY: Duration = Duration::from_secs(5);

/// Wait after a failed rekey; the old child carries traffic meanwhile.
const REKEY_AGAIN: Duration = Duration::from_secs(30);

/// What our exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "states say what is awaited")]
pub(crate) enum Progress {
    /// Our public value; nothing was sent yet.
    ExpectKeyPair,
    ExpectResponse,
    /// The shared secret.
    ExpectSecret,
}

/// Our exchange for a child.
pub(crate) struct OurChild {
    pub(crate) offer: ChildOffer,
    /// The child being rekeyed.
    pub(crate) rekeys: Option<ChildId>,
    pub(crate) progress: Progress,
    pub(crate) token: Option<Token>,
    /// The child the peer made by rekeying the same one meanwhile, and the lower nonce of its exchange.
    pub(crate) collision: Option<(ChildId, Vec<u8>)>,
    /// SPIs the peer deleted before we had its response: it may be this child already.
    pub(crate) deleted: Vec<u32>,
    ni: Vec<u8>,
    nr: Vec<u8>,
    group: Option<Group>,
    private: Option<DhPrivate>,
    public: Vec<u8>,
    agreed: Option<Agreed>,
    restarts: u8,
}

impl OurChild {
    /// Whether it is a child that was not there in any form.
    pub(crate) fn is_new(&self) -> bool {
        self.rekeys.is_none() && self.offer.place.fallback.is_none()
    }

    /// A child has taken the place of another, beside which this one is to be.
    pub(crate) fn move_beside(&mut self, old: ChildId, new: ChildId) {
        for place in std::iter::once(&mut self.offer.place).chain(self.agreed.as_mut().map(|a| &mut a.place))
        {
            place.move_beside(old, new);
        }
    }
}

impl IkeSa {
    /// Begins the exchange for a new child, or for the rekeying of one.
    pub(crate) fn begin_child(&mut self, cx: &mut Core, wanted: Wanted, rekeys: Option<ChildId>) {
        let place = rekeys.and_then(|id| self.children.get(id)).map(|old| old.place);
        let mut offer = match self.offer_child(cx, wanted, true, place) {
            Ok(offer) => offer,
            Err((name, why)) => return self.child_failed(cx, name, why, false),
        };
        if let Some(old) = rekeys.and_then(|id| self.children.get(id)) {
            // RFC 7296 section 2.9.2: no narrower than what is in use.
            offer.selectors = old.selectors.clone();
            offer.mode = old.mode;
        }
        let group = self.child_policy(&offer.wanted.name).and_then(|c| select::first_esp_group(&c.esp));
        self.begin_child_exchange(cx, offer, rekeys, group);
    }

    /// The same, when what is offered is known.
    pub(crate) fn begin_child_exchange(
        &mut self,
        cx: &mut Core,
        offer: ChildOffer,
        rekeys: Option<ChildId>,
        group: Option<Group>,
    ) {
        let ours = Box::new(OurChild {
            offer,
            rekeys,
            progress: Progress::ExpectKeyPair,
            token: None,
            collision: None,
            deleted: Vec::new(),
            ni: cx.nonce(),
            nr: Vec::new(),
            group,
            private: None,
            public: Vec::new(),
            agreed: None,
            restarts: 0,
        });
        self.begin_our_key_exchange(cx, ours);
    }

    fn begin_our_key_exchange(&mut self, cx: &mut Core, mut ours: Box<OurChild>) {
        let Some(group) = ours.group else { return self.send_child_request(cx, ours) };
        ours.progress = Progress::ExpectKeyPair;
        ours.token = cx.submit(self.id, Slot::Ours, Op::Generate(group));
        if ours.token.is_none() {
            return self.our_child_failed(
                cx,
                ours,
                Why::Device("too many key exchanges are under way".into()),
                true,
            );
        }
        self.ours = Some(Ours::Child(ours));
    }

    fn send_child_request(&mut self, cx: &mut Core, mut ours: Box<OurChild>) {
        let mut payloads: Vec<Payload> = Vec::new();
        if let Some(id) = ours.rekeys {
            // It may be gone since the exchange began.
            let Some(old) = self.children.get(id).filter(|c| c.state == ChildState::Installed) else {
                return cx.free_esp_spi(ours.offer.spi_in);
            };
            payloads.push(Notify::rekey_sa(ProtocolId::ESP, old.spi_in).into());
        }
        payloads.extend(ours.offer.payloads());
        payloads.push(Nonce(ours.ni.clone()).into());
        if let Some(group) = ours.group {
            payloads.push(Ke::new(KeId(group.0), ours.public.clone()).into());
        }
        ours.progress = Progress::ExpectResponse;
        self.ours = Some(Ours::Child(ours));
        self.send_request(cx, ExchangeType::CREATE_CHILD_SA, &payloads);
    }

    /// A job of the exchange is done.
    pub(super) fn our_child_done(
        &mut self,
        cx: &mut Core,
        mut ours: Box<OurChild>,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        ours.token = None;
        match (ours.progress, outcome, output) {
            (Progress::ExpectKeyPair, Outcome::Done, CryptoOutput::DhPair(private, public)) => {
                ours.private = Some(private);
                ours.public = public;
                self.send_child_request(cx, ours);
            }
            (Progress::ExpectSecret, Outcome::Done, CryptoOutput::Secret(secret)) => {
                self.finish_our_child(cx, ours, Some(&secret));
            }
            (progress, outcome, _) => {
                let made = progress == Progress::ExpectSecret;
                let why = match outcome {
                    Outcome::Rejected(reject) => Why::PeerMisbehaved(format!("KE payload: {reject}")),
                    Outcome::Failed(fault) => Why::Device(format!("key exchange: {fault}")),
                    _ => Why::Device("key exchange: the device gave something else".into()),
                };
                self.our_child_unusable(cx, ours, why, made);
            }
        }
    }

    pub(super) fn handle_child_response(
        &mut self,
        cx: &mut Core,
        mut ours: Box<OurChild>,
        message: Vec<Payload>,
    ) {
        if message.sa().is_none()
            && let Some(error) = message.error_notify()
        {
            return self.handle_child_error(cx, ours, &error.clone());
        }
        let agreed = match self.check_child_answer(cx, &ours.offer, &message) {
            // RFC 9611 section 4: one that is rekeyed stays where it was, whatever is said.
            Ok(agreed) if ours.rekeys.is_some() => Agreed { place: ours.offer.place, ..agreed },
            Ok(agreed) => agreed,
            Err(failure) => return self.our_child_unusable(cx, ours, failure.why, failure.made),
        };
        let Some(Nonce(nr)) = message.nonce() else {
            return self.our_child_unusable(
                cx,
                ours,
                Why::PeerMisbehaved("response without a nonce".into()),
                true,
            );
        };
        ours.nr = nr.clone();
        let Some(group) = agreed.suite.group else {
            ours.agreed = Some(agreed);
            return self.finish_our_child(cx, ours, None);
        };
        let ke = message.ke().filter(|ke| {
            ke.method.0 == group.0
                && ours.group == Some(group)
                && ke_len_fits(group, Role::Responder, &ke.data)
        });
        let (Some(ke), Some(private)) = (ke, ours.private.take()) else {
            let why = Why::PeerMisbehaved(format!("no KE payload for {group}, which was chosen"));
            return self.our_child_unusable(cx, ours, why, true);
        };
        ours.agreed = Some(agreed);
        ours.progress = Progress::ExpectSecret;
        let op = Op::Derive { group, ours: private, theirs: ke.data.clone() };
        ours.token = cx.submit(self.id, Slot::Ours, op);
        if ours.token.is_none() {
            return self.our_child_unusable(
                cx,
                ours,
                Why::Device("too many key exchanges are under way".into()),
                true,
            );
        }
        self.ours = Some(Ours::Child(ours));
    }

    fn handle_child_error(&mut self, cx: &mut Core, mut ours: Box<OurChild>, error: &Notify) {
        if ours.rekeys.is_none()
            && ours.offer.place.fallback.is_some()
            && error.kind != NotifyType::INVALID_KE_PAYLOAD
        {
            cx.free_esp_spi(ours.offer.spi_in);
            let why = Why::PeerRefused(error.kind.to_string());
            return self.resource_failed(cx, &ours.offer, Some(error.kind), why);
        }
        match error.kind {
            NotifyType::INVALID_KE_PAYLOAD if ours.restarts < MAX_RESTARTS => {
                // RFC 7296 section 1.3: the same offer with the group the responder would take.
                let tried = ours.group.unwrap_or(Group::NONE);
                if let Some(group) = select::retry_group(&ours.offer.sa, tried, error) {
                    ours.restarts += 1;
                    ours.group = Some(group);
                    return self.begin_our_key_exchange(cx, ours);
                }
                let why = Why::Incompatible("the peer asks for a group we did not offer".into());
                self.our_child_failed(cx, ours, why, true);
            }
            NotifyType::SINGLE_PAIR_REQUIRED if ours.restarts < MAX_RESTARTS && ours.rekeys.is_none() => {
                match narrow::single_pair(&ours.offer.selectors) {
                    Some(pair) => {
                        ours.restarts += 1;
                        ours.offer.selectors = pair;
                        self.begin_our_key_exchange(cx, ours);
                    }
                    None => self.our_child_failed(cx, ours, Why::PeerRefused(error.kind.to_string()), true),
                }
            }
            // The peer has rekeyed it already, and we answered: that pair stands (RFC 7296 section 2.8.1).
            NotifyType::TEMPORARY_FAILURE | NotifyType::CHILD_SA_NOT_FOUND if ours.collision.is_some() => {
                cx.free_esp_spi(ours.offer.spi_in);
            }
            NotifyType::TEMPORARY_FAILURE => {
                cx.free_esp_spi(ours.offer.spi_in);
                let task = match ours.rekeys {
                    Some(id) => Task::RekeyChild(id),
                    None => Task::NewChild(ours.offer.wanted),
                };
                self.put_off(cx, task, TEMPORARY);
            }
            NotifyType::CHILD_SA_NOT_FOUND => {
                cx.free_esp_spi(ours.offer.spi_in);
                // RFC 7296 section 2.25.1: the peer has none such; ours leads nowhere. A new one takes its place.
                if let Some(id) = ours.rekeys
                    && self.children.contains(id)
                    && self.successor_of(id).is_none()
                    && let Some(spi_in) = self.children.get(id).map(|c| c.spi_in)
                {
                    // A word to the peer, in case it has it nevertheless.
                    self.queue_delete_spi(spi_in);
                    self.remove_child(cx, id, Why::PeerRefused("CHILD_SA_NOT_FOUND".into()), false);
                    // One for a single worker is asked for again by the data path.
                    if ours.offer.place.fallback.is_none() {
                        let wanted = Wanted { name: ours.offer.wanted.name, packet: None, replaces: None };
                        self.queue_child(wanted);
                    }
                }
            }
            kind => {
                let asked = selectors_text(&ours.offer.selectors.local, &ours.offer.selectors.remote);
                self.our_child_failed(
                    cx,
                    ours,
                    Why::PeerRefused(format!("{kind}; we asked for {asked}")),
                    true,
                );
            }
        }
    }

    /// The child is agreed on and all inputs to its keys are there.
    fn finish_our_child(&mut self, cx: &mut Core, mut ours: Box<OurChild>, g_ir: Option<&Secret>) {
        let Some(agreed) = ours.agreed.take() else { return };
        let Some(keys) = self.child_keys(cx, &agreed.suite, g_ir, &ours.ni, &ours.nr) else {
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        let lowest = ours.ni.as_slice().min(ours.nr.as_slice());
        if let Some((theirs, their_lowest)) = &ours.collision {
            if lowest < their_lowest.as_slice() {
                // RFC 7296 section 2.8.1: ours is the redundant one, and ours to delete. It was never used.
                return self.queue_delete_spi(ours.offer.spi_in);
            }
            if let Some(child) = self.children.get_mut(*theirs) {
                child.state = ChildState::Redundant;
                cx.arm(Timer::Redundant(*theirs), REDUNDANT);
            }
        }
        if !self.is_place_good(agreed.place) {
            // The child beside which it was to be has gone meanwhile.
            return self.queue_delete_spi(ours.offer.spi_in);
        }
        let deleted = ours.deleted.contains(&agreed.spi_out);
        if deleted {
            // The Delete overtook the response. The peer wants none of it, nor what it replaced.
            cx.free_esp_spi(agreed.spi_in);
            let why = Why::PeerRefused("deleted at once".into());
            match ours.rekeys.is_none() && agreed.place.fallback.is_some() {
                true => self.resource_failed(cx, &ours.offer, None, why),
                false => self.child_failed(cx, agreed.name, why, false),
            }
        } else {
            let replaces = ours.rekeys.or(ours.offer.wanted.replaces);
            let entry = Entry { initiator: true, replaces, outbound: true };
            let new = self.install_child(cx, agreed, keys, entry);
            if let Some((theirs, _)) = ours.collision {
                // What stood beside the old one was beside the peer's meanwhile.
                self.move_beside(theirs, new);
            }
        }
        if let Some(old) = ours.rekeys
            && let Some(child) = self.children.get_mut(old)
        {
            child.state = ChildState::Replaced;
            cx.disarm(Timer::RekeyChild(old));
            self.tasks.push_back(Task::DeleteChild(old).into());
        }
    }

    /// The exchange gave no child we can use; the peer may believe it did.
    fn our_child_unusable(&mut self, cx: &mut Core, ours: Box<OurChild>, why: Why, made: bool) {
        if made {
            self.queue_delete_spi(ours.offer.spi_in);
        }
        self.our_child_failed(cx, ours, why, !made);
    }

    fn our_child_failed(&mut self, cx: &mut Core, ours: Box<OurChild>, why: Why, free: bool) {
        if free {
            cx.free_esp_spi(ours.offer.spi_in);
        }
        if ours.rekeys.is_none() && ours.offer.place.fallback.is_some() {
            return self.resource_failed(cx, &ours.offer, None, why);
        }
        if let Some(id) = ours.rekeys
            && self.children.get(id).is_some_and(|c| c.state == ChildState::Installed)
        {
            cx.arm(Timer::RekeyChild(id), REKEY_AGAIN);
        }
        let again = ours.rekeys.is_none();
        self.child_failed(cx, ours.offer.wanted.name, why, again);
    }
}
