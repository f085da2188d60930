//! The engine: what goes in and what comes out. Everything else of this crate hangs below.
//!
//! Read on in [`crate::message`] for the way of a protected message, in `init`, `auth`, `create_child`, `rekey_ike` and
//! `informational` for the exchanges, in `handler` for the extensions, in `keeper` for what keeps realms up.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use ipc::{CertAsks, Reply};
use policy::Realm;
use spi::{CryptoDone, FaultKind, Outcome, ShortOps, Token};
use wire::ike::{Flags, Header, Message, Notify, peek_header};
use wire::numbers::{ExchangeType, NotifyType, PayloadType};

use crate::config::Config;
use crate::core::{Core, GATE_LOOK, Slot, Timer};
use crate::effect::{Command, CommandId, Effect, EspSignal, IkeSaId, Path};
use crate::handler::{self, Handlers};
use crate::init;
use crate::keeper::{Keeper, Waiter};
use crate::sa::{IkeSa, State};
use crate::status::Status;

/// All IKE SAs of one gateway. Every call may append to `fx`; the caller carries the effects out in their order.
pub struct Engine {
    pub(crate) core: Core,
    pub(crate) sas: BTreeMap<IkeSaId, Box<IkeSa>>,
    /// IKE_SA_INIT requests that were let in, by a hash of all of their octets with a secret in it: that is how a retransmission
    /// is known (RFC 7296 section 2.1).
    requests: HashMap<u64, IkeSaId>,
    pub(crate) keepers: BTreeMap<Arc<str>, Keeper>,
    pub(crate) waiters: Vec<Waiter>,
}

impl Engine {
    /// An engine without any SA. Nothing happens before [`start`](Engine::start) or the first datagram.
    pub fn new(config: Config, short: Arc<dyn ShortOps>, now: Instant) -> Engine {
        Engine::with_handlers(config, short, now, handler::standard())
    }

    pub(crate) fn with_handlers(
        config: Config,
        short: Arc<dyn ShortOps>,
        now: Instant,
        handlers: Handlers,
    ) -> Engine {
        Engine {
            core: Core::new(config, short, now, handlers),
            sas: BTreeMap::new(),
            requests: HashMap::new(),
            keepers: BTreeMap::new(),
            waiters: Vec::new(),
        }
    }

    /// Brings up what is to be up by itself: realms and children with `start = boot`.
    pub fn start(&mut self, now: Instant, fx: &mut Vec<Effect>) {
        self.core.now = now;
        for realm in self.core.realms.iter().cloned().collect::<Vec<_>>() {
            self.keep(&realm);
        }
        self.settle(fx);
    }

    /// Takes an IKE message; a non-ESP marker is removed already, and `natt` says whether there was one (RFC 3948 section
    /// 2.2).
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        path: Path,
        message: &[u8],
        natt: bool,
        fx: &mut Vec<Effect>,
    ) {
        self.core.now = now;
        // `path` has the socket in it; what counts is where the answer goes, not how the message was wrapped.
        let _ = natt;
        self.dispatch(path, message);
        self.settle(fx);
    }

    /// Takes the completion of an [`Effect::Crypto`]. Late, doubled and invented ones are counted and ignored.
    pub fn handle_crypto(&mut self, now: Instant, done: CryptoDone, fx: &mut Vec<Effect>) {
        self.core.now = now;
        self.crypto_done(done);
        self.settle(fx);
    }

    /// Takes the answer to an [`Effect::Ask`].
    pub fn handle_reply(&mut self, now: Instant, token: Token, reply: Reply, fx: &mut Vec<Effect>) {
        self.core.now = now;
        match self.core.take_ask(token) {
            Some(id) => self.with(id, |sa, cx| sa.handle_reply(cx, token, reply)),
            None => *self.core.dropped.entry("stale answer of the key side").or_default() += 1,
        }
        self.settle(fx);
    }

    /// Takes a signal of the data path.
    pub fn handle_esp(&mut self, now: Instant, signal: EspSignal, fx: &mut Vec<Effect>) {
        self.core.now = now;
        match signal {
            EspSignal::Acquire { realm, child, local, remote } => {
                self.acquire(&realm, child, (local, remote))
            }
            EspSignal::SoftLimit(child) => {
                self.with_child(child, |sa, cx| sa.handle_timer(cx, Timer::RekeyChild(child)));
            }
            EspSignal::HardLimit(child) => {
                self.with_child(child, |sa, cx| {
                    sa.expire_child(cx, child, "its limit of octets or packets");
                    sa.pump(cx);
                });
            }
            EspSignal::NotInstalled(child) => self.with_child(child, |sa, cx| sa.not_installed(cx, child)),
            EspSignal::PeerAlive(child) => self.with_child(child, |sa, cx| sa.peer_alive(cx, child)),
            EspSignal::PeerMoved { child, remote } => {
                self.with_child(child, |sa, cx| sa.peer_moved(cx, remote))
            }
            EspSignal::WantResource { child, resource } => {
                self.with_child(child, |sa, cx| sa.want_resource(cx, child, resource));
            }
        }
        self.settle(fx);
    }

    /// Takes a command; [`Effect::Answer`] follows when it is done.
    pub fn handle_command(&mut self, now: Instant, id: CommandId, command: Command, fx: &mut Vec<Effect>) {
        self.core.now = now;
        self.command(id, command);
        self.settle(fx);
    }

    /// Does what is due. Call it at or after [`poll_timeout`](Engine::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant, fx: &mut Vec<Effect>) {
        self.core.now = now;
        while let Some(timer) = self.core.timers.pop_due(now) {
            self.due(timer);
            self.settle(fx);
        }
    }

    /// When [`handle_timeout`](Engine::handle_timeout) has something to do; changes with every call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }

    /// Jobs the crypto queue would take now: the load signal for COOKIE.
    pub fn set_crypto_room(&mut self, room: usize) {
        self.core.crypto_room = room;
    }

    /// Puts other realms in the place of the present ones. SAs of realms that did not change stay up; those of changed and
    /// vanished ones are deleted; what is to be up by itself comes up.
    pub fn reload(&mut self, now: Instant, realms: Vec<Arc<Realm>>, fx: &mut Vec<Effect>) {
        self.core.now = now;
        self.replace_realms(realms);
        self.settle(fx);
    }

    /// Hashes of the CAs of a realm, for CERTREQ.
    pub fn set_authorities(&mut self, realm: &str, asks: CertAsks) {
        self.core.config.authorities.insert(realm.to_owned(), asks);
    }

    /// What the sender of a message has shown so far, going by its header; the message itself is not looked at.
    pub fn standing(&self, message: &[u8]) -> Standing {
        let Ok(header) = peek_header(message) else { return Standing::Stranger };
        if header.exchange == ExchangeType::IKE_SA_INIT && !header.is_response() {
            // RFC 7296 section 2.6: a returned COOKIE is the first payload. Whether it is one of ours is found out later.
            let cookie = header.next_payload == PayloadType::NOTIFY;
            return if cookie { Standing::Reachable } else { Standing::Stranger };
        }
        let own =
            if header.exchange == ExchangeType::IKE_SA_INIT { header.spi_i } else { header.receiver_spi() };
        match self.core.ike_spis.get(&own).and_then(|id| self.sas.get(id)) {
            Some(sa) if sa.is_authenticated() => Standing::Proved,
            Some(_) => Standing::Reachable,
            None => Standing::Stranger,
        }
    }

    /// What is there, for people.
    pub fn status(&self) -> Status {
        crate::status::of(self)
    }
}

/// What the sender of a message has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Who it is; or somebody who heard the SPIs says so.
    Proved,
    /// That it gets what is sent to it.
    Reachable,
    /// Nothing.
    Stranger,
}

impl Engine {
    /// Has an SA do something, and sees to it when that was its end.
    pub(crate) fn with(&mut self, id: IkeSaId, what: impl FnOnce(&mut IkeSa, &mut Core)) {
        if let Some(sa) = self.sas.get_mut(&id) {
            what(sa, &mut self.core);
            self.bury(id);
        }
    }

    fn with_child(&mut self, child: crate::effect::ChildId, what: impl FnOnce(&mut IkeSa, &mut Core)) {
        // Of children that are fading nothing is to be learned any more.
        if let Some(id) = self.core.child_of.get(&child) {
            self.with(*id, what);
        }
    }

    /// Takes a new SA in.
    pub(crate) fn adopt(&mut self, sa: Box<IkeSa>) {
        let id = sa.id;
        if let Some(realm) = &sa.realm {
            self.core.note_coming(&realm.name, id);
        }
        self.sas.insert(id, sa);
        self.bury(id);
    }

    /// Drops an SA that is gone.
    fn bury(&mut self, id: IkeSaId) {
        if self.sas.get(&id).is_some_and(|sa| sa.state == State::Gone)
            && let Some(sa) = self.sas.remove(&id)
        {
            self.core.ike_spis.remove(&sa.own_spi());
            sa.fingerprint.map(|fingerprint| self.requests.remove(&fingerprint));
            if let Some(realm) = &sa.realm {
                self.core.note_gone(&realm.name, id);
            }
        }
    }

    /// Carries out what SAs want done outside themselves, and hands over the effects.
    pub(crate) fn settle(&mut self, fx: &mut Vec<Effect>) {
        while let Some(todo) = self.core.todo.pop_front() {
            self.carry_out(todo);
        }
        fx.append(&mut self.core.fx);
    }

    /// By SPI to whom a message belongs.
    fn dispatch(&mut self, path: Path, bytes: &[u8]) {
        let Ok(header) = peek_header(bytes) else {
            return self.core.dropped(path.remote, "too short for an IKE message");
        };
        if header.major != 2 {
            return self.other_version(path, &header);
        }
        if header.exchange == ExchangeType::IKE_SA_INIT {
            return match (header.is_response(), header.is_initiator()) {
                (false, true)
                    if header.spi_r.is_zero() && header.message_id == 0 && !header.spi_i.is_zero() =>
                {
                    self.stranger(path, bytes);
                }
                (true, false) => match self.core.ike_spis.get(&header.spi_i) {
                    Some(id) => self.with(*id, |sa, cx| sa.handle_init_response(cx, path, bytes)),
                    None => self.core.dropped(path.remote, "unknown IKE SPI"),
                },
                _ => self.core.dropped(path.remote, "IKE_SA_INIT with an impossible header"),
            };
        }
        let own = header.receiver_spi();
        let known = self.core.ike_spis.get(&own).copied().filter(|id| {
            self.sas.get(id).is_some_and(|sa| sa.spi_i == header.spi_i && sa.spi_r == header.spi_r)
        });
        match known {
            Some(id) if !own.is_zero() => {
                self.with(id, |sa, cx| sa.handle_protected(cx, path, &header, bytes))
            }
            // RFC 7296 section 2.21.4 would allow an INVALID_IKE_SPI; nobody may act on it, so nobody gets one.
            _ => self.core.dropped(path.remote, "unknown IKE SPI"),
        }
    }

    /// RFC 7296 section 2.5: a request of a higher major version is told ours; of a lower one, as IKEv1, nothing.
    fn other_version(&mut self, path: Path, header: &Header) {
        self.core.dropped(path.remote, "another major version");
        let told = header.major > 2 && !header.is_response() && !header.spi_i.is_zero();
        if told && self.core.may_tell_strangers() {
            let answer =
                Header::new(header.spi_i, header.spi_r, header.exchange, Flags::RESPONSE, header.message_id);
            let notify = Notify::with_data(NotifyType::INVALID_MAJOR_VERSION, vec![2]);
            let message = Message::new(answer, vec![notify.into()]).emit();
            self.core.fx.push(Effect::Send { path, message });
        }
    }

    fn stranger(&mut self, path: Path, bytes: &[u8]) {
        let fingerprint = self.core.hasher.hash_one((path.remote, bytes));
        if let Some(id) = self.requests.get(&fingerprint).copied() {
            self.core.repeats.received += 1;
            return self.with(id, |sa, cx| sa.repeat_init_response(cx, path, bytes));
        }
        if self.sas.len() >= self.core.config.ike_sa_limit {
            return self.core.dropped(path.remote, "too many IKE SAs");
        }
        if let Some(mut sa) = init::admit(&mut self.core, path, bytes) {
            sa.fingerprint = Some(fingerprint);
            self.requests.insert(fingerprint, sa.id);
            self.adopt(sa);
        }
    }

    fn crypto_done(&mut self, done: CryptoDone) {
        let CryptoDone { token, outcome, output } = done;
        let Some(wait) = self.core.take_crypto(token) else {
            *self.core.dropped.entry("stale completion of a device").or_default() += 1;
            return;
        };
        let (id, slot) = (wait.sa, wait.slot);
        let lost = matches!(outcome, Outcome::Failed(f) if matches!(f.kind, FaultKind::Aborted | FaultKind::StaleHandle));
        if lost && let Some(again) = self.core.reissue(wait) {
            return self.with(id, |sa, _| sa.reissued(slot, token, again));
        }
        self.with(id, |sa, cx| match slot {
            Slot::Init => {
                if sa.setup.as_ref().is_some_and(|s| s.crypto == Some(token)) {
                    sa.init_done(cx, outcome, output);
                }
            }
            Slot::Ours => sa.ours_done(cx, token, outcome, output),
            Slot::Theirs => sa.theirs_done(cx, token, outcome, output),
            Slot::Handler => sa.resume(cx, token, (outcome, output)),
        });
    }

    fn due(&mut self, timer: Timer) {
        match timer {
            Timer::Retransmit(id)
            | Timer::GiveUp(id)
            | Timer::Liveness(id)
            | Timer::RekeyIke(id)
            | Timer::Reauth(id)
            | Timer::ExpireIke(id)
            | Timer::Tasks(id)
            | Timer::Superseded(id)
            | Timer::Session(id) => self.with(id, |sa, cx| sa.handle_timer(cx, timer)),
            Timer::RekeyChild(child)
            | Timer::ExpireChild(child)
            | Timer::Redundant(child)
            | Timer::Granted(child) => {
                self.with_child(child, |sa, cx| sa.handle_timer(cx, timer));
            }
            Timer::Faded(child) => {
                if let Some(removed) = self.core.fading.remove(&child) {
                    self.core.free_esp_spi(removed.spi_in);
                    self.core.fx.push(Effect::RemoveChild(removed));
                }
            }
            Timer::Realms => self.retry_realms(),
            Timer::Gate => {
                let (now, load) = (self.core.now, self.core.load());
                let switch = self.core.gate.handle_timeout(now, load);
                self.core.note_switch(switch);
                if self.core.gate.is_on() {
                    self.core.arm(Timer::Gate, GATE_LOOK);
                }
            }
        }
    }
}

impl IkeSa {
    /// A job was issued again under another token.
    fn reissued(&mut self, slot: Slot, old: Token, new: Token) {
        use crate::create_child::{Ours, Theirs};
        let place = match slot {
            Slot::Init => self.setup.as_mut().map(|s| &mut s.crypto),
            Slot::Ours => match &mut self.ours {
                Some(Ours::Child(c)) => Some(&mut c.token),
                Some(Ours::Rekey(r)) => Some(&mut r.token),
                _ => None,
            },
            Slot::Theirs => match &mut self.theirs {
                Some(Theirs::Child(c)) => Some(&mut c.token),
                Some(Theirs::Rekey(r)) => Some(&mut r.token),
                None => None,
            },
            Slot::Handler => {
                if let Some(suspended) = &mut self.suspended
                    && suspended.token == old
                {
                    suspended.token = new;
                }
                None
            }
        };
        if let Some(place) = place
            && *place == Some(old)
        {
            *place = Some(new);
        }
    }
}
