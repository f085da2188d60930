//! `Driver` and `Device`: one device, always ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spi::crypto::{KeyInfo, KeySource};
use spi::{
    CryptoQueue, Device, DeviceDesc, Driver, EngineReport, EspQueue, Fault, FaultKind, Health, KeyId,
    QueueConfig, SaId, SaParams, ShortOps,
};

use crate::caps;
use crate::choose::{self, EngineChoice};
use crate::esp::{self, Run};
use crate::ring;
use crate::short::Short;
use crate::sign::SigningKey;
use crate::stamped::Resets;
use spi::table::Table;

const ID: &str = "soft";

/// The driver of the software backend. There is one device, and it is always found.
#[derive(Clone, Copy, Debug)]
pub struct Soft {
    helpers: usize,
    engines: EngineChoice,
}

impl Soft {
    /// `helpers` threads, at least one, for the operations of each crypto queue. Packets need none.
    pub fn new(helpers: usize) -> Self {
        Soft { helpers: helpers.max(1), engines: EngineChoice::Auto }
    }

    /// With these engines for packets.
    pub fn with_engines(self, engines: EngineChoice) -> Self {
        Soft { engines, ..self }
    }

    /// Opens the one device directly. Every call makes a device of its own, with its own tables.
    pub fn device(&self) -> Arc<SoftDevice> {
        let desc = DeviceDesc { id: ID.into(), numa_node: None, caps: caps::caps() };
        Arc::new(SoftDevice { desc, soft: *self, shared: Arc::default() })
    }
}

impl Default for Soft {
    /// Two helpers: one long exponentiation does not hold up a signature.
    fn default() -> Self {
        Soft::new(2)
    }
}

impl Driver for Soft {
    fn name(&self) -> &'static str {
        ID
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        vec![DeviceDesc { id: ID.into(), numa_node: None, caps: caps::caps() }]
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        if desc.id != ID {
            return Err(FaultKind::Unsupported.into());
        }
        Ok(self.device())
    }
}

/// The open software device.
pub struct SoftDevice {
    desc: DeviceDesc,
    soft: Soft,
    shared: Arc<Shared>,
}

impl Device for SoftDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        ring::packets(&self.shared, self.depth(config))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        ring::operations(&self.shared, self.depth(config), self.soft.helpers)
    }

    fn short_ops(&self) -> Option<Arc<dyn ShortOps>> {
        Some(Arc::new(Short))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        let sa = esp::install(sa, self.soft.engines)?;
        let (index, epoch) = self.shared.tables().sas.insert(sa)?;
        Ok(SaId { index, epoch })
    }

    fn remove_sa(&self, sa: SaId) {
        self.shared.tables().sas.remove(sa.index, sa.epoch);
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Der(der) = source else { return Err(FaultKind::Unsupported.into()) };
        let key = SigningKey::from_der(&der)?;
        let (spki, schemes) = (key.spki()?, key.schemes());
        let (index, epoch) = self.shared.tables().keys.insert(Arc::new(key))?;
        Ok(KeyInfo { id: KeyId { index, epoch }, spki, schemes })
    }

    fn close_key(&self, key: KeyId) {
        self.shared.tables().keys.remove(key.index, key.epoch);
    }

    fn engines(&self) -> Vec<EngineReport> {
        choose::reports(self.soft.engines)
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn begin_reset(&self) {
        let mut tables = self.shared.tables();
        // First the stamp: what is out must come back as aborted, not as stale.
        self.shared.resets.bump();
        tables.sas.clear();
        tables.keys.clear();
    }
}

impl SoftDevice {
    fn depth(&self, config: QueueConfig) -> usize {
        config.depth.clamp(1, caps::RING)
    }
}

/// What a device shares with its queues.
pub(crate) struct Shared {
    tables: Mutex<Tables>,
    pub(crate) resets: Resets,
}

struct Tables {
    sas: Table<dyn Run>,
    keys: Table<SigningKey>,
}

impl Default for Shared {
    fn default() -> Self {
        let tables = Tables { sas: Table::new(caps::MAX_SAS), keys: Table::new(caps::MAX_KEYS) };
        Shared { tables: Mutex::new(tables), resets: Resets::default() }
    }
}

impl Shared {
    pub(crate) fn find_sa(&self, id: SaId) -> Option<Arc<dyn Run>> {
        self.tables().sas.find(id.index, id.epoch).cloned()
    }

    pub(crate) fn find_key(&self, id: KeyId) -> Option<Arc<SigningKey>> {
        self.tables().keys.find(id.index, id.epoch).cloned()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Tables change in single steps: a thread that panicked elsewhere has left none half done.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
