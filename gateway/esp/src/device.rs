//! Bursts on their way to devices and back.
//!
//! 1. A burst that is full or flushed is closed and handed to [`Esp::dispatch`].
//! 2. While its device has room it is issued at once: sequence numbers are given, a place in the SA's order is taken, and
//!    it appears in [`Output::submit`].
//! 3. Otherwise it waits in the device's line, without numbers. The line is bounded; what does not fit is dropped.
//!    Critical bursts have a line of their own, which goes first.
//! 4. A completion gives its room back, issues the next in line, and is judged by direction.
//!
//! An SA may leave its device for another ([`Esp::move_sa`]) while bursts of it are out: those come home under the old handle,
//! which is given up when the last of them has. What a device never gives back is given up by [`Esp::tick`].

use std::collections::VecDeque;
use std::time::Instant;

use spi::{Direction, EspBurst, FaultKind, Outcome, PacketBuf, SaId, Token};

use crate::counters::DropReason;
use crate::esp::{Esp, Outer};
use crate::output::{Event, OuterPackets, Output};
use crate::sa::ShareId;
use crate::sad::Common;
use crate::timer::Due;

/// One device queue as we see it.
#[derive(Default)]
pub(crate) struct Device {
    /// Bursts it would take now.
    pub(crate) room: usize,
    waiting: VecDeque<(Work, PacketBuf)>,
    /// Bursts that go before those.
    critical: VecDeque<(Work, PacketBuf)>,
    /// It gets nothing.
    down: bool,
    /// Packets that came back, however they ended.
    done: u64,
    /// Bursts that were given up.
    lost: u64,
    faults: Faults,
}

impl Device {
    pub(crate) fn new(room: usize) -> Self {
        Device { room, ..Device::default() }
    }
}

/// A device's lines, to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineView {
    /// Bursts that wait for room.
    pub waiting: usize,
    /// Critical ones.
    pub critical: usize,
    /// Packets that came back, however they ended.
    pub done: u64,
    /// Bursts that it never gave back.
    pub lost: u64,
    /// Packets that it failed.
    pub faults: Faults,
}

/// Packets that a device failed, by what was said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// By a reset.
    pub aborted: u64,
    /// Their SA was not known to it.
    pub stale: u64,
    /// It cannot do such things.
    pub unsupported: u64,
    /// It had no room.
    pub exhausted: u64,
    /// Anything else.
    pub internal: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        let Outcome::Failed(fault) = outcome else { return };
        *match fault.kind {
            FaultKind::Aborted => &mut self.aborted,
            FaultKind::StaleHandle => &mut self.stale,
            FaultKind::Unsupported => &mut self.unsupported,
            FaultKind::Exhausted => &mut self.exhausted,
            _ => &mut self.internal,
        } += 1;
    }

    /// Adds what another queue counted.
    pub fn join(&mut self, other: Faults) {
        self.aborted += other.aborted;
        self.stale += other.stale;
        self.unsupported += other.unsupported;
        self.exhausted += other.exhausted;
        self.internal += other.internal;
    }
}

/// Whose burst it is.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Of an outbound SA.
    Seal(Token),
    /// Of an inbound SA, received like this.
    Open(Token, Outer),
}

impl Work {
    pub(crate) fn dir(&self) -> Direction {
        match self {
            Work::Seal(_) => Direction::Seal,
            Work::Open(..) => Direction::Open,
        }
    }
}

/// A burst that nothing is added to any more.
pub(crate) struct Closed {
    pub(crate) device: usize,
    pub(crate) share: Option<ShareId>,
    /// It goes before others.
    pub(crate) critical: bool,
    pub(crate) buf: PacketBuf,
}

/// A burst that is out.
pub(crate) struct Job {
    work: Work,
    device: usize,
    /// The SA's handle there.
    sa: SaId,
    place: u64,
    /// Packets in it.
    packets: u8,
    /// [`Esp::ticks`] when it left.
    since: u32,
}

/// What is known of a burst that came back.
pub(crate) struct Back {
    /// Its place in the order of its SA.
    pub(crate) place: u64,
    pub(crate) device: usize,
    pub(crate) home: Home,
}

/// What an SA has whose device was closed.
pub(crate) const NO_HANDLE: SaId = SaId { index: u32::MAX, epoch: u32::MAX };

/// A handle that a moved SA left, and the bursts that are still out on it.
pub(crate) struct Leaving {
    device: usize,
    sa: SaId,
    out: u32,
}

impl Esp {
    /// Submits what was gathered, and what waited for SAs that came since. Call it when there is no more to read, and
    /// after SAs were installed; never wait on a timer for more.
    pub fn flush(&mut self, now: Instant, out: &mut Output) {
        self.serve(now, out);
        let mut list = std::mem::take(&mut self.open_outbound);
        for token in list.drain(..) {
            if let Some(sa) = self.sad.outbound.slot(token) {
                sa.common.listed = false;
                self.close_outbound(now, token, false, out);
            }
        }
        self.open_outbound = list;
        self.flush_inbound(now, out);
    }

    /// Submits what was gathered from the network only: what goes out may still find company.
    pub fn flush_inbound(&mut self, now: Instant, out: &mut Output) {
        let mut list = std::mem::take(&mut self.open_inbound);
        for token in list.drain(..) {
            if let Some(sa) = self.sad.inbound.slot(token) {
                sa.common.listed = false;
                self.close_inbound(now, token, out);
            }
        }
        self.open_inbound = list;
        self.submit_closed(out);
    }

    /// Submits what nothing is added to any more.
    pub fn submit_closed(&mut self, out: &mut Output) {
        out.hurry = false;
        for device in 0..self.devices.len() {
            self.pump(device, out);
        }
    }

    /// Whether packets that go out were gathered and not submitted yet.
    pub fn gathers(&self) -> bool {
        !self.open_outbound.is_empty()
    }

    /// Takes a burst that came back from a device; also one that its queue refused to take because it is closed.
    pub fn on_done(&mut self, now: Instant, burst: EspBurst, out: &mut Output) {
        let Some(job) = self.jobs.take(burst.token) else {
            self.counters.drops.add(DropReason::Stray, burst.buf.ops().len() as u64);
            return;
        };
        if let Some(device) = self.devices.get_mut(job.device) {
            device.room += 1;
            device.done += u64::from(job.packets);
        }
        self.pump(job.device, out);
        let back = Back { place: job.place, device: job.device, home: self.returned(&job, out) };
        match job.work {
            Work::Seal(token) => self.sealed(now, token, &back, burst.buf, out),
            Work::Open(token, outer) => self.opened(now, token, &outer, &back, burst.buf, out),
        }
    }

    /// A burst is out no more. Says whether its handle is the one that its SA has now.
    fn returned(&mut self, job: &Job, out: &mut Output) -> Home {
        if let Some(common) = self.common(&job.work)
            && (common.device, common.sa) == (job.device, job.sa)
        {
            common.out = common.out.saturating_sub(1);
            return Home::Here;
        }
        let left = |leaving: &Leaving| (leaving.device, leaving.sa) == (job.device, job.sa);
        if let Some(place) = self.leaving.iter().position(left) {
            self.leaving[place].out -= 1;
            if self.leaving[place].out == 0 {
                self.leaving.swap_remove(place);
                out.left.push_back((job.device, job.sa));
            }
        }
        Home::Left
    }

    /// To be called about once a second: gives up the bursts that have been out for `patience` calls, and says which devices have
    /// lost some. Counting calls, and not time, makes a process that was stopped blame nobody. Afterwards a device has less room
    /// than it had, until [`set_room`](Esp::set_room) knows better.
    pub fn tick(&mut self, patience: u32, out: &mut Output) -> Vec<usize> {
        self.ticks = self.ticks.wrapping_add(1);
        let ticks = self.ticks;
        let old = |job: &Job| ticks.wrapping_sub(job.since) >= patience;
        let lost: Vec<Token> = self.jobs.iter().filter(|(_, job)| old(job)).map(|(token, _)| token).collect();
        let mut devices = Vec::new();
        for job in lost.into_iter().filter_map(|token| self.jobs.take(token)).collect::<Vec<_>>() {
            self.returned(&job, out);
            if let Some(device) = self.devices.get_mut(job.device) {
                device.lost += 1;
            }
            self.counters.drops.add(DropReason::DeviceLost, job.packets.into());
            if let Some(common) = self.common(&job.work) {
                common.drop(DropReason::DeviceLost, job.packets.into());
            }
            if !devices.contains(&job.device) {
                devices.push(job.device);
            }
        }
        devices
    }

    /// A device is closed, and its queue is gone: what is out on it will not come back, and no handle there means anything any
    /// more. If it is opened anew it may give the same handles to others.
    pub fn forget_handles(&mut self, device: usize) {
        let lost: Vec<Token> =
            self.jobs.iter().filter(|(_, job)| job.device == device).map(|(token, _)| token).collect();
        for job in lost.into_iter().filter_map(|token| self.jobs.take(token)).collect::<Vec<_>>() {
            if let Some(device) = self.devices.get_mut(device) {
                device.lost += 1;
            }
            self.counters.drops.add(DropReason::DeviceLost, job.packets.into());
        }
        self.leaving.retain(|leaving| leaving.device != device);
        let children = self.sad.children.values();
        let tokens: Vec<(Vec<Token>, Vec<Token>)> =
            children.map(|child| (child.outbound.clone(), child.inbound.clone())).collect();
        for (outbound, inbound) in tokens {
            for token in outbound {
                self.sad.outbound.slot(token).into_iter().for_each(|sa| sa.common.forget_handle(device));
            }
            for token in inbound {
                self.sad.inbound.slot(token).into_iter().for_each(|sa| sa.common.forget_handle(device));
            }
        }
    }

    /// Whether a device may have bursts. One that is down gets none, packets of its SAs are dropped, and nobody waits for it.
    pub fn set_down(&mut self, device: usize, down: bool) {
        let Some(entry) = self.devices.get_mut(device) else { return };
        entry.down = down;
        if down {
            let (waiting, critical) =
                (std::mem::take(&mut entry.waiting), std::mem::take(&mut entry.critical));
            for (work, buf) in waiting.into_iter().chain(critical) {
                self.give_up(work, buf.ops().len() as u64, DropReason::DeviceDown);
            }
        }
    }

    /// Counts packets that a device failed.
    pub(crate) fn note_faults(&mut self, device: usize, faults: Faults) {
        if let Some(device) = self.devices.get_mut(device) {
            device.faults.join(faults);
        }
    }

    fn common(&mut self, work: &Work) -> Option<&mut Common> {
        match work {
            Work::Seal(token) => self.sad.outbound.slot(*token).map(|sa| &mut sa.common),
            Work::Open(token, _) => self.sad.inbound.slot(*token).map(|sa| &mut sa.common),
        }
    }

    /// An SA has left a handle with so many bursts still out on it.
    pub(crate) fn leave(&mut self, device: usize, sa: SaId, bursts: u32, out: &mut Output) {
        match bursts {
            _ if sa == NO_HANDLE => {}
            0 => out.left.push_back((device, sa)),
            bursts => self.leaving.push(Leaving { device, sa, out: bursts }),
        }
    }

    /// Whether devices or buffers are behind: the worker should stop reading for a while.
    pub fn congested(&self) -> bool {
        let half = self.config.waiting_bursts / 2;
        self.devices.iter().any(|d| !d.down && d.waiting.len() > half) || self.config.pool.available() == 0
    }

    /// The lines of the devices, by their index.
    pub fn lines(&self) -> impl Iterator<Item = LineView> {
        let view = |d: &Device| LineView {
            waiting: d.waiting.len(),
            critical: d.critical.len(),
            done: d.done,
            lost: d.lost,
            faults: d.faults,
        };
        self.devices.iter().map(view)
    }

    /// Takes a closed burst as far as it gets: to its device, or into a line, or nowhere.
    pub(crate) fn dispatch(&mut self, now: Instant, work: Work, burst: Closed, out: &mut Output) {
        let Closed { device, share, critical, buf } = burst;
        if buf.ops().is_empty() {
            return;
        }
        let share = share.filter(|_| !critical);
        if let Some((work, device, buf)) = self.within_share(now, share, (work, device, buf)) {
            self.offer(work, device, buf, critical, out);
        }
    }

    /// Issues a burst, or lets it wait, or drops it.
    pub(crate) fn offer(
        &mut self,
        work: Work,
        device: usize,
        buf: PacketBuf,
        critical: bool,
        out: &mut Output,
    ) {
        // It may have waited, for its share or for room, while its SA moved.
        let device = self.common(&work).map_or(device, |common| common.device);
        let Some(entry) = self.devices.get_mut(device) else { return };
        if entry.down {
            return self.give_up(work, buf.ops().len() as u64, DropReason::DeviceDown);
        }
        let line = if critical { &mut entry.critical } else { &mut entry.waiting };
        // Who comes last does not go first, but for what is critical.
        let first = line.is_empty();
        if entry.room > 0 && first {
            self.issue(work, buf, out);
        } else if line.len() < self.config.waiting_bursts {
            line.push_back((work, buf));
        } else {
            self.give_up(work, buf.ops().len() as u64, DropReason::Backpressure);
        }
    }

    /// Drops packets that were gathered and have no numbers yet.
    pub(crate) fn give_up(&mut self, work: Work, packets: u64, reason: DropReason) {
        self.counters.drops.add(reason, packets);
        match work {
            Work::Seal(token) => {
                if let Some(sa) = self.sad.outbound.slot(token) {
                    sa.seq.release(packets);
                    sa.common.drop(reason, packets);
                }
            }
            Work::Open(token, _) => {
                if let Some(sa) = self.sad.inbound.slot(token) {
                    sa.common.drop(reason, packets);
                }
            }
        }
    }

    /// Gives numbers and a place, and hands the burst out. The device must have room.
    fn issue(&mut self, work: Work, mut buf: PacketBuf, out: &mut Output) {
        let found = match work {
            Work::Seal(token) => self.sad.outbound.slot(token).map(|sa| {
                for op in buf.ops_mut() {
                    op.seq = sa.seq.next();
                }
                (sa.order.place(), &mut sa.common)
            }),
            Work::Open(token, _) => self.sad.inbound.slot(token).map(|sa| (sa.order.place(), &mut sa.common)),
        };
        let Some((place, common)) = found else {
            self.counters.drops.add(DropReason::SaGone, buf.ops().len() as u64);
            return;
        };
        common.out += 1;
        let (device, sa) = (common.device, common.sa);
        let dir = work.dir();
        let (packets, since) = (buf.ops().len() as u8, self.ticks);
        let job = Job { work, device, sa, place, packets, since };
        let Ok(token) = self.jobs.insert(job) else { return };
        if let Some(device) = self.devices.get_mut(device) {
            device.room = device.room.saturating_sub(1);
        }
        self.counters.bursts += 1;
        out.push(device, EspBurst { token, sa, dir, buf });
    }

    /// Issues what waits, as far as there is room.
    fn pump(&mut self, device: usize, out: &mut Output) {
        while let Some(entry) = self.devices.get_mut(device).filter(|d| d.room > 0 && !d.down) {
            let next = entry.critical.pop_front().or_else(|| entry.waiting.pop_front());
            let Some((work, buf)) = next else { return };
            self.issue(work, buf, out);
        }
    }

    /// Puts what waits for a device, but belongs to SAs that have left it, into the right lines.
    pub(crate) fn move_waiting(&mut self, device: usize) {
        let Some(entry) = self.devices.get_mut(device) else { return };
        let (waiting, critical) = (std::mem::take(&mut entry.waiting), std::mem::take(&mut entry.critical));
        for (line, is_critical) in [(waiting, false), (critical, true)] {
            for (work, buf) in line {
                let home = match work {
                    Work::Seal(token) => self.sad.outbound.peek(token).map(|sa| sa.common.device),
                    Work::Open(token, _) => self.sad.inbound.peek(token).map(|sa| sa.common.device),
                };
                // What has lost its SA stays, and is counted when its turn comes.
                if let Some(entry) = self.devices.get_mut(home.unwrap_or(device)) {
                    let line = if is_critical { &mut entry.critical } else { &mut entry.waiting };
                    line.push_back((work, buf));
                }
            }
        }
    }

    /// A sealed burst is back: what succeeded leaves in order.
    fn sealed(&mut self, now: Instant, token: Token, back: &Back, mut buf: PacketBuf, out: &mut Output) {
        let Some(sa) = self.sad.outbound.slot(token) else {
            self.counters.drops.add(DropReason::SaGone, buf.ops().len() as u64);
            return;
        };
        let share = sa.common.share;
        let capacity = buf.capacity();
        let (mut good, mut octets, mut bad) = (0, 0, 0);
        let mut faults = Faults::default();
        for op in buf.ops_mut() {
            let inside = op.at as usize + usize::from(op.len) <= capacity;
            if op.outcome == Outcome::Done && inside {
                good += 1;
                octets += u64::from(op.len);
                continue;
            }
            // Never given to a device again: the buffer was being overwritten in place.
            stale(&mut sa.common, op.outcome, back.home, Direction::Seal, out);
            faults.add(op.outcome);
            (op.len, bad) = (0, bad + 1);
        }
        if bad > 0 {
            self.counters.drops.add(DropReason::DeviceFault, bad);
            sa.common.drop(DropReason::DeviceFault, bad);
        }
        self.counters.sealed += good;
        self.counters.sealed_bytes += octets;
        if good > 0 {
            sa.common.last_used = Some(now);
            if let Some(kept) = sa.keepalive {
                self.keepalives.touch(kept, now);
            }
        }
        let packets = OuterPackets { path: sa.common.path, child: sa.common.child, buf };
        let released = sa.order.done(back.place, packets, now, self.config.reorder_hold, |p| {
            if !p.is_empty() {
                out.outer.push_back(p);
            }
        });
        self.counters.holes += released.holes;
        self.counters.late += u64::from(released.late);
        if bad > 0 {
            self.note_faults(back.device, faults);
        }
        self.arm_order(Direction::Seal, token);
        self.spend(share, good + bad);
    }

    /// Starts the timer of an SA's order, when something is held back and none is running.
    pub(crate) fn arm_order(&mut self, dir: Direction, token: Token) {
        let (deadline, timer, due) = match dir {
            Direction::Seal => {
                let Some(sa) = self.sad.outbound.slot(token) else { return };
                (sa.order.deadline(), &mut sa.common.order_timer, Due::OrderOut(token))
            }
            Direction::Open => {
                let Some(sa) = self.sad.inbound.slot(token) else { return };
                (sa.order.deadline(), &mut sa.common.order_timer, Due::OrderIn(token))
            }
        };
        if let (Some(at), false) = (deadline, *timer) {
            *timer = true;
            self.timers.push(at, due);
        }
    }

    pub(crate) fn order_due(&mut self, now: Instant, dir: Direction, token: Token, out: &mut Output) {
        let hold = self.config.reorder_hold;
        let released = match dir {
            Direction::Seal => {
                let Some(sa) = self.sad.outbound.slot(token) else { return };
                sa.common.order_timer = false;
                sa.order.handle_timeout(now, hold, |p| {
                    if !p.is_empty() {
                        out.outer.push_back(p);
                    }
                })
            }
            Direction::Open => {
                let Some(sa) = self.sad.inbound.slot(token) else { return };
                sa.common.order_timer = false;
                sa.order.handle_timeout(now, hold, |p| {
                    if !p.is_empty() {
                        out.inner.push_back(p);
                    }
                })
            }
        };
        self.counters.holes += released.holes;
        self.arm_order(dir, token);
    }
}

/// Under which handle a burst was out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// That of its SA.
    Here,
    /// One that its SA has left, or the SA is gone.
    Left,
}

/// Raises [`Event::StaleSa`] once when a device says that it does not know an SA.
pub(crate) fn stale(sa: &mut Common, outcome: Outcome, home: Home, dir: Direction, out: &mut Output) {
    let unknown = matches!(outcome, Outcome::Failed(fault) if fault.kind == FaultKind::StaleHandle);
    // Of a handle that was left nobody wants to know.
    if unknown && home == Home::Here && !std::mem::replace(&mut sa.stale_told, true) {
        out.events.push_back(Event::StaleSa { child: sa.child, spi: sa.spi, dir });
    }
}
