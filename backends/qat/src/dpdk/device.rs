//! What the gateway sees of an open device.

use std::sync::Arc;

use spi::crypto::{KeyInfo, KeySource};
use spi::stats::Stats;
use spi::{
    CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, QueueConfig, Region, SaId,
    SaParams,
};

use super::driver::DpdkPlace;
use super::eal;
use super::life::Life;
use super::numbers;
use super::packets::Packets;
use super::sa::Sa;
use super::sys::Engine;
use crate::keys::{Kind, PrivateKey};

/// An open device.
pub(super) struct DpdkDevice {
    desc: DeviceDesc,
    identity: String,
    life: Arc<Life>,
}

impl DpdkDevice {
    pub(super) fn new(
        desc: DeviceDesc,
        place: &DpdkPlace,
        packets: Option<Arc<Engine>>,
        numbers: Option<Arc<Engine>>,
    ) -> DpdkDevice {
        let caps = super::caps::caps(packets.as_deref(), numbers.as_deref());
        let pairs = packets.as_ref().or(numbers.as_ref()).map_or(0, |engine| engine.pairs());
        let identity = match place {
            DpdkPlace::Software(driver) => format!("DPDK {driver}, {pairs} queue pairs"),
            DpdkPlace::Pci(address) => {
                format!("DPDK crypto_qat at {address}, {pairs} queue pairs for packets")
            }
        };
        let life = Arc::new(Life::new(&desc.id, packets, numbers, caps.max_sas));
        tracing::info!(device = %desc.id, identity, "dpdk: open");
        DpdkDevice { desc: DeviceDesc { caps, ..desc }, identity, life }
    }
}

impl Drop for DpdkDevice {
    fn drop(&mut self) {
        // A reset that was begun is over before the device goes.
        let _ = eal::call(|| ());
    }
}

impl Device for DpdkDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        if self.desc.caps.esp.is_empty() {
            return None;
        }
        Some(Box::new(Packets::open(&self.life, config)?))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        if self.desc.caps.dh.is_empty() {
            return None;
        }
        numbers::open(&self.life, &self.desc.caps, config)
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        if !self.desc.caps.carries(sa.encr, sa.integ, sa.esn) {
            return Err(FaultKind::Unsupported.into());
        }
        let engine = self.life.packets.as_ref().ok_or(FaultKind::Unsupported)?;
        let (before, _) = self.life.gate.look();
        let sa = Arc::new(Sa::new(sa, engine)?);
        let mut sas = self.life.sas();
        // A reset that began meanwhile has cleared the table, or will: the lock of the table says which.
        if self.life.health() != Health::Ready || self.life.gate.look().0 != before {
            return Err(FaultKind::Aborted.into());
        }
        let (index, epoch) = sas.insert(sa)?;
        Ok(SaId { index, epoch })
    }

    fn remove_sa(&self, sa: SaId) {
        let removed = self.life.sas().remove(sa.index, sa.epoch);
        if let Some(sa) = removed {
            sa.retire();
        }
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Der(der) = source else { return Err(FaultKind::Unsupported.into()) };
        let engine = self.life.numbers.as_ref().ok_or(FaultKind::Unsupported)?;
        if self.desc.caps.sign.is_empty() {
            return Err(FaultKind::Unsupported.into());
        }
        let fits = |len| engine.does_rsa(len, true) || engine.does_rsa(len, false);
        let key = PrivateKey::from_der(&der, fits)?;
        match &key.kind {
            Kind::Rsa(rsa) if rsa.crt.is_some() || engine.does_rsa(rsa.n.len(), false) => {}
            _ => return Err(FaultKind::Unsupported.into()),
        }
        let (spki, schemes) = (key.spki().to_vec(), key.schemes());
        let mut keys = self.life.keys();
        if self.life.health() != Health::Ready {
            return Err(FaultKind::Aborted.into());
        }
        let (index, epoch) = keys.insert(Arc::new(key))?;
        Ok(KeyInfo { id: KeyId { index, epoch }, spki, schemes })
    }

    fn close_key(&self, key: KeyId) {
        self.life.keys().remove(key.index, key.epoch);
    }

    fn register(&self, region: &Arc<Region>) -> Result<(), Fault> {
        self.life.register(region).map_err(|error| {
            tracing::warn!(device = %self.desc.id, error, "dpdk: packet memory cannot be mapped");
            Fault { kind: FaultKind::Exhausted, vendor: error.unsigned_abs() }
        })
    }

    fn stats(&self) -> Option<Stats> {
        Some(Stats {
            identity: self.identity.clone(),
            queues: self.life.views().iter().map(|view| view.stats()).collect(),
            resets: self.life.counters.resets.value(),
            counters: self.life.counters.all(),
        })
    }

    fn health(&self) -> Health {
        self.life.health()
    }

    fn begin_reset(&self) {
        self.life.begin_reset();
    }
}
