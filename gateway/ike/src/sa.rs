//! One IKE SA: what is known of it, what it waits for, and how it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{EapGrant, Request, Role};
use policy::{Identity, Realm};
use spi::{DhPrivate, Group, Hash, Secret, Token};
use wire::ike::{Id, Payload, Sa, Spi};

use crate::auth::EapRun;
use crate::child::{ChildOffer, Children};
use crate::core::{Core, Down, DownKind, Timer, Todo};
use crate::create_child::{Ours, Theirs};
use crate::effect::{ChildId, Effect, Event, IkeSaId, KeyLogEntry, Path, Why};
use crate::frag::Reassembly;
use crate::handler::{Extensions, Suspended};
use crate::keymat::{IkeKeys, IkeSuite};
use crate::natd::Nat;
use crate::protect::Protection;
use crate::tasks::Queued;
use crate::window::{ReceiveWindow, SendWindow};

/// How long a closed SA still answers retransmissions of the request that closed it.
const LINGER: Duration = Duration::from_secs(10);

/// Wait before a failed reauthentication is tried again.
const REAUTH_AGAIN: Duration = Duration::from_secs(60);

/// One IKE SA.
pub(crate) struct IkeSa {
    pub(crate) id: IkeSaId,
    /// Who began it; decides which keys are whose and the initiator flag of every message.
    pub(crate) role: Role,
    pub(crate) spi_i: Spi,
    pub(crate) spi_r: Spi,
    pub(crate) state: State,
    /// Where we send requests.
    pub(crate) path: Path,
    /// Where the request being answered came from, if from elsewhere (RFC 7296 section 2.11).
    reply_path: Option<Box<Path>>,
    /// Known from the start as initiator, from IKE_AUTH on as responder.
    pub(crate) realm: Option<Arc<Realm>>,
    /// Who of us the peer asked for, where we have several names (responder).
    pub(crate) asked: Option<Box<Identity>>,
    /// Only once it is proved.
    pub(crate) peer_id: Option<Identity>,
    /// What the peer called itself in IKE, where EAP has named it otherwise.
    pub(crate) ike_id: Option<Identity>,
    /// What came of EAP.
    pub(crate) granted: Option<Arc<EapGrant>>,
    /// When the peer's session is over, if it was granted for a time.
    pub(crate) session_until: Option<Instant>,
    pub(crate) how: Option<Arc<str>>,
    pub(crate) nat: Nat,
    pub(crate) ext: Extensions,
    pub(crate) suite: Option<IkeSuite>,
    /// What the keys of children come from, and those of the next IKE SA.
    pub(crate) sk_d: Option<Secret>,
    pub(crate) protection: Option<Protection>,
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
    pub(crate) reassembly: Reassembly,
    /// What is needed until the SA is authenticated, and not after.
    pub(crate) setup: Option<Box<Setup>>,
    pub(crate) children: Children,
    pub(crate) tasks: VecDeque<Queued>,
    /// Our outstanding exchange after IKE_AUTH.
    pub(crate) ours: Option<Ours>,
    /// The peer's request that waits for a device.
    pub(crate) theirs: Option<Theirs>,
    pub(crate) suspended: Option<Box<Suspended>>,
    pub(crate) created: Instant,
    pub(crate) established: Option<Instant>,
    pub(crate) heard: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) reauth_at: Option<Instant>,
    /// The SA this one replaces with fresh authentication; deleted when this one is up.
    pub(crate) replaces: Option<IkeSaId>,
    /// Whether the end of this SA concerns nobody: redundant after a collision, or replaced.
    pub(crate) unmourned: bool,
    /// Made by the peer in a simultaneous rekey of this SA, and not known yet to stand (RFC 7296 section 2.8.2).
    pub(crate) rival_of: Option<IkeSaId>,
    /// The SA this one was rekeyed from, which may still wait for its Delete.
    pub(crate) predecessor: Option<IkeSaId>,
    /// Whether its children live on in another SA of the same peer.
    pub(crate) superseded: bool,
    /// The peer said NO_ADDITIONAL_SAS.
    pub(crate) no_more_children: bool,
    pub(crate) half_open: bool,
    /// Of the request that began it (responder), to know it again.
    pub(crate) fingerprint: Option<u64>,
}

/// What an IKE SA waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Our public value, from the device.
    ExpectKeyPair,
    /// IKE_SA_INIT response.
    ExpectInitResponse,
    /// The shared secret, from the device.
    ExpectSecret,
    /// IKE_AUTH request.
    ExpectAuthRequest,
    /// The key side's word on the peer.
    ExpectPeerCheck,
    /// The key side's next word of EAP, or somebody's password.
    ExpectEap,
    /// Our proof, from the key side.
    ExpectOwnAuth,
    /// IKE_AUTH response.
    ExpectAuthResponse,
    /// Nothing: it is up.
    Established,
    /// Replaced by a rekeyed one; the Delete is still to come.
    Rekeyed,
    /// The response to our Delete.
    Deleting,
    /// Nothing any more; retransmissions are still answered.
    Closed,
    /// To be dropped as soon as the engine sees it.
    Gone,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::ExpectKeyPair => "ExpectKeyPair",
            State::ExpectInitResponse => "ExpectInitResponse",
            State::ExpectSecret => "ExpectSecret",
            State::ExpectAuthRequest => "ExpectAuthRequest",
            State::ExpectPeerCheck => "ExpectPeerCheck",
            State::ExpectEap => "ExpectEap",
            State::ExpectOwnAuth => "ExpectOwnAuth",
            State::ExpectAuthResponse => "ExpectAuthResponse",
            State::Established => "Established",
            State::Rekeyed => "Rekeyed",
            State::Deleting => "Deleting",
            State::Closed => "Closed",
            State::Gone => "Gone",
        }
    }
}

/// What is needed until an IKE SA is authenticated.
pub(crate) struct Setup {
    pub(crate) ni: Vec<u8>,
    pub(crate) nr: Vec<u8>,
    pub(crate) group: Group,
    pub(crate) private: Option<DhPrivate>,
    /// Our KE data.
    pub(crate) public: Vec<u8>,
    /// The peer's KE data.
    pub(crate) peer_public: Vec<u8>,
    /// The SA payload we offered or answered with.
    pub(crate) sa: Option<Sa>,
    /// IKE_SA_INIT messages as they went over the wire (RFC 7296 section 2.15).
    pub(crate) init_request: Vec<u8>,
    pub(crate) init_response: Vec<u8>,
    /// COOKIE to send back.
    pub(crate) cookie: Option<Vec<u8>>,
    /// SK_pi and SK_pr, of which nobody has need once both sides are authenticated.
    pub(crate) sk_p: Option<(Secret, Secret)>,
    /// Times the request was built anew for a COOKIE or another group.
    pub(crate) restarts: u8,
    /// Why others say the exchange would fail, unauthenticated.
    pub(crate) hint: Option<String>,
    pub(crate) crypto: Option<Token>,
    pub(crate) ask: Option<Token>,
    /// Realms that may be meant, best first (responder).
    pub(crate) candidates: Vec<Arc<Realm>>,
    /// The peer's message, until the key side has judged it.
    pub(crate) auth_message: Vec<Payload>,
    /// Message ID of the request being answered.
    pub(crate) request_id: u32,
    /// The ID payload we send.
    pub(crate) own_id_payload: Option<Id>,
    /// The identity the peer claims, unproved.
    pub(crate) claimed: Option<Identity>,
    /// SIGNATURE_HASH_ALGORITHMS of the peer.
    pub(crate) hashes: Vec<Hash>,
    /// CAs the peer named in CERTREQ.
    pub(crate) authorities: Vec<[u8; 20]>,
    /// EAP, where that is how the initiator proves itself.
    pub(crate) eap: Option<Box<EapRun>>,
    /// Whether it asked for an OCSP answer with our certificate, and whether it fetches certificates.
    pub(crate) wants_ocsp: bool,
    pub(crate) takes_urls: bool,
    /// The child that goes along in IKE_AUTH (initiator).
    pub(crate) child: Option<ChildOffer>,
    /// Children to bring up: the first goes along, the others follow.
    pub(crate) wanted: VecDeque<Wanted>,
}

/// A child to bring up.
pub(crate) struct Wanted {
    pub(crate) name: Arc<str>,
    /// The packet that asked for it.
    pub(crate) packet: Option<crate::core::PacketSelectors>,
    /// The child that it replaces: one of another IKE SA (reauthentication), or one that may carry nothing any more.
    pub(crate) replaces: Option<ChildId>,
}

impl Setup {
    pub(crate) fn new(group: Group) -> Self {
        Setup {
            ni: Vec::new(),
            nr: Vec::new(),
            group,
            private: None,
            public: Vec::new(),
            peer_public: Vec::new(),
            sa: None,
            init_request: Vec::new(),
            init_response: Vec::new(),
            cookie: None,
            sk_p: None,
            restarts: 0,
            hint: None,
            crypto: None,
            ask: None,
            candidates: Vec::new(),
            auth_message: Vec::new(),
            request_id: 0,
            own_id_payload: None,
            claimed: None,
            hashes: Vec::new(),
            authorities: Vec::new(),
            eap: None,
            wants_ocsp: false,
            takes_urls: false,
            child: None,
            wanted: VecDeque::new(),
        }
    }
}

impl IkeSa {
    pub(crate) fn new(cx: &Core, id: IkeSaId, role: Role, path: Path, state: State) -> Self {
        // RFC 7296 section 2.2: each side counts its requests from 0; IKE_SA_INIT is the initiator's first.
        IkeSa {
            id,
            role,
            spi_i: Spi::ZERO,
            spi_r: Spi::ZERO,
            state,
            path,
            reply_path: None,
            realm: None,
            asked: None,
            peer_id: None,
            ike_id: None,
            granted: None,
            session_until: None,
            how: None,
            nat: Nat::default(),
            ext: Extensions::default(),
            suite: None,
            sk_d: None,
            protection: None,
            send: SendWindow::starting_at(0),
            receive: ReceiveWindow::new(0, 1),
            reassembly: Reassembly::new(),
            setup: None,
            children: Children::default(),
            tasks: VecDeque::new(),
            ours: None,
            theirs: None,
            suspended: None,
            created: cx.now,
            established: None,
            heard: cx.now,
            rekey_at: None,
            reauth_at: None,
            replaces: None,
            unmourned: false,
            rival_of: None,
            predecessor: None,
            superseded: false,
            no_more_children: false,
            half_open: false,
            fingerprint: None,
        }
    }

    /// Our SPI.
    pub(crate) fn own_spi(&self) -> Spi {
        match self.role {
            Role::Initiator => self.spi_i,
            Role::Responder => self.spi_r,
        }
    }

    pub(crate) fn realm_name(&self) -> Arc<str> {
        self.realm.as_ref().map_or_else(|| Arc::from(""), |r| Arc::clone(&r.name))
    }

    /// The identity we claim.
    pub(crate) fn own_id(&self) -> Option<&Identity> {
        self.realm.as_ref().map(|r| r.own_id(self.asked.as_deref()))
    }

    /// Where the answer to the request at hand goes.
    pub(crate) fn reply_path(&self) -> Path {
        self.reply_path.as_deref().copied().unwrap_or(self.path)
    }

    /// A request came from there.
    pub(crate) fn set_reply_path(&mut self, path: Path) {
        self.reply_path = (path != self.path).then(|| Box::new(path));
    }

    /// Requests go there from now on; the answer to the one at hand goes where it came from.
    pub(crate) fn set_path(&mut self, path: Path) {
        if self.theirs.is_some() && self.reply_path.is_none() && path != self.path {
            self.reply_path = Some(Box::new(self.path));
        }
        self.path = path;
    }

    /// Whether requests other than those of the set-up may pass: nothing is believed before AUTH (RFC 7296 section 2.15).
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(self.state, State::Established | State::Rekeyed | State::Deleting)
    }

    pub(crate) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Whether it is up and likely to stay: neither replaced nor in doubt.
    pub(crate) fn is_the_one(&self) -> bool {
        self.is_established() && !self.unmourned && !self.superseded && self.rival_of.is_none()
    }

    /// The keys of the suite are there: keeps what is needed of them and starts protecting messages.
    pub(crate) fn take_keys(&mut self, cx: &mut Core, suite: IkeSuite, keys: IkeKeys) {
        if cx.config.key_log {
            cx.fx.push(Effect::KeyLog(KeyLogEntry::Ike {
                spi_i: self.spi_i.0,
                spi_r: self.spi_r.0,
                sk_ei: keys.sk_ei.duplicate(),
                sk_er: keys.sk_er.duplicate(),
                sk_ai: keys.sk_ai.duplicate(),
                sk_ar: keys.sk_ar.duplicate(),
                encr: suite.encr,
                integ: suite.integ,
            }));
        }
        self.suite = Some(suite);
        let IkeKeys { sk_d, sk_ai, sk_ar, sk_ei, sk_er, sk_pi, sk_pr } = keys;
        self.protection = Some(Protection::of(suite.sk_suite(), self.role, (sk_ei, sk_ai), (sk_er, sk_ar)));
        self.sk_d = Some(sk_d);
        if let Some(setup) = &mut self.setup {
            setup.sk_p = Some((sk_pi, sk_pr));
        }
    }

    /// It is authenticated (or was made by rekeying one that is).
    pub(crate) fn establish(&mut self, cx: &mut Core) {
        self.state = State::Established;
        self.established = Some(cx.now);
        self.heard = cx.now;
        if self.half_open {
            cx.gate.note_proved();
        }
        self.no_longer_half_open(cx);
        cx.disarm(Timer::GiveUp(self.id));
        let Some(realm) = self.realm.clone() else { return };
        if let Some(peer) = &self.peer_id {
            cx.note_up(&realm.name, peer, self.id);
        }
        if !realm.ike_rekey.time.is_zero() {
            let after = cx.jittered_time(realm.ike_rekey.time, realm.ike_rekey.jitter);
            self.rekey_at = cx.now.checked_add(after);
            cx.arm(Timer::RekeyIke(self.id), after);
            let hard = realm.ike_rekey.hard_factor.max(1.0);
            let hard = Duration::try_from_secs_f64(realm.ike_rekey.time.as_secs_f64() * hard);
            cx.arm(Timer::ExpireIke(self.id), hard.unwrap_or(Duration::MAX));
        }
        if !realm.dpd.delay.is_zero() {
            cx.arm(Timer::Liveness(self.id), realm.dpd.delay);
        }
    }

    pub(crate) fn no_longer_half_open(&mut self, cx: &mut Core) {
        if std::mem::take(&mut self.half_open) {
            cx.half_open = cx.half_open.saturating_sub(1);
        }
    }

    /// Ends the SA without another word to the peer.
    pub(crate) fn close(&mut self, cx: &mut Core, kind: DownKind, why: Why) {
        self.end(cx, kind, why);
        self.state = State::Gone;
    }

    /// Ends the SA, but goes on answering retransmissions of what was answered last.
    pub(crate) fn close_lingering(&mut self, cx: &mut Core, kind: DownKind, why: Why) {
        self.end(cx, kind, why);
        self.state = State::Closed;
        cx.arm(Timer::GiveUp(self.id), LINGER);
    }

    fn end(&mut self, cx: &mut Core, kind: DownKind, why: Why) {
        if matches!(self.state, State::Closed | State::Gone) {
            return;
        }
        self.no_longer_half_open(cx);
        let was_up = self.established.is_some();
        let moved = self.state == State::Rekeyed;
        let names = self.wanted_again();
        // What passes on to the SA that replaces this one is still to be fetched.
        if !moved {
            for id in self.children.ids() {
                self.remove_child(cx, id, why.clone(), self.superseded);
            }
            self.release_addresses(cx);
            self.tasks.clear();
        }
        self.cancel_setup(cx);
        self.cancel_ours(cx);
        self.cancel_theirs(cx);
        self.cancel_suspended(cx);
        for timer in [
            Timer::Retransmit(self.id),
            Timer::GiveUp(self.id),
            Timer::Liveness(self.id),
            Timer::RekeyIke(self.id),
            Timer::Reauth(self.id),
            Timer::ExpireIke(self.id),
            Timer::Tasks(self.id),
            Timer::Superseded(self.id),
            Timer::Session(self.id),
        ] {
            cx.disarm(timer);
        }
        self.send = SendWindow::starting_at(0);
        if was_up && let (Some(realm), Some(peer)) = (&self.realm, &self.peer_id) {
            cx.note_down(&realm.name, peer, self.id);
        }
        if let Some(old) = self.replaces {
            // The old one is as good as it was; its replacement is tried again.
            cx.arm(Timer::Reauth(old), REAUTH_AGAIN);
        }
        // Not answered, so it takes no place among the questions that are out: however many there are, it is said.
        cx.fx.push(Effect::Ask { token: Token(0), request: Request::Forget { sa: self.id } });
        let closed = Event::IkeClosed {
            sa: self.id,
            realm: self.realm.as_ref().map(|r| r.name.clone()),
            remote: self.path.remote,
            why: why.clone(),
            was_up,
        };
        // What strangers begin and never end must not fill the log.
        if was_up || self.role == Role::Initiator {
            cx.event(closed)
        } else {
            cx.refusal(closed)
        }
        if let Some(realm) = &self.realm
            && !moved
            && !self.unmourned
        {
            let down = Down { why, kind, children: names };
            cx.todo.push_back(Todo::IkeDown { realm: realm.name.clone(), down });
        }
    }

    /// Names of the children that would have to be set up again with a new IKE SA, each once.
    fn wanted_again(&self) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let waiting = self
            .setup
            .iter()
            .flat_map(|s| s.child.iter().map(|c| &c.wanted.name).chain(s.wanted.iter().map(|w| &w.name)));
        for name in waiting.chain(self.children.values().map(|c| &c.name)) {
            if !names.contains(name) {
                names.push(Arc::clone(name));
            }
        }
        names
    }

    /// Forgets the jobs and the SPI of an unfinished set-up.
    pub(crate) fn cancel_setup(&mut self, cx: &mut Core) {
        if let Some(setup) = self.setup.take() {
            cx.forget_crypto(setup.crypto);
            cx.forget_ask(setup.ask);
            if let Some(child) = &setup.child {
                cx.free_esp_spi(child.spi_in);
            }
        }
    }
}
