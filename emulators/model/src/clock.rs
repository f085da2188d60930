//! The device's own clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time::Time;

/// Virtual time. It either runs with the machine's, for a device that lives on a thread, or stands still until a test
/// moves it, so that one seed gives one course of events.
#[derive(Debug)]
pub enum Clock {
    /// Runs since this moment.
    Running(Instant),
    /// Stands at so many nanoseconds.
    Stepped(AtomicU64),
}

impl Clock {
    /// A clock that runs, from now.
    pub fn running() -> Self {
        Clock::Running(Instant::now())
    }

    /// A clock that stands at zero.
    pub fn stepped() -> Self {
        Clock::Stepped(AtomicU64::new(0))
    }

    /// What it says.
    pub fn now(&self) -> Time {
        match self {
            Clock::Running(since) => Time::ZERO.after(since.elapsed()),
            Clock::Stepped(at) => Time::from_nanos(at.load(Ordering::Acquire)),
        }
    }

    /// Moves a stepped clock forward to `to`; never back. A running clock goes its own way.
    pub fn step_to(&self, to: Time) {
        if let Clock::Stepped(at) = self {
            at.fetch_max(to.as_nanos(), Ordering::AcqRel);
        }
    }

    /// How long a thread may sleep until `until`; `None` on a stepped clock, which no sleep moves.
    pub fn wait_for(&self, until: Time) -> Option<Duration> {
        match self {
            Clock::Running(_) => Some(until.since(self.now())),
            Clock::Stepped(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_clock_moves_when_told_and_only_forward() {
        let clock = Clock::stepped();
        assert_eq!(clock.now(), Time::ZERO);
        clock.step_to(Time::from_nanos(50));
        clock.step_to(Time::from_nanos(20));
        assert_eq!(clock.now(), Time::from_nanos(50));
        assert_eq!(clock.wait_for(Time::from_nanos(90)), None);
    }

    #[test]
    fn a_running_clock_does_not_go_back() {
        let clock = Clock::running();
        let before = clock.now();
        assert!(clock.now() >= before);
        assert_eq!(clock.wait_for(Time::ZERO), Some(Duration::ZERO));
    }
}
