//! EAP within IKE_AUTH (RFC 7296 section 2.16), and EAP alone (RFC 5998). We carry packets; what is in them, and the key that
//! comes of them, is the key side's.
//!
//! | initiator | responder | what it waits for |
//! |---|---|---|
//! | IDi, SA, TSi, TSr, no AUTH | | `EapBegin`, then `MakeAuth`: we prove ourselves before the client shows anything |
//! | | IDr, CERT, AUTH, EAP | `CheckAuth`, then `EapBegin`: nothing is shown to somebody unproved |
//! | EAP | | `EapPacket` |
//! | | EAP | `EapPacket`; and so on until EAP-Success |
//! | AUTH | | `EapCheckAuth`, the extensions, `EapMakeAuth` |
//! | | AUTH, CP, SA, TSi, TSr | `EapCheckAuth`, the extensions |
//!
//! With EAP alone there is neither CERT nor the responder's first AUTH. A method without a key leaves SK_pi and SK_pr for the
//! last two proofs, which we have ourselves.

use std::sync::Arc;

use ipc::{EapGrant, EapStep, MAX_EAP_PACKET, MAX_EAP_ROUNDS, PeerProof, Request, Role};
use policy::{AuthPolicy, Claims, Identity, identity_of_user};
use spi::Secret;
use wire::ike::{Auth, Body, Eap, Id, Notify, Payload, PayloadList};
use wire::numbers::{AuthMethod, EapCode, ExchangeType, NotifyType};

use super::{cert_payloads, null, proof_of};
use crate::core::{Core, DownKind, Timer};
use crate::effect::{Event, Why};
use crate::sa::{IkeSa, State};

/// EAP of one IKE SA.
pub(crate) struct EapRun {
    stage: Stage,
    /// Our ID payload, which our last proof covers: the realm may be another in the end.
    own: Id,
    /// The peer's ID payload, which its proof covers.
    peer: Option<Id>,
    /// A packet that waits for a proof.
    packet: Vec<u8>,
    /// Packets of the peer so far.
    rounds: u16,
    grant: Option<Arc<EapGrant>>,
    /// The server has said that it is over: it holds nothing any more.
    over: bool,
    /// Why the peer is refused, which it was told by what is on its way; it may go without another word.
    regret: Option<String>,
}

/// Which message of the exchange is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The one with identities.
    First,
    /// An EAP packet.
    Packets,
    /// AUTH by what EAP gave.
    Last,
}

impl EapRun {
    fn new(own: Id, peer: Option<Id>) -> Box<EapRun> {
        Box::new(EapRun {
            own,
            stage: Stage::First,
            peer,
            packet: Vec::new(),
            rounds: 0,
            grant: None,
            over: false,
            regret: None,
        })
    }
}

// ---- what both sides do ----

impl IkeSa {
    fn eap(&mut self) -> Option<&mut EapRun> {
        self.setup.as_mut().and_then(|s| s.eap.as_deref_mut())
    }

    fn eap_stage(&self) -> Option<Stage> {
        self.setup.as_ref().and_then(|s| s.eap.as_ref()).map(|eap| eap.stage)
    }

    /// Whether EAP is under way, and its first messages are.
    pub(super) fn is_eap_first(&self) -> bool {
        self.eap_stage() == Some(Stage::First)
    }

    /// Whether EAP is under way and the peer takes nothing for established yet.
    pub(super) fn is_eap_unfinished(&self) -> bool {
        self.eap_stage().is_some_and(|stage| stage != Stage::Last)
    }

    /// EAP may take as long as the realm allows: somebody may have to look for a password.
    fn begin_eap(&mut self, cx: &mut Core, peer_id: Identity, realms: Vec<Arc<str>>) {
        let Some(time) = self.realm.as_ref().map(|realm| realm.eap.time) else { return };
        cx.arm(Timer::GiveUp(self.id), time);
        self.state = State::ExpectEap;
        let (sa, role, remote) = (self.id, self.role, self.path.remote.ip());
        let asked = self.asked.as_deref().cloned();
        self.ask(cx, Request::EapBegin { sa, role, realms, asked, peer_id, remote });
    }

    /// Our ID payload, and the realm at hand as the one that comes into question.
    fn own_payload(&self) -> Option<Id> {
        let (kind, data) = self.own_id()?.to_wire();
        Some(Id::new(kind, data))
    }

    fn realm_alone(&self) -> Vec<Arc<str>> {
        self.realm.iter().map(|realm| Arc::clone(&realm.name)).collect()
    }

    /// Shows the peer's packet to the key side.
    fn ask_eap(&mut self, cx: &mut Core, packet: Vec<u8>) {
        let Some(eap) = self.eap() else { return };
        eap.rounds += 1;
        eap.over = packet.first() == Some(&EapCode::FAILURE.0);
        let what = match packet.len() {
            _ if eap.rounds > MAX_EAP_ROUNDS => Some("EAP without end"),
            len if len > MAX_EAP_PACKET => Some("an EAP packet of impossible length"),
            _ => None,
        };
        if let Some(what) = what {
            return self.fail_eap(cx, None, Why::PeerMisbehaved(what.into()));
        }
        self.state = State::ExpectEap;
        self.ask(cx, Request::EapPacket { sa: self.id, packet });
    }

    /// The key side's word on a packet, or on the beginning.
    pub(super) fn handle_eap_step(&mut self, cx: &mut Core, step: EapStep) {
        match (self.role, step) {
            (_, EapStep::Refused { packet, why }) => {
                self.fail_eap(cx, packet, Why::Authentication(format!("EAP: {why}")));
            }
            (Role::Responder, EapStep::Send(packet)) => self.respond_eap(cx, packet),
            (Role::Responder, EapStep::Regret { packet, why }) => {
                if let Some(eap) = self.eap() {
                    eap.regret = Some(why);
                }
                self.respond_eap(cx, packet);
            }
            (Role::Responder, EapStep::Accepted { packet: Some(packet), grant, realm }) => {
                // It may be another now that it is known who comes.
                if self.enter(cx, &realm) {
                    self.accept_eap(cx, packet, *grant);
                }
            }
            (Role::Initiator, EapStep::Ready) => {
                let packet = self.eap().map(|eap| std::mem::take(&mut eap.packet)).unwrap_or_default();
                self.ask_eap(cx, packet);
            }
            (Role::Initiator, EapStep::Send(packet)) => {
                if let Some(eap) = self.eap() {
                    eap.stage = Stage::Packets;
                }
                self.state = State::ExpectAuthResponse;
                self.send_request(cx, ExchangeType::IKE_AUTH, &[Body::Eap(Eap(packet)).into()]);
            }
            (Role::Initiator, EapStep::WantPassword(user)) => {
                let realm = self.realm_name();
                cx.event(Event::PasswordWanted { sa: self.id, realm, user });
                self.ask(cx, Request::EapWait { sa: self.id });
            }
            (Role::Initiator, EapStep::Accepted { grant, .. }) => self.let_in(cx, *grant),
            (
                _,
                EapStep::Ready | EapStep::WantPassword(_) | EapStep::Accepted { .. } | EapStep::Regret { .. },
            ) => {
                let why = "the key side has lost its place in EAP".to_owned();
                self.close(cx, DownKind::Failed, Why::Device(why));
            }
        }
    }

    /// Ends it. The peer is told the same whatever the reason.
    fn fail_eap(&mut self, cx: &mut Core, packet: Option<Vec<u8>>, why: Why) {
        match self.role {
            Role::Initiator => self.give_up_eap(cx, why),
            Role::Responder => {
                let packet = packet.map(|packet| Body::Eap(Eap(packet)).into());
                self.fail_auth_saying(cx, packet, why);
            }
        }
    }

    /// RFC 7296 section 2.21.2: what fails at the initiator may be told by an INFORMATIONAL, so that the responder need not keep
    /// what it has until its time is over. Said once: an answer is not waited for.
    pub(super) fn give_up_eap(&mut self, cx: &mut Core, why: Why) {
        let told = self.eap().is_some_and(|eap| eap.over);
        if !told && self.send.next_id().is_some() {
            let failed = Notify::new(NotifyType::AUTHENTICATION_FAILED).into();
            self.send_request(cx, ExchangeType::INFORMATIONAL, &[failed]);
        }
        self.close(cx, DownKind::Failed, why);
    }

    /// The initiator gives up in the middle of EAP (RFC 7296 section 2.21.2). It has proved nothing, and nothing but this is done
    /// for it.
    pub(crate) fn handle_eap_given_up(&mut self, cx: &mut Core, id: u32) {
        self.respond(cx, ExchangeType::INFORMATIONAL, id, &[]);
        let why = self.regretted().unwrap_or_else(|| {
            Why::Authentication(format!("{} gave up in the middle of EAP", self.claimed_text()))
        });
        self.close_lingering(cx, DownKind::Failed, why);
    }

    /// Why the peer was refused, if its going is the end of that.
    pub(crate) fn regretted(&mut self) -> Option<Why> {
        let why = self.eap()?.regret.take()?;
        Some(Why::Authentication(format!("{}: EAP: {why}", self.claimed_text())))
    }

    /// Asks for our proof by what EAP gave, or makes it where it gave nothing.
    pub(super) fn ask_eap_proof(&mut self, cx: &mut Core) {
        let Some(id) = self.eap().map(|eap| eap.own.clone()) else { return };
        if self.eap().is_some_and(|eap| eap.grant.as_ref().is_some_and(|g| g.keyed)) {
            let Some(input) = self.auth_input(cx, self.role, &id) else {
                return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
            };
            self.state = State::ExpectOwnAuth;
            return self.ask(cx, Request::EapMakeAuth { sa: self.id, input });
        }
        let Some(proof) = self.keyless_proof(cx, self.role, &id) else {
            return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
        };
        let (method, data) = (AuthMethod::SHARED_KEY_MIC.0, proof.expose().to_vec());
        match self.role {
            Role::Initiator => self.send_eap_auth(cx, method, data),
            Role::Responder => self.send_auth_response(cx, method, data, Vec::new()),
        }
    }

    /// Has the peer's last AUTH judged by what EAP gave.
    fn check_eap_proof(&mut self, cx: &mut Core, auth: &Auth) {
        let prover = match self.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let Some((id, grant)) = self.eap().and_then(|eap| Some((eap.peer.clone()?, eap.grant.clone()?)))
        else {
            return self.close(cx, DownKind::Failed, Why::Device("EAP gave nothing".into()));
        };
        if grant.keyed {
            let Some(input) = self.auth_input(cx, prover, &id) else {
                return self.close(cx, DownKind::Failed, Why::Device("key schedule failed".into()));
            };
            let proof = PeerProof { method: auth.method.0, data: auth.data.clone(), certs: Vec::new() };
            self.state = State::ExpectPeerCheck;
            return self.ask(cx, Request::EapCheckAuth { sa: self.id, input, proof });
        }
        let right = auth.method == AuthMethod::SHARED_KEY_MIC
            && self.keyless_proof(cx, prover, &id).is_some_and(|proof| proof.ct_eq(&auth.data));
        self.state = State::ExpectPeerCheck;
        if right {
            self.peer_accepted(cx, grant.method.as_str().into());
        } else {
            let why = Why::Authentication("AUTH after EAP is wrong".into());
            match self.role {
                Role::Initiator => self.fail_auth_as_initiator(cx, why),
                Role::Responder => self.fail_auth_as_responder(cx, why),
            }
        }
    }

    /// RFC 7296 section 2.16: without a key from EAP, SK_pi and SK_pr are the shared secrets.
    fn keyless_proof(&self, cx: &Core, prover: Role, id: &Id) -> Option<Secret> {
        let input = self.auth_input(cx, prover, id)?;
        null::proof(&*cx.ops, self.sk_p(prover)?, &input).ok()
    }

    /// Who the peer is, now that its last AUTH was right: for a server, whom EAP has named; IKE's name is kept beside it.
    pub(super) fn take_eap_identity(&mut self, claimed: Option<Identity>) {
        let Some(grant) = self.eap().and_then(|eap| eap.grant.clone()) else { return };
        if self.role == Role::Responder {
            self.peer_id = Some(identity_of_user(&grant.identity));
            self.ike_id = claimed;
        }
        self.granted = Some(grant);
    }

    /// A session that was granted for a time ends when it is over.
    pub(super) fn arm_session(&mut self, cx: &mut Core) {
        let time = self.granted.as_ref().and_then(|granted| granted.session_timeout);
        if let (Role::Responder, Some(time)) = (self.role, time) {
            self.session_until = cx.now.checked_add(time);
            cx.arm(Timer::Session(self.id), time);
        }
    }
}

// ---- as responder ----

impl IkeSa {
    /// The initiator left AUTH out, and the realm takes EAP.
    pub(super) fn begin_eap_as_responder(
        &mut self,
        cx: &mut Core,
        claimed: Identity,
        id: Id,
        message: Vec<Payload>,
        realms: Vec<Arc<str>>,
    ) {
        let (Some(realm), Some(own)) = (self.realm.clone(), self.own_payload()) else { return };
        let asked = message.notify(NotifyType::EAP_ONLY_AUTHENTICATION).is_some();
        if realm.local_auth == AuthPolicy::Eap && !asked {
            let why = "the peer wants our own proof, and the realm has none but EAP (RFC 5998)".to_owned();
            return self.fail_auth_as_responder(cx, Why::Incompatible(why));
        }
        // RFC 7296 section 3.7: which certificates to send is to be known before the signature.
        crate::handler::note_authorities(self, &message);
        self.ext.eap_alone = realm.eap.only && asked;
        if let Some(setup) = &mut self.setup {
            setup.auth_message = message;
            setup.eap = Some(EapRun::new(own, Some(id)));
        }
        self.begin_eap(cx, claimed, realms);
    }

    /// A further IKE_AUTH request: a packet, or AUTH when EAP is over. Anything else ends it.
    pub(super) fn handle_eap_request(&mut self, cx: &mut Core, id: u32, message: Vec<Payload>) {
        match (self.eap_stage(), message.eap(), message.auth()) {
            (Some(Stage::Packets), Some(eap), None) => self.ask_eap(cx, eap.0.clone()),
            (Some(Stage::Last), None, Some(auth)) => {
                let auth = auth.clone();
                self.check_eap_proof(cx, &auth);
            }
            (_, _, Some(_)) => {
                let why = Why::PeerMisbehaved("AUTH before EAP was over".into());
                self.fail_auth_as_responder(cx, why);
            }
            _ => self.refuse_syntax(cx, ExchangeType::IKE_AUTH, id, "neither an EAP packet nor AUTH"),
        }
    }

    /// A packet of ours. With the first we say who we are, and prove it unless EAP alone is agreed on.
    fn respond_eap(&mut self, cx: &mut Core, packet: Vec<u8>) {
        if !self.is_eap_first() {
            return self.send_eap_response(cx, Vec::new(), packet);
        }
        if self.ext.eap_alone {
            let Some(own) = self.own_payload() else { return };
            return self.send_eap_response(cx, vec![Body::IdR(own).into()], packet);
        }
        if let Some(eap) = self.eap() {
            eap.packet = packet;
        }
        let claimed = self.setup.as_ref().and_then(|s| s.claimed.clone());
        self.ask_own_auth(cx, claimed);
    }

    /// Our proof for the first answer is there.
    pub(super) fn send_first_eap_response(
        &mut self,
        cx: &mut Core,
        method: u8,
        data: Vec<u8>,
        certs: Vec<ipc::CertData>,
    ) {
        let Some(id) = self.setup.as_mut().and_then(|s| s.own_id_payload.take()) else { return };
        let packet = self.eap().map(|eap| std::mem::take(&mut eap.packet)).unwrap_or_default();
        let mut payloads: Vec<Payload> = vec![Body::IdR(id).into()];
        payloads.extend(cert_payloads(certs));
        payloads.push(Auth::new(AuthMethod(method), data).into());
        self.send_eap_response(cx, payloads, packet);
    }

    fn send_eap_response(&mut self, cx: &mut Core, mut payloads: Vec<Payload>, packet: Vec<u8>) {
        let Some(id) = self.setup.as_ref().map(|s| s.request_id) else { return };
        if let Some(eap) = self.eap() {
            eap.stage = Stage::Packets;
        }
        payloads.push(Body::Eap(Eap(packet)).into());
        self.state = State::ExpectAuthRequest;
        self.respond(cx, ExchangeType::IKE_AUTH, id, &payloads);
    }

    /// EAP has succeeded: says so; AUTH is to follow.
    fn accept_eap(&mut self, cx: &mut Core, packet: Vec<u8>, grant: EapGrant) {
        let keyless = self.realm.as_ref().is_some_and(|r| r.eap.keyless) && !self.ext.eap_alone;
        if self.is_eap_first() || !(grant.keyed || keyless) {
            let why = format!("{} gives no key, and the realm wants one", grant.method);
            return self.fail_eap(cx, None, Why::Authentication(why));
        }
        let Some(eap) = self.eap() else { return };
        eap.grant = Some(Arc::new(grant));
        self.send_eap_response(cx, Vec::new(), packet);
        if let Some(eap) = self.eap() {
            eap.stage = Stage::Last;
        }
    }
}

// ---- as initiator ----

impl IkeSa {
    /// The first request, without AUTH: that is how EAP is asked for.
    pub(super) fn begin_eap_as_initiator(&mut self, cx: &mut Core) {
        let Some(own) = self.own_payload() else { return };
        if let Some(setup) = &mut self.setup {
            setup.own_id_payload = Some(own.clone());
            setup.eap = Some(EapRun::new(own, None));
        }
        self.ext.eap_alone = self.realm.as_ref().is_some_and(|r| r.eap.only);
        self.send_auth_request(cx, None, Vec::new());
    }

    /// EAP_ONLY_AUTHENTICATION (RFC 5998 section 3).
    pub(super) fn eap_notify(&self) -> Option<Payload> {
        (self.is_eap_first() && self.ext.eap_alone)
            .then(|| Notify::new(NotifyType::EAP_ONLY_AUTHENTICATION).into())
    }

    /// An IKE_AUTH response while EAP is under way.
    pub(super) fn handle_eap_response(&mut self, cx: &mut Core, message: Vec<Payload>) {
        match (self.eap_stage(), message.eap().cloned(), message.auth().cloned()) {
            (Some(Stage::First), Some(eap), _) => self.handle_first_eap_response(cx, eap.0, message),
            (Some(Stage::Packets), Some(eap), None) => self.ask_eap(cx, eap.0),
            (Some(Stage::Last), None, Some(auth)) => {
                if let Some(setup) = &mut self.setup {
                    setup.auth_message = message;
                }
                self.check_eap_proof(cx, &auth);
            }
            _ => {
                let why = self.why_no_auth(&message);
                self.close(cx, DownKind::Failed, why);
            }
        }
    }

    /// The responder's identity and proof: judged before it is shown anything.
    fn handle_first_eap_response(&mut self, cx: &mut Core, packet: Vec<u8>, message: Vec<Payload>) {
        let Some(realm) = self.realm.clone() else { return };
        let Some(id) = message.id_r().cloned() else {
            return self.close(cx, DownKind::Failed, Why::PeerMisbehaved("EAP without IDr".into()));
        };
        let proof = message.auth().map_or(AuthPolicy::Eap, |auth| proof_of(auth.method));
        let claimed = match self.claimed(&id, &message) {
            Ok(claimed) if realm.rank(&Claims { open: true, ..Claims::of(&claimed, proof) }).is_some() => {
                claimed
            }
            Ok(claimed) => {
                let why = format!("the peer says it is {claimed}; we accept {}", realm.remote_id);
                return self.give_up_eap(cx, Why::Authentication(why));
            }
            Err(error) => {
                let why = Why::PeerMisbehaved(format!("IDr: {error}"));
                return self.give_up_eap(cx, why);
            }
        };
        if let Some(eap) = self.eap() {
            eap.packet = packet;
            eap.peer = Some(id.clone());
        }
        // RFC 5998 section 3: a responder that has not agreed proves itself as ever. What it proves is looked at where the realm
        // says how; where it says EAP, the method is to tell.
        if realm.remote_auth != AuthPolicy::Eap && message.auth().is_some() {
            let realms = self.realm_alone();
            if let Err(why) = self.ask_peer_check(cx, &id, claimed, &message, realms) {
                self.give_up_eap(cx, why);
            }
        } else if self.ext.eap_alone {
            self.peer_id = Some(claimed.clone());
            let realms = self.realm_alone();
            self.begin_eap(cx, claimed, realms);
        } else {
            let why = "the peer wants our credentials and proves nothing itself".to_owned();
            self.give_up_eap(cx, Why::Authentication(why));
        }
    }

    /// The responder is who it should be: EAP may begin.
    pub(super) fn eap_responder_accepted(&mut self, cx: &mut Core, claimed: Option<Identity>) {
        let Some(claimed) = claimed else { return };
        self.peer_id = Some(claimed.clone());
        let realms = self.realm_alone();
        self.begin_eap(cx, claimed, realms);
    }

    /// EAP-Success: now the key is proved.
    fn let_in(&mut self, cx: &mut Core, grant: EapGrant) {
        let keyless = self.realm.as_ref().is_some_and(|r| r.eap.keyless) && !self.ext.eap_alone;
        if !(grant.keyed || keyless) {
            let why = format!("{} gives no key, and the realm wants one", grant.method);
            return self.give_up_eap(cx, Why::Authentication(why));
        }
        if let Some(eap) = self.eap() {
            eap.grant = Some(Arc::new(grant));
            eap.stage = Stage::Last;
        }
        self.ask_eap_proof(cx);
    }

    pub(super) fn send_eap_auth(&mut self, cx: &mut Core, method: u8, data: Vec<u8>) {
        self.state = State::ExpectAuthResponse;
        self.send_request(cx, ExchangeType::IKE_AUTH, &[Auth::new(AuthMethod(method), data).into()]);
    }
}
