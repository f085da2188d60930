//! EAP carried to a RADIUS server and back (RFC 3579): we ask for the identity, and what follows is the server's.

use std::net::IpAddr;

use eap::{Conversation, Grant, Step};
use wire::eap::EapMessage;
use wire::numbers::{EapCode, EapType};

use crate::attribute::{Kind, MAX_VALUE, Written};
use crate::client::{Client, Waiting};
use crate::engine::{Answer, Question, Reply, ServerId};
use crate::granted::{granted, message, shown};
use crate::packet::Code;

/// Packets of the peer in one conversation. EAP-TLS with long chains takes some tens.
const MAX_ROUNDS: usize = 128;
/// Packets that are no answer to what was asked last.
const MAX_STRAY: usize = 3;
/// Identifier of our own request for the identity.
const FIRST: u8 = 0;
/// NAS-Port-Type of a tunnel: Virtual (RFC 2865 section 5.41).
const VIRTUAL: u32 = 5;
/// Service-Type: Framed.
const FRAMED: u32 = 2;

/// What a server is told of the peer.
///
/// | attribute | from |
/// |---|---|
/// | User-Name | the identity that the peer gives by EAP, or [`Details::identity`] |
/// | NAS-Identifier, NAS-IP-Address or NAS-IPv6-Address | [`Config`](crate::Config) |
/// | NAS-Port-Type, Service-Type | Virtual, Framed |
/// | Calling-Station-Id, Called-Station-Id | [`Details::peer`], [`Details::called`] |
/// | Framed-MTU | [`Details::mtu`], by which a server cuts EAP-TLS |
/// | Connect-Info, Acct-Session-Id | [`Details::connect_info`], [`Details::session`] |
#[derive(Clone, Debug)]
pub struct Details {
    /// The peer's address.
    pub peer: IpAddr,
    /// What it called: our identity, or our address.
    pub called: String,
    /// The name that accounting will have for the session.
    pub session: String,
    /// How it came, in words.
    pub connect_info: String,
    /// Octets of an EAP packet that fit one way.
    pub mtu: u16,
    /// The identity, if it is known already; otherwise the peer is asked.
    pub identity: Option<String>,
}

/// One conversation.
pub struct Passthrough {
    client: Client,
    details: Details,
    state: State,
    /// What the peer calls itself; need not be text.
    name: Vec<u8>,
    /// What we sent last.
    request: Vec<u8>,
    /// The method that the server last asked by.
    method: Option<EapType>,
    rounds: usize,
    stray: usize,
}

enum State {
    /// Nothing has been sent.
    Begin,
    /// The peer was asked who it is.
    ExpectIdentity,
    /// A server has the peer's packet, whose identifier this is.
    ExpectServer(Waiting, u8),
    /// The peer has the server's.
    ExpectPeer { server: ServerId, state: Option<Vec<u8>> },
    /// Over.
    Over,
}

impl Passthrough {
    /// Before anything was said.
    pub fn new(client: Client, details: Details) -> Self {
        Passthrough {
            client,
            details,
            state: State::Begin,
            name: Vec::new(),
            request: Vec::new(),
            method: None,
            rounds: 0,
            stray: 0,
        }
    }

    fn begin(&mut self) -> Step {
        if let Some(identity) = self.details.identity.take() {
            let data = identity.as_bytes();
            let response = EapMessage {
                code: EapCode::RESPONSE,
                identifier: FIRST,
                kind: Some(EapType::IDENTITY),
                data,
            };
            let Some(packet) = response.emit() else {
                return self.refuse(FIRST, "an identity longer than EAP can carry".to_owned());
            };
            return self.identify(data, FIRST, &packet);
        }
        self.state = State::ExpectIdentity;
        self.request = vec![EapCode::REQUEST.0, FIRST, 0, 5, EapType::IDENTITY.0];
        Step::Send(self.request.clone())
    }

    fn identify(&mut self, identity: &[u8], identifier: u8, packet: &[u8]) -> Step {
        if identity.is_empty() || identity.len() > MAX_VALUE {
            return self.refuse(identifier, format!("an identity of {} octets", identity.len()));
        }
        self.name = identity.to_vec();
        self.ask(identifier, packet, None, None)
    }

    fn ask(&mut self, identifier: u8, packet: &[u8], only: Option<ServerId>, state: Option<Vec<u8>>) -> Step {
        let mut attributes = Written::new();
        if attributes.push(Kind::USER_NAME, &self.name).is_err() {
            return self.refuse(identifier, "an identity that does not fit".to_owned());
        }
        attributes.append(&self.client.nas());
        attributes.number(Kind::NAS_PORT_TYPE, VIRTUAL);
        attributes.number(Kind::SERVICE_TYPE, FRAMED);
        attributes.text(Kind::CALLING_STATION_ID, &self.details.peer.to_string());
        attributes.text(Kind::CALLED_STATION_ID, &self.details.called);
        attributes.text(Kind::ACCT_SESSION_ID, &self.details.session);
        attributes.text(Kind::CONNECT_INFO, &self.details.connect_info);
        attributes.number(Kind::FRAMED_MTU, self.details.mtu.into());
        attributes.eap(packet);
        if let Some(state) = state
            && attributes.push(Kind::STATE, &state).is_err()
        {
            return self.refuse(identifier, "the server's State is too long".to_owned());
        }
        match self.client.ask(Question { attributes, only }) {
            Ok(waiting) => {
                self.state = State::ExpectServer(waiting, identifier);
                Step::Wait
            }
            Err(why) => self.refuse(identifier, format!("RADIUS: {why}")),
        }
    }

    fn answered(&mut self, answer: Answer, identifier: u8) -> Step {
        let reply = match answer {
            Answer::Reply(reply) => *reply,
            Answer::Nobody(why) => return self.refuse(identifier, format!("RADIUS: {why}")),
        };
        let Reply { server, name, code, attributes, msk } = reply;
        let read = attributes.read();
        let packet = read.eap();
        // RFC 3579 section 2.6.3: a packet that says something else than the server does is no yes.
        let says = packet.as_deref().and_then(|packet| EapMessage::parse(packet).ok());
        match code {
            Code::ACCESS_CHALLENGE => {
                let Some(request) = says.filter(|says| says.code == EapCode::REQUEST) else {
                    return self.refuse(identifier, format!("{name} challenges without an EAP request"));
                };
                if let Some(kind) = request.kind.filter(|kind| !ASIDE.contains(kind)) {
                    self.method = Some(kind);
                }
                let state = read.first(Kind::STATE).map(|state| state.value.to_vec());
                self.state = State::ExpectPeer { server, state };
                self.request = packet.unwrap_or_default();
                Step::Send(self.request.clone())
            }
            Code::ACCESS_ACCEPT => {
                if says.is_none_or(|says| says.code != EapCode::SUCCESS) {
                    return self.refuse(identifier, format!("{name} accepts without an EAP success"));
                }
                if let Some(text) = message(read) {
                    tracing::info!(server = %name, user = %shown(&self.name), %text, "RADIUS accepted");
                }
                self.state = State::Over;
                let named = read.first(Kind::USER_NAME).map(|name| shown(name.value));
                let method =
                    self.method.map_or("RADIUS".to_owned(), |kind| format!("RADIUS, {}", method(kind)));
                let grant = Grant {
                    identity: named.filter(|name| !name.is_empty()).unwrap_or_else(|| shown(&self.name)),
                    method,
                    msk,
                    granted: granted(read),
                };
                Step::Accepted { packet, grant: Box::new(grant) }
            }
            _ => {
                let text = message(read).map(|text| format!(": {text}")).unwrap_or_default();
                let why = format!("{name} refuses {}{text}", shown(&self.name));
                self.state = State::Over;
                let failed = says.is_some_and(|says| says.code == EapCode::FAILURE);
                let failure = packet.filter(|_| failed).unwrap_or_else(|| failure_to(identifier));
                Step::Refused { packet: Some(failure), why }
            }
        }
    }

    fn refuse(&mut self, identifier: u8, why: String) -> Step {
        self.state = State::Over;
        Step::Refused { packet: Some(failure_to(identifier)), why }
    }

    /// Something that is no answer to our last request: RFC 3748 section 4.1 has it dropped, so it gets that again.
    fn stray(&mut self) -> Step {
        self.stray += 1;
        if self.stray > MAX_STRAY {
            let identifier = self.request.get(1).copied().unwrap_or(FIRST);
            return self.refuse(identifier, "the peer does not answer what it is asked".to_owned());
        }
        Step::Send(self.request.clone())
    }
}

/// Types of requests that are no method.
const ASIDE: [EapType; 3] = [EapType::IDENTITY, EapType::NOTIFICATION, EapType::LEGACY_NAK];

impl Conversation for Passthrough {
    fn receive(&mut self, packet: Option<&[u8]>) -> Step {
        let Some(packet) = packet else {
            return match self.state {
                State::Begin => self.begin(),
                _ => self.stray(),
            };
        };
        // The server has it already; this is the peer being impatient.
        if matches!(self.state, State::ExpectServer(..)) {
            return Step::Wait;
        }
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return self.refuse(FIRST, format!("not done after {MAX_ROUNDS} packets"));
        }
        let asked = self.request.get(1).copied();
        let response = match EapMessage::parse(packet) {
            Ok(message) if message.code == EapCode::RESPONSE && asked == Some(message.identifier) => message,
            _ => return self.stray(),
        };
        match std::mem::replace(&mut self.state, State::Over) {
            State::ExpectIdentity if response.kind == Some(EapType::IDENTITY) => {
                self.identify(response.data, response.identifier, packet)
            }
            State::ExpectPeer { server, state } => self.ask(response.identifier, packet, Some(server), state),
            State::Over => self.refuse(response.identifier, "it is over".to_owned()),
            before => {
                self.state = before;
                self.stray()
            }
        }
    }

    fn poll(&mut self) -> Step {
        let State::ExpectServer(waiting, identifier) = &mut self.state else { return Step::Wait };
        let identifier = *identifier;
        match waiting.take() {
            Some(answer) => self.answered(answer, identifier),
            None => Step::Wait,
        }
    }
}

fn method(kind: EapType) -> String {
    match kind {
        EapType::MSCHAPV2 => "EAP-MSCHAPv2".to_owned(),
        EapType::GTC => "EAP-GTC".to_owned(),
        EapType::MD5_CHALLENGE => "EAP-MD5".to_owned(),
        kind => kind.name().map_or_else(|| format!("EAP method {}", kind.0), str::to_owned),
    }
}

fn failure_to(identifier: u8) -> Vec<u8> {
    vec![EapCode::FAILURE.0, identifier, 0, 4]
}
