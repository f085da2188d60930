//! What an open device keeps besides its queues, and what a reset does to it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use spi::{Health, Region};

use super::eal;
use super::sa::Sa;
use super::sys::Engine;
use crate::counters::Count;
use crate::gate::{Gate, Phase};
use crate::keys::PrivateKey;
use crate::view::View;
use spi::table::Table;

/// Private keys that may be open.
const MAX_KEYS: usize = 64;

macro_rules! counters {
    ($($name:ident $text:literal;)*) => {
        /// What a device counts, from its opening on.
        #[derive(Default)]
        pub(super) struct Counters { $(pub(super) $name: Count,)* }

        impl Counters {
            /// All of them, by name.
            pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name.value())),*]
            }
        }
    };
}

counters! {
    packets "packets";
    operations "operations";
    bad_icv "bad-icv";
    errors "device-errors";
    // Times the device took less than it was given.
    full "full";
    // Results that were checked and found wrong.
    wrong "wrong-results";
    aborted "aborted";
    resets "resets";
    // Queues that went while the device had something of theirs, which is kept until it has been halted.
    orphans "orphans";
}

/// One device, or two that are one card.
pub(super) struct Life {
    /// The operator's name for it.
    pub(super) name: String,
    pub(super) packets: Option<Arc<Engine>>,
    pub(super) numbers: Option<Arc<Engine>>,
    pub(super) gate: Gate,
    pub(super) counters: Counters,
    sas: Mutex<Table<Sa>>,
    keys: Mutex<Table<PrivateKey>>,
    views: Mutex<Vec<std::sync::Weak<View>>>,
    /// It did not start again.
    failed: AtomicBool,
    orphans: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Memory a card reaches.
    reach: RwLock<Vec<Arc<Region>>>,
}

impl Life {
    pub(super) fn new(
        name: &str,
        packets: Option<Arc<Engine>>,
        numbers: Option<Arc<Engine>>,
        max_sas: usize,
    ) -> Life {
        let life = Life {
            name: name.to_owned(),
            packets,
            numbers,
            gate: Gate::new(),
            counters: Counters::default(),
            sas: Mutex::new(Table::new(max_sas)),
            keys: Mutex::new(Table::new(MAX_KEYS)),
            views: Mutex::default(),
            failed: AtomicBool::new(false),
            orphans: Mutex::default(),
            reach: RwLock::default(),
        };
        life.gate.open();
        life
    }

    pub(super) fn sas(&self) -> MutexGuard<'_, Table<Sa>> {
        self.sas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Table<PrivateKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_view(&self, name: String) -> Arc<View> {
        let view = Arc::new(View::new(name));
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(&view));
        view
    }

    pub(super) fn views(&self) -> Vec<Arc<View>> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    pub(super) fn health(&self) -> Health {
        match self.gate.look().1 {
            Phase::Open => Health::Ready,
            _ if self.failed.load(Ordering::Acquire) => Health::Failed,
            _ => Health::Resetting,
        }
    }

    /// Keeps what belongs to a request that is still with the device, until the device is halted.
    pub(super) fn adopt(&self, orphan: Box<dyn Any + Send>) {
        self.counters.orphans.add(1);
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(orphan);
    }

    fn engines(&self) -> impl Iterator<Item = &Arc<Engine>> {
        let same =
            |engine: &&Arc<Engine>| self.packets.as_ref().is_none_or(|other| !Arc::ptr_eq(engine, other));
        self.packets.iter().chain(self.numbers.iter().filter(same))
    }

    /// Begins a reset and returns.
    pub(super) fn begin_reset(self: &Arc<Self>) {
        let again = self.failed.swap(false, Ordering::AcqRel);
        if !self.gate.close() && !again {
            // One is under way.
            return;
        }
        let life = Arc::clone(self);
        eal::run(move || life.reset());
    }

    fn reset(&self) {
        self.halt();
        let retired = self.sas().clear();
        retired.iter().for_each(|sa| sa.retire());
        self.keys().clear();
        drop(retired);
        self.counters.resets.add(1);
        for engine in self.engines() {
            if let Err(error) = engine.revive() {
                let why = eal::said("it does not start again", error);
                tracing::warn!(device = %self.name, why, "dpdk: a reset failed");
                self.failed.store(true, Ordering::Release);
                return;
            }
        }
        self.gate.open();
    }

    /// Nothing of ours is reached by the device any more.
    fn halt(&self) {
        self.engines().for_each(|engine| engine.halt());
        self.gate.quiet();
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes memory reachable, where the device has to reach it by itself.
    pub(super) fn register(&self, region: &Arc<Region>) -> Result<(), i32> {
        let Some(engine) = self.packets.as_ref().filter(|engine| engine.info().hardware) else {
            return Ok(());
        };
        let mut reach = self.reach.write().unwrap_or_else(PoisonError::into_inner);
        if reach.iter().any(|known| Arc::ptr_eq(known, region)) {
            return Ok(());
        }
        engine.map(region.address(), region.len(), region.page_len())?;
        reach.push(Arc::clone(region));
        Ok(())
    }

    /// Whether the device reaches a buffer.
    pub(super) fn reaches(&self, at: usize, len: usize) -> bool {
        if self.packets.as_ref().is_none_or(|engine| !engine.info().hardware) {
            return true;
        }
        let reach = self.reach.read().unwrap_or_else(PoisonError::into_inner);
        let within =
            |region: &Arc<Region>| at >= region.address() && at + len <= region.address() + region.len();
        reach.iter().any(within)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let orphans = std::mem::take(self.orphans.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !orphans.is_empty() {
            self.engines().for_each(|engine| engine.halt());
        }
        drop(orphans);
        if let Some(engine) = &self.packets {
            let reach = self.reach.get_mut().unwrap_or_else(PoisonError::into_inner);
            reach.iter().for_each(|region| engine.unmap(region.address(), region.len()));
        }
    }
}
