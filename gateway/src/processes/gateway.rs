//! The program `tussock-gateway`: sockets, IKE, packets, the control socket's clients.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, anyhow};
use ipc::{NetworkEnd, Party};
use spi::Token;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::key_side::begin;
use super::parts::{self, Public};
use super::reader::talk_on_stdin;
use super::upward::Upward;
use super::words::{Begin, Word};
use crate::config::Settings;
use crate::control::server::{Looker, Reloader, Server};
use crate::dhcp::{self, Dhcp};
use crate::events::Events;
use crate::leases::{self, Ledger};
use crate::log;
use crate::sandbox::{self, Needs, Side};
use crate::worker::order::{Order, Orders, Reload};
use crate::worker::{self, Devices, Doors, Parts};

/// How long a reload may take: files may be slow, and tokens are.
const RELOAD: Duration = Duration::from_secs(120);
/// How long a token may take to say how it is.
const LOOK: Duration = Duration::from_secs(5);

/// The program.
pub fn main() -> ExitCode {
    // It was started by a descriptor, which is no name for it.
    let _ = rustix::thread::set_name(c"tussock-gateway");
    let mut talk = match talk_on_stdin() {
        Ok(talk) => talk,
        Err(_) => {
            eprintln!("tussock-gateway: a part of `tussock run`, which starts it");
            return ExitCode::from(2);
        }
    };
    let (token, begin) = match begin(&mut talk) {
        Ok(begun) => begun,
        Err(error) => {
            eprintln!("tussock-gateway: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let upward = Upward::new(talk);
    match run(token, begin, &upward) {
        Ok(log) => {
            log.into_iter().for_each(|log| log.flush());
            ExitCode::SUCCESS
        }
        Err(error) => {
            upward.say(token, Word::Failed(format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// What there is to start with, in a process that has given up everything else.
struct Room {
    settings: Settings,
    initial: Reload,
    doors: Doors,
    dhcp: dhcp::Sockets,
    channel: NetworkEnd,
    listener: StdListener,
    notes: Vec<String>,
    tight: bool,
}

fn run(token: Token, begin: Begin, upward: &Upward) -> anyhow::Result<Option<log::Log>> {
    let room = give_up(begin)?;
    let log = log::start(&room.settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let result = runtime.block_on(serve(token, room, upward.clone()));
    runtime.shutdown_background();
    result.inspect_err(|error| {
        tracing::error!("{error:#}");
        log.iter().for_each(log::Log::flush);
    })?;
    Ok(log)
}

/// Opens what takes privilege, and gives all of it up. There is one thread until here.
fn give_up(begin: Begin) -> anyhow::Result<Room> {
    let [part, channel, listener] =
        <[OwnedFd; 3]>::try_from(begin.fds).map_err(|_| anyhow!("told too little"))?;
    let mut notes = sandbox::harden();
    let Public { settings, reload } = parts::unpack(part)?;
    let (doors, warnings) = Doors::open(&settings)?;
    notes.extend(warnings);
    let (dhcp, missing) = dhcp::open(&reload.realms);
    notes.extend(missing);
    sandbox::lift_limits();
    let (pid, uid) = begin.party;
    let channel = NetworkEnd::of_socket(channel, Some(Party { pid, uid }))?;
    if let Some(user) = &begin.user {
        sandbox::become_user(user, Side::Network.keeps(), begin.supervisor)?;
    }
    let needs = Needs::of(Side::Network, &settings);
    notes.extend(sandbox::shut_in(Side::Network, &settings, &needs)?);
    // Whatever libraries of others do in a lane is not ours to list.
    let tight = settings.sandbox && !needs.libraries && !needs.dpdk && !needs.traps;
    let listener = StdListener::from(listener);
    Ok(Room { settings, initial: reload, doors, dhcp, channel, listener, notes, tight })
}

async fn serve(token: Token, room: Room, upward: Upward) -> anyhow::Result<()> {
    let Room { settings, initial, doors, dhcp, channel, listener, notes, tight } = room;
    // A terminal's signals go to all processes at once; when it is time to end the supervisor says so.
    let _signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let events = Events::default();
    for text in worker::unmet(&settings.devices(), &initial.realms) {
        tracing::error!("{text}");
    }
    let devices = Devices::open(&settings.devices(), &initial.realms)?;
    let known = settings.clone();
    // Before anybody is given an address.
    let (ledger, reach) = (Ledger::default(), Arc::new(OnceLock::new()));
    let pools = initial.realms.iter().any(|realm| realm.pool.is_some());
    let (leases, keeper) = match known.leases.as_deref().filter(|_| pools) {
        Some(file) => leases::open(file, &ledger, &events).await?,
        None => (Vec::new(), None),
    };
    let parts = Parts {
        settings,
        initial,
        devices,
        doors,
        tight,
        secure: channel,
        secure_returns: true,
        events: events.clone(),
        leases,
        ledger,
        dhcp: Dhcp::start(Arc::clone(&reach), dhcp),
    };
    let worker = worker::spawn(parts)?;
    let orders = worker.orders.clone();
    // Nobody else fills it.
    let _ = reach.set(orders.clone());
    let (ask, look) = (upward.clone(), upward.clone());
    let reloader: Reloader = Arc::new(move || match ask.ask(Word::PleaseReload, RELOAD)? {
        Word::Done(text) => Ok(text),
        Word::Failed(why) => Err(why),
        _ => Err("the supervisor does not know".to_owned()),
    });
    let keys: Looker = Arc::new(move || match look.ask(Word::PleaseLook, LOOK) {
        Ok(Word::Devices(text)) => serde_json::from_str(&text).unwrap_or_default(),
        _ => Vec::new(),
    });
    let server = Server { orders: orders.clone(), events, reloader, keys };
    listener.set_nonblocking(true)?;
    tokio::spawn(server.serve(UnixListener::from_std(listener)?));
    let up = upward.clone();
    upward.hear(move |token, word| obey(token, word, &up, &orders, &known))?;
    upward.say(token, Word::Ready(notes));
    let ended = worker.ended.await.unwrap_or_else(|_| Err(anyhow!("the worker panicked")));
    if let Some(keeper) = keeper {
        keeper.close().await;
    }
    ended
}

/// What the supervisor wants.
fn obey(token: Token, word: Word, up: &Upward, orders: &Orders, settings: &Settings) {
    match word {
        Word::Reload { fds } => {
            let answer = match reload(fds, orders, settings) {
                Ok(text) => Word::Done(text),
                Err(error) => Word::Failed(format!("{error:#}")),
            };
            up.say(token, answer);
        }
        Word::Channel { party: (pid, uid), fds } => {
            let ends = fds.into_iter().map(|fd| NetworkEnd::of_socket(fd, Some(Party { pid, uid })));
            for end in ends {
                let taken = end.map_err(anyhow::Error::from);
                let taken = taken.and_then(|end| Ok(orders.give(Order::KeySide(end))?));
                if let Err(error) = taken {
                    tracing::error!("the channel to the new key side: {error:#}");
                }
            }
        }
        Word::Stop => {
            // Its end is the worker's, and the process's.
            let (answer, _) = oneshot::channel();
            let _ = orders.give(Order::Stop(answer));
        }
        _ => {}
    }
}

fn reload(fds: Vec<OwnedFd>, orders: &Orders, settings: &Settings) -> anyhow::Result<String> {
    let part = fds.into_iter().next().context("a configuration that is not there")?;
    let Public { settings: new_settings, reload } = parts::unpack(part)?;
    let mut notes = Vec::new();
    if new_settings != *settings {
        notes.push("[gateway], [dispatch] or [accel] changed; that needs a restart".to_owned());
    }
    notes.extend(worker::unmet(&settings.devices(), &reload.realms));
    let (answer, done) = oneshot::channel();
    orders.give(Order::Reload { new: Box::new(reload), answer })?;
    done.blocking_recv().context("the gateway is ending")?;
    Ok(notes.join("\n"))
}
