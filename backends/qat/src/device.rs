//! What the gateway sees: a `Device`, and the thread behind it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use spi::crypto::{KeyInfo, KeySource};
use spi::stats::Stats;
use spi::{
    CryptoQueue, Device, DeviceDesc, EspQueue, Fault, FaultKind, Health, KeyId, QueueConfig, Region, SaId,
    SaParams,
};

use crate::card::{ASKED, Card};
use crate::config::Config;
use crate::fw::pke;
use crate::keys::PrivateKey;
use crate::operations::Operations;
use crate::packets::Packets;
use crate::pci::{PciError, PciFunction};
use crate::sa::Sa;
use crate::warden;

/// Keeps a card and its watcher alive, for as long as a device or a queue is there. The last one to go closes the card.
pub(crate) struct Holder {
    card: Arc<Card>,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

impl Holder {
    pub(crate) fn card(&self) -> &Card {
        &self.card
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.card.stopping.store(true, Ordering::Release);
        self.card.control.ring();
        if let Some(watcher) = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = watcher.join();
        }
    }
}

/// An open card.
pub(crate) struct QatDevice {
    desc: DeviceDesc,
    holder: Arc<Holder>,
}

impl QatDevice {
    /// Takes over a function; `desc` is what was probed.
    ///
    /// # Errors
    /// [`PciError`] with what is in the way.
    pub(crate) fn open(
        desc: &DeviceDesc,
        function: Arc<dyn PciFunction>,
        config: &Config,
    ) -> Result<QatDevice, PciError> {
        let card = Card::open(&desc.id, function, config)?;
        let watched = Arc::clone(&card);
        let watcher = std::thread::Builder::new()
            .name("qat".into())
            .spawn(move || warden::run(&watched))
            .map_err(|cause| {
                card.close();
                PciError::refused("a thread", cause)
            })?;
        let caps = card.caps.clone();
        let desc = DeviceDesc { caps, ..desc.clone() };
        tracing::info!(card = %desc.id, model = card.model.name, "qat: open");
        Ok(QatDevice { desc, holder: Arc::new(Holder { card, watcher: Mutex::new(Some(watcher)) }) })
    }

    fn card(&self) -> &Card {
        &self.holder.card
    }
}

impl Device for QatDevice {
    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        if self.desc.caps.esp.is_empty() {
            return None;
        }
        Some(Box::new(Packets::open(&self.holder, config)?))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        if self.desc.caps.dh.is_empty() {
            return None;
        }
        Some(Box::new(Operations::open(&self.holder, config)?))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        if !self.desc.caps.carries(sa.encr, sa.integ, sa.esn) {
            return Err(FaultKind::Unsupported.into());
        }
        let card = self.card();
        let (before, _) = card.gate.look();
        let sa = Arc::new(Sa::new(sa, card.model.generation.fourth, &card.vault)?);
        let mut sas = card.sas();
        // A reset that began meanwhile has cleared the table, or will: the lock of the table says which.
        if card.health() != Health::Ready || card.gate.look().0 != before {
            return Err(FaultKind::Aborted.into());
        }
        let (index, epoch) = sas.insert(sa)?;
        Ok(SaId { index, epoch })
    }

    fn remove_sa(&self, sa: SaId) {
        let removed = self.card().sas().remove(sa.index, sa.epoch);
        if let Some(sa) = removed {
            sa.retire();
        }
    }

    fn open_key(&self, source: KeySource) -> Result<KeyInfo, Fault> {
        let KeySource::Der(der) = source else { return Err(FaultKind::Unsupported.into()) };
        if self.desc.caps.sign.is_empty() {
            return Err(FaultKind::Unsupported.into());
        }
        let key = PrivateKey::from_der(&der, pke::signs(self.card().model.generation.fourth))?;
        let (spki, schemes) = (key.spki().to_vec(), key.schemes());
        let mut keys = self.card().keys();
        if self.card().health() != Health::Ready {
            return Err(FaultKind::Aborted.into());
        }
        let (index, epoch) = keys.insert(Arc::new(key))?;
        Ok(KeyInfo { id: KeyId { index, epoch }, spki, schemes })
    }

    fn close_key(&self, key: KeyId) {
        self.card().keys().remove(key.index, key.epoch);
    }

    fn register(&self, region: &Arc<Region>) -> Result<(), Fault> {
        self.card().space.register(region).map_err(|error| {
            tracing::warn!(card = %self.desc.id, %error, "qat: packet memory cannot be mapped");
            Fault::new(FaultKind::Exhausted)
        })
    }

    fn stats(&self) -> Option<Stats> {
        let card = self.card();
        let generation = card.model.generation.name;
        let agreed = card.agreed;
        let mut identity = format!(
            "{} ({generation}), {} ring pairs, mailbox version {}, capabilities {:#x}, reaches {} MiB",
            card.model.name,
            card.pairs.len(),
            agreed.version,
            agreed.caps,
            card.space.reach() >> 20,
        );
        if let Some(why) = card.verdict.get().filter(|_| card.has_failed()) {
            identity += &format!("; failed: {why}");
        }
        Some(Stats {
            identity,
            queues: card.views().iter().map(|view| view.stats()).collect(),
            resets: card.counters.resets.value(),
            counters: card.counters.all(),
        })
    }

    fn health(&self) -> Health {
        self.card().health()
    }

    fn begin_reset(&self) {
        let card = self.card();
        card.forgive();
        card.close_gate();
        card.ask_for_reset(ASKED);
    }
}
