//! EAP-TTLS version 0 (type 21, RFC 5281): the peer sends its name and password, or what proves it, through the tunnel.
//!
//! The peer speaks first. PAP: name and password, and that is all. MSCHAPv2: the challenge is the tunnel's, the peer sends
//! its response, the server its proof, the peer an empty packet. EAP: as outside, in attributes.

use std::sync::Arc;

use spi::Secret;
use zeroize::Zeroizing;

use crate::account::{Account, name};
use crate::ask::{Given, given};
use crate::avp::{self, Avps};
use crate::config::{Inner, PeerConfig, Random, ServerConfig};
use crate::method::Found;
use crate::mschap::Exchange;
use crate::mschapv2::{Claim, NOT_PROVEN, explain, failure, is_authenticator};
use crate::nested::{NestedPeer, NestedServer, Said};
use crate::tls::{Channel, Keys};
use crate::tls_peer::{self, Next};
use crate::tls_server::{Inside, Within};

/// Octets of a password, and what PAP fills it up to (RFC 5281 section 11.2.5).
const MAX_PASSWORD: usize = 1024;
const PAD: usize = 16;

/// The server's side of the tunnel.
pub(crate) struct TtlsInside {
    config: Arc<ServerConfig>,
    random: Random,
    state: Waiting,
}

enum Waiting {
    /// Whatever the peer begins with.
    Anything,
    /// The next word of EAP.
    Eap(NestedServer),
    /// The peer's assent to our proof: whose.
    Assent(String),
    /// The peer's word that it knows: of what.
    Regret(String),
}

impl TtlsInside {
    pub(crate) fn new(config: Arc<ServerConfig>, random: Random) -> Self {
        TtlsInside { config, random, state: Waiting::Anything }
    }

    fn on_first(&mut self, avps: &Avps<'_>, channel: &Channel) -> Within {
        let allows = |inner| self.config.inner.contains(&inner);
        if avps.get(avp::EAP_MESSAGE).is_some() {
            return match NestedServer::new(&self.config, &self.random) {
                Some(nested) => {
                    self.state = Waiting::Eap(nested);
                    self.on_eap(avps)
                }
                None => Within::Refuse("the peer wants EAP inside, which is not allowed".into()),
            };
        }
        let Some(sent) = avps.get(avp::USER_NAME) else {
            return Within::Refuse("the peer does not say who it is".into());
        };
        if let Some(password) = avps.get(avp::USER_PASSWORD) {
            if !allows(Inner::Pap) {
                return Within::Refuse("the peer wants PAP inside, which is not allowed".into());
            }
            return self.on_pap(sent, password);
        }
        if let (Some(challenge), Some(response)) =
            (avps.get(avp::MS_CHAP_CHALLENGE), avps.get(avp::MS_CHAP2_RESPONSE))
        {
            if !allows(Inner::MsChapV2) {
                return Within::Refuse("the peer wants MSCHAPv2 inside, which is not allowed".into());
            }
            return self.on_mschapv2(sent, challenge, response, channel);
        }
        Within::Refuse("the peer wants something inside that we do not know".into())
    }

    fn on_pap(&self, sent: &[u8], password: &[u8]) -> Within {
        if password.len() > MAX_PASSWORD {
            return Within::Refuse(format!("a password of more than {MAX_PASSWORD} octets"));
        }
        let end = password.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        let user = name(sent);
        let account = Account::find(&*self.config.users, &self.random, user);
        if account.is_password(&password[..end]) {
            return accept(user.unwrap_or_default().to_string(), Inner::Pap.to_string());
        }
        Within::Refuse(account.refusal(sent))
    }

    fn on_mschapv2(&mut self, sent: &[u8], challenge: &[u8], response: &[u8], channel: &Channel) -> Within {
        let (ours, id) = match Keys::challenge(channel) {
            Ok(challenge) => challenge,
            Err(why) => return Within::Refuse(why),
        };
        // Identifier, flags, 16 octets of challenge, 8 of zero, 24 of response.
        let (Some(peer), Some(proof), 50) = (
            response.get(2..18).and_then(|octets| octets.try_into().ok()),
            response.get(26..50).and_then(|octets| octets.try_into().ok()),
            response.len(),
        ) else {
            return Within::Refuse("a response of the wrong length".into());
        };
        // Section 11.2.4: a response made for another tunnel is somebody's in the middle.
        if challenge != ours || response.first() != Some(&id) {
            return Within::Refuse("a response to another challenge".into());
        }
        let claim = Claim { challenge: &ours, peer, response: proof, name: sent };
        let mut out = Vec::new();
        let mut text = vec![id];
        match claim.judge(&self.config, &self.random) {
            Ok((identity, exchange)) => {
                text.extend_from_slice(exchange.authenticator().as_bytes());
                avp::push(&mut out, avp::MS_CHAP2_SUCCESS, &text);
                self.state = Waiting::Assent(identity);
            }
            Err(why) => {
                text.extend_from_slice(failure(&ours).as_bytes());
                avp::push(&mut out, avp::MS_CHAP_ERROR, &text);
                self.state = Waiting::Regret(why);
            }
        }
        Within::Write(out)
    }

    fn on_eap(&mut self, avps: &Avps<'_>) -> Within {
        let Waiting::Eap(nested) = &mut self.state else { return Within::Refuse("EAP out of place".into()) };
        // A long packet is in several attributes (section 10.2).
        let packet = Zeroizing::new(avps.all(avp::EAP_MESSAGE).collect::<Vec<_>>().concat());
        match nested.receive(Some(&packet)) {
            Said::Packet(packet) => {
                let mut out = Vec::new();
                avp::push(&mut out, avp::EAP_MESSAGE, &packet);
                Within::Write(out)
            }
            Said::Nothing => Within::Listen,
            Said::Accepted { identity, method, .. } => accept(identity, method),
            Said::Refused(why) => Within::Refuse(why),
        }
    }
}

impl Inside for TtlsInside {
    fn begin(&mut self, _: &Channel, _: u8) -> Within {
        Within::Listen
    }

    fn receive(&mut self, plain: &[u8], channel: &Channel, _: u8) -> Within {
        match &mut self.state {
            Waiting::Assent(identity) if plain.is_empty() => {
                return accept(std::mem::take(identity), Inner::MsChapV2.to_string());
            }
            Waiting::Assent(_) => return Within::Refuse("the peer does not accept our proof".into()),
            Waiting::Regret(why) => return Within::Refuse(std::mem::take(why)),
            // In TLS 1.3 a peer may end its handshake with a packet of its own.
            Waiting::Anything | Waiting::Eap(_) if plain.is_empty() => return Within::Listen,
            Waiting::Anything | Waiting::Eap(_) => {}
        }
        let avps = match Avps::parse(plain) {
            Ok(avps) => avps,
            Err(why) => return Within::Refuse(why),
        };
        match self.state {
            Waiting::Eap(_) => self.on_eap(&avps),
            _ => self.on_first(&avps, channel),
        }
    }

    fn failed(&self) -> Option<String> {
        match &self.state {
            Waiting::Regret(why) => Some(why.clone()),
            Waiting::Eap(nested) => nested.failed(),
            Waiting::Anything | Waiting::Assent(_) => None,
        }
    }
}

fn accept(identity: String, method: String) -> Within {
    Within::Accept(Found { identity, inner: Some(method), msk: None })
}

/// The peer's side of the tunnel.
pub(crate) struct TtlsWithin {
    config: Arc<PeerConfig>,
    random: Random,
    /// What we do in there.
    inner: Option<Inner>,
    /// The challenge of the tunnel.
    challenge: ([u8; 16], u8),
    state: Doing,
}

enum Doing {
    Nothing,
    /// MSCHAPv2: the server's proof is awaited.
    Proof(Exchange),
    Eap(NestedPeer),
    /// The server may be content: by which method.
    Done(String),
}

impl TtlsWithin {
    pub(crate) fn new(config: Arc<PeerConfig>, random: Random) -> Self {
        let inner = config.inner.first().copied();
        TtlsWithin { config, random, inner, challenge: ([0; 16], 0), state: Doing::Nothing }
    }

    fn first(&mut self) -> Next {
        let Some(inner) = self.inner else { return Next::Fail(None, "nothing to run inside".into()) };
        if matches!(inner, Inner::Eap(_)) {
            let nested = NestedPeer::new(&self.config, &self.random);
            let introduction = nested.introduction();
            self.state = Doing::Eap(nested);
            return match introduction {
                Some(packet) => Next::Write(eap(&packet)),
                None => Next::Fail(None, "an identity that is too long".into()),
            };
        }
        let password: Secret = match given(&self.config, None) {
            Given::Now(password) => password,
            Given::Later => return Next::Wait,
            Given::Never(why) => return Next::Fail(None, why),
        };
        let name = self.config.identity.as_bytes();
        let mut out = Vec::new();
        avp::push(&mut out, avp::USER_NAME, name);
        if inner == Inner::Pap {
            let len = password.len().next_multiple_of(PAD).max(PAD);
            let mut padded = Zeroizing::new(vec![0; len]);
            padded[..password.len()].copy_from_slice(password.expose());
            avp::push(&mut out, avp::USER_PASSWORD, &padded);
            self.state = Doing::Done(inner.to_string());
            return Next::Write(out);
        }
        let (challenge, id) = self.challenge;
        let mut own = [0; 16];
        (self.random)(&mut own);
        let Some(exchange) = Exchange::new(&challenge, &own, name, &password) else {
            return Next::Fail(None, "the password is no text".into());
        };
        let response = [&[id, 0][..], &own, &[0; 8], &exchange.response].concat();
        avp::push(&mut out, avp::MS_CHAP_CHALLENGE, &challenge);
        avp::push(&mut out, avp::MS_CHAP2_RESPONSE, &response);
        self.state = Doing::Proof(exchange);
        Next::Write(out)
    }

    fn on_avps(&mut self, avps: &Avps<'_>) -> Next {
        match &mut self.state {
            Doing::Proof(exchange) => {
                if let Some(error) = avps.get(avp::MS_CHAP_ERROR) {
                    return Next::Fail(Some(Vec::new()), explain(error));
                }
                let proof = avps.get(avp::MS_CHAP2_SUCCESS).and_then(|success| success.get(1..));
                if !proof.is_some_and(|text| is_authenticator(text, exchange)) {
                    return Next::Fail(None, NOT_PROVEN.into());
                }
                self.state = Doing::Done(Inner::MsChapV2.to_string());
                Next::Listen
            }
            Doing::Eap(nested) => {
                let packet = Zeroizing::new(avps.all(avp::EAP_MESSAGE).collect::<Vec<_>>().concat());
                let said = nested.receive(&packet);
                on_said(said)
            }
            // What else the server says is for others.
            Doing::Nothing | Doing::Done(_) => Next::Listen,
        }
    }
}

fn on_said(said: Said) -> Next {
    match said {
        Said::Packet(packet) => Next::Write(eap(&packet)),
        Said::Nothing => Next::Wait,
        // In here nobody says success: the outer one has to do.
        Said::Accepted { .. } => Next::Listen,
        Said::Refused(why) => Next::Fail(Some(Vec::new()), why),
    }
}

fn eap(packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    avp::push(&mut out, avp::EAP_MESSAGE, packet);
    out
}

impl tls_peer::Inner for TtlsWithin {
    fn begin(&mut self, channel: &Channel) -> Next {
        match Keys::challenge(channel) {
            Ok(challenge) => self.challenge = challenge,
            Err(why) => return Next::Fail(None, why),
        }
        self.first()
    }

    fn receive(&mut self, plain: &[u8], _: u8, _: &Channel) -> Next {
        if plain.is_empty() {
            return Next::Listen;
        }
        match Avps::parse(plain) {
            Ok(avps) => self.on_avps(&avps),
            Err(why) => Next::Fail(None, why),
        }
    }

    fn poll(&mut self) -> Next {
        match &mut self.state {
            Doing::Nothing => self.first(),
            Doing::Eap(nested) => on_said(nested.poll()),
            Doing::Proof(_) | Doing::Done(_) => Next::Wait,
        }
    }

    fn succeed(&self) -> Option<Found> {
        let method = match &self.state {
            Doing::Done(method) => method.clone(),
            Doing::Eap(nested) => nested.content()?.method,
            Doing::Nothing | Doing::Proof(_) => return None,
        };
        Some(Found { identity: self.config.identity.clone(), inner: Some(method), msk: None })
    }
}
