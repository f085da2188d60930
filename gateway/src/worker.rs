//! One worker: an OS thread that owns the IKE engine, the data path, the sockets and the TUN devices.
//!
//! A turn:
//!
//! 1. sleep until a socket, a TUN device, a doorbell or a timer has something;
//! 2. orders, answers of the key side, completed operations — each up to a bound;
//! 3. IKE messages, up to a bound; their sockets are their own, so that data cannot starve them; operations they gave rise to
//!    that are cheap;
//! 4. timers;
//! 5. packets from outside and from the TUN devices, up to a bound, unless the devices are behind;
//! 6. bursts to the devices and back until nothing moves; what is done goes out;
//! 7. the engine's effects, which were carried out after each step.
//!
//! | module | what it holds |
//! |---|---|
//! | [`order`] | what the control thread may want |
//! | `accel`, `operations` | devices and their queues; key exchanges |
//! | `ask` | the channel to the key side |
//! | `packets` | sockets and TUN devices to the data path and back |
//! | `effects`, `install` | what the engine wants done |
//! | `book`, `routes`, `traps` | which pair is which child; routes; the SPD from the configuration |
//! | `devices` | TUN devices: made, lost, and made anew |
//! | `views`, `tap` | what is shown: status, captured packets |

mod accel;
mod ask;
mod book;
mod devices;
mod effects;
mod install;
mod operations;
pub mod order;
mod packets;
mod routes;
mod tap;
mod traps;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ike::{Command, CommandId, Effect, Engine};
use ipc::{NetworkEnd, Reply};
use policy::Realm;
use spi::{Pool, ShortOps};
use tokio::sync::oneshot;

use crate::config::{CarveOut, Settings};
use crate::events::{Events, Notice};
use crate::io::clear::Clear;
use crate::io::epoll::{Epoll, Interest};
use crate::io::links::Links;
use crate::io::outside::{Class, IKE_PORT, NATT_PORT, Outside};
use crate::io::sys::Inbox;
use crate::io::system;
use crate::io::tun::Tun;
use crate::keylog::KeyLog;
use accel::Accel;
use ask::{Ask, Asker};
use book::{Book, RouteKey};
use order::{Order, Orders, Reload, Taker};
use routes::Routes;
use tap::Tap;

/// Orders taken in one turn.
const ORDERS: usize = 32;
/// Sleep while a device without a doorbell has work out.
const BLIND_WAIT: Duration = Duration::from_micros(200);
/// How often it is looked at which peers were heard on the data path.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// How long Deletes may take at the end.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long the key side may take to make or remove what we asked for, at start and end.
const KEY_SIDE_WAIT: Duration = Duration::from_secs(5);
/// Buffers of the data path and their octets: a superpacket each, with room around its pieces.
const BUFFERS: usize = 512;
const BUFFER_LEN: usize = 72 * 1024;
/// The worker's own command, which no operator's can be.
const GOODBYE_ID: CommandId = CommandId(0);

/// Keys of the sleeping place.
const KEY_BELLS: u64 = 0;
const KEY_SOCKETS: u64 = 1 << 32;
const KEY_TUNS: u64 = 2 << 32;
const KEY_LINKS: u64 = 3 << 32;

/// What a worker is made of.
pub struct Parts {
    /// The gateway's settings.
    pub settings: Settings,
    /// What may change later.
    pub initial: Reload,
    /// The devices for packets and key exchanges.
    pub devices: Devices,
    /// The channel to the key side.
    pub secure: NetworkEnd,
    /// Where events go.
    pub events: Events,
}

/// The open devices, each with queues for one worker.
pub struct Devices(Accel);

impl Devices {
    /// Opens everything the registry finds.
    ///
    /// # Errors
    /// Nothing carries packets, or nothing does key exchanges.
    pub fn open() -> anyhow::Result<Devices> {
        Accel::open().map(Devices)
    }

    /// The best device's short primitives.
    ///
    /// # Errors
    /// None has any.
    pub fn short_ops(&self) -> anyhow::Result<Arc<dyn ShortOps>> {
        self.0.short_ops()
    }
}

/// A worker on its thread.
pub struct Running {
    /// Where orders go.
    pub orders: Orders,
    /// Why it ended, once it has; closed when it panicked.
    pub ended: oneshot::Receiver<anyhow::Result<()>>,
}

/// Opens devices, sockets and TUN devices, and starts the thread.
///
/// # Errors
/// What could not be had.
pub fn spawn(parts: Parts) -> anyhow::Result<Running> {
    let (orders, taker) = order::channel().context("no doorbell")?;
    let mut worker = Worker::new(parts, taker)?;
    let (tell, ended) = oneshot::channel();
    // Whoever waits may be gone first.
    let run = move || drop(tell.send(worker.run()));
    std::thread::Builder::new().name("worker".into()).spawn(run)?;
    Ok(Running { orders, ended })
}

/// Says what keeps the realms from working on this machine's devices. Touches none of them.
pub fn unmet(realms: &[Arc<Realm>]) -> Vec<String> {
    let drivers = registry::network_drivers(&registry::Config::default());
    let found: Vec<spi::DeviceDesc> = drivers.iter().flat_map(|driver| driver.probe()).collect();
    let caps: Vec<&spi::Caps> = found.iter().map(|desc| &desc.caps).collect();
    crate::config::unmet(realms, &caps)
}

struct Stopping {
    answer: oneshot::Sender<()>,
    until: Instant,
    done: bool,
}

struct Worker {
    settings: Settings,
    realms: Vec<Arc<Realm>>,
    carve_outs: Vec<CarveOut>,
    dummies: BTreeMap<(Arc<str>, Arc<str>), Duration>,
    guarded: BTreeSet<(Arc<str>, Arc<str>)>,
    engine: Engine,
    fx: Vec<Effect>,
    esp: esp::Esp,
    out: esp::Output,
    accel: Accel,
    ask: Ask,
    outside: Outside,
    clear: Clear,
    tuns: Vec<Tun>,
    /// TUN devices asked for and not there yet.
    tuns_coming: BTreeSet<String>,
    /// When those that could not be had are asked for again.
    tuns_again: Option<Instant>,
    /// What others do to the devices; `None`: the kernel does not tell.
    links: Option<Links>,
    epoll: Epoll,
    inbox: Inbox,
    tun_buffer: Vec<u8>,
    book: Book,
    routes: Routes,
    trap_routes: Vec<RouteKey>,
    /// Inner addresses we were given, by realm, and the device each is on.
    given: HashMap<Arc<str>, Vec<(IpAddr, Arc<str>)>>,
    events: Events,
    tap: Tap,
    keylog: Option<KeyLog>,
    taker: Taker,
    commands: HashMap<CommandId, oneshot::Sender<Result<String, String>>>,
    last_command: u64,
    started: Instant,
    heard_at: Instant,
    keepalives_in: u64,
    paused: bool,
    stopping: Option<Stopping>,
}

impl Worker {
    fn new(parts: Parts, taker: Taker) -> anyhow::Result<Worker> {
        let Parts { settings, initial, devices, secure, events } = parts;
        let started = Instant::now();
        let Devices(mut accel) = devices;
        let short = accel.short_ops()?;
        let pool = Pool::new(BUFFER_LEN, BUFFERS).context("no memory for packets")?;
        accel.register(pool.region())?;
        let mut seed = [0u8; 8];
        short.random(&mut seed);
        let mut esp = esp::Esp::new(esp::Config {
            seed: u64::from_ne_bytes(seed),
            device_mtu: settings.mtu.unwrap_or(devices::TUN_MTU),
            ..esp::Config::new(pool)
        });
        accel.attach(&mut esp);
        let outside = Outside::open(&settings.listen, settings.mark, settings.listen_given)?;
        if outside.all().is_empty() {
            bail!("there is no address to listen on");
        }
        let keylog = match &settings.keylog {
            Some(dir) => {
                tracing::warn!(dir = %dir.display(), "KEY LOG IS ON: whoever reads this folder reads all traffic");
                Some(
                    KeyLog::open(dir)
                        .with_context(|| format!("cannot write the key log in {}", dir.display()))?,
                )
            }
            None => None,
        };
        let mark = settings.mark;
        let engine = Engine::new(
            ike::Config {
                realms: initial.realms.clone(),
                authorities: initial.authorities.clone(),
                listen: settings.listen.clone(),
                source_for: Some(Arc::new(move |remote| system::way_to(remote, mark).map(|way| way.source))),
                ike_port: IKE_PORT,
                natt_port: NATT_PORT,
                retransmission: settings.retransmission,
                cookie_threshold: settings.cookie_threshold,
                key_log: keylog.is_some(),
                ..ike::Config::default()
            },
            short,
            started,
        );
        let mut worker = Worker {
            clear: Clear::open(mark),
            settings,
            realms: initial.realms,
            carve_outs: initial.carve_outs,
            dummies: initial.dummies,
            guarded: initial.guarded,
            engine,
            fx: Vec::new(),
            esp,
            out: esp::Output::new(),
            accel,
            ask: Ask::new(secure),
            outside,
            tuns: Vec::new(),
            tuns_coming: BTreeSet::new(),
            tuns_again: None,
            links: Links::open()
                .inspect_err(|error| tracing::warn!(%error, "no word about devices that are set down"))
                .ok(),
            epoll: Epoll::new().context("no epoll")?,
            inbox: Inbox::new(1 << 16),
            tun_buffer: vec![0; 1 << 16],
            book: Book::default(),
            routes: Routes::default(),
            trap_routes: Vec::new(),
            given: HashMap::new(),
            events,
            tap: Tap::default(),
            keylog,
            taker,
            commands: HashMap::new(),
            last_command: GOODBYE_ID.0,
            started,
            heard_at: started,
            keepalives_in: 0,
            paused: false,
            stopping: None,
        };
        worker.watch()?;
        worker.open_tuns();
        worker.await_tuns()?;
        worker.set_policies();
        Ok(worker)
    }

    /// Puts everything that exists from the start into the sleeping place.
    fn watch(&mut self) -> anyhow::Result<()> {
        self.epoll.add(&self.taker.bell, KEY_BELLS)?;
        self.epoll.add(self.ask.doorbell(), KEY_BELLS)?;
        for bell in self.accel.doorbells() {
            self.epoll.add(bell, KEY_BELLS)?;
        }
        for (place, socket) in self.outside.all().iter().enumerate() {
            self.epoll.add(socket, KEY_SOCKETS + place as u64)?;
        }
        if let Some(links) = &self.links {
            self.epoll.add(links, KEY_LINKS)?;
        }
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.events.publish(Notice::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            realms: self.realms.len(),
        });
        self.engine.start(Instant::now(), &mut self.fx);
        self.carry_out(Instant::now());
        let mut ready = Ready::default();
        loop {
            self.epoll.wait(self.patience(ready.more), |key| ready.note(key))?;
            if self.turn(&mut ready) {
                return Ok(());
            }
            if self.ask.is_closed() {
                // Nobody could prove anything to anybody from now on, and nobody would look after the routes.
                bail!("the key side is gone");
            }
        }
    }

    /// How long to sleep.
    fn patience(&self, more: bool) -> Option<Duration> {
        if more || self.ask.has_refused() || self.accel.has_failed() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let heard = (!self.book.is_empty()).then_some(self.heard_at + HEARD_EVERY);
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        let timers = [self.engine.poll_timeout(), self.esp.poll_timeout(), heard, stop, self.tuns_again];
        let next = timers.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        // epoll counts from when it is called; a nanosecond too early would be a turn for nothing.
        let next = next.map(|wait| if wait.is_zero() { wait } else { wait + Duration::from_micros(50) });
        if self.accel.is_blind() { Some(next.map_or(BLIND_WAIT, |next| next.min(BLIND_WAIT))) } else { next }
    }

    /// One turn; true when it was the last.
    fn turn(&mut self, ready: &mut Ready) -> bool {
        let now = Instant::now();
        let mut more = self.take_orders(now);
        more |= self.take_answers(now);
        more |= self.take_operations(now);
        self.engine.set_crypto_room(self.accel.room());
        let (data, ike): (Vec<usize>, Vec<usize>) =
            ready.sockets.iter().partition(|place| self.outside.class(**place) == Class::Data);
        for place in ike {
            more |= self.receive(now, place);
        }
        more |= self.take_operations(now);
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now, &mut self.fx);
            self.carry_out(now);
        }
        if self.esp.poll_timeout().is_some_and(|at| at <= now) {
            self.esp.handle_timeout(now, &mut self.out);
        }
        if ready.links {
            self.hear_of_links();
        }
        if self.tuns_again.is_some_and(|at| at <= now) {
            self.open_tuns();
        }
        if !self.esp.congested() {
            for place in data {
                more |= self.receive(now, place);
            }
            for place in &ready.tuns {
                more |= self.read_tun(now, *place);
            }
        } else {
            data.into_iter().for_each(|place| self.leave_unread(place));
        }
        self.pump(now);
        self.pause_or_resume();
        if now >= self.heard_at + HEARD_EVERY {
            self.tell_who_was_heard(now);
        }
        ready.clear(more);
        self.is_over(now)
    }

    fn take_orders(&mut self, now: Instant) -> bool {
        self.taker.bell.answer();
        for _ in 0..ORDERS {
            let Ok(order) = self.taker.from.try_recv() else { return false };
            self.obey(now, order);
        }
        true
    }

    fn obey(&mut self, now: Instant, order: Order) {
        match order {
            Order::Command { command, answer } => {
                self.last_command += 1;
                let id = CommandId(self.last_command);
                self.commands.insert(id, answer);
                self.engine.handle_command(now, id, command, &mut self.fx);
                self.carry_out(now);
            }
            // Whoever asked may be gone by the time of the answer.
            Order::Status(answer) => drop(answer.send(self.status())),
            Order::Sas(answer) => drop(answer.send(self.sas())),
            Order::Reload { new, answer } => {
                self.reload(now, *new);
                let _ = answer.send(());
            }
            Order::Capture(to) => self.tap.add(to),
            Order::Stop(answer) => {
                self.events.publish(Notice::Stopping {});
                self.stopping = Some(Stopping { answer, until: now + GOODBYE, done: false });
                self.engine.handle_command(now, GOODBYE_ID, Command::Shutdown, &mut self.fx);
                self.carry_out(now);
            }
        }
    }

    fn reload(&mut self, now: Instant, new: Reload) {
        let Reload { realms, authorities, carve_outs, dummies, guarded } = new;
        for (realm, hashes) in authorities {
            self.engine.set_authorities(&realm, hashes);
        }
        self.realms = realms;
        self.carve_outs = carve_outs;
        self.dummies = dummies;
        self.guarded = guarded;
        let realms = self.realms.clone();
        self.book.retain_configured(|realm, child| {
            realms.iter().any(|r| *r.name == *realm && r.child(child).is_some())
        });
        self.open_tuns();
        self.set_policies();
        self.engine.reload(now, realms, &mut self.fx);
        self.carry_out(now);
        self.events.publish(Notice::Reloaded { realms: self.realms.len() });
    }

    fn take_answers(&mut self, now: Instant) -> bool {
        let mut answers = Vec::new();
        let more = self.ask.poll(|asker, reply| answers.push((asker, reply)));
        for (asker, reply) in answers {
            match asker {
                Asker::Engine(token) => {
                    self.engine.handle_reply(now, token, reply, &mut self.fx);
                    self.carry_out(now);
                }
                Asker::Tun(name) => self.tun_came(now, name, reply),
                Asker::Own(what) => {
                    if let Reply::Refused(why) = reply {
                        self.events.publish(Notice::NetworkFailed { what, why: why.to_string() });
                    }
                }
            }
        }
        more
    }

    /// While devices are behind, nothing more is read; what waits then waits in the kernel.
    fn pause_or_resume(&mut self) {
        let behind = self.esp.congested();
        if behind == self.paused {
            return;
        }
        self.paused = behind;
        let interest = if behind { Interest::Pause } else { Interest::Read };
        for (place, socket) in self.outside.all().iter().enumerate() {
            if self.outside.class(place) == Class::Data {
                // A descriptor that was added can be changed.
                let _ = self.epoll.change(socket, KEY_SOCKETS + place as u64, interest);
            }
        }
        for (place, tun) in self.tuns.iter().enumerate().filter(|(_, tun)| tun.is_there()) {
            let _ = self.epoll.change(tun, KEY_TUNS + place as u64, interest);
        }
    }

    /// Whether the end has come; then what we changed on the machine is taken back.
    fn is_over(&mut self, now: Instant) -> bool {
        let Some(stopping) = self.stopping.take_if(|stopping| stopping.done || now >= stopping.until) else {
            return false;
        };
        self.remove_addresses();
        self.routes.clear(&mut self.ask);
        let until = Instant::now() + KEY_SIDE_WAIT / 5;
        while self.ask.pending() > 0 && Instant::now() < until {
            self.ask.poll(|_, _| ());
            let _ = self.epoll.wait(Some(Duration::from_millis(10)), |_| ());
        }
        // Closing the last descriptor of a TUN device removes it, with whatever still points to it.
        self.tuns.clear();
        let _ = stopping.answer.send(());
        true
    }

    fn realm(&self, name: &str) -> Option<&Arc<Realm>> {
        self.realms.iter().find(|realm| *realm.name == *name)
    }
}

/// What is readable.
#[derive(Default)]
struct Ready {
    sockets: Vec<usize>,
    tuns: Vec<usize>,
    links: bool,
    more: bool,
}

impl Ready {
    fn note(&mut self, key: u64) {
        let place = (key & 0xffff_ffff) as usize;
        match key & !0xffff_ffff {
            KEY_SOCKETS => self.sockets.push(place),
            KEY_TUNS => self.tuns.push(place),
            KEY_LINKS => self.links = true,
            _ => {}
        }
    }

    fn clear(&mut self, more: bool) {
        self.sockets.clear();
        self.tuns.clear();
        self.links = false;
        self.more = more;
    }
}
