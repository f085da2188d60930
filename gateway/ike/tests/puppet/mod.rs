//! A peer that says whatever it is told to, with the right keys or the wrong ones, to one engine in memory. Time is the
//! caller's. The key exchange is a toy (both public values are the secret), so that a run needs no device and repeats
//! exactly; everything else is the real thing.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub)] // A test's own workings; each test uses a part.

#[path = "../method/mod.rs"]
pub mod method;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{AuthInput, EapStep, Refusal, Reply, Request, Role};
use policy::{
    AuthPolicy, Child, ChildMode, Childless, Dpd, DpdAction, Encap, EspProposal, IdMatch, Identity,
    IkeProposal, Lifetime, Realm, RemoteAddress, SelectorSpec, Start, VirtualIpRequest,
};
use spi::{
    CryptoDone, CryptoJob, CryptoOp, CryptoOutput, DhPrivate, Group, Outcome, Prf, Secret, ShortOps, Token,
};
use tussock_ike::keymat::{IkeKeys, IkeSuite, skeyseed, skeyseed_rekey};
use tussock_ike::protect::{OpenError, Opened, Protection};
use tussock_ike::{
    ChildId, Command, CommandId, Config, Effect, Engine, EspSignal, Event, Path, natd, select,
};
use wire::TrafficSelector;
use wire::ike::{
    Auth, Body, Flags, Header, Id, Ke, Message, Nonce, Payload, PayloadList, Spi, TsPayload, peek_header,
};
use wire::numbers::{AuthMethod, ExchangeType, KeId};

use method::Eap;

pub const PSK: &[u8] = b"between us";
pub const PUPPET_ID: &str = "puppet.lab.test";
pub const ENGINE_ID: &str = "engine.lab.test";

pub fn engine_address() -> SocketAddr {
    "192.0.2.1:500".parse().unwrap()
}

pub fn puppet_address() -> SocketAddr {
    "192.0.2.2:500".parse().unwrap()
}

/// The realm the engine has for the puppet.
pub fn realm() -> Realm {
    Realm {
        name: "puppet".into(),
        local: vec![engine_address().ip()],
        remote: vec![RemoteAddress::Host(puppet_address().ip())],
        ike: vec![IkeProposal::parse("aes128gcm16-prfsha256-x25519-ecp256").unwrap()],
        local_id: Identity::parse(ENGINE_ID).unwrap(),
        local_auth: AuthPolicy::Psk,
        aliases: vec![],
        remote_id: IdMatch::Exact(Identity::parse(PUPPET_ID).unwrap()).into(),
        remote_auth: AuthPolicy::Psk,
        eap: policy::EapPolicy::default(),
        methods: vec![],
        children: vec![
            child("net", "10.1.0.0/16", "10.2.0.0/16"),
            child("dmz", "10.3.0.0/16", "10.2.0.0/16"),
        ],
        start: Start::Manual,
        encap: Encap::Auto,
        fragmentation: true,
        fragment_size: 1280,
        childless: Childless::Allow,
        ike_rekey: Lifetime::of(Duration::ZERO),
        ike_reauth: Lifetime::of(Duration::ZERO),
        dpd: Dpd { delay: Duration::ZERO, action: DpdAction::Clear },
        virtual_ip: VirtualIpRequest::default(),
        pool: None,
        unique: true,
        worker: None,
    }
}

pub fn child(name: &str, local: &str, remote: &str) -> Child {
    Child {
        name: name.into(),
        mode: ChildMode::Tunnel,
        local: vec![SelectorSpec::parse(local).unwrap()],
        remote: vec![SelectorSpec::parse(remote).unwrap()],
        esp: esp_proposals(),
        start: Start::Manual,
        rekey: Lifetime::of(Duration::ZERO),
        replay_window: 64,
        tfc: 0,
        copy_df: true,
        copy_dscp: true,
        tun: "".into(),
    }
}

fn esp_proposals() -> Vec<EspProposal> {
    ["aes128gcm16", "aes128gcm16-x25519"].iter().map(|p| EspProposal::parse(p).unwrap()).collect()
}

/// What became of the jobs the engine gave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub generated: usize,
    pub derived: usize,
    pub asked: usize,
}

/// The engine, and everything around it.
pub struct Rig {
    pub engine: Engine,
    pub now: Instant,
    pub ops: Arc<dyn ShortOps>,
    /// Messages of the engine nobody has looked at yet.
    pub sent: VecDeque<(Path, Vec<u8>)>,
    pub events: Vec<Event>,
    /// Child SAs that are installed: inbound and outbound SPI.
    pub children: BTreeMap<ChildId, (u32, u32)>,
    pub answers: Vec<(CommandId, Result<String, String>)>,
    pub work: Work,
    /// Jobs and questions wait until [`Rig::let_go`] while this is set.
    pub hold: bool,
    /// How the next jobs end, instead of well.
    pub failures: VecDeque<Outcome>,
    jobs: VecDeque<CryptoJob>,
    questions: VecDeque<(Token, Request)>,
    /// IKE SAs the key side was told to forget.
    pub forgotten: usize,
    /// How the key side speaks EAP.
    pub eap: Eap,
    /// Whether the key side lets in whoever does not say who it is.
    pub nobodies: bool,
    randoms: u64,
    commands: u64,
}

impl Rig {
    pub fn new(ops: Arc<dyn ShortOps>, realm: Realm) -> Rig {
        Rig::with(ops, Config { realms: vec![Arc::new(realm)], ..Config::default() })
    }

    pub fn with(ops: Arc<dyn ShortOps>, config: Config) -> Rig {
        let now = Instant::now();
        Rig {
            engine: Engine::new(config, ops.clone(), now),
            now,
            ops,
            sent: VecDeque::new(),
            events: Vec::new(),
            children: BTreeMap::new(),
            answers: Vec::new(),
            work: Work::default(),
            hold: false,
            failures: VecDeque::new(),
            jobs: VecDeque::new(),
            questions: VecDeque::new(),
            forgotten: 0,
            eap: Eap { realm: "puppet".into(), ..Eap::default() },
            nobodies: false,
            randoms: 0,
            commands: 0,
        }
    }

    /// A datagram from the puppet's usual address.
    pub fn datagram(&mut self, message: &[u8]) {
        self.datagram_from(puppet_address(), message);
    }

    pub fn datagram_from(&mut self, remote: SocketAddr, message: &[u8]) {
        let (path, now) = (Path { local: engine_address(), remote }, self.now);
        self.with_engine(|engine, fx| engine.handle_datagram(now, path, message, false, fx));
    }

    pub fn command(&mut self, command: Command) -> CommandId {
        self.commands += 1;
        let (id, now) = (CommandId(self.commands), self.now);
        self.with_engine(|engine, fx| engine.handle_command(now, id, command, fx));
        id
    }

    pub fn esp(&mut self, signal: EspSignal) {
        let now = self.now;
        self.with_engine(|engine, fx| engine.handle_esp(now, signal, fx));
    }

    /// Lets time pass, stopping wherever something is due.
    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        // A timer that never gets done must not hang the test.
        for _ in 0..10_000 {
            match self.engine.poll_timeout().filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    self.with_engine(|engine, fx| engine.handle_timeout(now, fx));
                }
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the engine's timers do not end");
    }

    /// Carries out what was held.
    pub fn let_go(&mut self) {
        self.hold = false;
        self.with_engine(|_, _| {});
    }

    /// Jobs that are held will come back the last first.
    pub fn turn_jobs(&mut self) {
        self.jobs = std::mem::take(&mut self.jobs).into_iter().rev().collect();
    }

    pub fn with_engine(&mut self, call: impl FnOnce(&mut Engine, &mut Vec<Effect>)) {
        let mut fx = Vec::new();
        call(&mut self.engine, &mut fx);
        self.carry_out(fx);
        while !self.hold {
            let mut fx = Vec::new();
            if let Some(job) = self.jobs.pop_front() {
                let done = self.work_off(job);
                self.engine.handle_crypto(self.now, done, &mut fx);
            } else if let Some((token, request)) = self.questions.pop_front() {
                let Some(reply) = self.reply(request) else { continue };
                self.engine.handle_reply(self.now, token, reply, &mut fx);
            } else {
                return;
            }
            self.carry_out(fx);
        }
    }

    fn carry_out(&mut self, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Send { path, message } => self.sent.push_back((path, message)),
                Effect::Crypto(job) => self.jobs.push_back(job),
                Effect::Ask { request: Request::Forget { .. }, .. } => self.forgotten += 1,
                Effect::Ask { token, request } => self.questions.push_back((token, request)),
                Effect::InstallChild(child) => {
                    assert!(self.children.insert(child.id, (child.spi_in, child.spi_out)).is_none());
                }
                Effect::RemoveChild(removed) => {
                    assert!(self.children.remove(&removed.id).is_some(), "removed what was not installed");
                }
                Effect::Event(event) => self.events.push(event),
                Effect::Answer { command, result } => self.answers.push((command, result)),
                Effect::UseOutbound(id) | Effect::RetireChild(id) => assert!(self.children.contains_key(&id)),
                _ => {}
            }
        }
    }

    fn work_off(&mut self, job: CryptoJob) -> CryptoDone {
        if let Some(outcome) = self.failures.pop_front() {
            return CryptoDone { token: job.token, outcome, output: CryptoOutput::None };
        }
        let output = match job.op {
            CryptoOp::DhGenerate { group } => {
                self.work.generated += 1;
                self.randoms += 1;
                let public = public_value(group, self.randoms);
                CryptoOutput::DhPair(DhPrivate::Bytes(Secret::from_slice(&public)), public)
            }
            CryptoOp::DhDerive { ours: DhPrivate::Bytes(ours), theirs, group } => {
                self.work.derived += 1;
                CryptoOutput::Secret(shared_secret(group, ours.expose(), &theirs))
            }
            _ => CryptoOutput::None,
        };
        CryptoDone { token: job.token, outcome: Outcome::Done, output }
    }

    fn reply(&mut self, request: Request) -> Option<Reply> {
        self.work.asked += usize::from(!matches!(request, Request::Forget { .. }));
        match request {
            Request::MakeAuth { input, .. } => Some(Reply::Proof {
                method: AuthMethod::SHARED_KEY_MIC.0,
                data: psk_proof(&*self.ops, &input),
                certs: vec![],
            }),
            Request::CheckAuth { realms, input, proof, .. } => {
                let known = proof.method == AuthMethod::SHARED_KEY_MIC.0
                    && proof.data == psk_proof(&*self.ops, &input);
                let nobody = proof.method == AuthMethod::NULL.0 && self.nobodies;
                Some(match known || nobody {
                    true => Reply::PeerAccepted { realm: realms[0].clone(), how: "PSK".into() },
                    false => Reply::Refused(Refusal::AuthenticationFailed("PSK differs".into())),
                })
            }
            Request::EapBegin { role, .. } => Some(Reply::Eap(self.eap.begin(role))),
            Request::EapWait { .. } => Some(Reply::Eap(EapStep::Ready)),
            Request::EapPacket { packet, .. } => Some(Reply::Eap(self.eap.receive(&packet))),
            Request::EapMakeAuth { input, .. } => Some(Reply::Proof {
                method: AuthMethod::SHARED_KEY_MIC.0,
                data: proof_by(&*self.ops, &self.eap.msk, &input),
                certs: vec![],
            }),
            Request::EapCheckAuth { input, proof, .. } => {
                let good = proof.method == AuthMethod::SHARED_KEY_MIC.0
                    && proof.data == proof_by(&*self.ops, &self.eap.msk, &input);
                Some(match good {
                    true => {
                        Reply::PeerAccepted { realm: self.eap.realm.as_str().into(), how: "EAP-Test".into() }
                    }
                    false => Reply::Refused(Refusal::AuthenticationFailed("another key".into())),
                })
            }
            Request::Forget { .. } => None,
            _ => Some(Reply::Ok),
        }
    }

    /// IKE SAs the engine knows of, closed ones that linger not counted.
    pub fn ike_sas(&self) -> usize {
        self.engine.status().sas.iter().filter(|sa| sa.state != "Closed").count()
    }

    pub fn drops(&self) -> Vec<&'static str> {
        self.events
            .iter()
            .filter_map(|e| if let Event::Dropped { reason, .. } = e { Some(*reason) } else { None })
            .collect()
    }

    /// Every text of every event, for a look at its length.
    pub fn log_octets(&self) -> usize {
        self.events.iter().map(|e| format!("{e:?}").len()).sum()
    }
}

pub fn public_value(group: Group, seed: u64) -> Vec<u8> {
    let len = group.info().map_or(32, |i| i.public_len);
    seed.to_be_bytes().iter().copied().cycle().take(len).collect()
}

pub fn shared_secret(group: Group, a: &[u8], b: &[u8]) -> Secret {
    let len = group.info().map_or(32, |i| i.secret_len);
    let (a, b) = if a < b { (a, b) } else { (b, a) };
    Secret::new(
        a.iter().zip(b.iter().rev()).map(|(x, y)| x ^ y.rotate_left(3)).cycle().take(len.max(1)).collect(),
    )
}

pub fn psk_proof(ops: &dyn ShortOps, input: &AuthInput) -> Vec<u8> {
    proof_by(ops, PSK, input)
}

pub fn proof_by(ops: &dyn ShortOps, secret: &[u8], input: &AuthInput) -> Vec<u8> {
    let key = ops.prf(input.prf, secret, &[b"Key Pad for IKEv2"]).unwrap();
    let octets: [&[u8]; 4] = [&input.message, &input.nonce, &input.maced_id, &input.int_auth];
    ops.prf(input.prf, key.expose(), &octets).unwrap().expose().to_vec()
}

/// The other end of one IKE SA.
pub struct Puppet {
    pub ops: Arc<dyn ShortOps>,
    pub role: Role,
    pub spi_i: Spi,
    pub spi_r: Spi,
    pub suite: IkeSuite,
    pub ni: Vec<u8>,
    pub nr: Vec<u8>,
    pub init_request: Vec<u8>,
    pub init_response: Vec<u8>,
    pub keys: Option<IkeKeys>,
    pub protection: Option<Protection>,
    /// Message ID of the next request.
    pub next_id: u32,
    pub address: SocketAddr,
    seed: u64,
}

impl Puppet {
    /// One that will begin. `seed` tells puppets apart.
    pub fn initiator(ops: &Arc<dyn ShortOps>, seed: u64) -> Puppet {
        Puppet {
            ops: ops.clone(),
            role: Role::Initiator,
            spi_i: Spi(0x1000_0000_0000_0000 | seed),
            spi_r: Spi::ZERO,
            suite: suite(),
            ni: vec![seed as u8 | 1; 32],
            nr: Vec::new(),
            init_request: Vec::new(),
            init_response: Vec::new(),
            keys: None,
            protection: None,
            next_id: 0,
            address: puppet_address(),
            seed: 0x7000_0000 + seed,
        }
    }

    // ---- IKE_SA_INIT ----

    pub fn init_payloads(&self) -> Vec<Payload> {
        let public = public_value(self.suite.group, self.seed);
        let mut payloads: Vec<Payload> = vec![
            select::offer_ike(&realm().ike, None).into(),
            Ke::new(KeId(self.suite.group.0), public).into(),
            Nonce(self.ni.clone()).into(),
        ];
        let nat =
            natd::make(&*self.ops, self.spi_i, Spi::ZERO, self.address, engine_address(), false).unwrap();
        payloads.extend(nat.map(Payload::from));
        payloads
            .push(wire::ike::Notify::new(wire::numbers::NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).into());
        payloads
    }

    pub fn init_message(&self, payloads: Vec<Payload>) -> Vec<u8> {
        let header = Header::new(self.spi_i, Spi::ZERO, ExchangeType::IKE_SA_INIT, Flags::INITIATOR, 0);
        Message::new(header, payloads).emit()
    }

    /// Carries IKE_SA_INIT through.
    pub fn init(&mut self, rig: &mut Rig) {
        let message = self.init_message(self.init_payloads());
        self.init_request = message.clone();
        rig.datagram_from(self.address, &message);
        let (_, response) = rig.sent.pop_front().expect("an IKE_SA_INIT response");
        self.take_init_response(&response);
    }

    pub fn take_init_response(&mut self, response: &[u8]) {
        let message = Message::parse(response).unwrap();
        assert!(message.payloads.sa().is_some(), "{message}");
        self.spi_r = message.header.spi_r;
        self.nr = message.payloads.nonce().unwrap().0.clone();
        self.init_response = response.to_vec();
        let ke = message.payloads.ke().unwrap();
        self.next_id = 1;
        self.derive(&ke.data.clone());
    }

    /// Answers the engine's IKE_SA_INIT, as responder.
    pub fn responder(ops: &Arc<dyn ShortOps>, seed: u64, request: &[u8]) -> (Puppet, Vec<u8>) {
        let mut puppet = Puppet {
            role: Role::Responder,
            spi_r: Spi(0x2000_0000_0000_0000 | seed),
            ..Puppet::initiator(ops, seed)
        };
        let message = Message::parse(request).unwrap();
        puppet.spi_i = message.header.spi_i;
        puppet.nr = std::mem::take(&mut puppet.ni);
        puppet.ni = message.payloads.nonce().unwrap().0.clone();
        puppet.init_request = request.to_vec();
        let chosen = select::choose_ike(&realm().ike, message.payloads.sa().unwrap(), None, None).unwrap();
        let public = public_value(puppet.suite.group, puppet.seed);
        let mut payloads: Vec<Payload> = vec![
            chosen.answer.into(),
            Ke::new(KeId(puppet.suite.group.0), public).into(),
            Nonce(puppet.nr.clone()).into(),
        ];
        let nat =
            natd::make(ops.as_ref(), puppet.spi_i, puppet.spi_r, puppet.address, engine_address(), false)
                .unwrap();
        payloads.extend(nat.map(Payload::from));
        let header = Header::new(puppet.spi_i, puppet.spi_r, ExchangeType::IKE_SA_INIT, Flags::RESPONSE, 0);
        let response = Message::new(header, payloads).emit();
        puppet.init_response = response.clone();
        let theirs = message.payloads.ke().unwrap().data.clone();
        puppet.derive(&theirs);
        (puppet, response)
    }

    fn derive(&mut self, theirs: &[u8]) {
        let secret = shared_secret(self.suite.group, &public_value(self.suite.group, self.seed), theirs);
        let seed = skeyseed(&*self.ops, self.suite.prf, &self.ni, &self.nr, &secret).unwrap();
        let keys =
            IkeKeys::derive(&*self.ops, &self.suite, &seed, &self.ni, &self.nr, self.spi_i, self.spi_r)
                .unwrap();
        self.protection = Some(Protection::new(self.suite.sk_suite(), self.role, &keys));
        self.keys = Some(keys);
    }

    // ---- IKE_AUTH ----

    pub fn id_payload(&self) -> Body {
        let (kind, data) = Identity::parse(PUPPET_ID).unwrap().to_wire();
        let id = Id::new(kind, data);
        if self.role == Role::Initiator { Body::IdI(id) } else { Body::IdR(id) }
    }

    pub fn auth_payload(&self) -> Payload {
        self.auth_payload_by(PSK)
    }

    pub fn auth_payload_by(&self, secret: &[u8]) -> Payload {
        let (Body::IdI(id) | Body::IdR(id)) = self.id_payload() else { unreachable!() };
        Auth::new(AuthMethod::SHARED_KEY_MIC, self.auth_data_as(&id, secret)).into()
    }

    /// AUTH data by a secret, of whoever has this identity.
    pub fn auth_data_as(&self, id: &Id, secret: &[u8]) -> Vec<u8> {
        let (message, nonce) = match self.role {
            Role::Initiator => (&self.init_request, &self.nr),
            Role::Responder => (&self.init_response, &self.ni),
        };
        let keys = self.keys.as_ref().unwrap();
        let maced_id = keys.maced_id(&*self.ops, self.suite.prf, self.role, &id.body()).unwrap();
        let input = AuthInput {
            role: self.role,
            message: message.clone(),
            nonce: nonce.clone(),
            maced_id,
            prf: self.suite.prf,
            int_auth: vec![],
        };
        proof_by(&*self.ops, secret, &input)
    }

    pub fn auth_payloads(&self) -> Vec<Payload> {
        let mut payloads: Vec<Payload> = vec![self.id_payload().into(), self.auth_payload()];
        payloads.extend(self.child_payloads(0x7000_0001, false));
        payloads
    }

    /// SA, TSi and TSr of a child, our inbound SPI in it.
    pub fn child_payloads(&self, spi: u32, pfs: bool) -> Vec<Payload> {
        let ts = |text: &str| TsPayload::new([text.parse::<TrafficSelector>().unwrap()]);
        vec![
            select::offer_esp(&esp_proposals()[..1 + usize::from(pfs)], spi, pfs).into(),
            Body::TsI(ts("10.2.0.0/16")).into(),
            Body::TsR(ts("10.1.0.0/16")).into(),
        ]
    }

    /// Carries IKE_SA_INIT and IKE_AUTH through: afterwards the IKE SA and child `net` are up.
    pub fn establish(ops: &Arc<dyn ShortOps>, rig: &mut Rig) -> Puppet {
        let mut puppet = Puppet::initiator(ops, 1);
        puppet.init(rig);
        let answer = puppet.exchange(rig, ExchangeType::IKE_AUTH, puppet.auth_payloads());
        assert!(answer.auth().is_some() && answer.ts_i().is_some(), "{answer:?}");
        assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
        puppet
    }

    /// The engine begins, the puppet answers: afterwards the IKE SA and child `net` are up.
    pub fn be_called(ops: &Arc<dyn ShortOps>, rig: &mut Rig) -> Puppet {
        rig.command(Command::Up { realm: "puppet".into(), child: Some("net".into()) });
        let (_, request) = rig.sent.pop_front().expect("an IKE_SA_INIT request");
        let (mut puppet, response) = Puppet::responder(ops, 2, &request);
        rig.datagram(&response);
        let request = puppet.next_request(rig).expect("an IKE_AUTH request");
        let answer = puppet.auth_answer(&request);
        puppet.respond(rig, &request, answer);
        assert_eq!((rig.ike_sas(), rig.children.len()), (1, 1));
        puppet
    }

    /// What a responder answers to IKE_AUTH.
    pub fn auth_answer(&self, request: &Opened) -> Vec<Payload> {
        let chosen =
            select::choose_esp(&esp_proposals(), request.payloads.sa().unwrap(), 0x7000_0002, false, None)
                .unwrap();
        vec![
            self.id_payload().into(),
            self.auth_payload(),
            chosen.answer.into(),
            Body::TsI(request.payloads.ts_i().unwrap().clone()).into(),
            Body::TsR(request.payloads.ts_r().unwrap().clone()).into(),
        ]
    }

    // ---- messages ----

    pub fn header(&self, exchange: ExchangeType, id: u32) -> Header {
        let flags = if self.role == Role::Initiator { Flags::INITIATOR } else { Flags(0) };
        Header::new(self.spi_i, self.spi_r, exchange, flags, id)
    }

    /// Seals whatever it is given.
    pub fn seal(&mut self, header: &Header, payloads: &[Payload]) -> Vec<u8> {
        self.protection.as_mut().unwrap().seal(&*self.ops.clone(), header, payloads).unwrap()
    }

    /// The next request.
    pub fn request(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Vec<u8> {
        let header = self.header(exchange, self.next_id);
        self.next_id += 1;
        self.seal(&header, payloads)
    }

    /// Sends a request and opens the response.
    pub fn exchange(
        &mut self,
        rig: &mut Rig,
        exchange: ExchangeType,
        payloads: Vec<Payload>,
    ) -> Vec<Payload> {
        let message = self.request(exchange, &payloads);
        let id = self.next_id - 1;
        rig.datagram_from(self.address, &message);
        let answer =
            self.response(rig, id).unwrap_or_else(|| panic!("no response; dropped: {:?}", rig.drops()));
        assert_eq!(answer.header.exchange, exchange);
        answer.payloads
    }

    /// The engine's response to our request `id`; other messages stay.
    pub fn response(&mut self, rig: &mut Rig, id: u32) -> Option<Opened> {
        self.take(rig, |h| h.is_response() && h.message_id == id)
    }

    /// The next request of the engine on this SA.
    pub fn next_request(&mut self, rig: &mut Rig) -> Option<Opened> {
        self.take(rig, |h| !h.is_response())
    }

    fn take(&mut self, rig: &mut Rig, wanted: impl Fn(&Header) -> bool) -> Option<Opened> {
        let at = rig.sent.iter().position(|(_, m)| {
            peek_header(m).is_ok_and(|h| h.spi_i == self.spi_i && h.spi_r == self.spi_r && wanted(&h))
        })?;
        let (_, message) = rig.sent.remove(at)?;
        self.open(&message).ok()
    }

    pub fn open(&self, message: &[u8]) -> Result<Opened, OpenError> {
        self.protection.as_ref().unwrap().open(&*self.ops, message)
    }

    /// Answers a request of the engine.
    pub fn respond(&mut self, rig: &mut Rig, request: &Opened, payloads: Vec<Payload>) {
        let message = self.answer_to(request, &payloads);
        rig.datagram_from(self.address, &message);
    }

    /// The octets of an answer.
    pub fn answer_to(&mut self, request: &Opened, payloads: &[Payload]) -> Vec<u8> {
        let mut header = self.header(request.header.exchange, request.header.message_id);
        header.flags = header.flags | Flags::RESPONSE;
        self.seal(&header, payloads)
    }

    /// Whether the engine still answers: an empty INFORMATIONAL.
    pub fn is_alive(&mut self, rig: &mut Rig) -> bool {
        let message = self.request(ExchangeType::INFORMATIONAL, &[]);
        let id = self.next_id - 1;
        rig.datagram_from(self.address, &message);
        self.response(rig, id).is_some()
    }

    /// The other end of the IKE SA that a rekey made. `own_initiator`: whose exchange it was.
    pub fn successor(
        &self,
        role: Role,
        spi_i: Spi,
        spi_r: Spi,
        ni: Vec<u8>,
        nr: Vec<u8>,
        g_ir: &Secret,
    ) -> Puppet {
        let sk_d = &self.keys.as_ref().unwrap().sk_d;
        let seed = skeyseed_rekey(&*self.ops, self.suite.prf, sk_d, g_ir, &ni, &nr).unwrap();
        let keys = IkeKeys::derive(&*self.ops, &self.suite, &seed, &ni, &nr, spi_i, spi_r).unwrap();
        Puppet {
            ops: self.ops.clone(),
            role,
            spi_i,
            spi_r,
            suite: self.suite,
            ni,
            nr,
            init_request: vec![],
            init_response: vec![],
            protection: Some(Protection::new(self.suite.sk_suite(), role, &keys)),
            keys: Some(keys),
            next_id: 0,
            address: self.address,
            seed: self.seed + 1000,
        }
    }

    /// What a rekey of the IKE SA says: SA with our new SPI, nonce, KE.
    pub fn rekey_payloads(&self, spi: Spi, nonce: &[u8]) -> Vec<Payload> {
        vec![
            select::offer_ike(&realm().ike, Some(spi)).into(),
            Nonce(nonce.to_vec()).into(),
            Ke::new(KeId(self.suite.group.0), public_value(self.suite.group, self.seed)).into(),
        ]
    }

    /// The secret that `rekey_payloads` and the engine's KE payload give.
    pub fn rekey_secret(&self, theirs: &[Payload]) -> Secret {
        let theirs = &theirs.ke().unwrap().data;
        shared_secret(self.suite.group, &public_value(self.suite.group, self.seed), theirs)
    }
}

pub fn suite() -> IkeSuite {
    IkeSuite {
        encr: spi::Encr::AES128_GCM16,
        integ: spi::Integ::NONE,
        prf: Prf::HMAC_SHA2_256,
        group: Group::X25519,
    }
}
