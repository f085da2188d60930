//! The relay agent of IPv6 (RFC 8415), and the clients it relays for, which are ours too: each has a DUID made of its identity, and its
//! identity goes along as Subscriber-Id. Solicit and Request, or a Solicit with Rapid Commit; Renew and Rebind; Release.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use ike::DhcpLease;
use openssl::sha::sha256;
use policy::{DhcpSource, Identity};
use spi::Token;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::message6::{Ia, IaAddress, Incoming, Outgoing, Relayed, kind, status};
use super::sockets::{Ears, Place, Sockets};
use super::{
    Ask, DEADLINE, Dropped, LEASES, NO_ADDRESS, Outlet, QUESTIONS, SHORTEST, TALKS, UNCLAIMED, Want, domains,
};

/// SOL_TIMEOUT and REQ_TIMEOUT (RFC 8415 section 7.6).
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// REN_TIMEOUT and REB_TIMEOUT; REN_MAX_RT and REB_MAX_RT.
const RENEW_WAIT: Duration = Duration::from_secs(10);
const RENEW_LONGEST: Duration = Duration::from_secs(600);
/// REL_MAX_RC.
const RELEASES: u32 = 4;
/// All servers and relay agents of a link (RFC 8415 section 7.1).
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// A time that never comes (RFC 8415 section 7.7).
const FOREVER: u32 = u32::MAX;
/// A server that wants to be taken says so (RFC 8415 section 18.2.1).
const TAKE_ME: u8 = 255;

type Source = DhcpSource<Ipv6Addr>;

/// Starts the task: our own port and that of servers.
pub(super) fn start(outlet: Outlet, sockets: Sockets, ports: (u16, u16)) -> mpsc::Sender<Ask<Ipv6Addr>> {
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
    /// Type 4 (RFC 6355), a UUID of the identity.
    duid: Vec<u8>,
    /// The identity as text, or its beginning.
    name: Vec<u8>,
    /// The address on the link that it would have.
    link_local: Ipv6Addr,
}

impl Client {
    fn new(identity: &Identity) -> Client {
        let name = identity.to_string().into_bytes();
        let hash = sha256(&[&b"tussock DHCPv6 client "[..], &name].concat());
        let [uuid, other] = [&hash[..16], &hash[16..]];
        let mut uuid: Vec<u8> = uuid.to_vec();
        // RFC 9562 section 5.8: version 8, made our own way.
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let duid = [&[0, 4][..], &uuid].concat();
        let mut local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        local[8..].copy_from_slice(&other[..8]);
        // RFC 4291 section 2.5.1: nobody's hardware.
        local[8] &= !0x02;
        let name = name.into_iter().take(254).collect();
        Client { duid, name, link_local: local.into() }
    }
}

enum Phase {
    /// With what was advertised best so far.
    Solicit {
        hint: Option<Ipv6Addr>,
        best: Option<Advertised>,
        refusal: Option<String>,
    },
    Request {
        server: Vec<u8>,
        address: Ipv6Addr,
    },
    Renew {
        server: Vec<u8>,
        address: Ipv6Addr,
    },
    Rebind {
        address: Ipv6Addr,
    },
    Release {
        server: Vec<u8>,
        address: Ipv6Addr,
    },
}

struct Advertised {
    preference: u8,
    server: Vec<u8>,
    address: Ipv6Addr,
}

/// A talk with a server.
struct Talk {
    /// The engine's question; `None` when there is none any more.
    token: Option<Token>,
    realm: Arc<str>,
    source: Source,
    client: Client,
    phase: Phase,
    began: Instant,
    tries: u32,
    wait: Duration,
    next: Instant,
    until: Option<Instant>,
}

impl Talk {
    fn new(realm: Arc<str>, source: Source, client: Client, phase: Phase, now: Instant) -> Talk {
        let first = match phase {
            Phase::Renew { .. } | Phase::Rebind { .. } => RENEW_WAIT,
            _ => FIRST_WAIT,
        };
        let wait = jittered(first);
        let (token, until) = (None, None);
        Talk { token, realm, source, client, phase, began: now, tries: 0, wait, next: now + wait, until }
    }

    fn due(&self) -> Instant {
        self.until.map_or(self.next, |until| until.min(self.next))
    }

    /// What is said in this phase, under this transaction.
    fn message(&self, xid: u32, now: Instant) -> Vec<u8> {
        let (kind, server, address) = match &self.phase {
            Phase::Solicit { hint, .. } => (kind::SOLICIT, None, *hint),
            Phase::Request { server, address } => (kind::REQUEST, Some(server), Some(*address)),
            Phase::Renew { server, address } => (kind::RENEW, Some(server), Some(*address)),
            Phase::Rebind { address } => (kind::REBIND, None, Some(*address)),
            Phase::Release { server, address } => (kind::RELEASE, Some(server), Some(*address)),
        };
        let server = server.map(Vec::as_slice);
        let hundredths = (now - self.began).as_millis() / 10;
        let elapsed = u16::try_from(hundredths).unwrap_or(u16::MAX);
        let message = Outgoing { kind, xid, client: &self.client.duid, server, address, elapsed }.emit();
        let Talk { source, client, realm, .. } = self;
        let relayed = Relayed {
            link: source.relay,
            peer: client.link_local,
            interface: realm.as_bytes(),
            message: &message,
        };
        relayed.emit(&client.name)
    }
}

/// An address that a server has given us.
struct Leased {
    source: Source,
    client: Client,
    server: Vec<u8>,
    held: bool,
    since: Instant,
    /// T1; `None`: never, or it is being renewed.
    renew: Option<Instant>,
    /// T2.
    rebind: Option<Instant>,
    ends: Option<Instant>,
}

struct Agent {
    outlet: Outlet,
    ears: Ears,
    server_port: u16,
    /// By transaction.
    talks: HashMap<u32, Talk>,
    leases: HashMap<(Arc<str>, Ipv6Addr), Leased>,
}

impl super::Agent<Ipv6Addr> for Agent {
    fn want(&mut self, want: Want<Ipv6Addr>) {
        let Want { token, realm, source, identity, hint } = want;
        if source.relay.is_unspecified() {
            return self.outlet.answer(token, Err(format!("{source} cannot be asked: {NO_ADDRESS}")));
        }
        if self.talks.len() >= TALKS || self.leases.len() >= LEASES {
            let why = "too many clients wait for the DHCP server".to_owned();
            return self.outlet.answer(token, Err(why));
        }
        let now = Instant::now();
        let phase = Phase::Solicit { hint, best: None, refusal: None };
        let mut talk = Talk::new(realm, source, Client::new(&identity), phase, now);
        (talk.token, talk.until) = (Some(token), Some(now + DEADLINE));
        self.begin(talk);
    }

    fn held(&mut self, realm: Arc<str>, address: Ipv6Addr, held: bool) {
        let key = (realm, address);
        if held {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.held = true;
            }
        } else if let Some(lease) = self.leases.remove(&key) {
            self.release(key.0, address, lease);
        }
    }

    fn hear(&mut self, from: SocketAddr, octets: &[u8]) {
        if octets.first().is_some_and(|kind| *kind != kind::RELAY_REPL) {
            // Where all of a link is asked, its clients and other relays are heard, too.
            return;
        }
        let Some(relayed) = Relayed::parse(octets) else { return self.outlet.drop(Dropped::Malformed) };
        let Some(message) = Incoming::parse(relayed.message) else {
            return self.outlet.drop(Dropped::Malformed);
        };
        let Some(talk) = self.talks.get(&message.xid) else { return self.outlet.drop(Dropped::Unasked) };
        let sent = talk.source.server.is_none_or(|server| from.ip() == IpAddr::V6(server))
            && (relayed.link, relayed.peer) == (talk.source.relay, talk.client.link_local)
            && (relayed.interface.is_empty() || relayed.interface == talk.realm.as_bytes())
            && message.client == talk.client.duid;
        let chosen = match &talk.phase {
            Phase::Request { server, .. } | Phase::Renew { server, .. } | Phase::Release { server, .. } => {
                *server == message.server
            }
            Phase::Solicit { .. } | Phase::Rebind { .. } => true,
        };
        if !sent || !chosen {
            return self.outlet.drop(Dropped::NotOurs);
        }
        let xid = message.xid;
        let Some(talk) = self.talks.remove(&xid) else { return };
        match (message.kind, &talk.phase) {
            (kind::ADVERTISE, Phase::Solicit { .. }) => self.advertised(xid, talk, &message),
            // RFC 8415 section 18.2.1: a Reply to a Solicit is one only with Rapid Commit.
            (kind::REPLY, Phase::Solicit { .. }) if message.rapid => self.replied(xid, talk, &message),
            (kind::REPLY, Phase::Release { .. }) => {}
            (kind::REPLY, Phase::Request { .. } | Phase::Renew { .. } | Phase::Rebind { .. }) => {
                self.replied(xid, talk, &message);
            }
            _ => self.out_of_turn(xid, talk),
        }
    }

    fn due(&self) -> Option<Instant> {
        let talks = self.talks.values().map(Talk::due);
        let leases = self.leases.values().filter_map(|lease| {
            let unclaimed = (!lease.held).then(|| lease.since + UNCLAIMED);
            [unclaimed, lease.renew].into_iter().flatten().min()
        });
        talks.chain(leases).min()
    }

    fn look_after(&mut self, now: Instant) {
        let late: Vec<u32> =
            self.talks.iter().filter(|(_, talk)| talk.due() <= now).map(|(xid, _)| *xid).collect();
        for xid in late {
            let Some(talk) = self.talks.remove(&xid) else { continue };
            self.late(xid, talk, now);
        }
        let is_due = |lease: &Leased| {
            lease.renew.is_some_and(|at| at <= now) || !lease.held && lease.since + UNCLAIMED <= now
        };
        let due: Vec<_> =
            self.leases.iter().filter(|(_, lease)| is_due(lease)).map(|(key, _)| key.clone()).collect();
        for (realm, address) in due {
            let Some(lease) = self.leases.get_mut(&(Arc::clone(&realm), address)) else { continue };
            if !lease.held {
                self.held(realm, address, false);
                continue;
            }
            lease.renew = None;
            let phase = Phase::Renew { server: lease.server.clone(), address };
            let mut talk = Talk::new(realm, lease.source.clone(), lease.client.clone(), phase, now);
            talk.until = lease.rebind;
            self.begin(talk);
        }
    }

    fn release_all(mut self) {
        for ((realm, address), lease) in std::mem::take(&mut self.leases) {
            // Once each: nobody is there any more to hear an answer.
            self.release(realm, address, lease);
        }
    }
}

impl Agent {
    /// The first message of a talk, or of its next phase, under a transaction of its own.
    fn begin(&mut self, talk: Talk) {
        let xid = loop {
            let xid = u32::from_be_bytes(random()) & 0x00ff_ffff;
            if !self.talks.contains_key(&xid) {
                break xid;
            }
        };
        self.say(xid, talk);
    }

    fn say(&mut self, xid: u32, talk: Talk) {
        let message = talk.message(xid, Instant::now());
        match self.send(&talk.source, &message) {
            Ok(()) => drop(self.talks.insert(xid, talk)),
            // What is renewed may be so later.
            Err(why) if talk.token.is_none() => {
                tracing::debug!(%why, "DHCP");
                self.talks.insert(xid, talk);
            }
            Err(why) => self.failed(talk, why),
        }
    }

    /// Goes on to another phase.
    fn turn(&mut self, talk: Talk, phase: Phase) {
        let Talk { token, realm, source, client, until, .. } = talk;
        let mut next = Talk::new(realm, source, client, phase, Instant::now());
        (next.token, next.until) = (token, until);
        self.begin(next);
    }

    fn release(&mut self, realm: Arc<str>, address: Ipv6Addr, lease: Leased) {
        // A renewal of it would have it live on.
        let renews = |talk: &Talk| match &talk.phase {
            Phase::Renew { address: of, .. } | Phase::Rebind { address: of } => {
                *of == address && talk.realm == realm
            }
            _ => false,
        };
        self.talks.retain(|_, talk| !renews(talk));
        let Leased { source, client, server, .. } = lease;
        let phase = Phase::Release { server, address };
        self.begin(Talk::new(realm, source, client, phase, Instant::now()));
    }

    /// What does not belong here is as if it had not come.
    fn out_of_turn(&mut self, xid: u32, talk: Talk) {
        self.talks.insert(xid, talk);
        self.outlet.drop(Dropped::OutOfTurn);
    }

    fn advertised(&mut self, xid: u32, mut talk: Talk, message: &Incoming) {
        let only = talk.source.server.is_some();
        let Phase::Solicit { best, refusal, .. } = &mut talk.phase else { return };
        let offered = message.ia.as_ref().and_then(first).filter(|_| message.failure().is_none());
        let Some(offered) = offered else {
            let why = message.failure().map_or_else(|| "no address".to_owned(), ToString::to_string);
            let why = format!("{} refuses: {why}", talk.source);
            // RFC 8415 section 18.2.9: another one may have an address; where there is no other, that was all.
            if only {
                return self.failed(talk, why);
            }
            *refusal = Some(why);
            self.talks.insert(xid, talk);
            return;
        };
        if best.as_ref().is_none_or(|best| message.preference > best.preference) {
            let (preference, server) = (message.preference, message.server.clone());
            *best = Some(Advertised { preference, server, address: offered.address });
        }
        // RFC 8415 section 18.2.1: others have until the first retransmission, or none was asked.
        if only || message.preference == TAKE_ME || talk.tries > 0 {
            return self.request(talk);
        }
        self.talks.insert(xid, talk);
    }

    /// Takes the best of what was advertised.
    fn request(&mut self, mut talk: Talk) {
        let Phase::Solicit { best, .. } = &mut talk.phase else { return };
        if let Some(Advertised { server, address, .. }) = best.take() {
            self.turn(talk, Phase::Request { server, address });
        }
    }

    fn replied(&mut self, xid: u32, talk: Talk, message: &Incoming) {
        let asked = match &talk.phase {
            Phase::Solicit { .. } => None,
            Phase::Request { address, .. } | Phase::Renew { address, .. } | Phase::Rebind { address } => {
                Some(*address)
            }
            Phase::Release { .. } => return,
        };
        if let Some(failure) = message.failure() {
            return match (failure.code, asked, &talk.phase) {
                // RFC 8415 section 18.2.10.1: asked for again as if it were new.
                (status::NO_BINDING, Some(address), Phase::Renew { .. } | Phase::Rebind { .. }) => {
                    let mut talk = talk;
                    talk.until = Some(Instant::now() + DEADLINE);
                    self.turn(talk, Phase::Request { server: message.server.clone(), address });
                }
                // And section 18.2.10: said again after a while.
                (status::UNSPEC_FAIL, ..) => self.out_of_turn(xid, talk),
                _ => {
                    let why = format!("{} refuses: {failure}", talk.source);
                    self.failed(talk, why);
                }
            };
        }
        let ia = message.ia.as_ref();
        let given = ia.and_then(|ia| match asked {
            Some(asked) => ia.addresses.iter().find(|given| given.address == asked).copied(),
            None => first(ia),
        });
        match (ia, given) {
            (Some(ia), Some(given)) if given.valid > 0 => self.leased(talk, ia, given, message),
            (Some(_), Some(_)) => {
                let why = format!("{} takes the address back", talk.source);
                self.failed(talk, why);
            }
            // Another address than the one asked for is one that the client does not have.
            _ => self.out_of_turn(xid, talk),
        }
    }

    fn leased(&mut self, talk: Talk, ia: &Ia, given: IaAddress, message: &Incoming) {
        let now = Instant::now();
        let after = |seconds: u32| {
            let time = Duration::from_secs(seconds.into()).max(SHORTEST);
            (seconds != FOREVER).then(|| now + time)
        };
        // RFC 8415 section 21.4: where the server leaves it to us, half and four fifths of the time.
        let part = |of: u32, tenths: u32| if of == FOREVER { FOREVER } else { of / 10 * tenths };
        let t1 = if ia.t1 > 0 { ia.t1 } else { part(given.preferred, 5) };
        let t2 = if ia.t2 > 0 { ia.t2 } else { part(given.preferred, 8) };
        let address = given.address;
        let key = (Arc::clone(&talk.realm), address);
        let held = self.leases.get(&key).is_some_and(|lease| lease.held);
        let ends = after(given.valid);
        let before_end = |at: Option<Instant>| match (at, ends) {
            (Some(at), Some(ends)) => Some(at.min(ends)),
            (None, ends) => ends,
            (at, None) => at,
        };
        let lease = Leased {
            source: talk.source,
            client: talk.client,
            server: message.server.clone(),
            held,
            since: now,
            // A server with T1 shorter than we care for would be asked all the time.
            renew: before_end(after(t1)).filter(|_| ends.is_some()),
            rebind: before_end(after(t2)).filter(|_| ends.is_some()),
            ends,
        };
        self.leases.insert(key, lease);
        if let Some(token) = talk.token {
            let dns = message.dns.iter().copied().map(IpAddr::from).collect();
            let lease = DhcpLease { address: address.into(), dns, domains: domains(&message.domains) };
            self.outlet.answer(token, Ok(lease));
        }
    }

    fn failed(&mut self, talk: Talk, why: String) {
        if let Some(token) = talk.token {
            return self.outlet.answer(token, Err(why));
        }
        let address = match talk.phase {
            Phase::Renew { address, .. } | Phase::Rebind { address } | Phase::Request { address, .. } => {
                address
            }
            Phase::Solicit { .. } | Phase::Release { .. } => return,
        };
        if self.leases.remove(&(Arc::clone(&talk.realm), address)).is_some() {
            self.outlet.lost(&talk.realm, address.into(), &why);
        }
    }

    /// A talk that has waited long enough.
    fn late(&mut self, xid: u32, mut talk: Talk, now: Instant) {
        let over = talk.until.is_some_and(|until| until <= now);
        match &talk.phase {
            Phase::Solicit { best: Some(_), .. } if !over => return self.request(talk),
            // RFC 8415 section 18.2.5: from T2 on any server will do.
            Phase::Renew { address, .. } if over => {
                let address = *address;
                talk.until =
                    self.leases.get(&(Arc::clone(&talk.realm), address)).and_then(|lease| lease.ends);
                return self.turn(talk, Phase::Rebind { address });
            }
            // Lost messages are the server's loss; its clock will see to it.
            Phase::Release { .. } if talk.tries + 1 >= RELEASES => return,
            _ if over => {
                let silent = format!("{} does not answer", talk.source);
                let why = match &mut talk.phase {
                    Phase::Solicit { refusal, .. } => refusal.take().unwrap_or(silent),
                    _ => silent,
                };
                return self.failed(talk, why);
            }
            _ => {}
        }
        talk.tries += 1;
        // RFC 8415 section 15.
        talk.wait = jittered((talk.wait * 2).min(RENEW_LONGEST));
        talk.next = now + talk.wait;
        self.say(xid, talk);
    }

    fn send(&mut self, source: &Source, octets: &[u8]) -> Result<(), String> {
        let place = Place::of(source);
        let to = match source.server {
            Some(server) => SocketAddr::from((server, self.server_port)),
            None => SocketAddrV6::new(ALL, self.server_port, 0, self.ears.scope(&place)?).into(),
        };
        self.ears.send(&place, octets, to)
    }
}

/// The first address of an IA that is one for a host.
fn first(ia: &Ia) -> Option<IaAddress> {
    let host = |given: &&IaAddress| {
        !given.address.is_unspecified() && !given.address.is_multicast() && !given.address.is_loopback()
    };
    ia.addresses.iter().find(host).copied()
}

/// A tenth more or less, so that clients that came together do not stay together (RFC 8415 section 15).
fn jittered(wait: Duration) -> Duration {
    let [octet] = random();
    wait.mul_f64(0.9 + f64::from(octet) / 1280.0)
}

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    // Without random numbers names of transactions are only easier to guess.
    let _ = openssl::rand::rand_bytes(&mut octets);
    octets
}

#[cfg(test)]
mod tests;
