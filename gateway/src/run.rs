//! `tussock run`. Its processes are [`crate::processes`]'s; a gateway that is one process (`--one-process`) is put together here,
//! and taken down again.
//!
//! Its threads: `secure` holds the keys; `worker` holds IKE, ESP and all sockets; the main thread runs the control socket and
//! waits for signals.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use spi::ShortOps;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::report::Problems;
use crate::config::{self, Loaded, Settings};
use crate::control::lock::Lock;
use crate::control::passwords;
use crate::control::server::{self, Looker, Reloader, Server};
use crate::dhcp::{self, Dhcp};
use crate::events::Events;
use crate::keyside::KeyDevices;
use crate::leases::{self, Ledger};
use crate::log;
use crate::processes::supervisor;
use crate::sandbox::harden;
use crate::worker::order::{Order, Orders, Reload};
use crate::worker::{self, Devices, Doors, Parts};

/// Longest time from the first signal to the end.
const GOODBYE: Duration = Duration::from_secs(6);

/// Why the gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The same, by somebody else's words.
    #[error("{0}")]
    Unreadable(String),
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// Why it did not start, or ended by itself.
pub fn run(path: &Path) -> Result<(), RunError> {
    supervisor::run(path)
}

/// Runs a gateway that is one process, for tests and for looking at it: whoever takes it over has everything.
///
/// # Errors
/// Why it did not start, or ended by itself.
pub fn run_as_one(path: &Path) -> Result<(), RunError> {
    // Before the first secret is read.
    let unhardened = harden();
    let loaded = config::load(path)?;
    let log = log::start(&loaded.settings)?;
    let all_in_one = "one process: whoever takes it over has the keys".to_owned();
    let warnings = loaded.warnings.iter().map(ToString::to_string).chain([all_in_one]);
    for warning in unhardened.into_iter().chain(warnings) {
        tracing::warn!("{warning}");
    }
    let result = run_on(path, loaded);
    if let Some(log) = log {
        log.flush();
    }
    Ok(result?)
}

fn run_on(path: &Path, loaded: Loaded) -> anyhow::Result<()> {
    let _lock = Lock::take(&loaded.settings.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let result = runtime.block_on(serve(path.to_path_buf(), loaded));
    // A reload that waits for a file (it may be a pipe) must not be waited for.
    runtime.shutdown_background();
    result
}

async fn serve(path: PathBuf, loaded: Loaded) -> anyhow::Result<()> {
    // Signals first: one that comes while we start must not be lost, nor kill us half-way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let events = Events::default();
    let settings = loaded.settings.clone();
    for text in worker::unmet(&settings.devices(), &loaded.realms) {
        tracing::error!("{text}");
    }
    let devices = Devices::open(&settings.devices(), &loaded.realms)?;
    let short = devices.short_ops()?;
    let initial = reload_part(&loaded, &*short);
    // Whatever may fail comes before the worker, which changes the machine's network.
    let listener = server::listen(&settings.socket())?;
    let _socket = SocketFile(settings.socket());
    let key_listener = server::listen(&settings.key_socket())?;
    let _key_socket = SocketFile(settings.key_socket());
    let secure = secure::spawn(loaded.secure).context("the key side does not start")?;
    for problem in &secure.served.problems {
        tracing::error!("{problem}");
    }
    let key_devices = KeyDevices::new(secure.served.devices);
    let keys: Looker = Arc::new(move || key_devices.look());
    let (doors, warnings) = Doors::open(&settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    // Before anybody is given an address.
    let ledger = Ledger::default();
    let reach = Arc::new(OnceLock::new());
    let (sockets, missing) = dhcp::open(&loaded.realms);
    missing.iter().for_each(|why| tracing::error!("{why}"));
    let pools = loaded.realms.iter().any(|realm| realm.pool.is_some());
    let (leases, keeper) = match settings.leases.as_deref().filter(|_| pools) {
        Some(file) => leases::open(file, &ledger, &events).await?,
        None => (Vec::new(), None),
    };
    let parts = Parts {
        settings: settings.clone(),
        initial,
        devices,
        doors,
        tight: false,
        secure: secure.end,
        secure_returns: false,
        events: events.clone(),
        leases,
        ledger,
        dhcp: Dhcp::start(Arc::clone(&reach), sockets),
    };
    let mut worker = worker::spawn(parts)?;
    let orders = worker.orders.clone();
    // Nobody else fills it.
    let _ = reach.set(orders.clone());
    let handle = secure.served.handle;
    passwords::serve(key_listener, handle.passwords()).context("no thread")?;
    let handle = Arc::new(Mutex::new(handle));
    let reloader = reloader(path, settings.clone(), Arc::clone(&handle), short, orders.clone());
    let server = Server { orders: orders.clone(), events, reloader, keys };
    tracing::info!(pid = std::process::id(), socket = %settings.socket().display(), "ready");
    listener.set_nonblocking(true)?;
    let serving = tokio::spawn(server.clone().serve(UnixListener::from_std(listener)?));
    let mut reloading: Option<JoinHandle<()>> = None;
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            // On a task of its own: whatever a reload waits for, signals to end are heard. A hang-up during a reload is heard
            // when that is done.
            _ = hang_up.recv(), if reloading.is_none() => reloading = Some(tokio::spawn(reload(server.clone()))),
            Some(()) = done(&mut reloading) => reloading = None,
            ended = &mut worker.ended => break Some(ended),
        }
    };
    let result = match ended {
        Some(ended) => ended.unwrap_or_else(|_| Err(anyhow!("the worker panicked"))),
        None => {
            let again = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            stop(&orders, again).await
        }
    };
    if let Some(keeper) = keeper {
        keeper.close().await;
    }
    serving.abort();
    result
}

/// The control socket's place in the file system; ours, since we hold the lock.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn reload(server: Server) {
    let answer = server.reload().await;
    if let Some(error) = answer.error {
        tracing::error!("configuration not read again:\n{error}");
    }
}

/// Ends when the task has ended; `None` at once when there is none.
async fn done(task: &mut Option<JoinHandle<()>>) -> Option<()> {
    // A reload that panicked is over, too.
    task.as_mut()?.await.ok().or(Some(()))
}

/// Takes everything down; at once when `again` happens.
async fn stop(orders: &Orders, again: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (answer, done) = oneshot::channel();
    orders.give(Order::Stop(answer)).map_err(|error| anyhow!("{error}"))?;
    tokio::select! {
        _ = done => Ok(()),
        () = again => {
            tracing::warn!("stopping at once");
            Ok(())
        }
        () = tokio::time::sleep(GOODBYE) => {
            tracing::warn!("stopping without waiting any longer");
            Ok(())
        }
    }
}

/// What `reload` does: everything is read and checked first; only then do the key side and the worker change.
fn reloader(
    path: PathBuf,
    settings: Settings,
    handle: Arc<Mutex<secure::Handle>>,
    short: Arc<dyn ShortOps>,
    orders: Orders,
) -> Reloader {
    Arc::new(move || {
        let loaded = config::load(&path).map_err(|problems| problems.to_string())?;
        let mut notes: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        if loaded.settings != settings {
            notes.push("[gateway], [dispatch] or [accel] changed; that needs a restart".to_owned());
        }
        notes.extend(worker::unmet(&settings.devices(), &loaded.realms));
        let new = Box::new(reload_part(&loaded, &*short));
        let realms = loaded.realms.len();
        let handle = handle.lock().unwrap_or_else(PoisonError::into_inner);
        let problems = handle.reload(loaded.secure).map_err(|error| error.to_string())?;
        notes.extend(problems.iter().map(ToString::to_string));
        let (answer, done) = oneshot::channel();
        orders.give(Order::Reload { new, answer }).map_err(|error| error.to_string())?;
        done.blocking_recv().map_err(|_| "the gateway is ending".to_owned())?;
        let mut text = format!("{realms} realms");
        for note in notes {
            tracing::warn!("{note}");
            text += &format!("\n{note}");
        }
        Ok(text)
    })
}

pub(crate) fn reload_part(loaded: &Loaded, short: &dyn ShortOps) -> Reload {
    Reload {
        realms: loaded.realms.clone(),
        authorities: secure::authorities(&loaded.secure, short),
        carve_outs: loaded.carve_outs.clone(),
        dummies: loaded.dummies.clone(),
        guarded: loaded.guarded.clone(),
        works: loaded.works.clone(),
    }
}
