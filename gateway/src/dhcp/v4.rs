//! The relay agent of IPv4 (RFC 2131). It stands in the network the addresses are of (`giaddr`); servers know a client by its identity
//! (option 61).

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Encodable};
use ike::DhcpLease;
use policy::{DhcpSource, Identity};
use spi::Token;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sockets::{Ears, Place, Sockets};
use super::{Ask, DEADLINE, Dropped, LEASES, Outlet, QUESTIONS, SHORTEST, TALKS, UNCLAIMED, Want, domains};

/// Between the first messages; each wait is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(700);

type Source = DhcpSource<Ipv4Addr>;

/// Starts the task: our own port and that of servers.
pub(super) fn start(outlet: Outlet, sockets: Sockets, ports: (u16, u16)) -> mpsc::Sender<Ask<Ipv4Addr>> {
    let (to, asks) = mpsc::channel(QUESTIONS);
    let (heard, hear) = mpsc::channel(QUESTIONS);
    let ears = Ears::new(sockets, ports.0, heard);
    let agent = Agent { outlet, ears, server_port: ports.1, talks: HashMap::new(), leases: HashMap::new() };
    tokio::spawn(super::run(agent, asks, hear));
    to
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
    Discover {
        hint: Option<Ipv4Addr>,
    },
    Request {
        server: Ipv4Addr,
        address: Ipv4Addr,
    },
    /// With the server that gave it; `None`: whichever there is (RFC 2131 section 4.4.5).
    Renew {
        server: Option<Ipv4Addr>,
        address: Ipv4Addr,
    },
}

/// A talk with a server.
struct Talk {
    /// The engine's question; `None` of a renewal.
    token: Option<Token>,
    realm: Arc<str>,
    source: Source,
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
    source: Source,
    client: Client,
    server: Ipv4Addr,
    held: bool,
    since: Instant,
    renew: Instant,
    /// From then on any server will do.
    rebind: Instant,
    ends: Option<Instant>,
}

struct Agent {
    outlet: Outlet,
    ears: Ears,
    server_port: u16,
    /// By transaction.
    talks: HashMap<u32, Talk>,
    leases: HashMap<(Arc<str>, Ipv4Addr), Leased>,
}

impl super::Agent<Ipv4Addr> for Agent {
    fn want(&mut self, want: Want<Ipv4Addr>) {
        let Want { token, realm, source, identity, hint } = want;
        if source.relay.is_unspecified() {
            return self.answer(token, Err(format!("{source} cannot be asked: {}", super::NO_ADDRESS)));
        }
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
        let Ok(message) = Message::from_bytes(octets) else { return self.outlet.drop(Dropped::Malformed) };
        if message.opcode() != Opcode::BootReply {
            // Where all of a network is asked, its clients are heard, too; and ourselves.
            return;
        }
        let Some(talk) = self.talks.get(&message.xid()) else { return self.outlet.drop(Dropped::Unasked) };
        let expected = talk.source.server.is_none_or(|server| from.ip() == IpAddr::V4(server));
        if !expected || message.chaddr() != talk.client.hardware {
            return self.outlet.drop(Dropped::NotOurs);
        }
        let Some(kind) = message.opts().msg_type() else { return self.outlet.drop(Dropped::Malformed) };
        let Some(mut talk) = self.talks.remove(&message.xid()) else { return };
        let named = match message.opts().get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
            _ => talk.source.server,
        };
        // RFC 2131 section 4.3.1: a server must say who it is.
        let Some(server) = named else {
            self.talks.insert(message.xid(), talk);
            return self.outlet.drop(Dropped::Malformed);
        };
        // Where several may answer, the one that was chosen does.
        let chosen = match &talk.phase {
            Phase::Request { server, .. } if talk.source.server.is_none() => Some(*server),
            _ => None,
        };
        if chosen.is_some_and(|chosen| chosen != server) {
            self.talks.insert(message.xid(), talk);
            return self.outlet.drop(Dropped::NotOurs);
        }
        match (kind, &talk.phase) {
            (MessageType::Offer, Phase::Discover { .. }) if !message.yiaddr().is_unspecified() => {
                talk.phase = Phase::Request { server, address: message.yiaddr() };
                talk.xid = None;
                talk.wait = FIRST_WAIT;
                talk.next = Instant::now() + FIRST_WAIT;
                self.talk(talk);
            }
            (MessageType::Ack, Phase::Request { address, .. } | Phase::Renew { address, .. })
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
                self.failed(talk, format!("the DHCP server {server} refuses{words}"));
            }
            // What does not belong here is as if it had not come.
            _ => {
                self.talks.insert(message.xid(), talk);
                self.outlet.drop(Dropped::OutOfTurn);
            }
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
            let why = format!("{} does not answer", talk.source);
            match talk.phase {
                Phase::Renew { address, .. } => self.not_renewed(now, talk, address, why),
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
            let (source, client) = (lease.source.clone(), lease.client.clone());
            let phase = Phase::Renew { server: (now < lease.rebind).then_some(lease.server), address };
            let (wait, next, until) = (FIRST_WAIT, now + FIRST_WAIT, now + DEADLINE);
            self.talk(Talk { token: None, realm, source, client, phase, xid: None, wait, next, until });
        }
    }

    fn release_all(mut self) {
        for ((_, address), lease) in std::mem::take(&mut self.leases) {
            self.release(address, &lease);
        }
    }
}

impl Agent {
    /// Sends the first message of a talk, or of its next phase.
    fn talk(&mut self, mut talk: Talk) {
        let message = message(&talk);
        let xid = message.xid();
        talk.xid = Some(xid);
        let to = match talk.phase {
            Phase::Renew { server, .. } => talk.source.server.or(server),
            _ => talk.source.server,
        };
        if let Err(why) = self.send(&talk.source, to, &message) {
            return self.failed(talk, why);
        }
        self.talks.insert(xid, talk);
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
            rebind: now + life / 8 * 7,
            // RFC 2131 section 3.3: all ones are for ever.
            ends: (seconds != u32::MAX).then(|| now + life),
        };
        self.leases.insert(key, lease);
        if let Some(token) = talk.token {
            self.answer(token, Ok(given(address, message)));
        }
    }

    fn failed(&mut self, talk: Talk, why: String) {
        match (talk.token, talk.phase) {
            (Some(token), _) => self.answer(token, Err(why)),
            (None, Phase::Renew { address, .. }) => {
                self.leases.remove(&(Arc::clone(&talk.realm), address));
                self.outlet.lost(&talk.realm, address.into(), &why);
            }
            _ => {}
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
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new(address, none, none, lease.source.relay, &lease.client.hardware);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(MessageType::Release));
        options.insert(DhcpOption::ServerIdentifier(lease.server));
        options.insert(DhcpOption::ClientIdentifier(lease.client.id.clone()));
        // Not answered; one that is lost ends by itself.
        let to = Some(lease.source.server.unwrap_or(lease.server));
        if let Err(why) = self.send(&lease.source, to, &message) {
            tracing::debug!(%address, %why, "not released");
        }
    }

    fn answer(&self, token: Token, answer: Result<DhcpLease, String>) {
        self.outlet.answer(token, answer);
    }

    /// Sends to a server, or to all there are.
    fn send(&mut self, source: &Source, to: Option<Ipv4Addr>, message: &Message) -> Result<(), String> {
        let octets = message.to_vec().map_err(|error| format!("a message for DHCP: {error}"))?;
        let to = SocketAddr::from((to.unwrap_or(Ipv4Addr::BROADCAST), self.server_port));
        self.ears.send(&Place::of(source), &octets, to)
    }
}

/// What a server gives, with what it says along with it.
fn given(address: Ipv4Addr, message: &Message) -> DhcpLease {
    let dns = match message.opts().get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(servers)) => servers.iter().copied().map(IpAddr::from).collect(),
        _ => Vec::new(),
    };
    let mut names: Vec<String> = match message.opts().get(OptionCode::DomainSearch) {
        Some(DhcpOption::DomainSearch(names)) => names.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    if let Some(DhcpOption::DomainName(name)) = message.opts().get(OptionCode::DomainName) {
        names.push(name.clone());
    }
    DhcpLease { address: address.into(), dns, domains: domains(names) }
}

/// What is said in a phase of a talk, under a transaction of its own.
fn message(talk: &Talk) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let own = if let Phase::Renew { address, .. } = talk.phase { address } else { none };
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
    options.insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::DomainNameServer,
        OptionCode::DomainName,
        OptionCode::AddressLeaseTime,
        OptionCode::DomainSearch,
    ]));
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::order::{Order, Taker, channel};
    use std::sync::OnceLock;
    use tokio::net::UdpSocket;

    const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
    const RELAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const GIVEN: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);

    async fn stage() -> (mpsc::Sender<Ask<Ipv4Addr>>, Taker, UdpSocket) {
        let (orders, taker) = channel().unwrap();
        let server = UdpSocket::bind((SERVER, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let outlet = Outlet { orders: Arc::new(OnceLock::from(orders)), drops: Arc::default() };
        (start(outlet, Vec::new(), (0, port)), taker, server)
    }

    fn want(hint: Option<Ipv4Addr>) -> Ask<Ipv4Addr> {
        let identity = Identity::parse("carol@lab.test").unwrap();
        let source = DhcpSource { server: Some(SERVER), relay: RELAY, prefix: 8, device: None };
        Ask::Want(Want { token: Token(7), realm: "r".into(), source, identity, hint })
    }

    fn held(held: bool) -> Ask<Ipv4Addr> {
        Ask::Held("r".into(), GIVEN, held)
    }

    async fn heard(server: &UdpSocket) -> (Message, SocketAddr) {
        let mut octets = [0; 1500];
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
        message.opts_mut().insert(DhcpOption::DomainNameServer(vec![Ipv4Addr::new(10, 1, 0, 53)]));
        message.opts_mut().insert(DhcpOption::DomainName("LAN.example".into()));
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
        dhcp.try_send(want(Some(GIVEN))).unwrap();
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
        let Order::Address { token: Token(7), answer: Ok(lease) } = order(&taker).await else { panic!() };
        assert_eq!(lease.address, IpAddr::V4(GIVEN));
        assert_eq!(
            (lease.dns, lease.domains),
            (vec!["10.1.0.53".parse().unwrap()], vec!["lan.example".into()])
        );
        dhcp.try_send(held(true)).unwrap();
        dhcp.try_send(held(false)).unwrap();
        let (release, _) = heard(&server).await;
        assert_eq!((release.opts().msg_type(), release.ciaddr()), (Some(MessageType::Release), GIVEN));
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_a_lost_message_is_sent_again() {
        let (dhcp, taker, server) = stage().await;
        dhcp.try_send(want(None)).unwrap();
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
        dhcp.try_send(want(None)).unwrap();
        let Order::Address { answer: Err(why), .. } = order(&taker).await else { panic!() };
        assert!(why.contains("does not answer"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_and_one_that_is_not_is_lost_at_its_end() {
        let (dhcp, taker, server) = stage().await;
        dhcp.try_send(want(None)).unwrap();
        let (discover, from) = heard(&server).await;
        server.send_to(&reply(&discover, MessageType::Offer, 600), from).await.unwrap();
        let (request, _) = heard(&server).await;
        let begin = Instant::now();
        server.send_to(&reply(&request, MessageType::Ack, 600), from).await.unwrap();
        let Order::Address { answer: Ok(_), .. } = order(&taker).await else { panic!() };
        dhcp.try_send(held(true)).unwrap();
        let (renewal, _) = heard(&server).await;
        assert_eq!((renewal.opts().msg_type(), renewal.ciaddr()), (Some(MessageType::Request), GIVEN));
        assert!(renewal.opts().get(OptionCode::ServerIdentifier).is_none(), "RFC 2131 section 4.3.2");
        let after = begin.elapsed().as_secs();
        assert!((290..=310).contains(&after), "{after} s");
        server.send_to(&reply(&renewal, MessageType::Ack, 60), from).await.unwrap();
        // From now on the server is silent.
        let began = Instant::now();
        loop {
            let mut octets = [0; 1500];
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
