//! Where a queue sleeps: its doorbell, and what others found for it.
//!
//! A card has one interrupt for all its queues, so whoever answers it rings the bells of those that sleep. A bell has three states:
//!
//! ```text
//!            submit: there is work out again           the card has something
//!   Silent ───────────────────────────────► Armed ──────────────────────────► Rung
//!     ▲                                       ▲  │                              │
//!     │ poll: nothing is out any more         │  └────────────────────────────┐ │
//!     └───────────────────────────────────────┼──────────────────────────────┴─┤
//!                                             └─────────────────────────────────┘
//!                                               poll: nothing came, work is out
//! ```
//!
//! While a queue is busy its bell stays rung, and neither the card nor the kernel is bothered: who would sleep wakes at once,
//! polls, finds nothing, and only that poll arms the card. Whatever the card has by then interrupts, so no wake-up is lost. With
//! nothing out a bell is silent: a worker may not poll then, and would spin on a bell that is not answered.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spi::Doorbell;

use crate::ring::Arrival;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Silent,
    Armed,
    Rung,
}

/// A queue's place to sleep.
pub(crate) struct Station {
    /// `None`: the card has no interrupt, and whoever has work out polls.
    bell: Option<Doorbell>,
    state: Mutex<State>,
    inbox: Mutex<Vec<Arrival>>,
    /// Something is in the inbox.
    has_mail: AtomicBool,
}

impl Station {
    pub(crate) fn new(bell: Option<Doorbell>) -> Self {
        Station {
            bell,
            state: Mutex::new(State::Silent),
            inbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
        }
    }

    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// Wakes the owner if it sleeps, or is about to.
    pub(crate) fn ring(&self) {
        let Some(bell) = &self.bell else { return };
        // The lock is held while the bell is rung: a queue that has nothing out any more waits for it and silences the bell.
        let mut state = self.state();
        if *state == State::Armed {
            *state = State::Rung;
            bell.ring();
        }
    }

    /// The owner has something to be told that no card will ring for.
    pub(crate) fn ring_for_itself(&self) {
        let Some(bell) = &self.bell else { return };
        let mut state = self.state();
        if *state != State::Rung {
            *state = State::Rung;
            bell.ring();
        }
    }

    /// There is work out for which nobody would ring; true when the card has to be armed.
    pub(crate) fn arm_if_silent(&self) -> bool {
        self.bell.is_some() && {
            let mut state = self.state();
            let silent = *state == State::Silent;
            if silent {
                *state = State::Armed;
            }
            silent
        }
    }

    /// Nothing came, and work is out; true when the card has to be armed.
    pub(crate) fn arm(&self) -> bool {
        let Some(bell) = &self.bell else { return false };
        let mut state = self.state();
        match *state {
            State::Armed => false,
            State::Silent | State::Rung => {
                if *state == State::Rung {
                    bell.answer();
                }
                *state = State::Armed;
                true
            }
        }
    }

    /// Nothing is out; true when the card is armed for nothing.
    pub(crate) fn silence(&self) -> bool {
        let Some(bell) = &self.bell else { return false };
        let mut state = self.state();
        let old = std::mem::replace(&mut *state, State::Silent);
        if old == State::Rung {
            bell.answer();
        }
        old == State::Armed
    }

    pub(crate) fn is_armed(&self) -> bool {
        *self.state() == State::Armed
    }

    /// Puts something into the inbox; its owner is to be rung for afterwards.
    pub(crate) fn mail(&self, arrival: Arrival) {
        self.inbox().push(arrival);
        self.has_mail.store(true, Ordering::Release);
    }

    /// Takes what is in the inbox.
    pub(crate) fn collect(&self) -> Vec<Arrival> {
        if !self.has_mail.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut inbox = self.inbox();
        self.has_mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut *inbox)
    }

    /// Whether something is in the inbox. Who arms asks afterwards: another queue of the ring pair may have found it between the
    /// last look and the arming, when there was nobody to ring for, and no card will ring for it any more.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn rings(station: &Station) -> bool {
        let bell = station.bell().unwrap();
        poll(&mut [PollFd::from_borrowed_fd(bell, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
    }

    #[test]
    fn a_bell_rings_once_for_who_sleeps_and_stays_rung_while_the_queue_is_busy() {
        let station = Station::new(Some(Doorbell::new().unwrap()));
        station.ring();
        assert!(!rings(&station), "nobody sleeps");
        assert!(station.arm_if_silent() && !station.arm_if_silent() && !station.arm());
        station.ring();
        station.ring();
        assert!(rings(&station) && !station.is_armed());
        assert!(!station.arm_if_silent(), "submitting while busy arms nothing");
        assert!(rings(&station));
        assert!(station.arm(), "the first poll that finds nothing arms");
        assert!(!rings(&station));
    }

    #[test]
    fn with_nothing_out_it_is_silent() {
        let station = Station::new(Some(Doorbell::new().unwrap()));
        station.arm();
        assert!(station.silence(), "was armed");
        station.ring();
        assert!(!rings(&station));
        station.ring_for_itself();
        assert!(rings(&station));
        assert!(!station.silence());
        assert!(!rings(&station));
    }

    #[test]
    fn nobody_spins_on_a_bell_that_was_rung_late() {
        let station = Station::new(Some(Doorbell::new().unwrap()));
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| (0..20_000).for_each(|_| station.ring()));
            }
            for _ in 0..20_000 {
                station.arm();
                station.silence();
                assert!(!rings(&station), "rung after it was silenced");
            }
        });
    }

    #[test]
    fn without_a_bell_nothing_is_armed() {
        let station = Station::new(None);
        assert!(station.bell().is_none() && !station.arm() && !station.arm_if_silent() && !station.silence());
    }
}
