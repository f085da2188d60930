//! Rekeying the IKE SA (RFC 7296 sections 1.3.2, 2.8, 2.18): a new SA from the old one's SK_d, to which the children pass; the
//! old one is deleted by who began the exchange.
//!
//! When both begin at once, both exchanges are carried out; the SA with the lowest of the four nonces is redundant and its
//! initiator deletes it, and the children wait on the old SA until that is known (section 2.8.2). A side that has not noticed
//! answers TEMPORARY_FAILURE or deletes the old SA: then the other's attempt is forgotten.

use std::time::Duration;

use ipc::Role;
use spi::{CryptoOutput, DhPrivate, Group, Outcome, Secret, Token};
use wire::ike::{Ke, Nonce, Notify, Payload, PayloadList, Sa, Spi};
use wire::numbers::{ExchangeType, KeId, NotifyType};

use crate::core::{Core, DownKind, Op, Slot, Timer, Todo};
use crate::create_child::{Ours, Progress, Theirs};
use crate::effect::{Event, IkeSaId, Why};
use crate::init::{ke_len_fits, key_exchange_op, nonce_fits};
use crate::keymat::{IkeKeys, IkeSuite, skeyseed_rekey};
use crate::sa::{IkeSa, State};
use crate::select;
use crate::tasks::Task;
use crate::window::{ReceiveWindow, SendWindow};

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

/// How long the old SA stays after a collision that we won; up to as much again at random.
const SETTLE: Duration = Duration::from_secs(2);

/// Wait after a failed rekey.
const AGAIN: Duration = Duration::from_secs(30);

/// Our exchange.
pub(crate) struct OurRekey {
    /// Our SPI of the new SA.
    pub(crate) spi: Spi,
    pub(crate) progress: Progress,
    pub(crate) token: Option<Token>,
    /// The SA the peer made by rekeying the same one meanwhile, and the lower nonce of its exchange.
    pub(crate) collision: Option<(IkeSaId, Vec<u8>)>,
    id: IkeSaId,
    ni: Vec<u8>,
    nr: Vec<u8>,
    group: Group,
    private: Option<DhPrivate>,
    public: Vec<u8>,
    offer: Option<Sa>,
    agreed: Option<(IkeSuite, Spi)>,
    restarts: u8,
}

/// The peer's exchange, while a device works for it.
pub(crate) struct TheirRekey {
    /// Our SPI of the new SA.
    pub(crate) spi: Spi,
    pub(crate) token: Option<Token>,
    id: IkeSaId,
    request_id: u32,
    ni: Vec<u8>,
    nr: Vec<u8>,
    suite: IkeSuite,
    peer_spi: Spi,
    answer: Sa,
    public: Vec<u8>,
    peer_public: Vec<u8>,
}

// ---- as initiator ----

impl IkeSa {
    pub(crate) fn begin_rekey(&mut self, cx: &mut Core) {
        let Some(realm) = self.realm.clone() else { return };
        // The group that was agreed on before is the best guess; if it is no longer configured, the first one.
        let known = |g: &Group| realm.ike.iter().any(|p| p.groups.contains(g));
        let group = self.suite.map(|s| s.group).filter(known).or_else(|| select::first_group(&realm.ike));
        let Some(group) = group else { return };
        let id = cx.next_sa();
        let ours = Box::new(OurRekey {
            spi: cx.ike_spi(id),
            progress: Progress::ExpectKeyPair,
            token: None,
            collision: None,
            id,
            ni: cx.nonce(),
            nr: Vec::new(),
            group,
            private: None,
            public: Vec::new(),
            offer: None,
            agreed: None,
            restarts: 0,
        });
        self.begin_rekey_key_exchange(cx, ours);
    }

    fn begin_rekey_key_exchange(&mut self, cx: &mut Core, mut ours: Box<OurRekey>) {
        ours.progress = Progress::ExpectKeyPair;
        ours.token = cx.submit(self.id, Slot::Ours, Op::Generate(ours.group));
        match ours.token {
            Some(_) => self.ours = Some(Ours::Rekey(ours)),
            None => self.rekey_failed(cx, ours, Why::Device("too many key exchanges are under way".into())),
        }
    }

    pub(crate) fn our_rekey_done(
        &mut self,
        cx: &mut Core,
        mut ours: Box<OurRekey>,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        ours.token = None;
        match (ours.progress, outcome, output) {
            (Progress::ExpectKeyPair, Outcome::Done, CryptoOutput::DhPair(private, public)) => {
                ours.private = Some(private);
                ours.public = public;
                self.send_rekey_request(cx, ours);
            }
            (Progress::ExpectSecret, Outcome::Done, CryptoOutput::Secret(secret)) => {
                self.finish_our_rekey(cx, ours, &secret);
            }
            (progress, outcome, _) => {
                let why = match outcome {
                    Outcome::Rejected(reject) => Why::PeerMisbehaved(format!("KE payload: {reject}")),
                    Outcome::Failed(fault) => Why::Device(format!("key exchange: {fault}")),
                    _ => Why::Device("key exchange: the device gave something else".into()),
                };
                if progress == Progress::ExpectSecret {
                    // The peer has moved to an SA we cannot follow to; starting over is the way out.
                    return self.close(cx, DownKind::Failed, why);
                }
                self.rekey_failed(cx, ours, why);
            }
        }
    }

    fn send_rekey_request(&mut self, cx: &mut Core, mut ours: Box<OurRekey>) {
        let Some(realm) = self.realm.clone() else { return };
        let offer = select::offer_ike(&realm.ike, Some(ours.spi));
        let ke = Ke::new(KeId(ours.group.0), ours.public.clone());
        let payloads = [offer.clone().into(), Nonce(ours.ni.clone()).into(), ke.into()];
        ours.offer = Some(offer);
        ours.progress = Progress::ExpectResponse;
        self.ours = Some(Ours::Rekey(ours));
        self.send_request(cx, EXCHANGE, &payloads);
    }

    pub(crate) fn handle_rekey_response(
        &mut self,
        cx: &mut Core,
        mut ours: Box<OurRekey>,
        message: Vec<Payload>,
    ) {
        let Some(offer) = &ours.offer else { return };
        let (Some(answer), Some(ke), Some(Nonce(nr))) = (message.sa(), message.ke(), message.nonce()) else {
            return self.handle_rekey_error(cx, ours, &message);
        };
        let bad = match select::check_ike_answer(offer, answer) {
            Err(bad) => bad.to_string(),
            Ok((suite, peer_spi)) => {
                let group = Group(ke.method.0);
                let fits = suite.group == group
                    && group == ours.group
                    && ke_len_fits(group, Role::Responder, &ke.data)
                    && nonce_fits(&suite, nr);
                if let Some(private) = ours.private.take().filter(|_| fits) {
                    ours.nr = nr.clone();
                    ours.agreed = Some((suite, peer_spi));
                    ours.progress = Progress::ExpectSecret;
                    let op = Op::Derive { group, ours: private, theirs: ke.data.clone() };
                    ours.token = cx.submit(self.id, Slot::Ours, op);
                    if ours.token.is_some() {
                        self.ours = Some(Ours::Rekey(ours));
                        return;
                    }
                }
                "KE payload or nonce does not fit".to_owned()
            }
        };
        cx.ike_spis.remove(&ours.spi);
        self.close(cx, DownKind::Failed, Why::PeerMisbehaved(format!("rekeying the IKE SA: {bad}")));
    }

    fn handle_rekey_error(&mut self, cx: &mut Core, mut ours: Box<OurRekey>, message: &[Payload]) {
        let Some(error) = message.error_notify() else {
            return self.rekey_failed(
                cx,
                ours,
                Why::PeerMisbehaved("response without SA, KE or nonce".into()),
            );
        };
        match error.kind {
            NotifyType::INVALID_KE_PAYLOAD if ours.restarts < 3 => {
                let group = ours.offer.as_ref().and_then(|o| select::retry_group(o, ours.group, error));
                match group {
                    Some(group) => {
                        ours.restarts += 1;
                        ours.group = group;
                        self.begin_rekey_key_exchange(cx, ours);
                    }
                    None => {
                        self.rekey_failed(cx, ours, Why::Incompatible("asked for a group not offered".into()))
                    }
                }
            }
            NotifyType::TEMPORARY_FAILURE => match ours.collision.take() {
                // RFC 7296 section 2.8.2: the peer did not notice the collision; its SA stands.
                Some((theirs, _)) => {
                    cx.ike_spis.remove(&ours.spi);
                    self.hand_over(cx, theirs);
                }
                None => {
                    cx.ike_spis.remove(&ours.spi);
                    self.put_off(cx, Task::RekeyIke, crate::create_child::TEMPORARY);
                }
            },
            kind => self.rekey_failed(cx, ours, Why::PeerRefused(kind.to_string())),
        }
    }

    fn rekey_failed(&mut self, cx: &mut Core, ours: Box<OurRekey>, why: Why) {
        cx.ike_spis.remove(&ours.spi);
        if let Some((theirs, _)) = ours.collision {
            return self.hand_over(cx, theirs);
        }
        let realm = self.realm_name();
        cx.event(Event::ChildFailed { realm: realm.clone(), name: "IKE SA".into(), why: why.clone() });
        cx.todo.push_back(Todo::RekeyFailed { realm, why: why.to_string() });
        cx.arm(Timer::RekeyIke(self.id), AGAIN);
    }

    fn finish_our_rekey(&mut self, cx: &mut Core, ours: Box<OurRekey>, secret: &Secret) {
        let Some((suite, peer_spi)) = ours.agreed else { return };
        let spis = (ours.spi, peer_spi);
        let Some(mut new) =
            self.rekeyed(cx, ours.id, Role::Initiator, suite, spis, secret, &ours.ni, &ours.nr)
        else {
            cx.ike_spis.remove(&ours.spi);
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        let new_id = new.id;
        let lowest = ours.ni.as_slice().min(ours.nr.as_slice());
        match ours.collision {
            Some((theirs, their_lowest))
                if lowest < their_lowest.as_slice() || self.state == State::Rekeyed =>
            {
                // RFC 7296 section 2.8.2: ours is redundant, and ours to delete.
                new.unmourned = true;
                new.tasks.push_back(Task::DeleteIke(DownKind::Meant, Why::Normal("redundant".into())).into());
                cx.todo.push_back(Todo::Adopt(new));
                self.hand_over(cx, theirs);
            }
            collision => {
                cx.todo.push_back(Todo::Adopt(new));
                self.hand_over(cx, new_id);
                let delete = Task::DeleteIke(DownKind::Meant, Why::Normal("rekeyed".into()));
                match collision {
                    // The peer may still be waiting for our response on the old SA; let it see that its own is the redundant one.
                    Some((theirs, _)) => {
                        cx.todo.push_back(Todo::Redundant(theirs));
                        self.put_off(cx, delete, SETTLE);
                    }
                    None => self.queue(delete),
                }
            }
        }
    }

    /// Another SA carries on what this one did; what is left of it is a Delete.
    pub(crate) fn hand_over(&mut self, cx: &mut Core, to: IkeSaId) {
        if self.state == State::Rekeyed {
            return;
        }
        self.state = State::Rekeyed;
        for timer in [Timer::RekeyIke(self.id), Timer::Reauth(self.id), Timer::Liveness(self.id)] {
            cx.disarm(timer);
        }
        cx.disarm(Timer::ExpireIke(self.id));
        // The peer may need that long to hear of it.
        cx.arm(Timer::GiveUp(self.id), cx.patience());
        cx.todo.push_back(Todo::Inherit { from: self.id, to });
        cx.event(Event::IkeRekeyed { old: self.id, new: to });
        cx.todo.push_back(Todo::IkeRekeyed { realm: self.realm_name() });
    }

    /// The new SA, established.
    #[allow(clippy::too_many_arguments)] // What a key schedule takes.
    fn rekeyed(
        &mut self,
        cx: &mut Core,
        id: IkeSaId,
        role: Role,
        suite: IkeSuite,
        (own, peer): (Spi, Spi),
        secret: &Secret,
        ni: &[u8],
        nr: &[u8],
    ) -> Option<Box<IkeSa>> {
        let (old_prf, old_sk_d) = (self.suite?.prf, self.sk_d.as_ref()?);
        let (spi_i, spi_r) = match role {
            Role::Initiator => (own, peer),
            Role::Responder => (peer, own),
        };
        // RFC 7296 section 2.18: SKEYSEED with the old PRF, everything after it with the new one.
        let seed = skeyseed_rekey(&*cx.ops, old_prf, old_sk_d, secret, ni, nr).ok()?;
        let keys = IkeKeys::derive(&*cx.ops, &suite, &seed, ni, nr, spi_i, spi_r).ok()?;
        let mut new = Box::new(IkeSa::new(cx, id, role, self.path, State::Established));
        new.spi_i = spi_i;
        new.spi_r = spi_r;
        // RFC 7296 section 2.18: message IDs start over.
        new.send = SendWindow::starting_at(0);
        new.receive = ReceiveWindow::new(0, 1);
        new.realm = self.realm.clone();
        new.asked = self.asked.clone();
        new.peer_id = self.peer_id.clone();
        new.ike_id = self.ike_id.clone();
        new.granted = self.granted.clone();
        new.how = self.how.clone();
        new.nat = self.nat;
        new.ext = self.ext.inherit();
        new.take_keys(cx, suite, keys);
        new.establish(cx);
        // The peer was authenticated when it was, whatever is rekeyed.
        new.reauth_at = self.reauth_at;
        if let Some(at) = self.reauth_at {
            cx.timers.arm(Timer::Reauth(id), at);
        }
        new.session_until = self.session_until;
        if let Some(at) = self.session_until {
            cx.timers.arm(Timer::Session(id), at);
        }
        Some(new)
    }
}

// ---- as responder ----

impl IkeSa {
    pub(crate) fn handle_rekey_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        // RFC 7296 section 2.25.2: not while children are being made, rekeyed or deleted, nor while we delete the SA.
        if matches!(self.ours, Some(Ours::Child(_) | Ours::DeleteChildren(_) | Ours::DeleteIke(..))) {
            return self.respond_error(cx, EXCHANGE, id, Notify::new(NotifyType::TEMPORARY_FAILURE));
        }
        let (Some(realm), Some(offer), Some(Nonce(ni))) = (self.realm.clone(), message.sa(), message.nonce())
        else {
            return;
        };
        let Some(ke) = message.ke() else { return self.refuse_syntax(cx, EXCHANGE, id, "no KE payload") };
        let new_id = cx.next_sa();
        let spi = cx.ike_spi(new_id);
        let group = Group(ke.method.0);
        let chosen = match select::choose_ike(&realm.ike, offer, Some(spi), Some(group)) {
            Ok(chosen) => chosen,
            Err(none) => {
                cx.ike_spis.remove(&spi);
                self.respond_error(cx, EXCHANGE, id, Notify::new(NotifyType::NO_PROPOSAL_CHOSEN));
                let (realm, name) = (realm.name.clone(), "IKE SA".into());
                return cx.event(Event::ChildFailed {
                    realm,
                    name,
                    why: Why::Incompatible(none.to_string()),
                });
            }
        };
        if chosen.suite.group != group {
            cx.ike_spis.remove(&spi);
            return self.respond_error(cx, EXCHANGE, id, select::invalid_ke(chosen.suite.group));
        }
        if !ke_len_fits(group, Role::Initiator, &ke.data) || !nonce_fits(&chosen.suite, ni) {
            cx.ike_spis.remove(&spi);
            return self.refuse_syntax(cx, EXCHANGE, id, "KE payload or nonce of the wrong length");
        }
        let mut theirs = Box::new(TheirRekey {
            spi,
            token: None,
            id: new_id,
            request_id: id,
            ni: ni.clone(),
            nr: cx.nonce(),
            suite: chosen.suite,
            peer_spi: chosen.spi,
            answer: chosen.answer,
            public: Vec::new(),
            peer_public: ke.data.clone(),
        });
        theirs.token =
            cx.submit(self.id, Slot::Theirs, key_exchange_op(Role::Responder, group, &theirs.peer_public));
        if theirs.token.is_none() {
            return self.refuse_their_rekey(cx, &theirs);
        }
        self.theirs = Some(Theirs::Rekey(theirs));
    }

    pub(crate) fn their_rekey_done(
        &mut self,
        cx: &mut Core,
        mut theirs: Box<TheirRekey>,
        outcome: Outcome,
        output: CryptoOutput,
    ) {
        theirs.token = None;
        match (outcome, output) {
            (Outcome::Done, CryptoOutput::DhPair(private, public)) => {
                theirs.public = public;
                let op = Op::Derive {
                    group: theirs.suite.group,
                    ours: private,
                    theirs: theirs.peer_public.clone(),
                };
                theirs.token = cx.submit(self.id, Slot::Theirs, op);
                match theirs.token {
                    Some(_) => self.theirs = Some(Theirs::Rekey(theirs)),
                    None => self.refuse_their_rekey(cx, &theirs),
                }
            }
            (Outcome::Done, CryptoOutput::Encapsulated(public, secret)) => {
                theirs.public = public;
                self.finish_their_rekey(cx, theirs, &secret);
            }
            (Outcome::Done, CryptoOutput::Secret(secret)) => self.finish_their_rekey(cx, theirs, &secret),
            (Outcome::Rejected(reject), _) => {
                cx.ike_spis.remove(&theirs.spi);
                self.refuse_syntax(cx, EXCHANGE, theirs.request_id, &format!("KE payload: {reject}"));
            }
            _ => self.refuse_their_rekey(cx, &theirs),
        }
    }

    fn refuse_their_rekey(&mut self, cx: &mut Core, theirs: &TheirRekey) {
        cx.ike_spis.remove(&theirs.spi);
        self.respond_error(cx, EXCHANGE, theirs.request_id, Notify::new(NotifyType::TEMPORARY_FAILURE));
    }

    fn finish_their_rekey(&mut self, cx: &mut Core, theirs: Box<TheirRekey>, secret: &Secret) {
        // While the device worked, our own exchange may have replaced the SA: then there is nothing left to rekey, as
        // RFC 7296 section 2.25.2 has it for an SA that is being closed.
        if !self.is_established() {
            return self.refuse_their_rekey(cx, &theirs);
        }
        let spis = (theirs.spi, theirs.peer_spi);
        let new =
            self.rekeyed(cx, theirs.id, Role::Responder, theirs.suite, spis, secret, &theirs.ni, &theirs.nr);
        let Some(new) = new else {
            cx.ike_spis.remove(&theirs.spi);
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        let new_id = new.id;
        let mut new = new;
        let ke = Ke::new(KeId(theirs.suite.group.0), theirs.public.clone());
        let payloads = [theirs.answer.clone().into(), Nonce(theirs.nr.clone()).into(), ke.into()];
        self.respond(cx, EXCHANGE, theirs.request_id, &payloads);
        let collides =
            matches!(&self.ours, Some(Ours::Rekey(ours)) if ours.progress != Progress::ExpectKeyPair);
        new.rival_of = collides.then_some(self.id);
        cx.todo.push_back(Todo::Adopt(new));
        match &mut self.ours {
            Some(Ours::Rekey(ours)) if collides => {
                ours.collision = Some((new_id, theirs.ni.min(theirs.nr)));
            }
            Some(Ours::Rekey(_)) => {
                // Nothing of ours was sent: there is no collision.
                self.cancel_ours(cx);
                self.hand_over(cx, new_id);
            }
            _ => self.hand_over(cx, new_id),
        }
    }

    /// The peer uses the SA it made while our own rekeying is under way, which it would not if ours stood.
    pub(crate) fn yield_early(&mut self, cx: &mut Core, to: IkeSaId) {
        if matches!(&self.ours, Some(Ours::Rekey(ours)) if ours.collision.as_ref().is_some_and(|(id, _)| *id == to))
        {
            self.hand_over(cx, to);
        }
    }

    /// The peer deletes the old SA while our own rekeying of it is under way: it did not notice that there are two, and its
    /// SA stands (RFC 7296 section 2.8.2). Whether there was such a collision.
    pub(crate) fn yield_to_collision(&mut self, cx: &mut Core) -> bool {
        let Some(Ours::Rekey(ours)) = &mut self.ours else { return false };
        let Some((theirs, _)) = ours.collision.take() else { return false };
        self.cancel_ours(cx);
        self.hand_over(cx, theirs);
        true
    }
}
