//! Addresses for clients from a DHCP server (RFC 2131). We speak to it as a relay agent that stands in the network the addresses are of
//! (`giaddr`), for clients whose name is their IKE identity (option 61). What a client holds is renewed, and released when it goes.
//!
//! A task of the control thread does it; the worker asks and is answered by orders, and an exchange that waits for an answer gets one
//! within [`DEADLINE`], whatever the server does.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use policy::{DhcpSource, Identity};
use spi::Token;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::worker::order::{Order, Orders};

/// UDP port of servers and of relay agents.
const PORT: u16 = 67;
/// How long a client's exchange waits for an address.
const DEADLINE: Duration = Duration::from_secs(6);
/// Between the first messages; each wait is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(700);
/// Questions that may wait for the task, and talks it has with servers.
const QUESTIONS: usize = 1024;
const TALKS: usize = 4096;
/// Leases, as many as a pool remembers.
const LEASES: usize = ike::pool::MAX_LEASES;
/// An address that the engine did not take goes back.
const UNCLAIMED: Duration = Duration::from_secs(30);
/// A lease that ends sooner than this is renewed all the time.
const SHORTEST: Duration = Duration::from_secs(30);
/// Longest message that is read.
const LONGEST: usize = 1500;

/// Where the worker asks. Clones reach the same task.
#[derive(Clone)]
pub struct Dhcp {
    to: mpsc::Sender<Ask>,
}

/// What the worker wants.
enum Ask {
    Want(Want),
    /// A client has the address now, or has it no more.
    Held(Arc<str>, Ipv4Addr, bool),
}

/// An address is wanted.
pub struct Want {
    /// The engine's name for the question.
    pub token: Token,
    /// For which realm.
    pub realm: Arc<str>,
    /// From which server.
    pub source: DhcpSource,
    /// For whom.
    pub identity: Identity,
    /// The one it had before.
    pub hint: Option<Ipv4Addr>,
}

impl Dhcp {
    /// Starts the task, with the sockets that are open already.
    ///
    /// The worker is not there yet; `orders` is filled as soon as it is.
    pub fn start(orders: Arc<OnceLock<Orders>>, sockets: Sockets) -> Dhcp {
        Dhcp::at(orders, sockets, PORT, PORT)
    }

    fn at(orders: Arc<OnceLock<Orders>>, sockets: Sockets, own_port: u16, server_port: u16) -> Dhcp {
        let (to, asks) = mpsc::channel(QUESTIONS);
        let (heard, hear) = mpsc::channel(QUESTIONS);
        let mut agent = Agent {
            orders,
            own_port,
            server_port,
            sockets: HashMap::new(),
            heard,
            talks: HashMap::new(),
            leases: HashMap::new(),
        };
        for (relay, socket) in sockets {
            if let Err(error) = agent.take(relay, socket) {
                tracing::error!(%relay, %error, "nobody listens for DHCP servers");
            }
        }
        tokio::spawn(agent.run(asks, hear));
        Dhcp { to }
    }

    /// Asks for an address; the answer is an [`Order::Address`]. Never waits.
    ///
    /// # Errors
    /// Too many questions wait.
    pub fn want(&self, want: Want) -> Result<(), String> {
        self.to.try_send(Ask::Want(want)).map_err(|_| "too many questions to DHCP servers wait".to_owned())
    }

    /// Tells that a client has an address, or has it no more.
    pub fn held(&self, realm: &Arc<str>, address: Ipv4Addr, held: bool) {
        if self.to.try_send(Ask::Held(Arc::clone(realm), address, held)).is_err() {
            // The server's own clock will see to it.
            tracing::warn!(%realm, %address, held, "DHCP does not learn what became of an address");
        }
    }
}

/// A client as servers know it.
#[derive(Clone)]
struct Client {
    /// Option 61: type 0, and the identity as text (RFC 2132 section 9.14).
    id: Vec<u8>,
    /// For servers that look at hardware addresses only: locally administered, from the identity.
    hardware: [u8; 6],
}

impl Client {
    fn new(identity: &Identity) -> Client {
        let text = identity.to_string();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let [a, b, c, d, e, ..] = hasher.finish().to_be_bytes();
        let name = text.as_bytes();
        let id = std::iter::once(0).chain(name[..name.len().min(254)].iter().copied()).collect();
        Client { id, hardware: [0x02, a, b, c, d, e] }
    }
}

enum Phase {
    Discover { hint: Option<Ipv4Addr> },
    Request { server: Ipv4Addr, address: Ipv4Addr },
    Renew { address: Ipv4Addr },
}

/// A talk with a server.
struct Talk {
    /// The engine's question; `None` of a renewal.
    token: Option<Token>,
    realm: Arc<str>,
    source: DhcpSource,
    client: Client,
    phase: Phase,
    /// The transaction, while the phase lasts.
    xid: Option<u32>,
    wait: Duration,
    next: Instant,
    until: Instant,
}

/// An address that a server has given us.
struct Leased {
    source: DhcpSource,
    client: Client,
    server: Ipv4Addr,
    held: bool,
    since: Instant,
    renew: Instant,
    ends: Option<Instant>,
}

struct Agent {
    orders: Arc<OnceLock<Orders>>,
    own_port: u16,
    server_port: u16,
    /// By our address; each has a task that listens.
    sockets: HashMap<Ipv4Addr, std::net::UdpSocket>,
    heard: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// By transaction.
    talks: HashMap<u32, Talk>,
    leases: HashMap<(Arc<str>, Ipv4Addr), Leased>,
}

impl Agent {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, mut hear: mpsc::Receiver<(SocketAddr, Vec<u8>)>) {
        loop {
            let due = self.due();
            let due = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Want(want)) => self.want(want),
                    Some(Ask::Held(realm, address, held)) => self.held(realm, address, held),
                    // The worker is gone, and with it every client.
                    None => return self.release_all(),
                },
                Some((from, octets)) = hear.recv() => self.hear(from, &octets),
                () = due => self.look_after(Instant::now()),
            }
        }
    }

    fn want(&mut self, want: Want) {
        let Want { token, realm, source, identity, hint } = want;
        if self.talks.len() >= TALKS || self.leases.len() >= LEASES {
            return self.answer(token, Err("too many clients wait for the DHCP server".to_owned()));
        }
        let now = Instant::now();
        self.talk(Talk {
            token: Some(token),
            realm,
            source,
            client: Client::new(&identity),
            phase: Phase::Discover { hint },
            xid: None,
            wait: FIRST_WAIT,
            next: now + FIRST_WAIT,
            until: now + DEADLINE,
        });
    }

    /// Sends the first message of a talk, or of its next phase.
    fn talk(&mut self, mut talk: Talk) {
        let message = message(&talk);
        let xid = message.xid();
        talk.xid = Some(xid);
        if let Err(why) = self.send(&talk.source, &message) {
            return self.failed(talk, why);
        }
        self.talks.insert(xid, talk);
    }

    fn held(&mut self, realm: Arc<str>, address: Ipv4Addr, held: bool) {
        let key = (realm, address);
        if held {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.held = true;
            }
        } else if let Some(lease) = self.leases.remove(&key) {
            self.release(address, &lease);
        }
    }

    fn hear(&mut self, from: SocketAddr, octets: &[u8]) {
        let Ok(message) = Message::from_bytes(octets) else { return };
        let Some(talk) = self.talks.get(&message.xid()) else { return };
        let expected = from.ip() == IpAddr::V4(talk.source.server) && message.opcode() == Opcode::BootReply;
        if !expected || message.chaddr() != talk.client.hardware {
            return;
        }
        let (Some(kind), Some(mut talk)) = (message.opts().msg_type(), self.talks.remove(&message.xid()))
        else {
            return;
        };
        let server = match message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => *server,
            _ => talk.source.server,
        };
        match (kind, &talk.phase) {
            (MessageType::Offer, Phase::Discover { .. }) if !message.yiaddr().is_unspecified() => {
                talk.phase = Phase::Request { server, address: message.yiaddr() };
                talk.xid = None;
                talk.wait = FIRST_WAIT;
                talk.next = Instant::now() + FIRST_WAIT;
                self.talk(talk);
            }
            (MessageType::Ack, Phase::Request { address, .. } | Phase::Renew { address })
                if message.yiaddr() == *address =>
            {
                let address = *address;
                self.leased(talk, address, server, &message);
            }
            (MessageType::Nak, Phase::Request { .. } | Phase::Renew { .. }) => {
                let words = match message.opts().get(OptionCode::Message) {
                    Some(DhcpOption::Message(text)) => format!(": {}", text.escape_default()),
                    _ => String::new(),
                };
                let why = format!("the DHCP server {} refuses{words}", talk.source.server);
                self.failed(talk, why);
            }
            // What does not belong here is as if it had not come.
            _ => drop(self.talks.insert(message.xid(), talk)),
        }
    }

    fn leased(&mut self, talk: Talk, address: Ipv4Addr, server: Ipv4Addr, message: &Message) {
        let now = Instant::now();
        let seconds = match message.opts().get(OptionCode::AddressLeaseTime) {
            Some(DhcpOption::AddressLeaseTime(seconds)) => *seconds,
            // A server must say (RFC 2131 section 4.3.1); one that does not is asked again soon.
            _ => 600,
        };
        let life = Duration::from_secs(seconds.into()).max(SHORTEST);
        let key = (Arc::clone(&talk.realm), address);
        let held = self.leases.get(&key).is_some_and(|lease| lease.held);
        let lease = Leased {
            source: talk.source,
            client: talk.client,
            server,
            held,
            since: now,
            renew: now + life / 2,
            // RFC 2131 section 3.3: all ones are for ever.
            ends: (seconds != u32::MAX).then(|| now + life),
        };
        self.leases.insert(key, lease);
        if let Some(token) = talk.token {
            self.answer(token, Ok(address));
        }
    }

    fn failed(&mut self, talk: Talk, why: String) {
        match (talk.token, talk.phase) {
            (Some(token), _) => self.answer(token, Err(why)),
            (None, Phase::Renew { address }) => {
                tracing::warn!(realm = %talk.realm, %address, %why, "a lease by DHCP is over");
                self.leases.remove(&(Arc::clone(&talk.realm), address));
                let order = Order::AddressLost { realm: talk.realm.to_string(), address: address.into() };
                self.give(order);
            }
            _ => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        let talks = self.talks.values().map(|talk| talk.next.min(talk.until));
        let leases = self.leases.values().map(|lease| {
            let unclaimed = (!lease.held).then(|| lease.since + UNCLAIMED);
            unclaimed.map_or(lease.renew, |at| at.min(lease.renew))
        });
        talks.chain(leases).min()
    }

    fn look_after(&mut self, now: Instant) {
        let late: Vec<u32> = self
            .talks
            .iter()
            .filter(|(_, talk)| talk.next.min(talk.until) <= now)
            .map(|(xid, _)| *xid)
            .collect();
        for xid in late {
            let Some(mut talk) = self.talks.remove(&xid) else { continue };
            if talk.until > now {
                talk.wait *= 2;
                talk.next = now + talk.wait;
                self.talk(talk);
                continue;
            }
            let why = format!("the DHCP server {} does not answer", talk.source.server);
            match talk.phase {
                Phase::Renew { address } => self.not_renewed(now, talk, address, why),
                _ => self.failed(talk, why),
            }
        }
        let due: Vec<(Arc<str>, Ipv4Addr)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.renew <= now || !lease.held && lease.since + UNCLAIMED <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for (realm, address) in due {
            let Some(lease) = self.leases.get_mut(&(Arc::clone(&realm), address)) else { continue };
            if !lease.held {
                self.held(realm, address, false);
                continue;
            }
            lease.renew = now + lease.ends.map_or(Duration::from_secs(3600), |_| DEADLINE * 2);
            let (source, client) = (lease.source, lease.client.clone());
            let phase = Phase::Renew { address };
            let (wait, next, until) = (FIRST_WAIT, now + FIRST_WAIT, now + DEADLINE);
            self.talk(Talk { token: None, realm, source, client, phase, xid: None, wait, next, until });
        }
    }

    /// A renewal was not answered: it is tried again after half of what is left (RFC 2131 section 4.4.5).
    fn not_renewed(&mut self, now: Instant, talk: Talk, address: Ipv4Addr, why: String) {
        let Some(lease) = self.leases.get_mut(&(Arc::clone(&talk.realm), address)) else { return };
        match lease.ends {
            Some(ends) if ends <= now => self.failed(talk, why),
            Some(ends) => lease.renew = now + ((ends - now) / 2).max(Duration::from_secs(1)),
            None => {}
        }
    }

    fn release(&mut self, address: Ipv4Addr, lease: &Leased) {
        let DhcpSource { relay, .. } = lease.source;
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new(address, none, none, relay, &lease.client.hardware);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Release));
        options.insert(DhcpOption::ServerIdentifier(lease.server));
        options.insert(DhcpOption::ClientIdentifier(lease.client.id.clone()));
        // Not answered; one that is lost ends by itself.
        if let Err(why) = self.send(&lease.source, &message) {
            tracing::debug!(%address, %why, "not released");
        }
    }

    fn release_all(mut self) {
        for ((_, address), lease) in std::mem::take(&mut self.leases) {
            self.release(address, &lease);
        }
    }

    fn answer(&self, token: Token, answer: Result<Ipv4Addr, String>) {
        self.give(Order::Address { token, answer });
    }

    fn give(&self, order: Order) {
        if let Some(Err(error)) = self.orders.get().map(|orders| orders.give(order)) {
            tracing::warn!(%error, "word of a DHCP server was lost");
        }
    }

    fn send(&mut self, source: &DhcpSource, message: &Message) -> Result<(), String> {
        let octets = message.to_vec().map_err(|error| format!("a message for DHCP: {error}"))?;
        let to = SocketAddr::from((source.server, self.server_port));
        let socket = self.socket(source.relay)?;
        match socket.send_to(&octets, to) {
            Ok(_) => Ok(()),
            // It is sent again soon.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(format!("no way to the DHCP server {}: {error}", source.server)),
        }
    }

    /// The socket at an address of ours.
    fn socket(&mut self, relay: Ipv4Addr) -> Result<&std::net::UdpSocket, String> {
        if !self.sockets.contains_key(&relay) {
            // What a reload brought, for a gateway that may still do so.
            let failed =
                |error| format!("cannot listen for DHCP servers at {relay}: {error}; a restart helps");
            let socket = open_at(relay, self.own_port).map_err(failed)?;
            self.take(relay, socket).map_err(failed)?;
        }
        self.sockets.get(&relay).ok_or_else(|| "no socket".to_owned())
    }

    fn take(&mut self, relay: Ipv4Addr, socket: std::net::UdpSocket) -> std::io::Result<()> {
        let listening = UdpSocket::from_std(socket.try_clone()?)?;
        tokio::spawn(listen(listening, self.heard.clone()));
        self.sockets.insert(relay, socket);
        Ok(())
    }
}

/// Sockets at addresses of ours.
pub type Sockets = Vec<(Ipv4Addr, std::net::UdpSocket)>;

/// Opens the sockets for the DHCP servers of these realms, which takes privilege; and says which could not be had.
pub fn open(realms: &[Arc<policy::Realm>]) -> (Sockets, Vec<String>) {
    let (mut sockets, mut failed) = (Sockets::new(), Vec::new());
    for relay in realms.iter().filter_map(|realm| Some(realm.pool.as_ref()?.dhcp?.relay)) {
        if sockets.iter().any(|(open, _)| *open == relay) {
            continue;
        }
        match open_at(relay, PORT) {
            Ok(socket) => sockets.push((relay, socket)),
            Err(error) => failed.push(format!("cannot listen for DHCP servers at {relay}: {error}")),
        }
    }
    (sockets, failed)
}

fn open_at(relay: Ipv4Addr, port: u16) -> std::io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((relay, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

async fn listen(socket: UdpSocket, heard: mpsc::Sender<(SocketAddr, Vec<u8>)>) {
    let mut octets = [0; LONGEST];
    loop {
        match socket.recv_from(&mut octets).await {
            Ok((len, from)) => {
                // Where there is too much it is asked again; where nobody listens any more this ends.
                let given = heard.try_send((from, octets.get(..len).unwrap_or_default().to_vec()));
                if let Err(mpsc::error::TrySendError::Closed(_)) = given {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What is said in a phase of a talk, under a transaction of its own.
fn message(talk: &Talk) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let own = if let Phase::Renew { address } = talk.phase { address } else { none };
    let mut message = Message::new(own, none, none, talk.source.relay, &talk.client.hardware);
    if let Some(xid) = talk.xid {
        message.set_xid(xid);
    }
    // We are the one relay on its way.
    message.set_hops(1);
    let options = message.opts_mut();
    options.insert(DhcpOption::ClientIdentifier(talk.client.id.clone()));
    let kind = match talk.phase {
        Phase::Discover { hint } => {
            if let Some(address) = hint {
                options.insert(DhcpOption::RequestedIpAddress(address));
            }
            MessageType::Discover
        }
        Phase::Request { server, address } => {
            options.insert(DhcpOption::RequestedIpAddress(address));
            options.insert(DhcpOption::ServerIdentifier(server));
            MessageType::Request
        }
        Phase::Renew { .. } => MessageType::Request,
    };
    options.insert(DhcpOption::MessageType(kind));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::order::{Taker, channel};

    const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
    const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const GIVEN: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);

    async fn stage() -> (Dhcp, Taker, UdpSocket) {
        let (orders, taker) = channel().unwrap();
        let server = UdpSocket::bind((SERVER, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        (Dhcp::at(Arc::new(OnceLock::from(orders)), Vec::new(), 0, port), taker, server)
    }

    fn source() -> DhcpSource {
        DhcpSource { server: SERVER, relay: RELAY, prefix: 8 }
    }

    fn want(hint: Option<Ipv4Addr>) -> Want {
        let identity = Identity::parse("carol@lab.test").unwrap();
        Want { token: Token(7), realm: "r".into(), source: source(), identity, hint }
    }

    async fn heard(server: &UdpSocket) -> (Message, SocketAddr) {
        let mut octets = [0; LONGEST];
        let (len, from) = server.recv_from(&mut octets).await.unwrap();
        (Message::from_bytes(&octets[..len]).unwrap(), from)
    }

    fn reply(to: &Message, kind: MessageType, seconds: u32) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(to.xid(), none, GIVEN, none, to.giaddr(), to.chaddr());
        message.set_opcode(Opcode::BootReply);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
        message.opts_mut().insert(DhcpOption::AddressLeaseTime(seconds));
        message.to_vec().unwrap()
    }

    async fn order(taker: &Taker) -> Order {
        for _ in 0..2000 {
            if let Ok(order) = taker.from.try_recv() {
                return order;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no answer");
    }

    #[tokio::test]
    async fn an_address_is_asked_for_taken_and_released() {
        let (dhcp, taker, server) = stage().await;
        dhcp.want(want(Some(GIVEN))).unwrap();
        let (discover, from) = heard(&server).await;
        assert_eq!(discover.opts().msg_type(), Some(MessageType::Discover));
        assert_eq!((discover.giaddr(), from.ip()), (RELAY, IpAddr::V4(RELAY)));
        let named = |m: &Message, code| m.opts().get(code).cloned();
        let id = named(&discover, OptionCode::ClientIdentifier);
        assert_eq!(id, Some(DhcpOption::ClientIdentifier(b"\0carol@lab.test".to_vec())));
        let hint = named(&discover, OptionCode::RequestedIpAddress);
        assert_eq!(hint, Some(DhcpOption::RequestedIpAddress(GIVEN)));
        // An ACK that nobody asked for, and garbage.
        server.send_to(&reply(&discover, MessageType::Ack, 600), from).await.unwrap();
        server.send_to(&[1, 2, 3], from).await.unwrap();
        server.send_to(&reply(&discover, MessageType::Offer, 600), from).await.unwrap();
        let (request, _) = heard(&server).await;
        assert_eq!(request.opts().msg_type(), Some(MessageType::Request));
        server.send_to(&reply(&request, MessageType::Ack, 600), from).await.unwrap();
        let Order::Address { token: Token(7), answer: Ok(GIVEN) } = order(&taker).await else { panic!() };
        dhcp.held(&"r".into(), GIVEN, true);
        dhcp.held(&"r".into(), GIVEN, false);
        let (release, _) = heard(&server).await;
        assert_eq!((release.opts().msg_type(), release.ciaddr()), (Some(MessageType::Release), GIVEN));
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_a_lost_message_is_sent_again() {
        let (dhcp, taker, server) = stage().await;
        dhcp.want(want(None)).unwrap();
        heard(&server).await;
        let (discover, from) = heard(&server).await;
        server.send_to(&reply(&discover, MessageType::Offer, 600), from).await.unwrap();
        let (request, _) = heard(&server).await;
        server.send_to(&reply(&request, MessageType::Nak, 600), from).await.unwrap();
        let Order::Address { answer: Err(why), .. } = order(&taker).await else { panic!() };
        assert!(why.contains("refuses"), "{why}");
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_waited_for_until_the_deadline() {
        let (dhcp, taker, _server) = stage().await;
        dhcp.want(want(None)).unwrap();
        let Order::Address { answer: Err(why), .. } = order(&taker).await else { panic!() };
        assert!(why.contains("does not answer"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_and_one_that_is_not_is_lost_at_its_end() {
        let (dhcp, taker, server) = stage().await;
        dhcp.want(want(None)).unwrap();
        let (discover, from) = heard(&server).await;
        server.send_to(&reply(&discover, MessageType::Offer, 600), from).await.unwrap();
        let (request, _) = heard(&server).await;
        let begin = Instant::now();
        server.send_to(&reply(&request, MessageType::Ack, 600), from).await.unwrap();
        let Order::Address { answer: Ok(GIVEN), .. } = order(&taker).await else { panic!() };
        dhcp.held(&"r".into(), GIVEN, true);
        let (renewal, _) = heard(&server).await;
        assert_eq!((renewal.opts().msg_type(), renewal.ciaddr()), (Some(MessageType::Request), GIVEN));
        assert!(renewal.opts().get(OptionCode::ServerIdentifier).is_none(), "RFC 2131 section 4.3.2");
        let after = begin.elapsed().as_secs();
        assert!((290..=310).contains(&after), "{after} s");
        server.send_to(&reply(&renewal, MessageType::Ack, 60), from).await.unwrap();
        // From now on the server is silent.
        let began = Instant::now();
        loop {
            let mut octets = [0; LONGEST];
            let heard = tokio::time::timeout(Duration::from_secs(5), server.recv_from(&mut octets)).await;
            if let Ok(Order::AddressLost { realm, address }) = taker.from.try_recv() {
                assert_eq!((realm.as_str(), address), ("r", IpAddr::V4(GIVEN)));
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "{heard:?}");
        }
        assert!(began.elapsed() >= Duration::from_secs(55), "{:?}", began.elapsed());
    }
}
