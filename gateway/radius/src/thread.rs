//! The thread with the sockets: what the engines, the ledger and the desk want done is done here, and nowhere else is a
//! socket or a clock.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};
use spi::{Doorbell, Secret};

use crate::accounting::{Cause, Known, Ledger, What};
use crate::client::{Listen, Order, Shared, Slot, Status};
use crate::config::{Config, Dynamic, Server, Tls, Whose};
use crate::dynamic::{Desk, Heard};
use crate::engine::{Answer, Effect, Engine, Peer, ServerId, Service, Ticket};
use crate::journal::{Journal, Kept};
use crate::lane::LaneKey;
use crate::packet::MAX_PACKET;
use crate::tls::{Looked, TlsLane};

/// Datagrams taken from one socket in one turn.
const BUDGET: usize = 64;
/// How long a connection may take until it is up.
const CONNECT: Duration = Duration::from_secs(5);
/// Octets that a socket keeps for us.
const BUFFER: usize = 1 << 20;
/// Lanes of accounting are numbered from here.
const ACCOUNTING: u32 = 1 << 31;

/// Where a server is, and by what it is known.
struct Place {
    name: String,
    at: SocketAddr,
    secret: Secret,
    tls: Option<Tls>,
}

impl Place {
    fn is_same(&self, other: &Place) -> bool {
        let print = |place: &Place| place.tls.as_ref().map(|tls| tls.fingerprint);
        self.name == other.name
            && self.at == other.at
            && self.secret.ct_eq(other.secret.expose())
            && print(self) == print(other)
    }

    fn peer(&self) -> Peer {
        Peer { name: self.name.as_str().into(), secret: self.secret.duplicate(), stream: self.tls.is_some() }
    }
}

/// Where an engine's servers are.
type Places = BTreeMap<ServerId, Place>;

enum Socket {
    Udp(UdpSocket),
    Tls { lane: Box<TlsLane>, until: Option<Instant> },
}

/// See the module.
pub(crate) struct Io {
    shared: Arc<Shared>,
    access: Engine,
    accounting: Engine,
    places: [Places; 2],
    sockets: BTreeMap<LaneKey, Socket>,
    slots: BTreeMap<Ticket, Slot>,
    ledger: Ledger,
    journal: Journal,
    desk: Option<(UdpSocket, Desk)>,
    /// Whether another gateway runs on with what was written down.
    inherits: bool,
    /// Of this run, for the records of the gateway itself.
    session: String,
}

impl Io {
    /// With the sessions of a gateway that goes on.
    pub(crate) fn new(config: Config, shared: Arc<Shared>) -> io::Result<(Io, Vec<Known>)> {
        let Config { nas_identifier, nas_address, servers, patience, dynamic, journal } = config;
        let desk = match dynamic {
            Some(dynamic) => {
                let socket = listen(dynamic.listen)?;
                Some((socket, Desk::new(dynamic, nas_identifier, nas_address)))
            }
            None => None,
        };
        // Fails now, if it ever does.
        random()?;
        let engine = |service, lanes| {
            let places = of_service(&servers, service);
            let random = Box::new(|| random().unwrap_or_default());
            let peers = places.iter().map(Place::peer).collect();
            let places = places.into_iter().enumerate().map(|(n, place)| (ServerId(n), place)).collect();
            (Engine::new(service, patience, peers, lanes, random), places)
        };
        let (access, access_places) = engine(Service::Access, 0);
        let (accounting, accounting_places) = engine(Service::Accounting, ACCOUNTING);
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (folder, whose) = journal.unzip();
        let journal = Journal::open(folder.as_deref(), Instant::now());
        let mut io = Io {
            shared,
            access,
            accounting,
            places: [access_places, accounting_places],
            sockets: BTreeMap::new(),
            slots: BTreeMap::new(),
            ledger: Ledger::default(),
            journal,
            desk,
            inherits: whose == Some(Whose::Ours),
            session: format!("gateway-{:x}", started.as_secs()),
        };
        let known = io.restore();
        Ok((io, known))
    }

    /// Takes what was written down by the process before. Sessions of a gateway that is gone are over.
    fn restore(&mut self) -> Vec<Known> {
        let (now, at) = (Instant::now(), SystemTime::now());
        let contents = self.journal.contents().clone();
        let (mut records, mut sessions, mut useless) = (0, Vec::new(), Vec::new());
        for ((kind, number), octets) in contents {
            match kind {
                Kept::Record if self.ledger.restore(now, at, number, &octets) => records += 1,
                Kept::Session => match Known::from_octets(number, &octets) {
                    Some(known) => sessions.push(known),
                    None => useless.push((kind, number)),
                },
                Kept::Record => useless.push((kind, number)),
            }
        }
        useless.into_iter().for_each(|(kind, number)| self.journal.note(kind, number, None));
        if records + sessions.len() > 0 {
            let (sessions, inherits) = (sessions.len(), self.inherits);
            tracing::info!(records, sessions, inherits, "RADIUS accounting goes on where it was");
        }
        if !self.keeps_accounts() {
            self.ledger.clear();
        }
        if self.inherits {
            return sessions;
        }
        let nas = self.shared.nas();
        for Known { name, session, time, traffic, began, .. } in sessions {
            // The last that is known of it.
            let last = (began + time).min(at);
            if self.keeps_accounts() {
                let what = What::Stop { traffic, time, cause: Cause::NasReboot };
                self.ledger.add(now, last, &nas, &session, what);
            }
            self.journal.note(Kept::Session, name, None);
        }
        Vec::new()
    }

    fn keeps_accounts(&self) -> bool {
        !self.places[1].is_empty()
    }

    /// The gateway begins or ends, as servers see it.
    fn say_own(&mut self, on: bool) {
        if self.keeps_accounts() {
            let (now, at, session) = (Instant::now(), SystemTime::now(), self.session.clone());
            self.ledger.add_own(now, at, &self.shared.nas(), session, on);
        }
    }

    pub(crate) fn run(mut self) {
        // Sessions that go on are not to be closed by it.
        if !self.inherits {
            self.say_own(true);
        }
        let mut ending = false;
        loop {
            self.shared.to_thread.answer();
            let now = Instant::now();
            for order in self.shared.take_orders() {
                self.take(now, order);
            }
            let end = self.shared.end();
            if let Some((_, for_good)) = end
                && !ending
            {
                ending = true;
                if for_good {
                    self.say_own(false);
                }
            }
            let end = end.map(|(at, _)| at);
            self.access.on_time(now);
            self.accounting.on_time(now);
            for (ticket, question) in self.ledger.poll(now) {
                self.accounting.ask(now, ticket, question);
            }
            self.tend(now);
            self.carry_out(now);
            self.write_down(now);
            self.show();
            if end.is_some_and(|end| now >= end || self.ledger.status().waiting == 0) {
                return;
            }
            self.wait(now, end);
        }
    }

    /// Whatever became of records and sessions is in the journal before anybody sleeps.
    fn write_down(&mut self, now: Instant) {
        for (number, record) in self.ledger.take_changes() {
            self.journal.note(Kept::Record, number, record);
        }
        self.journal.write(now);
    }

    /// Other servers, and others who ask us.
    fn replace(&mut self, now: Instant, config: Config, socket: Listen) {
        let Config { nas_identifier, nas_address, servers, patience, dynamic, journal: _ } = config;
        let kept_accounts = self.keeps_accounts();
        for (service, engine) in
            [(Service::Access, &mut self.access), (Service::Accounting, &mut self.accounting)]
        {
            let places = of_service(&servers, service);
            let before = &mut self.places[usize::from(service == Service::Accounting)];
            let mut free: Vec<ServerId> = before.keys().copied().collect();
            let same = |place: &Place| {
                let at = free.iter().position(|id| before.get(id).is_some_and(|old| old.is_same(place)))?;
                Some(free.swap_remove(at))
            };
            let same: Vec<Option<ServerId>> = places.iter().map(same).collect();
            let told = same.into_iter().zip(&places).map(|(same, place)| same.ok_or_else(|| place.peer()));
            let names = engine.replace(now, patience, told.collect());
            *before = names.into_iter().zip(places).collect();
        }
        match (kept_accounts, self.keeps_accounts()) {
            (false, true) => self.say_own(true),
            (true, false) => {
                let lost = self.ledger.clear();
                if lost > 0 {
                    tracing::warn!(
                        lost,
                        "records for RADIUS accounting: there is no server for them any more"
                    );
                }
            }
            _ => {}
        }
        self.desk = self.listen(dynamic, (nas_identifier, nas_address), socket);
    }

    fn listen(
        &mut self,
        dynamic: Option<Dynamic>,
        (name, address): (String, Option<IpAddr>),
        socket: Listen,
    ) -> Option<(UdpSocket, Desk)> {
        let (dynamic, before) = (dynamic?, self.desk.take());
        let socket = match socket {
            Listen::Nowhere => return None,
            Listen::At(socket) => Some(socket),
            Listen::Same => None,
        };
        match (before, socket) {
            (Some((old, mut desk)), new) => {
                desk.replace(dynamic, name, address);
                Some((new.unwrap_or(old), desk))
            }
            (None, Some(socket)) => Some((socket, Desk::new(dynamic, name, address))),
            (None, None) => None,
        }
    }

    fn take(&mut self, now: Instant, order: Order) {
        match order {
            Order::Ask(ticket, question, slot) => {
                self.slots.insert(ticket, slot);
                self.access.ask(now, ticket, question);
            }
            Order::Forget(ticket) => {
                if self.slots.remove(&ticket).is_some() {
                    self.access.forget(now, ticket);
                }
            }
            Order::Account(session, what, since, at) if self.keeps_accounts() => {
                self.ledger.add(since, at, &self.shared.nas(), &session, what);
            }
            Order::Account(..) => {}
            Order::Know(known) => self.journal.note(Kept::Session, known.name, Some(known.to_octets())),
            Order::Unknow(name) => self.journal.note(Kept::Session, name, None),
            Order::Replace(config, socket) => self.replace(now, *config, socket),
            Order::Answer(id, verdict) => {
                if let Some((socket, desk)) = &mut self.desk
                    && let Some((to, reply)) = desk.answer(id, verdict)
                {
                    // Whoever asked asks again.
                    let _ = socket.send_to(&reply, to);
                }
            }
        }
    }

    /// Looks after what takes too long.
    fn tend(&mut self, now: Instant) {
        if let Some((socket, desk)) = &mut self.desk {
            for (to, reply) in desk.on_time(now) {
                let _ = socket.send_to(&reply, to);
            }
        }
        let late: Vec<LaneKey> = self
            .sockets
            .iter()
            .filter(|(_, socket)| matches!(socket, Socket::Tls { until: Some(until), .. } if *until <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            self.sockets.remove(&key);
            self.engine(key).on_failed(now, key, "no connection");
        }
    }

    /// Does what the engines want done, until they want nothing more.
    fn carry_out(&mut self, now: Instant) {
        loop {
            let effect = match self.access.poll_effect() {
                Some(effect) => Some((Service::Access, effect)),
                None => self.accounting.poll_effect().map(|effect| (Service::Accounting, effect)),
            };
            let Some((service, effect)) = effect else { return };
            match effect {
                Effect::Open(key, server) => self.open(now, service, key, server),
                Effect::Send(key, packet) => self.send(now, key, &packet),
                Effect::Close(key) => drop(self.sockets.remove(&key)),
                Effect::Done(ticket, answer) => self.done(now, service, ticket, answer),
                Effect::Lost(name, why) => {
                    tracing::warn!(server = %name, ?service, %why, "a RADIUS server is down");
                }
                Effect::Back(name, down, unanswered) => {
                    let down = down.as_secs();
                    tracing::info!(server = %name, ?service, down, unanswered, "a RADIUS server is back");
                }
            }
        }
    }

    fn open(&mut self, now: Instant, service: Service, key: LaneKey, server: ServerId) {
        let places = &self.places[usize::from(service == Service::Accounting)];
        let Some(Place { at, tls, .. }) = places.get(&server) else { return };
        let socket = match tls {
            None => udp(*at).map(Socket::Udp),
            Some(tls) => TlsLane::connect(*at, tls)
                .map(|lane| Socket::Tls { lane: Box::new(lane), until: Some(now + CONNECT) }),
        };
        match socket {
            Ok(socket) => {
                let open = matches!(socket, Socket::Udp(_));
                self.sockets.insert(key, socket);
                if open {
                    self.engine(key).on_opened(now, key);
                }
            }
            Err(error) => self.engine(key).on_failed(now, key, &error.to_string()),
        }
    }

    fn send(&mut self, now: Instant, key: LaneKey, packet: &[u8]) {
        let refused = match self.sockets.get_mut(&key) {
            Some(Socket::Udp(socket)) => {
                // What else goes wrong is a packet lost, which is sent again.
                socket.send(packet).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            }
            Some(Socket::Tls { lane, .. }) => {
                lane.send(packet);
                self.look_at_tls(now, key);
                false
            }
            None => false,
        };
        if refused {
            self.engine(key).on_refused(now, key);
            // The error was of a packet before; this one has not left.
            if let Some(Socket::Udp(socket)) = self.sockets.get(&key) {
                let _ = socket.send(packet);
            }
        }
    }

    fn done(&mut self, now: Instant, service: Service, ticket: Ticket, answer: Answer) {
        match service {
            Service::Access => {
                if let Some(slot) = self.slots.remove(&ticket) {
                    self.shared.give(&slot, answer);
                }
            }
            Service::Accounting => {
                self.ledger.on_answer(now, ticket, &answer);
                for (ticket, question) in self.ledger.poll(now) {
                    self.accounting.ask(now, ticket, question);
                }
            }
        }
    }

    fn look_at_tls(&mut self, now: Instant, key: LaneKey) {
        let Some(Socket::Tls { lane, until }) = self.sockets.get_mut(&key) else { return };
        let (packets, opened, broken) = match lane.look() {
            Looked::Fine { opened, packets } => (packets, opened, None),
            Looked::Broken { why, packets } => (packets, false, Some(why)),
        };
        if opened {
            *until = None;
        }
        if broken.is_some() {
            self.sockets.remove(&key);
        }
        let engine = self.engine(key);
        if opened {
            engine.on_opened(now, key);
        }
        for packet in packets {
            engine.on_packet(now, key, &packet);
        }
        if let Some(why) = broken {
            engine.on_failed(now, key, &why);
        }
    }

    fn look_at_udp(&mut self, now: Instant, key: LaneKey) {
        let mut buffer = [0; MAX_PACKET];
        for _ in 0..BUDGET {
            let Some(Socket::Udp(socket)) = self.sockets.get(&key) else { return };
            // One octet more than fits is a packet that is too long; its length field says so as well.
            match socket.recv(&mut buffer) {
                Ok(count) => {
                    let packet = buffer[..count].to_vec();
                    self.engine(key).on_packet(now, key, &packet);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.engine(key).on_refused(now, key);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn look_at_desk(&mut self, now: Instant) {
        let Some((socket, desk)) = &mut self.desk else { return };
        let mut buffer = [0; MAX_PACKET];
        for _ in 0..BUDGET {
            let (count, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            match desk.on_datagram(now, SystemTime::now(), from, &buffer[..count]) {
                Heard::Nothing => {}
                Heard::Reply(reply) => drop(socket.send_to(&reply, from)),
                Heard::Demand(demand) => self.shared.demand(demand),
            }
        }
    }

    /// Sleeps until something is to be done, and hears what came.
    fn wait(&mut self, now: Instant, end: Option<Instant>) {
        let lanes = self.sockets.values().filter_map(|socket| match socket {
            Socket::Tls { until, .. } => *until,
            Socket::Udp(_) => None,
        });
        let desk = self.desk.as_ref().and_then(|(_, desk)| desk.due());
        let due =
            [self.access.due(), self.accounting.due(), self.ledger.due(), self.journal.due(), desk, end];
        let due = due.into_iter().flatten().chain(lanes).min();
        let limit = due.map(|due| due.saturating_duration_since(now)).map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let keys: Vec<LaneKey> = self.sockets.keys().copied().collect();
        let (ready, heard) = {
            let mut fds = vec![PollFd::from_borrowed_fd(bell(&self.shared.to_thread), PollFlags::IN)];
            if let Some((socket, _)) = &self.desk {
                fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
            }
            let before = fds.len();
            fds.extend(self.sockets.values().map(|socket| match socket {
                Socket::Udp(socket) => PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
                Socket::Tls { lane, .. } => {
                    let write = if lane.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
                    PollFd::from_borrowed_fd(lane.socket().as_fd(), PollFlags::IN | write)
                }
            }));
            // An interrupted sleep is a short one.
            if rustix::event::poll(&mut fds, limit.as_ref()).is_err() {
                return;
            }
            let ready = fds[before..].iter().map(|fd| !fd.revents().is_empty());
            (ready.collect::<Vec<_>>(), before == 2 && !fds[1].revents().is_empty())
        };
        let now = Instant::now();
        if heard {
            self.look_at_desk(now);
        }
        for key in keys.into_iter().zip(ready).filter_map(|(key, ready)| ready.then_some(key)) {
            match self.sockets.get(&key) {
                Some(Socket::Udp(_)) => self.look_at_udp(now, key),
                Some(Socket::Tls { .. }) => self.look_at_tls(now, key),
                None => {}
            }
        }
    }

    fn show(&self) {
        self.shared.show(Status {
            access: self.access.status(),
            access_counters: self.access.counters(),
            accounting: self.accounting.status(),
            accounting_counters: self.accounting.counters(),
            ledger: self.ledger.status(),
            dynamic: self.desk.as_ref().map(|(_, desk)| desk.counters()).unwrap_or_default(),
        });
    }

    fn engine(&mut self, key: LaneKey) -> &mut Engine {
        if key.0 < ACCOUNTING { &mut self.access } else { &mut self.accounting }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Whoever waits must not wait for ever, also if this thread panicked.
        for slot in std::mem::take(&mut self.slots).into_values() {
            self.shared.give(&slot, Answer::Nobody("the client has ended".to_owned()));
        }
        for order in self.shared.take_orders() {
            if let Order::Ask(_, _, slot) = order {
                self.shared.give(&slot, Answer::Nobody("the client has ended".to_owned()));
            }
        }
    }
}

/// The servers that do one thing, and where.
fn of_service(servers: &[Server], service: Service) -> Vec<Place> {
    let of = |server: &Server| {
        let at = match service {
            Service::Access => server.access?,
            Service::Accounting => server.accounting?,
        };
        let secret = server.secret.duplicate();
        Some(Place { name: server.name.clone(), at, secret, tls: server.tls.clone() })
    };
    servers.iter().filter_map(of).collect()
}

/// The socket for requests to us.
pub(crate) fn listen(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket that hears one server only; everybody else's packets the kernel drops and counts.
fn udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    // With less, answers to hundreds of questions at once would be lost and asked for again.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    socket.connect(to)?;
    Ok(socket)
}

fn random() -> io::Result<[u8; 16]> {
    let mut octets = [0; 16];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| io::Error::other("no random octets"))?;
    Ok(octets)
}

fn bell(bell: &Doorbell) -> BorrowedFd<'_> {
    bell.as_fd()
}
