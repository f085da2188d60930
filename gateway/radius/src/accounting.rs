//! Accounting (RFC 2866): who was here, for how long, with how much traffic.
//!
//! A record is kept until a server has said that it wrote it down. While none does, records wait, at most [`MAX_RECORDS`];
//! an interim record gives way to the next one of its session, and what is lost after all is counted. Records of one session
//! go one after the other; those of several at once. All of it is written down ([`journal`](crate::journal)), so that a process that is
//! killed takes nothing with it.
//!
//! | attribute | |
//! |---|---|
//! | Acct-Status-Type | Start, Interim-Update, Stop; Accounting-On and -Off when the gateway starts and ends |
//! | Acct-Session-Id | [`Session::id`] |
//! | User-Name, Calling-Station-Id, Called-Station-Id | of the session |
//! | Framed-IP-Address, Framed-IPv6-Address | its inner addresses |
//! | Class | as the server gave it |
//! | Acct-Authentic | RADIUS |
//! | Acct-Input-Octets, -Output-Octets, -Gigawords, -Packets | input is what came from the peer |
//! | Acct-Session-Time | seconds |
//! | Acct-Terminate-Cause | in Stop |
//! | Event-Timestamp, Acct-Delay-Time | when it happened, and how long ago that is |
//! | NAS-Identifier, NAS-IP-Address, NAS-Port-Type, Service-Type | as in Access-Request |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::attribute::{Attributes, Kind, Written};
use crate::engine::{Answer, Question, Ticket};
use crate::packet;

/// Records that wait at most.
pub const MAX_RECORDS: usize = 65_536;
/// Records that are out at one time.
const OUT: usize = 64;
/// Pause after nobody took a record, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Unique among all sessions of this gateway, also over restarts.
    pub id: String,
    /// The user, as the server named it.
    pub user: String,
    /// The peer's address.
    pub peer: IpAddr,
    /// What it called.
    pub called: String,
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Class attributes of the Access-Accept.
    pub class: Vec<Vec<u8>>,
}

/// What a session has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the peer.
    pub octets_in: u64,
    /// To the peer.
    pub octets_out: u64,
    /// From the peer.
    pub packets_in: u64,
    /// To the peer.
    pub packets_out: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It came.
    Start,
    /// It is still here.
    Interim {
        /// So far.
        traffic: Traffic,
        /// For so long.
        time: Duration,
    },
    /// It went.
    Stop {
        /// In all.
        traffic: Traffic,
        /// For so long.
        time: Duration,
        /// Why.
        cause: Cause,
    },
}

/// Why a session ended (RFC 2866 section 5.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer said so.
    UserRequest,
    /// The peer does not answer any more.
    LostCarrier,
    /// It was here for as long as it may.
    SessionTimeout,
    /// Somebody with authority said so: an operator, or a server by Disconnect.
    AdminReset,
    /// The gateway ends.
    AdminReboot,
    /// The gateway ended without a word, some time ago.
    NasReboot,
    /// Something went wrong on our side.
    NasError,
    /// The same peer came anew.
    Preempted,
}

impl Cause {
    fn number(self) -> u32 {
        match self {
            Cause::UserRequest => 1,
            Cause::LostCarrier => 2,
            Cause::SessionTimeout => 5,
            Cause::AdminReset => 6,
            Cause::AdminReboot => 7,
            Cause::NasError => 9,
            Cause::NasReboot => 11,
            Cause::Preempted => 13,
        }
    }
}

/// How accounting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Records that wait or are out.
    pub waiting: usize,
    /// Records that a server wrote down.
    pub written: u64,
    /// Records that gave way to a later one of the same session.
    pub superseded: u64,
    /// Records that were lost.
    pub lost: u64,
}

/// A session that is up, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What its owner calls it.
    pub name: u64,
    /// Whose it is.
    pub session: Session,
    /// How often it is accounted for.
    pub interim: Option<Duration>,
    /// Since when it is up. To the second, like all times here.
    pub began: SystemTime,
    /// How long it had been up when it was accounted for last.
    pub time: Duration,
    /// What it had carried then.
    pub traffic: Traffic,
}

impl Known {
    pub(crate) fn to_octets(&self) -> Vec<u8> {
        let mut attributes = Written::new();
        describe(&mut attributes, &self.session);
        if let Some(interim) = self.interim {
            attributes.number(Kind::ACCT_INTERIM_INTERVAL, whole(interim));
        }
        attributes.number(Kind::EVENT_TIMESTAMP, seconds(self.began));
        amounts(&mut attributes, self.traffic, self.time);
        attributes.read().as_bytes().to_vec()
    }

    pub(crate) fn from_octets(name: u64, octets: &[u8]) -> Option<Known> {
        let read = Attributes::parse(octets).ok()?;
        let text = |kind| read.first(kind).and_then(|found| String::from_utf8(found.value.to_vec()).ok());
        let number = |kind| read.first(kind).and_then(|found| found.number());
        let count =
            |low, high| u64::from(number(high).unwrap_or(0)) << 32 | u64::from(number(low).unwrap_or(0));
        let framed = read.all(Kind::FRAMED_IP_ADDRESS).chain(read.all(Kind::FRAMED_IPV6_ADDRESS));
        let session = Session {
            id: text(Kind::ACCT_SESSION_ID)?,
            user: text(Kind::USER_NAME).unwrap_or_default(),
            peer: text(Kind::CALLING_STATION_ID)?.parse().ok()?,
            called: text(Kind::CALLED_STATION_ID).unwrap_or_default(),
            addresses: framed.filter_map(|found| found.address()).collect(),
            class: read.all(Kind::CLASS).map(|class| class.value.to_vec()).collect(),
        };
        let traffic = Traffic {
            octets_in: count(Kind::ACCT_INPUT_OCTETS, Kind::ACCT_INPUT_GIGAWORDS),
            octets_out: count(Kind::ACCT_OUTPUT_OCTETS, Kind::ACCT_OUTPUT_GIGAWORDS),
            packets_in: number(Kind::ACCT_INPUT_PACKETS).unwrap_or(0).into(),
            packets_out: number(Kind::ACCT_OUTPUT_PACKETS).unwrap_or(0).into(),
        };
        let of_seconds = |kind| number(kind).map(|number| Duration::from_secs(number.into()));
        Some(Known {
            name,
            session,
            interim: of_seconds(Kind::ACCT_INTERIM_INTERVAL),
            began: SystemTime::UNIX_EPOCH + of_seconds(Kind::EVENT_TIMESTAMP)?,
            time: of_seconds(Kind::ACCT_SESSION_TIME)?,
            traffic,
        })
    }
}

struct Entry {
    session: String,
    interim: bool,
    /// Without Acct-Delay-Time.
    attributes: Written,
    since: Instant,
    /// How old it was then, for one that was made before this process.
    age: Duration,
    /// Whether it is about all sessions: what came before it goes before, and what comes after it after.
    all: bool,
    out: bool,
}

/// Records that no server has written down yet.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By number, in the order in which they were made.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Numbers of each session's records.
    sessions: BTreeMap<String, VecDeque<u64>>,
    /// Those that are first of their session and not out.
    ready: BTreeSet<u64>,
    /// Those about all sessions.
    all: BTreeSet<u64>,
    out: usize,
    pause: Option<(Instant, Duration)>,
    status: LedgerStatus,
    /// What is to be written down: a record that came, or one that is done.
    changes: Vec<(u64, Option<Vec<u8>>)>,
}

impl Ledger {
    /// Takes records that were written down before this process began.
    pub(crate) fn restore(&mut self, now: Instant, at: SystemTime, number: u64, octets: &[u8]) -> bool {
        let Some(entry) = Entry::from_octets(now, at, octets) else { return false };
        // Room for all that are to come.
        if number >= 1 << 62 || number < self.next {
            return false;
        }
        self.next = number;
        self.insert(entry);
        true
    }

    /// Nobody takes records any more.
    pub(crate) fn clear(&mut self) -> usize {
        let gone: Vec<u64> = self.entries.keys().copied().collect();
        self.changes.extend(gone.iter().map(|number| (*number, None)));
        let changes = std::mem::take(&mut self.changes);
        let lost = self.status.lost + gone.len() as u64;
        let status = LedgerStatus { lost, ..self.status };
        *self = Ledger { next: self.next, status, changes, ..Ledger::default() };
        gone.len()
    }

    /// What is to be written down since this was asked last.
    pub(crate) fn take_changes(&mut self) -> Vec<(u64, Option<Vec<u8>>)> {
        std::mem::take(&mut self.changes)
    }

    /// Writes down what happened to a session.
    pub(crate) fn add(&mut self, now: Instant, at: SystemTime, nas: &Written, session: &Session, what: What) {
        let mut attributes = Written::new();
        attributes.number(Kind::ACCT_STATUS_TYPE, status(what));
        describe(&mut attributes, session);
        attributes.append(nas);
        attributes.number(Kind::NAS_PORT_TYPE, 5);
        attributes.number(Kind::SERVICE_TYPE, 2);
        // RADIUS (RFC 2866 section 5.6).
        attributes.number(Kind::ACCT_AUTHENTIC, 1);
        match what {
            What::Start => {}
            What::Interim { traffic, time } => amounts(&mut attributes, traffic, time),
            What::Stop { traffic, time, cause } => {
                amounts(&mut attributes, traffic, time);
                attributes.number(Kind::ACCT_TERMINATE_CAUSE, cause.number());
            }
        }
        attributes.number(Kind::EVENT_TIMESTAMP, seconds(at));
        let interim = matches!(what, What::Interim { .. });
        self.insert(Entry {
            session: session.id.clone(),
            interim,
            attributes,
            since: now,
            age: Duration::ZERO,
            all: false,
            out: false,
        });
    }

    /// The gateway starts, or ends: whatever sessions servers think it has are over.
    pub(crate) fn add_own(&mut self, now: Instant, at: SystemTime, nas: &Written, session: String, on: bool) {
        let mut attributes = Written::new();
        attributes.number(Kind::ACCT_STATUS_TYPE, if on { 7 } else { 8 });
        attributes.text(Kind::ACCT_SESSION_ID, &session);
        attributes.append(nas);
        attributes.number(Kind::EVENT_TIMESTAMP, seconds(at));
        self.insert(Entry {
            session,
            interim: false,
            attributes,
            since: now,
            age: Duration::ZERO,
            all: true,
            out: false,
        });
    }

    /// Records to send now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<(Ticket, Question)> {
        let mut questions = Vec::new();
        if self.pause.is_some_and(|(until, _)| now < until) {
            return questions;
        }
        while self.out < OUT
            && let Some(number) = self.ready.first().copied()
        {
            let waits = self.all.first().is_some_and(|all| number > *all || (number == *all && self.out > 0));
            if waits {
                break;
            }
            self.ready.remove(&number);
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            entry.out = true;
            self.out += 1;
            let mut attributes = entry.attributes.clone();
            let delay = entry.age + now.saturating_duration_since(entry.since);
            attributes.number(Kind::ACCT_DELAY_TIME, whole(delay));
            questions.push((Ticket(number), Question { attributes, only: None }));
        }
        questions
    }

    /// What became of one.
    pub(crate) fn on_answer(&mut self, now: Instant, ticket: Ticket, answer: &Answer) {
        let Some(entry) = self.entries.get_mut(&ticket.0).filter(|entry| entry.out) else { return };
        entry.out = false;
        self.out -= 1;
        match answer {
            Answer::Reply(_) => {
                self.pause = None;
                self.status.written += 1;
                self.remove(ticket.0);
            }
            Answer::Nobody(_) => {
                self.ready.insert(ticket.0);
                // Several that were out together fail together; that is one failure.
                if self.pause.is_none_or(|(until, _)| until <= now) {
                    let pause = self.pause.map_or(FIRST_PAUSE, |(_, before)| (before * 2).min(LONGEST_PAUSE));
                    self.pause = Some((now + pause, pause));
                }
                let superseded = self.entries.get(&ticket.0).is_some_and(|entry| {
                    let after = self.sessions.get(&entry.session).map_or(0, VecDeque::len) > 1;
                    entry.interim && after
                });
                if superseded {
                    self.status.superseded += 1;
                    self.remove(ticket.0);
                }
            }
        }
    }

    /// When [`Ledger::poll`] has something again.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pause.map(|(until, _)| until).filter(|_| !self.ready.is_empty())
    }

    /// How it is.
    pub(crate) fn status(&self) -> LedgerStatus {
        LedgerStatus { waiting: self.entries.len(), ..self.status }
    }

    fn insert(&mut self, entry: Entry) {
        // Amounts are sums since the start: an interim record that has not left says nothing that this one does not.
        let last = self.sessions.get(&entry.session).and_then(|numbers| numbers.back().copied());
        if let Some(last) = last.filter(|last| self.entries.get(last).is_some_and(|e| e.interim && !e.out)) {
            self.status.superseded += 1;
            self.remove(last);
        }
        if self.entries.len() >= MAX_RECORDS {
            self.status.lost += 1;
            let waits = |(number, entry): (&u64, &Entry)| (entry.interim && !entry.out).then_some(*number);
            match self.entries.iter().find_map(waits) {
                Some(oldest) => self.remove(oldest),
                None => return,
            }
        }
        let number = self.next;
        self.next += 1;
        let numbers = self.sessions.entry(entry.session.clone()).or_default();
        numbers.push_back(number);
        if numbers.len() == 1 {
            self.ready.insert(number);
        }
        if entry.all {
            self.all.insert(number);
        }
        self.changes.push((number, Some(entry.to_octets())));
        self.entries.insert(number, entry);
    }

    fn remove(&mut self, number: u64) {
        self.ready.remove(&number);
        self.all.remove(&number);
        let Some(entry) = self.entries.remove(&number) else { return };
        self.changes.push((number, None));
        let Some(numbers) = self.sessions.get_mut(&entry.session) else { return };
        numbers.retain(|n| *n != number);
        match numbers.front() {
            Some(first) if self.entries.get(first).is_some_and(|entry| !entry.out) => {
                self.ready.insert(*first);
            }
            Some(_) => {}
            None => {
                self.sessions.remove(&entry.session);
            }
        }
    }
}

impl Entry {
    /// Flags, when it happened, attributes.
    fn to_octets(&self) -> Vec<u8> {
        let happened = self.attributes.read().first(Kind::EVENT_TIMESTAMP).and_then(|found| found.number());
        let flags = u8::from(self.interim) | u8::from(self.all) << 1;
        [&[flags][..], &happened.unwrap_or(0).to_be_bytes(), self.attributes.read().as_bytes()].concat()
    }

    fn from_octets(now: Instant, at: SystemTime, octets: &[u8]) -> Option<Entry> {
        let (head, attributes) = octets.split_first_chunk::<5>()?;
        let [flags, happened @ ..] = head;
        let read = Attributes::parse(attributes).ok()?;
        let session = String::from_utf8(read.first(Kind::ACCT_SESSION_ID)?.value.to_vec()).ok()?;
        let mut attributes = Written::new();
        attributes.copy(read);
        packet::fits(&attributes).ok()?;
        // A clock that was put back makes it young, not older than time.
        let age = seconds(at).saturating_sub(u32::from_be_bytes(*happened));
        Some(Entry {
            session,
            interim: flags & 1 != 0,
            attributes,
            since: now,
            age: Duration::from_secs(age.into()),
            all: flags & 2 != 0,
            out: false,
        })
    }
}

/// Whose session it is.
fn describe(attributes: &mut Written, session: &Session) {
    attributes.text(Kind::ACCT_SESSION_ID, &session.id);
    attributes.text(Kind::USER_NAME, &session.user);
    attributes.text(Kind::CALLING_STATION_ID, &session.peer.to_string());
    attributes.text(Kind::CALLED_STATION_ID, &session.called);
    for address in session.addresses.iter().take(16) {
        attributes.address(Kind::FRAMED_IP_ADDRESS, Kind::FRAMED_IPV6_ADDRESS, *address);
    }
    for class in session.class.iter().take(8) {
        // It came as an attribute, so it fits into one.
        let _ = attributes.push(Kind::CLASS, class);
    }
}

fn status(what: What) -> u32 {
    match what {
        What::Start => 1,
        What::Stop { .. } => 2,
        What::Interim { .. } => 3,
    }
}

fn amounts(attributes: &mut Written, traffic: Traffic, time: Duration) {
    let Traffic { octets_in, octets_out, packets_in, packets_out } = traffic;
    // RFC 2869 sections 5.1 and 5.2: the upper half of a count of octets has an attribute of its own.
    let pairs = [
        (Kind::ACCT_INPUT_OCTETS, Kind::ACCT_INPUT_GIGAWORDS, octets_in),
        (Kind::ACCT_OUTPUT_OCTETS, Kind::ACCT_OUTPUT_GIGAWORDS, octets_out),
    ];
    for (low, high, octets) in pairs {
        attributes.number(low, octets as u32);
        attributes.number(high, (octets >> 32) as u32);
    }
    // A count of packets has no upper half: it goes around.
    attributes.number(Kind::ACCT_INPUT_PACKETS, packets_in as u32);
    attributes.number(Kind::ACCT_OUTPUT_PACKETS, packets_out as u32);
    attributes.number(Kind::ACCT_SESSION_TIME, whole(time));
}

/// Whole seconds.
fn whole(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// RFC 2869 section 5.3: seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u32 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Reply;
    use crate::engine::ServerId;
    use crate::packet::Code;

    fn session(id: &str) -> Session {
        Session {
            id: id.to_owned(),
            user: "alice".to_owned(),
            peer: "192.0.2.7".parse().unwrap(),
            called: "gw".to_owned(),
            addresses: vec!["10.9.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            class: vec![vec![1, 2, 255]],
        }
    }

    fn interim(octets: u64) -> What {
        let traffic = Traffic { octets_in: octets, ..Traffic::default() };
        What::Interim { traffic, time: Duration::from_secs(9) }
    }

    fn stop() -> What {
        let traffic = Traffic { octets_in: (3 << 32) + 7, octets_out: 8, packets_in: 9, packets_out: 10 };
        What::Stop { traffic, time: Duration::from_secs(77), cause: Cause::AdminReset }
    }

    fn written() -> Answer {
        Answer::Reply(Box::new(Reply {
            server: ServerId(0),
            name: "a".into(),
            code: Code::ACCOUNTING_RESPONSE,
            attributes: Written::new(),
            msk: None,
        }))
    }

    fn nobody() -> Answer {
        Answer::Nobody("down".to_owned())
    }

    fn number(question: &Question, kind: Kind) -> Option<u32> {
        question.attributes.read().first(kind)?.number()
    }

    struct Book {
        ledger: Ledger,
        now: Instant,
    }

    impl Book {
        fn new() -> Book {
            Book { ledger: Ledger::default(), now: Instant::now() }
        }

        fn add(&mut self, id: &str, what: What) {
            self.ledger.add(self.now, SystemTime::UNIX_EPOCH, &Written::new(), &session(id), what);
        }
    }

    #[test]
    fn a_stop_says_everything() {
        let mut book = Book::new();
        book.add("s1", stop());
        let (_, question) = book.ledger.poll(book.now).remove(0);
        let read = question.attributes.read();
        for (kind, want) in [
            (Kind::ACCT_STATUS_TYPE, 2),
            (Kind::ACCT_INPUT_OCTETS, 7),
            (Kind::ACCT_INPUT_GIGAWORDS, 3),
            (Kind::ACCT_OUTPUT_OCTETS, 8),
            (Kind::ACCT_OUTPUT_GIGAWORDS, 0),
            (Kind::ACCT_INPUT_PACKETS, 9),
            (Kind::ACCT_OUTPUT_PACKETS, 10),
            (Kind::ACCT_SESSION_TIME, 77),
            (Kind::ACCT_TERMINATE_CAUSE, 6),
            (Kind::ACCT_DELAY_TIME, 0),
            (Kind::EVENT_TIMESTAMP, 0),
        ] {
            assert_eq!(number(&question, kind), Some(want), "{kind:?}");
        }
        assert_eq!(read.first(Kind::ACCT_SESSION_ID).unwrap().value, b"s1");
        assert_eq!(read.first(Kind::CLASS).unwrap().value, [1, 2, 255]);
        assert_eq!(read.first(Kind::FRAMED_IP_ADDRESS).unwrap().value, [10, 9, 0, 1]);
        assert_eq!(read.first(Kind::FRAMED_IPV6_ADDRESS).unwrap().value.len(), 16);
    }

    #[test]
    fn records_of_a_session_go_one_after_the_other_and_sessions_at_once() {
        let mut book = Book::new();
        book.add("s1", What::Start);
        book.add("s1", stop());
        book.add("s2", What::Start);
        let first = book.ledger.poll(book.now);
        assert_eq!(first.len(), 2);
        assert!(book.ledger.poll(book.now).is_empty());
        for (ticket, _) in &first {
            book.ledger.on_answer(book.now, *ticket, &written());
        }
        let second = book.ledger.poll(book.now);
        assert_eq!(second.len(), 1);
        assert_eq!(number(&second[0].1, Kind::ACCT_STATUS_TYPE), Some(2));
        book.ledger.on_answer(book.now, second[0].0, &written());
        // A second answer to the same is nothing.
        book.ledger.on_answer(book.now, second[0].0, &written());
        let status = book.ledger.status();
        assert_eq!((status.waiting, status.written, status.lost), (0, 3, 0));
        assert!(book.ledger.sessions.is_empty());
    }

    #[test]
    fn what_nobody_takes_waits_and_says_how_long() {
        let mut book = Book::new();
        book.add("s1", What::Start);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let (ticket, _) = book.ledger.poll(book.now).remove(0);
            book.ledger.on_answer(book.now, ticket, &nobody());
            assert!(book.ledger.poll(book.now).is_empty());
            let due = book.ledger.due().unwrap();
            pauses.push((due - book.now).as_secs());
            book.now = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        let (ticket, question) = book.ledger.poll(book.now).remove(0);
        assert_eq!(number(&question, Kind::ACCT_DELAY_TIME), Some(182));
        book.ledger.on_answer(book.now, ticket, &written());
        assert_eq!(book.ledger.status().waiting, 0);
    }

    #[test]
    fn the_gateways_own_records_go_before_and_after_all_others() {
        let mut book = Book::new();
        let own = |book: &mut Book, on| {
            book.ledger.add_own(book.now, SystemTime::UNIX_EPOCH, &Written::new(), "gw".into(), on);
        };
        own(&mut book, true);
        book.add("s1", What::Start);
        book.add("s2", What::Start);
        own(&mut book, false);
        let mut kinds = Vec::new();
        loop {
            let questions = book.ledger.poll(book.now);
            if questions.is_empty() {
                break;
            }
            kinds.push(
                questions.iter().map(|(_, q)| number(q, Kind::ACCT_STATUS_TYPE).unwrap()).collect::<Vec<_>>(),
            );
            for (ticket, _) in questions {
                book.ledger.on_answer(book.now, ticket, &written());
            }
        }
        assert_eq!(kinds, [vec![7], vec![1, 1], vec![8]]);
    }

    #[test]
    fn interim_records_do_not_pile_up() {
        let mut book = Book::new();
        book.add("s1", What::Start);
        let (start, _) = book.ledger.poll(book.now).remove(0);
        for n in 0..1000 {
            book.add("s1", interim(n));
        }
        assert_eq!(book.ledger.status().waiting, 2);
        book.ledger.on_answer(book.now, start, &written());
        let (last, question) = book.ledger.poll(book.now).remove(0);
        assert_eq!(number(&question, Kind::ACCT_INPUT_OCTETS), Some(999));
        // One that is out and fails gives way to what came meanwhile.
        book.add("s1", stop());
        book.ledger.on_answer(book.now, last, &nobody());
        book.now = book.ledger.due().unwrap();
        let (_, question) = book.ledger.poll(book.now).remove(0);
        assert_eq!(number(&question, Kind::ACCT_STATUS_TYPE), Some(2));
        assert_eq!(book.ledger.status().superseded, 1000);
    }

    #[test]
    fn a_full_ledger_loses_interim_records_first_and_counts() {
        let mut book = Book::new();
        book.add("i", interim(1));
        for n in 1..MAX_RECORDS {
            book.add(&format!("s{n}"), What::Start);
        }
        assert_eq!(book.ledger.status().lost, 0);
        book.add("new", What::Start);
        assert_eq!(book.ledger.status().lost, 1);
        assert!(!book.ledger.sessions.contains_key("i") && book.ledger.sessions.contains_key("new"));
        book.add("newer", What::Start);
        assert_eq!((book.ledger.status().lost, book.ledger.status().waiting), (2, MAX_RECORDS));
    }

    #[test]
    fn records_that_were_written_down_go_on_in_their_order_and_know_their_age() {
        let mut book = Book::new();
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let nas = Written::new();
        book.ledger.add(book.now, noon, &nas, &session("s1"), What::Start);
        book.ledger.add(book.now, noon, &nas, &session("s2"), What::Start);
        book.ledger.add(book.now, noon, &nas, &session("s1"), stop());
        book.ledger.add_own(book.now, noon, &nas, "gw".into(), false);
        // What is done is not written down any more.
        let (first, _) = book.ledger.poll(book.now).remove(0);
        book.ledger.on_answer(book.now, first, &written());
        let mut kept = BTreeMap::new();
        for (number, change) in book.ledger.take_changes() {
            match change {
                Some(octets) => drop(kept.insert(number, octets)),
                None => drop(kept.remove(&number)),
            }
        }
        assert_eq!(kept.len(), 3);
        let mut next = Book::new();
        let later = noon + Duration::from_secs(60);
        for (number, octets) in &kept {
            assert!(next.ledger.restore(next.now, later, *number, octets));
            for end in 0..octets.len() {
                assert!(!Ledger::default().restore(next.now, later, *number, &octets[..end]) || end > 5);
            }
        }
        let numbers: Vec<u64> = next.ledger.take_changes().into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, kept.keys().copied().collect::<Vec<_>>(), "a record keeps its number");
        next.ledger.add_own(next.now, later, &nas, "gw".into(), true);
        let mut kinds = Vec::new();
        loop {
            let questions = next.ledger.poll(next.now);
            if questions.is_empty() {
                break;
            }
            for (ticket, question) in questions {
                let number = |kind| number(&question, kind).unwrap();
                kinds.push((number(Kind::ACCT_STATUS_TYPE), number(Kind::ACCT_DELAY_TIME)));
                next.ledger.on_answer(next.now, ticket, &written());
            }
        }
        assert_eq!(kinds, [(1, 60), (2, 60), (8, 60), (7, 0)]);
        // Nobody takes them any more.
        next.ledger.add(next.now, later, &nas, &session("s1"), What::Start);
        assert_eq!((next.ledger.clear(), next.ledger.status().waiting), (1, 0));
        assert_eq!(next.ledger.take_changes().last(), Some(&(5, None)));
    }

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let known = Known {
            name: 7,
            session: session("s1"),
            interim: Some(Duration::from_secs(600)),
            began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            time: Duration::from_secs(77),
            traffic: Traffic { octets_in: (3 << 32) + 7, octets_out: 8, packets_in: 9, packets_out: 10 },
        };
        let octets = known.to_octets();
        assert_eq!(Known::from_octets(7, &octets), Some(known.clone()));
        let never = Known { interim: None, ..known };
        assert_eq!(Known::from_octets(7, &never.to_octets()), Some(never));
        for end in 0..octets.len() {
            // No panic; what it is without its end does not matter.
            let _ = Known::from_octets(7, &octets[..end]);
        }
    }
}
