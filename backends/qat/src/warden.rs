//! The thread that watches over a card: it answers the interrupt, listens to the physical function, notices what does not come
//! back, and resets. No worker ever waits for any of this.
//!
//! A turn:
//!
//! 1. sleep until the card interrupts, somebody asks for something, or the next tick is due;
//! 2. interrupt: ring for those who sleep on a bank that has something;
//! 3. tick: is anything out too long, or waiting unheard? is a ring idle, and does it answer a known question? what does the
//!    physical function say? what did queues leave behind that are gone?
//! 4. reset, if there is a reason.
//!
//! Ticks are hundredths of a second in which this thread ran; they are counted, not timed. A process that was stopped for an hour
//! has not waited for an hour, and its card is not reset for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::card::{AGAIN, ASKED, Card, DISTRUSTED};
use crate::gate::Phase;
use crate::generation::{MISC, Service};
use crate::kat::Known;
use crate::mailbox::Event;
use crate::pci::is_present;

const TICK: Duration = Duration::from_millis(10);
/// Between ticks while nothing is out.
const IDLE_TICK: Duration = Duration::from_millis(100);
/// While buffers of a queue that is gone are waited for.
const ORPHAN_TICK: Duration = Duration::from_millis(1);

/// Tries to bring a card up again.
const TRIES: usize = 3;
/// Resets for a cause before a card is given up, and the ticks after which they are forgotten.
const STRIKES: u32 = 3;
const FORGIVEN_AFTER: u32 = 6000;
/// Ticks a physical function may take to restart.
const RESTART: u32 = 1000;
/// Ticks a queue that is gone waits for its jobs at the end.
const FAREWELL: usize = 20;

/// Watches until the card is to be closed, then closes it.
pub(crate) fn run(card: &Card) {
    let mut warden = Warden {
        card,
        last_tick: Instant::now(),
        strikes: 0,
        last_strike: 0,
        asked: vec![Question::default(); card.pairs.len()],
        overheard: vec![false; card.pairs.len()],
    };
    while !card.stopping.load(Ordering::Acquire) {
        warden.turn();
    }
    warden.farewell();
}

struct Warden<'a> {
    card: &'a Card,
    last_tick: Instant,
    strikes: u32,
    last_strike: u32,
    asked: Vec<Question>,
    /// Pairs that had a response waiting at the last tick for a queue that slept.
    overheard: Vec<bool>,
}

/// The last known question to a ring pair.
#[derive(Clone, Default)]
struct Question {
    is_out: bool,
    /// Since when the pair is idle.
    idle: u32,
}

impl Warden<'_> {
    fn turn(&mut self) {
        if self.sleep() {
            self.on_interrupt();
        }
        let reasons = self.card.take_reasons();
        if reasons & DISTRUSTED != 0 {
            self.reset_for("the card said something that is not so");
        } else if reasons & ASKED != 0 {
            // Whoever asks gives it another chance.
            self.strikes = 0;
            self.reset("a reset was asked for");
        }
        let interval = self.interval();
        if self.last_tick.elapsed() >= interval {
            self.last_tick = Instant::now();
            self.tick((interval.as_millis() / TICK.as_millis()).max(1) as u32);
        }
    }

    fn interval(&self) -> Duration {
        if !self.card.orphans().is_empty() {
            return ORPHAN_TICK;
        }
        let busy = self.card.pairs.iter().any(|pair| pair.hold().out() > 0);
        if busy { TICK } else { IDLE_TICK }
    }

    /// True when the card interrupted.
    fn sleep(&self) -> bool {
        let left = self.interval().saturating_sub(self.last_tick.elapsed());
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = vec![PollFd::new(&self.card.control, PollFlags::IN)];
        if let Some(bell) = &self.card.interrupt {
            fds.push(PollFd::new(bell, PollFlags::IN));
        }
        // However it ends: the bells are looked at, and the tick is due or not.
        let _ = poll(&mut fds, Some(&limit));
        self.card.control.answer();
        self.card.interrupt.as_ref().is_some_and(|bell| bell.answer())
    }

    fn on_interrupt(&mut self) {
        let card = self.card;
        card.counters.interrupts.add(1);
        let generation = card.model.generation;
        let (bank_at, bank_bits) = generation.bank_source;
        let sources = card.function.read(MISC, bank_at);
        let mut reason = false;
        for (number, bank) in card.banks() {
            if sources & bank_bits & 1 << number == 0 {
                continue;
            }
            let armed = bank.take();
            for pair in card.pairs.iter().filter(|pair| Arc::ptr_eq(pair.bank(), bank)) {
                if armed & pair.bit() != 0 {
                    reason = true;
                    if pair.on_interrupt().lied {
                        card.ask_for_reset(DISTRUSTED);
                    }
                }
            }
        }
        let (mail_at, mail_bit) = generation.mail_source;
        if card.function.read(MISC, mail_at) & mail_bit != 0 {
            reason = true;
            self.listen();
        }
        if !reason {
            card.counters.interrupts_spurious.add(1);
        }
    }

    fn tick(&mut self, ticks: u32) {
        let card = self.card;
        let now = card.ticks.fetch_add(ticks, Ordering::Relaxed).wrapping_add(ticks);
        if now.wrapping_sub(self.last_strike) > FORGIVEN_AFTER {
            self.strikes = 0;
        }
        let (_, phase) = card.gate.look();
        self.bury();
        if phase != Phase::Open {
            return;
        }
        if let Some(trouble) = card.function.trouble() {
            return self.reset_for(&trouble);
        }
        if !is_present(&*card.function) {
            return self.reset_for("the card is not there any more");
        }
        self.listen();
        for number in 0..card.pairs.len() {
            if !self.watch(number, now) {
                return;
            }
        }
    }

    /// Looks after one ring pair; false when that led to a reset.
    fn watch(&mut self, number: usize, now: u32) -> bool {
        let (card, pair) = (self.card, &self.card.pairs[number]);
        let (oldest, waits) = {
            let held = pair.hold();
            (held.oldest(now), held.hears())
        };
        let patience = match pair.place.service {
            Service::Symmetric => card.config.packet_patience,
            Service::Asymmetric => card.config.operation_patience,
        };
        if !waits && oldest.is_some_and(|age| age > patience) {
            card.counters.stuck.add(1);
            self.reset_for("something has not come back in time");
            return false;
        }
        let overheard = pair.is_overheard();
        if overheard && self.overheard[number] {
            card.counters.interrupts_lost.add(1);
            pair.ring_all();
        }
        self.overheard[number] = overheard;
        if self.asked[number].is_out {
            match card.known.look(pair) {
                Known::Pending => {}
                Known::Right | Known::NoRoom => self.asked[number] = Question { is_out: false, idle: now },
                Known::Wrong => {
                    card.counters.probes_failed.add(1);
                    self.reset_for("a known question was answered wrongly");
                    return false;
                }
            }
        } else if oldest.is_some() {
            // Those who use it will notice.
            self.asked[number].idle = now;
        } else if now.wrapping_sub(self.asked[number].idle) >= card.config.probe_after {
            card.counters.probes.add(1);
            self.asked[number] = Question { is_out: card.known.ask(pair, now) == Known::Pending, idle: now };
        }
        true
    }

    /// What has the physical function to say?
    fn listen(&mut self) {
        let Some(event) = self.card.mailbox().take() else { return };
        self.card.counters.notices.add(1);
        match event {
            Event::Restarting => self.restart(),
            Event::FatalError => self.reset_for("the physical function reports a fatal error"),
            Event::Restarted => {}
        }
    }

    /// The physical function is going to reset: it is told when nothing of ours is in its way, and waited for.
    fn restart(&mut self) {
        let card = self.card;
        tracing::warn!(card = %card.name, "qat: the physical function restarts");
        card.close_gate();
        card.pairs.iter().for_each(|pair| pair.hold().stop());
        card.banks().for_each(|(_, bank)| bank.csr().set_arbiter(0));
        if let Err(error) = card.mailbox().say_restarting_complete() {
            tracing::warn!(card = %card.name, %error, "qat: the physical function does not hear us");
        }
        for _ in 0..RESTART {
            if card.stopping.load(Ordering::Acquire) || card.mailbox().take() == Some(Event::Restarted) {
                break;
            }
            std::thread::sleep(TICK);
        }
        self.reset("the physical function has restarted");
    }

    /// A reset for which the card is to blame.
    fn reset_for(&mut self, why: &str) {
        self.last_strike = self.card.tick();
        self.strikes += 1;
        if self.strikes > STRIKES {
            self.card.fail(why);
        }
        self.reset(why);
    }

    fn reset(&mut self, why: &str) {
        let card = self.card;
        tracing::warn!(card = %card.name, why, "qat: reset");
        card.close_gate();
        card.counters.resets.add(1);
        self.asked.fill(Question { is_out: false, idle: card.tick() });
        if !card.stop() {
            card.fail("the card cannot be stopped");
            return;
        }
        card.gate.quiet();
        card.pairs.iter().for_each(|pair| pair.ring_all());
        self.bury();
        // What was wanted while this went on has been done now.
        card.take_reasons();
        for attempt in 0..TRIES {
            if card.has_failed() || card.stopping.load(Ordering::Acquire) {
                break;
            }
            if attempt > 0 {
                std::thread::sleep(AGAIN);
            }
            match card.bring_up() {
                Ok(()) => {
                    card.gate.open();
                    tracing::info!(card = %card.name, "qat: ready again");
                    return;
                }
                Err(error) => {
                    tracing::warn!(card = %card.name, %error, attempt, "qat: the card does not come up");
                    if !card.stop() {
                        card.fail("the card cannot be stopped");
                    }
                    if !is_present(&*card.function) {
                        break;
                    }
                }
            }
        }
        if !card.stopping.load(Ordering::Acquire) {
            card.fail(why);
            let verdict = card.verdict.get().map_or(why, String::as_str);
            tracing::error!(card = %card.name, verdict, "qat: the card has failed");
        }
    }

    /// Gives buffers back that nobody waits for any more, once the card is done with them.
    fn bury(&mut self) {
        let card = self.card;
        let mut orphans = card.orphans();
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans.iter() {
            let mut held = orphan.pair.hold();
            held.harvest(None, usize::MAX, |_| ());
            held.say();
        }
        orphans.retain(|orphan| !orphan.pair.leave(orphan.owner));
    }

    /// No queue is open any more.
    fn farewell(&mut self) {
        let card = self.card;
        for _ in 0..FAREWELL {
            self.bury();
            if card.orphans().is_empty() {
                break;
            }
            std::thread::sleep(TICK);
        }
        card.close_gate();
        if card.function.trouble().is_none() {
            card.banks().for_each(|(_, bank)| bank.csr().set_arbiter(0));
            if !card.has_failed()
                && let Err(error) = card.mailbox().say_shutdown()
            {
                tracing::debug!(card = %card.name, %error, "qat: no farewell");
            }
            for pair in &card.pairs {
                pair.bank().csr().clear_ring(pair.place.request_ring);
                pair.bank().csr().clear_ring(pair.place.response_ring);
            }
            let _ = card.function.interrupt(None);
        }
        card.close();
    }
}
