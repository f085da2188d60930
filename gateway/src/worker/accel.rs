//! The devices: how they are, which of them serves an SA or an operation, and the queues for operations. Those for packets belong
//! to the lanes.
//!
//! | module | what it holds |
//! |---|---|
//! | `route` | which device an SA is installed on, and where it goes when that one dies |
//! | `watch`, `known` | the watchers, one for each device, and the jobs with known answers |
//! | `hear` | what watchers and lanes say of devices, and what is done about it |
//!
//! Everything here is the worker's. What lanes are to do comes out as [`Accel::orders`], what happened as [`Accel::news`].

mod hear;
mod known;
mod route;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use spi::stats::{Histogram, Latency};
use spi::{
    CryptoDone, CryptoJob, CryptoQueue, Device, DeviceDesc, Doorbell, QueueConfig, Region, ShortOps, Token,
};

use super::trials::{Trial, Trials, Wanted};
use crate::events::Notice;
use crate::plane::queues::DeviceOrder;
pub(super) use route::Seat;
#[cfg(test)]
use route::SessionId;
use route::Sessions;
use watch::{Charge, Mouth, Tally, Task, Watcher, Word};
pub(crate) use watch::{Pace, Source};

/// Sleep while a device without a doorbell has work out.
pub(super) const BLIND_WAIT: Duration = Duration::from_micros(50);

/// How a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is not open.
    Away,
    /// In use.
    Well,
    /// Being reset, after something was wrong with it.
    Ill,
}

/// One device and the queue for operations on it.
pub(super) struct Slot {
    source: Source,
    pub(super) device: Option<Arc<dyn Device>>,
    /// What it was known to be when it was open the last time.
    pub(super) desc: Option<DeviceDesc>,
    pub(super) state: State,
    since: Instant,
    /// Why it is as it is, when it is not well.
    why: String,
    /// Which lanes have a queue for packets on it, and may use it.
    lanes: Vec<bool>,
    /// Octets that it has carried for each lane.
    carried: Vec<Arc<AtomicU64>>,
    /// Lanes that have something of it, and the worker itself, while it is being closed.
    holders: usize,
    pub(super) operations: Option<Box<CryptoQueue>>,
    pub(super) jobs: VecDeque<CryptoJob>,
    /// It failed an operation: others go first, until it has given a known answer again.
    pub(super) shunned_at: Option<u64>,
    pub(super) latency: Histogram,
    pub(super) counts: Counts,
    sas: usize,
    tally: Arc<Tally>,
    tasks: Option<Sender<Task>>,
}

/// What is counted of a device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Operations that it gave back.
    pub(super) done: u64,
    /// Operations that it failed.
    pub(super) failed: u64,
    /// Operations that it never gave back.
    pub(super) lost: u64,
    /// Operations that another one was given after that.
    pub(super) reissued: u64,
    /// Completions that nobody waited for.
    pub(super) stray: u64,
    /// SAs that left it for another.
    pub(super) left: u64,
    /// SAs that came home to it.
    pub(super) returned: u64,
}

/// An operation that is out.
pub(super) struct Out {
    pub(super) slot: usize,
    pub(super) since: Instant,
    /// Seconds it has been out; seconds in which this process did not run count as one.
    pub(super) ticks: u32,
}

/// What is shown of a device.
pub(super) struct SlotView<'a> {
    pub(super) source: &'a Source,
    pub(super) device: Option<&'a dyn Device>,
    pub(super) desc: Option<&'a DeviceDesc>,
    pub(super) state: State,
    pub(super) since: Duration,
    pub(super) why: &'a str,
    pub(super) sas: usize,
    /// Octets in a second, of late.
    pub(super) load: u64,
    pub(super) operations: (usize, usize),
    pub(super) waiting: usize,
    pub(super) latency: Latency,
    pub(super) counts: Counts,
    /// Known answers: right, wrong; resets.
    pub(super) known: (u64, u64, u64),
    pub(super) trials: Vec<Trial>,
}

/// All devices, best first.
pub(super) struct Accel {
    /// Their places are the data path's numbers for them.
    pub(super) slots: Vec<Slot>,
    /// What they cost.
    pub(super) trials: Trials,
    /// What the configuration has packets transformed with.
    wanted: Arc<Mutex<Vec<Wanted>>>,
    /// Operations no device would take, or that were given up.
    pub(super) failed: VecDeque<CryptoDone>,
    pub(super) out: HashMap<Token, Out>,
    sessions: Sessions,
    /// NUMA nodes of the lanes.
    nodes: Vec<Option<u8>>,
    words: Receiver<(usize, Word)>,
    mouth: Mouth,
    pace: Pace,
    /// When operations that are out were looked at.
    pub(super) ticked: Instant,
    /// What lanes are to do.
    pub(super) orders: VecDeque<(u16, DeviceOrder)>,
    /// What happened.
    pub(super) news: Vec<Notice>,
}

/// The devices that the registry knows and the configuration names, in the order in which they are preferred.
pub(super) fn sources(config: &registry::Config) -> Vec<Source> {
    let mut all = Vec::new();
    let drivers = registry::network_drivers(config);
    let last = drivers.len().saturating_sub(1);
    for (place, driver) in drivers.into_iter().enumerate() {
        let driver: Arc<dyn spi::Driver> = Arc::from(driver);
        for desc in driver.probe() {
            // The registry says so: software is always there, and always last.
            let hardware = place < last;
            let named = config.accel.iter().find(|named| hardware && named.name == desc.id);
            let name = match driver.name() {
                name if named.is_none() && name != desc.id => format!("{name}:{}", desc.id),
                _ => desc.id.clone(),
            };
            let place = named.map(registry::Accel::place);
            let driver = Arc::clone(&driver);
            all.push(Source { name, place, configured: named.is_some(), hardware, driver, desc });
        }
    }
    // Those of the configuration first, in its order, whatever drives them.
    let order = |source: &Source| config.accel.iter().position(|named| named.name == source.name);
    all.sort_by_key(|source| order(source).unwrap_or(usize::MAX));
    all
}

impl Accel {
    /// Opens every device that opens, and tries them out. Those that do not are tried again when they are watched.
    ///
    /// # Errors
    /// Without what is missing there is no gateway.
    pub(super) fn open(sources: Vec<Source>, wanted: Vec<Wanted>, pace: Pace) -> anyhow::Result<Accel> {
        let now = Instant::now();
        let slots: Vec<Slot> = sources.into_iter().map(|source| Slot::open(source, now)).collect();
        if !slots.iter().any(|slot| slot.operations.is_some()) {
            bail!("no device does key exchanges");
        }
        let (to, words) = channel();
        let accel = Accel {
            slots,
            trials: Trials::default(),
            wanted: Arc::new(Mutex::new(Vec::new())),
            failed: VecDeque::new(),
            out: HashMap::new(),
            sessions: Sessions::default(),
            nodes: Vec::new(),
            words,
            mouth: Mouth { to, bell: Doorbell::between_threads().context("no doorbell")? },
            pace,
            ticked: now,
            orders: VecDeque::new(),
            news: Vec::new(),
        };
        accel.trials.run(&accel.numbered(), &wanted);
        accel.want(wanted);
        Ok(accel)
    }

    /// The devices, by their numbers.
    pub(super) fn devices(&self) -> Vec<Option<Arc<dyn Device>>> {
        self.slots.iter().map(|slot| slot.device.clone()).collect()
    }

    /// The open devices with their numbers.
    fn numbered(&self) -> Vec<(usize, Arc<dyn Device>)> {
        let open = |(number, slot): (usize, &Slot)| Some((number, Arc::clone(slot.device.as_ref()?)));
        self.slots.iter().enumerate().filter_map(open).collect()
    }

    fn want(&self, wanted: Vec<Wanted>) {
        *self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = wanted;
    }

    /// Tries devices out for what another configuration has.
    pub(super) fn try_out(&self, wanted: Vec<Wanted>) {
        self.trials.begin(self.numbered(), wanted.clone());
        self.want(wanted);
    }

    /// One more lane, which has a queue for packets on these devices, and counts what they carry for it.
    pub(super) fn add_lane(&mut self, there: Vec<bool>, carried: Vec<Arc<AtomicU64>>, node: Option<u8>) {
        for (slot, (there, carried)) in self.slots.iter_mut().zip(there.into_iter().zip(carried)) {
            slot.lanes.push(there);
            slot.carried.push(carried);
        }
        self.nodes.push(node);
    }

    /// Makes a pool's memory reachable for every device. One that cannot reach it is not used.
    pub(super) fn register(&mut self, region: &Arc<Region>) -> anyhow::Result<()> {
        let now = Instant::now();
        for slot in &mut self.slots {
            let Some(Err(fault)) = slot.device.as_ref().map(|device| device.register(region)) else {
                continue;
            };
            if !slot.source.hardware {
                return Err(fault)
                    .with_context(|| format!("{} cannot reach packet memory", slot.source.name));
            }
            slot.close(now, format!("it cannot reach packet memory: {fault}"));
            tracing::error!(accelerator = %slot.source.name, why = %slot.why, "an accelerator is not used");
        }
        Ok(())
    }

    /// Has every device watched, by a thread of its own.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn watch(&mut self, regions: &[Arc<Region>], lanes: &[Option<u16>]) -> anyhow::Result<()> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let charge = Charge {
                number,
                source: slot.source.clone(),
                device: slot.device.clone(),
                regions: regions.to_vec(),
                lanes: lanes.to_vec(),
                carried: slot.carried.clone(),
                trials: self.trials.clone(),
                wanted: Arc::clone(&self.wanted),
                pace: self.pace,
                tally: Arc::clone(&slot.tally),
            };
            let (tasks, given) = channel();
            let watcher = Watcher::new(charge, self.mouth.clone());
            let thread = std::thread::Builder::new().name("watcher".into());
            thread.spawn(move || watcher.run(&given)).context("no thread to watch a device")?;
            slot.tasks = Some(tasks);
        }
        Ok(())
    }

    /// The first device's short primitives.
    pub(super) fn short_ops(&self) -> anyhow::Result<Arc<dyn ShortOps>> {
        let short = self.slots.iter().find_map(|slot| slot.device.as_ref()?.short_ops());
        short.context("no device has short primitives")
    }

    /// What rings when a watcher has something to say.
    pub(super) fn bell(&self) -> &Doorbell {
        &self.mouth.bell
    }

    /// Doorbells of queues for operations to sleep on.
    pub(super) fn doorbells(&self) -> Vec<BorrowedFd<'_>> {
        self.slots.iter().filter_map(|slot| slot.operations.as_ref()?.doorbell()).collect()
    }

    /// Whether a queue without a doorbell has work out, so that sleeping long is out of the question.
    pub(super) fn is_blind(&self) -> bool {
        let blind = |queue: &CryptoQueue| queue.doorbell().is_none() && queue.in_flight() > 0;
        let blind = |slot: &Slot| slot.state == State::Well && slot.operations.as_deref().is_some_and(blind);
        self.slots.iter().any(blind)
    }

    /// The devices, to look at.
    pub(super) fn views(&self) -> impl Iterator<Item = SlotView<'_>> {
        self.slots.iter().enumerate().map(|(number, slot)| {
            let (out, room) =
                slot.operations.as_ref().map_or((0, 0), |queue| (queue.in_flight(), queue.room()));
            let (known, resets) = (slot.tally.known(), slot.tally.resets());
            SlotView {
                source: &slot.source,
                device: slot.device.as_deref(),
                desc: slot.desc.as_ref(),
                state: slot.state,
                since: slot.since.elapsed(),
                why: &slot.why,
                sas: slot.sas,
                load: slot.tally.load(),
                operations: (out, out + room),
                waiting: slot.jobs.len(),
                latency: slot.latency.latency(),
                counts: slot.counts,
                known: (known.0, known.1, resets),
                trials: self.trials.of(number),
            }
        })
    }
}

impl Slot {
    fn open(source: Source, now: Instant) -> Slot {
        let mut slot = Slot {
            source,
            device: None,
            desc: None,
            state: State::Away,
            since: now,
            why: String::new(),
            lanes: Vec::new(),
            carried: Vec::new(),
            holders: 0,
            operations: None,
            jobs: VecDeque::new(),
            shunned_at: None,
            latency: Histogram::new(),
            counts: Counts::default(),
            sas: 0,
            tally: Arc::default(),
            tasks: None,
        };
        match slot.source.open() {
            Ok(device) => {
                slot.operations = device.crypto_queue(QueueConfig::default());
                slot.desc = Some(device.desc().clone());
                slot.device = Some(device);
                slot.state = State::Well;
            }
            Err(why) => {
                slot.why = why;
                let (accelerator, why) = (&slot.source.name, &slot.why);
                tracing::error!(%accelerator, %why, "an accelerator does not open; the gateway goes on without it");
            }
        }
        slot
    }

    fn close(&mut self, now: Instant, why: String) {
        (self.state, self.since, self.why) = (State::Away, now, why);
        (self.device, self.operations) = (None, None);
        self.lanes.fill(false);
    }

    /// Passes it over for operations until it has given a known answer.
    pub(super) fn shun(&mut self) {
        self.shunned_at = Some(self.tally.known().0);
    }

    pub(super) fn is_shunned(&self) -> bool {
        self.shunned_at == Some(self.tally.known().0)
    }

    /// Something that only an ill device does was seen.
    pub(super) fn suspect(&self, why: &'static str) {
        self.tell(Task::Suspect(why));
    }

    /// Gives a queue back, and asks for another.
    pub(super) fn exchange(&self, queue: Box<CryptoQueue>) {
        self.tell(Task::SpentOperations(queue));
        self.tell(Task::Operations);
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.source.name
    }

    /// Whether it is anything but software.
    pub(super) fn is_hardware(&self) -> bool {
        self.source.hardware
    }

    fn tell(&self, task: Task) {
        // A watcher ends when its thread panicked; then nothing more is known of the device than now.
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(task);
        }
    }
}
