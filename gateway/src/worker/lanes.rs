//! The lanes of the data path: lane 0 on this thread, the others on threads of their own.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, bail};
use spi::ShortOps;

use super::Worker;
use super::accel::Accel;
use crate::config::Settings;
use crate::dispatch::Table;
use crate::io::clear::Clear;
use crate::io::outside::Sockets;
use crate::io::system;
use crate::plane::mail::{Inbox, Letterbox, OrderBook};
use crate::plane::order::{Order, Report};
use crate::plane::queues::Queues;
use crate::plane::{self, Parts, Plane};

use super::devices::TUN_MTU;

/// All lanes.
pub(super) struct Lanes {
    /// Lane 0.
    pub(super) own: Plane,
    others: Vec<Other>,
    /// What the others tell.
    pub(super) inbox: Arc<Inbox>,
    /// The core of lane 0, if lanes keep to theirs.
    cpu: Option<u16>,
}

struct Other {
    orders: OrderBook,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Lanes {
    /// Opens queues on the devices, and starts the threads.
    pub(super) fn start(
        settings: &Settings,
        table: &Arc<Table>,
        (sockets, clear): (Vec<Sockets>, Vec<Clear>),
        accel: &mut Accel,
        short: &dyn ShortOps,
        tight: bool,
    ) -> anyhow::Result<Lanes> {
        let inbox = Inbox::new().context("no doorbell")?;
        let letterboxes = sockets.iter().map(|_| Letterbox::new()).collect::<std::io::Result<Arc<[_]>>>();
        let letterboxes = letterboxes.context("no doorbell")?;
        let cpus = if settings.pin { system::cpus() } else { Vec::new() };
        let mut planes = Vec::new();
        let core = |lane: usize| cpus.get(lane % cpus.len().max(1)).copied();
        let pools = sockets.iter().map(|_| plane::pool()).collect::<std::io::Result<Vec<_>>>();
        let pools = pools.context("no memory for packets")?;
        for pool in &pools {
            accel.register(pool.region())?;
        }
        let regions: Vec<_> = pools.iter().map(|pool| Arc::clone(pool.region())).collect();
        let lanes = sockets.len();
        // A lane without a core of its own runs anywhere, which is near a device if all cores are.
        let common = system::node_of_all(&system::cpus());
        for (((lane, sockets), clear), pool) in sockets.into_iter().enumerate().zip(clear).zip(pools) {
            let mut seed = [0u8; 8];
            short.random(&mut seed);
            let cpu = core(lane);
            let queues = Queues::open(&accel.devices(), cpu);
            accel.add_lane(queues.there(), queues.carried(), cpu.map_or(common, system::node_of));
            let config = esp::Config {
                seed: u64::from_ne_bytes(seed),
                device_mtu: settings.mtu.unwrap_or(TUN_MTU),
                ..esp::Config::new(pool)
            };
            let plane = Plane::new(Parts {
                lane: lane as u16,
                config,
                queues,
                sockets,
                table: Arc::clone(table),
                letterboxes: Arc::clone(&letterboxes),
                clear,
                mark: settings.mark,
            });
            planes.push(plane.context("no lane of the data path")?);
        }
        accel.watch(&regions, &(0..lanes).map(core).collect::<Vec<_>>())?;
        let mut planes = planes.into_iter();
        let own = planes.next().context("no lane of the data path")?;
        let mut others = Vec::new();
        for (place, plane) in planes.enumerate() {
            let inbox = Arc::clone(&inbox);
            let cpu = core(place + 1);
            let thread = std::thread::Builder::new()
                .name(format!("lane {}", place + 1))
                .spawn(move || {
                    let _told = inbox.farewell();
                    cpu.inspect(|cpu| system::keep_to(*cpu));
                    if tight {
                        crate::sandbox::tighten_lane().map_err(std::io::Error::other)?;
                    }
                    plane.run(&inbox)
                })
                .context("no thread")?;
            let orders = OrderBook::new(Arc::clone(&letterboxes[place + 1]));
            others.push(Other { orders, thread: Some(thread) });
        }
        Ok(Lanes { own, others, inbox, cpu: cpus.first().copied() })
    }

    /// To be called on lane 0's thread.
    pub(super) fn settle(&self) {
        self.cpu.inspect(|cpu| system::keep_to(*cpu));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Gives an order to one of them.
    pub(super) fn give(&mut self, now: Instant, lane: u16, order: Order) {
        match usize::from(lane).checked_sub(1) {
            None => self.own.obey(now, order),
            Some(place) => {
                if let Some(other) = self.others.get_mut(place) {
                    other.orders.give(order);
                }
            }
        }
    }

    /// Gives an order to all.
    pub(super) fn all(&mut self, now: Instant, order: impl FnMut() -> Order) {
        self.all_but(now, u16::MAX, order);
    }

    /// Gives an order to all but one.
    pub(super) fn all_but(&mut self, now: Instant, lane: u16, mut order: impl FnMut() -> Order) {
        for other in (0..self.count() as u16).filter(|other| *other != lane) {
            self.give(now, other, order());
        }
    }

    /// Tries again what found no room; true when something still waits.
    pub(super) fn push(&mut self) -> bool {
        let mut waits = false;
        self.others.iter_mut().for_each(|other| waits |= other.orders.push());
        waits
    }

    /// Ends the threads and closes the TUN queues. Nothing goes through the data path any more.
    pub(super) fn stop(&mut self) {
        self.all(Instant::now(), || Order::Stop);
        for other in &mut self.others {
            while other.orders.push() {
                std::thread::yield_now();
            }
            if let Some(thread) = other.thread.take() {
                // How it ended is known already when it did not end by order.
                let _ = thread.join();
            }
        }
        self.own.close_tuns();
    }

    /// An error if a thread has ended by itself, which none should.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for (place, other) in self.others.iter_mut().enumerate() {
            if other.thread.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(thread) = other.thread.take()
            {
                match thread.join() {
                    Ok(Ok(())) => bail!("lane {} has ended", place + 1),
                    Ok(Err(error)) => return Err(error).context(format!("lane {}", place + 1)),
                    Err(_) => bail!("lane {} panicked", place + 1),
                }
            }
        }
        Ok(())
    }
}

impl Worker {
    /// What lane 0 has to say.
    pub(super) fn hear_own_lane(&mut self, now: Instant) {
        while let Some(report) = self.lanes.own.take_report() {
            self.hear(now, 0, report);
        }
    }

    /// What the others have to say, up to a bound; true when there is more.
    pub(super) fn hear_lanes(&mut self, now: Instant, quota: usize) -> bool {
        for _ in 0..quota {
            let Some((lane, report)) = self.lanes.inbox.take() else { return false };
            self.hear(now, lane, report);
        }
        true
    }

    fn hear(&mut self, now: Instant, lane: u16, report: Report) {
        match report {
            Report::Event(event) => self.signal(now, lane, event),
            Report::NotInstalled { id, why } => self.not_installed(now, id, why),
            Report::Heard(spis) => self.peers_heard(now, &spis),
            Report::PathMtu { remote, mtu } => {
                self.paths.heard(now, remote, mtu);
                self.lanes.all_but(now, lane, || Order::LowerMtu { remote, mtu });
            }
            Report::Ike { local, remote, message } => self.strange_letter(local, remote, message),
            Report::TunGone(place) => self.lose_tun(place),
            Report::Device(report) => self.device_report(now, lane, report),
            Report::Look { ticket, look } => self.looked(ticket, lane, look),
        }
    }
}
