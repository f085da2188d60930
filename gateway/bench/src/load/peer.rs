//! One IKE SA of one peer, in either role: what is built, what is checked, what is answered.
//!
//! A peer has no timers and forgets nothing it may have to send again. NAT detection is answered with a hash that fits no
//! address: the gateway then sees a NAT, moves to port 4500 and puts ESP into UDP, as it would for most clients.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ike::keymat::IkeKeys;
use ike::natd;
use ike::protect::Protection;
use ipc::Role;
use spi::ShortOps;
use wire::TrafficSelector;
use wire::ike::{Body, Flags, Header, Ke, Message, Nonce, Notify, Payload, PayloadList, Spi, TsPayload};
use wire::numbers::{ExchangeType, NotifyType, ProtocolId};

use super::eap::Talk;
use super::outside::{Port, address};
use super::proof::{Octets, Prover};
use super::suite::{self, KeyPair, SUITE};

/// What all peers have in common.
pub struct Common {
    /// Short primitives.
    pub ops: std::sync::Arc<dyn ShortOps>,
    /// Proofs.
    pub prover: Prover,
    /// Key exchange.
    pub pair: KeyPair,
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// Whether there is a Child SA with each IKE SA.
    pub child: bool,
}

/// How far a peer is.
#[derive(Default)]
pub enum State {
    /// Nothing was begun.
    #[default]
    Idle,
    /// As initiator: IKE_SA_INIT is out.
    ExpectInit(Box<Init>),
    /// IKE_SA_INIT is done; as initiator, IKE_AUTH is out.
    ExpectAuth(Box<Sa>),
    /// There is an IKE SA.
    Up(Box<Sa>),
    /// It did not come up, or was deleted.
    Gone,
}

/// What came of a message.
pub enum Outcome {
    /// Nothing.
    Nothing,
    /// To be sent.
    Send(Port, Vec<u8>),
    /// The IKE SA is up; as responder, this is to be sent.
    Established(Option<(Port, Vec<u8>)>),
    /// The gateway deleted it; this is to be sent.
    Deleted(Port, Vec<u8>),
}

/// An IKE_SA_INIT that is out.
pub struct Init {
    spi: Spi,
    nonce: Vec<u8>,
    /// What is sent again.
    request: Vec<u8>,
}

/// An IKE SA, or one in the making.
pub struct Sa {
    spis: [Spi; 2],
    role: Role,
    protection: Protection,
    /// What AUTH is about, until it is done.
    proof: Option<Proof>,
    /// EAP, where that is how the peer proves itself.
    eap: Option<Talk>,
    /// Message ID of the request that is out.
    message_id: u32,
    /// What was sent last: the request, or the answer, that is sent again.
    last: Vec<u8>,
}

struct Proof {
    keys: IkeKeys,
    nonces: [Vec<u8>; 2],
    messages: [Vec<u8>; 2],
}

impl State {
    /// As initiator: begins.
    pub fn begin(common: &Common, peer: u32) -> Result<(State, Vec<u8>)> {
        let spi = Spi(u64::from_be_bytes(random(common)) | 1);
        let init = Init { spi, nonce: random::<32>(common).to_vec(), request: Vec::new() };
        let request = init.request(common, peer, None)?;
        Ok((State::ExpectInit(Box::new(Init { request: request.clone(), ..init })), request))
    }

    /// What a timer has to send again, if anything.
    pub fn unanswered(&self) -> Option<(Port, &[u8])> {
        match self {
            State::ExpectInit(init) => Some((Port::Ike, &init.request)),
            State::ExpectAuth(sa) if sa.role == Role::Initiator => Some((Port::NatT, &sa.last)),
            _ => None,
        }
    }

    /// Takes a message for this peer.
    ///
    /// # Errors
    /// Why this peer will not come up: what the gateway said, or what is wrong with it.
    pub fn handle(&mut self, common: &Common, peer: u32, port: Port, message: &[u8]) -> Result<Outcome> {
        let Ok(header) = wire::ike::peek_header(message) else { return Ok(Outcome::Nothing) };
        match std::mem::replace(self, State::Gone) {
            State::ExpectInit(init) if header.is_response() && header.spi_i == init.spi => {
                let (state, request) = init.answered(common, peer, message)?;
                let port = if matches!(state, State::ExpectInit(_)) { Port::Ike } else { Port::NatT };
                *self = state;
                Ok(Outcome::Send(port, request))
            }
            State::ExpectAuth(mut sa) if sa.eap.is_some() && sa.is_about(&header, ExchangeType::IKE_AUTH) => {
                if header.message_id != sa.message_id {
                    // A late second answer.
                    *self = State::ExpectAuth(sa);
                    return Ok(Outcome::Nothing);
                }
                if sa.talk(common, peer, message)? {
                    let request = sa.last.clone();
                    *self = State::ExpectAuth(sa);
                    return Ok(Outcome::Send(Port::NatT, request));
                }
                *self = State::Up(sa);
                Ok(Outcome::Established(None))
            }
            State::ExpectAuth(mut sa) if sa.is_about(&header, ExchangeType::IKE_AUTH) => {
                let answer = match sa.role {
                    Role::Initiator => sa.accepted(common, message).map(|()| None),
                    Role::Responder => sa.accept(common, peer, message).map(|answer| Some((port, answer))),
                }?;
                *self = State::Up(sa);
                Ok(Outcome::Established(answer))
            }
            State::Up(sa) if sa.is_about(&header, ExchangeType::IKE_AUTH) => {
                let again = match sa.role {
                    Role::Responder => Outcome::Send(port, sa.last.clone()),
                    // A late second answer.
                    Role::Initiator => Outcome::Nothing,
                };
                *self = State::Up(sa);
                Ok(again)
            }
            State::Up(mut sa) if !header.is_response() && header.spi_i == sa.spis[0] => {
                match sa.answer(common, message) {
                    Ok((answer, true)) => Ok(Outcome::Deleted(port, answer)),
                    Ok((answer, false)) => {
                        *self = State::Up(sa);
                        Ok(Outcome::Send(port, answer))
                    }
                    Err(_) => {
                        // Not the gateway's, or damaged.
                        *self = State::Up(sa);
                        Ok(Outcome::Nothing)
                    }
                }
            }
            // A first request, or one that comes again because our answer was lost.
            State::ExpectAuth(sa) if sa.is_first_request_of(&header) => {
                let again = Outcome::Send(port, sa.last.clone());
                *self = State::ExpectAuth(sa);
                Ok(again)
            }
            State::Idle if header.exchange == ExchangeType::IKE_SA_INIT && !header.is_response() => {
                let (sa, answer) = Sa::respond(common, peer, message)?;
                *self = State::ExpectAuth(Box::new(sa));
                Ok(Outcome::Send(port, answer))
            }
            // Late, doubled, or meant for somebody else.
            other => {
                *self = other;
                Ok(Outcome::Nothing)
            }
        }
    }
}

impl Init {
    fn request(&self, common: &Common, peer: u32, cookie: Option<&Notify>) -> Result<Vec<u8>> {
        let header = Header::new(self.spi, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
        let mut payloads: Vec<Payload> = cookie.cloned().map(Payload::from).into_iter().collect();
        payloads.push(suite::ike_sa(1));
        payloads.extend(init_payloads(common, peer, self.spi, Spi::ZERO, &self.nonce)?);
        Ok(Message::new(header, payloads).emit())
    }

    fn answered(mut self: Box<Self>, common: &Common, peer: u32, message: &[u8]) -> Result<(State, Vec<u8>)> {
        let answer = Message::parse(message).map_err(|error| anyhow!("{error}"))?;
        let payloads = answer.payloads.as_slice();
        if let (None, Some(cookie)) = (payloads.sa(), payloads.notify(NotifyType::COOKIE)) {
            self.request = self.request(common, peer, Some(cookie))?;
            let request = self.request.clone();
            return Ok((State::ExpectInit(self), request));
        }
        let (ke, nonce) = parts(payloads)?;
        let spis = [self.spi, answer.header.spi_r];
        let nonces = [self.nonce, nonce.0.clone()];
        let keys = common.pair.keys(&*common.ops, ke, [&nonces[0], &nonces[1]], spis)?;
        let messages = [self.request, message.to_vec()];
        let proof = Proof { keys, nonces, messages };
        let mut sa = Sa::new(spis, Role::Initiator, proof);
        sa.last = sa.ask(common, peer)?;
        let request = sa.last.clone();
        Ok((State::ExpectAuth(Box::new(sa)), request))
    }
}

impl Sa {
    fn new(spis: [Spi; 2], role: Role, proof: Proof) -> Sa {
        let protection = Protection::new(SUITE.sk_suite(), role, &proof.keys);
        Sa { spis, role, protection, proof: Some(proof), eap: None, message_id: 1, last: Vec::new() }
    }

    /// As responder: answers IKE_SA_INIT.
    fn respond(common: &Common, peer: u32, message: &[u8]) -> Result<(Sa, Vec<u8>)> {
        let request = Message::parse(message).map_err(|error| anyhow!("{error}"))?;
        let payloads = request.payloads.as_slice();
        let offer = payloads.sa().context("a first request without SA")?;
        let number = suite::choose(offer, &suite::ike_sa(1))?;
        let (ke, nonce) = parts(payloads)?;
        let spis = [request.header.spi_i, Spi(u64::from_be_bytes(random(common)) | 1)];
        let nonces = [nonce.0.clone(), random::<32>(common).to_vec()];
        let keys = common.pair.keys(&*common.ops, ke, [&nonces[0], &nonces[1]], spis)?;
        let mut answer = vec![suite::ike_sa(number)];
        answer.extend(init_payloads(common, peer, spis[0], spis[1], &nonces[1])?);
        answer.push(Notify::new(NotifyType::CHILDLESS_IKEV2_SUPPORTED).into());
        let header = Header { spi_r: spis[1], ..request.header.response() };
        let answer = Message::new(header, answer).emit();
        let proof = Proof { keys, nonces, messages: [message.to_vec(), answer.clone()] };
        let mut sa = Sa::new(spis, Role::Responder, proof);
        sa.last.clone_from(&answer);
        Ok((sa, answer))
    }

    /// As initiator: the IKE_AUTH request.
    fn ask(&mut self, common: &Common, peer: u32) -> Result<Vec<u8>> {
        let id = common.prover.id(peer);
        let proof = self.proof.as_ref().context("no proof to make")?;
        let name = String::from_utf8_lossy(&id.data).into_owned();
        self.eap = common.prover.password().map(|password| Talk::new(&common.ops, name, password));
        let auth = match &self.eap {
            Some(_) => None,
            None => Some(common.prover.prove(&*common.ops, &proof.octets(Role::Initiator, &id))?),
        };
        let mut payloads = vec![Body::IdI(id).into()];
        payloads.extend(common.prover.cert());
        payloads.extend(auth);
        if common.child {
            payloads.push(suite::esp_sa(1, u32::from_be_bytes(random(common)) | 0x100));
            // Its own network, and the gateway's; peers' networks do not overlap.
            let own = TrafficSelector::host(IpAddr::V4(inner(peer)));
            let theirs = TrafficSelector::from_prefix(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 0)), 16);
            payloads.push(Body::TsI(TsPayload::new([own])).into());
            payloads.push(Body::TsR(TsPayload::new([theirs])).into());
        }
        let [spi_i, spi_r] = self.spis;
        let header = Header::new(spi_i, spi_r, ExchangeType::IKE_AUTH, Flags::INITIATOR, 1);
        Ok(self.protection.seal(&*common.ops, &header, &payloads)?)
    }

    /// As initiator by EAP: an IKE_AUTH response; whether there is another request to send.
    fn talk(&mut self, common: &Common, peer: u32, message: &[u8]) -> Result<bool> {
        let opened = self.protection.open(&*common.ops, message)?;
        let payloads = opened.payloads.as_slice();
        if let Some(error) = payloads.error_notify() {
            bail!("the gateway says {}", error.kind);
        }
        let proof = self.proof.as_ref().context("no proof to make")?;
        let talk = self.eap.as_mut().context("no EAP")?;
        if talk.gateway.is_none() {
            let id = payloads.id_r().context("the gateway does not say who it is")?;
            let auth = payloads.auth().context("the gateway proves nothing")?;
            common.prover.check(&*common.ops, &proof.octets(Role::Responder, id), auth)?;
            talk.gateway = Some(id.clone());
        }
        let own = common.prover.id(peer);
        if let Some(answer) = talk.answer(&*common.ops, payloads, &proof.octets(Role::Initiator, &own))? {
            self.message_id += 1;
            let [spi_i, spi_r] = self.spis;
            let header = Header::new(spi_i, spi_r, ExchangeType::IKE_AUTH, Flags::INITIATOR, self.message_id);
            self.last = self.protection.seal(&*common.ops, &header, &[answer])?;
            return Ok(true);
        }
        let id = talk.gateway.as_ref().context("the gateway is nobody")?;
        let auth = payloads.auth().context("the gateway proves nothing")?;
        talk.check(&*common.ops, &proof.octets(Role::Responder, id), auth)?;
        ensure!(payloads.sa().is_some() == common.child, "the gateway's mind about a Child SA is another");
        (self.proof, self.eap, self.last) = (None, None, Vec::new());
        Ok(false)
    }

    /// As initiator: the IKE_AUTH response.
    fn accepted(&mut self, common: &Common, message: &[u8]) -> Result<()> {
        let opened = self.protection.open(&*common.ops, message)?;
        let payloads = opened.payloads.as_slice();
        if let Some(error) = payloads.error_notify() {
            bail!("the gateway says {}", error.kind);
        }
        let id = payloads.id_r().context("the gateway does not say who it is")?;
        let proof = self.proof.take().context("no proof to check")?;
        let auth = payloads.auth().context("the gateway proves nothing")?;
        common.prover.check(&*common.ops, &proof.octets(Role::Responder, id), auth)?;
        ensure!(payloads.sa().is_some() == common.child, "the gateway's mind about a Child SA is another");
        self.last = Vec::new();
        Ok(())
    }

    /// As responder: the IKE_AUTH request, and the response to it.
    fn accept(&mut self, common: &Common, peer: u32, message: &[u8]) -> Result<Vec<u8>> {
        let opened = self.protection.open(&*common.ops, message)?;
        let payloads = opened.payloads.as_slice();
        let (own, theirs) = (common.prover.id(peer), payloads.id_i().context("the gateway is nobody")?);
        let proof = self.proof.take().context("no proof to check")?;
        let auth = payloads.auth().context("the gateway proves nothing")?;
        common.prover.check(&*common.ops, &proof.octets(Role::Initiator, theirs), auth)?;
        let auth = common.prover.prove(&*common.ops, &proof.octets(Role::Responder, &own))?;
        let mut answer = vec![Body::IdR(own).into()];
        answer.extend(common.prover.cert());
        answer.push(auth);
        if let (Some(offer), Some(ts_i), Some(ts_r)) = (payloads.sa(), payloads.ts_i(), payloads.ts_r()) {
            let number = suite::choose(offer, &suite::esp_sa(1, 0))?;
            answer.push(suite::esp_sa(number, u32::from_be_bytes(random(common)) | 0x100));
            answer.push(Body::TsI(ts_i.clone()).into());
            answer.push(Body::TsR(ts_r.clone()).into());
        }
        self.last = self.protection.seal(&*common.ops, &opened.header.response(), &answer)?;
        Ok(self.last.clone())
    }

    /// A request of the gateway on an IKE SA that is up: it is alive, it has no more children, or it is deleted.
    fn answer(&mut self, common: &Common, message: &[u8]) -> Result<(Vec<u8>, bool)> {
        let opened = self.protection.open(&*common.ops, message)?;
        let deleted = opened.payloads.deletes().any(|delete| delete.protocol == ProtocolId::IKE);
        let answer: Vec<Payload> = match opened.header.exchange {
            ExchangeType::CREATE_CHILD_SA => vec![Notify::new(NotifyType::NO_ADDITIONAL_SAS).into()],
            _ => Vec::new(),
        };
        let answer = self.protection.seal(&*common.ops, &opened.header.response(), &answer)?;
        Ok((answer, deleted))
    }

    fn is_about(&self, header: &Header, exchange: ExchangeType) -> bool {
        header.exchange == exchange
            && [header.spi_i, header.spi_r] == self.spis
            && header.is_response() == (self.role == Role::Initiator)
    }

    fn is_first_request_of(&self, header: &Header) -> bool {
        header.exchange == ExchangeType::IKE_SA_INIT && !header.is_response() && header.spi_i == self.spis[0]
    }
}

impl Proof {
    fn octets<'a>(&'a self, whose: Role, id: &'a wire::ike::Id) -> Octets<'a> {
        let (message, nonce) = match whose {
            Role::Initiator => (&self.messages[0], &self.nonces[1]),
            Role::Responder => (&self.messages[1], &self.nonces[0]),
        };
        Octets { message, nonce, keys: &self.keys, whose, id }
    }
}

/// The address inside of a peer's tunnel.
fn inner(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + peer)
}

/// KE, nonce and notifications of IKE_SA_INIT.
fn init_payloads(common: &Common, peer: u32, i: Spi, r: Spi, nonce: &[u8]) -> Result<Vec<Payload>> {
    let own = SocketAddr::new(address(peer).into(), 500);
    let gateway = SocketAddr::new(common.gateway.into(), 500);
    let nat = natd::make(&*common.ops, i, r, own, gateway, true).map_err(|fault| anyhow!("{fault}"))?;
    let mut payloads = vec![common.pair.ke(), Nonce(nonce.to_vec()).into()];
    payloads.extend(nat.map(Payload::from));
    payloads.extend(common.prover.announcement());
    Ok(payloads)
}

fn parts(payloads: &[Payload]) -> Result<(&Ke, &Nonce)> {
    if let Some(error) = payloads.error_notify() {
        bail!("the gateway says {}", error.kind);
    }
    payloads.ke().zip(payloads.nonce()).context("no key exchange in IKE_SA_INIT")
}

fn random<const N: usize>(common: &Common) -> [u8; N] {
    let mut octets = [0; N];
    common.ops.random(&mut octets);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::crypto::software;

    fn common(secret: &str, child: bool) -> Common {
        let ops = software().unwrap().short_ops().unwrap();
        let prover = Prover::with_secret(&*ops, secret).unwrap();
        let gateway = Ipv4Addr::LOCALHOST;
        Common { ops, prover, pair: KeyPair::generate().unwrap(), gateway, child }
    }

    /// Plays initiator and responder against each other; what each end says in the end.
    fn meet(one: &Common, other: &Common) -> [Result<bool>; 2] {
        let (mut i, first) = State::begin(one, 3).unwrap();
        let mut r = State::Idle;
        let (mut to_r, mut up) = (Some(first), [false, false]);
        while let Some(message) = to_r.take() {
            let answer = match r.handle(other, 3, Port::NatT, &message) {
                Ok(Outcome::Send(_, answer)) => answer,
                Ok(Outcome::Established(Some((_, answer)))) => {
                    up[1] = true;
                    answer
                }
                Ok(_) => break,
                Err(error) => return [Ok(false), Err(error)],
            };
            match i.handle(one, 3, Port::NatT, &answer) {
                Ok(Outcome::Send(_, request)) => to_r = Some(request),
                Ok(Outcome::Established(None)) => up[0] = true,
                Ok(_) => break,
                Err(error) => return [Err(error), Ok(up[1])],
            }
        }
        up.map(Ok)
    }

    #[test]
    fn both_roles_agree_with_and_without_a_child() {
        for child in [true, false] {
            let [i, r] = meet(&common("secret", child), &common("secret", child));
            assert!(i.unwrap() && r.unwrap());
        }
    }

    #[test]
    fn another_secret_is_noticed() {
        let [_, r] = meet(&common("secret", true), &common("another", true));
        assert!(r.unwrap_err().to_string().contains("proof is wrong"));
    }

    #[test]
    fn a_request_that_comes_again_is_answered_as_before() {
        let (one, other) = (common("secret", true), common("secret", true));
        let (_, first) = State::begin(&one, 1).unwrap();
        let mut r = State::Idle;
        let mut answers = Vec::new();
        for _ in 0..2 {
            let Ok(Outcome::Send(_, answer)) = r.handle(&other, 1, Port::Ike, &first) else { panic!() };
            answers.push(answer);
        }
        assert_eq!(answers[0], answers[1]);
    }
}
