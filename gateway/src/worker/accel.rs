//! The devices of a worker: which of them serves an SA or an operation, and their queues.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::{Context, bail};
use esp::{Esp, Output};
use spi::{
    CryptoDone, CryptoJob, CryptoQueue, Device, EspBurst, EspQueue, Fault, FaultKind, Health, QueueConfig,
    Region, SaId, SaParams, ShortOps,
};

/// Bursts taken back from one queue in one go.
const BURSTS: usize = 64;

/// One device and this worker's queues on it.
pub(super) struct Slot {
    driver: &'static str,
    pub(super) device: Arc<dyn Device>,
    packets: Option<Box<EspQueue>>,
    pub(super) operations: Option<Box<CryptoQueue>>,
    pub(super) jobs: VecDeque<CryptoJob>,
    sas: usize,
}

/// What `status` shows of a device.
pub(super) struct SlotView<'a> {
    pub(super) driver: &'static str,
    pub(super) device: &'a dyn Device,
    pub(super) sas: usize,
    pub(super) packets_out: usize,
    pub(super) operations_out: usize,
    pub(super) waiting: usize,
}

/// All devices, best first.
pub(super) struct Accel {
    pub(super) slots: Vec<Slot>,
    /// The slot behind each of the data path's device numbers.
    esp_slots: Vec<usize>,
    /// Operations no device would take.
    pub(super) failed: VecDeque<CryptoDone>,
}

impl Accel {
    /// Opens everything the registry finds.
    pub(super) fn open() -> anyhow::Result<Accel> {
        let drivers = registry::network_drivers(&registry::Config::default());
        let (opened, unopened) = registry::open_all(&drivers);
        for device in unopened {
            tracing::warn!(driver = device.driver, device = %device.id, fault = %device.fault, "a device does not open");
        }
        let slots: Vec<Slot> = opened
            .into_iter()
            .map(|opened| Slot {
                driver: opened.driver,
                packets: opened.device.esp_queue(QueueConfig::default()),
                operations: opened.device.crypto_queue(QueueConfig::default()),
                device: opened.device,
                jobs: VecDeque::new(),
                sas: 0,
            })
            .collect();
        if !slots.iter().any(|slot| slot.packets.is_some())
            || !slots.iter().any(|slot| slot.operations.is_some())
        {
            bail!("no device carries packets, or none does key exchanges");
        }
        Ok(Accel { slots, esp_slots: Vec::new(), failed: VecDeque::new() })
    }

    /// Makes the packet queues known to the data path.
    pub(super) fn attach(&mut self, esp: &mut Esp) {
        for (place, slot) in self.slots.iter().enumerate() {
            if let Some(queue) = &slot.packets {
                let number = esp.add_device(queue.room());
                debug_assert_eq!(number, self.esp_slots.len());
                self.esp_slots.push(place);
            }
        }
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

    /// Installs an SA on the first device that carries it; gives the data path's number of the device, and the handle.
    pub(super) fn install(&mut self, sa: &SaParams) -> Result<(usize, SaId), Fault> {
        let mut last = Fault::new(FaultKind::Unsupported);
        for (number, place) in self.esp_slots.iter().enumerate() {
            let slot = &mut self.slots[*place];
            let able = slot.device.desc().caps.carries(sa.encr, sa.integ, sa.esn);
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

    /// Gives an SA's handle back.
    pub(super) fn remove(&mut self, number: usize, sa: SaId) {
        if let Some(slot) = self.esp_slots.get(number).and_then(|place| self.slots.get_mut(*place)) {
            slot.device.remove_sa(sa);
            slot.sas = slot.sas.saturating_sub(1);
        }
    }

    /// Submits what the data path has for the devices, takes back what is done, and hands it to the data path; true when
    /// something moved.
    pub(super) fn pump_packets(&mut self, now: std::time::Instant, esp: &mut Esp, out: &mut Output) -> bool {
        let mut moved = false;
        for (number, place) in self.esp_slots.iter().enumerate() {
            let Some(queue) = &mut self.slots[*place].packets else { continue };
            let mut refused = VecDeque::new();
            if let Some(jobs) = out.submit.get_mut(number).filter(|jobs| !jobs.is_empty()) {
                moved = true;
                if queue.submit(jobs).is_err() {
                    refused = std::mem::take(jobs);
                }
            }
            // A closed queue takes nothing: the data path counts these as failed.
            refused.into_iter().for_each(|burst| esp.on_done(now, burst, out));
            if queue.in_flight() > 0 {
                let polled = queue.poll(BURSTS, &mut |burst: EspBurst| esp.on_done(now, burst, out));
                moved |= polled.delivered > 0;
            }
        }
        moved
    }

    /// Doorbells to sleep on.
    pub(super) fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::new();
        for slot in &self.slots {
            all.extend(slot.operations.as_ref().and_then(|queue| queue.doorbell()));
            all.extend(slot.packets.as_ref().and_then(|queue| queue.doorbell()));
        }
        all
    }

    /// Whether a queue without a doorbell has work out, so that sleeping long is out of the question.
    pub(super) fn is_blind(&self) -> bool {
        self.slots.iter().any(|slot| {
            let operations =
                slot.operations.as_ref().is_some_and(|q| q.doorbell().is_none() && q.in_flight() > 0);
            operations || slot.packets.as_ref().is_some_and(|q| q.doorbell().is_none() && q.in_flight() > 0)
        })
    }

    /// The devices, to look at.
    pub(super) fn views(&self) -> impl Iterator<Item = SlotView<'_>> {
        self.slots.iter().map(|slot| SlotView {
            driver: slot.driver,
            device: &*slot.device,
            sas: slot.sas,
            packets_out: slot.packets.as_ref().map_or(0, |queue| queue.in_flight()),
            operations_out: slot.operations.as_ref().map_or(0, |queue| queue.in_flight()),
            waiting: slot.jobs.len(),
        })
    }
}
