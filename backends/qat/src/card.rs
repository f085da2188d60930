//! An open card: what its queues, its watcher and its owner share; how it is brought up, stopped, and reset.
//!
//! ```text
//! bring_up:  reset · memory and bus master on · agree with the physical function · ring pairs reset and programmed ·
//!            interrupts on · arbiters on · say so · known answers asked for
//! stop:      gate closed · rings stopped · bus master off · reset; or, if that fails, every translation taken away
//! ```
//!
//! What was out when a card is stopped is given back when, and only when, the card cannot reach memory any more.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use openssl::rand::rand_bytes;
use spi::{Caps, Doorbell, Health, KeyId, SaId};

use crate::caps;
use crate::config::Config;
use crate::counters::Counters;
use crate::csr::Csr;
use crate::dma::Space;
use crate::fw::response::Answer;
use crate::gate::{Gate, Phase};
use crate::generation::{Generation, MISC, Model, RINGS, Service, model};
use crate::kat::{Known, KnownAnswers};
use crate::keys::PrivateKey;
use crate::mailbox::{Agreement, Mailbox};
use crate::pair::{Bank, Pair};
use crate::pci::{PciError, PciFunction, await_presence, bus_master, identity};
use crate::ring::{Ring, memory_len};
use crate::sa::Sa;
use crate::vault::Vault;
use crate::view::View;
use spi::table::Table;

/// Reasons for a reset that wait to be looked at.
pub(crate) const ASKED: u8 = 1 << 0;
pub(crate) const DISTRUSTED: u8 = 1 << 1;

/// Everything an open card is made of.
pub(crate) struct Card {
    pub(crate) function: Arc<dyn PciFunction>,
    pub(crate) model: &'static Model,
    pub(crate) config: Config,
    pub(crate) caps: Caps,
    pub(crate) agreed: Agreement,
    pub(crate) space: Arc<Space>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) pairs: Vec<Arc<Pair>>,
    banks: Vec<(u8, Arc<Bank>)>,
    pub(crate) known: KnownAnswers,
    pub(crate) gate: Gate,
    failed: AtomicBool,
    sas: Mutex<Table<Sa>>,
    keys: Mutex<Table<PrivateKey>>,
    pub(crate) counters: Arc<Counters>,
    /// Hundredths of a second in which the watcher was awake.
    pub(crate) ticks: AtomicU32,
    /// What the card's interrupt rings; `None`: it has none, or shall not use it.
    pub(crate) interrupt: Option<Doorbell>,
    /// Wakes the watcher.
    pub(crate) control: Doorbell,
    pub(crate) stopping: AtomicBool,
    reasons: AtomicU8,
    views: Mutex<Vec<Weak<View>>>,
    /// What queues that are gone left behind, until the card is done with it.
    orphans: Mutex<Vec<Orphan>>,
    mailbox: Mutex<Mailbox>,
    /// What [`Driver::probe`](spi::Driver::probe) called it.
    pub(crate) name: String,
    /// Why it failed, the first time.
    pub(crate) verdict: OnceLock<String>,
}

/// Jobs of a queue that was dropped.
pub(crate) struct Orphan {
    pub(crate) pair: Arc<Pair>,
    pub(crate) owner: u16,
    /// The buffers.
    pub(crate) _keep: Box<dyn Send>,
}

impl Card {
    /// Takes over a function, and brings it up.
    ///
    /// # Errors
    /// [`PciError`] with what is in the way.
    pub(crate) fn open(
        name: &str,
        function: Arc<dyn PciFunction>,
        config: &Config,
    ) -> Result<Arc<Card>, PciError> {
        let (vendor, device) = identity(&*function)?;
        let model = model(vendor, device).ok_or_else(|| {
            PciError::Unusable(format!(
                "{vendor:04x}:{device:04x} is no virtual function that this driver knows"
            ))
        })?;
        let generation = model.generation;
        for (bar, least) in [(RINGS, generation.bar_len.0), (MISC, generation.bar_len.1)] {
            let len = function.bar_len(bar);
            if len < least {
                return Err(PciError::Unusable(format!("BAR {bar} has {len} octets instead of {least}")));
            }
        }
        let mut mailbox = Mailbox::new(&function, generation);
        function.reset()?;
        await_presence(&*function)?;
        bus_master(&*function, true)?;
        let agreed = mailbox.agree()?;
        let fuses = caps::fuses(&*function, generation)?;
        let caps = caps::caps(generation, agreed, fuses);
        let space = Arc::new(Space::new(Arc::clone(&function)));
        let counters = Arc::new(Counters::default());
        let (banks, pairs) = rings(&function, generation, agreed, config, &space, &counters)?;
        if caps.esp.is_empty() && caps.dh.is_empty() {
            return Err(PciError::Unusable(format!(
                "the physical function gives this one no ring pair for cryptography (map of ring pairs {:#06x}, \
                 capabilities {:#x}): configure its services on the host, for example `sym;asym`",
                agreed.map, agreed.caps
            )));
        }
        let vault = Vault::new(Arc::clone(&space));
        let gcm = caps.carries(spi::Encr::AES128_GCM16, spi::Integ::NONE, true);
        let known = KnownAnswers::new(&space, &vault, generation.fourth, gcm)
            .map_err(|fault| PciError::Unusable(format!("no memory for the card: {fault}")))?;
        let bell = |what| Doorbell::new().map_err(|cause| PciError::refused(what, cause));
        let interrupt = if config.interrupts { Some(bell("an eventfd for interrupts")?) } else { None };
        let card = Arc::new(Card {
            function,
            model,
            config: config.clone(),
            caps,
            agreed,
            space,
            vault,
            pairs,
            banks,
            known,
            gate: Gate::new(),
            failed: AtomicBool::new(false),
            sas: Mutex::new(Table::new(caps::MAX_SAS)),
            keys: Mutex::new(Table::new(caps::MAX_KEYS)),
            counters,
            ticks: AtomicU32::new(0),
            interrupt,
            control: bell("an eventfd")?,
            stopping: AtomicBool::new(false),
            reasons: AtomicU8::new(0),
            views: Mutex::default(),
            orphans: Mutex::default(),
            mailbox: Mutex::new(mailbox),
            name: name.into(),
            verdict: OnceLock::new(),
        });
        if let Err(error) = card.start() {
            card.close();
            return Err(error);
        }
        card.gate.open();
        Ok(card)
    }

    /// From a function that was reset to one that answers rightly.
    ///
    /// # Errors
    /// [`PciError`] with what went wrong; the card has to be stopped then.
    pub(crate) fn bring_up(&self) -> Result<(), PciError> {
        if let Some(why) = self.function.trouble() {
            return Err(PciError::Gone(why));
        }
        await_presence(&*self.function)?;
        let (_, device) = identity(&*self.function)?;
        if device != self.model.device {
            return Err(PciError::Unusable(format!("another card is in its place: 8086:{device:04x}")));
        }
        self.space.restore()?;
        bus_master(&*self.function, true)?;
        let agreed = self.mailbox().agree()?;
        if (agreed.map, agreed.caps) != (self.agreed.map, self.agreed.caps) {
            return Err(PciError::Unusable(
                "the physical function offers other services than before: open the card anew".into(),
            ));
        }
        self.start()
    }

    fn start(&self) -> Result<(), PciError> {
        let mut mailbox = self.mailbox();
        for (number, bank) in &self.banks {
            mailbox.reset_pair(*number)?;
            bank.forget();
            bank.csr().start();
        }
        for pair in &self.pairs {
            let mut salt = [0; 2];
            rand_bytes(&mut salt).map_err(|_| PciError::Protocol("no random numbers".into()))?;
            pair.hold().start(u16::from_ne_bytes(salt), self.gate.look().0.wrapping_add(1));
        }
        if let Some(bell) = &self.interrupt {
            self.function.interrupt(Some(bell.as_fd()))?;
            for (at, value) in self.model.generation.unmask {
                self.function.write(MISC, *at, *value);
            }
        }
        for (number, bank) in &self.banks {
            let of = || self.pairs.iter().filter(|pair| pair.place.bank == *number);
            bank.csr().start_interrupts(of().fold(0, |bits, pair| bits | pair.bit()));
            bank.csr().set_arbiter(of().fold(0, |bits, pair| bits | 1 << pair.place.request_ring));
        }
        mailbox.say_init()?;
        drop(mailbox);
        for pair in &self.pairs {
            self.counters.probes.add(1);
            match self.known.check(pair) {
                Known::Right => {}
                Known::Wrong => {
                    self.counters.probes_failed.add(1);
                    return Err(PciError::Protocol(format!(
                        "ring pair {} gives a wrong answer to a known question: the card, or its firmware, is broken",
                        pair.number
                    )));
                }
                Known::Pending | Known::NoRoom => {
                    self.counters.probes_failed.add(1);
                    return Err(PciError::Gone(format!("ring pair {} does not answer", pair.number)));
                }
            }
        }
        Ok(())
    }

    /// Stops the card; true when it cannot reach memory any more.
    pub(crate) fn stop(&self) -> bool {
        for pair in &self.pairs {
            pair.hold().stop();
        }
        // Already this keeps a function that is well from writing. What is not well is reset.
        let _ = bus_master(&*self.function, false);
        if let Err(error) = self.function.reset() {
            tracing::error!(card = %self.name, %error, "qat: the card cannot be reset: taking its memory away");
            // With no translation left, the IOMMU stops whatever the card still tries.
            if let Err(error) = self.space.suspend() {
                tracing::error!(card = %self.name, %error, "qat: nor can its memory be taken away");
                return false;
            }
        }
        for pair in &self.pairs {
            pair.hold().forget();
        }
        true
    }

    /// Stops the card and takes its memory back, for good. What it may still reach is leaked.
    pub(crate) fn close(&self) {
        let quiet = self.stop() && self.space.clear().is_ok();
        let orphans = std::mem::take(&mut *self.orphans());
        if !quiet {
            self.counters.leaked.add(orphans.len() as u64);
            std::mem::forget(orphans);
        }
    }

    /// Closes the gate, and makes every handle stale.
    pub(crate) fn close_gate(&self) {
        self.gate.close();
        let gone = self.sas().clear();
        gone.iter().for_each(|sa| sa.retire());
        self.keys().clear();
    }

    /// Has the watcher reset the card.
    pub(crate) fn ask_for_reset(&self, reason: u8) {
        self.reasons.fetch_or(reason, Ordering::AcqRel);
        self.control.ring();
    }

    /// Why it is to be reset; nothing: it is not.
    pub(crate) fn take_reasons(&self) -> u8 {
        self.reasons.swap(0, Ordering::AcqRel)
    }

    pub(crate) fn fail(&self, why: &str) {
        let _ = self.verdict.set(why.into());
        self.failed.store(true, Ordering::Release);
    }

    /// It is worth another try.
    pub(crate) fn forgive(&self) {
        self.failed.store(false, Ordering::Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn health(&self) -> Health {
        match self.gate.look() {
            _ if self.has_failed() => Health::Failed,
            (_, Phase::Open) => Health::Ready,
            _ => Health::Resetting,
        }
    }

    /// A request came back with an error of the card.
    pub(crate) fn on_error(&self, answer: Answer) {
        self.counters.errors.add(1);
        if answer.is_ill() {
            self.counters.ill.add(1);
            self.ask_for_reset(DISTRUSTED);
        }
    }

    /// A bell for a queue, where the card interrupts.
    pub(crate) fn new_bell(&self) -> Option<Doorbell> {
        // Without a descriptor to be had, the queue is polled.
        self.interrupt.as_ref().and_then(|_| Doorbell::new().ok())
    }

    /// What a new queue shows of itself.
    pub(crate) fn new_view(&self, name: String) -> Arc<View> {
        let view = Arc::new(View::new(name));
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|view| view.strong_count() > 0);
        views.push(Arc::downgrade(&view));
        view
    }

    /// The pair of a service with the fewest queues, and how many it has.
    pub(crate) fn pair_for(&self, service: Service) -> Option<&Arc<Pair>> {
        let carrying = self.pairs.iter().filter(|pair| pair.place.service == service);
        carrying.min_by_key(|pair| pair.count())
    }

    pub(crate) fn find_sa(&self, id: SaId) -> Option<Arc<Sa>> {
        self.sas().find(id.index, id.epoch).cloned()
    }

    pub(crate) fn find_key(&self, id: KeyId) -> Option<Arc<PrivateKey>> {
        self.keys().find(id.index, id.epoch).cloned()
    }

    pub(crate) fn sas(&self) -> MutexGuard<'_, Table<Sa>> {
        self.sas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keys(&self) -> MutexGuard<'_, Table<PrivateKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn views(&self) -> Vec<Arc<View>> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn orphans(&self) -> MutexGuard<'_, Vec<Orphan>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn banks(&self) -> impl Iterator<Item = &(u8, Arc<Bank>)> {
        self.banks.iter()
    }

    pub(crate) fn tick(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }
}

type Rings = (Vec<(u8, Arc<Bank>)>, Vec<Arc<Pair>>);

fn rings(
    function: &Arc<dyn PciFunction>,
    generation: &'static Generation,
    agreed: Agreement,
    config: &Config,
    space: &Space,
    counters: &Arc<Counters>,
) -> Result<Rings, PciError> {
    let places = generation.pairs(agreed.map);
    let mut banks: Vec<(u8, Arc<Bank>)> = Vec::new();
    let mut pairs = Vec::new();
    let (packets, operations) = config.rings();
    for (number, place) in places.iter().enumerate() {
        let csr = Csr::new(function, generation, place.bank);
        let shared = places.iter().filter(|other| other.bank == place.bank).count() > 1;
        let bank = match banks.iter().find(|(known, _)| *known == place.bank) {
            Some((_, bank)) => Arc::clone(bank),
            None => {
                let bank = Arc::new(Bank::new(csr.clone(), shared));
                banks.push((place.bank, Arc::clone(&bank)));
                bank
            }
        };
        let depth = if place.service == Service::Symmetric { packets } else { operations };
        // Rings lie on multiples of their own length.
        let align = depth * place.service.request_len();
        let (block, iova) = space.block(memory_len(place.service, depth), align)?;
        let ring = Ring::new(csr, *place, block, iova, depth);
        pairs.push(Arc::new(Pair::new(number, *place, ring, bank, Arc::clone(counters))));
    }
    Ok((banks, pairs))
}

/// How long to wait before a card that did not come up is tried again.
pub(crate) const AGAIN: Duration = Duration::from_millis(200);
