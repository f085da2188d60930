//! What `tussock accel` shows of the devices that hold long-term keys. They are the key side's; it lends them to be asked how they are.

use std::sync::Arc;

use registry::Opened;
use spi::Health;

use crate::report::{AccelDevice, AccelQueue, Device};

/// Such devices, software aside: its keys are no device's.
#[derive(Clone)]
pub struct KeyDevices(Arc<[Opened]>);

impl KeyDevices {
    /// Of those that were opened.
    pub fn new(opened: Vec<Opened>) -> KeyDevices {
        KeyDevices(opened.into_iter().filter(|opened| opened.driver != "soft").collect())
    }

    /// How they are. May take a moment: a token is asked who it is.
    pub fn look(&self) -> Vec<AccelDevice> {
        self.0.iter().map(look).collect()
    }
}

fn look(opened: &Opened) -> AccelDevice {
    let (desc, stats) = (opened.device.desc(), opened.device.stats().unwrap_or_default());
    let health = match opened.device.health() {
        Health::Ready => "ready",
        Health::Resetting => "resetting",
        Health::Failed => "failed",
    };
    let device = Device {
        // The same token may stand in the list before, for key exchanges.
        name: format!("{}:keys", desc.id),
        driver: opened.driver.to_owned(),
        id: desc.id.clone(),
        health: health.to_owned(),
        ..Device::default()
    };
    let queues = stats.queues.iter().map(|queue| AccelQueue {
        name: queue.name.clone(),
        depth: desc.caps.ring,
        in_flight: queue.in_flight,
        latency: [queue.latency.p50_ns, queue.latency.p90_ns, queue.latency.p99_ns, queue.latency.max_ns],
        ..AccelQueue::default()
    });
    AccelDevice {
        device,
        identity: Some(stats.identity).filter(|identity| !identity.is_empty()),
        operations: stats.queues.iter().map(|queue| queue.done).sum(),
        queues: queues.collect(),
        resets: stats.resets,
        counters: stats.counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        ..AccelDevice::default()
    }
}
