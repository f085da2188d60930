//! Sessions that a RADIUS server let in: the key side is told when they begin, what they carry and when they end, and says
//! what servers want done to them.
//!
//! A session has the name of the IKE SA that it began with, and goes on when that is rekeyed. What it has carried is the sum of
//! its Child SAs: those that are gone said so when they went, those that are there are asked.
//!
//! A key side that is killed has written down what it was told. What it was asked and did not answer is asked again of the next one.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use ike::{Ending, Event, Why};
use ipc::{Account, IkeSaRef, Refusal, Reply, Request, SessionChange, SessionOrder, StopCause, Traffic};
use policy::Realm;
use spi::Direction;

use super::Worker;
use super::ask::{Asker, GONE};
use super::views::Question;
use crate::events::Notice;
use crate::plane::look::Look;

/// How long the last Child SA of a session may take to say what it has carried.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Records that are due within this time are made together.
const TOGETHER: Duration = Duration::from_secs(1);
/// Beginnings and ends that are remembered until the key side has noted them.
const MAX_UNSAID: usize = 1 << 17;

/// See the module.
#[derive(Default)]
pub(super) struct Sessions {
    /// By the IKE SA that each began with.
    all: BTreeMap<IkeSaRef, Session>,
    /// From the IKE SA that is there now.
    now: HashMap<IkeSaRef, IkeSaRef>,
    of_child: HashMap<ike::ChildId, IkeSaRef>,
    /// When the next one is accounted for; not later than that.
    due: Option<Instant>,
    /// Whether the lanes were asked what the sessions carry.
    looking: bool,
    /// Whether the key side was asked for orders, and will answer some day.
    pub(super) awaiting: bool,
    /// Beginnings and ends that the key side has not answered yet, by number; and whether they were asked before.
    unsaid: BTreeMap<u64, (IkeSaRef, Account, bool)>,
    last: u64,
}

#[derive(Default)]
struct Session {
    interim: Option<Duration>,
    /// When the next interim record is due.
    due: Option<Instant>,
    /// Of Child SAs that are gone.
    gone: Traffic,
    /// Of those that are there, when they were asked last.
    there: HashMap<ike::ChildId, Traffic>,
    /// It is over, why, and until when a last word is waited for.
    over: Option<(StopCause, Instant)>,
}

impl Session {
    fn traffic(&self) -> Traffic {
        self.there.values().fold(self.gone, |sum, more| add(sum, *more))
    }
}

impl Sessions {
    /// When [`Worker::tend_sessions`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.looking)
    }

    fn schedule(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl Worker {
    /// Asks for orders, where there are servers that could give some.
    pub(super) fn await_session_orders(&mut self) {
        let wanted = self.realms.iter().any(|realm: &std::sync::Arc<Realm>| realm.eap.radius);
        if wanted && !self.sessions.awaiting {
            self.sessions.awaiting = true;
            self.ask.ask(Asker::Orders, Request::AwaitSessionOrder);
        }
    }

    /// The key side has an order, or will have none.
    pub(super) fn session_order(&mut self, now: Instant, reply: Reply) {
        self.sessions.awaiting = false;
        let SessionOrder { sessions, what } = match reply {
            Reply::SessionOrder(order) => order,
            Reply::Refused(why) => return tracing::debug!(%why, "no orders about sessions"),
            _ => return,
        };
        for name in sessions {
            let Some(sa) = self.sessions.now.iter().find_map(|(sa, of)| (*of == name).then_some(*sa)) else {
                continue;
            };
            match what {
                SessionChange::End => {
                    self.engine.end_session(now, sa, "a RADIUS server wants it ended", &mut self.fx);
                }
                SessionChange::Change { timeout, interim } => {
                    if let Some(time) = timeout {
                        self.engine.extend_session(now, sa, time, &mut self.fx);
                    }
                    if let (Some(every), Some(session)) = (interim, self.sessions.all.get_mut(&name)) {
                        (session.interim, session.due) = (Some(every), Some(now + every));
                        self.sessions.schedule(now + every);
                    }
                }
            }
        }
        self.carry_out(now);
        // That also says that it is done.
        self.await_session_orders();
    }

    /// Sessions begin, go on and end with IKE SAs.
    pub(super) fn session_event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::IkeEstablished { sa, .. } => self.session_begins(now, *sa),
            Event::IkeRekeyed { old, new } => {
                if let Some(name) = self.sessions.now.remove(old) {
                    self.sessions.now.insert(*new, name);
                }
            }
            Event::IkeClosed { sa, why, .. } => self.session_ends(now, *sa, why),
            _ => {}
        }
    }

    fn session_begins(&mut self, now: Instant, sa: IkeSaRef) {
        let Some((granted, addresses)) = self.engine.granted(sa).filter(|(granted, _)| granted.accounted)
        else {
            return;
        };
        let due = granted.interim.and_then(|every| now.checked_add(every));
        let session = Session { interim: granted.interim, due, ..Session::default() };
        self.sessions.all.insert(sa, session);
        self.sessions.now.insert(sa, sa);
        if let Some(due) = due {
            self.sessions.schedule(due);
        }
        self.account(sa, Account::Start(addresses));
    }

    fn session_ends(&mut self, now: Instant, sa: IkeSaRef, why: &Why) {
        let Some(name) = self.sessions.now.remove(&sa) else { return };
        let Some(session) = self.sessions.all.get_mut(&name) else { return };
        let cause = match why.ending() {
            Ending::Peer => StopCause::Peer,
            Ending::Silence => StopCause::Silence,
            Ending::Time => StopCause::Time,
            Ending::Replaced => StopCause::Replaced,
            Ending::Meant if self.stopping.is_some() => StopCause::Shutdown,
            Ending::Meant => StopCause::Order,
            Ending::Failure => StopCause::Failure,
        };
        session.over = Some((cause, now + LAST_WORD));
        self.sessions.schedule(now + LAST_WORD);
        self.end_if_said(name);
        // Those of its Child SAs that fade say nothing in time, but can be asked.
        if self.sessions.all.contains_key(&name) && !self.sessions.looking {
            self.sessions.looking = true;
            self.look(now, Question::Sessions);
        }
    }

    /// A Child SA of an IKE SA was installed.
    pub(super) fn session_child(&mut self, ike: IkeSaRef, child: ike::ChildId) {
        if let Some(name) = self.sessions.now.get(&ike)
            && let Some(session) = self.sessions.all.get_mut(name)
        {
            session.there.insert(child, Traffic::default());
            self.sessions.of_child.insert(child, *name);
        }
    }

    /// A Child SA is gone and has carried this.
    pub(super) fn session_child_gone(&mut self, child: ike::ChildId, carried: Traffic) {
        let Some(name) = self.sessions.of_child.remove(&child) else { return };
        if let Some(session) = self.sessions.all.get_mut(&name) {
            session.there.remove(&child);
            session.gone = add(session.gone, carried);
            self.end_if_said(name);
        }
    }

    /// Does what is due.
    pub(super) fn tend_sessions(&mut self, now: Instant) {
        if self.sessions.looking || self.sessions.due.is_none_or(|due| now < due) {
            return;
        }
        let late = |(name, session): (&IkeSaRef, &Session)| {
            session.over.filter(|(_, until)| *until <= now).map(|_| *name)
        };
        let late: Vec<IkeSaRef> = self.sessions.all.iter().filter_map(late).collect();
        late.into_iter().for_each(|name| self.end(name));
        let interim = self.sessions.all.values().any(|session| session.due.is_some_and(|due| due <= now));
        if interim {
            self.sessions.looking = true;
            self.look(now, Question::Sessions);
        } else {
            self.reschedule();
        }
    }

    /// The lanes have said what everything carries.
    pub(super) fn sessions_looked(&mut self, now: Instant, parts: &[Option<Box<Look>>]) {
        self.sessions.looking = false;
        for view in parts.iter().flatten().flat_map(|look| &look.sas) {
            let id = match view.dir {
                Direction::Open => self.book.by_spi_in(view.spi),
                Direction::Seal => self.book.by_spi_out(view.line, view.spi),
            };
            let Some(id) = id else { continue };
            let Some(name) = self.sessions.of_child.get(&id) else { continue };
            let entry = self.sessions.all.get_mut(name).and_then(|session| session.there.get_mut(&id));
            match (entry, view.dir) {
                (Some(entry), Direction::Open) => {
                    (entry.packets_in, entry.octets_in) = (view.packets, view.bytes);
                }
                (Some(entry), Direction::Seal) => {
                    (entry.packets_out, entry.octets_out) = (view.packets, view.bytes);
                }
                (None, _) => {}
            }
        }
        let mut records = Vec::new();
        for (name, session) in &mut self.sessions.all {
            let soon = session.due.is_some_and(|due| due <= now + TOGETHER);
            if let Some(every) = session.interim.filter(|_| soon && session.over.is_none()) {
                session.due = now.checked_add(every.max(TOGETHER));
                records.push((*name, session.traffic()));
            }
        }
        records.into_iter().for_each(|(name, traffic)| self.account(name, Account::Interim(traffic)));
        self.reschedule();
    }

    /// Everything ends.
    pub(super) fn end_sessions(&mut self) {
        let names: Vec<IkeSaRef> = self.sessions.all.keys().copied().collect();
        for name in names {
            if let Some(session) = self.sessions.all.get_mut(&name) {
                session.over.get_or_insert((StopCause::Shutdown, Instant::now()));
            }
            self.end(name);
        }
    }

    fn reschedule(&mut self) {
        let due = |session: &Session| match session.over {
            Some((_, until)) => Some(until),
            None => session.due,
        };
        self.sessions.due = self.sessions.all.values().filter_map(due).min();
    }

    fn end_if_said(&mut self, name: IkeSaRef) {
        let said = self.sessions.all.get(&name).is_some_and(|s| s.over.is_some() && s.there.is_empty());
        if said {
            self.end(name);
        }
    }

    fn end(&mut self, name: IkeSaRef) {
        let Some(session) = self.sessions.all.remove(&name) else { return };
        for child in session.there.keys() {
            self.sessions.of_child.remove(child);
        }
        let (cause, _) = session.over.unwrap_or((StopCause::Failure, Instant::now()));
        self.account(name, Account::Stop(session.traffic(), cause));
    }

    fn account(&mut self, session: IkeSaRef, what: Account) {
        self.sessions.last += 1;
        let number = self.sessions.last;
        // The next interim record says what this one does, and more.
        let lasts = !matches!(what, Account::Interim(_));
        if lasts && self.sessions.unsaid.len() < MAX_UNSAID {
            self.sessions.unsaid.insert(number, (session, what.clone(), false));
        }
        self.ask.ask(Asker::Account(number), Request::Account { session, what });
    }

    /// The key side has noted it, or not.
    pub(super) fn accounted(&mut self, number: u64, reply: Reply) {
        if matches!(&reply, Reply::Refused(Refusal::System(why)) if why == GONE) {
            return;
        }
        let again = self.sessions.unsaid.remove(&number).is_some_and(|(.., again)| again);
        match reply {
            // The one before has noted it, and had no time to say so.
            Reply::Refused(why) if again => tracing::debug!(%why, "a session was accounted for before"),
            Reply::Refused(why) => {
                let what = "accounting for a session by RADIUS".to_owned();
                self.events.publish(Notice::NetworkFailed { what, why: why.to_string() });
            }
            _ => {}
        }
    }

    /// Another key side has come: what the one before did not answer, and orders.
    pub(super) fn account_again(&mut self) {
        for (number, (session, what, again)) in &mut self.sessions.unsaid {
            *again = true;
            let (session, what) = (*session, what.clone());
            self.ask.ask(Asker::Account(*number), Request::Account { session, what });
        }
        self.await_session_orders();
    }
}

fn add(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        octets_in: a.octets_in.saturating_add(b.octets_in),
        octets_out: a.octets_out.saturating_add(b.octets_out),
        packets_in: a.packets_in.saturating_add(b.packets_in),
        packets_out: a.packets_out.saturating_add(b.packets_out),
    }
}
