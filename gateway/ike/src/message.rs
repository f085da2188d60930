//! Protected messages of one IKE SA: sealing, sending, retransmitting, opening, and who is to look at them (RFC 7296 sections
//! 2.1 to 2.4, 2.21).
//!
//! A message that comes in passes these stages; whatever fails one is dropped and counted.
//!
//! 1. The message ID: a retransmission is answered from memory, what is outside the window goes.
//! 2. The ICV; fragments are put together.
//! 3. The peer was heard of, perhaps from another address.
//! 4. By exchange type to whoever expects it; before AUTH has succeeded only IKE_AUTH is expected.

use ipc::Role;
use wire::ike::{Delete, Flags, Header, Notify, Payload, PayloadList, sk_split};
use wire::numbers::{ExchangeType, NotifyType};

use crate::core::{Core, DownKind, Timer, Todo};
use crate::datagrams::Datagrams;
use crate::effect::{Effect, Event, Path, Why};
use crate::frag::{self, Progress};
use crate::protect::{OpenError, Opened, SealError};
use crate::sa::{IkeSa, State};
use crate::window::{Incoming, Outgoing, Retry};

impl IkeSa {
    /// Sends a request; the caller has made sure that none is outstanding. False, and a closed SA, when it cannot.
    pub(crate) fn send_request(
        &mut self,
        cx: &mut Core,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) -> bool {
        let Some(id) = self.send.next_id() else {
            self.close(cx, DownKind::Failed, Why::Device("no message ID left".into()));
            return false;
        };
        let datagrams = match self.seal(cx, exchange, Flags(0), id, payloads) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                self.close(cx, DownKind::Failed, Why::Device(format!("sealing a request: {error}")));
                return false;
            }
        };
        let kept = Datagrams::new(&datagrams);
        let path = self.path;
        cx.fx.extend(datagrams.into_iter().map(|message| Effect::Send { path, message }));
        self.send.commit(Outgoing::new(id, kept, cx.now, &cx.config.retransmission));
        self.arm_retransmission(cx);
        true
    }

    /// Answers a request, and keeps the answer for its retransmissions.
    pub(crate) fn respond(&mut self, cx: &mut Core, exchange: ExchangeType, id: u32, payloads: &[Payload]) {
        let datagrams = match self.seal(cx, exchange, Flags::RESPONSE, id, payloads) {
            Ok(datagrams) => datagrams,
            Err(error) => {
                return self.close(cx, DownKind::Failed, Why::Device(format!("sealing a response: {error}")));
            }
        };
        self.receive.respond(id, Datagrams::new(&datagrams));
        // RFC 7296 section 2.11: the response goes where the request came from.
        let path = self.reply_path();
        cx.fx.extend(datagrams.into_iter().map(|message| Effect::Send { path, message }));
    }

    /// A response of one notification.
    pub(crate) fn respond_error(&mut self, cx: &mut Core, exchange: ExchangeType, id: u32, notify: Notify) {
        self.respond(cx, exchange, id, &[notify.into()]);
    }

    fn seal(
        &mut self,
        cx: &Core,
        exchange: ExchangeType,
        direction: Flags,
        id: u32,
        payloads: &[Payload],
    ) -> Result<Vec<Vec<u8>>, SealError> {
        let flags = if self.role == Role::Initiator { direction | Flags::INITIATOR } else { direction };
        let header = Header::new(self.spi_i, self.spi_r, exchange, flags, id);
        // RFC 7383 section 2.5: a message that fits is not fragmented.
        let max = match self.realm.as_ref().or(self.setup.as_ref().and_then(|s| s.candidates.first())) {
            Some(realm) if self.ext.fragments => {
                let marker = self.path.local.port() == cx.config.natt_port;
                frag::max_message(realm.fragment_size, self.path.remote.ip(), marker)
            }
            _ => usize::MAX,
        };
        let protection = self.protection.as_mut().ok_or(spi::Fault::new(spi::FaultKind::Internal))?;
        frag::split(&*cx.ops, protection, &header, payloads, max)
    }

    pub(crate) fn arm_retransmission(&mut self, cx: &mut Core) {
        match self.send.next_at() {
            Some(at) => cx.timers.arm(Timer::Retransmit(self.id), at),
            None => cx.disarm(Timer::Retransmit(self.id)),
        }
    }

    /// A request of ours was not answered in time.
    pub(crate) fn retransmit(&mut self, cx: &mut Core) {
        let policy = cx.config.retransmission;
        let path = self.path;
        let mut dead = None;
        for request in self.send.waiting_mut() {
            match request.handle_timeout(cx.now, &policy) {
                Retry::NotYet => {}
                Retry::Resend(datagrams) => {
                    cx.repeats.sent += 1;
                    cx.fx.extend(datagrams.iter().map(|m| Effect::Send { path, message: m.to_vec() }));
                }
                Retry::GiveUp => dead = Some(cx.now.duration_since(request.sent_at())),
            }
        }
        let Some(after) = dead else { return self.arm_retransmission(cx) };
        let hint =
            self.setup.as_ref().and_then(|s| s.hint.clone()).map(|h| format!(" ({h})")).unwrap_or_default();
        let what = match self.state {
            State::ExpectInitResponse => "IKE_SA_INIT",
            State::ExpectAuthResponse => "IKE_AUTH",
            _ => "a request",
        };
        let tries = policy.tries + 1;
        let why = Why::Timeout(format!("{what} sent {tries} times in {:.0} s{hint}", after.as_secs_f64()));
        match self.state {
            State::Established => {
                cx.event(Event::PeerDead { sa: self.id, realm: self.realm_name(), after });
                self.close(cx, DownKind::Dead, why);
            }
            State::Deleting => {
                let (kind, meant) = self.why_deleting().unwrap_or((DownKind::Meant, why));
                self.close(cx, kind, meant);
            }
            State::Rekeyed => self.close(cx, DownKind::Meant, why),
            _ => self.close(cx, DownKind::Failed, why),
        }
    }

    /// Takes a message that names this SA by both SPIs.
    pub(crate) fn handle_protected(&mut self, cx: &mut Core, path: Path, header: &Header, bytes: &[u8]) {
        if self.protection.is_none() || header.is_initiator() != (self.role == Role::Responder) {
            return cx
                .dropped(path.remote, "message before there are keys, or with the wrong initiator flag");
        }
        let split = match sk_split(bytes) {
            Ok(Some(split)) => split,
            Ok(None) => return cx.dropped(path.remote, "not encrypted"),
            Err(_) => return cx.dropped(path.remote, "malformed message"),
        };
        let id = header.message_id;
        if header.is_response() {
            if !self.send.is_waiting(id) {
                return cx.dropped(path.remote, "response nobody waits for");
            }
        } else {
            match self.receive.classify(id, split.fragment.map(|f| f.number)) {
                Incoming::New => {}
                Incoming::Retransmission(datagrams) => {
                    // Unasked by the peer itself, a long answer to a short forgery would be somebody's weapon.
                    if !self.protection.as_ref().is_some_and(|p| p.is_authentic(&*cx.ops, bytes, &split)) {
                        return cx.dropped(path.remote, "integrity check failed");
                    }
                    cx.repeats.received += 1;
                    cx.fx.extend(datagrams.iter().map(|m| Effect::Send { path, message: m.to_vec() }));
                    return;
                }
                Incoming::InProgress => {
                    cx.repeats.received += u64::from(split.fragment.is_none_or(|f| f.number == 1));
                    return;
                }
                Incoming::LaterFragment => return,
                Incoming::TooOld | Incoming::Future => {
                    return cx.dropped(path.remote, "message ID outside the window");
                }
            }
        }
        if self.state == State::Closed {
            return;
        }
        let opened = if split.fragment.is_some() {
            if !self.ext.fragments {
                return cx.dropped(path.remote, "fragment, though fragmentation is not agreed on");
            }
            let Some(protection) = &self.protection else { return };
            match self.reassembly.handle_fragment(&*cx.ops, protection, bytes) {
                Ok(Progress::Complete(opened)) => Ok(opened),
                Ok(Progress::Stored | Progress::Ignored) => return,
                Err(error) => Err(error),
            }
        } else {
            let Some(protection) = &self.protection else { return };
            protection.open(&*cx.ops, bytes)
        };
        match opened {
            Ok(opened) => self.handle_opened(cx, path, opened),
            Err(error) if error.is_authentic() => self.handle_broken(cx, path, header, error),
            Err(OpenError::BadIcv) => cx.dropped(path.remote, "integrity check failed"),
            Err(_) => cx.dropped(path.remote, "malformed message"),
        }
    }

    pub(crate) fn handle_opened(&mut self, cx: &mut Core, path: Path, opened: Opened) {
        let Opened { header, payloads } = opened;
        let (exchange, id) = (header.exchange, header.message_id);
        if header.is_response() {
            if !self.expects_response(exchange) {
                return cx.dropped(path.remote, "response of another exchange than the request");
            }
            self.send.handle_response(id);
            self.arm_retransmission(cx);
            self.note_alive(cx, path);
            return match exchange {
                ExchangeType::IKE_AUTH => self.handle_auth_response(cx, payloads),
                ExchangeType::CREATE_CHILD_SA => self.handle_create_response(cx, payloads),
                _ => self.handle_informational_response(cx, payloads),
            };
        }
        if self.is_given_up(exchange, &payloads) && self.receive.begin(id) {
            self.set_reply_path(path);
            return self.handle_eap_given_up(cx, id);
        }
        if !self.expects_request(exchange) {
            return cx.dropped(path.remote, "request of an exchange that has no place here");
        }
        if !payloads.deletes().any(Delete::is_ike)
            && let Some(from) = self.rival_of.take()
        {
            let message = Box::new(Opened { header, payloads });
            return cx.todo.push_back(Todo::Yield { from, to: self.id, path, message });
        }
        if !self.receive.begin(id) {
            return;
        }
        self.set_reply_path(path);
        self.note_alive(cx, path);
        match exchange {
            ExchangeType::IKE_AUTH => self.handle_auth_request(cx, id, payloads),
            ExchangeType::CREATE_CHILD_SA => self.handle_create_request(cx, id, payloads),
            _ => self.handle_informational_request(cx, id, payloads),
        }
    }

    /// Authentic, and wrong inside (RFC 7296 section 2.21).
    fn handle_broken(&mut self, cx: &mut Core, path: Path, header: &Header, error: OpenError) {
        let why = Why::PeerMisbehaved(format!("{}: {error}", header.exchange));
        if header.is_response() {
            if self.expects_response(header.exchange) {
                // RFC 7296 section 2.21.3: the two no longer agree; starting over is the way out.
                self.close(cx, DownKind::Failed, why);
            }
            return;
        }
        if !self.expects_request(header.exchange) {
            return cx.dropped(path.remote, "request of an exchange that has no place here");
        }
        if !self.receive.begin(header.message_id) {
            return;
        }
        self.set_reply_path(path);
        match error {
            OpenError::UnsupportedCritical(kind) => {
                let notify = Notify::with_data(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind.0]);
                self.respond_error(cx, header.exchange, header.message_id, notify);
                if !self.is_authenticated() {
                    self.close_lingering(cx, DownKind::Failed, why);
                }
            }
            _ => {
                // RFC 7296 section 2.21.3: fatal on both sides, without a Delete.
                let notify = Notify::new(NotifyType::INVALID_SYNTAX);
                self.respond_error(cx, header.exchange, header.message_id, notify);
                self.close_lingering(cx, DownKind::Failed, why);
            }
        }
    }

    /// Well-formed, but not what the exchange needs: answers INVALID_SYNTAX, which ends the SA on both sides.
    pub(crate) fn refuse_syntax(&mut self, cx: &mut Core, exchange: ExchangeType, id: u32, what: &str) {
        self.respond_error(cx, exchange, id, Notify::new(NotifyType::INVALID_SYNTAX));
        self.close_lingering(cx, DownKind::Failed, Why::PeerMisbehaved(format!("{exchange}: {what}")));
    }

    /// Nothing but IKE_AUTH before AUTH has been judged: a CREATE_CHILD_SA there would give an SA to nobody.
    fn expects_request(&self, exchange: ExchangeType) -> bool {
        let expected = match exchange {
            ExchangeType::IKE_AUTH => self.state == State::ExpectAuthRequest,
            ExchangeType::CREATE_CHILD_SA | ExchangeType::INFORMATIONAL => self.is_authenticated(),
            _ => false,
        };
        expected && self.suspended.is_none()
    }

    /// Whether an initiator that is in the middle of EAP says that it gives up.
    fn is_given_up(&self, exchange: ExchangeType, message: &[Payload]) -> bool {
        let waiting = self.state == State::ExpectAuthRequest && self.has_eap() && self.suspended.is_none();
        waiting
            && exchange == ExchangeType::INFORMATIONAL
            && (message.notify(NotifyType::AUTHENTICATION_FAILED).is_some()
                || message.deletes().any(Delete::is_ike))
    }

    fn expects_response(&self, exchange: ExchangeType) -> bool {
        match self.state {
            State::ExpectAuthResponse => exchange == ExchangeType::IKE_AUTH,
            State::Established | State::Rekeyed | State::Deleting => self.our_exchange() == Some(exchange),
            _ => false,
        }
    }

    /// The peer is alive; behind a NAT it may have moved (RFC 7296 section 2.23).
    pub(crate) fn note_alive(&mut self, cx: &mut Core, path: Path) {
        self.heard = cx.now;
        if self.path == path {
            return;
        }
        // Only a peer behind a NAT may change without saying so, and only when we are not behind one ourselves: then it is our
        // mapping that the packet shows. In IKE_AUTH the peer floats to another port by itself.
        let floating = !self.is_authenticated() && self.role == Role::Responder;
        if floating {
            self.path = path;
        } else if self.nat.peer_behind && !self.nat.we_behind && self.is_authenticated() {
            self.move_path(cx, path);
        }
    }

    /// The peer is at another address from now on.
    pub(crate) fn move_path(&mut self, cx: &mut Core, path: Path) {
        self.set_path(path);
        let children = self.children.ids();
        if !children.is_empty() {
            let (path, encap) = self.esp_path(cx);
            cx.fx.push(Effect::MovePath { children, path, encap });
        }
        cx.event(Event::PeerMoved { sa: self.id, path });
    }
}
