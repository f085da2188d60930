//! Requests that come to us (RFC 5176): send that session away, or change how long it may stay.
//!
//! 1. Who sends it is a client of the configuration, by its address; everybody else is dropped.
//! 2. It proves that it knows the client's secret, by its authenticator and its Message-Authenticator.
//! 3. It is of now: its Event-Timestamp is within five minutes.
//! 4. A request that we know already gets the answer that it got.
//! 5. It is about us, and about a session; then whoever has the sessions is asked, and the answer goes back.
//!
//! | attribute | what it does |
//! |---|---|
//! | Acct-Session-Id, User-Name, Calling-Station-Id, Framed-IP-Address, Framed-IPv6-Address | say which session; all of them must fit |
//! | NAS-Identifier, NAS-IP-Address, NAS-IPv6-Address | must be ours |
//! | Session-Timeout, Acct-Interim-Interval | what CoA can change |
//! | Event-Timestamp, Message-Authenticator | prove it |
//! | Proxy-State | comes back |
//! | anything else | in CoA, is refused with 401: what we cannot do we do not acknowledge |

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::accounting::seconds;
use crate::attribute::{Attribute, Kind, Written};
use crate::config::{Dynamic, DynamicClient};
use crate::granted::shown;
use crate::packet::{self, Code, Packet, Unproven};

/// RFC 5176 section 6.3: how far a request's time may be from ours.
const WINDOW: u32 = 300;
/// How long an answer is kept for a request that comes again. No shorter than the window to both sides, or a request could
/// be played once more after its answer was forgotten.
const MEMORY: Duration = Duration::from_secs(2 * WINDOW as u64);
/// The same for a request without a time, of which the next one like it cannot be told.
const SHORT_MEMORY: Duration = Duration::from_secs(30);
/// Requests that are remembered. New ones are dropped while so many are, so that none is forgotten too early.
const MAX_KNOWN: usize = 65_536;
/// Requests that wait for an answer.
pub const MAX_OUT: usize = 256;
/// How long whoever has the sessions may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DemandId(pub u64);

/// What is demanded, from whom it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// To answer by.
    pub id: DemandId,
    /// Whose sessions.
    pub which: Which,
    /// What.
    pub what: Demanded,
}

/// Which sessions: those that everything given here fits; something is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// Acct-Session-Id.
    pub session: Option<String>,
    /// User-Name.
    pub user: Option<String>,
    /// Calling-Station-Id: the peer's address.
    pub peer: Option<String>,
    /// Framed-IP-Address, Framed-IPv6-Address: inner addresses.
    pub addresses: Vec<IpAddr>,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [("session", &self.session), ("user", &self.user), ("peer", &self.peer)];
        for (name, word) in words {
            if let Some(word) = word {
                write!(f, "{name} {word} ")?;
            }
        }
        self.addresses.iter().try_for_each(|address| write!(f, "address {address} "))
    }
}

/// What is to be done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demanded {
    /// Take them down.
    Disconnect,
    /// Let them stay so long from now, and account for them so often.
    Change {
        /// Session-Timeout.
        timeout: Option<Duration>,
        /// Acct-Interim-Interval.
        interim: Option<Duration>,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Done,
    /// Not done.
    Refused(ErrorCause),
}

/// Why not (RFC 5176 section 3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCause {
    /// Something in it cannot be done here.
    UnsupportedAttribute,
    /// It does not say which session.
    MissingAttribute,
    /// It is meant for another gateway.
    NotThisNas,
    /// A value that makes no sense.
    InvalidValue,
    /// "Authorize Only" is not done here.
    UnsupportedService,
    /// There is no such session.
    NoSession,
    /// Too much to do.
    NoResources,
}

impl ErrorCause {
    fn number(self) -> u32 {
        match self {
            ErrorCause::UnsupportedAttribute => 401,
            ErrorCause::MissingAttribute => 402,
            ErrorCause::NotThisNas => 403,
            ErrorCause::UnsupportedService => 405,
            ErrorCause::InvalidValue => 407,
            ErrorCause::NoSession => 503,
            ErrorCause::NoResources => 506,
        }
    }
}

/// What was dropped, by reason, and what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DynamicCounters {
    /// Acknowledged.
    pub done: u64,
    /// Answered with an Error-Cause.
    pub refused: u64,
    /// Known already.
    pub repeated: u64,
    /// Dropped: from an address that is no client's.
    pub strangers: u64,
    /// Dropped: no packet, or no request of this kind.
    pub malformed: u64,
    /// Dropped: no Message-Authenticator.
    pub unsigned: u64,
    /// Dropped: one of the authenticators is wrong.
    pub forged: u64,
    /// Dropped: no Event-Timestamp, or one that is too far from now.
    pub stale: u64,
    /// Dropped: too many are remembered.
    pub flooded: u64,
}

/// What makes two requests the same. Not the port: whoever repeats what he has seen may choose that.
type Name = (IpAddr, u8, [u8; 16]);

struct Out {
    name: Name,
    from: SocketAddr,
    code: Code,
    proxies: Written,
    until: Instant,
}

/// What to do with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Reply(Vec<u8>),
    Demand(Demand),
}

/// See the module.
pub(crate) struct Desk {
    clients: Vec<DynamicClient>,
    strict: bool,
    nas_identifier: String,
    nas_address: Option<IpAddr>,
    /// Requests and what they were answered; `None` while they are being worked on.
    known: BTreeMap<Name, Option<Vec<u8>>>,
    /// When they are to be forgotten.
    until: BTreeSet<(Instant, Name)>,
    out: BTreeMap<DemandId, Out>,
    next: u64,
    counters: DynamicCounters,
}

impl Desk {
    pub(crate) fn new(config: Dynamic, nas_identifier: String, nas_address: Option<IpAddr>) -> Self {
        Desk {
            clients: config.clients,
            strict: config.strict,
            nas_identifier,
            nas_address,
            known: BTreeMap::new(),
            until: BTreeSet::new(),
            out: BTreeMap::new(),
            next: 0,
            counters: DynamicCounters::default(),
        }
    }

    /// Others may ask from now on. What was asked before is remembered.
    pub(crate) fn replace(&mut self, config: Dynamic, nas_identifier: String, nas_address: Option<IpAddr>) {
        (self.clients, self.strict) = (config.clients, config.strict);
        (self.nas_identifier, self.nas_address) = (nas_identifier, nas_address);
    }

    pub(crate) fn on_datagram(
        &mut self,
        now: Instant,
        at: SystemTime,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Heard {
        self.tidy(now);
        let Some(client) = self.client(from) else {
            self.counters.strangers += 1;
            return Heard::Nothing;
        };
        let packet = match Packet::parse(bytes) {
            Ok(packet) if [Code::DISCONNECT_REQUEST, Code::COA_REQUEST].contains(&packet.code) => packet,
            _ => {
                self.counters.malformed += 1;
                return Heard::Nothing;
            }
        };
        match packet.prove_request(&client.secret, self.strict) {
            Ok(()) => {}
            Err(Unproven::Missing) => {
                self.counters.unsigned += 1;
                return Heard::Nothing;
            }
            Err(_) => {
                self.counters.forged += 1;
                return Heard::Nothing;
            }
        }
        let stamp = packet.attributes.first(Kind::EVENT_TIMESTAMP).map(|stamp| stamp.number());
        let fresh = match stamp {
            Some(Some(stamp)) => stamp.abs_diff(seconds(at)) <= WINDOW,
            Some(None) => false,
            None => !self.strict,
        };
        if !fresh {
            self.counters.stale += 1;
            return Heard::Nothing;
        }
        let name = (from.ip().to_canonical(), packet.identifier, packet.authenticator);
        if let Some(reply) = self.known.get(&name) {
            self.counters.repeated += 1;
            return reply.clone().map_or(Heard::Nothing, Heard::Reply);
        }
        if self.known.len() >= MAX_KNOWN {
            self.counters.flooded += 1;
            return Heard::Nothing;
        }
        self.known.insert(name, None);
        self.until.insert((now + if stamp.is_some() { MEMORY } else { SHORT_MEMORY }, name));
        let mut proxies = Written::new();
        for proxy in packet.attributes.all(Kind::PROXY_STATE) {
            // It came as an attribute, so it fits into one.
            let _ = proxies.push(proxy.kind, proxy.value);
        }
        let read = self.read(&packet);
        let out = Out { name, from, code: packet.code, proxies, until: now + PATIENCE };
        match read {
            Ok((which, what)) if self.out.len() < MAX_OUT => {
                let id = DemandId(self.next);
                self.next += 1;
                self.out.insert(id, out);
                Heard::Demand(Demand { id, which, what })
            }
            Ok(_) => self.close(out, Verdict::Refused(ErrorCause::NoResources)),
            Err(cause) => self.close(out, Verdict::Refused(cause)),
        }
    }

    /// The answer to a demand, to be sent there.
    pub(crate) fn answer(&mut self, id: DemandId, verdict: Verdict) -> Option<(SocketAddr, Vec<u8>)> {
        let out = self.out.remove(&id)?;
        let to = out.from;
        match self.close(out, verdict) {
            Heard::Reply(reply) => Some((to, reply)),
            _ => None,
        }
    }

    /// Refuses what whoever has the sessions did not answer.
    pub(crate) fn on_time(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let late: Vec<DemandId> =
            self.out.iter().filter(|(_, out)| out.until <= now).map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|id| self.answer(id, Verdict::Refused(ErrorCause::NoResources))).collect()
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.out.values().map(|out| out.until).min()
    }

    pub(crate) fn counters(&self) -> DynamicCounters {
        self.counters
    }

    fn client(&self, from: SocketAddr) -> Option<&DynamicClient> {
        let from = from.ip().to_canonical();
        self.clients.iter().find(|client| client.address == from)
    }

    /// What a request asks for.
    fn read(&self, packet: &Packet<'_>) -> Result<(Which, Demanded), ErrorCause> {
        let disconnect = packet.code == Code::DISCONNECT_REQUEST;
        let mut which = Which::default();
        let (mut timeout, mut interim) = (None, None);
        let mut unsupported = false;
        let seconds = |attribute: &Attribute<'_>| {
            let seconds =
                attribute.number().filter(|seconds| *seconds > 0).ok_or(ErrorCause::InvalidValue)?;
            Ok(Some(Duration::from_secs(seconds.into())))
        };
        for attribute in packet.attributes.iter() {
            let text = || (!attribute.value.is_empty()).then(|| shown(attribute.value));
            match attribute.kind {
                Kind::MESSAGE_AUTHENTICATOR | Kind::EVENT_TIMESTAMP | Kind::PROXY_STATE => {}
                Kind::NAS_IDENTIFIER if attribute.value != self.nas_identifier.as_bytes() => {
                    return Err(ErrorCause::NotThisNas);
                }
                Kind::NAS_IP_ADDRESS | Kind::NAS_IPV6_ADDRESS
                    if self.nas_address.is_some() && attribute.address() != self.nas_address =>
                {
                    return Err(ErrorCause::NotThisNas);
                }
                Kind::NAS_IDENTIFIER | Kind::NAS_IP_ADDRESS | Kind::NAS_IPV6_ADDRESS => {}
                Kind::ACCT_SESSION_ID => which.session = text(),
                Kind::USER_NAME => which.user = text(),
                Kind::CALLING_STATION_ID => which.peer = text(),
                Kind::FRAMED_IP_ADDRESS | Kind::FRAMED_IPV6_ADDRESS => {
                    if which.addresses.len() >= 16 {
                        return Err(ErrorCause::InvalidValue);
                    }
                    which.addresses.push(attribute.address().ok_or(ErrorCause::InvalidValue)?);
                }
                Kind::SERVICE_TYPE => return Err(ErrorCause::UnsupportedService),
                Kind::SESSION_TIMEOUT if !disconnect => timeout = seconds(&attribute)?,
                Kind::ACCT_INTERIM_INTERVAL if !disconnect => interim = seconds(&attribute)?,
                // For the session's user or for accounting; it does not change what is to be done.
                Kind::REPLY_MESSAGE | Kind::ACCT_TERMINATE_CAUSE | Kind::CALLED_STATION_ID | Kind::CLASS
                    if disconnect => {}
                _ => unsupported = true,
            }
        }
        if which == Which::default() {
            return Err(ErrorCause::MissingAttribute);
        }
        if unsupported {
            return Err(ErrorCause::UnsupportedAttribute);
        }
        match (disconnect, timeout, interim) {
            (true, _, _) => Ok((which, Demanded::Disconnect)),
            (false, None, None) => Err(ErrorCause::MissingAttribute),
            (false, timeout, interim) => Ok((which, Demanded::Change { timeout, interim })),
        }
    }

    /// Makes the answer and keeps it.
    fn close(&mut self, out: Out, verdict: Verdict) -> Heard {
        let Out { name, from, code, proxies, until: _ } = out;
        let disconnect = code == Code::DISCONNECT_REQUEST;
        let mut attributes = Written::new();
        let code = match verdict {
            Verdict::Done => {
                self.counters.done += 1;
                if disconnect { Code::DISCONNECT_ACK } else { Code::COA_ACK }
            }
            Verdict::Refused(cause) => {
                self.counters.refused += 1;
                attributes.number(Kind::ERROR_CAUSE, cause.number());
                if disconnect { Code::DISCONNECT_NAK } else { Code::COA_NAK }
            }
        };
        attributes.append(&proxies);
        let (_, identifier, authenticator) = name;
        let Some(client) = self.client(from) else { return Heard::Nothing };
        let Ok(reply) = packet::reply(code, identifier, authenticator, &attributes, &client.secret) else {
            return Heard::Nothing;
        };
        if let Some(known) = self.known.get_mut(&name) {
            *known = Some(reply.clone());
        }
        Heard::Reply(reply)
    }

    fn tidy(&mut self, now: Instant) {
        while let Some((_, name)) = self.until.first().copied().filter(|(until, _)| *until <= now) {
            self.until.pop_first();
            self.known.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::Secret;

    const AT: u32 = 1_800_000_000;

    struct Lab {
        desk: Desk,
        now: Instant,
        at: SystemTime,
        from: SocketAddr,
    }

    fn secret() -> Secret {
        Secret::from_slice(b"dynamic")
    }

    fn lab(strict: bool) -> Lab {
        let address = "192.0.2.1".parse().unwrap();
        let config = Dynamic {
            listen: "0.0.0.0:3799".parse().unwrap(),
            clients: vec![DynamicClient { address, secret: secret() }],
            strict,
        };
        Lab {
            desk: Desk::new(config, "gw".to_owned(), None),
            now: Instant::now(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(AT.into()),
            from: (address, 4000).into(),
        }
    }

    impl Lab {
        fn hear(&mut self, packet: &[u8]) -> Heard {
            self.desk.on_datagram(self.now, self.at, self.from, packet)
        }
    }

    fn alice() -> Written {
        let mut attributes = Written::new();
        attributes.number(Kind::EVENT_TIMESTAMP, AT);
        attributes.text(Kind::USER_NAME, "alice");
        attributes.push(Kind::PROXY_STATE, b"p1").unwrap();
        attributes
    }

    fn request(code: Code, attributes: &Written) -> Vec<u8> {
        packet::digested_request(code, 5, attributes, &secret(), true).unwrap()
    }

    /// The code and the Error-Cause of a reply that is proven.
    fn cause(request: &[u8], reply: &[u8]) -> (Code, Option<u32>) {
        let request = Packet::parse(request).unwrap();
        let reply = Packet::parse(reply).unwrap();
        assert_eq!(reply.prove_reply(&request.authenticator, &secret(), true), Ok(()));
        assert_eq!(reply.identifier, request.identifier);
        assert_eq!(reply.attributes.first(Kind::PROXY_STATE).map(|p| p.value), Some(b"p1".as_slice()));
        (reply.code, reply.attributes.first(Kind::ERROR_CAUSE).and_then(|cause| cause.number()))
    }

    #[test]
    fn a_disconnect_is_asked_once_and_answered_as_often_as_it_comes() {
        let mut lab = lab(true);
        let packet = request(Code::DISCONNECT_REQUEST, &alice());
        let Heard::Demand(demand) = lab.hear(&packet) else { panic!("not demanded") };
        assert_eq!(demand.what, Demanded::Disconnect);
        assert_eq!(demand.which, Which { user: Some("alice".into()), ..Which::default() });
        assert_eq!(lab.hear(&packet), Heard::Nothing, "it is being worked on");
        let (to, reply) = lab.desk.answer(demand.id, Verdict::Done).unwrap();
        assert_eq!(to, lab.from);
        assert_eq!(cause(&packet, &reply), (Code::DISCONNECT_ACK, None));
        // From another port, too: then it is somebody who repeats what he has seen.
        lab.from.set_port(4001);
        assert_eq!(lab.hear(&packet), Heard::Reply(reply));
        assert!(lab.desk.answer(demand.id, Verdict::Done).is_none());
        lab.now += MEMORY;
        lab.at += MEMORY;
        assert_eq!(lab.hear(&packet), Heard::Nothing, "forgotten, and too old by then");
        assert_eq!(
            lab.desk.counters(),
            DynamicCounters { done: 1, repeated: 2, stale: 1, ..Default::default() }
        );
    }

    #[test]
    fn who_proves_nothing_hears_nothing() {
        let mut lab = lab(true);
        let good = request(Code::DISCONNECT_REQUEST, &alice());
        let unsigned =
            packet::digested_request(Code::DISCONNECT_REQUEST, 5, &alice(), &secret(), false).unwrap();
        let other = Secret::from_slice(b"other");
        let forged = packet::digested_request(Code::DISCONNECT_REQUEST, 5, &alice(), &other, true).unwrap();
        let mut undated = Written::new();
        undated.text(Kind::USER_NAME, "alice");
        let mut old = undated.clone();
        old.number(Kind::EVENT_TIMESTAMP, AT - 301);
        let mut early = undated.clone();
        early.number(Kind::EVENT_TIMESTAMP, AT + 301);
        let mut odd = undated.clone();
        odd.push(Kind::EVENT_TIMESTAMP, &[1]).unwrap();
        for packet in [&unsigned[..], &forged, &good[..19], &request(Code::ACCESS_REQUEST, &alice())] {
            assert_eq!(lab.hear(packet), Heard::Nothing);
        }
        for dated in [undated, old, early, odd] {
            assert_eq!(lab.hear(&request(Code::DISCONNECT_REQUEST, &dated)), Heard::Nothing);
        }
        lab.from = "192.0.2.2:4000".parse().unwrap();
        assert_eq!(lab.hear(&good), Heard::Nothing);
        let want = DynamicCounters {
            unsigned: 1,
            forged: 1,
            malformed: 2,
            stale: 4,
            strangers: 1,
            ..Default::default()
        };
        assert_eq!(lab.desk.counters(), want);
        // Without `strict` the first two kinds pass, the rest does not.
        let mut lax = self::lab(false);
        assert!(matches!(lax.hear(&unsigned), Heard::Demand(_)));
        assert_eq!(lax.hear(&forged), Heard::Nothing);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let mut lab = lab(true);
        let with = |kind, value: &[u8]| {
            let mut attributes = alice();
            attributes.push(kind, value).unwrap();
            attributes
        };
        let mut nobody = Written::new();
        nobody.number(Kind::EVENT_TIMESTAMP, AT);
        nobody.push(Kind::PROXY_STATE, b"p1").unwrap();
        for (code, attributes, want) in [
            (Code::DISCONNECT_REQUEST, nobody, (Code::DISCONNECT_NAK, Some(402))),
            (Code::COA_REQUEST, alice(), (Code::COA_NAK, Some(402))),
            (Code::COA_REQUEST, with(Kind::FILTER_ID, b"lan"), (Code::COA_NAK, Some(401))),
            (Code::COA_REQUEST, with(Kind::SESSION_TIMEOUT, b"x"), (Code::COA_NAK, Some(407))),
            (Code::COA_REQUEST, with(Kind::SERVICE_TYPE, &[0, 0, 0, 17]), (Code::COA_NAK, Some(405))),
            (Code::DISCONNECT_REQUEST, with(Kind::NAS_IDENTIFIER, b"x"), (Code::DISCONNECT_NAK, Some(403))),
            (
                Code::DISCONNECT_REQUEST,
                with(Kind::FRAMED_IP_ADDRESS, b"x"),
                (Code::DISCONNECT_NAK, Some(407)),
            ),
        ] {
            let packet = request(code, &attributes);
            let Heard::Reply(reply) = lab.hear(&packet) else { panic!("{want:?}") };
            assert_eq!(cause(&packet, &reply), want);
        }
        let packet = request(Code::COA_REQUEST, &with(Kind::SESSION_TIMEOUT, &[0, 0, 0, 9]));
        let Heard::Demand(demand) = lab.hear(&packet) else { panic!() };
        assert_eq!(demand.what, Demanded::Change { timeout: Some(Duration::from_secs(9)), interim: None });
        let (_, reply) = lab.desk.answer(demand.id, Verdict::Refused(ErrorCause::NoSession)).unwrap();
        assert_eq!(cause(&packet, &reply), (Code::COA_NAK, Some(503)));
    }

    #[test]
    fn what_nobody_decides_is_refused_in_time_and_there_is_only_so_much() {
        let mut lab = lab(true);
        for n in 0..=MAX_OUT {
            let mut attributes = alice();
            attributes.text(Kind::ACCT_SESSION_ID, &n.to_string());
            let packet = request(Code::DISCONNECT_REQUEST, &attributes);
            match lab.hear(&packet) {
                Heard::Demand(_) => assert!(n < MAX_OUT),
                Heard::Reply(reply) => assert_eq!(cause(&packet, &reply), (Code::DISCONNECT_NAK, Some(506))),
                Heard::Nothing => panic!("dropped"),
            }
        }
        assert_eq!(lab.desk.due(), Some(lab.now + PATIENCE));
        assert_eq!(lab.desk.on_time(lab.now + PATIENCE).len(), MAX_OUT);
        assert_eq!(lab.desk.due(), None);
    }
}
