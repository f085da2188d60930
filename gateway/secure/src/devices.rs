//! The devices of the key side, their queues, and who does what: a key signs where it was opened, verification goes to the
//! first device that knows the scheme.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use spi::crypto::KeyInfo;
use spi::{
    CryptoDone, CryptoJob, CryptoQueue, Device, Fault, FaultKind, KeyId, KeySource, QueueConfig, ShortOps,
    SignScheme,
};

/// Completions taken from one queue in one turn.
const BUDGET: usize = 64;

struct Slot {
    device: Arc<dyn Device>,
    queue: Box<CryptoQueue>,
    waiting: VecDeque<CryptoJob>,
}

/// Open devices, best first.
pub(crate) struct Devices {
    slots: Vec<Slot>,
    /// Why others are not there.
    missing: Vec<String>,
    short: Arc<dyn ShortOps>,
}

/// Names a device in [`Devices`].
pub(crate) type Place = usize;

impl Devices {
    /// Opens a queue on every device that has one; `missing` says why others did not open. `None` when no device has short
    /// primitives or none has a queue.
    pub(crate) fn new(devices: Vec<Arc<dyn Device>>, missing: Vec<String>) -> Option<Self> {
        let short = devices.iter().find_map(|d| d.short_ops())?;
        let slots: Vec<Slot> = devices
            .into_iter()
            .filter_map(|device| {
                let queue = device.crypto_queue(QueueConfig::default())?;
                Some(Slot { device, queue, waiting: VecDeque::new() })
            })
            .collect();
        if slots.is_empty() { None } else { Some(Devices { slots, missing, short }) }
    }

    pub(crate) fn short(&self) -> &Arc<dyn ShortOps> {
        &self.short
    }

    /// The device certificates are verified on: the one that knows the most schemes, the first of equals.
    pub(crate) fn verifier(&self) -> Option<&Arc<dyn Device>> {
        let most = self.slots.iter().map(|s| s.device.desc().caps.verify.len()).max()?;
        self.slots.iter().find(|s| s.device.desc().caps.verify.len() == most).map(|s| &s.device)
    }

    /// Opens a private key on the first device that takes it.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub(crate) fn open_key(&self, source: &KeySource) -> Result<(Place, KeyInfo), String> {
        let open = |device: &dyn Device| device.open_key(duplicate(source).ok_or(FaultKind::Unsupported)?);
        self.first(matches!(source, KeySource::Uri(_)), open)
    }

    /// The certificates that a URI means, from the first device that keeps them.
    ///
    /// # Errors
    /// As [`open_key`](Devices::open_key).
    pub(crate) fn certificates(&self, uri: &str) -> Result<Vec<Vec<u8>>, String> {
        self.first(true, |device| device.certificates(uri)).map(|(_, certificates)| certificates)
    }

    /// What a device says of its fault.
    pub(crate) fn explain(&self, place: Place, fault: Fault) -> String {
        self.slots.get(place).map_or_else(|| fault.to_string(), |slot| slot.device.explain(fault))
    }

    fn first<T>(
        &self,
        by_uri: bool,
        ask: impl Fn(&dyn Device) -> Result<T, Fault>,
    ) -> Result<(Place, T), String> {
        let (mut said, mut passed_on) = (None, Vec::new());
        for (place, slot) in self.slots.iter().enumerate() {
            match ask(&*slot.device) {
                Ok(got) => return Ok((place, got)),
                // A device that has no such keys says nothing about the key; one that failed on it does.
                Err(fault) if fault.kind == FaultKind::Unsupported && fault.vendor == 0 => {}
                Err(fault) if fault.kind == FaultKind::Unsupported => {
                    passed_on.push(slot.device.explain(fault))
                }
                Err(fault) => said = Some(slot.device.explain(fault)),
            }
        }
        passed_on.extend(self.missing.iter().cloned());
        Err(match said {
            Some(said) => said,
            None if !passed_on.is_empty() => passed_on.join("; "),
            None if by_uri => {
                "no token is configured; add a section [accel.NAME] with driver = \"pkcs11\" and its module"
                    .into()
            }
            None => Fault::new(FaultKind::Unsupported).to_string(),
        })
    }

    /// What the device at a place is called.
    pub(crate) fn name(&self, place: Place) -> &str {
        self.slots.get(place).map_or("", |slot| &slot.device.desc().id)
    }

    pub(crate) fn close_key(&self, place: Place, key: KeyId) {
        if let Some(slot) = self.slots.get(place) {
            slot.device.close_key(key);
        }
    }

    /// The first device that verifies the scheme.
    pub(crate) fn verifies(&self, scheme: SignScheme) -> Option<Place> {
        self.slots.iter().position(|s| s.device.desc().caps.verify.contains(&scheme))
    }

    /// Queues a job; it goes out as soon as the device has room.
    pub(crate) fn submit(&mut self, place: Place, job: CryptoJob) {
        if let Some(slot) = self.slots.get_mut(place) {
            slot.waiting.push_back(job);
            // A closed queue leaves the jobs where they are, until it is back.
            let _ = slot.queue.submit(&mut slot.waiting);
        }
    }

    /// Takes completions. Returns whether more can be had at once.
    pub(crate) fn poll(&mut self, on_done: &mut dyn FnMut(CryptoDone)) -> bool {
        let mut more = false;
        for slot in &mut self.slots {
            let _ = slot.queue.submit(&mut slot.waiting);
            more |= slot.queue.poll(BUDGET, &mut |done: CryptoDone| on_done(done)).more;
            let _ = slot.queue.submit(&mut slot.waiting);
        }
        more
    }

    /// Doorbells to sleep on, and whether some device has work out and no doorbell, so that sleeping is out of the question.
    pub(crate) fn doorbells(&self) -> (Vec<BorrowedFd<'_>>, bool) {
        let bells = self.slots.iter().filter_map(|s| s.queue.doorbell()).collect();
        let blind = self.slots.iter().any(|s| s.queue.doorbell().is_none() && s.queue.in_flight() > 0);
        (bells, blind)
    }
}

fn duplicate(source: &KeySource) -> Option<KeySource> {
    match source {
        KeySource::Der(secret) => Some(KeySource::Der(secret.duplicate())),
        KeySource::Uri(uri) => Some(KeySource::Uri(uri.clone())),
        _ => None,
    }
}
