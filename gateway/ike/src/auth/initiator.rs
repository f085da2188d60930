//! IKE_AUTH as initiator.

use std::sync::Arc;
use std::time::Duration;

use ipc::{CertData, Role};
use policy::{AuthPolicy, Childless, Claims, Identity};
use wire::ike::{Auth, Body, Id, Notify, Payload, PayloadList};
use wire::numbers::{AuthMethod, ExchangeType, NotifyType};

use super::{cert_payloads, proof_of};
use crate::child::Entry;
use crate::core::{Core, DownKind, Timer, Todo};
use crate::effect::{Event, Why};
use crate::handler::Stage;
use crate::sa::{IkeSa, State};

impl IkeSa {
    /// The keys are there: proves who we are.
    pub(crate) fn begin_auth(&mut self, cx: &mut Core) {
        if self.realm.as_ref().is_some_and(|r| r.local_auth == AuthPolicy::Eap) {
            return self.begin_eap_as_initiator(cx);
        }
        let expected = self.realm.as_ref().and_then(|r| r.remote_id.the_one().cloned());
        self.ask_own_auth(cx, expected);
    }

    /// Our proof is there, or is to come of EAP: sends the request, with the first child in it unless there is to be none.
    pub(super) fn send_auth_request(
        &mut self,
        cx: &mut Core,
        proof: Option<(u8, Vec<u8>)>,
        certs: Vec<CertData>,
    ) {
        let Some(realm) = self.realm.clone() else { return };
        let Some(id) = self.setup.as_mut().and_then(|s| s.own_id_payload.take()) else { return };
        let mut payloads: Vec<Payload> = vec![Body::IdI(id).into()];
        payloads.extend(cert_payloads(certs));
        self.extend(cx, Stage::AuthRequest, &mut payloads);
        if let Some(expected) = realm.remote_id.the_one() {
            let (kind, data) = expected.to_wire();
            payloads.push(Body::IdR(Id::new(kind, data)).into());
        }
        payloads.extend(proof.map(|(method, data)| Auth::new(AuthMethod(method), data).into()));
        payloads.extend(self.eap_notify());
        // RFC 6023 section 3: without a child only when the responder has said that it can.
        let without = self.ext.childless && realm.childless == Childless::Prefer;
        while !without && self.setup.as_ref().is_some_and(|s| s.child.is_none()) {
            let Some(wanted) = self.setup.as_mut().and_then(|s| s.wanted.pop_front()) else { break };
            match self.offer_child(cx, wanted, false, None) {
                Ok(offer) => {
                    payloads.extend(offer.payloads());
                    if let Some(setup) = &mut self.setup {
                        setup.child = Some(offer);
                    }
                }
                Err((name, why)) => self.child_failed(cx, name, why, false),
            }
        }
        if !self.ext.childless && self.setup.as_ref().is_some_and(|s| s.child.is_none()) {
            let why = "no child to set up, and the peer takes no IKE SA without one".to_owned();
            return self.close(cx, DownKind::Failed, Why::Misconfigured(why));
        }
        self.state = State::ExpectAuthResponse;
        self.send_request(cx, ExchangeType::IKE_AUTH, &payloads);
    }

    /// The responder's proof, or its refusal.
    pub(crate) fn handle_auth_response(&mut self, cx: &mut Core, message: Vec<Payload>) {
        if self.has_eap() {
            return self.handle_eap_response(cx, message);
        }
        let (Some(id), Some(_)) = (message.id_r().cloned(), message.auth()) else {
            let why = self.why_no_auth(&message);
            return self.close(cx, DownKind::Failed, why);
        };
        let Some(realm) = self.realm.clone() else { return };
        let proof = message.auth().map_or(AuthPolicy::Pubkey, |auth| proof_of(auth.method));
        match self.claimed(&id, &message) {
            Ok(claimed) if realm.rank(&Claims { open: true, ..Claims::of(&claimed, proof) }).is_some() => {
                let name = Arc::clone(&realm.name);
                if let Err(why) = self.ask_peer_check(cx, &id, claimed, &message, vec![name]) {
                    return self.fail_auth_as_initiator(cx, why);
                }
                if let Some(setup) = &mut self.setup {
                    setup.auth_message = message;
                }
            }
            Ok(claimed) => {
                let why = format!("the peer says it is {claimed}; we accept {}", realm.remote_id);
                self.fail_auth_as_initiator(cx, Why::Authentication(why));
            }
            Err(error) => self.fail_auth_as_initiator(cx, Why::PeerMisbehaved(format!("IDr: {error}"))),
        }
    }

    /// Why a response has not in it what it should.
    pub(super) fn why_no_auth(&self, message: &[Payload]) -> Why {
        match message.error_notify() {
            Some(error) if error.kind == NotifyType::AUTHENTICATION_FAILED => {
                let own = self.own_id().map(Identity::to_string).unwrap_or_default();
                Why::PeerRefused(format!("AUTHENTICATION_FAILED (we are {own})"))
            }
            Some(error) => Why::PeerRefused(error.kind.to_string()),
            None => Why::PeerMisbehaved("IKE_AUTH response without what was to be in it".into()),
        }
    }

    /// The responder takes the SA for established, so it is told (RFC 7296 section 2.21.2).
    pub(super) fn fail_auth_as_initiator(&mut self, cx: &mut Core, why: Why) {
        if self.is_eap_unfinished() {
            return self.give_up_eap(cx, why);
        }
        if !matches!(self.state, State::ExpectPeerCheck | State::ExpectAuthResponse) {
            return self.close(cx, DownKind::Failed, why);
        }
        let failed = Notify::new(NotifyType::AUTHENTICATION_FAILED).into();
        self.send_delete(cx, DownKind::Failed, why, vec![failed]);
    }

    /// Proved and examined: it is up. Takes the child, and begins what else is wanted.
    pub(crate) fn auth_response_examined(&mut self, cx: &mut Core, message: &[Payload]) {
        self.establish(cx);
        self.announce(cx);
        if let Some(mut setup) = self.setup.take() {
            if let Some(offer) = setup.child.take() {
                let (name, spi_in, replaces) =
                    (offer.wanted.name.clone(), offer.spi_in, offer.wanted.replaces);
                match self.check_child_answer(cx, &offer, message) {
                    Ok(agreed) => match self.child_keys(cx, &agreed.suite, None, &setup.ni, &setup.nr) {
                        Some(keys) => {
                            let entry = Entry { initiator: true, replaces, outbound: true };
                            self.install_child(cx, agreed, keys, entry);
                        }
                        None => self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into())),
                    },
                    Err(failure) => {
                        if failure.made {
                            self.queue_delete_spi(spi_in);
                        } else {
                            cx.free_esp_spi(spi_in);
                        }
                        self.child_failed(cx, name, failure.why, true);
                    }
                }
            }
            for wanted in setup.wanted.drain(..) {
                self.queue_child(wanted);
            }
        }
        self.arm_reauth(cx);
        self.pump(cx);
    }

    /// Tells the world that the SA is up.
    pub(super) fn announce(&mut self, cx: &mut Core) {
        let realm = self.realm_name();
        if let (Some(peer), Some(suite)) = (self.peer_id.clone(), self.suite) {
            cx.event(Event::IkeEstablished {
                sa: self.id,
                realm: realm.clone(),
                peer,
                path: self.path,
                suite,
                how: self.how.clone().unwrap_or_else(|| "".into()),
            });
        }
        cx.todo.push_back(Todo::IkeUp { id: self.id, realm });
    }

    /// Only who began the SA authenticates anew: the other side may not be able to begin one.
    fn arm_reauth(&mut self, cx: &mut Core) {
        let Some(lifetime) = self.realm.as_ref().map(|r| r.ike_reauth) else { return };
        if self.role == Role::Initiator && !lifetime.time.is_zero() {
            let after = cx.jittered_time(lifetime.time, lifetime.jitter);
            self.reauth_within(cx, after);
        }
    }

    /// Authenticates anew after this time, if nothing asks for it earlier.
    pub(crate) fn reauth_within(&mut self, cx: &mut Core, after: Duration) {
        let Some(at) = cx.now.checked_add(after) else { return };
        if self.reauth_at.is_none_or(|before| at < before) {
            self.reauth_at = Some(at);
            cx.arm(Timer::Reauth(self.id), after);
        }
    }
}
