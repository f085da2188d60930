//! IKE_AUTH as responder: which realm is meant, whether the peer is who it claims to be, our proof, and the first child.

use std::sync::Arc;

use ipc::{CertData, MAX_CANDIDATES};
use policy::{AuthPolicy, Childless, Claims, Identity, Realm};
use wire::ike::{Auth, Body, Notify, Payload, PayloadList};
use wire::numbers::{AuthMethod, ExchangeType, NotifyType};

use super::{cert_payloads, proof_of};
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
        let claimed = match self.claimed(&idi, &message) {
            Ok(claimed) => claimed,
            Err(error) => {
                return self.fail_auth_as_responder(cx, Why::PeerMisbehaved(format!("IDi: {error}")));
            }
        };
        if let Some(setup) = &mut self.setup {
            setup.claimed = Some(claimed.clone());
        }
        // RFC 7296 section 2.9.2 and 3.5: an IDr of the initiator says which of us it wants to meet.
        self.asked = match message.id_r().map(|id| Identity::from_wire(id.kind, &id.data)) {
            None | Some(Ok(Identity::Anonymous(_))) => None,
            Some(Ok(idr)) => Some(Box::new(idr)),
            Some(Err(error)) => {
                return self.fail_auth_as_responder(cx, Why::PeerMisbehaved(format!("IDr: {error}")));
            }
        };
        // RFC 7296 section 2.16: leaving AUTH out is how EAP is asked for.
        let proof = message.auth().map_or(AuthPolicy::Eap, |auth| proof_of(auth.method));
        let chosen = self.candidates(&claimed, proof);
        let Some(first) = chosen.first() else {
            let wanted = self.asked.as_ref().map(|idr| format!(" looking for {idr}")).unwrap_or_default();
            let by = if proof == AuthPolicy::Eap { " by EAP" } else { "" };
            let why = format!("no realm for {claimed}{by}{wanted} at {}", self.path.remote.ip());
            return self.fail_auth_as_responder(cx, Why::Authentication(why));
        };
        // Until it is known better: what is said of it is said of this realm.
        self.realm = Some(Arc::clone(first));
        let names = chosen.iter().map(|realm| Arc::clone(&realm.name)).collect();
        if let Some(setup) = &mut self.setup {
            setup.candidates = chosen;
        }
        if proof == AuthPolicy::Eap {
            return self.begin_eap_as_responder(cx, claimed, idi, message, names);
        }
        if let Err(why) = self.ask_peer_check(cx, &idi, claimed, &message, names) {
            return self.fail_auth_as_responder(cx, why);
        }
        if let Some(setup) = &mut self.setup {
            setup.auth_message = message;
        }
    }

    /// The realms that the peer may belong to as far as is known now, best first.
    fn candidates(&self, claimed: &Identity, proof: AuthPolicy) -> Vec<Arc<Realm>> {
        let candidates = self.setup.as_ref().map(|s| s.candidates.as_slice()).unwrap_or_default();
        let (local, remote) = (self.path.local.ip(), self.path.remote.ip());
        let asked = self.asked.as_deref();
        let claims = Claims { asked, open: true, ..Claims::of(claimed, proof) };
        // A client that speaks EAP cannot be answered in another way, nor one that does not by EAP; and a realm in which we are the
        // client has nothing for one that begins.
        let fits = |realm: &&Realm| match realm.remote_auth {
            AuthPolicy::Eap => proof == AuthPolicy::Eap,
            _ => proof != AuthPolicy::Eap && realm.local_auth != AuthPolicy::Eap,
        };
        let realms = candidates.iter().map(Arc::as_ref).filter(fits);
        let chosen = policy::choose_realm(realms, local, remote, &claims);
        let arc = |chosen: &Realm| candidates.iter().find(|realm| std::ptr::eq(Arc::as_ptr(realm), chosen));
        chosen.into_iter().take(MAX_CANDIDATES).filter_map(arc).cloned().collect()
    }

    /// The peer has proved itself and belongs to this realm: do we go by its policy so far?
    pub(super) fn enter_as_responder(&mut self, cx: &mut Core, name: &str) -> bool {
        let candidates = self.setup.as_ref().map(|s| s.candidates.as_slice()).unwrap_or_default();
        let Some(realm) = candidates.iter().find(|realm| *realm.name == *name).cloned() else {
            let why = "the realm is gone, or the key side chose one that was not asked about".to_owned();
            self.fail_auth_as_responder(cx, Why::Device(why));
            return false;
        };
        self.realm = Some(Arc::clone(&realm));
        if let Some(suite) = self.suite.filter(|suite| !suite.is_among(&realm.ike)) {
            // The suite was chosen before anybody knew who comes. RFC 7296 section 2.21.2: in IKE_AUTH the IKE SA can only fail as
            // a whole, and NO_PROPOSAL_CHOSEN would be about the child.
            let why = format!(
                "{} belongs to realm `{name}`, which does not take the {suite} that was chosen in IKE_SA_INIT",
                self.claimed_text()
            );
            self.fail_auth_as_responder(cx, Why::Incompatible(why));
            return false;
        }
        let childless = self.setup.as_ref().is_some_and(|s| s.auth_message.sa().is_none());
        if childless && realm.childless == Childless::Never {
            // RFC 6023 section 3: what a responder does that does not know of it.
            let id = self.setup.as_ref().map_or(1, |s| s.request_id);
            let what = "no Child SA asked for, and the realm needs one";
            self.refuse_syntax(cx, ExchangeType::IKE_AUTH, id, what);
            return false;
        }
        true
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
            // RFC 7619 section 2.3: what nobody says concerns nobody else.
            let forget = self.ext.initial_contact && !peer.is_anonymous();
            let realm = self.realm_name();
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
