//! RADIUS servers: conversations that go through them, what is told of sessions, and what they want done to sessions.
//!
//! A session is what a server let in. It is named by the IKE SA that it began with, also after that was rekeyed; who it is, its
//! Class and its times are kept here, so that the network side can say what a session has carried and when it is over, and
//! nothing else about it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use eap::{Conversation, Step};
use ipc::{
    Account, IkeSaRef, MAX_EAP_LIST, MAX_ORDERED, Refusal, Reply, SessionChange, SessionOrder, StopCause,
};
use radius::{
    Cause, Client, Config, Demand, DemandId, Demanded, Details, Dynamic, DynamicClient, ErrorCause,
    Passthrough, Patience, Running, Server, Session, Tls, Traffic, Verdict, What,
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
    /// Since when it is up.
    began: Option<Instant>,
    /// When it was accounted for last.
    accounted: Instant,
}

impl Radius {
    /// Starts the client. `bell` is rung when a conversation can go on, or when [`Radius::poll`] has something to do.
    ///
    /// # Errors
    /// No thread, no socket, or certificates that do not fit.
    pub(crate) fn start(told: Told, bell: Doorbell) -> Result<Radius, String> {
        let (interim, accounted) =
            (told.interim, told.servers.iter().any(|server| server.accounting.is_some()));
        let running = Running::start(config(told)?, bell).map_err(|error| error.to_string())?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let sessions = Sessions::default();
        let (client, known) = (running.client.clone(), Arc::clone(&sessions));
        let opens = Arc::new(Through { client, sessions: known, since, accounted, interim });
        Ok(Radius {
            running: Some(running),
            sessions,
            opens,
            waiting: None,
            orders: VecDeque::new(),
            at_work: None,
            replies: VecDeque::new(),
        })
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
        let (session, what) = match (what, known.began) {
            (Account::Start(addresses), None) => {
                known.began = Some(now);
                known.accounted = now;
                known.session.addresses = addresses.into_iter().take(MAX_EAP_LIST).collect();
                (known.session.clone(), What::Start)
            }
            (Account::Start(_), Some(_)) => return refused("a session begins once"),
            (Account::Interim(_) | Account::Stop(..), None) => return refused("the session has not begun"),
            (Account::Interim(_), Some(_)) if now < known.accounted + SHORTEST_INTERIM => {
                return refused("too soon after the last record");
            }
            (Account::Interim(carried), Some(began)) => {
                known.accounted = now;
                (known.session.clone(), What::Interim { traffic: traffic(carried), time: now - began })
            }
            (Account::Stop(carried, why), Some(began)) => {
                let what = What::Stop { traffic: traffic(carried), time: now - began, cause: cause(why) };
                let session = known.session.clone();
                sessions.remove(&name);
                (session, what)
            }
        };
        drop(sessions);
        match self.running.as_ref().map(|running| running.client.account(session, what)) {
            Some(Ok(())) => Ok(()),
            _ => Err(Refusal::System("a record for RADIUS accounting was lost".into())),
        }
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
        if sessions.get(&sa).is_some_and(|known| known.began.is_none()) {
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
            let fits = known.began.is_some()
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
        tracing::info!(?which, ?what, sessions = names.len(), "a RADIUS server wants a session changed");
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
        // The network side has gone without a word about these.
        for known in sessions.into_values() {
            if let Some(began) = known.began {
                let (traffic, time) = (Traffic::default(), now - began);
                let _ = running
                    .client
                    .account(known.session, What::Stop { traffic, time, cause: Cause::NasError });
            }
        }
        let lost = running.finish(LAST_WORDS);
        if lost > 0 {
            tracing::warn!(lost, "records for RADIUS accounting that no server has taken");
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
            let known =
                Known { session: self.session.clone(), interim, began: None, accounted: Instant::now() };
            sessions.insert(self.name, known);
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

    /// Servers that are not there, and two sessions that one of them has let in.
    fn radius() -> Radius {
        let told = Told {
            nas_identifier: "gw".into(),
            nas_address: None,
            servers: Vec::new(),
            timeout: Duration::from_secs(1),
            tries: 1,
            interim: None,
            dynamic: None,
        };
        let radius = Radius::start(told, Doorbell::new().unwrap()).unwrap();
        for (name, user) in [(A, "alice"), (B, "bob")] {
            let session = Session {
                id: user.to_uppercase(),
                user: user.into(),
                peer: "192.0.2.7".parse().unwrap(),
                called: "gw".into(),
                addresses: Vec::new(),
                class: Vec::new(),
            };
            let known = Known { session, interim: None, began: None, accounted: Instant::now() };
            lock(&radius.sessions).insert(name, known);
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
}
