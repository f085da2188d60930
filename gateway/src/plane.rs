//! One core's data path: sockets for ESP, a queue of every TUN device, the SAs that were given to it, and a queue on every
//! accelerator. It runs to completion on one thread, and shares nothing with other lanes but letterboxes.
//!
//! A turn, in the order of the dispatch table:
//!
//! 1. orders of the thread with the key exchange, and what is due;
//! 2. critical packets that were left over or handed over;
//! 3. packets: what was left over, TUN queues, sockets, what was handed over; each up to the table's quota. Packets go to the
//!    accelerator and on as soon as there is nothing more to read, or a burst is full; none waits for a timer.
//!
//! Lane 0 shares its thread with the key exchange, whose worker calls the steps in its own turn. The others [`run`](Plane::run)
//! by themselves.
//!
//! | module | what it holds |
//! |---|---|
//! | `order`, `mail` | what lanes are told and tell, and how it gets there |
//! | `inward`, `outward` | sockets and TUN queues to the data path |
//! | `deliver` | and back out of it |
//! | `queues` | bursts to accelerators and back |
//! | `look`, `tap` | what is shown |

mod deliver;
mod inward;
pub(crate) mod look;
pub(crate) mod mail;
pub(crate) mod order;
mod outward;
pub(crate) mod queues;
mod tap;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use esp::{Coalescer, Esp, Output};
use spi::Pool;

use crate::dispatch::{Class, Served, Table};
use crate::io::clear::Clear;
use crate::io::epoll::{Epoll, Interest};
use crate::io::outside::Sockets;
use crate::io::sys::Landing;
use crate::io::tun::Tun;
use mail::{Inbox, Letterbox};
use order::{Order, Report};
use outward::Intake;
use queues::Queues;
use tap::Tap;

/// How often it is told which peers were heard.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// Sleep while a device without a doorbell has work out.
const BLIND_WAIT: Duration = Duration::from_micros(50);
/// Buffers of a lane and their octets: a superpacket each, with room around its pieces.
const BUFFERS: usize = 512;
const BUFFER_LEN: usize = 72 * 1024;

/// Keys of the sleeping place; whoever shares it takes others.
const KEY_MAIL: u64 = 1 << 32;
const KEY_SOCKETS: u64 = 2 << 32;
const KEY_TUNS: u64 = 3 << 32;
const KEY_DEVICES: u64 = 4 << 32;
/// The first key that is free for others.
pub(crate) const KEY_OTHERS: u64 = 16 << 32;

/// What a lane is made of.
pub(crate) struct Parts {
    pub(crate) lane: u16,
    pub(crate) config: esp::Config,
    pub(crate) queues: Queues,
    pub(crate) sockets: Sockets,
    pub(crate) table: Arc<Table>,
    /// Everybody's, by lane.
    pub(crate) letterboxes: Arc<[Arc<Letterbox>]>,
    /// For what goes out in the clear.
    pub(crate) clear: Clear,
    /// Mark of our own packets.
    pub(crate) mark: u32,
}

/// One lane.
pub(crate) struct Plane {
    lane: u16,
    esp: Esp,
    out: Output,
    pool: Pool,
    queues: Queues,
    sockets: Sockets,
    /// Not there while its datagrams are sorted.
    landing: Option<Landing>,
    tuns: Vec<Option<Tun>>,
    intake: Intake,
    coalescer: Coalescer,
    clear: Clear,
    tap: Tap,
    /// What captures call a line, and how many of its pairs are here.
    labels: HashMap<esp::ChildId, (Arc<str>, usize)>,
    epoll: Epoll,
    table: Arc<Table>,
    letterboxes: Arc<[Arc<Letterbox>]>,
    reports: VecDeque<Report>,
    served: Served,
    heard_at: Instant,
    keepalives_in: u64,
    mtu_words: u32,
    paused: bool,
    mark: u32,
    stop: bool,
}

/// Memory for a lane's packets.
///
/// # Errors
/// What the kernel says.
pub(crate) fn pool() -> std::io::Result<Pool> {
    Pool::new(BUFFER_LEN, BUFFERS)
}

impl Plane {
    /// One without SAs and TUN devices.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub(crate) fn new(parts: Parts) -> std::io::Result<Plane> {
        let Parts { lane, config, queues, sockets, table, letterboxes, clear, mark } = parts;
        let pool = config.pool.clone();
        let mut esp = Esp::new(config);
        queues.attach(&mut esp);
        let plane = Plane {
            lane,
            esp,
            out: Output::new(),
            intake: Intake::new(),
            pool,
            queues,
            sockets,
            landing: Some(Landing::new()),
            tuns: Vec::new(),
            coalescer: Coalescer::default(),
            clear,
            tap: Tap::default(),
            labels: HashMap::new(),
            epoll: Epoll::new()?,
            table,
            letterboxes,
            reports: VecDeque::new(),
            served: Served::default(),
            heard_at: Instant::now(),
            keepalives_in: 0,
            mtu_words: 0,
            paused: false,
            mark,
            stop: false,
        };
        plane.epoll.add(&*plane.letterboxes[usize::from(lane)], KEY_MAIL)?;
        for (place, socket) in plane.sockets.all().iter().enumerate() {
            plane.epoll.add(socket, KEY_SOCKETS + place as u64)?;
        }
        for bell in plane.queues.doorbells() {
            plane.epoll.add(bell, KEY_DEVICES)?;
        }
        Ok(plane)
    }

    /// Runs until it is told to stop. Reports go to `inbox`.
    ///
    /// # Errors
    /// What the kernel says of sleeping.
    pub(crate) fn run(mut self, inbox: &Inbox) -> std::io::Result<()> {
        let mut ready = Ready::default();
        while !self.stop {
            self.sleep(&mut ready, None)?;
            let now = Instant::now();
            for class in self.table.clone().order() {
                self.serve(now, *class, &mut ready);
            }
            self.end_turn(now);
            ready.clear();
            inbox.put(self.lane, &mut self.reports);
        }
        Ok(())
    }

    /// Sleeps until there is something to do, `until` at the longest; says in `ready` what it is.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn sleep(&self, ready: &mut Ready, until: Option<Instant>) -> std::io::Result<()> {
        let letterbox = &self.letterboxes[usize::from(self.lane)];
        letterbox.lie_down();
        let limit =
            if letterbox.is_empty() && !ready.more { self.patience(until) } else { Some(Duration::ZERO) };
        ready.more = false;
        self.epoll.wait(limit, |key| ready.note(key))?;
        letterbox.get_up(ready.mail);
        Ok(())
    }

    fn patience(&self, until: Option<Instant>) -> Option<Duration> {
        // A report that found no room is tried again soon: whoever reads them is busy.
        if self.intake.is_waiting() {
            return Some(Duration::ZERO);
        }
        // What is out may have to be given up.
        let tick = self.esp.has_heard() || self.queues.is_waiting();
        let heard = tick.then_some(self.heard_at + HEARD_EVERY);
        let next = [self.esp.poll_timeout(), heard, until].into_iter().flatten().min();
        let next = next.map(|at| at.saturating_duration_since(Instant::now()));
        // epoll counts from when it is called; a nanosecond too early would be a turn for nothing.
        let next = next.map(|wait| if wait.is_zero() { wait } else { wait + Duration::from_micros(50) });
        match self.queues.is_blind() || !self.reports.is_empty() {
            true => Some(next.map_or(BLIND_WAIT, |next| next.min(BLIND_WAIT))),
            false => next,
        }
    }

    /// Does what a class has to do, up to its quota; says in `ready` whether there is more.
    pub(crate) fn serve(&mut self, now: Instant, class: Class, ready: &mut Ready) {
        match class {
            Class::Control => {
                self.take_orders(now);
                if self.esp.poll_timeout().is_some_and(|at| at <= now) {
                    self.esp.handle_timeout(now, &mut self.out);
                    self.pump(now);
                }
            }
            Class::Critical => self.serve_critical(now),
            Class::Esp => {
                self.serve_packets(now, ready);
                self.serve_sockets(now, ready);
                // Acknowledgements that were delivered let TCP send more.
                self.fill_up(now, ready);
                self.pump(now);
                self.pause_or_resume();
            }
            Class::Ike | Class::Stranger => {}
        }
    }

    /// Carries out what was ordered, up to the quota. Also before packets are looked at that arrived: whoever told a peer of an SA had
    /// ordered it before, and the first packet through it may come in the same turn.
    fn take_orders(&mut self, now: Instant) {
        for _ in 0..self.table.quota(Class::Control) {
            let Some(order) = self.letterboxes[usize::from(self.lane)].take_order() else { break };
            self.obey(now, order);
        }
    }

    /// What is done once in a turn, after everything else.
    pub(crate) fn end_turn(&mut self, now: Instant) {
        if now >= self.heard_at + HEARD_EVERY {
            self.heard_at = now;
            self.mtu_words = 0;
            if self.esp.has_heard() {
                self.reports.push_back(Report::Heard(self.esp.take_heard()));
            }
            let mut told = Vec::new();
            self.queues.tick(&mut self.esp, &mut self.out, &mut told);
            self.reports.extend(told.into_iter().map(Report::Device));
        }
    }

    /// Carries an order out.
    pub(crate) fn obey(&mut self, now: Instant, order: Order) {
        match order {
            Order::Install(install) => {
                let id = install.id;
                if let Err(why) = self.install(now, *install) {
                    self.reports.push_back(Report::NotInstalled { id, why });
                }
            }
            Order::UseOutbound { line, spi } => {
                self.esp.use_outbound(line, spi);
            }
            Order::Retire { line, spi } => self.esp.retire_outbound(line, spi),
            Order::Remove { line, spi_in, spi_out } => self.remove(line, spi_in, spi_out),
            Order::Elsewhere(sa) => self.esp.install_elsewhere(*sa),
            Order::NotElsewhere { line, spi } => self.esp.remove_elsewhere(line, spi),
            Order::Move { line, local, remote, encap } => {
                self.esp.update_peer(line, local, remote, encap, now);
            }
            Order::LowerMtu { remote, mtu } => self.esp.lower_mtu_towards(remote, mtu),
            Order::Policies(policies) => self.esp.set_policies(policies.to_vec()),
            Order::Shares(rates) => self.esp.set_shares(&rates),
            Order::AcquireFailed(line) => self.esp.acquire_failed(line),
            Order::Tun { place, fd, ethernet, offload } => self.take_tun(place, fd, ethernet, offload),
            Order::Capture(to) => self.tap.add(to),
            Order::Device(order) => {
                let mut told = Vec::new();
                self.queues.obey(order, &self.epoll, &mut self.esp, &mut self.out, &mut told);
                self.reports.extend(told.into_iter().map(Report::Device));
                // What waited for another device may go now.
                self.pump(now);
            }
            Order::Look { sas, ticket } => {
                let look = Box::new(self.look(sas));
                self.reports.push_back(Report::Look { ticket, look });
            }
            Order::Stop => self.stop = true,
        }
    }

    fn install(&mut self, now: Instant, install: order::Install) -> Result<(), String> {
        let order::Install { label, inbound, outbound, use_outbound, .. } = install;
        let (line, spi_in, spi_out) = (inbound.child, inbound.spi, outbound.spi);
        let handles = [(inbound.device, inbound.sa), (outbound.device, outbound.sa)];
        let installed = self.esp.install_inbound(inbound, now).and_then(|()| {
            self.esp.install_outbound(outbound, now).inspect_err(|_| {
                self.esp.remove(line, spi_in, spi::Direction::Open);
            })
        });
        if let Err(error) = installed {
            handles.into_iter().for_each(|(device, sa)| self.queues.remove_sa(device, sa));
            return Err(error.to_string());
        }
        self.labels.entry(line).or_insert((label, 0)).1 += 1;
        if use_outbound {
            self.esp.use_outbound(line, spi_out);
        }
        // Packets may have waited for it.
        self.pump(now);
        Ok(())
    }

    fn remove(&mut self, line: esp::ChildId, spi_in: u32, spi_out: u32) {
        if let Some((_, pairs)) = self.labels.get_mut(&line) {
            *pairs -= 1;
            if *pairs == 0 {
                self.labels.remove(&line);
            }
        }
        for (spi, dir) in [(spi_out, spi::Direction::Seal), (spi_in, spi::Direction::Open)] {
            if let Some(summary) = self.esp.remove(line, spi, dir) {
                self.queues.remove_sa(summary.device, summary.sa);
            }
        }
    }

    /// While devices are behind, sockets are not read; what waits then waits in the kernel. (TUN queues are: what is critical
    /// stands among the rest.)
    fn pause_or_resume(&mut self) {
        let behind = self.esp.congested();
        if behind == self.paused {
            return;
        }
        self.paused = behind;
        let interest = if behind { Interest::Pause } else { Interest::Read };
        for (place, socket) in self.sockets.all().iter().enumerate() {
            // A descriptor that was added can be changed.
            let _ = self.epoll.change(socket, KEY_SOCKETS + place as u64, interest);
        }
    }

    /// Where a sharer of this thread sleeps.
    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// What a sharer of this thread is told.
    pub(crate) fn take_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// Whether one more may listen to packets in the clear.
    pub(crate) fn may_capture(&mut self) -> bool {
        self.tap.has_room()
    }

    /// Closes the TUN queues: the last one takes its device with it.
    pub(crate) fn close_tuns(&mut self) {
        self.tuns.clear();
    }
}

/// What is readable.
#[derive(Default)]
pub(crate) struct Ready {
    sockets: Vec<usize>,
    tuns: Vec<usize>,
    mail: bool,
    /// Keys of a sharer's.
    pub(crate) others: Vec<u64>,
    /// There is more to do at once.
    pub(crate) more: bool,
}

impl Ready {
    fn note(&mut self, key: u64) {
        let place = (key & 0xffff_ffff) as usize;
        match key & !0xffff_ffff {
            KEY_SOCKETS => self.sockets.push(place),
            KEY_TUNS => self.tuns.push(place),
            KEY_MAIL => self.mail = true,
            KEY_DEVICES => {}
            _ => self.others.push(key),
        }
    }

    /// Forgets what was readable, not that there is more.
    pub(crate) fn clear(&mut self) {
        self.sockets.clear();
        self.tuns.clear();
        self.others.clear();
        self.mail = false;
    }
}
