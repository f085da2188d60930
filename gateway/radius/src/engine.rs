//! Questions to servers, without socket and clock: which server, which identifier, again or to the next one, and what an
//! answer has to be like.
//!
//! 1. [`Engine::ask`]: a question waits until a server has room for it.
//! 2. It goes to the first server that is not known to be dead; one that began a conversation is the only one to go on with
//!    it, since State (RFC 2865 section 5.24) means something to that server alone.
//! 3. It gets a lane (a socket) and an identifier that is free there, and is sent, and sent again as it is.
//! 4. An answer counts if its lane, identifier and both authenticators are right; anything else is dropped and counted.
//! 5. Without one the server is dead, unless it said something else meanwhile; what it has not begun with moves on.
//! 6. A dead server is asked for its status (RFC 5997) until it says something, and given a question to prove itself with
//!    after a minute.
//!
//! There is one engine for authentication and one for accounting: a server may do the one and not the other.
//!
//! Other servers can take the place of these at any time ([`Engine::replace`]). One that stays keeps all it has; what waits for one that
//! goes is given to another, or is not answered if only that one could.

mod health;
mod servers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spi::Secret;

use self::health::PROBE;
use self::servers::{Server, Servers};
use crate::attribute::Written;
use crate::config::Patience;
use crate::lane::{Lane, LaneKey};
use crate::mppe;
use crate::packet::{self, Code, Packet, Unproven};

/// Questions that may be out or wait at one time.
pub const MAX_ASKED: usize = 8192;
/// Questions that one server is given at one time; the rest waits here, and not in its socket's buffer.
pub const WINDOW: usize = 512;
/// Lanes to one server at most.
pub const MAX_LANES: usize = 16;
/// After that long without a question a lane is closed.
const IDLE: Duration = Duration::from_secs(120);

/// What the engine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Access-Request.
    Access,
    /// Accounting-Request.
    Accounting,
}

/// A server. Not used for another one, also after it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub usize);

/// Names a question; whoever asks chooses it and does not use it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A question.
pub struct Question {
    /// All attributes but Message-Authenticator.
    pub attributes: Written,
    /// The server that has to have it.
    pub only: Option<ServerId>,
}

/// What became of a question.
pub enum Answer {
    /// A server said something, and proved that it was it.
    Reply(Box<Reply>),
    /// Nobody did; each server with the reason.
    Nobody(String),
}

/// What a server said.
pub struct Reply {
    /// Which.
    pub server: ServerId,
    /// Its name.
    pub name: Arc<str>,
    /// Yes, no, or more to say.
    pub code: Code,
    /// With what.
    pub attributes: Written,
    /// The key that came with it.
    pub msk: Option<Secret>,
}

/// What is to be done.
pub enum Effect {
    /// Connect a lane to a server; then [`Engine::on_opened`] or [`Engine::on_failed`].
    Open(LaneKey, ServerId),
    /// Send this through it.
    Send(LaneKey, Vec<u8>),
    /// Close it.
    Close(LaneKey),
    /// Give this to who asked.
    Done(Ticket, Answer),
    /// A server is not believed to be there any more, and why.
    Lost(Arc<str>, String),
    /// It is there again: after how long, and how many questions nobody answered meanwhile.
    Back(Arc<str>, Duration, u64),
}

/// What was dropped, by reason, and what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions sent, the first time.
    pub asked: u64,
    /// Sent once more.
    pub again: u64,
    /// Moved to another server.
    pub moved: u64,
    /// Answers.
    pub answered: u64,
    /// Not answered by anybody.
    pub unanswered: u64,
    /// Dropped: no packet.
    pub malformed: u64,
    /// Dropped: an identifier that is not out, or a code that is no answer to the question.
    pub unexpected: u64,
    /// Dropped: no Message-Authenticator.
    pub unsigned: u64,
    /// Dropped: one of the two authenticators is wrong.
    pub forged: u64,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Since when it is dead, and why.
    pub dead: Option<(Instant, String)>,
    /// Questions it has.
    pub out: usize,
    /// Sockets to it.
    pub lanes: usize,
}

/// A server as the engine is told of it.
pub struct Peer {
    /// Its name.
    pub name: Arc<str>,
    /// What it shares with us.
    pub secret: Secret,
    /// Whether its lanes are streams: nothing is repeated then, and what breaks off is asked anew.
    pub stream: bool,
}

struct Asked {
    attributes: Written,
    /// Status-Server; whose answer is for us alone.
    probe: bool,
    only: Option<ServerId>,
    failed: Vec<(ServerId, String)>,
    /// Whether a connection broke off under it.
    broken: bool,
    flight: Option<Flight>,
}

struct Flight {
    server: ServerId,
    lane: LaneKey,
    identifier: u8,
    authenticator: [u8; 16],
    /// Kept to be sent again; empty until the lane is open, and on a stream once it was sent.
    packet: Vec<u8>,
    tries: u8,
    /// Times in a row that the port was closed.
    refused: u8,
    began: Instant,
    due: Instant,
}

/// See the module.
pub struct Engine {
    service: Service,
    patience: Patience,
    servers: Servers,
    next_server: usize,
    asked: BTreeMap<Ticket, Asked>,
    /// Questions without a server yet, in their order: those for which any will do, and those for which not.
    line: VecDeque<Ticket>,
    settled: VecDeque<Ticket>,
    timers: BTreeSet<(Instant, Ticket)>,
    effects: VecDeque<Effect>,
    counters: Counters,
    random: Box<dyn FnMut() -> [u8; 16] + Send>,
    next_lane: u32,
    next_probe: u64,
}

impl Engine {
    /// An engine that has asked nothing. `lanes`: the first key that its lanes may have. `random` gives octets that nobody
    /// can guess.
    pub fn new(
        service: Service,
        patience: Patience,
        servers: Vec<Peer>,
        lanes: u32,
        random: Box<dyn FnMut() -> [u8; 16] + Send>,
    ) -> Self {
        let next_server = servers.len();
        let servers = servers.into_iter().enumerate().map(|(id, peer)| (ServerId(id), Server::new(peer)));
        Engine {
            service,
            patience,
            servers: Servers(servers.collect()),
            next_server,
            asked: BTreeMap::new(),
            line: VecDeque::new(),
            settled: VecDeque::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
            counters: Counters::default(),
            random,
            next_lane: lanes,
            // Above all tickets of others.
            next_probe: 1 << 63,
        }
    }

    /// Puts other servers in the place of these, most wanted first; a name in the place of a server is of one that stays. Returns their
    /// names. What a server that goes was asked goes to the others; what only it could answer has no answer.
    pub fn replace(
        &mut self,
        now: Instant,
        patience: Patience,
        servers: Vec<Result<ServerId, Peer>>,
    ) -> Vec<ServerId> {
        self.patience = patience;
        let mut before = std::mem::take(&mut self.servers.0);
        for server in servers {
            match server {
                Ok(stays) => {
                    let at = before.iter().position(|(id, _)| *id == stays);
                    self.servers.0.extend(at.map(|at| before.remove(at)));
                }
                Err(peer) => {
                    self.servers.0.push((ServerId(self.next_server), Server::new(peer)));
                    self.next_server += 1;
                }
            }
        }
        let mut again = Vec::new();
        for (key, lane) in before.into_iter().flat_map(|(_, server)| server.lanes) {
            self.effects.push_back(Effect::Close(key));
            again.extend(lane.tickets());
        }
        // The oldest first, as they came.
        again.sort_unstable();
        for ticket in again.into_iter().rev() {
            let Some(asked) = self.asked.get_mut(&ticket) else { continue };
            if let Some(flight) = asked.flight.take() {
                self.timers.remove(&(flight.due, ticket));
            }
            if asked.probe {
                self.asked.remove(&ticket);
            } else {
                self.wait_first(ticket);
            }
        }
        self.place(now);
        self.servers.ids()
    }

    /// Asks. The answer comes as [`Effect::Done`].
    pub fn ask(&mut self, now: Instant, ticket: Ticket, question: Question) {
        let Question { attributes, only } = question;
        let refusal = if self.asked.len() >= MAX_ASKED {
            Some(format!("{MAX_ASKED} questions are out already"))
        } else {
            packet::fits(&attributes).err().map(|error| error.to_string())
        };
        if let Some(why) = refusal {
            self.counters.unanswered += 1;
            self.effects.push_back(Effect::Done(ticket, Answer::Nobody(why)));
            return;
        }
        let line = if only.is_some() { &mut self.settled } else { &mut self.line };
        line.push_back(ticket);
        let asked = Asked { attributes, probe: false, only, failed: Vec::new(), broken: false, flight: None };
        self.asked.insert(ticket, asked);
        self.place(now);
    }

    /// Nobody waits for the answer any more.
    pub fn forget(&mut self, now: Instant, ticket: Ticket) {
        if self.end_flight(now, ticket).is_none() {
            self.line.retain(|waiting| *waiting != ticket);
            self.settled.retain(|waiting| *waiting != ticket);
        }
        self.asked.remove(&ticket);
        self.place(now);
    }

    /// A lane is connected.
    pub fn on_opened(&mut self, now: Instant, key: LaneKey) {
        let Some(server) = self.server_of(key) else { return };
        if let Some(lane) = self.servers[server].lanes.get_mut(&key) {
            lane.open = true;
            for ticket in lane.tickets() {
                self.send_first(now, ticket);
            }
        }
    }

    /// A lane could not be connected, or broke off.
    pub fn on_failed(&mut self, now: Instant, key: LaneKey, why: &str) {
        let Some(server) = self.server_of(key) else { return };
        let Some(lane) = self.servers[server].lanes.remove(&key) else { return };
        let tickets = lane.tickets();
        if !lane.open && !self.servers[server].lanes.values().any(|lane| lane.open) {
            // Nobody there to connect to.
            self.server_died(now, server, why);
        }
        for ticket in tickets {
            let Some(asked) = self.asked.get_mut(&ticket) else { continue };
            // What was on its way when a connection broke off is asked once more, of the same server first.
            if lane.open && !asked.broken && !asked.probe {
                asked.broken = true;
                self.end_flight(now, ticket);
                self.wait_first(ticket);
            } else {
                self.give_up_on(now, ticket, why);
            }
        }
        self.place(now);
    }

    /// The lane's port at the server is closed, says the network. Anybody may say so, thus it only makes us less patient.
    pub fn on_refused(&mut self, now: Instant, key: LaneKey) {
        let Some(server) = self.server_of(key) else { return };
        let Some(lane) = self.servers[server].lanes.get(&key) else { return };
        for ticket in lane.tickets() {
            let Some(flight) = self.asked.get_mut(&ticket).and_then(|asked| asked.flight.as_mut()) else {
                continue;
            };
            flight.refused = flight.refused.saturating_add(1);
            if flight.refused >= 2 && flight.tries >= 2 {
                self.no_answer(now, ticket, "nothing listens there");
            }
        }
        self.place(now);
    }

    /// A packet came in through a lane.
    pub fn on_packet(&mut self, now: Instant, key: LaneKey, bytes: &[u8]) {
        let Ok(packet) = Packet::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(server) = self.server_of(key) else { return };
        let ticket = self.servers[server].lanes.get(&key).and_then(|lane| lane.ticket(packet.identifier));
        let flight = ticket
            .and_then(|ticket| self.asked.get(&ticket).map(|asked| (ticket, asked)))
            .and_then(|(ticket, asked)| asked.flight.as_ref().map(|flight| (ticket, asked.probe, flight)));
        let Some((ticket, probe, flight)) = flight.filter(|(_, _, flight)| flight.tries > 0) else {
            self.counters.unexpected += 1;
            return;
        };
        let answers = match (self.service, probe) {
            (Service::Access, false) => {
                [Code::ACCESS_ACCEPT, Code::ACCESS_REJECT, Code::ACCESS_CHALLENGE].as_slice()
            }
            (Service::Access, true) => &[Code::ACCESS_ACCEPT, Code::ACCESS_REJECT],
            (Service::Accounting, _) => &[Code::ACCOUNTING_RESPONSE],
        };
        if !answers.contains(&packet.code) {
            self.counters.unexpected += 1;
            return;
        }
        let secret = &self.servers[server].peer.secret;
        // What lets somebody in has to be signed. That a server is alive may be said without, as many older ones do; who
        // forges it gains a question that is sent in vain.
        let signed = self.service == Service::Access && !probe;
        match packet.prove_reply(&flight.authenticator, secret, signed) {
            Ok(()) => {}
            Err(Unproven::Missing) => {
                self.counters.unsigned += 1;
                return;
            }
            Err(_) => {
                self.counters.forged += 1;
                return;
            }
        }
        let msk = (packet.code == Code::ACCESS_ACCEPT && !probe)
            .then(|| mppe::msk(packet.attributes, &flight.authenticator, secret))
            .flatten();
        self.heard(now, server);
        self.end_flight(now, ticket);
        self.asked.remove(&ticket);
        if !probe {
            self.counters.answered += 1;
            let mut attributes = Written::new();
            attributes.copy(packet.attributes);
            let name = Arc::clone(&self.servers[server].peer.name);
            let reply = Reply { server, name, code: packet.code, attributes, msk };
            self.effects.push_back(Effect::Done(ticket, Answer::Reply(Box::new(reply))));
        }
        self.place(now);
    }

    /// Does what is due.
    pub fn on_time(&mut self, now: Instant) {
        while let Some((_, ticket)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            self.flight_is_due(now, ticket);
        }
        for id in self.servers.ids() {
            self.probe(now, id);
            let server = &mut self.servers[id];
            let idle: Vec<LaneKey> =
                server.lanes.iter().filter(|(_, l)| l.idle(now, IDLE)).map(|(k, _)| *k).collect();
            for key in idle {
                server.lanes.remove(&key);
                self.effects.push_back(Effect::Close(key));
            }
        }
        self.place(now);
    }

    /// What is to be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Engine::on_time`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let probes = self.servers.iter().filter_map(|(_, server)| {
            let dead = server.dead.as_ref()?;
            (!dead.probing).then_some(dead.probe_at)
        });
        let lanes =
            self.servers.iter().flat_map(|(_, s)| s.lanes.values()).filter_map(|lane| lane.idle_at(IDLE));
        timer.into_iter().chain(probes).chain(lanes).min()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How the servers are.
    pub fn status(&self) -> Vec<ServerStatus> {
        let status = |(_, server): &(ServerId, Server)| ServerStatus {
            name: Arc::clone(&server.peer.name),
            dead: server.dead.as_ref().map(|dead| (dead.since, dead.why.clone())),
            out: server.out,
            lanes: server.lanes.len(),
        };
        self.servers.iter().map(status).collect()
    }

    /// Questions that are out or wait.
    pub fn len(&self) -> usize {
        self.asked.values().filter(|asked| !asked.probe).count()
    }

    /// Whether nothing is out and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives waiting questions a server each, as far as there is room.
    fn place(&mut self, now: Instant) {
        let settled: Vec<Ticket> = self.settled.drain(..).collect();
        // Those that have to wait for one full server do not keep others from theirs.
        for ticket in settled {
            if !self.give(now, ticket) {
                self.settled.push_back(ticket);
            }
        }
        // What holds for the first in line holds for all of it.
        while let Some(ticket) = self.line.pop_front() {
            if !self.give(now, ticket) {
                self.line.push_front(ticket);
                break;
            }
        }
    }

    /// Gives a question a server, or its asker the answer that there is none; otherwise it has to wait.
    fn give(&mut self, now: Instant, ticket: Ticket) -> bool {
        if !self.asked.contains_key(&ticket) {
            return true;
        }
        match self.choose(now, ticket) {
            Some(server) => self.servers[server].out < WINDOW && self.launch(now, ticket, server),
            None => {
                self.nobody(ticket);
                true
            }
        }
    }

    /// Has a question wait before all that wait for the same.
    fn wait_first(&mut self, ticket: Ticket) {
        let Some(asked) = self.asked.get(&ticket) else { return };
        let settled = asked.only.is_some() || !asked.failed.is_empty();
        if settled { &mut self.settled } else { &mut self.line }.push_front(ticket);
    }

    /// The server whose turn it is with this question; `None` when it is nobody's.
    fn choose(&self, now: Instant, ticket: Ticket) -> Option<ServerId> {
        let asked = self.asked.get(&ticket)?;
        let usable = |id: &ServerId| {
            let worth = self.servers.get(*id).is_some_and(|server| server.is_worth_a_try(now));
            (worth || asked.probe) && asked.failed.iter().all(|(failed, _)| failed != id)
        };
        match asked.only {
            // Begun with it: even if it was found dead since, this is for it to answer.
            Some(only) => Some(only).filter(|id| {
                self.servers.get(*id).is_some() && asked.failed.iter().all(|(failed, _)| failed != id)
            }),
            None => self.servers.iter().map(|(id, _)| *id).find(usable),
        }
    }

    /// Gives a question a lane of this server; whether there was one.
    fn launch(&mut self, now: Instant, ticket: Ticket, id: ServerId) -> bool {
        let authenticator = (self.random)();
        let due = now + self.patience.whole();
        let server = &mut self.servers[id];
        let best = server.lanes.iter().max_by_key(|(_, lane)| lane.free()).map(|(k, lane)| (*k, lane.free()));
        let key = match best {
            // An identifier rests before it is used again, so that a late answer is not taken for another's.
            Some((key, free)) if free >= 64 || server.lanes.len() >= MAX_LANES => key,
            _ => {
                let key = LaneKey(self.next_lane);
                self.next_lane = self.next_lane.wrapping_add(1);
                server.lanes.insert(key, Lane::default());
                self.effects.push_back(Effect::Open(key, id));
                key
            }
        };
        let Some(lane) = server.lanes.get_mut(&key) else { return false };
        let Some(identifier) = lane.take(ticket) else { return false };
        let open = lane.open;
        server.out += 1;
        if let Some(asked) = self.asked.get_mut(&ticket) {
            let flight = Flight {
                server: id,
                lane: key,
                identifier,
                authenticator,
                packet: Vec::new(),
                tries: 0,
                refused: 0,
                began: now,
                due,
            };
            asked.flight = Some(flight);
            self.timers.insert((due, ticket));
        }
        if open {
            self.send_first(now, ticket);
        }
        true
    }

    /// The lane is open: the packet is made and sent.
    fn send_first(&mut self, now: Instant, ticket: Ticket) {
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        let Some(flight) = asked.flight.as_mut().filter(|flight| flight.tries == 0) else { return };
        let Peer { secret, stream, .. } = &self.servers[flight.server].peer;
        let made = match (self.service, asked.probe) {
            (Service::Accounting, false) => packet::digested_request(
                Code::ACCOUNTING_REQUEST,
                flight.identifier,
                &asked.attributes,
                secret,
                false,
            ),
            (_, probe) => {
                let code = if probe { Code::STATUS_SERVER } else { Code::ACCESS_REQUEST };
                packet::access_request(
                    code,
                    flight.identifier,
                    flight.authenticator,
                    &asked.attributes,
                    secret,
                )
            }
        };
        let Ok(packet) = made else {
            // They fitted when we were asked.
            return;
        };
        flight.authenticator.copy_from_slice(&packet[4..20]);
        self.timers.remove(&(flight.due, ticket));
        flight.began = now;
        flight.due = now + if *stream { self.patience.whole() } else { self.patience.after(0) };
        flight.tries = 1;
        if !*stream {
            flight.packet.clone_from(&packet);
        }
        self.timers.insert((flight.due, ticket));
        self.counters.asked += u64::from(!asked.probe);
        self.effects.push_back(Effect::Send(flight.lane, packet));
    }

    fn flight_is_due(&mut self, now: Instant, ticket: Ticket) {
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        let Some(flight) = &mut asked.flight else { return };
        if flight.due > now {
            self.timers.insert((flight.due, ticket));
            return;
        }
        let stream = self.servers[flight.server].peer.stream;
        if flight.tries == 0 {
            self.no_answer(now, ticket, "no connection");
            return;
        }
        if stream || flight.tries >= self.patience.tries {
            let tries = flight.tries;
            let text =
                if tries == 1 { "no answer".to_owned() } else { format!("no answer to {tries} tries") };
            self.no_answer(now, ticket, &text);
            return;
        }
        flight.due = now + self.patience.after(flight.tries);
        flight.tries += 1;
        self.timers.insert((flight.due, ticket));
        self.counters.again += 1;
        self.effects.push_back(Effect::Send(flight.lane, flight.packet.clone()));
    }

    /// A server has not answered this question, however often it was asked.
    fn no_answer(&mut self, now: Instant, ticket: Ticket, why: &str) {
        let Some(flight) = self.asked.get(&ticket).and_then(|asked| asked.flight.as_ref()) else { return };
        let (server, began) = (flight.server, flight.began);
        let probe = self.asked.get(&ticket).is_some_and(|asked| asked.probe);
        self.give_up_on(now, ticket, why);
        // It may dislike this one question and be well.
        if !probe && self.servers[server].heard.is_none_or(|heard| heard <= began) {
            self.server_died(now, server, why);
        }
        self.place(now);
    }

    /// This server is not to be asked this again.
    fn give_up_on(&mut self, now: Instant, ticket: Ticket, why: &str) {
        let flight = self.end_flight(now, ticket);
        let Some(asked) = self.asked.get_mut(&ticket) else { return };
        if asked.probe {
            self.asked.remove(&ticket);
            if let Some(server) = flight
                && let Some(dead) = &mut self.servers[server].dead
            {
                dead.probing = false;
                dead.probe_at = now + PROBE;
            }
            return;
        }
        if let Some(server) = flight {
            asked.failed.push((server, why.to_owned()));
            self.counters.moved +=
                u64::from(asked.only.is_none() && self.servers.0.len() > asked.failed.len());
        }
        self.wait_first(ticket);
    }

    /// Nobody is left to ask.
    fn nobody(&mut self, ticket: Ticket) {
        let Some(asked) = self.asked.remove(&ticket) else { return };
        self.counters.unanswered += 1;
        let why = |(id, server): &(ServerId, Server)| {
            let name = &server.peer.name;
            let tried = asked.failed.iter().find(|(failed, _)| failed == id);
            match (tried, &server.dead, asked.only) {
                (_, _, Some(only)) if only != *id => None,
                (Some((_, why)), _, Some(_)) => Some(format!("{name} began with it and fell silent: {why}")),
                (Some((_, why)), _, None) => Some(format!("{name}: {why}")),
                (None, Some(dead), _) => Some(format!("{name} is down: {}", dead.why)),
                (None, None, _) => None,
            }
        };
        let reasons: Vec<String> = self.servers.iter().filter_map(why).collect();
        let text = match reasons.as_slice() {
            [] if asked.only.is_some() => {
                "the server that began with it is no server of ours any more".to_owned()
            }
            [] => "no server is configured for it".to_owned(),
            _ => reasons.join("; "),
        };
        self.effects.push_back(Effect::Done(ticket, Answer::Nobody(text)));
    }

    /// Gives back what a question has at a server; which server that was.
    fn end_flight(&mut self, now: Instant, ticket: Ticket) -> Option<ServerId> {
        let flight = self.asked.get_mut(&ticket)?.flight.take()?;
        self.timers.remove(&(flight.due, ticket));
        let server = &mut self.servers[flight.server];
        server.out -= 1;
        if let Some(lane) = server.lanes.get_mut(&flight.lane) {
            lane.give_back(now, flight.identifier);
        }
        Some(flight.server)
    }

    fn server_of(&self, key: LaneKey) -> Option<ServerId> {
        self.servers.iter().find(|(_, server)| server.lanes.contains_key(&key)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;
