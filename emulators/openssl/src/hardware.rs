//! The hardware: a thread that does nothing but say, after a while, that it is done.
//!
//! What asked it for something waits at a descriptor, and for a flag that says whether it was meant: descriptors are
//! readable for other reasons, too.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use emu_model::Clock;
use emu_model::Time;
use emu_model::Timeline;
use emu_model::fault::{Faults, Kind, Occasion};

use crate::options::Options;

/// How much later a completion that comes twice comes again.
const AGAIN: Duration = Duration::from_millis(1);

/// What waits for the hardware.
#[derive(Clone)]
pub(crate) struct Waiter {
    /// Whether it is done.
    pub(crate) done: Arc<AtomicBool>,
    /// Rung when it is.
    pub(crate) bell: Arc<OwnedFd>,
}

/// What comes of a piece of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// It fails.
    pub(crate) error: bool,
    /// It gives a wrong result.
    pub(crate) wrong: bool,
}

struct State {
    timeline: Timeline<Waiter>,
    faults: Faults,
    /// Nothing is done before this.
    silent: Option<Time>,
    /// So many times as long, until then.
    slow: Option<(f64, Time)>,
    stop: bool,
}

struct Line {
    state: Mutex<State>,
    wake: Condvar,
    clock: Clock,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hardware of one provider.
pub(crate) struct Hardware {
    line: Arc<Line>,
    latency: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Hardware {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(options: Options) -> std::io::Result<Self> {
        let state = State {
            timeline: Timeline::default(),
            faults: Faults::new(&options.plan),
            silent: None,
            slow: None,
            stop: false,
        };
        let line = Arc::new(Line { state: Mutex::new(state), wake: Condvar::new(), clock: Clock::running() });
        let thread = std::thread::Builder::new().name("pausing".into()).spawn({
            let line = Arc::clone(&line);
            move || run(&line)
        })?;
        Ok(Hardware { line, latency: options.latency, thread: Some(thread) })
    }

    /// Takes a piece of work; the waiter is told when it is done, or is not.
    pub(crate) fn take(&self, service: usize, waiter: &Waiter) -> Fate {
        let now = self.line.clock.now();
        let mut state = self.line.lock();
        // What befalls the hardware at a time shows with the first job from then on.
        let mut struck = state.faults.strike_by_the_clock(now);
        struck.extend(state.faults.strike(Occasion::Job, None, Some(service), now));
        let (mut fate, mut extra, mut lost, mut twice) = (Fate::default(), Duration::ZERO, false, false);
        for kind in struck {
            match kind {
                Kind::Delay(by) => extra += by,
                Kind::LoseCompletion => lost = true,
                Kind::DoubleCompletion => twice = true,
                Kind::FlipBit => fate.wrong = true,
                Kind::EngineError => fate.error = true,
                Kind::Slow(factor, lasting) => state.slow = Some((factor, now.after(lasting))),
                Kind::Silence(Some(lasting)) => state.silent = Some(now.after(lasting)),
                Kind::Silence(None) => state.silent = Some(Time::from_nanos(u64::MAX)),
                // The options refuse all others.
                _ => {}
            }
        }
        let factor = state.slow.filter(|(_, until)| now < *until).map_or(1.0, |(factor, _)| factor);
        let mut due = now.after(self.latency.mul_f64(factor.min(1e6)) + extra);
        if let Some(silent) = state.silent.filter(|until| now < *until) {
            due = due.max(silent);
            lost |= silent == Time::from_nanos(u64::MAX);
        }
        if !lost {
            state.timeline.enter(due, waiter.clone());
            if twice {
                state.timeline.enter(due.after(AGAIN), waiter.clone());
            }
        }
        drop(state);
        self.line.wake.notify_one();
        fate
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        self.line.lock().stop = true;
        self.line.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(line: &Line) {
    let mut state = line.lock();
    while !state.stop {
        while let Some((_, waiter)) = state.timeline.take_due(line.clock.now()) {
            waiter.done.store(true, Ordering::Release);
            // A counter that is full rings already.
            let _ = rustix::io::write(&*waiter.bell, &1u64.to_ne_bytes());
        }
        state = match state.timeline.next().and_then(|due| line.clock.wait_for(due)) {
            Some(limit) => line.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => line.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use emu_model::fault::{Fault, Plan};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn hardware(faults: Vec<Fault>) -> Hardware {
        let plan = Plan { seed: 7, faults };
        let options = Options { plan, latency: Duration::from_millis(1) };
        Hardware::start(options).expect("a thread")
    }

    fn waiter() -> Waiter {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
        Waiter { done: Arc::default(), bell: Arc::new(bell) }
    }

    fn rings(waiter: &Waiter, limit: Duration) -> u64 {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < limit {
            let mut octets = [0; 8];
            if rustix::io::read(&*waiter.bell, &mut octets).is_ok() {
                count += u64::from_ne_bytes(octets);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        count
    }

    #[test]
    fn what_is_taken_is_done_once_never_or_twice_as_planned() {
        let hardware = hardware(vec![
            Fault::new(Kind::LoseCompletion).after(1),
            Fault::new(Kind::DoubleCompletion).after(2),
            Fault::new(Kind::FlipBit).after(3).for_service(2),
        ]);
        for (expected, done) in [(1, true), (0, false), (2, true)] {
            let waiter = waiter();
            assert_eq!(hardware.take(0, &waiter), Fate::default());
            assert_eq!(rings(&waiter, Duration::from_millis(60)), expected);
            assert_eq!(waiter.done.load(Ordering::Acquire), done);
        }
        let fates: Vec<Fate> = (0..4).map(|_| hardware.take(2, &waiter())).collect();
        assert_eq!(fates.iter().map(|fate| fate.wrong).collect::<Vec<_>>(), [false, false, false, true]);
    }
}
