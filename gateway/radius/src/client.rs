//! The client: a thread with the sockets, and handles that ask it. Handles never block and never wait.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use spi::Doorbell;

use crate::accounting::{Known, LedgerStatus, Session, What};
use crate::attribute::{Kind, Written};
use crate::config::Config;
use crate::dynamic::{Demand, DemandId, DynamicCounters, Verdict};
use crate::engine::{Answer, Counters, Question, ServerStatus, Ticket};
use crate::thread::{Io, listen};

/// Questions and records that wait to be looked at by the thread.
const INBOX: usize = 8192;
/// The same with what is said of sessions: more than there may be of those.
const FULL: usize = 1 << 18;

/// Where the answer to one question is put.
pub(crate) type Slot = Arc<Mutex<Option<Answer>>>;

/// What a handle tells the thread.
pub(crate) enum Order {
    Ask(Ticket, Question, Slot),
    Forget(Ticket),
    Account(Box<Session>, What, Instant, SystemTime),
    Answer(DemandId, Verdict),
    Know(Box<Known>),
    Unknow(u64),
    Replace(Box<Config>, Listen),
}

/// What becomes of the socket for requests to us.
pub(crate) enum Listen {
    /// It stays.
    Same,
    /// This one takes its place.
    At(UdpSocket),
    /// There is none.
    Nowhere,
}

/// How the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Servers for authentication.
    pub access: Vec<ServerStatus>,
    /// What that was.
    pub access_counters: Counters,
    /// Servers for accounting.
    pub accounting: Vec<ServerStatus>,
    /// What that was.
    pub accounting_counters: Counters,
    /// Records.
    pub ledger: LedgerStatus,
    /// Requests that came to us.
    pub dynamic: DynamicCounters,
}

/// What the thread and the handles have in common.
pub(crate) struct Shared {
    orders: Mutex<VecDeque<Order>>,
    demands: Mutex<VecDeque<Demand>>,
    status: Mutex<Status>,
    /// When the thread has to be done, once it is to end; and whether the gateway ends with it.
    end: Mutex<Option<(Instant, bool)>>,
    /// Wakes the thread.
    pub(crate) to_thread: Doorbell,
    /// Wakes whoever has the handles.
    to_owner: Doorbell,
    tickets: AtomicU64,
    nas: Mutex<Arc<Written>>,
}

/// Asks, and hears what was answered. Clones ask the same thread.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The thread; dropped, it ends at once, and says nothing to servers: what is written down is for the next one.
pub struct Running {
    /// To ask it.
    pub client: Client,
    /// Sessions that were written down, of a gateway that still has them.
    pub known: Vec<Known>,
    listens: Option<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

/// A question that is out. Dropped, nobody waits for the answer any more.
pub struct Waiting {
    ticket: Ticket,
    slot: Slot,
    client: Client,
    taken: bool,
}

/// Too much is out already, or the thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many questions wait already")]
pub struct Full;

impl Running {
    /// Starts the thread. `bell` rings when [`Waiting::take`] or [`Client::poll_demand`] has something.
    ///
    /// # Errors
    /// No thread, no file descriptor, or the address for requests to us cannot be had.
    pub fn start(config: Config, bell: Doorbell) -> io::Result<Running> {
        let listens = config.dynamic.as_ref().map(|dynamic| dynamic.listen);
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            demands: Mutex::default(),
            status: Mutex::default(),
            end: Mutex::default(),
            to_thread: Doorbell::between_threads()?,
            to_owner: bell,
            tickets: AtomicU64::new(0),
            nas: Mutex::new(nas(&config)),
        });
        let (io, known) = Io::new(config, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("radius".into()).spawn(move || io.run())?;
        Ok(Running { client: Client { shared }, known, listens, thread: Some(thread) })
    }

    /// Puts other servers in the place of these, and others who may have sessions ended. Servers that stay as they are keep their
    /// questions; sessions and records stay.
    ///
    /// # Errors
    /// The address for requests to us cannot be had: there are none then. All else is as it should be.
    pub fn reload(&mut self, config: Config) -> io::Result<()> {
        let wanted = config.dynamic.as_ref().map(|dynamic| dynamic.listen);
        let (socket, result) = match wanted {
            Some(at) if self.listens == wanted => (Listen::Same, Ok(Some(at))),
            Some(at) => match listen(at) {
                Ok(socket) => (Listen::At(socket), Ok(Some(at))),
                Err(error) => (Listen::Nowhere, Err(error)),
            },
            None => (Listen::Nowhere, Ok(None)),
        };
        self.listens = result.as_ref().ok().copied().flatten();
        *lock(&self.client.shared.nas) = nas(&config);
        self.client.urge(Order::Replace(Box::new(config), socket));
        result.map(drop)
    }

    /// The gateway ends: ends the thread when servers know that and have the last record, or after `limit`. Returns how many records no
    /// server has.
    pub fn finish(mut self, limit: Duration) -> usize {
        self.end(Instant::now() + limit, true);
        self.client.status().ledger.waiting
    }

    fn end(&mut self, at: Instant, for_good: bool) {
        *lock(&self.client.shared.end) = Some((at, for_good));
        self.client.shared.to_thread.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Instant::now(), false);
    }
}

impl Client {
    /// Asks.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn ask(&self, question: Question) -> Result<Waiting, Full> {
        let ticket = Ticket(self.shared.tickets.fetch_add(1, Ordering::Relaxed));
        let slot = Slot::default();
        self.order(Order::Ask(ticket, question, Arc::clone(&slot)))?;
        Ok(Waiting { ticket, slot, client: self.clone(), taken: false })
    }

    /// Writes down what happened to a session just now. Kept until a server has it.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn account(&self, session: Session, what: What) -> Result<(), Full> {
        self.order(Order::Account(Box::new(session), what, Instant::now(), SystemTime::now()))
    }

    /// A session is up, or has carried more; it is written down for a process that comes after this one.
    pub fn know(&self, known: Known) {
        self.urge(Order::Know(Box::new(known)));
    }

    /// A session is over.
    pub fn unknow(&self, name: u64) {
        self.urge(Order::Unknow(name));
    }

    /// Something that a server wants done, if there is something.
    pub fn poll_demand(&self) -> Option<Demand> {
        lock(&self.shared.demands).pop_front()
    }

    /// What came of it.
    ///
    /// # Errors
    /// There is no room for it; the server will be told that it was not done.
    pub fn answer(&self, id: DemandId, verdict: Verdict) -> Result<(), Full> {
        self.order(Order::Answer(id, verdict))
    }

    /// How it is, a moment ago.
    pub fn status(&self) -> Status {
        lock(&self.shared.status).clone()
    }

    /// What we are called, as attributes.
    pub(crate) fn nas(&self) -> Arc<Written> {
        self.shared.nas()
    }

    /// Tells what has no room of its own. A thread that is so far behind has a disk that does not answer.
    fn urge(&self, order: Order) {
        let mut orders = lock(&self.shared.orders);
        if orders.len() < FULL || matches!(order, Order::Replace(..)) {
            orders.push_back(order);
        }
        drop(orders);
        self.shared.to_thread.ring();
    }

    fn order(&self, order: Order) -> Result<(), Full> {
        let mut orders = lock(&self.shared.orders);
        // Forgetting makes room, so it is never refused; there are no more of them than of questions.
        if orders.len() >= INBOX && !matches!(order, Order::Forget(_)) {
            return Err(Full);
        }
        orders.push_back(order);
        drop(orders);
        self.shared.to_thread.ring();
        Ok(())
    }
}

impl Waiting {
    /// The answer, once, when it is there.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = lock(&self.slot).take();
        self.taken |= answer.is_some();
        answer
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.taken {
            let _ = self.client.order(Order::Forget(self.ticket));
        }
    }
}

impl Shared {
    pub(crate) fn take_orders(&self) -> VecDeque<Order> {
        std::mem::take(&mut *lock(&self.orders))
    }

    pub(crate) fn end(&self) -> Option<(Instant, bool)> {
        *lock(&self.end)
    }

    pub(crate) fn nas(&self) -> Arc<Written> {
        Arc::clone(&lock(&self.nas))
    }

    pub(crate) fn give(&self, slot: &Slot, answer: Answer) {
        *lock(slot) = Some(answer);
        self.to_owner.ring();
    }

    pub(crate) fn demand(&self, demand: Demand) {
        lock(&self.demands).push_back(demand);
        self.to_owner.ring();
    }

    pub(crate) fn show(&self, status: Status) {
        *lock(&self.status) = status;
    }
}

fn nas(config: &Config) -> Arc<Written> {
    let mut nas = Written::new();
    nas.text(Kind::NAS_IDENTIFIER, &config.nas_identifier);
    if let Some(address) = config.nas_address {
        nas.address(Kind::NAS_IP_ADDRESS, Kind::NAS_IPV6_ADDRESS, address);
    }
    Arc::new(nas)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
