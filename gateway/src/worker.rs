//! The worker: an OS thread that owns the key exchange, and lane 0 of the data path. Further lanes have threads of their own.
//!
//! A turn:
//!
//! 1. sleep until a socket, a TUN device, a doorbell or a timer has something;
//! 2. the classes of the dispatch table in their order, each up to its quota: `control` (orders, answers of the key side,
//!    completed operations, reports of lanes, timers), `ike` (messages of peers that have proved who they are), `critical` and
//!    `esp` (lane 0, see [`crate::plane`]), `stranger` (messages of everybody else);
//! 3. operations that messages gave rise to, as far as they are cheap;
//! 4. the engine's effects were carried out after each step; what lane 0 has to tell is listened to at the end.
//!
//! | module | what it holds |
//! |---|---|
//! | [`order`] | what the control thread may want |
//! | `lanes` | the lanes: their threads, orders to them, and their answers |
//! | `accel`, `health` | devices: which of them serves an SA; how they are, and what to do when one dies |
//! | `trials`, `operations` | what they cost; key exchanges |
//! | `ask` | the channel to the key side |
//! | `letters` | IKE messages in and out, in the order of their senders' standing |
//! | `signals` | what the data path tells, in the engine's words |
//! | `effects`, `install`, `inner` | what the engine wants done |
//! | `book`, `routes`, `paths`, `traps` | which pair is which child; routes; path MTUs; the SPD from the configuration |
//! | `doors` | what takes privilege to open |
//! | `devices` | TUN devices: made, lost, and made anew |
//! | `sessions` | what RADIUS servers let in: accounts of it, and orders about it |
//! | `views`, `shown` | what is shown |

mod accel;
mod ask;
mod book;
mod devices;
mod doors;
mod effects;
mod health;
mod inner;
mod install;
mod lanes;
mod letters;
mod operations;
pub mod order;
mod paths;
mod routes;
mod sessions;
mod shown;
mod signals;
mod traps;
mod trials;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ike::{Command, CommandId, Effect, Engine};
use ipc::{NetworkEnd, Reply};
use policy::Realm;
use spi::ShortOps;
use tokio::sync::oneshot;

use crate::config::{CarveOut, RealmWork, Settings};
use crate::dhcp::Dhcp;
use crate::dispatch::{Class, Table};
use crate::events::{Events, Notice};
use crate::io::links::Links;
use crate::io::outside::{IKE_PORT, NATT_PORT};
use crate::io::system;
use crate::keylog::KeyLog;
use crate::leases::Ledger;
use crate::pcapng;
use crate::plane::{KEY_OTHERS, Ready, order::Order as LaneOrder};
use accel::Accel;
use ask::{Ask, Asker};
use book::{Book, RouteKey};
use devices::TunDevice;
pub use doors::Doors;
use lanes::Lanes;
use letters::Letters;
use order::{Order, Orders, Reload, Taker};
use paths::Paths;
use routes::Routes;
use sessions::Sessions;
use views::Looking;

/// How long Deletes may take at the end.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long the key side may take to make or remove what we asked for, at start and end.
const KEY_SIDE_WAIT: Duration = Duration::from_secs(5);
/// The worker's own command, which no operator's can be.
const GOODBYE_ID: CommandId = CommandId(0);

/// Keys of the sleeping place, which is lane 0's.
const KEY_ORDERS: u64 = KEY_OTHERS;
const KEY_ANSWERS: u64 = KEY_OTHERS + 1;
const KEY_OPERATIONS: u64 = KEY_OTHERS + 2;
const KEY_REPORTS: u64 = KEY_OTHERS + 3;
const KEY_LINKS: u64 = KEY_OTHERS + 4;
const KEY_WATCHERS: u64 = KEY_OTHERS + 5;
const KEY_LETTERS: u64 = KEY_OTHERS + (1 << 16);

/// What a worker is made of.
pub struct Parts {
    /// The gateway's settings.
    pub settings: Settings,
    /// What may change later.
    pub initial: Reload,
    /// The devices for packets and key exchanges.
    pub devices: Devices,
    /// What takes privilege to open.
    pub doors: Doors,
    /// Whether lanes may do nothing but move packets.
    pub tight: bool,
    /// The channel to the key side.
    pub secure: NetworkEnd,
    /// Whether there will be another key side when this one is gone: it is a process, and somebody looks after it.
    pub secure_returns: bool,
    /// Where events go.
    pub events: Events,
    /// What an earlier run knew of leases.
    pub leases: Vec<ike::KnownLease>,
    /// Where leases are noted.
    pub ledger: Ledger,
    /// Who asks DHCP servers.
    pub dhcp: Dhcp,
}

/// The open devices, each with queues for one worker.
pub struct Devices(Accel);

impl Devices {
    /// Opens what the configuration names and everything else the registry finds, and tries out what these realms will want of
    /// it. A device that does not open keeps nobody from starting.
    ///
    /// # Errors
    /// Nothing does key exchanges.
    pub fn open(config: &registry::Config, realms: &[Arc<Realm>]) -> anyhow::Result<Devices> {
        let sources = accel::sources(config);
        Ok(Devices(Accel::open(sources, trials::wanted(realms), accel::Pace::default())?))
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

/// Opens devices, sockets and TUN devices, and starts the threads.
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

/// Says what keeps the realms from working on the devices of this machine and configuration. Touches none of them.
pub fn unmet(config: &registry::Config, realms: &[Arc<Realm>]) -> Vec<String> {
    let drivers = registry::network_drivers(config);
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
    table: Arc<Table>,
    realms: Vec<Arc<Realm>>,
    carve_outs: Vec<CarveOut>,
    dummies: BTreeMap<(Arc<str>, Arc<str>), Duration>,
    guarded: BTreeSet<(Arc<str>, Arc<str>)>,
    works: BTreeMap<Arc<str>, RealmWork>,
    engine: Engine,
    fx: Vec<Effect>,
    lanes: Lanes,
    accel: Accel,
    ask: Ask,
    secure_returns: bool,
    /// The key side is gone, and another has not come yet.
    alone: bool,
    letters: Letters,
    tuns: Vec<TunDevice>,
    /// TUN devices asked for and not there yet.
    tuns_coming: BTreeSet<String>,
    /// When those that could not be had are asked for again.
    tuns_again: Option<Instant>,
    /// What others do to the devices; `None`: the kernel does not tell.
    links: Option<Links>,
    book: Book,
    routes: Routes,
    paths: Paths,
    trap_routes: Vec<RouteKey>,
    inner: inner::Inner,
    ledger: Ledger,
    dhcp: Dhcp,
    events: Events,
    keylog: Option<KeyLog>,
    taker: Taker,
    commands: HashMap<CommandId, oneshot::Sender<Result<String, String>>>,
    last_command: u64,
    looking: Looking,
    sessions: Sessions,
    started: Instant,
    stopping: Option<Stopping>,
}

impl Worker {
    fn new(parts: Parts, taker: Taker) -> anyhow::Result<Worker> {
        let Parts {
            settings,
            initial,
            devices,
            doors,
            tight,
            secure,
            secure_returns,
            events,
            leases,
            ledger,
            dhcp,
        } = parts;
        let Doors { outside, clear, keylog } = doors;
        let started = Instant::now();
        let Devices(mut accel) = devices;
        let short = accel.short_ops()?;
        let table = Arc::new(settings.dispatch.clone());
        let lanes = Lanes::start(&settings, &table, (outside.data, clear), &mut accel, &*short, tight)?;
        let mark = settings.mark;
        let most = ike::Config::default();
        let only_with = |most: u16| if settings.sas_per_worker { most } else { 0 };
        let engine = Engine::new(
            ike::Config {
                realms: initial.realms.clone(),
                leases,
                authorities: initial.authorities.clone(),
                listen: settings.listen.clone(),
                source_for: Some(Arc::new(move |remote| system::way_to(remote, mark).map(|way| way.source))),
                ike_port: IKE_PORT,
                natt_port: NATT_PORT,
                retransmission: settings.retransmission,
                cookie_threshold: settings.cookie_threshold,
                ike_sa_limit: settings.ike_sa_limit,
                lanes: settings.workers,
                resources_asked: only_with(most.resources_asked),
                resources_accepted: only_with(most.resources_accepted),
                key_log: keylog.is_some(),
                ..ike::Config::default()
            },
            short,
            started,
        );
        let mut worker = Worker {
            settings,
            table,
            realms: initial.realms,
            carve_outs: initial.carve_outs,
            dummies: initial.dummies,
            guarded: initial.guarded,
            works: initial.works,
            engine,
            fx: Vec::new(),
            lanes,
            accel,
            ask: Ask::new(secure),
            secure_returns,
            alone: false,
            letters: Letters::new(outside.ike),
            tuns: Vec::new(),
            tuns_coming: BTreeSet::new(),
            tuns_again: None,
            links: Links::open()
                .inspect_err(|error| tracing::warn!(%error, "no word about devices that are set down"))
                .ok(),
            book: Book::default(),
            routes: Routes::default(),
            paths: Paths::default(),
            trap_routes: Vec::new(),
            inner: inner::Inner::default(),
            ledger,
            dhcp,
            events,
            keylog,
            taker,
            commands: HashMap::new(),
            last_command: GOODBYE_ID.0,
            looking: Looking::default(),
            sessions: Sessions::default(),
            started,
            stopping: None,
        };
        worker.watch()?;
        worker.open_tuns();
        worker.await_tuns()?;
        worker.set_policies();
        worker.await_session_orders();
        Ok(worker)
    }

    /// Puts everything that exists from the start into the sleeping place.
    fn watch(&mut self) -> anyhow::Result<()> {
        let epoll = self.lanes.own.epoll();
        epoll.add(&self.taker.bell, KEY_ORDERS)?;
        epoll.add(self.ask.doorbell(), KEY_ANSWERS)?;
        for bell in self.accel.doorbells() {
            epoll.add(bell, KEY_OPERATIONS)?;
        }
        epoll.add(self.accel.bell(), KEY_WATCHERS)?;
        epoll.add(&*self.lanes.inbox, KEY_REPORTS)?;
        for (place, socket) in self.letters.sockets().iter().enumerate() {
            epoll.add(socket, KEY_LETTERS + place as u64)?;
        }
        if let Some(links) = &self.links {
            epoll.add(links, KEY_LINKS)?;
        }
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.lanes.settle();
        self.events.publish(Notice::Started {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            realms: self.realms.len(),
        });
        self.engine.start(Instant::now(), &mut self.fx);
        self.carry_out(Instant::now());
        self.hear_own_lane(Instant::now());
        let mut ready = Ready::default();
        loop {
            self.sleep(&mut ready)?;
            let over = self.turn(&mut ready);
            ready.clear();
            if over {
                return Ok(());
            }
            self.lanes.check()?;
            if self.ask.is_closed() {
                if !self.secure_returns {
                    // Nobody could prove anything to anybody from now on, and nobody would look after the routes.
                    bail!("the key side is gone");
                }
                // SAs that are up need nobody's proof.
                if !std::mem::replace(&mut self.alone, true) {
                    tracing::error!("the key side is gone: until it is back, nobody new gets in");
                }
            }
        }
    }

    fn sleep(&mut self, ready: &mut Ready) -> std::io::Result<()> {
        let inbox = Arc::clone(&self.lanes.inbox);
        inbox.lie_down();
        ready.more |= !inbox.is_empty()
            || self.ask.has_refused()
            || self.accel.has_failed()
            || self.letters.is_waiting()
            || self.lanes.push();
        let stop = self.stopping.as_ref().map(|stopping| stopping.until);
        let timers = [
            self.engine.poll_timeout(),
            stop,
            self.tuns_again,
            self.looking.until(),
            self.accel.tick_at(),
            self.sessions.due(),
        ];
        let mut until = timers.into_iter().flatten().min();
        if self.accel.is_blind() {
            let soon = Instant::now() + accel::BLIND_WAIT;
            until = Some(until.map_or(soon, |until| until.min(soon)));
        }
        let slept = self.lanes.own.sleep(ready, until);
        inbox.get_up(ready.others.contains(&KEY_REPORTS));
        slept
    }

    /// One turn; true when it was the last.
    fn turn(&mut self, ready: &mut Ready) -> bool {
        let now = Instant::now();
        for class in *self.table.clone().order() {
            match class {
                Class::Control => {
                    ready.more |= self.serve_control(now, ready);
                    self.lanes.own.serve(now, class, ready);
                }
                Class::Ike => ready.more |= self.serve_letters(now, ready),
                Class::Stranger => ready.more |= self.serve_strangers(now),
                Class::Critical | Class::Esp => self.lanes.own.serve(now, class, ready),
            }
        }
        ready.more |= self.take_operations(now);
        self.lanes.own.end_turn(now);
        self.hear_own_lane(now);
        self.is_over(now)
    }

    /// Orders, answers, completions, reports and timers; true when there is more.
    fn serve_control(&mut self, now: Instant, ready: &Ready) -> bool {
        let rang = |key: u64| ready.others.contains(&key);
        let quota = self.table.quota(Class::Control);
        let mut more = false;
        if rang(KEY_ORDERS) {
            more |= self.take_orders(now, quota);
        }
        if rang(KEY_ANSWERS) || self.ask.has_refused() {
            more |= self.take_answers(now);
        }
        more |= self.take_operations(now);
        more |= self.hear_lanes(now, quota);
        more |= self.look_after_devices(now, rang(KEY_WATCHERS));
        if rang(KEY_LINKS) {
            self.hear_of_links();
        }
        self.engine.set_crypto_room(self.accel.room());
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now, &mut self.fx);
            self.carry_out(now);
        }
        if self.tuns_again.is_some_and(|at| at <= now) {
            self.open_tuns();
        }
        self.stop_looking(now);
        self.tend_sessions(now);
        more
    }

    fn take_orders(&mut self, now: Instant, quota: usize) -> bool {
        self.taker.bell.answer();
        for _ in 0..quota {
            let Ok(order) = self.taker.from.try_recv() else { return false };
            self.obey(now, order);
        }
        // The bell was answered, and there may be more.
        self.taker.bell.ring();
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
            Order::Status(answer) => self.look(now, views::Question::Status(answer)),
            Order::Accel(answer) => self.look(now, views::Question::Accel(answer)),
            Order::Sas(answer) => self.look(now, views::Question::Sas(answer)),
            Order::Leases(answer) => drop(answer.send(self.leases(now))),
            Order::Reload { new, answer } => {
                self.reload(now, *new);
                let _ = answer.send(());
            }
            Order::Address { token, answer } => {
                self.engine.handle_address(now, token, answer, &mut self.fx);
                self.carry_out(now);
            }
            Order::AddressLost { realm, address } => {
                self.engine.handle_address_lost(now, &realm, address, &mut self.fx);
                self.carry_out(now);
            }
            Order::Capture(to) => self.capture(to),
            Order::KeySide(end) => self.take_key_side(now, end),
            Order::Stop(answer) => {
                self.events.publish(Notice::Stopping {});
                self.stopping = Some(Stopping { answer, until: now + GOODBYE, done: false });
                self.engine.handle_command(now, GOODBYE_ID, Command::Shutdown, &mut self.fx);
                self.carry_out(now);
            }
        }
    }

    /// Another key side has come. It knows of nothing that the one before did.
    fn take_key_side(&mut self, now: Instant, end: NetworkEnd) {
        // Whoever waits for the one before is told that it is gone.
        self.ask.renew(end);
        if let Err(error) = self.lanes.own.epoll().add(self.ask.doorbell(), KEY_ANSWERS) {
            tracing::error!(%error, "the new key side cannot be listened to");
        }
        self.alone = false;
        self.tuns_coming.clear();
        self.hand_over_tuns();
        self.open_tuns();
        self.renew_neighbours();
        self.take_answers(now);
        self.account_again();
        tracing::info!("there is a key side again");
    }

    fn reload(&mut self, now: Instant, new: Reload) {
        let Reload { realms, authorities, carve_outs, dummies, guarded, works } = new;
        for (realm, hashes) in authorities {
            self.engine.set_authorities(&realm, hashes);
        }
        self.realms = realms;
        self.carve_outs = carve_outs;
        self.dummies = dummies;
        self.guarded = guarded;
        self.works = works;
        self.accel.try_out(trials::wanted(&self.realms));
        let works = &self.works;
        self.accel.set_policies(|realm| {
            let work = works.get(realm).cloned().unwrap_or_default();
            (work.fallback, work.accel)
        });
        let realms = self.realms.clone();
        self.book.retain_configured(|realm, child| {
            realms.iter().any(|r| *r.name == *realm && r.child(child).is_some())
        });
        self.open_tuns();
        self.set_policies();
        self.await_session_orders();
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
                Asker::Orders => self.session_order(now, reply),
                Asker::Account(number) => self.accounted(number, reply),
                Asker::Adopted(name) => self.tun_adopted(name, &reply),
                Asker::Own(what) => {
                    if let Reply::Refused(why) = reply {
                        self.events.publish(Notice::NetworkFailed { what, why: why.to_string() });
                    }
                }
            }
        }
        more
    }

    fn capture(&mut self, to: crate::backlog::Sender) {
        let application = concat!("tussock ", env!("CARGO_PKG_VERSION"));
        let interfaces =
            [("before", "inner packets before encryption"), ("after", "inner packets after decryption")];
        if self.lanes.own.may_capture() && to.give(pcapng::header(application, &interfaces)).is_ok() {
            self.lanes.all(Instant::now(), || LaneOrder::Capture(to.clone()));
        }
    }

    /// Whether the end has come; then what we changed on the machine is taken back.
    fn is_over(&mut self, now: Instant) -> bool {
        let Some(stopping) = self.stopping.take_if(|stopping| stopping.done || now >= stopping.until) else {
            return false;
        };
        self.end_sessions();
        self.remove_addresses();
        self.routes.clear(&mut self.ask);
        let until = Instant::now() + KEY_SIDE_WAIT / 5;
        // What waits for an order waits until the key side is gone.
        let for_ever = usize::from(self.sessions.awaiting);
        while self.ask.pending() > for_ever && Instant::now() < until {
            self.ask.poll(|_, _| ());
            std::thread::sleep(Duration::from_millis(2));
        }
        // Closing the last descriptor of a TUN device removes it, with whatever still points to it.
        self.lanes.stop();
        let _ = stopping.answer.send(());
        true
    }

    fn realm(&self, name: &str) -> Option<&Arc<Realm>> {
        self.realms.iter().find(|realm| *realm.name == *name)
    }
}
