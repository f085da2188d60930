//! A device's watcher: a thread that opens it, asks it for known answers, resets it when it is ill, and opens queues on it.
//!
//! ```text
//!            opened                 wrong, late or no answer; not ready; somebody has a suspicion
//!   away ─────────────► well ─────────────────────────────────────────────► resetting
//!    ▲  asked every       ▲             ready again, and a known answer         │ │
//!    │  few seconds       └─────────────────────────────────────────────────────┘ │
//!    └──────────────── leaving ◄──────────────────────────────────────────────────┘
//!        everybody has given back what he had          it will not come back by itself
//! ```
//!
//! Whatever may take its time happens here: opening, measuring, registering memory, and dropping queues, which waits until the
//! device can no longer write to what they hold. The worker hears [`Word`]s and gives [`Task`]s, and neither waits for the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spi::caps::Traits;
use spi::{CryptoQueue, Device, DeviceDesc, Doorbell, Driver, EspQueue, Health, QueueConfig, Region};

use super::known::{KnownAnswers, Wrong};
use crate::worker::trials::{Trials, Wanted};

/// How often, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two jobs with known answers. With `patience` it is how long a device that falls silent is believed.
    pub(crate) every: Duration,
    /// How long an answer may take.
    pub(crate) patience: Duration,
    /// Between two looks at whether the device says that it is ready.
    pub(crate) look: Duration,
    /// Between two attempts to open a device that does not open.
    pub(crate) again: Duration,
    /// A device that is ill again so soon after it got well has to wait, each time twice as long.
    pub(crate) relapse: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            every: Duration::from_millis(200),
            patience: Duration::from_millis(400),
            look: Duration::from_millis(50),
            again: Duration::from_secs(5),
            relapse: Duration::from_secs(60),
        }
    }
}

/// The first wait of a device that had a relapse, and the longest.
const WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a watcher is told.
pub(super) enum Task {
    /// Something that only an ill device does was seen.
    Suspect(&'static str),
    /// Nobody needs this queue any more.
    Spent(Box<EspQueue>),
    /// Nor this one.
    SpentOperations(Box<CryptoQueue>),
    /// This lane needs a queue for packets.
    Queue(u16),
    /// A queue for operations is needed.
    Operations,
    /// Nobody has anything of the device any more.
    Released,
}

/// What a watcher says of its device.
pub(super) enum Word {
    /// It is open, and these queues on it are for the lanes.
    Opened {
        device: Arc<dyn Device>,
        queues: Vec<Option<Box<EspQueue>>>,
        operations: Option<Box<CryptoQueue>>,
    },
    /// It does not open.
    Away(String),
    /// It is ill, and is being reset.
    Ill(String),
    /// It is well again; nothing that was installed is there any more.
    Well,
    /// It will not get well; when everybody has let go of it, it is opened anew.
    Dead,
    /// A queue for packets, if there was one left.
    Queue(u16, Option<Box<EspQueue>>),
    /// A queue for operations.
    Operations(Option<Box<CryptoQueue>>),
}

/// Where to find a device.
#[derive(Clone)]
pub(crate) struct Source {
    /// What people call it.
    pub(crate) name: String,
    /// Where it is, if the name does not say so.
    pub(crate) place: Option<String>,
    /// Whether somebody asked for it; otherwise it is there by itself.
    pub(crate) configured: bool,
    /// Whether it is anything but software.
    pub(crate) hardware: bool,
    pub(crate) driver: Arc<dyn Driver>,
    /// Which of the driver's, as it was probed.
    pub(crate) desc: DeviceDesc,
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn open(&self) -> Result<Arc<dyn Device>, String> {
        self.driver.open(&self.desc).map_err(|fault| {
            let told = self.driver.unusable().into_iter().find(|device| device.id == self.desc.id);
            told.map_or_else(|| fault.to_string(), |device| device.why)
        })
    }
}

/// What is counted of known answers.
#[derive(Default)]
pub(super) struct Tally {
    passed: AtomicU64,
    failed: AtomicU64,
    /// Resets that were begun, for that or another reason.
    resets: AtomicU64,
    /// Octets that it carries in a second, of late.
    load: AtomicU64,
}

impl Tally {
    /// Right and wrong ones.
    pub(super) fn known(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self) -> u64 {
        self.load.load(Ordering::Relaxed)
    }
}

/// What a watcher needs to know.
pub(super) struct Charge {
    pub(super) number: usize,
    pub(super) source: Source,
    pub(super) device: Option<Arc<dyn Device>>,
    /// Memory for packets, of all lanes.
    pub(super) regions: Vec<Arc<Region>>,
    /// The cores of the lanes.
    pub(super) lanes: Vec<Option<u16>>,
    /// What it has carried for each of them, octets.
    pub(super) carried: Vec<Arc<AtomicU64>>,
    pub(super) trials: Trials,
    pub(super) wanted: Arc<Mutex<Vec<Wanted>>>,
    pub(super) pace: Pace,
    pub(super) tally: Arc<Tally>,
}

/// Where words go.
#[derive(Clone)]
pub(super) struct Mouth {
    pub(super) to: Sender<(usize, Word)>,
    pub(super) bell: Doorbell,
}

/// Where it stands with a device.
enum Stage {
    Away { again: Instant },
    Well { next: Instant },
    Resetting,
    Leaving,
}

/// The watcher.
pub(super) struct Watcher {
    charge: Charge,
    mouth: Mouth,
    stage: Stage,
    known: Option<KnownAnswers>,
    /// When it got well the last time.
    recovered: Option<Instant>,
    /// Not before this is it well again.
    not_before: Instant,
    wait: Duration,
    said: String,
    scales: Scales,
}

impl Watcher {
    pub(super) fn new(charge: Charge, mouth: Mouth) -> Watcher {
        let now = Instant::now();
        // The first known answer is asked for at once, and so is a device that did not open.
        let stage = match charge.device {
            Some(_) => Stage::Well { next: now },
            None => Stage::Away { again: now + charge.pace.again },
        };
        Watcher {
            charge,
            mouth,
            stage,
            known: None,
            recovered: None,
            not_before: now,
            wait: Duration::ZERO,
            said: String::new(),
            scales: Scales { octets: 0, since: now, load: 0.0 },
        }
    }

    /// Watches until nobody gives tasks any more.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        let Pace { look, every, .. } = self.charge.pace;
        // Software does not fall ill between two answers.
        let look = if self.charge.source.hardware { look } else { every };
        loop {
            match tasks.recv_timeout(look) {
                Ok(task) => self.carry_out(task),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            let carried = self.charge.carried.iter().map(|octets| octets.load(Ordering::Relaxed));
            if let Some(load) = self.scales.weigh(now, carried.fold(0, u64::wrapping_add)) {
                self.charge.tally.load.store(load, Ordering::Relaxed);
            }
            self.step(now);
        }
    }

    fn carry_out(&mut self, task: Task) {
        match task {
            Task::Suspect(why) if matches!(self.stage, Stage::Well { .. }) => self.ill(why.to_owned(), true),
            Task::Suspect(_) => {}
            Task::Spent(queue) => drop(queue),
            Task::SpentOperations(queue) => drop(queue),
            Task::Queue(lane) => {
                let queue = self.charge.device.as_ref().and_then(|device| self.queue(&**device, lane));
                self.say(Word::Queue(lane, queue));
            }
            Task::Operations => {
                let queue = self.charge.device.as_ref();
                let queue = queue.and_then(|device| device.crypto_queue(QueueConfig::default()));
                self.say(Word::Operations(queue));
            }
            Task::Released => {
                self.known = None;
                self.charge.device = None;
                self.stage = Stage::Away { again: Instant::now() };
            }
        }
    }

    fn step(&mut self, now: Instant) {
        match self.stage {
            Stage::Away { again } if again <= now => self.open(now),
            Stage::Well { next } => match self.health() {
                Health::Ready if next <= now => self.ask(now),
                Health::Ready => {}
                Health::Resetting => self.ill("it is being reset".to_owned(), false),
                Health::Failed => self.ill("it says that it has failed".to_owned(), false),
            },
            Stage::Resetting => match self.health() {
                Health::Ready if self.not_before <= now => self.come_back(now),
                Health::Ready | Health::Resetting => {}
                Health::Failed => {
                    self.stage = Stage::Leaving;
                    self.say(Word::Dead);
                }
            },
            Stage::Away { .. } | Stage::Leaving => {}
        }
    }

    fn open(&mut self, now: Instant) {
        match self.try_open() {
            Ok(()) => {
                self.said.clear();
                self.stage = Stage::Well { next: now + self.charge.pace.every };
            }
            Err(why) => {
                self.known = None;
                self.charge.device = None;
                self.stage = Stage::Away { again: now + self.charge.pace.again };
                if self.said != why {
                    self.said.clone_from(&why);
                    self.say(Word::Away(why));
                }
            }
        }
    }

    fn try_open(&mut self) -> Result<(), String> {
        let device = self.charge.source.open()?;
        for region in &self.charge.regions {
            device.register(region).map_err(|fault| format!("it cannot reach packet memory: {fault}"))?;
        }
        let wanted = self.charge.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.charge.trials.run(&[(self.charge.number, Arc::clone(&device))], &wanted);
        self.charge.device = Some(Arc::clone(&device));
        self.answers_are_right().map_err(|wrong| match wrong {
            Wrong::Forgot => "it forgets what is installed".to_owned(),
            Wrong::Ill(why) => why,
        })?;
        let lanes = 0..self.charge.lanes.len() as u16;
        let queues = lanes.map(|lane| self.queue(&*device, lane)).collect();
        let operations = device.crypto_queue(QueueConfig::default());
        self.say(Word::Opened { device, queues, operations });
        Ok(())
    }

    fn queue(&self, device: &dyn Device, lane: u16) -> Option<Box<EspQueue>> {
        let cpu = self.charge.lanes.get(usize::from(lane)).copied().flatten();
        device.esp_queue(QueueConfig { cpu, ..QueueConfig::default() })
    }

    fn ask(&mut self, now: Instant) {
        self.stage = Stage::Well { next: now + self.charge.pace.every };
        match self.answers_are_right() {
            Ok(()) => {}
            // Whoever did it, it is over; what is installed on it must be installed anew.
            Err(Wrong::Forgot) => self.ill("it was reset".to_owned(), false),
            Err(Wrong::Ill(why)) => self.ill(why, true),
        }
    }

    fn answers_are_right(&mut self) -> Result<(), Wrong> {
        let Some(device) = &self.charge.device else { return Ok(()) };
        let result = match &mut self.known {
            Some(known) => known.ask(self.charge.pace.patience),
            None => KnownAnswers::new(&**device, self.charge.source.hardware).and_then(|known| {
                let known = self.known.insert(known);
                known.ask(self.charge.pace.patience)
            }),
        };
        let asks = self.known.as_ref().is_none_or(KnownAnswers::asks);
        let count = if result.is_ok() { &self.charge.tally.passed } else { &self.charge.tally.failed };
        count.fetch_add(asks.into(), Ordering::Relaxed);
        result
    }

    /// The device is not to be trusted any more.
    fn ill(&mut self, why: String, reset: bool) {
        if !self.charge.source.hardware {
            // There is nothing behind software that could take over, and a reset would only throw away what works.
            self.known = None;
            if self.said != why {
                tracing::error!(device = %self.charge.source.name, %why, "software gives wrong answers");
                self.said = why;
            }
            return;
        }
        let now = Instant::now();
        let relapse = self.recovered.is_some_and(|at| now.duration_since(at) < self.charge.pace.relapse);
        self.wait = if relapse { (self.wait * 2).clamp(WAIT, LONGEST_WAIT) } else { Duration::ZERO };
        let Some(device) = self.charge.device.clone() else { return };
        self.say(Word::Ill(why));
        if reset {
            self.charge.tally.resets.fetch_add(1, Ordering::Relaxed);
            device.begin_reset();
        }
        if !device.desc().caps.traits.contains(Traits::RECOVERS) {
            self.stage = Stage::Leaving;
            return self.say(Word::Dead);
        }
        self.not_before = now + self.wait;
        self.stage = Stage::Resetting;
    }

    /// It says that it is ready; it is believed when it answers.
    fn come_back(&mut self, now: Instant) {
        // A queue that waits for an answer is of no use, and what was installed is gone.
        if let (Some(known), Some(device)) = (self.known.take(), &self.charge.device) {
            known.remove(&**device);
        }
        match self.answers_are_right() {
            Ok(()) => {
                self.recovered = Some(now);
                self.stage = Stage::Well { next: now + self.charge.pace.every };
                self.say(Word::Well);
            }
            Err(_) => {
                self.wait = (self.wait * 2).clamp(WAIT, LONGEST_WAIT);
                self.not_before = now + self.wait;
                self.charge.tally.resets.fetch_add(1, Ordering::Relaxed);
                if let Some(device) = &self.charge.device {
                    device.begin_reset();
                }
            }
        }
    }

    fn health(&self) -> Health {
        self.charge.device.as_ref().map_or(Health::Failed, |device| device.health())
    }

    fn say(&self, word: Word) {
        // When the worker has ended, nobody is left to care.
        if self.mouth.to.send((self.charge.number, word)).is_ok() {
            self.mouth.bell.ring();
        }
    }
}

/// What a device carries: a mean in which what was long ago counts less and less.
struct Scales {
    /// Octets so far, when it was weighed the last time.
    octets: u64,
    since: Instant,
    load: f64,
}

/// Between two weighings.
const WEIGHED: Duration = Duration::from_millis(100);
/// After so long, what was before counts a third.
const MEMORY: Duration = Duration::from_secs(2);

impl Scales {
    /// Octets in a second, if it is time to say so.
    fn weigh(&mut self, now: Instant, octets: u64) -> Option<u64> {
        let passed = now.duration_since(self.since);
        if passed < WEIGHED {
            return None;
        }
        let load = octets.wrapping_sub(self.octets) as f64 / passed.as_secs_f64();
        let old = (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.load = self.load * old + load * (1.0 - old);
        (self.octets, self.since) = (octets, now);
        Some(self.load as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_follows_what_is_carried_and_forgets_what_was() {
        let begun = Instant::now();
        let mut scales = Scales { octets: 0, since: begun, load: 0.0 };
        assert_eq!(scales.weigh(begun + Duration::from_millis(50), 1 << 30), None, "too soon");
        let (mut octets, mut load) = (0, 0);
        for tenth in 1..=100 {
            octets += 1_000_000;
            load = scales.weigh(begun + tenth * WEIGHED, octets).unwrap();
        }
        assert!((9_800_000..=10_000_000).contains(&load), "{load}");
        let later = scales.weigh(begun + 100 * WEIGHED + MEMORY, octets).unwrap();
        assert!((3_000_000..4_000_000).contains(&later), "{later}");
        assert_eq!(scales.weigh(begun + Duration::from_secs(3600), octets), Some(0));
    }
}
