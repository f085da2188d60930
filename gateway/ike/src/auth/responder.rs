//! IKE_AUTH as responder: which realm is meant, whether the peer is who it claims to be, our proof, and the first child.

use std::sync::Arc;

use ipc::CertData;
use policy::{AuthPolicy, Childless, Identity};
use wire::ike::{Auth, Body, Notify, Payload, PayloadList};
use wire::numbers::{AuthMethod, ExchangeType, NotifyType};

use super::cert_payloads;
use crate::child::Entry;
use crate::core::{Core, DownKind, Todo};
use crate::effect::Why;
use crate::handler::Stage;
use crate::sa::{IkeSa, State};

impl IkeSa {
    /// The initiator's claim and proof.
    pub(crate) fn handle_auth_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        if let Some(setup) = &mut self.setup {
            setup.request_id = id;
        }
        if self.has_eap() {
            return self.handle_eap_request(cx, id, message);
        }
        let Some(idi) = message.id_i().cloned() else {
            return self.refuse_syntax(cx, ExchangeType::IKE_AUTH, id, "no IDi");
        };
        let claimed = match Identity::from_wire(idi.kind, &idi.data) {
            Ok(claimed) => claimed,
            Err(error) => {
                return self.fail_auth_as_responder(cx, Why::PeerMisbehaved(format!("IDi: {error}")));
            }
        };
        if let Some(setup) = &mut self.setup {
            setup.claimed = Some(claimed.clone());
        }
        // RFC 7296 section 2.9.2 and 3.5: an IDr of the initiator says which of us it wants to meet.
        let idr = match message.id_r().map(|id| Identity::from_wire(id.kind, &id.data)) {
            None => None,
            Some(Ok(idr)) => Some(idr),
            Some(Err(error)) => {
                return self.fail_auth_as_responder(cx, Why::PeerMisbehaved(format!("IDr: {error}")));
            }
        };
        let mut candidates = self.setup.as_ref().map(|s| s.candidates.clone()).unwrap_or_default();
        // RFC 7296 section 2.16: leaving AUTH out is how EAP is asked for.
        let eap = message.auth().is_none();
        candidates.retain(|realm| match realm.remote_auth {
            AuthPolicy::Eap => eap,
            // One in which we are the client of an EAP server has nothing for a peer that begins.
            _ => !eap && realm.local_auth != AuthPolicy::Eap,
        });
        if eap && candidates.is_empty() {
            let why = format!("{claimed} wants EAP, which no realm offers");
            return self.fail_auth_as_responder(cx, Why::Incompatible(why));
        }
        let (local, remote) = (self.path.local.ip(), self.path.remote.ip());
        let chosen =
            policy::choose_realm(candidates.iter().map(Arc::as_ref), local, remote, &claimed, idr.as_ref());
        let Some(realm) = chosen.first().map(|r| r.name.clone()) else {
            let wanted = idr.map(|idr| format!(" looking for {idr}")).unwrap_or_default();
            let why = format!("no realm for {claimed}{wanted} at {remote}");
            return self.fail_auth_as_responder(cx, Why::Authentication(why));
        };
        self.realm = candidates.into_iter().find(|r| r.name == realm);
        if message.sa().is_none() && self.realm.as_ref().is_some_and(|r| r.childless == Childless::Never) {
            // RFC 6023 section 3: what a responder does that does not know of it.
            return self.refuse_syntax(
                cx,
                ExchangeType::IKE_AUTH,
                id,
                "no Child SA asked for, and the realm needs one",
            );
        }
        if eap {
            return self.begin_eap_as_responder(cx, claimed, idi, message);
        }
        if !self.ask_peer_check(cx, &idi, claimed, &message) {
            return self.fail_auth_as_responder(cx, Why::Device("key schedule failed".into()));
        }
        if let Some(setup) = &mut self.setup {
            setup.auth_message = message;
        }
    }

    /// RFC 7296 section 2.21.2: the answer says that it failed and not why, and the SA is gone.
    pub(super) fn fail_auth_as_responder(&mut self, cx: &mut Core, why: Why) {
        self.fail_auth_saying(cx, None, why);
    }

    /// The same with a last word of EAP.
    pub(super) fn fail_auth_saying(&mut self, cx: &mut Core, word: Option<Payload>, why: Why) {
        let why = match why {
            Why::Authentication(s) => Why::Authentication(format!("{}: {s}", self.claimed_text())),
            other => other,
        };
        let id = self.setup.as_ref().map_or(1, |s| s.request_id);
        let failed = Notify::new(NotifyType::AUTHENTICATION_FAILED).into();
        let payloads: Vec<Payload> = word.into_iter().chain([failed]).collect();
        self.respond(cx, ExchangeType::IKE_AUTH, id, &payloads);
        self.close_lingering(cx, DownKind::Failed, why);
    }

    /// The initiator is who it claims to be, and the handlers have seen its message: now we prove who we are.
    pub(crate) fn auth_request_examined(&mut self, cx: &mut Core, message: Vec<Payload>) {
        if let Some(setup) = &mut self.setup {
            setup.auth_message = message;
        }
        if self.has_eap() {
            return self.ask_eap_proof(cx);
        }
        let peer = self.peer_id.clone();
        self.ask_own_auth(cx, peer);
    }

    /// Our proof is there: answers, with the first child if one was asked for. The SA is up.
    pub(super) fn send_auth_response(
        &mut self,
        cx: &mut Core,
        method: u8,
        data: Vec<u8>,
        certs: Vec<CertData>,
    ) {
        let Some(mut setup) = self.setup.take() else { return };
        let mut payloads: Vec<Payload> = Vec::new();
        // After EAP the peer knows since the first response who we are.
        if setup.eap.is_none() {
            let Some(id) = setup.own_id_payload.take() else { return };
            payloads.push(Body::IdR(id).into());
            payloads.extend(cert_payloads(certs));
        }
        payloads.push(Auth::new(AuthMethod(method), data).into());
        self.extend(cx, Stage::AuthResponse, &mut payloads);
        let message = std::mem::take(&mut setup.auth_message);
        self.establish(cx);
        self.announce(cx);
        self.arm_session(cx);
        if message.sa().is_some() {
            self.answer_first_child(cx, &message, &setup.ni, &setup.nr, &mut payloads);
        }
        if self.state == State::Established {
            self.respond(cx, ExchangeType::IKE_AUTH, setup.request_id, &payloads);
        }
        if let Some(peer) = self.peer_id.clone() {
            let (realm, forget) = (self.realm_name(), self.ext.initial_contact);
            cx.todo.push_back(Todo::Superseded { by: self.id, realm, peer, forget });
        }
    }

    /// RFC 7296 section 1.2: failing to make the child does not fail the IKE SA.
    fn answer_first_child(
        &mut self,
        cx: &mut Core,
        message: &[Payload],
        ni: &[u8],
        nr: &[u8],
        payloads: &mut Vec<Payload>,
    ) {
        if let Some((notify, why)) = self.ext.cfg.as_mut().and_then(|cfg| cfg.failed.take()) {
            payloads.push(Notify::new(notify).into());
            return self.child_failed(cx, "".into(), why, false);
        }
        let choice = match self.choose_child(cx, message, None, false) {
            Ok(choice) => choice,
            Err(refused) => {
                payloads.push(refused.notify.into());
                return self.child_failed(cx, refused.name, refused.why, false);
            }
        };
        let Some(keys) = self.child_keys(cx, &choice.agreed.suite, None, ni, nr) else {
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        payloads.extend(choice.payloads(None));
        let entry = Entry { initiator: false, replaces: None, outbound: true };
        self.install_child(cx, choice.agreed, keys, entry);
    }
}
