//! A ring bank: its registers, and when it asks for an interrupt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use emu_model::Gate;

use crate::flight::Flight;
use crate::personality::Layout;
use crate::ring::{RESPONSE_LEN, Ring};

/// Registers by their place in a bank, the same in both generations but for the first three of each ring.
mod register {
    pub(super) const HEAD: u64 = 0x0c0;
    pub(super) const TAIL: u64 = 0x100;
    pub(super) const STAT: u64 = 0x140;
    pub(super) const UO_STAT: u64 = 0x148;
    pub(super) const E_STAT: u64 = 0x14c;
    pub(super) const NE_STAT: u64 = 0x150;
    pub(super) const NF_STAT: u64 = 0x154;
    pub(super) const F_STAT: u64 = 0x158;
    pub(super) const C_STAT: u64 = 0x15c;
    pub(super) const INT_FLAG_EN: u64 = 0x16c;
    pub(super) const INT_FLAG: u64 = 0x170;
    pub(super) const INT_SRCSEL: u64 = 0x174;
    pub(super) const INT_SRCSEL_2: u64 = 0x178;
    pub(super) const INT_COL_EN: u64 = 0x17c;
    pub(super) const INT_COL_CTL: u64 = 0x180;
    pub(super) const INT_FLAG_AND_COL: u64 = 0x184;
    pub(super) const EXP_STAT: u64 = 0x188;
    pub(super) const EXP_INT_EN: u64 = 0x18c;
    pub(super) const RINGSRVARBEN: u64 = 0x19c;
}

const COL_ENABLE: u32 = 1 << 31;
/// The longest that an interrupt is put off. A driver that asks for more gets it sooner, which it must bear.
const LONGEST_TIMER: Duration = Duration::from_micros(50);

/// A ring bank.
pub(crate) struct Bank {
    pub(crate) rings: Vec<Ring>,
    /// Requests that were fetched, by request ring, in the order they were fetched.
    pub(crate) flights: Vec<VecDeque<Flight>>,
    /// Lets the work of this life through to memory.
    pub(crate) gate: Arc<Gate>,
    /// Which request rings are served.
    arbiter: u32,
    int_flag_en: u32,
    int_flag: u32,
    srcsel: [u32; 2],
    col_en: u32,
    col_ctl: u32,
    exceptions: u32,
    exception_en: u32,
    /// Whether an interrupt may be latched; off from the interrupt until the driver has looked.
    armed: bool,
    latched: bool,
    /// The interrupt timer that runs: what it was started as.
    timer: Option<u64>,
    timers: u64,
}

/// What a write to a register brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A request ring may have work.
    Doorbell(usize),
    /// Any request ring may have work.
    AllDoorbells,
    /// There may be room in the response ring of this request ring.
    Room(usize),
    /// The sources of interrupts are to be looked at, and reported again if they are still there.
    Interrupts,
}

impl Bank {
    pub(crate) fn new(layout: &Layout) -> Self {
        Bank {
            rings: (0..layout.rings).map(|_| Ring::new(layout.base_shift)).collect(),
            flights: (0..layout.rings / 2).map(|_| VecDeque::new()).collect(),
            gate: Arc::default(),
            arbiter: 0,
            int_flag_en: 0,
            int_flag: 0,
            srcsel: [0; 2],
            col_en: 0,
            col_ctl: 0,
            exceptions: 0,
            exception_en: 0,
            armed: false,
            latched: false,
            timer: None,
            timers: 0,
        }
    }

    /// Everything as after power-on. What was under way is lost; returns how much that was. When this returns, none of
    /// it reaches memory any more.
    pub(crate) fn reset(&mut self, layout: &Layout) -> usize {
        let lost = self.lose();
        let gate = Arc::clone(&self.gate);
        let timers = self.timers;
        *self = Bank { gate, timers, ..Bank::new(layout) };
        lost
    }

    /// What was under way is lost, the registers stay.
    pub(crate) fn lose(&mut self) -> usize {
        self.gate.close();
        self.flights.iter_mut().map(|flights| flights.drain(..).count()).sum()
    }

    /// The response ring of a request ring.
    pub(crate) fn partner(&self, tx: usize) -> usize {
        tx + self.rings.len() / 2
    }

    pub(crate) fn read(&self, layout: &Layout, offset: u64) -> u32 {
        if let Some((register, ring)) = self.of_ring(layout, offset) {
            return match register {
                RingRegister::Config => ring.config,
                RingRegister::BaseLow => ring.base as u32,
                RingRegister::BaseHigh => (ring.base >> 32) as u32,
                RingRegister::Head => ring.head,
                RingRegister::Tail => ring.tail,
            };
        }
        match offset {
            // No rate limit; nothing ran over; no configuration is known to be wrong.
            register::STAT | register::UO_STAT | register::C_STAT => 0,
            register::E_STAT | register::NE_STAT => self.mask_of(Ring::is_empty),
            register::NF_STAT | register::F_STAT => self.mask_of(Ring::is_full),
            register::INT_FLAG_EN => self.int_flag_en,
            register::INT_FLAG => self.int_flag,
            register::INT_SRCSEL => self.srcsel[0],
            register::INT_SRCSEL_2 => self.srcsel[1],
            register::INT_COL_EN => self.col_en,
            register::INT_COL_CTL => self.col_ctl,
            register::INT_FLAG_AND_COL if self.armed => self.col_en,
            register::EXP_STAT => self.exceptions,
            register::EXP_INT_EN => self.exception_en,
            register::RINGSRVARBEN => self.arbiter,
            _ => 0,
        }
    }

    pub(crate) fn write(&mut self, layout: &Layout, offset: u64, value: u32) -> Effect {
        let half = self.rings.len() / 2;
        if let Some((register, at)) = Self::which_ring(layout, offset) {
            let Some(ring) = self.rings.get_mut(at) else { return Effect::None };
            match register {
                RingRegister::Config => ring.configure(value),
                RingRegister::BaseLow => ring.rebase(ring.base & !0xffff_ffff | u64::from(value)),
                RingRegister::BaseHigh => ring.rebase(ring.base & 0xffff_ffff | u64::from(value) << 32),
                RingRegister::Head => ring.head = ring.wrap(value),
                RingRegister::Tail => ring.tail = ring.wrap(value),
            }
            return match register {
                RingRegister::Head if at >= half => Effect::Room(at - half),
                RingRegister::Tail if at < half => {
                    ring.halted = false;
                    Effect::Doorbell(at)
                }
                _ => Effect::None,
            };
        }
        match offset {
            register::INT_FLAG_EN => self.int_flag_en = value,
            register::INT_FLAG => self.int_flag &= !value,
            register::INT_SRCSEL => self.srcsel[0] = value,
            register::INT_SRCSEL_2 => self.srcsel[1] = value,
            register::INT_COL_EN => {
                self.col_en = value;
                return Effect::Interrupts;
            }
            register::INT_COL_CTL => {
                // A driver may wait for the first interrupt without having armed it otherwise.
                self.armed |= value & COL_ENABLE != 0 && self.col_ctl & COL_ENABLE == 0;
                self.col_ctl = value;
                if value & COL_ENABLE == 0 {
                    self.latched = false;
                }
                return Effect::Interrupts;
            }
            register::INT_FLAG_AND_COL => {
                self.latched = false;
                self.armed = value != 0;
                return Effect::Interrupts;
            }
            register::EXP_STAT => self.exceptions &= !value,
            register::EXP_INT_EN => self.exception_en = value,
            register::RINGSRVARBEN => {
                self.arbiter = value & ((1 << half) - 1);
                return Effect::AllDoorbells;
            }
            _ => {}
        }
        Effect::None
    }

    /// Whether requests of a ring are to be fetched: it is configured, served, and both it and its partner are sound.
    pub(crate) fn serves(&self, tx: usize) -> bool {
        let rx = self.partner(tx);
        self.arbiter >> tx & 1 != 0
            && self.rings.get(tx).is_some_and(|ring| ring.len().is_some() && !ring.halted)
            && self.rings.get(rx).is_some_and(|ring| ring.len().is_some())
    }

    /// An access of this ring failed.
    pub(crate) fn except(&mut self, ring: usize) {
        self.exceptions |= 1 << ring;
    }

    /// Whether the interrupt timer has to be started: for how long, and as what.
    pub(crate) fn start_timer(&mut self, layout: &Layout) -> Option<(Duration, u64)> {
        if self.timer.is_some() || self.latched || !self.is_pending() {
            return None;
        }
        self.timers += 1;
        self.timer = Some(self.timers);
        let ticks = u64::from(self.col_ctl & layout.tick_mask);
        Some((Duration::from_nanos(ticks * layout.tick).min(LONGEST_TIMER), self.timers))
    }

    /// The timer that was started as `timer` has run out. Returns whether an interrupt is latched by that.
    pub(crate) fn timer_ran_out(&mut self, timer: u64) -> bool {
        if self.timer != Some(timer) {
            return false;
        }
        self.timer = None;
        if !self.is_pending() {
            return false;
        }
        self.latched = true;
        self.armed = false;
        true
    }

    /// Whether the bank's bit in the interrupt source is set.
    pub(crate) fn is_latched(&self) -> bool {
        self.latched
    }

    fn is_pending(&self) -> bool {
        let full = !self.mask_of(Ring::is_empty);
        self.armed && self.col_ctl & COL_ENABLE != 0 && self.col_en & full & self.existing() != 0
    }

    fn existing(&self) -> u32 {
        ((1u64 << self.rings.len()) - 1) as u32
    }

    fn mask_of(&self, test: impl Fn(&Ring) -> bool) -> u32 {
        self.rings.iter().enumerate().filter(|(_, ring)| test(ring)).fold(0, |mask, (at, _)| mask | 1 << at)
    }

    fn of_ring(&self, layout: &Layout, offset: u64) -> Option<(RingRegister, &Ring)> {
        let (register, at) = Self::which_ring(layout, offset)?;
        Some((register, self.rings.get(at)?))
    }

    /// Which register of which ring an offset is.
    fn which_ring(layout: &Layout, offset: u64) -> Option<(RingRegister, usize)> {
        let span = 4 * layout.rings as u64;
        let registers = [
            (layout.ring_config, RingRegister::Config),
            (layout.ring_config + 0x40, RingRegister::BaseLow),
            (layout.ring_config + 0x80, RingRegister::BaseHigh),
            (register::HEAD, RingRegister::Head),
            (register::TAIL, RingRegister::Tail),
        ];
        let (first, register) =
            registers.into_iter().find(|(first, _)| (*first..first + span).contains(&offset))?;
        Some((register, ((offset - first) / 4) as usize))
    }
}

#[derive(Clone, Copy)]
enum RingRegister {
    Config,
    BaseLow,
    BaseHigh,
    Head,
    Tail,
}

impl Bank {
    /// Where the next response of a request ring goes, if there is room for it and so many more.
    pub(crate) fn response_slot(&self, tx: usize, more: u32) -> Option<u64> {
        let ring = self.rings.get(self.partner(tx))?;
        (ring.room()? >= (more + 1) * RESPONSE_LEN).then(|| ring.address(ring.tail))?
    }

    /// A response has been written.
    pub(crate) fn advance_response(&mut self, tx: usize) {
        let rx = self.partner(tx);
        if let Some(ring) = self.rings.get_mut(rx) {
            ring.tail = ring.wrap(ring.tail.wrapping_add(RESPONSE_LEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personality::Personality;

    /// RX is ring 1 of a bank of generation 4, with four responses.
    fn bank() -> (Bank, &'static Layout) {
        let layout = Personality::Vf4941.layout();
        let mut bank = Bank::new(layout);
        for (ring, code) in [(0, 3), (1, 1)] {
            bank.write(layout, 0x1000 + 4 * ring, code);
            bank.write(layout, 0x1040 + 4 * ring, 0x1000 * (ring as u32 + 1));
        }
        (bank, layout)
    }

    fn respond(bank: &mut Bank) {
        assert!(bank.response_slot(0, 0).is_some());
        bank.advance_response(0);
    }

    #[test]
    fn after_power_on_all_rings_are_empty() {
        for (personality, empty) in [(Personality::Vf37c9, 0xffff), (Personality::Vf4941, 0x3)] {
            let layout = personality.layout();
            assert_eq!(Bank::new(layout).read(layout, register::E_STAT), empty);
        }
    }

    #[test]
    fn registers_of_rings_are_where_the_generation_has_them() {
        let layout = Personality::Vf37c9.layout();
        let mut bank = Bank::new(layout);
        bank.write(layout, 4 * 10, 0x2007);
        bank.write(layout, 0x040 + 4 * 10, 0x048d_0000);
        bank.write(layout, 0x080 + 4 * 10, 0);
        assert_eq!(bank.rings[10].address(0), Some(0x1_2340_0000));
        assert_eq!(bank.read(layout, 4 * 10), 0x2007);
        let layout = Personality::Vf4941.layout();
        let mut bank = Bank::new(layout);
        bank.write(layout, 0x1000, 9);
        bank.write(layout, 0x1040, 0x2340_0000);
        bank.write(layout, 0x1080, 1);
        assert_eq!(bank.rings[0].address(0x80), Some(0x1_2340_0080));
        assert_eq!(bank.read(layout, 0x1080), 1);
    }

    #[test]
    fn responses_are_never_overwritten() {
        let (mut bank, layout) = bank();
        for _ in 0..3 {
            respond(&mut bank);
        }
        assert_eq!(bank.response_slot(0, 0), None, "one slot stays free");
        assert_eq!(bank.read(layout, register::F_STAT), 0b10);
        assert_eq!(bank.write(layout, register::HEAD + 4, 32), Effect::Room(0));
        assert!(bank.response_slot(0, 0).is_some());
        assert!(bank.response_slot(0, 1).is_none());
    }

    #[test]
    fn a_ring_that_is_configured_anew_begins_at_its_beginning() {
        let (mut bank, layout) = bank();
        respond(&mut bank);
        bank.write(layout, 0x1004, 1);
        assert_eq!(bank.read(layout, register::TAIL + 4), 0);
    }

    #[test]
    fn an_interrupt_comes_once_until_the_driver_has_looked() {
        let (mut bank, layout) = bank();
        assert_eq!(bank.write(layout, register::INT_COL_EN, 0b10), Effect::Interrupts);
        bank.write(layout, register::INT_COL_CTL, COL_ENABLE | 2);
        assert_eq!(bank.start_timer(layout), None, "nothing there yet");
        respond(&mut bank);
        let (after, timer) = bank.start_timer(layout).unwrap();
        assert_eq!(after, Duration::from_nanos(512));
        assert_eq!(bank.start_timer(layout), None, "it runs");
        assert!(bank.timer_ran_out(timer) && bank.is_latched());
        respond(&mut bank);
        assert_eq!(bank.start_timer(layout), None);
        // The driver begins to look, and finds something while it is being written to.
        bank.write(layout, register::INT_FLAG_AND_COL, 0);
        assert!(!bank.is_latched());
        assert_eq!(bank.start_timer(layout), None);
        bank.write(layout, register::INT_FLAG_AND_COL, 0b10);
        let (_, timer) =
            bank.start_timer(layout).expect("what is there when it is armed again is not forgotten");
        bank.write(layout, register::HEAD + 4, 64);
        assert!(!bank.timer_ran_out(timer), "it has been taken meanwhile");
    }

    #[test]
    fn a_timer_of_an_earlier_life_means_nothing() {
        let (mut bank, layout) = bank();
        let enable = |bank: &mut Bank| {
            bank.write(layout, register::INT_COL_EN, 0b10);
            bank.write(layout, register::INT_COL_CTL, COL_ENABLE);
        };
        enable(&mut bank);
        respond(&mut bank);
        let (_, old) = bank.start_timer(layout).unwrap();
        bank.reset(layout);
        bank.write(layout, 0x1004, 1);
        enable(&mut bank);
        respond(&mut bank);
        bank.start_timer(layout).unwrap();
        assert!(!bank.timer_ran_out(old));
    }

    #[test]
    fn a_request_ring_is_served_with_arbiter_and_both_rings() {
        let (mut bank, layout) = bank();
        assert!(!bank.serves(0));
        assert_eq!(bank.write(layout, register::RINGSRVARBEN, 0xff), Effect::AllDoorbells);
        assert_eq!(bank.read(layout, register::RINGSRVARBEN), 1);
        assert!(bank.serves(0));
        bank.write(layout, 0x1004, 0);
        assert!(!bank.serves(0));
    }
}
