//! A lane's packet queues on the accelerators, and what becomes of them when an accelerator dies.
//!
//! The worker knows how each device is and gives [`DeviceOrder`]s. An SA that has to leave its device gets a handle elsewhere
//! first, and then an order to go there; the old handle is given up when nothing is out on it any more. A device that is out of
//! order gets nothing, but what is out on it is still taken back. When it is well again its queue is used again if everything has
//! come home, and is exchanged for a new one otherwise.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use esp::{ChildId, Esp, Output};
use spi::stats::{Histogram, Latency};
use spi::{Device, Direction, EspBurst, EspQueue, QueueConfig, SaId, Token};

use super::KEY_DEVICES;
use crate::io::epoll::Epoll;

/// Bursts taken back from one queue in one go.
const BURSTS: usize = 64;
/// Bursts out on one device at most. What a device never gives back is lost to the pool until its queue is gone, and two such
/// devices must leave something for the others.
const OUT: usize = super::BUFFERS / 4;
/// One burst in so many is timed.
const TIMED: u32 = 16;
/// Seconds after which a burst is given up.
const PATIENCE: u32 = 3;

/// What a lane is told about devices.
pub(crate) enum DeviceOrder {
    /// An SA has another handle: on another device, or on the same one anew.
    MoveSa { line: ChildId, spi: u32, dir: Direction, to: (usize, SaId) },
    /// A device is out of order.
    Down(usize),
    /// It is well; what is given here is new.
    Up { number: usize, device: Option<Arc<dyn Device>>, queue: Option<Box<EspQueue>> },
    /// It is about to be closed: let go of it.
    Release(usize),
}

/// What a lane tells about devices.
pub(crate) enum DeviceReport {
    /// Bursts did not come back from it.
    Lost(usize),
    /// It is in use again.
    Up(usize),
    /// Its queue is of no use any more.
    Spent(usize, Option<Box<EspQueue>>),
    /// Nothing of it is left here, as was ordered.
    Released(usize, Option<Box<EspQueue>>),
}

/// The queues, by the number that the data path and whoever installs SAs know a device by.
pub(crate) struct Queues(Vec<Slot>);

struct Slot {
    /// `None`: it is not open.
    device: Option<Arc<dyn Device>>,
    /// `None`: the device has no more, or carries no packets.
    queue: Option<Box<EspQueue>>,
    /// It gets nothing.
    down: bool,
    timing: Timing,
    /// Octets of packets that it gave back. Only this lane writes it.
    carried: Arc<AtomicU64>,
}

/// Times one burst in some.
#[derive(Default)]
struct Timing {
    passed: u32,
    under_way: Option<(Token, Instant)>,
    taken: Histogram,
}

/// How a queue is.
#[derive(Clone, Copy, Default)]
pub(crate) struct QueueLook {
    pub(crate) depth: usize,
    pub(crate) out: usize,
    pub(crate) latency: Latency,
}

impl Queues {
    /// Opens a queue on every device that is there and has one left.
    pub(crate) fn open(devices: &[Option<Arc<dyn Device>>], cpu: Option<u16>) -> Queues {
        let slot = |device: &Option<Arc<dyn Device>>| {
            let config = QueueConfig { cpu, ..QueueConfig::default() };
            let queue = device.as_ref().and_then(|device| device.esp_queue(config));
            let (device, down) = (device.clone(), queue.is_none());
            Slot { device, queue, down, timing: Timing::default(), carried: Arc::default() }
        };
        Queues(devices.iter().map(slot).collect())
    }

    /// Which devices have a queue here.
    pub(crate) fn there(&self) -> Vec<bool> {
        self.0.iter().map(|slot| slot.queue.is_some()).collect()
    }

    /// How many octets each device has given back here, as it goes on.
    pub(crate) fn carried(&self) -> Vec<Arc<AtomicU64>> {
        self.0.iter().map(|slot| Arc::clone(&slot.carried)).collect()
    }

    /// Makes them known to the data path.
    pub(crate) fn attach(&self, esp: &mut Esp) {
        for slot in &self.0 {
            let number = esp.add_device(slot.room());
            esp.set_down(number, slot.down);
        }
    }

    /// Submits what the data path has for the devices, takes back what is done, and hands it to the data path; true when
    /// something moved.
    pub(crate) fn pump(&mut self, now: Instant, esp: &mut Esp, out: &mut Output) -> bool {
        let mut moved = false;
        for (number, slot) in self.0.iter_mut().enumerate() {
            let jobs = out.submit.get_mut(number).filter(|jobs| !jobs.is_empty());
            let Some(queue) = &mut slot.queue else {
                // Issued before its queue was taken away.
                if let Some(jobs) = jobs {
                    let refused: VecDeque<EspBurst> = std::mem::take(jobs);
                    refused.into_iter().for_each(|burst| esp.on_done(now, burst, out));
                }
                continue;
            };
            if let Some(jobs) = jobs {
                moved = true;
                slot.timing.submitted(jobs);
                if queue.submit(jobs).is_err() {
                    // A closed queue takes nothing: the data path counts these as failed.
                    let refused: VecDeque<EspBurst> = std::mem::take(jobs);
                    refused.into_iter().for_each(|burst| esp.on_done(now, burst, out));
                }
            }
            if queue.in_flight() > 0 {
                let (timing, mut octets) = (&mut slot.timing, 0);
                let polled = queue.poll(BURSTS, &mut |burst: EspBurst| {
                    timing.done(burst.token);
                    octets += burst.buf.ops().iter().map(|op| u64::from(op.len)).sum::<u64>();
                    esp.on_done(now, burst, out);
                });
                let before = slot.carried.load(Ordering::Relaxed);
                slot.carried.store(before.wrapping_add(octets), Ordering::Relaxed);
                moved |= polled.delivered > 0;
            }
        }
        while let Some((number, sa)) = out.left.pop_front() {
            self.remove_sa(number, sa);
        }
        moved
    }

    /// Once a second: gives up what did not come back, and tells of it.
    pub(crate) fn tick(&mut self, esp: &mut Esp, out: &mut Output, told: &mut Vec<DeviceReport>) {
        told.extend(esp.tick(PATIENCE, out).into_iter().map(DeviceReport::Lost));
        for (number, slot) in self.0.iter_mut().enumerate() {
            // What came home late has given its room back to the queue, but not to the data path.
            let under_way = out.submit.get(number).map_or(0, VecDeque::len);
            esp.set_room(number, slot.room().saturating_sub(under_way));
            slot.timing.under_way = slot.timing.under_way.filter(|(_, at)| at.elapsed().as_secs() < 60);
        }
    }

    /// Carries an order out.
    pub(crate) fn obey(
        &mut self,
        order: DeviceOrder,
        epoll: &Epoll,
        esp: &mut Esp,
        out: &mut Output,
        told: &mut Vec<DeviceReport>,
    ) {
        match order {
            DeviceOrder::MoveSa { line, spi, dir, to } => {
                if !esp.move_sa(line, spi, dir, to, out) {
                    // It was removed meanwhile, and nobody else knows the new handle.
                    self.remove_sa(to.0, to.1);
                }
            }
            DeviceOrder::Down(number) => self.set_down(number, true, esp),
            DeviceOrder::Up { number, device, queue } => {
                let Some(slot) = self.0.get_mut(number) else { return };
                if device.is_some() {
                    slot.device = device;
                }
                if let Some(queue) = queue {
                    if let Some(bell) = queue.doorbell() {
                        // Without it the queue is looked into all the same, only later.
                        let _ = epoll.add(bell, KEY_DEVICES);
                    }
                    slot.queue = Some(queue);
                    slot.timing.under_way = None;
                }
                match &slot.queue {
                    None => {}
                    // What it still has will not come any more, or nobody would know when.
                    Some(queue) if queue.in_flight() > 0 => {
                        told.push(DeviceReport::Spent(number, self.take_queue(number, epoll)));
                    }
                    Some(_) => {
                        esp.set_room(number, slot.room());
                        self.set_down(number, false, esp);
                        told.push(DeviceReport::Up(number));
                    }
                }
            }
            DeviceOrder::Release(number) => {
                self.set_down(number, true, esp);
                // Handles that were left are given up while they still mean something.
                while let Some((number, sa)) = out.left.pop_front() {
                    self.remove_sa(number, sa);
                }
                let queue = self.take_queue(number, epoll);
                esp.forget_handles(number);
                if let Some(slot) = self.0.get_mut(number) {
                    slot.device = None;
                }
                told.push(DeviceReport::Released(number, queue));
            }
        }
    }

    fn set_down(&mut self, number: usize, down: bool, esp: &mut Esp) {
        if let Some(slot) = self.0.get_mut(number) {
            slot.down = down;
            esp.set_down(number, down);
        }
    }

    fn take_queue(&mut self, number: usize, epoll: &Epoll) -> Option<Box<EspQueue>> {
        let queue = self.0.get_mut(number)?.queue.take()?;
        if let Some(bell) = queue.doorbell() {
            // Others may hold the descriptor; it must not wake anybody here any more.
            let _ = epoll.remove(bell);
        }
        Some(queue)
    }

    /// Gives an SA's handle back.
    pub(crate) fn remove_sa(&self, number: usize, sa: SaId) {
        if let Some(device) = self.0.get(number).and_then(|slot| slot.device.as_ref()) {
            device.remove_sa(sa);
        }
    }

    /// Doorbells to sleep on.
    pub(crate) fn doorbells(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|slot| slot.queue.as_ref()?.doorbell())
    }

    /// Whether a queue without a doorbell has work out, so that sleeping long is out of the question. One that is down may have
    /// it out for ever.
    pub(crate) fn is_blind(&self) -> bool {
        let blind = |queue: &EspQueue| queue.doorbell().is_none() && queue.in_flight() > 0;
        self.0.iter().any(|slot| !slot.down && slot.queue.as_deref().is_some_and(blind))
    }

    /// Whether anything is out.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.iter().any(|slot| slot.queue.as_ref().is_some_and(|queue| queue.in_flight() > 0))
    }

    /// The queues, to look at.
    pub(crate) fn looks(&self) -> Vec<QueueLook> {
        let look = |slot: &Slot| {
            let Some(queue) = &slot.queue else { return QueueLook::default() };
            let out = queue.in_flight();
            QueueLook { depth: slot.room() + out, out, latency: slot.timing.taken.latency() }
        };
        self.0.iter().map(look).collect()
    }
}

impl Slot {
    fn room(&self) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        queue.room().min(OUT.saturating_sub(queue.in_flight()))
    }
}

impl Timing {
    fn submitted(&mut self, jobs: &VecDeque<EspBurst>) {
        self.passed += 1;
        if self.passed >= TIMED && self.under_way.is_none() {
            self.passed = 0;
            self.under_way = jobs.back().map(|burst| (burst.token, Instant::now()));
        }
    }

    fn done(&mut self, token: Token) {
        if let Some((_, at)) = self.under_way.take_if(|(timed, _)| *timed == token) {
            self.taken.note(at.elapsed().as_nanos().min(u128::from(u64::MAX)) as u64);
        }
    }
}
