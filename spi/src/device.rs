//! What a backend exports: a [`Driver`], which finds devices, and a [`Device`], which opens queues.

use std::sync::Arc;

use crate::caps::Caps;
use crate::crypto::{CryptoQueue, KeyId, KeyInfo, KeySource};
use crate::engine::EngineReport;
use crate::esp::{EspQueue, SaId, SaParams};
use crate::mem::Region;
use crate::outcome::Fault;
use crate::short::ShortOps;
use crate::stats::Stats;

/// One backend: the only thing it exports.
pub trait Driver: Send + Sync {
    /// Name in the configuration file and in `status`.
    fn name(&self) -> &'static str;

    /// Looks for devices; touches none.
    fn probe(&self) -> Vec<DeviceDesc>;

    /// Devices that are there and cannot be used; touches none either.
    fn unusable(&self) -> Vec<Unusable> {
        Vec::new()
    }

    /// Opens one.
    ///
    /// # Errors
    /// A [`Fault`] when the device is gone, taken or ill.
    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault>;
}

/// A device that was found and that [`Driver::probe`] does not offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Name within its driver, as in [`DeviceDesc::id`].
    pub id: String,
    /// What is in the way, and what to do about it; for people.
    pub why: String,
}

/// A device that was found.
#[derive(Clone, Debug)]
pub struct DeviceDesc {
    /// Name within its driver, for example a PCI address.
    pub id: String,
    /// NUMA node, where the machine has several.
    pub numa_node: Option<u8>,
    /// What it can do.
    pub caps: Caps,
}

/// Wishes for a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Jobs the ring holds; the device may give less, which `room` then says.
    pub depth: usize,
    /// CPU of the worker that will own it.
    pub cpu: Option<u16>,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig { depth: 256, cpu: None }
    }
}

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Takes work.
    Ready,
    /// Is being reset; will be ready again, with a new epoch.
    Resetting,
    /// Will not come back by itself.
    Failed,
}

/// An open device. Control plane: any thread, bounded time, no packets.
pub trait Device: Send + Sync {
    /// What was probed.
    fn desc(&self) -> &DeviceDesc;

    /// A new ring for packets; `None` when the device carries no ESP or has no ring left.
    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>>;

    /// A new ring for operations; `None` likewise.
    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>>;

    /// The device's short primitives, where it has them.
    fn short_ops(&self) -> Option<Arc<dyn ShortOps>> {
        None
    }

    /// Installs an SA. The parameters may be dropped afterwards.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`](crate::FaultKind), [`FaultKind::Exhausted`](crate::FaultKind) or another fault.
    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault>;

    /// Removes an SA. Jobs still out on it come back, done or as [`FaultKind::StaleHandle`](crate::FaultKind).
    fn remove_sa(&self, sa: SaId);

    /// Opens a long-term private key.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`](crate::FaultKind) when the device keeps no such keys or does not understand this one.
    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault>;

    /// Forgets a key.
    fn close_key(&self, key: KeyId);

    /// DER of the certificates that a URI means, end entity first: those it fits, or, where it means a private key, those that
    /// are kept beside that key, which may be none.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`](crate::FaultKind) when the device keeps no certificates or does not understand this URI.
    fn certificates(&self, uri: &str) -> Result<Vec<Vec<u8>>, Fault> {
        let _ = uri;
        Err(crate::FaultKind::Unsupported.into())
    }

    /// What a fault of this device means and what to do about it, for people. Asked right after the fault, since a device
    /// remembers the last of each kind.
    fn explain(&self, fault: Fault) -> String {
        fault.to_string()
    }

    /// Makes a pool's memory reachable for the device, once. Devices without DMA do nothing.
    ///
    /// # Errors
    /// A [`Fault`] when the memory cannot be mapped.
    fn register(&self, region: &Arc<Region>) -> Result<(), Fault> {
        let _ = region;
        Ok(())
    }

    /// The engines it picks from, for `status`; none where there is nothing to pick.
    fn engines(&self) -> Vec<EngineReport> {
        Vec::new()
    }

    /// What it has been doing, for `status`; `None` where nobody counts.
    fn stats(&self) -> Option<Stats> {
        None
    }

    /// How it is.
    fn health(&self) -> Health;

    /// Starts a reset and returns at once. Everything out comes back as [`FaultKind::Aborted`](crate::FaultKind), and
    /// every handle turns stale.
    fn begin_reset(&self);
}
