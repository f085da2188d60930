//! RADIUS servers: conversations that go through them, what is told of sessions, and what they want done to sessions.
//!
//! A session is what a server let in. It is named by the IKE SA that it began with, also after that was rekeyed; who it is, its
//! Class and its times are kept here, so that the network side can say what a session has carried and when it is over, and
//! nothing else about it. It is written down, too (`radius::journal`): a key side that takes the place of one that was killed goes on with
//! the sessions of a gateway that still has them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use eap::{Conversation, Step};
use ipc::{
    Account, IkeSaRef, MAX_EAP_LIST, MAX_ORDERED, Refusal, Reply, SessionChange, SessionOrder, StopCause,
};
use radius::{
    Cause, Client, Config, Demand, DemandId, Demanded, Details, Dynamic, DynamicClient, ErrorCause,
    Passthrough, Patience, Running, Server, Session, Tls, Traffic, Verdict, What, Whose,
};
use spi::{Doorbell, KeySource, Token};

use crate::config::{OwnCertificate, Radius as Told, RadiusTls};
use crate::eap::{Opening, Opens};

/// Sessions at once; more than there may be IKE SAs.
const MAX_SESSIONS: usize = 1 << 17;
/// What an IKE message leaves of a packet for EAP, so that the server cuts what it sends accordingly.
const EAP_MTU: u16 = 1024;
/// How long records may take to find a server when the gateway ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Shortest time between two interim records of a session that the network side may ask for.
const SHORTEST_INTERIM: Duration = Duration::from_secs(1);

/// The servers, and what is known of the sessions that they let in.
pub(crate) struct Radius {
    running: Option<Running>,
    sessions: Sessions,
    /// Whether what is known outlives this process.
    journal: bool,
    /// When the client was started, for names of sessions.
    since: u64,
    /// What makes conversations.
    opens: Arc<dyn Opens>,
    /// Whoever waits for an order.
    waiting: Option<Token>,
    /// Orders that nobody has taken yet, and for which request.
    orders: VecDeque<(Option<DemandId>, SessionOrder)>,
    /// The request whose order is being carried out.
    at_work: Option<DemandId>,
    pub(crate) replies: VecDeque<(Token, Reply)>,
}

/// By the IKE SA that it began with.
type Sessions = Arc<Mutex<BTreeMap<IkeSaRef, Known>>>;

/// A session.
struct Known {
    session: Session,
    interim: Option<Duration>,
    /// Once it is up.
    up: Option<Up>,
}

#[derive(Clone, Copy)]
struct Up {
    /// Since when.
    at: SystemTime,
    /// How long it had been up when this process came to know it, and when that was.
    before: Duration,
    since: Instant,
    /// When it was accounted for last, and with what.
    accounted: Instant,
    traffic: Traffic,
}

impl Up {
    fn time(&self, now: Instant) -> Duration {
        self.before + now.saturating_duration_since(self.since)
    }
}

impl Known {
    /// As it is written down, once it is up.
    fn written(&self, now: Instant, name: IkeSaRef) -> Option<radius::Known> {
        let Known { session, interim, up } = self;
        let up = (*up)?;
        let (session, interim) = (session.clone(), *interim);
        let (began, time, traffic) = (up.at, up.time(now), up.traffic);
        Some(radius::Known { name: name.0, session, interim, began, time, traffic })
    }

    /// One that was written down.
    fn restored(now: Instant, at: SystemTime, known: radius::Known) -> Known {
        let radius::Known { name: _, session, interim, began, time, traffic } = known;
        // It went on while nobody looked; a clock that was put back knows nothing of that.
        let before = at.duration_since(began).unwrap_or_default().max(time);
        Known { session, interim, up: Some(Up { at: began, before, since: now, accounted: now, traffic }) }
    }
}

impl Radius {
    /// Starts the client. `bell` is rung when a conversation can go on, or when [`Radius::poll`] has something to do. `journal`: the
    /// folder in which sessions and records are written down, and whose those are that are there.
    ///
    /// # Errors
    /// No thread, no socket, or certificates that do not fit.
    pub(crate) fn start(
        told: Told,
        bell: Doorbell,
        journal: Option<(PathBuf, Whose)>,
    ) -> Result<Radius, String> {
        let (interim, accounted) = (told.interim, accounted(&told));
        let kept = journal.is_some();
        let config = Config { journal, ..config(told)? };
        let mut running = Running::start(config, bell).map_err(|error| error.to_string())?;
        let (now, at) = (Instant::now(), SystemTime::now());
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let restored = std::mem::take(&mut running.known).into_iter();
        let restored = restored.map(|known| (IkeSaRef(known.name), Known::restored(now, at, known)));
        let sessions: Sessions = Arc::new(Mutex::new(restored.collect()));
        let (client, known) = (running.client.clone(), Arc::clone(&sessions));
        let opens = Arc::new(Through { client, sessions: known, since, accounted, interim });
        Ok(Radius {
            running: Some(running),
            sessions,
            journal: kept,
            since,
            opens,
            waiting: None,
            orders: VecDeque::new(),
            at_work: None,
            replies: VecDeque::new(),
        })
    }

    /// Other servers, or none. Sessions stay, and so do conversations with servers that stay as they are.
    ///
    /// # Errors
    /// What is wrong with it. With certificates that do not fit all stays as it was; where only the address for requests to us cannot be
    /// had, there are no such requests from now on.
    pub(crate) fn reload(&mut self, told: Option<Told>) -> Result<(), String> {
        let told = told.unwrap_or_else(|| Told {
            nas_identifier: String::new(),
            nas_address: None,
            servers: Vec::new(),
            timeout: Patience::default().first,
            tries: Patience::default().tries,
            interim: None,
            dynamic: None,
        });
        let (interim, accounted) = (told.interim, accounted(&told));
        let config = config(told).map_err(|why| format!("{why}; the servers are those of before"))?;
        let Some(running) = &mut self.running else { return Ok(()) };
        let (client, sessions) = (running.client.clone(), Arc::clone(&self.sessions));
        self.opens = Arc::new(Through { client, sessions, since: self.since, accounted, interim });
        running.reload(config).map_err(|error| format!("requests to us (`dynamic`): {error}"))
    }

    /// Whether it would start, short of its sockets.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check(told: Told) -> Result<(), String> {
        config(told).map(drop)
    }

    /// What makes conversations.
    pub(crate) fn opens(&self) -> &Arc<dyn Opens> {
        &self.opens
    }

    /// What happened to a session.
    ///
    /// # Errors
    /// There is none of that name, or it is too early.
    pub(crate) fn account(&mut self, now: Instant, name: IkeSaRef, what: Account) -> Result<(), Refusal> {
        let refused = |why: &str| Err(Refusal::OutOfTurn(why.into()));
        let mut sessions = lock(&self.sessions);
        let Some(known) = sessions.get_mut(&name) else { return refused("no server let in such a session") };
        let (session, what) = match (what, &mut known.up) {
            (Account::Start(addresses), up @ None) => {
                *up = Some(Up {
                    at: SystemTime::now(),
                    before: Duration::ZERO,
                    since: now,
                    accounted: now,
                    traffic: Traffic::default(),
                });
                known.session.addresses = addresses.into_iter().take(MAX_EAP_LIST).collect();
                (known.session.clone(), What::Start)
            }
            (Account::Start(_), Some(_)) => return refused("a session begins once"),
            (Account::Interim(_) | Account::Stop(..), None) => return refused("the session has not begun"),
            (Account::Interim(_), Some(up)) if now < up.accounted + SHORTEST_INTERIM => {
                return refused("too soon after the last record");
            }
            (Account::Interim(carried), Some(up)) => {
                (up.accounted, up.traffic) = (now, traffic(carried));
                (known.session.clone(), What::Interim { traffic: up.traffic, time: up.time(now) })
            }
            (Account::Stop(carried, why), Some(up)) => {
                let (traffic, time) = (traffic(carried), up.time(now));
                let session = known.session.clone();
                sessions.remove(&name);
                (session, What::Stop { traffic, time, cause: cause(why) })
            }
        };
        let written = sessions.get(&name).and_then(|known| known.written(now, name));
        drop(sessions);
        let lost = || Refusal::System("a record for RADIUS accounting was lost".into());
        let client = &self.running.as_ref().ok_or_else(lost)?.client;
        match written {
            Some(known) => client.know(known),
            None => client.unknow(name.0),
        }
        client.account(session, what).map_err(|_| lost())
    }

    /// Whoever has the IKE SAs waits for an order; the last one is done.
    ///
    /// # Errors
    /// Somebody waits already.
    pub(crate) fn await_order(&mut self, token: Token) -> Result<(), Refusal> {
        if self.waiting.is_some() {
            return Err(Refusal::OutOfTurn("an order is awaited already".into()));
        }
        if let Some(id) = self.at_work.take() {
            self.answer(id, Verdict::Done);
        }
        self.waiting = Some(token);
        self.hand_out();
        Ok(())
    }

    /// An IKE SA is gone. If its session has begun, [`Account::Stop`] says so.
    pub(crate) fn forget(&mut self, sa: IkeSaRef) {
        let mut sessions = lock(&self.sessions);
        if sessions.get(&sa).is_some_and(|known| known.up.is_none()) {
            sessions.remove(&sa);
        }
    }

    /// Looks for what servers want done.
    pub(crate) fn poll(&mut self) {
        while let Some(demand) = self.running.as_ref().and_then(|running| running.client.poll_demand()) {
            self.take(demand);
        }
        self.hand_out();
    }

    fn take(&mut self, demand: Demand) {
        let Demand { id, which, what } = demand;
        let fits = |(name, known): (&IkeSaRef, &mut Known)| {
            let session = &known.session;
            let fits = known.up.is_some()
                && which.session.as_ref().is_none_or(|id| *id == session.id)
                && which.user.as_ref().is_none_or(|user| *user == session.user)
                && which.peer.as_ref().is_none_or(|peer| peer.parse() == Ok(session.peer))
                && which.addresses.iter().all(|address| session.addresses.contains(address));
            fits.then(|| {
                if let Demanded::Change { interim: Some(interim), .. } = what {
                    known.interim = Some(interim);
                }
                *name
            })
        };
        let names: Vec<IkeSaRef> = lock(&self.sessions).iter_mut().filter_map(fits).collect();
        let of = which.to_string();
        let of = of.trim_end();
        tracing::info!(%of, ?what, sessions = names.len(), "a RADIUS server wants sessions ended or changed");
        if names.is_empty() {
            return self.answer(id, Verdict::Refused(ErrorCause::NoSession));
        }
        let what = match what {
            Demanded::Disconnect => SessionChange::End,
            Demanded::Change { timeout, interim } => SessionChange::Change { timeout, interim },
        };
        let last = names.len().div_ceil(MAX_ORDERED) - 1;
        for (place, names) in names.chunks(MAX_ORDERED).enumerate() {
            // With the last of them it is done.
            let order = SessionOrder { sessions: names.to_vec(), what };
            self.orders.push_back(((place == last).then_some(id), order));
        }
    }

    fn hand_out(&mut self) {
        if let Some(token) = self.waiting.take_if(|_| !self.orders.is_empty())
            && let Some((id, order)) = self.orders.pop_front()
        {
            self.at_work = id;
            self.replies.push_back((token, Reply::SessionOrder(order)));
        }
    }

    fn answer(&self, id: DemandId, verdict: Verdict) {
        if let Some(running) = &self.running {
            // If there is no room, the server is told after a while that it was not done.
            let _ = running.client.answer(id, verdict);
        }
    }
}

impl Drop for Radius {
    fn drop(&mut self) {
        let now = Instant::now();
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        let Some(running) = self.running.take() else { return };
        let up = sessions.into_iter().filter(|(_, known)| known.up.is_some());
        let up: Vec<(IkeSaRef, Known)> = up.collect();
        // The network side has gone without a word about these. Whoever comes next knows whether it took them with it.
        if self.journal && !up.is_empty() {
            let written = up.iter().filter_map(|(name, known)| known.written(now, *name));
            written.for_each(|known| running.client.know(known));
            return;
        }
        for (_, Known { session, up, .. }) in up {
            if let Some(up) = up {
                let what = What::Stop { traffic: up.traffic, time: up.time(now), cause: Cause::NasError };
                let _ = running.client.account(session, what);
            }
        }
        let waiting = running.finish(LAST_WORDS);
        match self.journal {
            _ if waiting == 0 => {}
            true => tracing::info!(waiting, "records for RADIUS accounting wait for the next start"),
            false => tracing::warn!(lost = waiting, "records for RADIUS accounting that no server has taken"),
        }
    }
}

/// Makes conversations that go through a server.
struct Through {
    client: Client,
    sessions: Sessions,
    since: u64,
    accounted: bool,
    interim: Option<Duration>,
}

impl Opens for Through {
    fn open(&self, opening: &Opening) -> Result<Box<dyn Conversation>, String> {
        if opening.role != ipc::Role::Responder {
            return Err(format!("realm `{}` has no EAP for this side", opening.realm.name));
        }
        let called = opening.realm.local_id.to_string();
        // Unique also over restarts.
        let id = format!("{:08x}{:08x}", self.since, opening.sa.0);
        let details = Details {
            peer: opening.remote.to_canonical(),
            called: called.clone(),
            session: id.clone(),
            connect_info: format!("IKEv2 as {}", opening.peer_id),
            mtu: EAP_MTU,
            identity: (!opening.realm.eap.ask_identity).then(|| opening.peer_id.to_string()),
        };
        let session = Session {
            id,
            user: String::new(),
            peer: details.peer,
            called,
            addresses: Vec::new(),
            class: Vec::new(),
        };
        Ok(Box::new(Recorded {
            inner: Passthrough::new(self.client.clone(), details),
            name: opening.sa,
            session,
            sessions: Arc::clone(&self.sessions),
            accounted: self.accounted,
            interim: self.interim,
        }))
    }

    fn waits(&self) -> bool {
        true
    }
}

/// A conversation whose good end is written down.
struct Recorded {
    inner: Passthrough,
    name: IkeSaRef,
    session: Session,
    sessions: Sessions,
    accounted: bool,
    interim: Option<Duration>,
}

impl Recorded {
    fn note(&mut self, step: Step) -> Step {
        let Step::Accepted { packet, mut grant } = step else { return step };
        self.session.user.clone_from(&grant.identity);
        self.session.class.clone_from(&grant.granted.class);
        grant.granted.interim = grant.granted.interim.or(self.interim);
        let mut sessions = lock(&self.sessions);
        if sessions.len() < MAX_SESSIONS {
            let interim = grant.granted.interim;
            sessions.insert(self.name, Known { session: self.session.clone(), interim, up: None });
            grant.granted.accounted = self.accounted;
        }
        Step::Accepted { packet, grant }
    }
}

impl Conversation for Recorded {
    fn receive(&mut self, packet: Option<&[u8]>) -> Step {
        let step = self.inner.receive(packet);
        self.note(step)
    }

    fn poll(&mut self) -> Step {
        let step = self.inner.poll();
        self.note(step)
    }
}

/// Whether some server keeps accounts.
fn accounted(told: &Told) -> bool {
    told.servers.iter().any(|server| server.accounting.is_some())
}

fn config(told: Told) -> Result<Config, String> {
    let Told { nas_identifier, nas_address, servers, timeout, tries, interim: _, dynamic } = told;
    let server = |server: crate::config::RadiusServer| {
        let tls = server
            .tls
            .map(tls)
            .transpose()
            .map_err(|why| format!("RADIUS server `{}`: {why}", server.name))?;
        let (access, accounting) = (Some(server.access), server.accounting);
        Ok::<_, String>(Server { name: server.name, access, accounting, secret: server.secret, tls })
    };
    let dynamic = dynamic.map(|dynamic| Dynamic {
        listen: dynamic.listen,
        clients: dynamic
            .clients
            .iter()
            .map(|address| DynamicClient { address: *address, secret: dynamic.secret.duplicate() })
            .collect(),
        strict: dynamic.strict,
    });
    Ok(Config {
        nas_identifier,
        nas_address,
        servers: servers.into_iter().map(server).collect::<Result<_, _>>()?,
        patience: Patience { first: timeout, tries },
        dynamic,
        journal: None,
    })
}

fn tls(told: RadiusTls) -> Result<Tls, String> {
    let roots = told.anchors.into_iter().map(|anchor| anchor.der).collect();
    let own = match &told.own {
        Some(own) => {
            let KeySource::Der(key) = &own.source else {
                return Err(format!("TLS needs a key in a file; {} is in a device", own.name));
            };
            let chain = own.certs.iter().filter_map(|cert| match cert {
                OwnCertificate::Given(cert) => Some(cert.der.clone()),
                OwnCertificate::Stored(_) => None,
            });
            Some((chain.collect(), key))
        }
        None => None,
    };
    Tls::new(roots, own, &told.name)
}

fn traffic(carried: ipc::Traffic) -> Traffic {
    let ipc::Traffic { octets_in, octets_out, packets_in, packets_out } = carried;
    Traffic { octets_in, octets_out, packets_in, packets_out }
}

fn cause(why: StopCause) -> Cause {
    match why {
        StopCause::Peer => Cause::UserRequest,
        StopCause::Silence => Cause::LostCarrier,
        StopCause::Time => Cause::SessionTimeout,
        StopCause::Order => Cause::AdminReset,
        StopCause::Shutdown => Cause::AdminReboot,
        StopCause::Replaced => Cause::Preempted,
        StopCause::Failure => Cause::NasError,
    }
}

fn lock(sessions: &Sessions) -> MutexGuard<'_, BTreeMap<IkeSaRef, Known>> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use radius::Which;

    use super::*;

    const A: IkeSaRef = IkeSaRef(7);
    const B: IkeSaRef = IkeSaRef(8);

    fn told() -> Told {
        Told {
            nas_identifier: "gw".into(),
            nas_address: None,
            servers: Vec::new(),
            timeout: Duration::from_secs(1),
            tries: 1,
            interim: None,
            dynamic: None,
        }
    }

    /// Servers that are not there, and two sessions that one of them has let in.
    fn radius() -> Radius {
        sessions_in(Radius::start(told(), Doorbell::new().unwrap(), None).unwrap())
    }

    fn sessions_in(radius: Radius) -> Radius {
        for (name, user) in [(A, "alice"), (B, "bob")] {
            let session = Session {
                id: user.to_uppercase(),
                user: user.into(),
                peer: "192.0.2.7".parse().unwrap(),
                called: "gw".into(),
                addresses: Vec::new(),
                class: Vec::new(),
            };
            lock(&radius.sessions).insert(name, Known { session, interim: None, up: None });
        }
        radius
    }

    fn carried() -> ipc::Traffic {
        ipc::Traffic { octets_in: 1, ..Default::default() }
    }

    fn out_of_turn(result: Result<(), Refusal>) -> bool {
        matches!(result, Err(Refusal::OutOfTurn(_)))
    }

    fn disconnect(id: u64, which: Which) -> Demand {
        Demand { id: DemandId(id), which, what: Demanded::Disconnect }
    }

    fn user(name: &str) -> Which {
        Which { user: Some(name.into()), ..Which::default() }
    }

    #[test]
    fn only_what_a_server_let_in_is_accounted_for_and_in_its_order() {
        let mut radius = radius();
        let now = Instant::now();
        let stop = || Account::Stop(carried(), StopCause::Peer);
        assert!(out_of_turn(radius.account(now, IkeSaRef(1), Account::Start(Vec::new()))), "nobody");
        assert!(out_of_turn(radius.account(now, A, stop())), "not begun");
        assert!(out_of_turn(radius.account(now, A, Account::Interim(carried()))));
        assert!(radius.account(now, A, Account::Start(vec!["10.0.0.1".parse().unwrap(); 99])).is_ok());
        assert!(lock(&radius.sessions)[&A].session.addresses.len() <= MAX_EAP_LIST);
        assert!(out_of_turn(radius.account(now, A, Account::Start(Vec::new()))), "twice");
        assert!(out_of_turn(radius.account(now, A, Account::Interim(carried()))), "a flood of records");
        assert!(radius.account(now + SHORTEST_INTERIM, A, Account::Interim(carried())).is_ok());
        assert!(radius.account(now + SHORTEST_INTERIM, A, stop()).is_ok());
        assert!(out_of_turn(radius.account(now, A, stop())), "twice");
        // An IKE SA that is rekeyed is forgotten, and its session goes on; one that never came up is no session.
        assert!(radius.account(now, B, Account::Start(Vec::new())).is_ok());
        radius.forget(B);
        assert!(radius.account(now, B, stop()).is_ok());
        assert!(lock(&radius.sessions).is_empty());
    }

    #[test]
    fn an_order_is_handed_out_when_somebody_waits_and_done_when_he_waits_again() {
        let mut radius = radius();
        let now = Instant::now();
        radius.account(now, A, Account::Start(Vec::new())).unwrap();
        // Bob has not begun, so there is nothing to end.
        radius.take(disconnect(1, user("bob")));
        assert!(radius.orders.is_empty());
        radius.take(disconnect(2, user("alice")));
        assert_eq!(radius.orders.len(), 1);
        radius.await_order(Token(5)).unwrap();
        let (token, Reply::SessionOrder(order)) = radius.replies.pop_front().unwrap() else { panic!() };
        assert_eq!((token, order), (Token(5), SessionOrder { sessions: vec![A], what: SessionChange::End }));
        assert_eq!(radius.at_work, Some(DemandId(2)));
        radius.await_order(Token(6)).unwrap();
        assert_eq!(radius.at_work, None);
        assert!(out_of_turn(radius.await_order(Token(7))), "one at a time");
        // All of what is said has to fit.
        let both = Which { session: Some("BOB".into()), ..user("alice") };
        radius.take(disconnect(3, both));
        assert!(radius.orders.is_empty());
    }

    #[test]
    fn a_key_side_that_was_killed_leaves_its_sessions_to_the_next() {
        let folder = std::env::temp_dir().join(format!("tussock-sessions-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let journal = |whose| Some((folder.clone(), whose));
        let start = |whose| Radius::start(told(), Doorbell::new().unwrap(), journal(whose)).unwrap();
        let now = Instant::now();
        let mut first = sessions_in(start(Whose::NobodysNow));
        first.account(now, A, Account::Start(vec!["10.0.0.1".parse().unwrap()])).unwrap();
        first.account(now + SHORTEST_INTERIM, A, Account::Interim(carried())).unwrap();
        // Bob has not begun: whoever let him in knows nothing of him any more.
        drop(first);
        let mut next = start(Whose::Ours);
        assert_eq!(lock(&next.sessions).keys().copied().collect::<Vec<_>>(), [A]);
        {
            let sessions = lock(&next.sessions);
            let known = &sessions[&A];
            assert_eq!((known.session.id.as_str(), known.session.user.as_str()), ("ALICE", "alice"));
            assert_eq!(known.up.unwrap().traffic.octets_in, 1);
        }
        // A server's request finds it.
        next.take(disconnect(1, Which { addresses: vec!["10.0.0.1".parse().unwrap()], ..user("alice") }));
        assert_eq!(next.orders.pop_front().unwrap().1.sessions, [A]);
        // It goes on, and ends once.
        let now = Instant::now() + SHORTEST_INTERIM;
        assert!(out_of_turn(next.account(now, A, Account::Start(Vec::new()))), "it has begun");
        next.account(now, A, Account::Interim(carried())).unwrap();
        next.account(now, A, Account::Stop(carried(), StopCause::Peer)).unwrap();
        drop(next);
        assert!(lock(&start(Whose::Ours).sessions).is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn sessions_stay_whatever_becomes_of_the_servers() {
        let mut radius = radius();
        let now = Instant::now();
        radius.account(now, A, Account::Start(Vec::new())).unwrap();
        let mut other = told();
        other.interim = Some(Duration::from_secs(7));
        radius.reload(Some(other)).unwrap();
        radius.reload(None).unwrap();
        radius.take(disconnect(1, user("alice")));
        assert_eq!(radius.orders.len(), 1);
        radius.reload(Some(told())).unwrap();
        radius.account(now, A, Account::Stop(carried(), StopCause::Peer)).unwrap();
    }
}
