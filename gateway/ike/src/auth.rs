//! IKE_AUTH (RFC 7296 section 1.2): what both sides do alike. Proofs are made and judged by the key side; nothing the peer
//! says is believed before that.

mod eap;
mod initiator;
mod null;
mod responder;

use std::sync::Arc;

use ipc::{AuthInput, CertData, Offered, PeerProof, Refusal, Reply, Request, Role};
use policy::{AuthPolicy, Identity};
use spi::Token;
use wire::ike::{Cert, Id, Payload, PayloadList};
use wire::numbers::{AuthMethod, CertEncoding};

use crate::core::{Core, DownKind};
use crate::effect::Why;
use crate::keymat;
use crate::sa::{IkeSa, State};

pub(crate) use eap::EapRun;

/// Certificates taken from one peer.
const MAX_CERTS: usize = 16;

impl IkeSa {
    /// Asks the key side for our proof.
    pub(super) fn ask_own_auth(&mut self, cx: &mut Core, peer_id: Option<Identity>) {
        let (Some(realm), Some(own_id)) = (self.realm.clone(), self.own_id().cloned()) else { return };
        let (kind, data) = own_id.to_wire();
        let id = Id::new(kind, data);
        let Some(input) = self.auth_input(cx, self.role, &id) else {
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        self.state = State::ExpectOwnAuth;
        let Some(setup) = &mut self.setup else { return };
        setup.own_id_payload = Some(id);
        let offered = Offered {
            hashes: setup.hashes.clone(),
            authorities: setup.authorities.clone(),
            ocsp: setup.wants_ocsp,
            urls: setup.takes_urls,
        };
        let request =
            Request::MakeAuth { sa: self.id, realm: realm.name.clone(), own_id, peer_id, input, offered };
        self.ask(cx, request);
    }

    /// Who the peer says it is. Without authentication that is nobody, whatever its ID payload says (RFC 7619 section 2.2).
    ///
    /// # Errors
    /// The payload is no identity.
    fn claimed(&self, id: &Id, message: &[Payload]) -> Result<Identity, policy::IdError> {
        match message.auth() {
            Some(auth) if auth.method == AuthMethod::NULL => Ok(Identity::Anonymous(self.id.0)),
            _ => Identity::from_wire(id.kind, &id.data),
        }
    }

    /// Asks the key side whether the peer is who it claims to be, and to which of these realms it belongs.
    ///
    /// # Errors
    /// What keeps it from being asked.
    fn ask_peer_check(
        &mut self,
        cx: &mut Core,
        id: &Id,
        claimed: Identity,
        message: &[Payload],
        realms: Vec<Arc<str>>,
    ) -> Result<(), Why> {
        let no_keys = || Why::Device("key schedule failed".into());
        let prover = match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let (Some(auth), Some(input)) = (message.auth(), self.auth_input(cx, prover, id)) else {
            return Err(no_keys());
        };
        if auth.method == AuthMethod::NULL {
            let sk_p = self.sk_p(prover).ok_or_else(no_keys)?;
            let expected = null::proof(&*cx.ops, sk_p, &input).map_err(|_| no_keys())?;
            if !expected.ct_eq(&auth.data) {
                return Err(Why::Authentication(
                    "it is not the one of IKE_SA_INIT: its NULL AUTH is wrong".into(),
                ));
            }
        }
        let certs = message.certs().take(MAX_CERTS);
        let certs = certs.map(|c| CertData { encoding: c.encoding.0, data: c.data.clone() }).collect();
        let proof = PeerProof { method: auth.method.0, data: auth.data.clone(), certs };
        self.state = State::ExpectPeerCheck;
        if let Some(setup) = &mut self.setup {
            setup.claimed = Some(claimed.clone());
        }
        let request = Request::CheckAuth {
            sa: self.id,
            realms,
            asked: self.asked.as_deref().cloned(),
            peer_id: claimed,
            input,
            proof,
        };
        self.ask(cx, request);
        Ok(())
    }

    /// SK_pi or SK_pr, whose it is.
    fn sk_p(&self, whose: Role) -> Option<&spi::Secret> {
        let (sk_pi, sk_pr) = self.setup.as_ref()?.sk_p.as_ref()?;
        Some(match whose {
            Role::Initiator => sk_pi,
            Role::Responder => sk_pr,
        })
    }

    /// Our AUTH data: the key side's, or with NULL authentication our own.
    fn fill_own_auth(&self, cx: &Core, method: u8, data: Vec<u8>) -> Option<Vec<u8>> {
        if AuthMethod(method) != AuthMethod::NULL {
            return Some(data);
        }
        let id = self.setup.as_ref()?.own_id_payload.as_ref()?;
        let input = self.auth_input(cx, self.role, id)?;
        let proof = null::proof(&*cx.ops, self.sk_p(self.role)?, &input).ok()?;
        Some(proof.expose().to_vec())
    }

    fn ask(&mut self, cx: &mut Core, request: Request) {
        let token = cx.ask(self.id, request);
        if let Some(setup) = &mut self.setup {
            setup.ask = token;
        }
        if token.is_none() {
            self.close(
                cx,
                DownKind::Failed,
                Why::Device("too many questions to the key side are out".into()),
            );
        }
    }

    /// What `prover` signs: its IKE_SA_INIT message, the other side's nonce, and its identity under its SK_p (RFC 7296
    /// section 2.15).
    fn auth_input(&self, cx: &Core, prover: Role, id: &Id) -> Option<AuthInput> {
        let (setup, prf) = (self.setup.as_ref()?, self.suite?.prf);
        let (message, nonce) = match prover {
            Role::Initiator => (&setup.init_request, &setup.nr),
            Role::Responder => (&setup.init_response, &setup.ni),
        };
        let maced_id = keymat::maced_id(&*cx.ops, prf, self.sk_p(prover)?, &id.body()).ok()?;
        let (message, nonce) = (message.clone(), nonce.clone());
        Some(AuthInput { role: self.role, message, nonce, maced_id, prf, int_auth: Vec::new() })
    }

    /// The key side's answer.
    pub(crate) fn handle_reply(&mut self, cx: &mut Core, token: Token, reply: Reply) {
        match &mut self.setup {
            Some(setup) if setup.ask == Some(token) => setup.ask = None,
            _ => return,
        }
        match (self.state, self.role, reply) {
            (State::ExpectOwnAuth, role, Reply::Proof { method, data, certs }) => {
                let Some(data) = self.fill_own_auth(cx, method, data) else {
                    return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
                };
                match (role, self.has_eap()) {
                    (Role::Initiator, true) => self.send_eap_auth(cx, method, data),
                    (Role::Initiator, false) => self.send_auth_request(cx, Some((method, data)), certs),
                    (Role::Responder, true) if self.is_eap_first() => {
                        self.send_first_eap_response(cx, method, data, certs);
                    }
                    (Role::Responder, _) => self.send_auth_response(cx, method, data, certs),
                }
            }
            (State::ExpectPeerCheck, _, Reply::PeerAccepted { realm, how }) => {
                if self.enter(cx, &realm) {
                    self.peer_accepted(cx, how);
                }
            }
            (State::ExpectEap, _, Reply::Eap(step)) => self.handle_eap_step(cx, step),
            (
                State::ExpectOwnAuth | State::ExpectPeerCheck | State::ExpectEap,
                Role::Initiator,
                Reply::Refused(refusal),
            ) => {
                self.fail_auth_as_initiator(cx, why_refused(refusal));
            }
            (
                State::ExpectOwnAuth | State::ExpectPeerCheck | State::ExpectEap,
                Role::Responder,
                Reply::Refused(refusal),
            ) => {
                // In which of several it was refused stands in the key side's log.
                let several = self.setup.as_ref().is_some_and(|setup| setup.candidates.len() > 1);
                if several && self.state != State::ExpectOwnAuth {
                    self.realm = None;
                }
                self.fail_auth_as_responder(cx, why_refused(refusal));
            }
            _ => {
                self.close(cx, DownKind::Failed, Why::Device("the key side answered another question".into()))
            }
        }
    }

    /// The peer is who it claims to be; or, where EAP is to follow on our side, the responder is.
    fn peer_accepted(&mut self, cx: &mut Core, how: Arc<str>) {
        // A responder that has proved itself by its key is known by that; EAP was our proof.
        if self.role == Role::Responder || self.how.is_none() {
            self.how = Some(how);
        }
        let claimed = self.setup.as_mut().and_then(|s| s.claimed.take());
        match (self.has_eap(), self.is_eap_first()) {
            (true, true) => return self.eap_responder_accepted(cx, claimed),
            (true, false) => self.take_eap_identity(claimed),
            (false, _) => self.peer_id = claimed,
        }
        let message = self.setup.as_mut().map(|s| std::mem::take(&mut s.auth_message)).unwrap_or_default();
        let stage = match self.role {
            Role::Initiator => crate::handler::Stage::AuthResponse,
            Role::Responder => crate::handler::Stage::AuthRequest,
        };
        self.examine(cx, stage, message);
    }

    /// Whether it is EAP that proves the initiator.
    pub(crate) fn has_eap(&self) -> bool {
        self.setup.as_ref().is_some_and(|s| s.eap.is_some())
    }

    /// The peer belongs to this realm. False when that is the end of it.
    fn enter(&mut self, cx: &mut Core, realm: &str) -> bool {
        match self.role {
            Role::Responder => self.enter_as_responder(cx, realm),
            Role::Initiator if self.realm.as_ref().is_some_and(|ours| *ours.name == *realm) => true,
            Role::Initiator => {
                let why = Why::Device("the key side chose a realm that was not asked about".into());
                self.fail_auth_as_initiator(cx, why);
                false
            }
        }
    }

    /// How we name the peer while nothing is proved.
    pub(super) fn claimed_text(&self) -> String {
        let claimed = self.setup.as_ref().and_then(|s| s.claimed.as_ref());
        claimed.map_or_else(|| "unknown".to_owned(), Identity::to_string)
    }
}

/// What a method of an AUTH payload proves.
fn proof_of(method: AuthMethod) -> AuthPolicy {
    match method {
        AuthMethod::SHARED_KEY_MIC => AuthPolicy::Psk,
        AuthMethod::NULL => AuthPolicy::Null,
        _ => AuthPolicy::Pubkey,
    }
}

fn why_refused(refusal: Refusal) -> Why {
    match refusal {
        Refusal::AuthenticationFailed(what) => Why::Authentication(what),
        Refusal::NoCredential(_) | Refusal::NotAllowed(_) => Why::Misconfigured(refusal.to_string()),
        other => Why::Device(other.to_string()),
    }
}

/// CERT payloads to send.
fn cert_payloads(certs: Vec<CertData>) -> impl Iterator<Item = Payload> {
    certs.into_iter().map(|c| Cert { encoding: CertEncoding(c.encoding), data: c.data }.into())
}
