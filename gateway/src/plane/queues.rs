//! A lane's packet queues on the accelerators.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use esp::{Esp, Output};
use spi::{Device, EspBurst, EspQueue, QueueConfig, SaId};

/// Bursts taken back from one queue in one go.
const BURSTS: usize = 64;

/// The queues, by the number that the data path and whoever installs SAs know a device by.
pub(crate) struct Queues(Vec<Slot>);

struct Slot {
    device: Arc<dyn Device>,
    /// `None`: the device has no more, or carries no packets.
    queue: Option<Box<EspQueue>>,
}

impl Queues {
    /// Opens a queue on every device that has one left.
    pub(crate) fn open(devices: &[Arc<dyn Device>], cpu: Option<u16>) -> Queues {
        let slot = |device: &Arc<dyn Device>| {
            let queue = device.esp_queue(QueueConfig { cpu, ..QueueConfig::default() });
            Slot { device: Arc::clone(device), queue }
        };
        Queues(devices.iter().map(slot).collect())
    }

    /// Which devices have a queue here.
    pub(crate) fn there(&self) -> Vec<bool> {
        self.0.iter().map(|slot| slot.queue.is_some()).collect()
    }

    /// Makes them known to the data path.
    pub(crate) fn attach(&self, esp: &mut Esp) {
        for slot in &self.0 {
            esp.add_device(slot.queue.as_ref().map_or(0, |queue| queue.room()));
        }
    }

    /// Submits what the data path has for the devices, takes back what is done, and hands it to the data path; true when
    /// something moved.
    pub(crate) fn pump(&mut self, now: Instant, esp: &mut Esp, out: &mut Output) -> bool {
        let mut moved = false;
        for (number, slot) in self.0.iter_mut().enumerate() {
            let Some(queue) = &mut slot.queue else { continue };
            if let Some(jobs) = out.submit.get_mut(number).filter(|jobs| !jobs.is_empty()) {
                moved = true;
                if queue.submit(jobs).is_err() {
                    // A closed queue takes nothing: the data path counts these as failed.
                    let refused: VecDeque<EspBurst> = std::mem::take(jobs);
                    refused.into_iter().for_each(|burst| esp.on_done(now, burst, out));
                }
            }
            if queue.in_flight() > 0 {
                let polled = queue.poll(BURSTS, &mut |burst: EspBurst| esp.on_done(now, burst, out));
                moved |= polled.delivered > 0;
            }
        }
        moved
    }

    /// Gives an SA's handle back.
    pub(crate) fn remove_sa(&self, number: usize, sa: SaId) {
        if let Some(slot) = self.0.get(number) {
            slot.device.remove_sa(sa);
        }
    }

    /// Doorbells to sleep on.
    pub(crate) fn doorbells(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|slot| slot.queue.as_ref()?.doorbell())
    }

    /// Whether a queue without a doorbell has work out, so that sleeping long is out of the question.
    pub(crate) fn is_blind(&self) -> bool {
        let blind = |queue: &EspQueue| queue.doorbell().is_none() && queue.in_flight() > 0;
        self.0.iter().any(|slot| slot.queue.as_deref().is_some_and(blind))
    }

    /// Bursts that are out, by device.
    pub(crate) fn in_flight(&self) -> Vec<usize> {
        self.0.iter().map(|slot| slot.queue.as_ref().map_or(0, |queue| queue.in_flight())).collect()
    }
}
