//! One worker: an OS thread that owns the IKE engine, the data path, the sockets and the TUN devices.
//!
//! A turn:
//!
//! 1. sleep until a socket, a TUN device, a doorbell or a timer has something;
//! 2. orders, answers of the key side, completed operations — each up to a bound;
//! 3. IKE messages, up to a bound; their sockets are their own, so that data cannot starve them;
//! 4. timers;
//! 5. packets from outside and from the TUN devices, up to a bound, unless the devices are behind;
//! 6. bursts to the devices and back until nothing moves; what is done goes out;
//! 7. the engine's effects, which were carried out after each step.
//!
//! | module | what it holds |
//! |---|---|
//! | [`order`] | what the control thread may want |
//! | `accel` | devices and their queues |
//! | `ask` | the channel to the key side |
//! | `packets` | sockets and TUN devices to the data path and back |
//! | `effects`, `install` | what the engine wants done |
//! | `book`, `routes`, `traps` | which pair is which child; routes; the SPD from the configuration |
//! | `views`, `tap` | what is shown: status, captured packets |

mod accel;
mod ask;
mod book;
mod effects;
mod install;
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

use anyhow::{Context, anyhow, bail};
use ike::{Command, CommandId, Effect, Engine};
use ipc::{NetworkEnd, Reply, Request, TunSpec};
use policy::{Child, Realm};
use spi::{Pool, ShortOps};
use tokio::sync::oneshot;

use crate::config::{CarveOut, Settings};
use crate::events::{Events, Notice};
use crate::io::clear::Clear;
use crate::io::epoll::{Epoll, Interest};
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
/// MTU of TUN devices: fits into UDP-encapsulated ESP with any transform over IPv6 on Ethernet.
const TUN_MTU: u16 = 1400;
/// The worker's own command, which no operator's can be.
const GOODBYE_ID: CommandId = CommandId(0);

/// Keys of the sleeping place.
const KEY_BELLS: u64 = 0;
const KEY_SOCKETS: u64 = 1 << 32;
const KEY_TUNS: u64 = 2 << 32;

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
    dummies: BTreeMap<(String, String), Duration>,
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
    epoll: Epoll,
    inbox: Inbox,
    tun_buffer: Vec<u8>,
    book: Book,
    routes: Routes,
    trap_routes: Vec<RouteKey>,
    /// Inner addresses we were given, by realm.
    given: HashMap<String, Vec<IpAddr>>,
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
            device_mtu: settings.mtu.unwrap_or(TUN_MTU),
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
            engine,
            fx: Vec::new(),
            esp,
            out: esp::Output::new(),
            accel,
            ask: Ask::new(secure),
            outside,
            tuns: Vec::new(),
            tuns_coming: BTreeSet::new(),
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
        Ok(())
    }

    /// Asks for every TUN device that the configuration names and that is not there.
    fn open_tuns(&mut self) {
        let children = self.realms.iter().flat_map(|realm| &realm.children);
        let mut names: BTreeSet<String> = children.map(|child| self.device_of(child)).collect();
        names.insert(self.settings.tun.clone());
        for name in names {
            let there =
                self.tuns.iter().any(|tun| tun.name() == name) || !self.tuns_coming.insert(name.clone());
            if !there {
                let spec = TunSpec { name: name.clone(), mtu: self.tun_mtu(), queues: 1 };
                self.ask.ask(Asker::Own(format!("making the TUN device {name}")), Request::OpenTun(spec));
            }
        }
    }

    /// Waits for the TUN devices; without them nothing works, so this is the one place where the worker waits.
    fn await_tuns(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + KEY_SIDE_WAIT;
        while self.ask.pending() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the key side does not answer");
            }
            self.epoll.wait(Some(left), |_| ())?;
            let mut answers = Vec::new();
            self.ask.poll(|asker, reply| answers.push((asker, reply)));
            for (asker, reply) in answers {
                match (asker, reply) {
                    (_, Reply::Tun { queues, name }) => self.take_tun(name, queues)?,
                    (Asker::Own(what), Reply::Refused(why)) => return Err(explain(&what, &why)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn take_tun(&mut self, name: String, queues: Vec<std::os::fd::OwnedFd>) -> anyhow::Result<()> {
        let fd = queues
            .into_iter()
            .next()
            .ok_or_else(|| anyhow!("TUN device {name} came without a descriptor"))?;
        self.tuns_coming.remove(&name);
        let tun = Tun::new(name, fd)?;
        self.epoll.add(&tun, KEY_TUNS + self.tuns.len() as u64)?;
        self.tuns.push(tun);
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
        }
    }

    /// How long to sleep.
    fn patience(&self, more: bool) -> Option<Duration> {
        if more {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let heard = (!self.book.is_empty()).then_some(self.heard_at + HEARD_EVERY);
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        let timers = [self.engine.poll_timeout(), self.esp.poll_timeout(), heard, stop];
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
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now, &mut self.fx);
            self.carry_out(now);
        }
        if self.esp.poll_timeout().is_some_and(|at| at <= now) {
            self.esp.handle_timeout(now, &mut self.out);
        }
        if !self.esp.congested() {
            for place in data {
                more |= self.receive(now, place);
            }
            for place in &ready.tuns {
                more |= self.read_tun(now, *place);
            }
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
        let Reload { realms, authorities, carve_outs, dummies } = new;
        for (realm, hashes) in authorities {
            self.engine.set_authorities(&realm, hashes);
        }
        self.realms = realms;
        self.carve_outs = carve_outs;
        self.dummies = dummies;
        let realms = self.realms.clone();
        self.book.retain_configured(|realm, child| {
            realms.iter().any(|r| r.name == realm && r.children.iter().any(|c| c.name == child))
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
                Asker::Own(what) => match reply {
                    Reply::Tun { queues, name } => {
                        if let Err(error) = self.take_tun(name, queues) {
                            self.events.publish(Notice::NetworkFailed { what, why: error.to_string() });
                        }
                    }
                    Reply::Refused(why) => {
                        self.events.publish(Notice::NetworkFailed { what, why: why.to_string() });
                    }
                    _ => {}
                },
            }
        }
        more
    }

    fn take_operations(&mut self, now: Instant) -> bool {
        let mut done = Vec::new();
        let more = self.accel.poll_operations(|operation| done.push(operation));
        for operation in done {
            self.engine.handle_crypto(now, operation, &mut self.fx);
            self.carry_out(now);
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
        for (place, tun) in self.tuns.iter().enumerate() {
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
        self.realms.iter().find(|realm| realm.name == name)
    }

    fn device_of(&self, child: &Child) -> String {
        if child.tun.is_empty() { self.settings.tun.clone() } else { child.tun.clone() }
    }

    fn tun_mtu(&self) -> u16 {
        self.settings.mtu.unwrap_or(TUN_MTU)
    }
}

/// What is readable.
#[derive(Default)]
struct Ready {
    sockets: Vec<usize>,
    tuns: Vec<usize>,
    more: bool,
}

impl Ready {
    fn note(&mut self, key: u64) {
        let place = (key & 0xffff_ffff) as usize;
        match key & !0xffff_ffff {
            KEY_SOCKETS => self.sockets.push(place),
            KEY_TUNS => self.tuns.push(place),
            _ => {}
        }
    }

    fn clear(&mut self, more: bool) {
        self.sockets.clear();
        self.tuns.clear();
        self.more = more;
    }
}

fn explain(what: &str, why: &ipc::Refusal) -> anyhow::Error {
    let text = why.to_string();
    let hint = if text.contains("Operation not permitted") || text.contains("os error 1)") {
        "; run as root, or with CAP_NET_ADMIN"
    } else if text.contains("busy") {
        "; is another gateway running here?"
    } else {
        ""
    };
    anyhow!("{what}: {text}{hint}")
}
