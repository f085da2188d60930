//! An engine and a peer that follows a script: messages with the right keys and whatever inside, honest exchanges left off
//! half-way, copies, fragments, forgeries, devices that fail, time that passes. However it goes: nothing panics, what is
//! installed is what the engine says, nobody comes up without a proof, and in the end everything is gone.

mod script;
mod toy;
// The peer that the engine's own tests play with.
#[path = "../../ike/tests/puppet/mod.rs"]
mod puppet;

pub use script::{Op, Script, encode};

use script::Inside;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use policy::Realm;
use puppet::{Puppet, Rig, public_value, realm};
use spi::{Fault, FaultKind, Group, Outcome, Reject, ShortOps};
use tussock_ike::protect::Opened;
use tussock_ike::{Command, Config, EspSignal, Event, select};
use wire::ike::{Body, Delete, Flags, Ke, Message, Nonce, Notify, Payload, PayloadList, Spi, Unknown};
use wire::numbers::{ExchangeType, KeId, NotifyType, PayloadType, ProtocolId};

/// Steps of one script; more would only repeat themselves.
const MAX_STEPS: usize = 64;

/// Children the peer may make on one IKE SA.
const CHILDREN: usize = 12;
const LANES: u16 = 3;

/// Datagrams of the peer that are kept to be sent again.
const MAX_HISTORY: usize = 32;

/// Runs the script in `data`.
pub fn ike_state(data: &[u8]) {
    ike_events(data);
}

/// The same, and tells what the engine reported.
pub fn ike_events(data: &[u8]) -> Vec<Event> {
    let mut play = Play::new();
    let mut script = Script::new(data);
    for _ in 0..MAX_STEPS {
        let Some(op) = script.next_op() else { break };
        play.step(&op);
        play.check();
    }
    play.end();
    play.rig.events
}

struct Play {
    ops: Arc<dyn ShortOps>,
    rig: Rig,
    /// IKE SAs the peer has an end of; the last is the one it speaks on.
    peers: Vec<Puppet>,
    /// Requests of the engine the peer has read and not answered.
    asked: VecDeque<(usize, Opened)>,
    history: Vec<Vec<u8>>,
    /// Whether a valid proof was ever sent.
    proved: bool,
    seeds: u64,
    spis: u32,
    /// Events up to here were looked at.
    looked: usize,
}

impl Play {
    fn new() -> Self {
        let ops: Arc<dyn ShortOps> = Arc::new(toy::Toy::default());
        let config = Config {
            realms: vec![Arc::new(Realm { unique: true, ..realm() })],
            cookie_threshold: 40,
            half_open_limit: 60,
            ike_sa_limit: 100,
            children_limit: CHILDREN,
            lanes: LANES,
            key_log: true,
            ..Config::default()
        };
        Play {
            rig: Rig::with(ops.clone(), config),
            ops,
            peers: Vec::new(),
            asked: VecDeque::new(),
            history: Vec::new(),
            proved: false,
            seeds: 0,
            spis: 0x7000_0100,
            looked: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Raw(octets) => self.send(octets),
            Op::Init { drop, add } => self.init(*drop, add),
            Op::Auth { drop, add, honest } => self.auth(*drop, add, *honest),
            Op::Sealed { exchange, id, flags, inside } => self.sealed(*exchange, *id, *flags, inside),
            Op::NewChild { pfs } => self.new_child(*pfs, None),
            Op::RekeyChild { which, nonce, pfs } => self.new_child(*pfs, Some((*which, *nonce))),
            Op::RekeyIke { nonce } => self.rekey_ike(*nonce),
            Op::DeleteChild { which } => self.delete_child(*which),
            Op::DeleteIke => self.request(ExchangeType::INFORMATIONAL, &[Delete::ike().into()]),
            Op::Read => self.read(),
            Op::Grant { nonce } => self.grant(*nonce),
            Op::Refuse { kind } => self.answer(|_, _| vec![Notify::new(NotifyType(*kind)).into()]),
            Op::AnswerWith { inside } => {
                let payloads = payloads(inside);
                self.answer(|_, _| payloads);
            }
            Op::Again { which, flip } => self.again(*which, *flip),
            Op::Fragments { size, keep, inside } => self.fragments(*size, *keep, inside),
            Op::Wait(time) => self.rig.wait(*time),
            Op::Command(which) => self.command(*which),
            Op::Esp { which, signal } => self.esp(*which, *signal),
            Op::Hold(on) => match on {
                true => self.rig.hold = true,
                false => self.rig.let_go(),
            },
            Op::TurnJobs => self.rig.turn_jobs(),
            Op::Fail(how) => self.rig.failures.push_back(match how % 4 {
                0 => Outcome::Failed(Fault::new(FaultKind::Aborted)),
                1 => Outcome::Failed(Fault::new(FaultKind::Internal)),
                2 => Outcome::Rejected(Reject::BadPublicInput),
                _ => Outcome::Done,
            }),
            Op::Speak(which) => {
                if !self.peers.is_empty() {
                    let at = usize::from(*which) % self.peers.len();
                    let peer = self.peers.remove(at);
                    self.peers.push(peer);
                    self.asked.clear();
                }
            }
            Op::Move(octet) => {
                if let Some(peer) = self.peers.last_mut() {
                    peer.address.set_ip([192, 0, 2, 2 + octet % 4].into());
                }
            }
        }
    }

    // ---- what the peer says ----

    fn send(&mut self, message: &[u8]) {
        if self.history.len() < MAX_HISTORY {
            self.history.push(message.to_vec());
        }
        let from = self.peers.last().map_or_else(puppet::puppet_address, |p| p.address);
        self.rig.datagram_from(from, message);
    }

    fn init(&mut self, drop: Option<u8>, add: &Inside) {
        self.seeds += 1;
        let mut peer = Puppet::initiator(&self.ops, self.seeds);
        let mut list = peer.init_payloads();
        spoil(&mut list, drop, add);
        let message = peer.init_message(list);
        peer.init_request = message.clone();
        self.send(&message);
        let answer = self.rig.sent.iter().position(|(_, m)| {
            Message::parse(m).is_ok_and(|m| {
                m.header.spi_i == peer.spi_i && m.payloads.sa().is_some() && m.payloads.ke().is_some()
            })
        });
        if let Some((_, answer)) = answer.and_then(|at| self.rig.sent.remove(at)) {
            peer.take_init_response(&answer);
            if self.peers.len() < 8 {
                self.peers.push(peer);
            }
        }
    }

    fn auth(&mut self, drop: Option<u8>, add: &Inside, honest: bool) {
        let info = self.resource_info();
        let Some(peer) = self.peers.last_mut() else { return };
        if peer.init_request.is_empty() {
            return;
        }
        let mut list = peer.auth_payloads();
        if !honest {
            list[1] = wire::ike::Auth::new(wire::numbers::AuthMethod::SHARED_KEY_MIC, vec![1; 32]).into();
        }
        list.extend(info);
        spoil(&mut list, drop, add);
        self.proved |= honest;
        peer.next_id = 1;
        let message = peer.request(ExchangeType::IKE_AUTH, &list);
        self.send(&message);
    }

    fn sealed(&mut self, exchange: u8, id: i8, flags: u8, inside: &Inside) {
        let Some(peer) = self.peers.last_mut() else { return };
        let id = peer.next_id.wrapping_add_signed(id.into());
        let mut header = peer.header(ExchangeType(exchange), id);
        header.flags = Flags(header.flags.0 ^ flags);
        let message = peer.seal(&header, &payloads(inside));
        peer.next_id = peer.next_id.max(id.saturating_add(1).min(peer.next_id.saturating_add(1)));
        // An AUTH payload with the right octets cannot come from a script, so this proves nothing.
        self.send(&message);
    }

    fn request(&mut self, exchange: ExchangeType, list: &[Payload]) {
        let Some(peer) = self.peers.last_mut() else { return };
        let message = peer.request(exchange, list);
        self.send(&message);
    }

    fn new_child(&mut self, pfs: bool, rekeys: Option<(u8, u8)>) {
        let Some(peer) = self.peers.last() else { return };
        self.spis += 1;
        let mut list = peer.child_payloads(self.spis, pfs);
        list.push(Nonce(vec![rekeys.map_or(5, |(_, nonce)| nonce); 32]).into());
        if pfs {
            list.push(Ke::new(KeId(Group::X25519.0), public_value(Group::X25519, 5)).into());
        }
        if let Some((which, _)) = rekeys {
            let spi = self.child(which).map_or(u32::from(which), |(_, out)| out);
            list.insert(0, Notify::rekey_sa(ProtocolId::ESP, spi).into());
        }
        list.extend(self.resource_info());
        self.request(ExchangeType::CREATE_CHILD_SA, &list);
    }

    /// Every other peer can have several children with the same selectors.
    fn resource_info(&self) -> Option<Payload> {
        let info = || Notify::with_data(NotifyType::SA_RESOURCE_INFO, vec![1]).into();
        self.seeds.is_multiple_of(2).then(info)
    }

    fn rekey_ike(&mut self, nonce: u8) {
        let Some(peer) = self.peers.last() else { return };
        self.seeds += 1;
        let (spi, nonce) = (Spi(0xaaaa_0000 + self.seeds), vec![nonce; 32]);
        let list = peer.rekey_payloads(spi, &nonce);
        let id = peer.next_id;
        self.request(ExchangeType::CREATE_CHILD_SA, &list);
        let Some(peer) = self.peers.last_mut() else { return };
        let Some(answer) = peer.response(&mut self.rig, id).map(|a| a.payloads) else { return };
        let (Some(sa), Some(nr), true) = (answer.sa(), answer.nonce(), answer.ke().is_some()) else { return };
        let theirs = sa.proposals[0].ike_spi().expect("an SPI in the answer to a rekey");
        let secret = peer.rekey_secret(&answer);
        let new = peer.successor(ipc::Role::Initiator, spi, theirs, nonce, nr.0.clone(), &secret);
        if self.peers.len() < 8 {
            self.peers.push(new);
        }
    }

    fn delete_child(&mut self, which: u8) {
        let spi = self.child(which).map_or(u32::from(which), |(_, out)| out);
        self.request(ExchangeType::INFORMATIONAL, &[Delete::children(ProtocolId::ESP, &[spi]).into()]);
    }

    /// One of the children there are: the engine's inbound SPI and the peer's.
    fn child(&self, which: u8) -> Option<(u32, u32)> {
        let n = self.rig.children.len();
        (n > 0).then(|| self.rig.children.values().nth(usize::from(which) % n).copied())?
    }

    /// Looks for requests of the engine.
    fn read(&mut self) {
        let Some(peer) = self.peers.last_mut() else {
            // Nobody yet: it may be calling.
            let Some((_, request)) = self.rig.sent.pop_front() else { return };
            if Message::parse(&request).is_ok_and(|m| !m.header.is_response() && m.payloads.sa().is_some()) {
                self.seeds += 1;
                let (peer, answer) = Puppet::responder(&self.ops, self.seeds, &request);
                self.peers.push(peer);
                self.send(&answer);
            }
            return;
        };
        if self.asked.len() < 8
            && let Some(request) = peer.next_request(&mut self.rig)
        {
            self.asked.push_back((self.peers.len() - 1, request));
        }
    }

    fn answer(&mut self, make: impl FnOnce(&mut Puppet, &Opened) -> Vec<Payload>) {
        let Some((at, request)) = self.asked.pop_front() else { return };
        let Some(peer) = self.peers.get_mut(at) else { return };
        let list = make(peer, &request);
        let message = peer.answer_to(&request, &list);
        self.send(&message);
    }

    /// Answers as an honest peer would.
    fn grant(&mut self, nonce: u8) {
        let Some((at, request)) = self.asked.front() else { return };
        let Some(peer) = self.peers.get(*at) else { return };
        let list = &request.payloads;
        let mut new = None;
        let answer: Vec<Payload> = match (request.header.exchange, list.sa(), list.nonce()) {
            (ExchangeType::IKE_AUTH, Some(_), _) if !peer.init_response.is_empty() => {
                self.proved = true;
                peer.auth_answer(request)
            }
            (ExchangeType::CREATE_CHILD_SA, Some(sa), Some(ni))
                if sa.proposals[0].protocol == ProtocolId::IKE =>
            {
                self.seeds += 1;
                let spi = Spi(0xbbbb_0000 + self.seeds);
                let Ok(chosen) = select::choose_ike(&realm().ike, sa, Some(spi), None) else { return };
                let mut answer = peer.rekey_payloads(spi, &[nonce; 32]);
                answer[0] = chosen.answer.into();
                let secret = peer.rekey_secret(list);
                let nr = vec![nonce; 32];
                new = Some(peer.successor(ipc::Role::Responder, chosen.spi, spi, ni.0.clone(), nr, &secret));
                answer
            }
            (ExchangeType::CREATE_CHILD_SA, Some(sa), Some(_)) => {
                self.spis += 1;
                let ours = &realm().children[0].esp;
                let Ok(chosen) = select::choose_esp(ours, sa, self.spis, true, None) else { return };
                let (Some(ts_i), Some(ts_r)) = (list.ts_i(), list.ts_r()) else { return };
                let mut answer: Vec<Payload> = vec![chosen.answer.into(), Nonce(vec![nonce; 32]).into()];
                if chosen.suite.group.is_some() {
                    answer.push(Ke::new(KeId(Group::X25519.0), public_value(Group::X25519, 6)).into());
                }
                answer.push(Body::TsI(ts_i.clone()).into());
                answer.push(Body::TsR(ts_r.clone()).into());
                answer
            }
            _ => vec![],
        };
        self.answer(|_, _| answer);
        if let Some(new) = new
            && self.peers.len() < 8
        {
            self.peers.push(new);
        }
    }

    /// Something that was sent before, perhaps with one bit turned.
    fn again(&mut self, which: u8, flip: Option<u16>) {
        let Some(message) = self.history.get(usize::from(which) % self.history.len().max(1)) else { return };
        let mut message = message.clone();
        if let Some(bit) = flip {
            let bit = usize::from(bit) % (message.len() * 8).max(1);
            if let Some(octet) = message.get_mut(bit / 8) {
                *octet ^= 1 << (bit % 8);
            }
        }
        let from = self.peers.last().map_or_else(puppet::puppet_address, |p| p.address);
        self.rig.datagram_from(from, &message);
    }

    /// An INFORMATIONAL in pieces, some of them left out, the last first.
    fn fragments(&mut self, size: u8, keep: u32, inside: &Inside) {
        let Some(peer) = self.peers.last_mut() else { return };
        let header = peer.header(ExchangeType::INFORMATIONAL, peer.next_id);
        let mut list = payloads(inside);
        list.push(wire::ike::Vendor(vec![0; 600]).into());
        let (ops, max) = (self.ops.clone(), 200 + usize::from(size) * 4);
        let Some(protection) = peer.protection.as_mut() else { return };
        let Ok(parts) = tussock_ike::frag::split(&*ops, protection, &header, &list, max) else { return };
        if keep == u32::MAX {
            peer.next_id += 1;
        }
        for (i, part) in parts.iter().enumerate().rev() {
            if keep >> (i % 32) & 1 == 1 {
                self.send(part);
            }
        }
    }

    // ---- what others do ----

    fn command(&mut self, which: u8) {
        let realm = || "puppet".to_owned();
        let child = || Some("net".to_owned());
        self.rig.command(match which % 6 {
            0 => Command::Up { realm: realm(), child: child() },
            1 => Command::Up { realm: realm(), child: Some("dmz".into()) },
            2 => Command::Down { realm: realm(), child: None },
            3 => Command::Down { realm: realm(), child: child() },
            4 => Command::Rekey { realm: realm(), child: None },
            _ => Command::Rekey { realm: realm(), child: child() },
        });
    }

    fn esp(&mut self, which: u8, signal: u8) {
        let n = self.rig.children.len();
        let Some(child) = self.rig.children.keys().nth(usize::from(which) % n.max(1)).copied() else {
            let ts = |text: &str| text.parse().expect("a selector");
            let (local, remote) = (ts("10.1.0.1[tcp/80]"), ts("10.2.0.1[tcp/99]"));
            return self.rig.esp(EspSignal::Acquire {
                realm: "puppet".into(),
                child: "net".into(),
                local,
                remote,
            });
        };
        self.rig.esp(match signal % 8 {
            0 => EspSignal::SoftLimit(child),
            1 => EspSignal::HardLimit(child),
            2 => EspSignal::PeerAlive(child),
            3 => EspSignal::PeerMoved { child, remote: "192.0.2.77:4500".parse().expect("an address") },
            lane => EspSignal::WantResource { child, resource: u16::from(lane) - 4 },
        });
    }

    // ---- what must hold ----

    fn check(&mut self) {
        let status = self.rig.engine.status();
        assert!(status.sas.len() <= 100 && status.half_open <= 60);
        for sa in &status.sas {
            assert!(self.proved || sa.established.is_none(), "up without a proof");
            // The limit is for what the peer makes. Ours come on top, and each may be there twice while it is rekeyed.
            assert!(sa.children.len() <= 2 * (CHILDREN + 2), "children without end");
            assert!(sa.established.is_some() || sa.children.is_empty(), "a child before authentication");
            for child in &sa.children {
                let installed = self.rig.children.get(&child.id);
                assert_eq!(installed, Some(&(child.spi_in, child.spi_out)), "said to be there, and is not");
                assert_eq!(child.spi_in % u32::from(LANES), u32::from(child.lane), "on another lane");
            }
        }
        let mut inbound: Vec<u32> = self.rig.children.values().map(|(spi, _)| *spi).collect();
        inbound.sort_unstable();
        assert!(inbound.windows(2).all(|w| w[0] != w[1]), "an inbound SPI twice");
        for (_, message) in &self.rig.sent {
            assert!(Message::parse(message).is_ok(), "the engine sent what it would not take");
        }
        self.rig.sent.truncate(64);
        // One step makes so much log and no more.
        let fresh = &self.rig.events[self.looked..];
        let octets: usize = fresh.iter().map(|e| format!("{e:?}").len()).sum();
        assert!(octets < 400_000, "{octets} octets of log in one step");
        assert!(fresh.iter().all(|e| !matches!(e, Event::IkeEstablished { .. }) || self.proved));
        self.looked = self.rig.events.len();
    }

    /// Taken down, with a peer that no longer answers: then there is nothing left.
    fn end(&mut self) {
        self.rig.failures.clear();
        self.rig.let_go();
        self.rig.command(Command::Shutdown);
        self.rig.wait(Duration::from_secs(2000));
        let status = self.rig.engine.status();
        assert_eq!(
            (status.sas.len(), status.half_open, status.in_flight),
            (0, 0, 0),
            "something stays for ever"
        );
        assert!(self.rig.children.is_empty(), "a child outlives everything");
        let unanswered = self.rig.engine.poll_timeout();
        assert!(unanswered.is_none(), "a timer without a purpose");
    }
}

/// The payloads a script names: type, flags and octets, whatever they are.
fn payloads(inside: &Inside) -> Vec<Payload> {
    let payload = |(kind, flags, octets): &(u8, u8, Vec<u8>)| Payload {
        flags: *flags,
        body: Body::Unknown(Unknown { kind: PayloadType(*kind), bytes: octets.clone() }),
    };
    // An SK inside SK would end the chain as far as its maker is concerned.
    inside.iter().filter(|(kind, ..)| ![46, 53].contains(kind)).map(payload).collect()
}

fn spoil(list: &mut Vec<Payload>, drop: Option<u8>, add: &Inside) {
    if let Some(at) = drop {
        list.remove(usize::from(at) % list.len());
    }
    list.extend(payloads(add));
}
