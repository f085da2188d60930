//! `Device`: the units of a processor, ready as long as it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spi::crypto::{KeyInfo, KeySource};
use spi::table::Table;
use spi::{
    CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, QueueConfig, SaId, SaParams,
    Stats,
};

use crate::blocks::Work;
use crate::caps;
use crate::detect::Units;
use crate::drbg::Entropy;
use crate::esp::Sa;
use crate::ring;

/// The open device.
pub(crate) struct PadlockDevice {
    desc: DeviceDesc,
    identity: String,
    shared: Arc<Shared>,
}

impl PadlockDevice {
    pub(crate) fn new(desc: DeviceDesc, identity: String, units: Units) -> Self {
        let shared = Shared {
            units,
            entropy: Entropy::new(units.contains(Units::RNG)),
            resets: AtomicU64::new(0),
            sas: Mutex::new(Table::new(caps::MAX_SAS)),
        };
        PadlockDevice { desc, identity, shared: Arc::new(shared) }
    }
}

impl Device for PadlockDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        ring::packets(&self.shared, config.depth.clamp(1, caps::RING))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        if !self.shared.units.intersects(Units::RNG | Units::PMM) {
            return None;
        }
        ring::operations(&self.shared, config.depth.clamp(1, caps::RING))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        let sa = Sa::new(sa, self.shared.units, &mut Work::new())?;
        let (index, epoch) = self.shared.sas().insert(Arc::new(sa))?;
        Ok(SaId { index, epoch })
    }

    fn remove_sa(&self, sa: SaId) {
        self.shared.sas().remove(sa.index, sa.epoch);
    }

    fn open_key(&self, _: KeySource) -> Result<KeyInfo, Fault> {
        Err(FaultKind::Unsupported.into())
    }

    fn close_key(&self, _: KeyId) {}

    fn stats(&self) -> Option<Stats> {
        let counts = &self.shared.entropy.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(Stats {
            identity: self.identity.clone(),
            queues: Vec::new(),
            resets: self.shared.resets(),
            counters: vec![
                ("rng_octets", read(&counts.octets)),
                ("rng_not_ready", read(&counts.waits)),
                ("rng_alarms", read(&counts.alarms)),
            ],
        })
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn begin_reset(&self) {
        let mut sas = self.shared.sas();
        // First the stamp: what is out must come back as aborted, not as stale.
        self.shared.resets.fetch_add(1, Ordering::AcqRel);
        sas.clear();
    }
}

/// What a device shares with its rings.
pub(crate) struct Shared {
    pub(crate) units: Units,
    pub(crate) entropy: Entropy,
    resets: AtomicU64,
    sas: Mutex<Table<Sa>>,
}

impl Shared {
    /// How many resets there were.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    pub(crate) fn find(&self, id: SaId) -> Option<Arc<Sa>> {
        self.sas().find(id.index, id.epoch).cloned()
    }

    fn sas(&self) -> MutexGuard<'_, Table<Sa>> {
        // The table changes in single steps: a thread that panicked elsewhere has left none half done.
        self.sas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
