//! Two engines in memory: a link that loses, doubles, delays and reorders, devices that take their time, a key side that knows
//! one secret, and packets that show whether an SA is there when it is needed. Time is virtual and everything is seeded.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]

#[path = "../method/mod.rs"]
pub mod method;
pub mod policy;
pub mod short;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Refusal, Reply, Request};
use spi::{
    CryptoDone, CryptoJob, CryptoQueue, Device, Fault, FaultKind, Outcome, Prf, QueueConfig, Secret,
    ShortOps, Token,
};
use tussock_ike::{
    ChildId, ChildInstall, Command, CommandId, Config, DhcpLease, Effect, Engine, EspSignal, Event,
    KeyLogEntry, KnownLease, LeaseChange, Path,
};

use method::Eap;
use short::Seeded;

/// What the link does to datagrams.
#[derive(Clone, Copy)]
pub struct Link {
    /// Of 1000 datagrams, how many are lost.
    pub loss: u32,
    /// Of 1000, how many come twice.
    pub double: u32,
    /// Shortest way.
    pub delay: Duration,
    /// Up to this much longer, each datagram for itself: that is how they overtake each other.
    pub spread: Duration,
}

impl Link {
    pub const GOOD: Link =
        Link { loss: 0, double: 0, delay: Duration::from_millis(10), spread: Duration::from_millis(0) };
    pub const BAD: Link =
        Link { loss: 200, double: 200, delay: Duration::from_millis(10), spread: Duration::from_millis(300) };
}

enum Happening {
    Datagram { to: usize, path: Path, bytes: Vec<u8>, natt: bool },
    Crypto { at: usize, done: CryptoDone },
    Reply { at: usize, token: Token, reply: Reply },
    Packet { to: usize, spi: u32 },
    Address { at: usize, token: Token, answer: Result<DhcpLease, String> },
}

/// One gateway.
pub struct Node {
    pub engine: Engine,
    pub events: Vec<Event>,
    pub answers: BTreeMap<CommandId, Result<String, String>>,
    /// Installed pairs.
    pub children: BTreeMap<ChildId, ChildInstall>,
    /// The pairs in use outbound, by child name, the newest last.
    pub outbound: BTreeMap<Arc<str>, Vec<ChildId>>,
    pub addresses: Vec<(bool, Vec<tussock_ike::InnerAddress>)>,
    pub dns: Vec<std::net::IpAddr>,
    pub domains: Vec<String>,
    /// What became of the addresses of its pools.
    pub leases: Vec<LeaseChange>,
    /// What its DHCP server answers; `None`: nothing.
    pub dhcp: Option<Result<DhcpLease, String>>,
    /// The same of the one for IPv6.
    pub dhcp6: Option<Result<DhcpLease, String>>,
    /// The hints with which that was asked.
    pub wanted: Vec<Option<std::net::IpAddr>>,
    /// And whether of IPv4, under which name.
    pub asked: Vec<(bool, Token)>,
    pub keys: Vec<KeyLogEntry>,
    pub sent: usize,
    /// Packets that met no SA.
    pub lost_packets: usize,
    pub packets: usize,
    /// Whether the process is there; what comes to one that is not is lost.
    pub alive: bool,
    psk: Vec<u8>,
    /// Whether it proves nothing, and whether it wants nothing proved.
    pub null: (bool, bool),
    /// What the key side was asked to choose from, each time.
    pub candidates: std::cell::RefCell<Vec<Vec<Arc<str>>>>,
    /// The realm that it finds the peer in, if not the best.
    pub verdict: Option<Arc<str>>,
    /// Jobs to fail with `Aborted`.
    pub aborts: usize,
    /// Largest datagram sent.
    pub largest: usize,
    /// Jobs issued.
    pub jobs: usize,
    /// Whether the data path installs nothing, and says so.
    pub installs_nothing: bool,
    /// How its key side speaks EAP.
    pub eap: Eap,
    /// A key side in the place of the one that knows one secret.
    pub key_side: Option<KeySide>,
}

/// Answers a question at once.
pub type KeySide = Box<dyn FnMut(Request) -> Option<Reply>>;

/// Says of a datagram of a node whether it is lost.
pub type Censor = Box<dyn FnMut(usize, &[u8]) -> bool>;

pub struct World {
    pub now: Instant,
    began: Instant,
    pub nodes: [Node; 2],
    pub link: Link,
    /// How long devices and the key side take, at most.
    pub device_delay: Duration,
    /// Every datagram, before the link has its way: from, exchange type octet, message.
    pub wire: Vec<(usize, Vec<u8>)>,
    /// Datagrams this returns true for are lost.
    pub censor: Option<Censor>,
    /// Addresses as the other side sees them, where a NAT changes them: (of node, real, seen).
    pub nat: Option<(usize, std::net::IpAddr, u16)>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    serial: u64,
    rng: u64,
    crypto: Box<CryptoQueue>,
    short: Arc<dyn ShortOps>,
    traffic: Option<(Duration, Instant)>,
    commands: u64,
}

impl World {
    pub fn new(seed: u64, a: Vec<::policy::Realm>, b: Vec<::policy::Realm>) -> World {
        World::with_config(seed, a, b, |_| {})
    }

    pub fn with_config(
        seed: u64,
        a: Vec<::policy::Realm>,
        b: Vec<::policy::Realm>,
        adjust: impl Fn(&mut Config),
    ) -> World {
        let now = Instant::now();
        let device = soft::Soft::new(1).device();
        let crypto =
            device.crypto_queue(QueueConfig { depth: 64, cpu: None }).expect("the software device has one");
        let short: Arc<dyn ShortOps> =
            Arc::new(Seeded::new(device.short_ops().expect("the software device has them"), seed));
        let node = |realms: Vec<::policy::Realm>| {
            let mut config =
                Config { realms: realms.into_iter().map(Arc::new).collect(), ..Config::default() };
            adjust(&mut config);
            Node {
                engine: Engine::new(config, short.clone(), now),
                events: Vec::new(),
                answers: BTreeMap::new(),
                children: BTreeMap::new(),
                outbound: BTreeMap::new(),
                addresses: Vec::new(),
                dns: Vec::new(),
                domains: Vec::new(),
                leases: Vec::new(),
                dhcp: None,
                dhcp6: None,
                wanted: Vec::new(),
                asked: Vec::new(),
                keys: Vec::new(),
                sent: 0,
                lost_packets: 0,
                packets: 0,
                alive: true,
                psk: b"secret".to_vec(),
                null: (false, false),
                candidates: Default::default(),
                verdict: None,
                aborts: 0,
                largest: 0,
                jobs: 0,
                installs_nothing: false,
                eap: Eap::default(),
                key_side: None,
            }
        };
        World {
            now,
            began: now,
            nodes: [node(a), node(b)],
            link: Link::GOOD,
            device_delay: Duration::from_millis(5),
            wire: Vec::new(),
            censor: None,
            nat: None,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            serial: 0,
            rng: seed | 1,
            crypto,
            short,
            traffic: None,
            commands: 0,
        }
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below.max(1)
    }

    pub fn set_psk(&mut self, node: usize, psk: &[u8]) {
        self.nodes[node].psk = psk.to_vec();
    }

    /// Lets packets flow in both directions through every child, one each `every`.
    pub fn set_traffic(&mut self, every: Duration) {
        self.traffic = Some((every, self.now + every));
    }

    pub fn stop_traffic(&mut self) {
        self.traffic = None;
    }

    pub fn start(&mut self, node: usize) {
        let mut fx = Vec::new();
        self.nodes[node].engine.start(self.now, &mut fx);
        self.carry_out(node, fx);
    }

    pub fn command(&mut self, node: usize, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        let mut fx = Vec::new();
        self.nodes[node].engine.handle_command(self.now, id, command, &mut fx);
        self.carry_out(node, fx);
        id
    }

    pub fn up(&mut self, node: usize) -> CommandId {
        self.command(node, Command::Up { realm: "r".into(), child: None })
    }

    pub fn rekey_ike(&mut self, node: usize) -> CommandId {
        self.command(node, Command::Rekey { realm: "r".into(), child: None })
    }

    pub fn rekey_child(&mut self, node: usize, child: &str) -> CommandId {
        self.command(node, Command::Rekey { realm: "r".into(), child: Some(child.into()) })
    }

    /// A DHCP server that has kept a node waiting answers after all.
    pub fn address_comes(&mut self, node: usize, v4: bool, answer: Result<DhcpLease, String>) {
        let asked = self.nodes[node].asked.iter().rev().find(|(of, _)| *of == v4);
        let token = asked.expect("a question").1;
        let mut fx = Vec::new();
        self.nodes[node].engine.handle_address(self.now, token, answer, &mut fx);
        self.carry_out(node, fx);
    }

    pub fn esp(&mut self, node: usize, signal: EspSignal) {
        let mut fx = Vec::new();
        self.nodes[node].engine.handle_esp(self.now, signal, &mut fx);
        self.carry_out(node, fx);
    }

    pub fn inject(&mut self, node: usize, path: Path, bytes: &[u8]) {
        let mut fx = Vec::new();
        self.nodes[node].engine.handle_datagram(self.now, path, bytes, path.local.port() == 4500, &mut fx);
        self.carry_out(node, fx);
    }

    pub fn reload(&mut self, node: usize, realms: Vec<::policy::Realm>) {
        let mut fx = Vec::new();
        let realms = realms.into_iter().map(Arc::new).collect();
        self.nodes[node].engine.reload(self.now, realms, &mut fx);
        self.carry_out(node, fx);
    }

    /// Starts a node over with the same realms, as after a crash.
    pub fn crash(&mut self, node: usize, realms: Vec<::policy::Realm>) {
        self.crash_knowing(node, realms, Vec::new());
    }

    /// The same, with what was written down of leases.
    pub fn crash_knowing(&mut self, node: usize, realms: Vec<::policy::Realm>, leases: Vec<KnownLease>) {
        let realms = realms.into_iter().map(Arc::new).collect();
        let config = Config { realms, leases, ..Config::default() };
        self.nodes[node].engine = Engine::new(config, self.short.clone(), self.now);
        self.nodes[node].children.clear();
        self.nodes[node].outbound.clear();
        // What is on its way to the old process finds the new one, except for jobs.
        let gone: Vec<u64> = self
            .happenings
            .iter()
            .filter(|(_, h)| matches!(h, Happening::Crypto { at, .. } | Happening::Reply { at, .. } if *at == node))
            .map(|(s, _)| *s)
            .collect();
        gone.iter().for_each(|s| drop(self.happenings.remove(s)));
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 400_000, "the world does not come to rest");
            let next_event = self.queue.peek().map(|Reverse((at, _))| *at);
            let timers =
                (0..2).filter(|n| self.nodes[*n].alive).filter_map(|n| self.nodes[n].engine.poll_timeout());
            let next_timer = timers.min();
            let next_packet = self.traffic.map(|(_, at)| at);
            let next = [next_event, next_timer, next_packet].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if next_packet.is_some_and(|at| at <= self.now) {
                self.send_packets();
            }
            for n in 0..2 {
                if self.nodes[n].alive && self.nodes[n].engine.poll_timeout().is_some_and(|at| at <= self.now)
                {
                    let mut fx = Vec::new();
                    self.nodes[n].engine.handle_timeout(self.now, &mut fx);
                    self.carry_out(n, fx);
                }
            }
            while let Some(Reverse((at, serial))) =
                self.queue.peek().copied().filter(|Reverse((at, _))| *at <= self.now)
            {
                let _ = at;
                self.queue.pop();
                if let Some(happening) = self.happenings.remove(&serial) {
                    self.happen(happening);
                }
            }
        }
        self.now = end;
    }

    fn send_packets(&mut self) {
        let Some((every, at)) = self.traffic else { return };
        self.traffic = Some((every, at + every));
        for n in 0..2 {
            let spis: Vec<u32> = self.nodes[n]
                .outbound
                .values()
                .filter_map(|list| list.last())
                .filter_map(|id| self.nodes[n].children.get(id))
                .map(|c| c.spi_out)
                .collect();
            for spi in spis {
                self.nodes[n].packets += 1;
                let spread = self.random(self.link.spread.as_micros() as u64 + 1);
                let at = self.now + self.link.delay + Duration::from_micros(spread);
                self.schedule(at, Happening::Packet { to: 1 - n, spi });
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { to, path, bytes, natt } => {
                if self.nodes[to].alive {
                    let mut fx = Vec::new();
                    self.nodes[to].engine.handle_datagram(self.now, path, &bytes, natt, &mut fx);
                    self.carry_out(to, fx);
                }
            }
            Happening::Crypto { at, done } => {
                let mut fx = Vec::new();
                self.nodes[at].engine.handle_crypto(self.now, done, &mut fx);
                self.carry_out(at, fx);
            }
            Happening::Reply { at, token, reply } => {
                let mut fx = Vec::new();
                self.nodes[at].engine.handle_reply(self.now, token, reply, &mut fx);
                self.carry_out(at, fx);
            }
            Happening::Address { at, token, answer } => {
                let mut fx = Vec::new();
                self.nodes[at].engine.handle_address(self.now, token, answer, &mut fx);
                self.carry_out(at, fx);
            }
            Happening::Packet { to, spi } => {
                let id = self.nodes[to].children.iter().find(|(_, c)| c.spi_in == spi).map(|(id, _)| *id);
                match id {
                    Some(id) => self.esp(to, EspSignal::PeerAlive(id)),
                    None => self.nodes[to].lost_packets += 1,
                }
            }
        }
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.happenings.insert(self.serial, happening);
    }

    fn carry_out(&mut self, node: usize, fx: Vec<Effect>) {
        for effect in fx {
            match effect {
                Effect::Send { path, message } => self.send(node, path, message),
                Effect::Crypto(job) => self.work(node, job),
                Effect::Ask { token, request } => {
                    let reply = match &mut self.nodes[node].key_side {
                        Some(answer) => answer(request),
                        None => self.judge(node, request),
                    };
                    let Some(reply) = reply else { continue };
                    let wait = self.random(self.device_delay.as_micros() as u64 + 1);
                    let at = self.now + Duration::from_micros(wait);
                    self.schedule(at, Happening::Reply { at: node, token, reply });
                }
                Effect::InstallChild(child) if self.nodes[node].installs_nothing => {
                    self.esp(node, EspSignal::NotInstalled(child.id));
                }
                Effect::RetireChild(id) => {
                    let node = &mut self.nodes[node];
                    assert!(
                        node.installs_nothing || node.children.contains_key(&id),
                        "RetireChild of what is installed"
                    );
                    node.outbound.values_mut().for_each(|list| list.retain(|other| *other != id));
                }
                Effect::UseOutbound(_) | Effect::RemoveChild(_) if self.nodes[node].installs_nothing => {}
                Effect::InstallChild(child) => {
                    let node = &mut self.nodes[node];
                    assert!(node.children.values().all(|c| c.spi_in != child.spi_in), "an SPI twice");
                    if child.use_outbound {
                        node.outbound.entry(child.name.clone()).or_default().push(child.id);
                    }
                    assert!(node.children.insert(child.id, *child).is_none(), "a child twice");
                }
                Effect::UseOutbound(id) => {
                    let node = &mut self.nodes[node];
                    let child = node.children.get(&id).expect("UseOutbound of what is installed");
                    node.outbound.entry(child.name.clone()).or_default().push(id);
                }
                Effect::RemoveChild(removed) => {
                    let node = &mut self.nodes[node];
                    let child = node.children.remove(&removed.id).expect("RemoveChild of what is installed");
                    assert_eq!((child.spi_in, child.spi_out), (removed.spi_in, removed.spi_out));
                    node.outbound.values_mut().for_each(|list| list.retain(|id| *id != removed.id));
                }
                Effect::MovePath { .. } => {}
                Effect::Addresses { ours, dns, domains, add, .. } => {
                    self.nodes[node].addresses.push((add, ours));
                    self.nodes[node].dns = dns;
                    self.nodes[node].domains = domains;
                }
                Effect::Lease(change) => self.nodes[node].leases.push(change),
                Effect::WantAddress { token, v4, hint, .. } => {
                    self.nodes[node].wanted.push(hint);
                    self.nodes[node].asked.push((v4, token));
                    let server = if v4 { &self.nodes[node].dhcp } else { &self.nodes[node].dhcp6 };
                    let Some(answer) = server.clone() else { continue };
                    let at = self.now + self.device_delay;
                    self.schedule(at, Happening::Address { at: node, token, answer });
                }
                Effect::Event(event) => {
                    if std::env::var_os("IKE_TRACE").is_some() {
                        eprintln!("{:9.3?} node {node} {event:?}", self.now - self.began);
                    }
                    self.nodes[node].events.push(event);
                }
                Effect::KeyLog(entry) => self.nodes[node].keys.push(entry),
                Effect::Answer { command, result } => {
                    let before = self.nodes[node].answers.insert(command, result);
                    assert!(before.is_none(), "a command answered twice");
                }
            }
        }
    }

    fn send(&mut self, node: usize, path: Path, message: Vec<u8>) {
        self.nodes[node].sent += 1;
        if std::env::var_os("IKE_TRACE").is_some()
            && let Ok(h) = wire::ike::peek_header(&message)
        {
            let kind = if h.is_response() { "response" } else { "request" };
            let at = self.now - self.began;
            eprintln!(
                "{at:9.3?} node {node} {} {kind} {} on {}/{}",
                h.exchange, h.message_id, h.spi_i, h.spi_r
            );
        }
        self.nodes[node].largest = self.nodes[node].largest.max(message.len());
        self.wire.push((node, message.clone()));
        if self.censor.as_mut().is_some_and(|censor| censor(node, &message)) {
            return;
        }
        let natt = path.local.port() == 4500;
        let (mut local, mut remote) = (path.remote, path.local);
        if let Some((behind, seen, port)) = self.nat {
            let base = SocketAddr::new(seen, port + u16::from(natt));
            if node == behind {
                remote = base;
            } else if path.remote.ip() == seen {
                local = SocketAddr::new(policy::address(behind), path.remote.port() - port + 500);
                if path.remote.port() == port + 1 {
                    local.set_port(4500);
                }
            } else {
                return;
            }
        }
        let there = Path { local, remote };
        let copies = 1 + u32::from(self.random(1000) < u64::from(self.link.double));
        for _ in 0..copies {
            if self.random(1000) < u64::from(self.link.loss) {
                continue;
            }
            let spread = self.random(self.link.spread.as_micros() as u64 + 1);
            let at = self.now + self.link.delay + Duration::from_micros(spread);
            self.schedule(
                at,
                Happening::Datagram { to: 1 - node, path: there, bytes: message.clone(), natt },
            );
        }
    }

    /// Has the software device do the job at once, and delivers the completion when the device is slow enough.
    fn work(&mut self, node: usize, job: CryptoJob) {
        self.nodes[node].jobs += 1;
        let wait = self.random(self.device_delay.as_micros() as u64 + 1);
        let at = self.now + Duration::from_micros(wait);
        if self.nodes[node].aborts > 0 {
            self.nodes[node].aborts -= 1;
            let outcome = Outcome::Failed(Fault::new(FaultKind::Aborted));
            let done = CryptoDone { token: job.token, outcome, output: spi::CryptoOutput::None };
            return self.schedule(at, Happening::Crypto { at: node, done });
        }
        let mut jobs = VecDeque::from([job]);
        self.crypto.submit(&mut jobs).expect("the device is open");
        let mut got = None;
        while got.is_none() {
            self.crypto.poll(1, &mut |done: CryptoDone| got = Some(done));
            std::thread::yield_now();
        }
        if let Some(done) = got {
            self.schedule(at, Happening::Crypto { at: node, done });
        }
    }

    /// The key side: one pre-shared key for everybody.
    fn judge(&self, node: usize, request: Request) -> Option<Reply> {
        let psk = &self.nodes[node].psk;
        let proof = |input: &ipc::AuthInput| self.proof(psk, input);
        Some(match request {
            Request::MakeAuth { .. } if self.nodes[node].null.0 => {
                Reply::Proof { method: 13, data: Vec::new(), certs: Vec::new() }
            }
            Request::MakeAuth { input, .. } => {
                Reply::Proof { method: 2, data: proof(&input), certs: Vec::new() }
            }
            Request::CheckAuth { realms, input, proof: theirs, .. } => {
                self.nodes[node].candidates.borrow_mut().push(realms.clone());
                let realm = self.nodes[node].verdict.clone().unwrap_or_else(|| realms[0].clone());
                if theirs.method == 2 && Secret::new(theirs.data).ct_eq(&proof(&input)) {
                    Reply::PeerAccepted { realm, how: "PSK".into() }
                } else if theirs.method == 13 && self.nodes[node].null.1 {
                    Reply::PeerAccepted { realm, how: "nothing".into() }
                } else {
                    Reply::Refused(Refusal::AuthenticationFailed("wrong secret".into()))
                }
            }
            Request::EapBegin { role, .. } => Reply::Eap(self.nodes[node].eap.begin(role)),
            Request::EapWait { .. } => Reply::Eap(ipc::EapStep::Ready),
            Request::EapPacket { packet, .. } => Reply::Eap(self.nodes[node].eap.receive(&packet)),
            Request::EapMakeAuth { input, .. } => {
                let data = self.proof(&self.nodes[node].eap.msk, &input);
                Reply::Proof { method: 2, data, certs: Vec::new() }
            }
            Request::EapCheckAuth { input, proof: theirs, .. } => {
                let right = self.proof(&self.nodes[node].eap.msk, &input);
                if theirs.method == 2 && Secret::new(theirs.data).ct_eq(&right) {
                    Reply::PeerAccepted {
                        realm: self.nodes[node].eap.realm.as_str().into(),
                        how: "EAP-Test".into(),
                    }
                } else {
                    Reply::Refused(Refusal::AuthenticationFailed("another key".into()))
                }
            }
            Request::Forget { .. } => return None,
            _ => Reply::Ok,
        })
    }

    /// RFC 7296 section 2.15.
    fn proof(&self, psk: &[u8], input: &ipc::AuthInput) -> Vec<u8> {
        let key = self.short.prf(input.prf, psk, &[b"Key Pad for IKEv2"]).expect("a known PRF");
        let octets: [&[u8]; 4] = [&input.message, &input.nonce, &input.maced_id, &input.int_auth];
        self.short.prf(input.prf, key.expose(), &octets).expect("a known PRF").expose().to_vec()
    }
}

// ---- what tests ask ----

impl World {
    /// Established IKE SAs of a node.
    pub fn ike_sas(&self, node: usize) -> usize {
        self.nodes[node].engine.status().sas.iter().filter(|sa| sa.state == "Established").count()
    }

    /// The SPIs of a node's installed children, inbound first, sorted.
    pub fn spis(&self, node: usize) -> Vec<(u32, u32)> {
        let mut spis: Vec<_> = self.nodes[node].children.values().map(|c| (c.spi_in, c.spi_out)).collect();
        spis.sort_unstable();
        spis
    }

    /// The property everything has to end in: both sides have the same SAs, nothing is out.
    pub fn assert_agreed(&self) {
        let mine = self.spis(0);
        let mut theirs: Vec<_> = self.spis(1).into_iter().map(|(i, o)| (o, i)).collect();
        theirs.sort_unstable();
        assert_eq!(mine, theirs, "children crosswise");
        for n in 0..2 {
            let status = self.nodes[n].engine.status();
            assert_eq!(status.in_flight, 0, "nothing in flight at node {n}");
            assert_eq!(status.half_open, 0, "nothing half-open at node {n}");
            let mut known: Vec<_> =
                status.sas.iter().flat_map(|sa| &sa.children).map(|c| (c.spi_in, c.spi_out)).collect();
            known.sort_unstable();
            assert_eq!(known, self.spis(n), "what the engine shows is what is installed at node {n}");
            assert!(status.sas.iter().all(|sa| sa.state == "Established"), "{:?}", status.sas);
        }
        let ike = |n: usize| {
            let sas = self.nodes[n].engine.status().sas;
            let mut spis: Vec<_> = sas.iter().map(|sa| (sa.spi_i, sa.spi_r)).collect();
            spis.sort_unstable();
            spis
        };
        assert_eq!(ike(0), ike(1), "IKE SAs");
    }

    pub fn has_event(&self, node: usize, which: impl Fn(&Event) -> bool) -> bool {
        self.nodes[node].events.iter().any(which)
    }

    pub fn count_events(&self, node: usize, which: impl Fn(&Event) -> bool) -> usize {
        self.nodes[node].events.iter().filter(|e| which(e)).count()
    }

    pub fn answer(&self, node: usize, command: CommandId) -> Option<&Result<String, String>> {
        self.nodes[node].answers.get(&command)
    }

    pub fn assert_ok(&self, node: usize, command: CommandId) {
        match self.answer(node, command) {
            Some(Ok(_)) => {}
            other => panic!("{other:?}; events: {:#?}", self.nodes[node].events),
        }
    }

    /// Brings up the pair in good weather.
    pub fn established(seed: u64, a: ::policy::Realm, b: ::policy::Realm) -> World {
        let mut world = World::new(seed, vec![a], vec![b]);
        let up = world.up(0);
        world.run(Duration::from_secs(5));
        world.assert_ok(0, up);
        world.assert_agreed();
        world
    }
}

/// Whether a datagram is of an exchange: 34 IKE_SA_INIT, 35 IKE_AUTH, 36 CREATE_CHILD_SA, 37 INFORMATIONAL.
pub fn is_exchange(bytes: &[u8], exchange: u8, response: bool) -> bool {
    bytes.get(18) == Some(&exchange) && bytes.get(19).is_some_and(|f| (f & 0x20 != 0) == response)
}

/// A PRF that is always there.
pub const PRF: Prf = Prf::HMAC_SHA2_256;
