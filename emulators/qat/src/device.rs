//! The device behind its lock: registers, resets, and what goes wrong with it as a whole.

use std::sync::Arc;
use std::time::Duration;

use emu_model::fault::{Faults, Kind, Occasion};
use emu_model::{Space, Time, Timeline, Vectors};

use crate::bank::{Bank, Effect};
use crate::card::Interrupt;
use crate::config_space::{self, ConfigSpace};
use crate::counters::Counters;
use crate::mailbox::Mailbox;
use crate::options::{Options, Timing};
use crate::personality::{Layout, Personality};
use crate::pf::{Answer, Message, Pf, Spoil, to_vf};

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Requests are fetched from a ring.
    Fetch(usize, usize),
    /// Requests of a ring may be due to be answered.
    Complete(usize, usize),
    /// The interrupt timer of a bank runs out.
    Timer(usize, u64),
    /// A reset is over.
    ResetDone,
    /// The card has waited long enough for consent to its restart.
    GraceOver,
    /// The card is back from its restart.
    Back,
    /// The engines go on.
    SilenceOver,
    /// An interrupt for no reason.
    Spurious,
}

/// Whether the function can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Here,
    /// It is being reset, and every register reads as ones.
    Resetting,
    /// It has been pulled out.
    Gone,
}

pub(crate) struct Device {
    pub(crate) layout: &'static Layout,
    pub(crate) timing: Timing,
    pub(crate) space: Arc<Space>,
    pub(crate) banks: Vec<Bank>,
    pub(crate) timeline: Timeline<Event>,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// Message-signalled interrupts, errors, and the wish to be given back.
    msi: Vectors,
    err: Vectors,
    req: Vectors,
    /// Requests that wait for an engine, by engine: (bank, request ring, number).
    pub(crate) waiting: [std::collections::VecDeque<(usize, usize, u64)>; 2],
    /// Octets that results hold which are not written yet.
    pub(crate) held: usize,
    pub(crate) flights: u64,
    /// Rings for which a fetch has been entered, and rings that wait for room for a response: (bank, request ring).
    pub(crate) fetching: Vec<(usize, usize)>,
    pub(crate) parked: Vec<(usize, usize)>,
    /// Rings that take nothing until a time.
    pub(crate) stalled: Vec<(usize, usize, Time)>,
    /// The factor by which everything takes longer, and until when.
    pub(crate) slow: (f64, Time),
    config: ConfigSpace,
    mailbox: Mailbox,
    pf: Pf,
    presence: Presence,
    /// Nothing works until a reset.
    broken: bool,
    /// The engines stand still until a time.
    silent: Option<Time>,
    restart: Restart,
    /// Interrupt sources that have been reported.
    reported: u32,
}

/// Where a restart of the card is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    No,
    /// It has been announced; the card will be away for so long.
    Announced(Duration),
    Away,
}

impl Device {
    pub(crate) fn new(personality: Personality, options: &Options, space: Arc<Space>) -> Self {
        let layout = personality.layout();
        Device {
            layout,
            timing: options.timing,
            space,
            banks: (0..layout.banks).map(|_| Bank::new(layout)).collect(),
            timeline: Timeline::default(),
            faults: Faults::new(&options.plan),
            counters: Counters::default(),
            msi: Vectors::new(1),
            err: Vectors::new(1),
            req: Vectors::new(1),
            waiting: Default::default(),
            held: 0,
            flights: 0,
            fetching: Vec::new(),
            parked: Vec::new(),
            stalled: Vec::new(),
            slow: (1.0, Time::ZERO),
            config: ConfigSpace::new(personality),
            mailbox: Mailbox::new(layout.generation),
            pf: Pf::new(layout, options.capabilities, options.ring_map),
            presence: Presence::Here,
            broken: false,
            silent: None,
            restart: Restart::No,
            reported: 0,
        }
    }

    /// The vectors of an interrupt.
    pub(crate) fn vectors(&mut self, interrupt: Interrupt) -> &mut Vectors {
        match interrupt {
            Interrupt::Msi => &mut self.msi,
            Interrupt::Error => &mut self.err,
            Interrupt::Request => &mut self.req,
        }
    }

    /// Reads configuration space.
    pub(crate) fn read_config(&self, offset: usize, into: &mut [u8]) {
        match self.presence {
            Presence::Here => self.config.read(offset, into),
            Presence::Resetting | Presence::Gone => into.fill(0xff),
        }
    }

    /// Writes configuration space.
    pub(crate) fn write_config(&mut self, offset: usize, from: &[u8], now: Time) {
        if self.presence != Presence::Here {
            return;
        }
        match self.config.write(offset, from) {
            config_space::Effect::None => {}
            config_space::Effect::Reset => self.reset(now),
            config_space::Effect::Mastering => {
                self.ring_all(now);
                self.complete_all(now);
                self.update_interrupts(now, false);
            }
        }
    }

    /// Reads a register of BAR 0 or 2.
    pub(crate) fn read(&self, bar: u32, offset: u64) -> u32 {
        if self.presence != Presence::Here {
            return u32::MAX;
        }
        match bar {
            0 => {
                let (bank, offset) = self.in_bank(offset);
                self.banks.get(bank).map_or(0, |bank| bank.read(self.layout, offset))
            }
            2 => self.mailbox.read(offset, self.latched()),
            _ => 0,
        }
    }

    /// Writes a register of BAR 0 or 2.
    pub(crate) fn write(&mut self, bar: u32, offset: u64, value: u32, now: Time) {
        if self.presence != Presence::Here {
            return;
        }
        match bar {
            0 => self.write_ring(offset, value, now),
            2 => self.write_mailbox(offset, value, now),
            _ => {}
        }
    }

    fn write_ring(&mut self, offset: u64, value: u32, now: Time) {
        let (at, offset) = self.in_bank(offset);
        let Some(bank) = self.banks.get_mut(at) else { return };
        match bank.write(self.layout, offset, value) {
            Effect::None => {}
            Effect::Doorbell(tx) => {
                self.counters.doorbells += 1;
                self.ring(at, tx, now);
            }
            Effect::AllDoorbells => self.ring_all(now),
            Effect::Room(tx) => {
                if let Some(found) = self.parked.iter().position(|parked| *parked == (at, tx)) {
                    self.parked.swap_remove(found);
                    self.timeline.enter(now, Event::Complete(at, tx));
                }
                self.update_interrupts(now, false);
            }
            Effect::Interrupts => self.update_interrupts(now, true),
        }
    }

    fn write_mailbox(&mut self, offset: u64, value: u32, now: Time) {
        if let Some(message) = self.mailbox.write(offset, value) {
            self.counters.messages += 1;
            self.hear(message, now);
        }
        self.update_interrupts(now, true);
    }

    /// A message came in. It is answered within the write that sent it, for drivers wait microseconds.
    fn hear(&mut self, message: Message, now: Time) {
        let mut spoil = Spoil::default();
        let mut silent = self.restart == Restart::Away;
        for kind in self.faults.strike(Occasion::Message, None, None, now) {
            match kind {
                Kind::MailboxSilent => silent = true,
                Kind::MailboxBadChecksum => spoil.checksum = true,
                Kind::MailboxIncompatible => spoil.version = true,
                _ => {}
            }
        }
        if silent {
            return;
        }
        let answer = self.pf.handle(message, spoil);
        match answer {
            Answer::ResetBank(bank, _) => {
                self.counters.ring_resets += 1;
                self.reset_bank(bank);
            }
            Answer::ReadyForRestart => self.go_away(now),
            Answer::Nothing | Answer::Message(_) => {}
        }
        self.mailbox.answer(message, answer);
    }

    /// A function-level reset. What was under way is lost and reaches memory no more.
    pub(crate) fn reset(&mut self, now: Time) {
        if self.presence == Presence::Gone {
            return;
        }
        self.counters.resets += 1;
        for bank in 0..self.banks.len() {
            self.reset_bank(bank);
        }
        self.config.reset();
        self.mailbox = Mailbox::new(self.layout.generation);
        self.pf.forget();
        self.reported = 0;
        self.broken = false;
        self.silent = None;
        for kind in self.faults.strike(Occasion::Reset, None, None, now) {
            if let Kind::SlowReset(takes) = kind {
                self.presence = Presence::Resetting;
                self.timeline.enter(now.after(takes), Event::ResetDone);
            }
        }
    }

    fn reset_bank(&mut self, at: usize) {
        if let Some(bank) = self.banks.get_mut(at) {
            self.counters.lost += bank.reset(self.layout) as u64;
        }
        self.forget_bank(at);
    }

    /// Nothing that was to happen with the requests of a bank will.
    fn forget_bank(&mut self, at: usize) {
        self.timeline.retain(|event| {
            !matches!(event, Event::Fetch(b, _) | Event::Complete(b, _) | Event::Timer(b, _) if *b == at)
        });
        self.fetching.retain(|(bank, _)| *bank != at);
        self.parked.retain(|(bank, _)| *bank != at);
        self.stalled.retain(|(bank, _, _)| *bank != at);
        for waiting in &mut self.waiting {
            waiting.retain(|(bank, _, _)| *bank != at);
        }
        self.held = self.banks.iter().flat_map(|b| &b.flights).flatten().map(crate::engine::held).sum();
    }

    /// What happens at a time that has come, apart from what the engines do.
    pub(crate) fn happen(&mut self, event: Event, now: Time) {
        match event {
            Event::Timer(bank, timer) => {
                if self.banks.get_mut(bank).is_some_and(|bank| bank.timer_ran_out(timer)) {
                    self.update_interrupts(now, false);
                }
            }
            Event::ResetDone => {
                if self.presence == Presence::Resetting {
                    self.presence = Presence::Here;
                }
            }
            Event::GraceOver => self.go_away(now),
            Event::Back => {
                self.restart = Restart::No;
                self.pf.forget();
                self.mailbox.notify(Message { kind: to_vf::RESTARTED, data: 0 });
                self.update_interrupts(now, true);
            }
            Event::SilenceOver => {
                if self.silent.is_some_and(|until| until <= now) {
                    self.silent = None;
                    self.ring_all(now);
                    self.complete_all(now);
                }
            }
            Event::Spurious => self.raise(),
            Event::Fetch(..) | Event::Complete(..) => {}
        }
    }

    /// What befalls the device as a whole.
    pub(crate) fn befall(&mut self, kind: Kind, now: Time) {
        match kind {
            Kind::Slow(factor, lasting) => self.slow = (factor, now.after(lasting)),
            Kind::Uncorrectable => {
                self.broken = true;
                for at in 0..self.banks.len() {
                    if let Some(bank) = self.banks.get_mut(at) {
                        self.counters.lost += bank.lose() as u64;
                    }
                    self.forget_bank(at);
                }
                if self.pf.is_listened_to() {
                    self.mailbox.notify(Message { kind: to_vf::FATAL_ERROR, data: 0 });
                }
                self.err.raise(0);
                self.update_interrupts(now, true);
            }
            Kind::Restart { grace, away } => {
                if self.restart != Restart::No {
                    return;
                }
                self.restart = Restart::Announced(away);
                if self.pf.is_listened_to() {
                    self.mailbox.notify(Message { kind: to_vf::RESTARTING, data: 0 });
                }
                // Only version 5 of the protocol has a word for consent; who cannot say it gets the time all the same.
                let wait = if self.pf.is_listened_to() { grace } else { Duration::ZERO };
                self.timeline.enter(now.after(wait), Event::GraceOver);
                self.update_interrupts(now, true);
            }
            Kind::Silence(lasting) => {
                let until = lasting.map_or(Time::NEVER, |lasting| now.after(lasting));
                self.silent = Some(until);
                if until != Time::NEVER {
                    self.timeline.enter(until, Event::SilenceOver);
                }
            }
            Kind::Unplug => {
                for bank in 0..self.banks.len() {
                    self.reset_bank(bank);
                }
                self.presence = Presence::Gone;
                self.req.raise(0);
            }
            _ => {}
        }
    }

    /// The restart begins, if one has been announced.
    fn go_away(&mut self, now: Time) {
        let Restart::Announced(away) = self.restart else { return };
        self.restart = Restart::Away;
        for bank in 0..self.banks.len() {
            self.reset_bank(bank);
        }
        self.broken = false;
        self.timeline.enter(now.after(away), Event::Back);
    }

    /// Whether the engines can do anything.
    pub(crate) fn is_working(&self, now: Time) -> bool {
        self.presence == Presence::Here
            && !self.broken
            && self.restart != Restart::Away
            && self.silent.is_none_or(|until| until <= now)
            && self.config.bus_master()
    }

    /// What a ring is for.
    pub(crate) fn ring_use(&self, bank: usize, tx: usize) -> crate::personality::RingUse {
        self.layout.ring_use(self.pf.ring_map, bank, tx)
    }

    /// Something may be in a request ring: it will be looked at, but not now.
    pub(crate) fn ring(&mut self, bank: usize, tx: usize, now: Time) {
        if !self.fetching.contains(&(bank, tx)) {
            self.fetching.push((bank, tx));
            self.timeline.enter(now.after(self.timing.doorbell), Event::Fetch(bank, tx));
        }
    }

    fn ring_all(&mut self, now: Time) {
        for bank in 0..self.banks.len() {
            for tx in 0..self.layout.rings / 2 {
                if self.banks.get(bank).is_some_and(|bank| bank.serves(tx)) {
                    self.ring(bank, tx, now);
                }
            }
        }
    }

    fn complete_all(&mut self, now: Time) {
        for bank in 0..self.banks.len() {
            for tx in 0..self.layout.rings / 2 {
                self.timeline.enter(now, Event::Complete(bank, tx));
            }
        }
    }

    /// Starts the interrupt timers that are due to be started, and reports sources that have become active; all active
    /// ones if `again`.
    pub(crate) fn update_interrupts(&mut self, now: Time, again: bool) {
        for (at, bank) in self.banks.iter_mut().enumerate() {
            if let Some((after, timer)) = bank.start_timer(self.layout) {
                self.timeline.enter(now.after(after), Event::Timer(at, timer));
            }
        }
        if !self.config.bus_master() || self.presence != Presence::Here {
            return;
        }
        let active = self.mailbox.active(self.latched());
        let news = active & !self.reported;
        self.reported = active;
        if news == 0 && !(again && active != 0) {
            return;
        }
        let (mut lost, mut spurious) = (false, false);
        for kind in self.faults.strike(Occasion::Interrupt, None, None, now) {
            lost |= kind == Kind::LoseInterrupt;
            spurious |= kind == Kind::SpuriousInterrupt;
        }
        if !lost {
            self.raise();
        }
        if spurious {
            self.timeline.enter(now.after(Duration::from_micros(100)), Event::Spurious);
        }
    }

    fn raise(&mut self) {
        if self.config.bus_master() && self.presence == Presence::Here {
            self.counters.interrupts += 1;
            self.msi.raise(0);
        }
    }

    /// The bits of the banks that want attention.
    fn latched(&self) -> u32 {
        let bits = self.banks.iter().enumerate().map(|(at, bank)| u32::from(bank.is_latched()) << at);
        bits.fold(0, |all, bit| all | bit)
    }

    fn in_bank(&self, offset: u64) -> (usize, u64) {
        let stride = self.layout.bank_stride;
        (usize::try_from(offset / stride).unwrap_or(usize::MAX), offset % stride)
    }
}
