//! What a device shares with its queues: handles, resets, health, and what is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spi::stats::{Histogram, QueueStats};
use spi::{Doorbell, Fault, KeyId, SaId};

use crate::keys::SigningKey;
use crate::probe::Found;
use crate::sa::Sa;
use crate::sys::context::Context;
use spi::table::Table;

/// SAs at one time.
pub(crate) const MAX_SAS: usize = 1 << 16;
/// Long-term keys at one time.
const MAX_KEYS: usize = 1 << 12;

/// So many resets of its own within this time are one too many: the device has failed.
const RESETS: usize = 4;
const WITHIN: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) found: Found,
    /// Jobs that one queue may have paused, and for how long.
    pub(crate) jobs: usize,
    pub(crate) patience: Duration,
    pub(crate) counters: Counters,
    tables: Mutex<Tables>,
    /// Resets so far.
    resets: AtomicU64,
    failed: AtomicBool,
    own_resets: Mutex<Vec<Instant>>,
    queues: Mutex<Vec<Arc<Gauge>>>,
}

struct Tables {
    sas: Table<Sa>,
    keys: Table<SigningKey>,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct Counters {
    /// Jobs that were paused.
    pub(crate) paused: AtomicU64,
    /// The most that were paused at one time in one queue.
    pub(crate) most_paused: AtomicU64,
    /// Jobs that were aborted while they were paused.
    pub(crate) abandoned: AtomicU64,
    /// Jobs that were paused too long.
    pub(crate) overdue: AtomicU64,
    /// Packets and operations that the provider could not do.
    pub(crate) refused: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// An open queue, as it is seen from outside.
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) bell: Doorbell,
    pub(crate) in_flight: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) latency: Histogram,
}

impl Shared {
    pub(crate) fn new(context: Arc<Context>, found: Found, jobs: usize, patience: Duration) -> Self {
        Shared {
            context,
            found,
            jobs,
            patience,
            counters: Counters::default(),
            tables: Mutex::new(Tables { sas: Table::new(MAX_SAS), keys: Table::new(MAX_KEYS) }),
            resets: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            own_resets: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    /// Throws away all that is out and all that was installed, and gives it another chance.
    pub(crate) fn reset(&self) {
        self.failed.store(crate::pump::too_many_left().is_some(), Ordering::Release);
        self.forget();
    }

    /// A job does not come back. That is a reset; too many of them are the end.
    pub(crate) fn fell_ill(&self) {
        let now = Instant::now();
        let too_often = {
            let mut list = lock(&self.own_resets);
            list.retain(|at| now.duration_since(*at) < WITHIN);
            list.push(now);
            list.len() >= RESETS
        };
        if too_often || crate::pump::too_many_left().is_some() {
            self.failed.store(true, Ordering::Release);
        }
        self.forget();
    }

    fn forget(&self) {
        let mut tables = lock(&self.tables);
        // First the number: what is out must come back as aborted, not as stale.
        self.resets.fetch_add(1, Ordering::AcqRel);
        tables.sas.clear();
        tables.keys.clear();
        drop(tables);
        for queue in lock(&self.queues).iter() {
            queue.bell.ring();
        }
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn insert_sa(&self, sa: Sa) -> Result<SaId, Fault> {
        let (index, epoch) = lock(&self.tables).sas.insert(Arc::new(sa))?;
        Ok(SaId { index, epoch })
    }

    pub(crate) fn find_sa(&self, id: SaId) -> Option<Arc<Sa>> {
        lock(&self.tables).sas.find(id.index, id.epoch).cloned()
    }

    pub(crate) fn remove_sa(&self, id: SaId) {
        lock(&self.tables).sas.remove(id.index, id.epoch);
    }

    pub(crate) fn insert_key(&self, key: SigningKey) -> Result<KeyId, Fault> {
        let (index, epoch) = lock(&self.tables).keys.insert(Arc::new(key))?;
        Ok(KeyId { index, epoch })
    }

    pub(crate) fn find_key(&self, id: KeyId) -> Option<Arc<SigningKey>> {
        lock(&self.tables).keys.find(id.index, id.epoch).cloned()
    }

    pub(crate) fn remove_key(&self, id: KeyId) {
        lock(&self.tables).keys.remove(id.index, id.epoch);
    }

    /// A queue that opens: it is rung at resets, and shown.
    pub(crate) fn enter(&self, name: &'static str) -> Option<Arc<Gauge>> {
        let gauge = Arc::new(Gauge {
            name,
            bell: Doorbell::between_threads().ok()?,
            in_flight: AtomicU64::new(0),
            done: AtomicU64::new(0),
            latency: Histogram::new(),
        });
        lock(&self.queues).push(Arc::clone(&gauge));
        Some(gauge)
    }

    /// And one that closes.
    pub(crate) fn leave(&self, gauge: &Arc<Gauge>) {
        lock(&self.queues).retain(|other| !Arc::ptr_eq(other, gauge));
    }

    pub(crate) fn queue_stats(&self) -> Vec<QueueStats> {
        let stats = |(number, gauge): (usize, &Arc<Gauge>)| QueueStats {
            name: format!("{} {number}", gauge.name),
            in_flight: gauge.in_flight.load(Ordering::Relaxed) as usize,
            done: gauge.done.load(Ordering::Relaxed),
            latency: gauge.latency.latency(),
        };
        lock(&self.queues).iter().enumerate().map(stats).collect()
    }
}

/// What is behind these locks changes in single steps: a thread that panicked elsewhere has left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
