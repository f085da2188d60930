//! A device that falls ill on request, out of one that is well.
//!
//! A test keeps the [`Patient`] and changes its [`Ailment`]; the device, its queues, and devices that are opened later by the same
//! driver follow at once. A reset brings home what is out, as it should, but cures nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spi::caps::Traits;
use spi::{
    Closed, Completions, CryptoDone, CryptoJob, CryptoOutput, CryptoQueue, Device, DeviceDesc, Driver,
    EspBurst, EspQueue, Fault, FaultKind, Health, Outcome, Polled, Queue, QueueConfig, SaId, SaParams,
    Unusable,
};

use crate::layer::{Layer, Over};

/// What ails it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ailment {
    /// Nothing.
    None,
    /// Jobs go in and nothing comes out.
    Silent,
    /// As before, and not even a reset brings home what went in. No device may do that; some will.
    Hoarding,
    /// Every result is wrong, and said to be right.
    Lying,
    /// Every job fails.
    Failing,
    /// It says that it is being reset, without end.
    Restarting,
    /// It says that it has failed. What was out comes home.
    Dead,
}

const ALL: [Ailment; 7] = [
    Ailment::None,
    Ailment::Silent,
    Ailment::Hoarding,
    Ailment::Lying,
    Ailment::Failing,
    Ailment::Restarting,
    Ailment::Dead,
];

#[derive(Default)]
struct Chart {
    ailment: AtomicU8,
    /// Counts resets: what was submitted before the last one comes home aborted.
    resets: AtomicU64,
    /// It cannot be found.
    absent: AtomicBool,
    /// Packets and operations done.
    done: AtomicU64,
    /// Devices open.
    open: AtomicU64,
    inner: Mutex<Vec<Arc<dyn Device>>>,
}

impl Chart {
    fn ailment(&self) -> Ailment {
        ALL[usize::from(self.ailment.load(Ordering::SeqCst))]
    }
}

/// A test's hold on a device.
#[derive(Clone, Default)]
pub struct Patient(Arc<Chart>);

impl Patient {
    /// One that is well.
    pub fn new() -> Patient {
        Patient::default()
    }

    /// A driver of one device over another driver's first one; without `recovers` it has to be opened anew after a reset.
    pub fn driver<D: Driver>(&self, inner: D, recovers: bool) -> FaultyDriver<D> {
        FaultyDriver { inner, chart: Arc::clone(&self.0), recovers }
    }

    /// Makes it ill, or well.
    pub fn set(&self, ailment: Ailment) {
        self.0.ailment.store(ailment as u8, Ordering::SeqCst);
    }

    /// Takes it out of the machine, or puts it in; only its driver notices.
    pub fn set_absent(&self, absent: bool) {
        self.0.absent.store(absent, Ordering::SeqCst);
    }

    /// Makes it forget what is installed on it.
    pub fn forget(&self) {
        self.0
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .for_each(|device| device.begin_reset());
    }

    /// Packets and operations it has done.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::SeqCst)
    }

    /// How often it was reset.
    pub fn resets(&self) -> u64 {
        self.0.resets.load(Ordering::SeqCst)
    }

    /// How many of it are open.
    pub fn open(&self) -> u64 {
        self.0.open.load(Ordering::SeqCst)
    }
}

/// What is done to jobs.
trait Job: Send + Sized {
    type Done: Send;
    fn fail(self, kind: FaultKind) -> Self::Done;
    fn spoil(done: &mut Self::Done);
    fn fail_done(done: Self::Done) -> Self::Done;
    /// Packets or operations in it.
    fn count(done: &Self::Done) -> u64;
}

impl Job for EspBurst {
    type Done = EspBurst;

    fn fail(mut self, kind: FaultKind) -> EspBurst {
        self.buf.ops_mut().iter_mut().for_each(|op| op.outcome = Outcome::Failed(kind.into()));
        self
    }

    fn spoil(burst: &mut EspBurst) {
        let (bytes, ops) = burst.buf.split_mut();
        for op in ops.iter_mut().filter(|op| !matches!(op.outcome, Outcome::Failed(_))) {
            // A refusal becomes an agreement, and everything else something else.
            op.outcome = Outcome::Done;
            if let Some(octet) = bytes.get_mut(op.at as usize + usize::from(op.len) / 2) {
                *octet ^= 0x10;
            }
        }
    }

    fn fail_done(burst: EspBurst) -> EspBurst {
        burst.fail(FaultKind::Internal)
    }

    fn count(burst: &EspBurst) -> u64 {
        burst.buf.ops().len() as u64
    }
}

impl Job for CryptoJob {
    type Done = CryptoDone;

    fn fail(self, kind: FaultKind) -> CryptoDone {
        let outcome = Outcome::Failed(kind.into());
        CryptoDone { token: self.token, outcome, output: CryptoOutput::None }
    }

    fn spoil(done: &mut CryptoDone) {
        if let CryptoOutput::Secret(secret) = &done.output {
            let mut wrong = secret.expose().to_vec();
            wrong.iter_mut().for_each(|octet| *octet ^= 0x10);
            done.output = CryptoOutput::Secret(spi::Secret::new(wrong));
        }
    }

    fn fail_done(done: CryptoDone) -> CryptoDone {
        let outcome = Outcome::Failed(FaultKind::Internal.into());
        CryptoDone { token: done.token, outcome, output: CryptoOutput::None }
    }

    fn count(_: &CryptoDone) -> u64 {
        1
    }
}

struct FaultyQueue<J: Job> {
    inner: Box<dyn Queue<Job = J, Done = J::Done>>,
    chart: Arc<Chart>,
    /// What went into a silent device, and the resets there had been then.
    held: VecDeque<(u64, bool, J)>,
}

impl<J: Job> Queue for FaultyQueue<J> {
    type Job = J;
    type Done = J::Done;

    fn submit(&mut self, jobs: &mut VecDeque<J>) -> Result<usize, Closed> {
        let ailment = self.chart.ailment();
        match ailment {
            Ailment::Restarting | Ailment::Dead => Err(Closed),
            Ailment::Silent | Ailment::Hoarding => {
                let taken = self.room().min(jobs.len());
                let resets = self.chart.resets.load(Ordering::SeqCst);
                let hoarded = ailment == Ailment::Hoarding;
                self.held.extend(jobs.drain(..taken).map(|job| (resets, hoarded, job)));
                Ok(taken)
            }
            _ => {
                let fits = self.room().min(jobs.len());
                let later = jobs.split_off(fits);
                let taken = self.inner.submit(jobs);
                jobs.extend(later);
                taken
            }
        }
    }

    fn poll(&mut self, budget: usize, to: &mut dyn Completions<J::Done>) -> Polled {
        let ailment = self.chart.ailment();
        let resets = self.chart.resets.load(Ordering::SeqCst);
        let mut delivered = 0;
        let stopped = matches!(ailment, Ailment::Restarting | Ailment::Dead);
        let mut stay = VecDeque::new();
        while let Some((at, hoarded, job)) = self.held.pop_front() {
            if delivered < budget && !hoarded && (at < resets || stopped) {
                delivered += 1;
                to.on_done(job.fail(FaultKind::Aborted));
            } else {
                stay.push_back((at, hoarded, job));
            }
        }
        self.held = stay;
        let polled = match ailment {
            Ailment::Silent | Ailment::Hoarding => Polled::default(),
            _ => self.inner.poll(budget - delivered, &mut |mut done: J::Done| {
                self.chart.done.fetch_add(J::count(&done), Ordering::SeqCst);
                match ailment {
                    Ailment::Lying => J::spoil(&mut done),
                    Ailment::Failing => done = J::fail_done(done),
                    _ => {}
                }
                to.on_done(done);
            }),
        };
        Polled { delivered: delivered + polled.delivered, more: polled.more }
    }

    fn room(&self) -> usize {
        self.inner.room().saturating_sub(self.held.len())
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.held.len()
    }

    // No doorbell: nobody could ring for what a reset brings home.
}

/// A device that may be ill.
pub struct FaultyDevice {
    inner: Arc<dyn Device>,
    desc: DeviceDesc,
    chart: Arc<Chart>,
}

impl Drop for FaultyDevice {
    fn drop(&mut self) {
        self.chart.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Over for FaultyDevice {
    fn inner(&self) -> &Arc<dyn Device> {
        &self.inner
    }

    fn desc(&self) -> &DeviceDesc {
        &self.desc
    }

    fn esp_queue(&self, config: QueueConfig) -> Option<Box<EspQueue>> {
        let (inner, chart) = (self.inner.esp_queue(config)?, Arc::clone(&self.chart));
        Some(Box::new(FaultyQueue::<EspBurst> { inner, chart, held: VecDeque::new() }))
    }

    fn crypto_queue(&self, config: QueueConfig) -> Option<Box<CryptoQueue>> {
        let (inner, chart) = (self.inner.crypto_queue(config)?, Arc::clone(&self.chart));
        Some(Box::new(FaultyQueue::<CryptoJob> { inner, chart, held: VecDeque::new() }))
    }

    fn install_sa(&self, sa: &SaParams) -> Result<SaId, Fault> {
        match self.health() {
            Health::Ready => self.inner.install_sa(sa),
            _ => Err(FaultKind::Aborted.into()),
        }
    }

    fn health(&self) -> Health {
        match self.chart.ailment() {
            Ailment::Restarting => Health::Resetting,
            Ailment::Dead => Health::Failed,
            _ => Health::Ready,
        }
    }

    fn begin_reset(&self) {
        self.inner.begin_reset();
        self.chart.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// A driver whose one device may be ill, or absent.
pub struct FaultyDriver<D> {
    inner: D,
    chart: Arc<Chart>,
    recovers: bool,
}

impl<D: Driver> Driver for FaultyDriver<D> {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        let mut found: Vec<DeviceDesc> = self.inner.probe().into_iter().take(1).collect();
        for desc in &mut found {
            desc.caps.traits.set(Traits::RECOVERS, self.recovers);
            desc.caps.traits.insert(Traits::ASYNCHRONOUS);
        }
        found
    }

    fn unusable(&self) -> Vec<Unusable> {
        if !self.chart.absent.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let why = "there is no such device".to_owned();
        self.probe().into_iter().map(|desc| Unusable { id: desc.id, why: why.clone() }).collect()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        // A dead one does not open either, and one that is still open is taken.
        let free = self.chart.ailment() != Ailment::Dead && self.chart.open.load(Ordering::SeqCst) == 0;
        if self.chart.absent.load(Ordering::SeqCst) || !free {
            return Err(FaultKind::Exhausted.into());
        }
        let inner = self.inner.open(desc)?;
        *self.chart.inner.lock().unwrap_or_else(PoisonError::into_inner) = vec![Arc::clone(&inner)];
        self.chart.open.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Layer(FaultyDevice { inner, desc: desc.clone(), chart: Arc::clone(&self.chart) })))
    }
}
