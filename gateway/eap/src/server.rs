//! The server: asks who is there, offers its methods one after the other, and runs the one that the peer takes.

use std::sync::Arc;

use wire::eap::EapMessage;
use wire::numbers::{EapCode, EapType};
use zeroize::Zeroizing;

use crate::account::{MAX_NAME, name};
use crate::config::{MethodKind, Random, ServerConfig};
use crate::conversation::{Conversation, Step};
use crate::gtc::GtcServer;
use crate::judge::Judge;
use crate::md5::Md5Server;
use crate::method::{ServerMethod, Turn};
use crate::mschapv2::MsChapV2Server;
use crate::tls_server;

/// How often the peer is asked who it is before we believe that it will not say.
const MAX_ASKED: u8 = 3;
/// Requests in one conversation. A long chain of certificates in small fragments takes some fifty.
const MAX_ROUNDS: u16 = 160;
/// Packets in one conversation that have no place in it.
const MAX_STRAYS: u16 = 16;

/// A server's conversation with one peer.
pub struct Server {
    config: Arc<ServerConfig>,
    random: Random,
    judge: Option<Arc<dyn Judge>>,
    /// Who the peer says it is.
    identity: Option<String>,
    state: State,
    /// Methods that were offered.
    offered: Vec<MethodKind>,
    /// Identifier of the request that is out, and the request.
    id: u8,
    request: Vec<u8>,
    /// Identifier of the next request.
    next: u8,
    /// The response that this request follows, in which there may be a password.
    answered: Zeroizing<Vec<u8>>,
    rounds: u16,
    strays: u16,
}

enum State {
    New,
    /// The identity was asked for so many times.
    Asked(u8),
    /// A method runs, or was offered only.
    Running {
        kind: MethodKind,
        method: Box<dyn ServerMethod>,
        taken: bool,
    },
    Over,
}

impl Server {
    /// A conversation. `identity` is who the lower layer says the peer is (IKEv2's IDi); without it the peer is asked.
    pub fn new(config: Arc<ServerConfig>, identity: Option<&[u8]>, random: Random) -> Self {
        let mut first = [0];
        random(&mut first);
        Server {
            identity: identity.and_then(name).map(str::to_string),
            config,
            random,
            judge: None,
            state: State::New,
            offered: Vec::new(),
            id: first[0],
            next: first[0],
            request: Vec::new(),
            answered: Zeroizing::default(),
            rounds: 0,
            strays: 0,
        }
    }

    /// Has somebody asked whether certificates of clients were revoked.
    pub fn judged_by(self, judge: Option<Arc<dyn Judge>>) -> Self {
        Server { judge, ..self }
    }

    /// The identifier of the request that is out.
    pub(crate) fn id(&self) -> u8 {
        self.id
    }

    /// Has the next request bear this identifier.
    pub(crate) fn set_next_id(&mut self, id: u8) {
        self.next = id;
    }

    fn begin(&mut self) -> Step {
        if self.identity.is_none() || self.config.ask_identity {
            return self.ask(1);
        }
        self.offer(None)
    }

    fn ask(&mut self, times: u8) -> Step {
        if times > MAX_ASKED {
            return self.refuse("the peer does not say who it is, or not in a way that is a name".into());
        }
        self.state = State::Asked(times);
        self.request(EapType::IDENTITY, &[])
    }

    fn on_identity(&mut self, data: &[u8], times: u8) -> Step {
        if data.len() > 4 * MAX_NAME {
            return self.refuse(format!("an identity of {} octets", data.len()));
        }
        match name(data) {
            Some(name) => {
                self.identity = Some(name.to_string());
                self.offer(None)
            }
            None => self.ask(times + 1),
        }
    }

    /// Offers the next method: the first that was not, of those the peer can do if it said so.
    fn offer(&mut self, wanted: Option<&[u8]>) -> Step {
        let config = Arc::clone(&self.config);
        let fits = |kind: &&MethodKind| {
            !self.offered.contains(kind)
                && wanted.is_none_or(|wanted| wanted.contains(&kind.number()))
                && (config.allow_keyless || kind.derives_key())
        };
        let Some(kind) = config.methods.iter().find(fits).copied() else {
            let offered: Vec<String> = self.offered.iter().map(MethodKind::to_string).collect();
            return self.refuse(match wanted {
                Some(wanted) => {
                    format!("the peer takes none of {offered:?} and can do EAP types {wanted:?} only")
                }
                None => "no EAP method is allowed".into(),
            });
        };
        self.offered.push(kind);
        let mut method = match self.method(kind) {
            Ok(method) => method,
            Err(why) => return self.refuse(why),
        };
        let turn = method.begin(self.next);
        self.state = State::Running { kind, method, taken: false };
        self.go_on(kind, turn)
    }

    fn method(&self, kind: MethodKind) -> Result<Box<dyn ServerMethod>, String> {
        let config = Arc::clone(&self.config);
        let random = Arc::clone(&self.random);
        let identity = self.identity.clone();
        Ok(match kind {
            MethodKind::Md5 => Box::new(Md5Server::new(config, identity, &random)),
            MethodKind::Gtc => Box::new(GtcServer::new(config, identity, random)),
            MethodKind::MsChapV2 => Box::new(MsChapV2Server::new(config, identity, random)),
            MethodKind::Tls | MethodKind::Ttls | MethodKind::Peap => {
                tls_server::method(kind, config, identity, random, self.judge.clone())?
            }
        })
    }

    fn go_on(&mut self, kind: MethodKind, turn: Turn) -> Step {
        match turn {
            Turn::Ask(data) => self.request(EapType(kind.number()), &data),
            Turn::Ignore => self.stray(),
            Turn::Wait => Step::Wait,
            Turn::Refuse(why) => self.refuse(format!("{kind}: {why}")),
            Turn::Accept(proof) => {
                self.state = State::Over;
                Step::Accepted {
                    packet: Some(self.last_word(EapCode::SUCCESS)),
                    grant: Box::new(proof.into()),
                }
            }
        }
    }

    fn request(&mut self, kind: EapType, data: &[u8]) -> Step {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return self.refuse(format!("more than {MAX_ROUNDS} packets"));
        }
        let id = self.next;
        match (EapMessage { code: EapCode::REQUEST, identifier: id, kind: Some(kind), data }).emit() {
            Some(request) => {
                self.id = id;
                self.next = id.wrapping_add(1);
                self.request.clone_from(&request);
                Step::Send(request)
            }
            None => self.refuse("a request that is too long".into()),
        }
    }

    fn refuse(&mut self, why: String) -> Step {
        self.state = State::Over;
        Step::Refused { packet: Some(self.last_word(EapCode::FAILURE)), why: self.about(why) }
    }

    fn about(&self, why: String) -> String {
        format!("{}: {why}", self.identity.as_deref().unwrap_or("somebody"))
    }

    /// Success and failure carry the identifier of the response they answer (RFC 3748 section 4.2).
    fn last_word(&self, code: EapCode) -> Vec<u8> {
        vec![code.0, self.id, 0, 4]
    }

    fn stray(&mut self) -> Step {
        self.strays += 1;
        if self.strays > MAX_STRAYS {
            return self.refuse("too many packets that have no place in the conversation".into());
        }
        Step::Wait
    }

    fn on_response(&mut self, packet: &[u8], response: &EapMessage<'_>) -> Step {
        let kind = response.kind.unwrap_or(EapType(0));
        if matches!(self.state, State::New) {
            // RADIUS and EAP-TTLS begin with an answer to a question that somebody else asked.
            if kind != EapType::IDENTITY {
                return self.stray();
            }
            self.id = response.identifier;
            self.next = self.id.wrapping_add(1);
            self.answered = Zeroizing::new(packet.to_vec());
            return self.on_identity(response.data, 0);
        }
        if packet == self.answered.as_slice() {
            // RFC 3748 section 4.1: a response that came twice changes nothing.
            self.strays += 1;
            return if self.strays > MAX_STRAYS { self.stray() } else { Step::Send(self.request.clone()) };
        }
        if response.identifier != self.id {
            return self.stray();
        }
        self.answered = Zeroizing::new(packet.to_vec());
        match &mut self.state {
            State::New | State::Over => Step::Wait,
            State::Asked(times) => {
                let times = *times;
                match kind {
                    EapType::IDENTITY => self.on_identity(response.data, times),
                    // RFC 3748 section 5.1 has everybody answer this.
                    _ => self.refuse(format!("EAP type {} where an identity was asked for", kind.0)),
                }
            }
            // RFC 3748 section 5.3.1: only in answer to what was offered, never later.
            State::Running { taken: false, .. } if kind == EapType::LEGACY_NAK => {
                let wanted = response.data.get(..MAX_WANTED).unwrap_or(response.data);
                self.offer(Some(wanted))
            }
            State::Running { kind: running, method, taken } => {
                if kind.0 != running.number() {
                    return self.stray();
                }
                *taken = true;
                let running = *running;
                let turn = method.receive(response.data, self.next);
                self.go_on(running, turn)
            }
        }
    }
}

/// Methods in a peer's list that are looked at.
const MAX_WANTED: usize = 32;

impl Conversation for Server {
    fn receive(&mut self, packet: Option<&[u8]>) -> Step {
        if matches!(self.state, State::Over) {
            return Step::Wait;
        }
        let Some(packet) = packet else {
            return match self.state {
                State::New => self.begin(),
                _ => Step::Send(self.request.clone()),
            };
        };
        match EapMessage::parse(packet) {
            Ok(response) if response.code == EapCode::RESPONSE => self.on_response(packet, &response),
            _ => self.stray(),
        }
    }

    fn poll(&mut self) -> Step {
        let State::Running { kind, method, .. } = &mut self.state else { return Step::Wait };
        let (kind, turn) = (*kind, method.poll());
        self.go_on(kind, turn)
    }

    fn failed(&self) -> Option<String> {
        let State::Running { kind, method, .. } = &self.state else { return None };
        method.failed().map(|why| self.about(format!("{kind}: {why}")))
    }

    fn is_judging(&self) -> bool {
        matches!(&self.state, State::Running { method, .. } if method.is_judging())
    }
}
