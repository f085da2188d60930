//! The client: a thread with the sockets, and handles that ask it. Handles never block and never wait.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use spi::Doorbell;

use crate::accounting::{LedgerStatus, Session, What};
use crate::attribute::{Kind, Written};
use crate::config::Config;
use crate::dynamic::{Demand, DemandId, DynamicCounters, Verdict};
use crate::engine::{Answer, Counters, Question, ServerStatus, Ticket};
use crate::thread::Io;

/// Questions and records that wait to be looked at by the thread.
const INBOX: usize = 8192;

/// Where the answer to one question is put.
pub(crate) type Slot = Arc<Mutex<Option<Answer>>>;

/// What a handle tells the thread.
pub(crate) enum Order {
    Ask(Ticket, Question, Slot),
    Forget(Ticket),
    Account(Box<Session>, What, Instant, SystemTime),
    Answer(DemandId, Verdict),
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
    /// When the thread has to be done, once it is to end.
    end: Mutex<Option<Instant>>,
    /// Wakes the thread.
    pub(crate) to_thread: Doorbell,
    /// Wakes whoever has the handles.
    to_owner: Doorbell,
    tickets: AtomicU64,
    nas: Written,
}

/// Asks, and hears what was answered. Clones ask the same thread.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The thread; dropped, it ends at once.
pub struct Running {
    /// To ask it.
    pub client: Client,
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
        let mut nas = Written::new();
        nas.text(Kind::NAS_IDENTIFIER, &config.nas_identifier);
        if let Some(address) = config.nas_address {
            nas.address(Kind::NAS_IP_ADDRESS, Kind::NAS_IPV6_ADDRESS, address);
        }
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            demands: Mutex::default(),
            status: Mutex::default(),
            end: Mutex::default(),
            to_thread: Doorbell::between_threads()?,
            to_owner: bell,
            tickets: AtomicU64::new(0),
            nas,
        });
        let io = Io::new(config, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("radius".into()).spawn(move || io.run())?;
        Ok(Running { client: Client { shared }, thread: Some(thread) })
    }

    /// Ends the thread when the last record is with a server, or after `limit`. Returns how many were lost.
    pub fn finish(mut self, limit: Duration) -> usize {
        self.end(Instant::now() + limit);
        self.client.status().ledger.waiting
    }

    fn end(&mut self, at: Instant) {
        *lock(&self.client.shared.end) = Some(at);
        self.client.shared.to_thread.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Instant::now());
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
    pub(crate) fn nas(&self) -> &Written {
        &self.shared.nas
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

    pub(crate) fn end(&self) -> Option<Instant> {
        *lock(&self.end)
    }

    pub(crate) fn nas(&self) -> &Written {
        &self.nas
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
