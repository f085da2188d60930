//! An open device of a plug-in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spi::caps::Traits;
use spi::crypto::{KeyInfo, KeySource};
use spi::{
    Caps, CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, QueueConfig, Region,
    SaId, SaParams, Stats,
};

use crate::abi;
use crate::inspect::Inspected;
use crate::operations::Operations;
use crate::packets::Bursts;
use crate::ring::Ring;
use crate::sas::{Handles, Sa, Table};
use crate::sys::{Loaded, RawDevice};

/// The plug-in's side of a device; closed when nobody has it any more.
pub(crate) struct Opened {
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) raw: RawDevice,
    handles: Mutex<Handles>,
}

impl Opened {
    pub(crate) fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.loaded.device_close(self.raw);
    }
}

/// What a device shares with its queues.
pub(crate) struct Shared {
    pub(crate) opened: Arc<Opened>,
    pub(crate) table: Table,
    pub(crate) caps: Caps,
    /// Whether it makes random octets.
    pub(crate) random: bool,
    pub(crate) resets: AtomicU64,
    pub(crate) counts: Counts,
    /// Memory the plug-in was told of, which stays for as long as the device.
    regions: Mutex<Vec<Arc<Region>>>,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) bursts: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) aborted: AtomicU64,
    /// Jobs whose memory was leaked.
    pub(crate) leaked: AtomicU64,
}

/// The device as the gateway sees it.
pub(crate) struct PluginDevice {
    desc: DeviceDesc,
    identity: String,
    shared: Arc<Shared>,
}

impl PluginDevice {
    pub(crate) fn new(
        desc: DeviceDesc,
        identity: String,
        random: bool,
        inspected: Arc<Inspected>,
        raw: RawDevice,
    ) -> PluginDevice {
        let loaded = Arc::clone(&inspected.loaded);
        let opened = Arc::new(Opened { loaded, raw, handles: Mutex::default() });
        let shared = Shared {
            opened,
            table: Table::new(desc.caps.max_sas),
            caps: desc.caps.clone(),
            random,
            resets: AtomicU64::new(0),
            counts: Counts::default(),
            regions: Mutex::default(),
        };
        PluginDevice { desc, identity, shared: Arc::new(shared) }
    }

    fn loaded(&self) -> &Loaded {
        &self.shared.opened.loaded
    }
}

impl Device for PluginDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        if self.desc.caps.esp.is_empty() {
            return None;
        }
        Some(Box::new(Ring::<Bursts>::open(&self.shared, config)?))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        if !self.loaded().has_operations() {
            return None;
        }
        Some(Box::new(Ring::<Operations>::open(&self.shared, config)?))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        if !self.desc.caps.carries(sa.encr, sa.integ, sa.esn) || sa.check().is_err() {
            return Err(FaultKind::Unsupported.into());
        }
        if self.shared.table.is_full() {
            return Err(FaultKind::Exhausted.into());
        }
        let sa = Sa::install(&self.shared.opened, sa, self.desc.caps.max_len)?;
        self.shared.table.insert(Arc::new(sa))
    }

    fn remove_sa(&self, sa: SaId) {
        self.shared.table.remove(sa);
    }

    fn open_key(&self, _: KeySource) -> Result<KeyInfo, Fault> {
        // ABI 1 has no long-term keys.
        Err(FaultKind::Unsupported.into())
    }

    fn close_key(&self, _: KeyId) {}

    fn register(&self, region: &Arc<Region>) -> Result<(), Fault> {
        if !self.loaded().wants_memory() {
            return Ok(());
        }
        let mut regions = self.shared.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if regions.iter().any(|known| Arc::ptr_eq(known, region)) {
            return Ok(());
        }
        match self.loaded().memory_add(self.shared.opened.raw, region.address(), region.len()) {
            Some(abi::DONE) => {
                regions.push(Arc::clone(region));
                Ok(())
            }
            Some(abi::EXHAUSTED) => Err(FaultKind::Exhausted.into()),
            status => Err(Fault { kind: FaultKind::Internal, vendor: status.unwrap_or_default() }),
        }
    }

    fn stats(&self) -> Option<Stats> {
        let Counts { bursts, packets, operations, aborted, leaked } = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let identity = match self.loaded().lie() {
            Some(lie) => format!("{}, shut out: {lie}", self.identity),
            None => self.identity.clone(),
        };
        Some(Stats {
            identity,
            queues: Vec::new(),
            resets: self.shared.resets.load(Ordering::Relaxed),
            counters: vec![
                ("bursts", read(bursts)),
                ("packets", read(packets)),
                ("operations", read(operations)),
                ("aborted", read(aborted)),
                ("leaked", read(leaked)),
            ],
        })
    }

    fn health(&self) -> Health {
        match self.loaded().device_health(self.shared.opened.raw) {
            Some(abi::READY) => Health::Ready,
            // Shut out, dead by its own word, or with a word that is none.
            _ => Health::Failed,
        }
    }

    fn begin_reset(&self) {
        // First the count: what is out must come back as aborted, not as stale.
        self.shared.resets.fetch_add(1, Ordering::SeqCst);
        self.shared.table.clear();
    }
}

/// What every plug-in can, since it is done here.
pub(crate) const TRAITS: Traits = Traits::RECOVERS.union(Traits::ASYNCHRONOUS);
