//! A card in this process: registers, memory, interrupts, time.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use emu_model::fault::Fault;
use emu_model::{Access, Clock, IrqError, MapError, Space, Time, Window};

use crate::counters::Counters;
use crate::device::Device;
use crate::engine::{ENGINES, Engine};
use crate::options::Options;
use crate::personality::Personality;

/// An emulated virtual function, as its driver would have it from VFIO: configuration space, two BARs of registers,
/// memory that it may reach, and one interrupt. Clones are the same card, which ends with the last of them.
///
/// A card that [runs](Card::running) has threads and works by itself, in real time. One that is [stepped](Card::stepped)
/// has none and does nothing until it is told how much time has gone by; then a seed and the order of calls decide
/// everything. Neither ever completes a request within the register write that announces it.
#[derive(Clone)]
pub struct Card(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    inside: Mutex<Inside>,
    clock: Clock,
    space: Arc<Space>,
    personality: Personality,
    /// The timeline has changed.
    tick: Condvar,
    /// There is work for an engine.
    work: Condvar,
}

struct Inside {
    device: Device,
    stopping: bool,
}

/// Which interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The only vector of MSI: rings and mailbox.
    Msi,
    /// An error that cannot be corrected.
    Error,
    /// The card wants to be given back, or is gone already.
    Request,
}

impl Card {
    /// A card that works by itself.
    ///
    /// # Errors
    /// The system has no threads left.
    pub fn running(personality: Personality, options: &Options) -> io::Result<Card> {
        let shared = Arc::new(Shared::new(personality, options, Clock::running()));
        let mut inner = Inner { shared: Arc::clone(&shared), threads: Vec::new() };
        let mut spawn = |name: &str, run: Box<dyn FnOnce(&Shared) + Send>| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("qat {personality} {name}"));
            inner.threads.push(builder.spawn(move || run(&shared))?);
            Ok::<(), io::Error>(())
        };
        spawn("clock", Box::new(Shared::keep_time))?;
        spawn("sym", Box::new(|shared| shared.run_engine(Engine::Symmetric)))?;
        spawn("asym", Box::new(|shared| shared.run_engine(Engine::Asymmetric)))?;
        Ok(Card(Arc::new(inner)))
    }

    /// A card whose time stands still between calls of [`advance`](Card::advance).
    pub fn stepped(personality: Personality, options: &Options) -> Card {
        let shared = Arc::new(Shared::new(personality, options, Clock::stepped()));
        Card(Arc::new(Inner { shared, threads: Vec::new() }))
    }

    /// Reads from configuration space; what is beyond it reads as zero.
    pub fn read_config(&self, offset: u16, into: &mut [u8]) {
        self.shared().lock().device.read_config(usize::from(offset), into);
    }

    /// Writes to configuration space. A write that sets bit 15 of the PCI Express device control register (0x88) is a
    /// function-level reset; memory can be reached and interrupts are sent only while bit 2 of the command register
    /// (0x04) is set.
    pub fn write_config(&self, offset: u16, from: &[u8]) {
        self.shared().change(|device, now| device.write_config(usize::from(offset), from, now));
    }

    /// Reads a register of 32 bits of BAR 0 (rings) or 2 (mailbox). What is not there reads as zero, everything reads as
    /// ones while the card is being reset or gone.
    pub fn read32(&self, bar: u8, offset: u32) -> u32 {
        self.shared().lock().device.read(u32::from(bar), u64::from(offset) & !3)
    }

    /// Writes a register. Mailbox messages are answered before this returns; a doorbell is only noted.
    pub fn write32(&self, bar: u8, offset: u32, value: u32) {
        let offset = u64::from(offset) & !3;
        self.shared().change(|device, now| device.write(u32::from(bar), offset, value, now));
    }

    /// Octets of a BAR; 0 where there is none.
    pub fn bar_len(&self, bar: u8) -> u64 {
        let [rings, mailbox] = self.shared().personality.layout().bar_len;
        match bar {
            0 => rings,
            2 => mailbox,
            _ => 0,
        }
    }

    /// Lets the card reach `len` octets of a file, from `offset` on, at `iova`. A memfd should allow seals
    /// (`MFD_ALLOW_SEALING`): the card seals it against becoming shorter and maps it; others it reaches by system calls.
    ///
    /// # Errors
    /// The window is not inside the file, or overlaps another.
    pub fn map(&self, iova: u64, file: OwnedFd, offset: u64, len: u64) -> Result<(), MapError> {
        let access = Access { read: true, write: true };
        self.shared().space.map(Window { iova, len, offset, access }, Some(file))
    }

    /// Takes memory away. When this returns, the card no longer touches it.
    ///
    /// # Errors
    /// The range ends within a window.
    pub fn unmap(&self, iova: u64, len: u64) -> Result<(), MapError> {
        self.shared().space.unmap(iova, len).map(|_| ())
    }

    /// Connects an interrupt with an eventfd, or disconnects it.
    ///
    /// # Errors
    /// It is no eventfd.
    pub fn connect(&self, interrupt: Interrupt, eventfd: Option<OwnedFd>) -> Result<(), IrqError> {
        let mut inside = self.shared().lock();
        inside.device.vectors(interrupt).connect(0, eventfd)
    }

    /// A function-level reset. What was under way is lost and reaches memory no more.
    pub fn reset(&self) {
        self.shared().change(|device, now| device.reset(now));
    }

    /// Lets time go by on a stepped card, and everything happen that is due. A running card takes no notice.
    pub fn advance(&self, by: Duration) {
        self.shared().advance(by);
    }

    /// How old the card is.
    pub fn age(&self) -> Duration {
        self.shared().clock.now().since(Time::ZERO)
    }

    /// Adds a fault. One that nothing but the clock sets off happens as soon as its time has come.
    pub fn inject(&self, fault: Fault) {
        self.shared().lock().device.faults.arm(fault);
        self.shared().tick.notify_all();
    }

    /// Forgets all faults that have not happened.
    pub fn clear_faults(&self) {
        self.shared().lock().device.faults.disarm();
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let mut inside = self.shared().lock();
        let struck = inside.device.faults.struck().clone();
        inside.device.counters.faults = struck.values().sum();
        inside.device.counters.faults_by_kind = struck;
        inside.device.counters.clone()
    }

    /// Which card it is.
    pub fn personality(&self) -> Personality {
        self.shared().personality
    }

    pub(crate) fn space(&self) -> &Space {
        &self.shared().space
    }

    /// Somebody else may use it from now on: no memory, no interrupts, nothing left of what was.
    pub(crate) fn let_go(&self) {
        self.shared().change(|device, now| {
            device.reset(now);
            for interrupt in [Interrupt::Msi, Interrupt::Error, Interrupt::Request] {
                device.vectors(interrupt).disconnect_all();
            }
        });
        self.shared().space.clear();
    }

    pub(crate) fn with_vectors<T>(
        &self,
        interrupt: Interrupt,
        act: impl FnOnce(&mut emu_model::Vectors) -> T,
    ) -> T {
        act(self.shared().lock().device.vectors(interrupt))
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl Shared {
    fn new(personality: Personality, options: &Options, clock: Clock) -> Self {
        let space = Arc::new(Space::new());
        let device = Device::new(personality, options, Arc::clone(&space));
        Shared {
            inside: Mutex::new(Inside { device, stopping: false }),
            clock,
            space,
            personality,
            tick: Condvar::new(),
            work: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the device, and wakes the clock if it has to look sooner than it had meant to.
    fn change(&self, act: impl FnOnce(&mut Device, Time)) {
        let mut inside = self.lock();
        let before = inside.device.timeline.next();
        act(&mut inside.device, self.clock.now());
        let after = inside.device.timeline.next();
        drop(inside);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.tick.notify_all();
        }
    }

    /// The thread that does what is due.
    fn keep_time(&self) {
        let mut inside = self.lock();
        while !inside.stopping {
            let next = inside.device.turn(self.clock.now());
            if inside.device.waiting.iter().any(|waiting| !waiting.is_empty()) {
                self.work.notify_all();
            }
            inside = match next.and_then(|next| self.clock.wait_for(next)) {
                Some(wait) if wait.is_zero() => inside,
                Some(wait) => self.tick.wait_timeout(inside, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.tick.wait(inside).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The thread of an engine.
    fn run_engine(&self, engine: Engine) {
        let mut inside = self.lock();
        while !inside.stopping {
            let Some(job) = inside.device.next_job(engine) else {
                inside = self.work.wait(inside).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(inside);
            let outcome = job.work(&self.space);
            inside = self.lock();
            inside.device.on_done(&job, outcome, self.clock.now());
            self.tick.notify_all();
        }
    }

    /// Does what the threads do, up to a time.
    fn advance(&self, by: Duration) {
        let Clock::Stepped(_) = self.clock else { return };
        let target = self.clock.now().after(by);
        let mut inside = self.lock();
        loop {
            let now = self.clock.now();
            let next = inside.device.turn(now);
            let mut worked = false;
            for engine in ENGINES {
                while let Some(job) = inside.device.next_job(engine) {
                    let outcome = job.work(&self.space);
                    inside.device.on_done(&job, outcome, now);
                    worked = true;
                }
            }
            if worked {
                continue;
            }
            match next {
                Some(next) if next <= target => self.clock.step_to(next),
                _ => break,
            }
        }
        self.clock.step_to(target);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.tick.notify_all();
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
