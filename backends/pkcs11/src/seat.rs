//! A seat: one session on a token, and what is known in it. When the session or the token is lost the work is done again, once, in a
//! session that is opened and logged in anew; what was known of objects is looked up again then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptoki::mechanism::MechanismType;
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use spi::{FaultKind, Group, KeyId, Outcome, SignScheme};

use crate::find;
use crate::public::Kind;
use crate::token::Token;
use crate::trouble::{Failure, Trouble, What, is_lost, name};
use crate::uri::Uri;
use spi::table::Table;

/// Long-term keys that are open at one time.
const MAX_KEYS: usize = 1024;
/// Private halves of key exchanges that wait for the peer. An exchange that is given up leaves one behind; the oldest goes first.
const MAX_EPHEMERALS: usize = 512;

/// A long-term key that was opened.
pub(crate) struct Key {
    pub(crate) uri: Uri,
    pub(crate) kind: Kind,
    pub(crate) spki: Vec<u8>,
    pub(crate) schemes: Vec<SignScheme>,
    /// What it may be used with.
    pub(crate) mechanisms: Vec<MechanismType>,
}

/// The private half of a key exchange.
#[derive(Clone, Copy)]
pub(crate) struct Ephemeral {
    pub(crate) object: ObjectHandle,
    pub(crate) group: Group,
    /// The session that made it, with which it goes.
    session: u64,
}

/// What all seats of a device share.
pub(crate) struct Shared {
    pub(crate) token: Token,
    keys: Mutex<Table<Key>>,
    ephemerals: Mutex<Ephemerals>,
    /// Resets so far. What began before one comes back as aborted, and no session outlives one.
    pub(crate) resets: AtomicU64,
    /// Sessions ever opened, for their numbers.
    sessions: AtomicU64,
    /// Whether the token was not there when it was last looked for.
    pub(crate) missing: AtomicBool,
    /// The last trouble of each kind, for whoever has the fault and asks.
    told: Mutex<HashMap<u32, String>>,
    pub(crate) counters: Counters,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) signatures: AtomicU64,
    pub(crate) pairs: AtomicU64,
    pub(crate) secrets: AtomicU64,
    pub(crate) random: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) lost: AtomicU64,
}

struct Ephemerals {
    table: Table<Ephemeral>,
    order: VecDeque<(u32, u32)>,
    alive: HashSet<u64>,
}

impl Shared {
    pub(crate) fn new(token: Token) -> Shared {
        Shared {
            token,
            keys: Mutex::new(Table::new(MAX_KEYS)),
            ephemerals: Mutex::new(Ephemerals {
                table: Table::new(MAX_EPHEMERALS + 1),
                order: VecDeque::new(),
                alive: HashSet::new(),
            }),
            resets: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            missing: AtomicBool::new(false),
            told: Mutex::default(),
            counters: Counters::default(),
        }
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, Table<Key>> {
        // Tables change in single steps: a thread that panicked elsewhere has left none half done.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ephemerals(&self) -> MutexGuard<'_, Ephemerals> {
        self.ephemerals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The private half behind a handle, once: it is used for one secret.
    pub(crate) fn take_ephemeral(&self, id: KeyId) -> Option<Ephemeral> {
        let mut all = self.ephemerals();
        let found = **all.table.find(id.index, id.epoch)?;
        all.table.remove(id.index, id.epoch);
        all.order.retain(|place| *place != (id.index, id.epoch));
        all.alive.contains(&found.session).then_some(found)
    }

    /// No session, key or private half of before means anything any more.
    pub(crate) fn reset(&self) {
        // First the number: what is out must come back as aborted, not as stale.
        self.resets.fetch_add(1, Ordering::AcqRel);
        self.keys().clear();
        self.forget_ephemerals();
    }

    fn forget_ephemerals(&self) {
        let mut all = self.ephemerals();
        all.table.clear();
        all.order.clear();
        all.alive.clear();
    }

    /// Remembers what is wrong, for people, and makes of it what programs get.
    pub(crate) fn fault(&self, trouble: &Trouble) -> spi::Fault {
        let fault = trouble.fault();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(fault.vendor, trouble.text.clone());
        fault
    }

    /// What was said of such a fault last.
    pub(crate) fn told(&self, fault: spi::Fault) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get(&fault.vendor).cloned()
    }

    /// Notes whether the token is there; says so when that changes.
    fn note(&self, trouble: Option<&Trouble>) {
        let missing = trouble.is_some_and(|trouble| trouble.what == What::NoToken);
        if trouble.is_some() && !missing {
            return;
        }
        let accel = &self.token.site.name;
        match (self.missing.swap(missing, Ordering::AcqRel), trouble) {
            (false, Some(trouble)) => tracing::warn!(accel = %accel, "the token is gone: {trouble}"),
            (true, None) => tracing::info!(accel = %accel, "the token is back"),
            _ => {}
        }
    }
}

/// A session, and what is known in it.
pub(crate) struct Open {
    pub(crate) session: Session,
    pub(crate) mechanisms: Vec<MechanismType>,
    keys: HashMap<KeyId, ObjectHandle>,
    number: u64,
    resets: u64,
}

impl Open {
    /// The handle of a key in this session. It has to be the key that was opened: another one under its name is not used.
    pub(crate) fn key(&mut self, id: KeyId, key: &Key) -> Result<ObjectHandle, Failure> {
        if let Some(handle) = self.keys.get(&id) {
            return Ok(*handle);
        }
        let found = find::signing_key(&self.session, &key.uri)?;
        if found.spki != key.spki {
            let text =
                format!("{} is another key than before; reload the configuration if that is right", key.uri);
            return Err(Trouble::new(What::Unfit, text).into());
        }
        if self.keys.len() >= MAX_KEYS {
            self.keys.clear();
        }
        self.keys.insert(id, found.handle);
        Ok(found.handle)
    }
}

/// A place for one session, opened when it is needed.
pub(crate) struct Seat {
    pub(crate) shared: Arc<Shared>,
    open: Option<Open>,
}

impl Seat {
    pub(crate) fn new(shared: Arc<Shared>) -> Seat {
        Seat { shared, open: None }
    }

    /// Does a piece of work; once more if the session was lost under it.
    pub(crate) fn run<T>(
        &mut self,
        mut work: impl FnMut(&mut Open) -> Result<T, Failure>,
    ) -> Result<T, Outcome> {
        let mut tries = 2;
        loop {
            tries -= 1;
            let result = match self.open() {
                Ok(open) => work(open),
                Err(trouble) => Err(Failure::Trouble(trouble)),
            };
            let trouble = match result {
                Ok(done) => return Ok(done),
                Err(Failure::Reject(reject)) => return Err(Outcome::Rejected(reject)),
                Err(Failure::Stale) => return Err(Outcome::Failed(FaultKind::StaleHandle.into())),
                Err(Failure::Trouble(trouble)) => trouble,
                Err(Failure::Token(error)) => {
                    if is_lost(&error) {
                        self.lose(&name(&error));
                        if tries > 0 {
                            continue;
                        }
                    }
                    self.shared.token.said(&error)
                }
            };
            self.shared.note(Some(&trouble));
            self.shared.counters.failed.fetch_add(1, Ordering::Relaxed);
            return Err(Outcome::Failed(self.shared.fault(&trouble)));
        }
    }

    /// Keeps a private half until the peer has answered; what has to make room for it goes.
    pub(crate) fn keep(&mut self, object: ObjectHandle, group: Group) -> Result<KeyId, Failure> {
        let Some(open) = &self.open else { return Err(Failure::Stale) };
        let mut all = self.shared.ephemerals();
        let place = all.table.insert(Arc::new(Ephemeral { object, group, session: open.number }));
        let Ok((index, epoch)) = place else { return Err(Failure::Stale) };
        all.order.push_back((index, epoch));
        if all.order.len() > MAX_EPHEMERALS
            && let Some((index, epoch)) = all.order.pop_front()
        {
            let oldest = all.table.find(index, epoch).map(|oldest| **oldest);
            all.table.remove(index, epoch);
            if let Some(oldest) = oldest
                && all.alive.contains(&oldest.session)
            {
                let _ = open.session.destroy_object(oldest.object);
            }
        }
        Ok(KeyId { index, epoch })
    }

    fn open(&mut self) -> Result<&mut Open, Trouble> {
        let resets = self.shared.resets.load(Ordering::Acquire);
        if self.open.as_ref().is_some_and(|open| open.resets != resets) {
            self.close();
        }
        if self.open.is_none() {
            let mechanisms = self.shared.token.mechanisms()?;
            let (_, session) = self.shared.token.session(false)?;
            let number = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
            self.shared.ephemerals().alive.insert(number);
            self.shared.note(None);
            self.open = Some(Open { session, mechanisms, keys: HashMap::new(), number, resets });
        }
        self.open.as_mut().ok_or_else(|| Trouble::new(What::Nonsense, "no session"))
    }

    fn lose(&mut self, why: &str) {
        tracing::info!(accel = %self.shared.token.site.name, "a session was lost ({why}); it is opened anew");
        self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
        // Whatever took this session may have taken all, and then handles of objects mean something else.
        self.shared.forget_ephemerals();
        self.close();
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.shared.ephemerals().alive.remove(&open.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
    }
}
