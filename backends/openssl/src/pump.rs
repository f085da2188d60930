//! Jobs of one queue: started, paused, woken, and abandoned.
//!
//! ```text
//!          start                    its descriptor is readable
//!   task ─────────► running ◄──────────────────────────────────── paused
//!                     │  └──────────────────────────────────────►  │
//!                     ▼                                            ▼ its device was reset, or its queue is gone
//!                    done                                       orphan: goes on as it would have, and what it gives is dropped
//! ```
//!
//! A job that is paused cannot be ended from outside, and must not be gone on with before its provider says so: there are frames of
//! the provider's on its stack, and hardware may still write to what it holds. So it owns all it works on, and whoever waited
//! for it can be told at once that it is aborted. It stays as an orphan until its descriptor is readable, is then gone on
//! with to its end, and its memory is free. Orphans whose descriptor never is are counted in the whole process; with too many of
//! them no provider is opened any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::sys::job::{Fibre, Task, Turn, Wait};
use crate::sys::watch::Watch;

/// Orphans in the whole process with which nothing is opened any more: 32 MiB of stacks.
const TOO_MANY_LEFT: usize = 1024;
/// How long a queue that is dropped waits for its jobs.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks at whether a job is overdue; and between two attempts of jobs that have no descriptor.
const SLOW: Duration = Duration::from_millis(100);
const FAST: Duration = Duration::from_millis(1);
/// Wait contexts that are kept for the next jobs, with the descriptors that providers have put into them.
const SPARE: usize = 1024;

/// Marks in the set; all others are descriptors.
const BELL: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

static LEFT: AtomicUsize = AtomicUsize::new(0);

/// How many orphans there are, if that is too many.
pub(crate) fn too_many_left() -> Option<usize> {
    Some(LEFT.load(Ordering::Relaxed)).filter(|left| *left >= TOO_MANY_LEFT)
}

/// Orphans in the whole process.
pub(crate) fn left() -> usize {
    LEFT.load(Ordering::Relaxed)
}

/// What came of starting a task.
pub(crate) enum Started<T> {
    /// It has run to its end.
    Done(Box<T>),
    /// It is paused.
    Paused,
    /// As many are paused as may be.
    NotNow(Box<T>),
}

/// What a look at the paused jobs has found.
pub(crate) struct Woken<T> {
    /// Those that have come to their end.
    pub(crate) done: Vec<Box<T>>,
    /// Whether one is paused too long, or cannot be gone on with.
    pub(crate) overdue: bool,
}

struct Slot<T: Task> {
    fibre: Fibre<T>,
    /// So that what is said of a place is not believed of the next job in it.
    serial: u64,
    since: Duration,
    fds: Vec<RawFd>,
    orphan: bool,
    stuck: bool,
}

/// The jobs.
pub(crate) struct Pump<T: Task> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<usize>,
    serial: u64,
    /// Which places wait at a descriptor.
    at: HashMap<RawFd, Vec<usize>>,
    waits: Vec<Wait>,
    watch: Watch,
    /// Where orphans wait: they are looked at when there is an occasion, and wake nobody.
    limbo: Watch,
    heard: bool,
    timer: OwnedFd,
    tick: Duration,
    /// Time in which somebody looked: a process that was stopped has waited for nothing.
    now: Duration,
    thread: Option<ThreadId>,
    limit: usize,
    patience: Duration,
    /// Paused and waited for; of these, without a descriptor.
    live: usize,
    blind: usize,
    orphans: usize,
}

impl<T: Task> Pump<T> {
    /// For at most `limit` paused jobs. The bell is rung by others, and makes the whole readable.
    pub(crate) fn new(limit: usize, patience: Duration, bell: BorrowedFd<'_>) -> io::Result<Self> {
        let watch = Watch::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        watch.add(bell, BELL)?;
        watch.add(timer.as_fd(), TIMER)?;
        Ok(Pump {
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            at: HashMap::new(),
            waits: Vec::new(),
            watch,
            limbo: Watch::new()?,
            heard: true,
            timer,
            tick: Duration::ZERO,
            now: Duration::ZERO,
            thread: None,
            limit: limit.max(1),
            patience,
            live: 0,
            blind: 0,
            orphans: 0,
        })
    }

    /// Starts a task.
    pub(crate) fn start(&mut self, mut task: Box<T>) -> Started<T> {
        if !self.has_room() {
            return Started::NotNow(task);
        }
        self.thread.get_or_insert_with(|| std::thread::current().id());
        let Some(wait) = self.waits.pop().or_else(Wait::new) else {
            // No memory for the least of things: without a stack of its own it cannot be paused, and is done all the same.
            task.run();
            return Started::Done(task);
        };
        let mut fibre = Fibre::new(task, wait);
        match fibre.turn() {
            Turn::Paused => {
                self.pause(fibre);
                Started::Paused
            }
            turn => match self.end(fibre) {
                Some(task) if turn == Turn::Finished => Started::Done(task),
                Some(mut task) => {
                    task.run();
                    Started::Done(task)
                }
                // Not paused, and yet not over: it cannot be.
                None => Started::Paused,
            },
        }
    }

    /// Goes on with what can be gone on with. Waits for orphans no longer than that.
    pub(crate) fn wake(&mut self, limit: Duration) -> Woken<T> {
        let mut woken = Woken { done: Vec::new(), overdue: false };
        if self.live + self.orphans == 0 {
            return woken;
        }
        let mut ticked = false;
        let mut due: Vec<(usize, u64)> = Vec::new();
        let mut marks = if self.live > 0 { self.watch.ready(Duration::ZERO) } else { Vec::new() };
        if self.orphans > 0 {
            marks.extend(self.limbo.ready(limit));
        }
        for mark in marks {
            match mark {
                BELL => {}
                TIMER => {
                    ticked = self.read_timer();
                    self.now += self.tick;
                }
                fd => {
                    let places = RawFd::try_from(fd).ok().and_then(|fd| self.at.get(&fd));
                    let slots = places.into_iter().flatten().copied();
                    due.extend(
                        slots.filter_map(|place| Some((place, self.slots.get(place)?.as_ref()?.serial))),
                    );
                }
            }
        }
        if ticked && self.blind > 0 {
            let blind = self.slots.iter().enumerate().filter_map(|(place, slot)| {
                let slot = slot.as_ref().filter(|slot| slot.fds.is_empty() && !slot.stuck)?;
                Some((place, slot.serial))
            });
            due.extend(blind);
        }
        for (place, serial) in due {
            if self.slots.get(place).and_then(Option::as_ref).is_some_and(|slot| slot.serial == serial) {
                woken.done.extend(self.resume(place, &mut woken.overdue));
            }
        }
        if ticked {
            let late = |slot: &Slot<T>| !slot.orphan && self.now.saturating_sub(slot.since) >= self.patience;
            woken.overdue |= self.slots.iter().flatten().any(late);
        }
        self.set_timer();
        woken
    }

    /// Nobody waits for what is paused any more.
    pub(crate) fn abandon(&mut self) -> usize {
        let mut count = 0;
        for slot in self.slots.iter_mut().flatten().filter(|slot| !slot.orphan) {
            slot.orphan = true;
            count += 1;
            for fd in &slot.fds {
                self.watch.remove(*fd);
                self.limbo.arm(*fd, *fd as u64);
            }
        }
        LEFT.fetch_add(count, Ordering::Relaxed);
        self.orphans += count;
        self.live = 0;
        self.blind = 0;
        self.set_timer();
        count
    }

    /// The queue is gone. What is paused gets some time, and what is paused then still stays with this thread.
    pub(crate) fn retire(mut self) {
        self.abandon();
        if self.thread != Some(std::thread::current().id()) {
            // Their stacks belong to another thread: fibres that are dropped stay as they are.
            return;
        }
        let start = Instant::now();
        while self.orphans > 0 && start.elapsed() < GRACE {
            self.wake(Duration::from_millis(20));
        }
        if self.orphans > 0 {
            // A thread that ends has no such list any more, and its fibres stay as they are.
            let _ = GRAVES.try_with(|graves| graves.borrow_mut().push(Box::new(self)));
        }
    }

    /// Whether the bell that others ring is heard. Nobody asks a queue that has nothing out, so a bell that rings for one would
    /// ring for ever.
    pub(crate) fn hear(&mut self, bell: BorrowedFd<'_>, heard: bool) {
        if self.heard != heard {
            self.heard = heard;
            self.watch.hear(bell, BELL, heard);
        }
    }

    /// Whether a task that is started now may be paused.
    pub(crate) fn has_room(&self) -> bool {
        self.live < self.limit
    }

    /// Jobs that are paused, and waited for.
    pub(crate) fn paused(&self) -> usize {
        self.live
    }

    fn pause(&mut self, fibre: Fibre<T>) {
        let place = self.free.pop().unwrap_or(self.slots.len());
        if place == self.slots.len() {
            self.slots.push(None);
        }
        self.serial += 1;
        let slot = Slot {
            fibre,
            serial: self.serial,
            since: self.now,
            fds: Vec::new(),
            orphan: false,
            stuck: false,
        };
        if let Some(free) = self.slots.get_mut(place) {
            *free = Some(slot);
        }
        self.live += 1;
        self.listen(place);
        self.set_timer();
    }

    /// Waits for what the job at a place says it waits for.
    fn listen(&mut self, place: usize) {
        let Some(Some(slot)) = self.slots.get_mut(place) else { return };
        let Some(wait) = slot.fibre.wait() else { return };
        let (_, gone) = wait.changes();
        let fds = wait.fds();
        for fd in gone {
            if !self.at.contains_key(&fd) {
                self.watch.remove(fd);
                self.limbo.remove(fd);
            }
        }
        // What cannot be waited for is as good as not there.
        let watch = if slot.orphan { &self.limbo } else { &self.watch };
        slot.fds = fds.into_iter().filter(|fd| watch.arm(*fd, *fd as u64)).collect();
        for fd in &slot.fds {
            self.at.entry(*fd).or_default().push(place);
        }
        if slot.fds.is_empty() && !slot.orphan {
            self.blind += 1;
        }
    }

    /// The job at a place does not wait any more.
    fn deafen(&mut self, place: usize) {
        let Some(Some(slot)) = self.slots.get_mut(place) else { return };
        if slot.fds.is_empty() && !slot.orphan {
            self.blind = self.blind.saturating_sub(1);
        }
        for fd in slot.fds.drain(..) {
            if let Some(places) = self.at.get_mut(&fd) {
                places.retain(|other| *other != place);
                if places.is_empty() {
                    self.at.remove(&fd);
                }
            }
        }
    }

    /// Goes on with one job.
    fn resume(&mut self, place: usize, overdue: &mut bool) -> Option<Box<T>> {
        self.deafen(place);
        let slot = self.slots.get_mut(place)?.as_mut()?;
        match slot.fibre.turn() {
            Turn::Paused => {
                self.listen(place);
                None
            }
            Turn::Finished => {
                let slot = self.slots.get_mut(place)?.take()?;
                self.free.push(place);
                let task = self.end(slot.fibre);
                if slot.orphan {
                    self.orphans -= 1;
                    LEFT.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                self.live -= 1;
                task
            }
            Turn::NotNow | Turn::Stuck => {
                slot.stuck = true;
                *overdue |= !slot.orphan;
                None
            }
        }
    }

    /// Takes a fibre apart whose job is over. Its wait context is kept, and so are the descriptors in it.
    fn end(&mut self, fibre: Fibre<T>) -> Option<Box<T>> {
        let (task, mut wait) = fibre.into_parts()?;
        for fd in wait.changes().1 {
            if !self.at.contains_key(&fd) {
                self.watch.remove(fd);
                self.limbo.remove(fd);
            }
        }
        if self.waits.len() < SPARE {
            self.waits.push(wait);
        }
        Some(task)
    }

    fn set_timer(&mut self) {
        let tick = match (self.live, self.blind) {
            (0, _) => Duration::ZERO,
            (_, 0) => SLOW,
            _ => FAST,
        };
        if tick == self.tick {
            return;
        }
        self.tick = tick;
        let every = Timespec { tv_sec: 0, tv_nsec: i64::from(tick.subsec_nanos()) };
        let setting = Itimerspec { it_interval: every, it_value: every };
        // Nothing else can be wrong with it but its numbers, and they are right.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }

    fn read_timer(&self) -> bool {
        let mut count = [0; 8];
        matches!(rustix::io::read(&self.timer, &mut count), Ok(8))
    }
}

impl<T: Task> AsFd for Pump<T> {
    /// Readable when [`wake`](Pump::wake) has something to do, or the bell has rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// Orphans of queues that are gone; their stacks belong to this thread.
trait Grave {
    /// Goes on with what can be gone on with; whether anything is left.
    fn tend(&mut self) -> bool;
}

impl<T: Task> Grave for Pump<T> {
    fn tend(&mut self) -> bool {
        self.wake(Duration::ZERO);
        self.orphans > 0
    }
}

thread_local! {
    static GRAVES: RefCell<Vec<Box<dyn Grave>>> = const { RefCell::new(Vec::new()) };
}

/// Looks after what queues that are gone have left on this thread.
pub(crate) fn tend_graves() {
    if left() == 0 {
        return;
    }
    let _ = GRAVES.try_with(|graves| graves.borrow_mut().retain_mut(|grave| grave.tend()));
}
