//! The devices: which of them serves an SA or an operation, and the queues for operations. Those for packets belong to the
//! lanes.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use spi::{
    CryptoDone, CryptoJob, CryptoQueue, Device, Fault, FaultKind, Health, QueueConfig, Region, SaId,
    SaParams, ShortOps,
};

use super::trials::{Trial, Trials};

/// Sleep while a device without a doorbell has work out.
pub(super) const BLIND_WAIT: Duration = Duration::from_micros(50);

/// One device and the queue for operations on it.
pub(super) struct Slot {
    driver: &'static str,
    pub(super) device: Arc<dyn Device>,
    /// Which lanes have a queue for packets on it.
    lanes: Vec<bool>,
    pub(super) operations: Option<Box<CryptoQueue>>,
    pub(super) jobs: VecDeque<CryptoJob>,
    sas: usize,
}

/// What `status` shows of a device.
pub(super) struct SlotView<'a> {
    pub(super) driver: &'static str,
    pub(super) device: &'a dyn Device,
    pub(super) sas: usize,
    pub(super) operations_out: usize,
    pub(super) waiting: usize,
    pub(super) trials: Vec<Trial>,
}

/// All devices, best first.
pub(super) struct Accel {
    /// Their places are the data path's numbers for them.
    pub(super) slots: Vec<Slot>,
    /// What they cost.
    pub(super) trials: Trials,
    /// Operations no device would take.
    pub(super) failed: VecDeque<CryptoDone>,
}

impl Accel {
    /// Opens everything the registry finds.
    pub(super) fn open(config: &registry::Config) -> anyhow::Result<Accel> {
        let drivers = registry::network_drivers(config);
        let (opened, unopened) = registry::open_all(&drivers);
        for device in unopened {
            tracing::warn!(driver = device.driver, device = %device.id, fault = %device.fault, "a device does not open");
        }
        let slots: Vec<Slot> = opened
            .into_iter()
            .map(|opened| Slot {
                driver: opened.driver,
                lanes: Vec::new(),
                operations: opened.device.crypto_queue(QueueConfig::default()),
                device: opened.device,
                jobs: VecDeque::new(),
                sas: 0,
            })
            .collect();
        if !slots.iter().any(|slot| slot.operations.is_some()) {
            bail!("no device does key exchanges");
        }
        Ok(Accel { slots, trials: Trials::default(), failed: VecDeque::new() })
    }

    /// The devices, by their numbers.
    pub(super) fn devices(&self) -> Vec<Arc<dyn Device>> {
        self.slots.iter().map(|slot| Arc::clone(&slot.device)).collect()
    }

    /// One more lane, which has a queue for packets on these devices.
    pub(super) fn add_lane(&mut self, there: Vec<bool>) {
        self.slots.iter_mut().zip(there).for_each(|(slot, there)| slot.lanes.push(there));
    }

    /// Makes a pool's memory reachable for every device.
    pub(super) fn register(&self, region: &Arc<Region>) -> anyhow::Result<()> {
        for slot in &self.slots {
            let fault = slot.device.register(region);
            fault.with_context(|| format!("device {} cannot reach packet memory", slot.device.desc().id))?;
        }
        Ok(())
    }

    /// The first device's short primitives.
    pub(super) fn short_ops(&self) -> anyhow::Result<Arc<dyn ShortOps>> {
        self.slots.iter().find_map(|slot| slot.device.short_ops()).context("no device has short primitives")
    }

    /// Installs an SA on the first device that carries it, has a queue for this lane and is well, in the order of the trials; gives
    /// the device's number, and the handle.
    pub(super) fn install(&mut self, lane: u16, sa: &SaParams) -> Result<(usize, SaId), Fault> {
        let mut last = Fault::new(FaultKind::Unsupported);
        for number in self.trials.order((sa.encr, sa.integ), self.slots.len()) {
            let Some(slot) = self.slots.get_mut(number) else { continue };
            let able = slot.device.desc().caps.carries(sa.encr, sa.integ, sa.esn)
                && slot.lanes.get(usize::from(lane)).is_some_and(|there| *there);
            if !able || slot.device.health() != Health::Ready {
                continue;
            }
            match slot.device.install_sa(sa) {
                Ok(id) => {
                    slot.sas += 1;
                    return Ok((number, id));
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// An SA's handle was given back, or will be by the lane that has it.
    pub(super) fn removed(&mut self, number: usize) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.sas = slot.sas.saturating_sub(1);
        }
    }

    /// Gives an SA's handle back that no lane got.
    pub(super) fn remove(&mut self, number: usize, sa: SaId) {
        if let Some(slot) = self.slots.get(number) {
            slot.device.remove_sa(sa);
        }
        self.removed(number);
    }

    /// Doorbells to sleep on.
    pub(super) fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::new();
        for slot in &self.slots {
            all.extend(slot.operations.as_ref().and_then(|queue| queue.doorbell()));
        }
        all
    }

    /// Whether a queue without a doorbell has work out, so that sleeping long is out of the question.
    pub(super) fn is_blind(&self) -> bool {
        let blind = |queue: &CryptoQueue| queue.doorbell().is_none() && queue.in_flight() > 0;
        self.slots.iter().any(|slot| slot.operations.as_deref().is_some_and(blind))
    }

    /// The devices, to look at.
    pub(super) fn views(&self) -> impl Iterator<Item = SlotView<'_>> {
        self.slots.iter().enumerate().map(|(number, slot)| SlotView {
            driver: slot.driver,
            device: &*slot.device,
            sas: slot.sas,
            operations_out: slot.operations.as_ref().map_or(0, |queue| queue.in_flight()),
            waiting: slot.jobs.len(),
            trials: self.trials.of(number),
        })
    }
}
