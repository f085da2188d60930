//! The peer: says who we are, takes a method that it likes, and believes nobody before the method has proved it.

use std::sync::Arc;

use wire::eap::EapMessage;
use wire::numbers::{EapCode, EapType};
use zeroize::Zeroizing;

use crate::account::printable;
use crate::config::{MethodKind, PeerConfig, Random};
use crate::conversation::{Conversation, Step};
use crate::gtc::GtcPeer;
use crate::judge::Judge;
use crate::md5::Md5Peer;
use crate::method::{PeerMethod, Proof, REFUSED_CERTIFICATE, REFUSED_PASSWORD, Reply};
use crate::mschapv2::MsChapV2Peer;
use crate::tls_peer;

/// Responses in one conversation.
const MAX_ROUNDS: u16 = 160;
/// Packets in one conversation that have no place in it.
const MAX_STRAYS: u16 = 16;

/// A peer's conversation with a server.
pub struct Peer {
    config: Arc<PeerConfig>,
    random: Random,
    judge: Option<Arc<dyn Judge>>,
    state: State,
    /// The last request's identifier, and what we said; nothing yet while somebody is asked for a password.
    last: Option<Request>,
    /// The one before it.
    previous: Option<Request>,
    /// What the server had us know.
    notice: Option<String>,
    rounds: u16,
    strays: u16,
}

/// A request, by its identifier, and what we said, in which there may be a password.
type Request = (u8, Option<Zeroizing<Vec<u8>>>);

enum State {
    New,
    Running {
        kind: MethodKind,
        method: Box<dyn PeerMethod>,
    },
    /// We have given up, have said so, and the server has the last word.
    Lost(String),
    Over,
}

impl Peer {
    /// A conversation.
    pub fn new(config: Arc<PeerConfig>, random: Random) -> Self {
        Peer {
            config,
            random,
            judge: None,
            state: State::New,
            last: None,
            previous: None,
            notice: None,
            rounds: 0,
            strays: 0,
        }
    }

    /// Has somebody asked whether certificates of servers were revoked.
    pub fn judged_by(self, judge: Option<Arc<dyn Judge>>) -> Self {
        Peer { judge, ..self }
    }

    /// What EAP-TTLS begins its inner conversation with: our identity, that nobody asked for.
    pub(crate) fn introduction(&self) -> Option<Vec<u8>> {
        let data = self.config.identity.as_bytes();
        let message =
            EapMessage { code: EapCode::RESPONSE, identifier: 0, kind: Some(EapType::IDENTITY), data };
        message.emit()
    }

    /// Why we have given up, if we have.
    pub(crate) fn lost(&self) -> Option<&str> {
        match &self.state {
            State::Lost(why) => Some(why),
            _ => None,
        }
    }

    /// What the method proved, if the server may call it a success now.
    pub(crate) fn content(&self) -> Option<Proof> {
        match &self.state {
            State::Running { method, .. } => method.succeed()?.ok(),
            _ => None,
        }
    }

    fn on_request(&mut self, request: &EapMessage<'_>) -> Step {
        let kind = request.kind.unwrap_or(EapType(0));
        match kind {
            EapType::IDENTITY => {
                let name = self.config.anonymous.as_deref().unwrap_or(&self.config.identity);
                let name = name.as_bytes().to_vec();
                self.answer(kind, &name)
            }
            EapType::NOTIFICATION => {
                self.notice = Some(printable(request.data));
                self.answer(kind, &[])
            }
            EapType::LEGACY_NAK => self.ignore(),
            _ => self.on_method(kind, request),
        }
    }

    fn on_method(&mut self, kind: EapType, request: &EapMessage<'_>) -> Step {
        if matches!(self.state, State::New) {
            let takes = |kind: &MethodKind| {
                self.config.methods.contains(kind) && (self.config.allow_keyless || kind.derives_key())
            };
            let Some(wanted) = MethodKind::from_number(kind.0).filter(takes) else {
                let mut can: Vec<u8> =
                    self.config.methods.iter().filter(|kind| takes(kind)).map(|kind| kind.number()).collect();
                if can.is_empty() {
                    // RFC 3748 section 5.3.1: a zero is "nothing else".
                    can.push(0);
                }
                if kind == EapType::EXPANDED {
                    // Section 5.3.2: types of eight octets, the first of which says that this is a Nak.
                    let types = [EapType::LEGACY_NAK.0].into_iter().chain(can);
                    let nak: Vec<u8> =
                        types.flat_map(|number| [kind.0, 0, 0, 0, 0, 0, 0, number]).skip(1).collect();
                    return self.answer(kind, &nak);
                }
                return self.answer(EapType::LEGACY_NAK, &can);
            };
            match self.method(wanted) {
                Ok(method) => self.state = State::Running { kind: wanted, method },
                Err(why) => return self.lose(None, why),
            }
        }
        let State::Running { kind: running, method } = &mut self.state else { return self.ignore() };
        // RFC 3748 section 2.1: no second method after a first.
        if running.number() != kind.0 {
            return self.ignore();
        }
        let reply = method.receive(request.data, request.identifier);
        self.go_on(reply)
    }

    fn method(&self, kind: MethodKind) -> Result<Box<dyn PeerMethod>, String> {
        let config = Arc::clone(&self.config);
        Ok(match kind {
            MethodKind::Md5 => Box::new(Md5Peer::new(config)),
            MethodKind::Gtc => Box::new(GtcPeer::new(config)),
            MethodKind::MsChapV2 => Box::new(MsChapV2Peer::new(config, Arc::clone(&self.random))),
            MethodKind::Tls | MethodKind::Ttls | MethodKind::Peap => {
                tls_peer::method(kind, config, Arc::clone(&self.random), self.judge.clone())?
            }
        })
    }

    fn go_on(&mut self, reply: Reply) -> Step {
        let State::Running { kind, .. } = self.state else { return Step::Wait };
        match reply {
            Reply::Answer(data) => self.answer(EapType(kind.number()), &data),
            Reply::Wait => Step::Wait,
            Reply::Ignore => self.ignore(),
            Reply::Fail(data, why) => {
                let why = format!("{kind}: {why}");
                self.lose(data.map(|data| (EapType(kind.number()), data)), why)
            }
        }
    }

    /// Gives up; with something to say, the server's failure is awaited.
    fn lose(&mut self, say: Option<(EapType, Vec<u8>)>, why: String) -> Step {
        match say {
            Some((kind, data)) => {
                self.state = State::Lost(why);
                self.answer(kind, &data)
            }
            None => self.refused(why),
        }
    }

    fn answer(&mut self, kind: EapType, data: &[u8]) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return self.refused(format!("more than {MAX_ROUNDS} packets"));
        }
        let identifier = self.last.as_ref().map_or(0, |(id, _)| *id);
        match (EapMessage { code: EapCode::RESPONSE, identifier, kind: Some(kind), data }).emit() {
            Some(response) => {
                self.last = Some((identifier, Some(response.clone().into())));
                Step::Send(response)
            }
            None => self.refused("a response that is too long".into()),
        }
    }

    fn refused(&mut self, mut why: String) -> Step {
        self.state = State::Over;
        if let Some(notice) = &self.notice {
            why = format!("{why} (the server said: {notice})");
        }
        Step::Refused { packet: None, why }
    }

    /// Not the request it seemed to be: the true one may still come under the same identifier.
    fn ignore(&mut self) -> Step {
        self.last = self.previous.take();
        self.stray()
    }

    fn stray(&mut self) -> Step {
        self.strays += 1;
        if self.strays > MAX_STRAYS {
            return self.refused("too many packets that have no place in the conversation".into());
        }
        Step::Wait
    }

    fn on_success(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running { kind, method } => match method.succeed() {
                Some(Ok(proof)) => Step::Accepted { packet: None, grant: Box::new(proof.into()) },
                Some(Err(why)) => self.refused(format!("{kind}: {why}")),
                None => self.refused(format!("{kind}: the server says success before it has proved itself")),
            },
            State::Lost(why) => self.refused(why),
            _ => self.refused("the server says success without any method".into()),
        }
    }

    fn on_failure(&mut self) -> Step {
        let why = match std::mem::replace(&mut self.state, State::Over) {
            State::Running { kind: kind @ MethodKind::Tls, .. } => format!("{kind}: {REFUSED_CERTIFICATE}"),
            State::Running { kind, .. } => format!("{kind}: {REFUSED_PASSWORD}"),
            State::Lost(why) => why,
            _ => "the server refused us before any method".into(),
        };
        self.refused(why)
    }
}

impl Conversation for Peer {
    fn receive(&mut self, packet: Option<&[u8]>) -> Step {
        if matches!(self.state, State::Over) {
            return Step::Wait;
        }
        let Some(packet) = packet else { return Step::Wait };
        let Ok(message) = EapMessage::parse(packet) else { return self.stray() };
        match message.code {
            EapCode::REQUEST => {
                if let Some((id, said)) = &self.last {
                    // RFC 3748 section 4.1: the same identifier is the same request, and gets the same answer.
                    if *id == message.identifier {
                        let Some(said) = said.clone() else { return Step::Wait };
                        self.strays += 1;
                        return if self.strays > MAX_STRAYS {
                            self.stray()
                        } else {
                            Step::Send(said.to_vec())
                        };
                    }
                }
                self.previous = self.last.replace((message.identifier, None));
                self.on_request(&message)
            }
            EapCode::SUCCESS => self.on_success(),
            EapCode::FAILURE => self.on_failure(),
            _ => self.stray(),
        }
    }

    fn poll(&mut self) -> Step {
        let State::Running { method, .. } = &mut self.state else { return Step::Wait };
        let reply = method.poll();
        self.go_on(reply)
    }

    fn failed(&self) -> Option<String> {
        self.lost().map(str::to_owned)
    }

    fn is_judging(&self) -> bool {
        matches!(&self.state, State::Running { method, .. } if method.is_judging())
    }
}
