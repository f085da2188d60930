//! `tussock run`: puts the threads together, and takes them down again.
//!
//! Threads: `secure` holds the keys; `worker` holds IKE, ESP and all sockets; the main thread runs the control socket and
//! waits for signals.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use spi::ShortOps;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::report::Problems;
use crate::config::{self, Loaded, LogFormat, Settings};
use crate::control::lock::Lock;
use crate::control::server::{self, Reloader, Server};
use crate::events::Events;
use crate::worker::order::{Order, Orders, Reload};
use crate::worker::{self, Devices, Parts};

/// Longest time from the first signal to the end.
const GOODBYE: Duration = Duration::from_secs(6);

/// Why the gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error("{0}")]
    Config(#[from] Problems),
    /// Anything else.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Runs a gateway until it is told to stop.
///
/// # Errors
/// Why it did not start, or ended by itself.
pub fn run(path: &Path) -> Result<(), RunError> {
    let loaded = config::load(path)?;
    start_log(&loaded.settings)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    harden();
    let _lock = Lock::take(&loaded.settings.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    Ok(runtime.block_on(serve(path.to_path_buf(), loaded))?)
}

async fn serve(path: PathBuf, loaded: Loaded) -> anyhow::Result<()> {
    // Signals first: one that comes while we start must not be lost, nor kill us half-way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let events = Events::default();
    let settings = loaded.settings.clone();
    for text in worker::unmet(&loaded.realms) {
        tracing::error!("{text}");
    }
    let devices = Devices::open()?;
    let short = devices.short_ops()?;
    let initial = reload_part(&loaded, &*short);
    let secure = secure::spawn(loaded.secure).context("the key side does not start")?;
    for problem in &secure.problems {
        tracing::error!("{problem}");
    }
    let parts =
        Parts { settings: settings.clone(), initial, devices, secure: secure.end, events: events.clone() };
    let mut worker = worker::spawn(parts)?;
    let orders = worker.orders.clone();
    let reloader = reloader(path, settings.clone(), secure.handle, short, orders.clone());
    let server = Server { orders: orders.clone(), events, reloader };
    let socket = settings.socket();
    let listener = server::listen(&socket)?;
    tracing::info!(pid = std::process::id(), socket = %socket.display(), "ready");
    let serving = tokio::spawn(server.clone().serve(listener));
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hang_up.recv() => {
                let answer = server.reload().await;
                if let Some(error) = answer.error {
                    tracing::error!("configuration not read again:\n{error}");
                }
            }
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
    serving.abort();
    // Our own socket, since we hold the lock.
    let _ = std::fs::remove_file(&socket);
    result
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
    handle: secure::Handle,
    short: Arc<dyn ShortOps>,
    orders: Orders,
) -> Reloader {
    // One at a time.
    let handle = Mutex::new(handle);
    Arc::new(move || {
        let loaded = config::load(&path).map_err(|problems| problems.to_string())?;
        let mut notes: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        if loaded.settings != settings {
            notes.push("[gateway] changed; that needs a restart".to_owned());
        }
        notes.extend(worker::unmet(&loaded.realms));
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

fn reload_part(loaded: &Loaded, short: &dyn ShortOps) -> Reload {
    Reload {
        realms: loaded.realms.clone(),
        authorities: secure::authorities(&loaded.secure, short),
        carve_outs: loaded.carve_outs.clone(),
        dummies: loaded.dummies.clone(),
    }
}

/// No core dumps and no looking into our memory: both would show keys.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps are possible");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user may look into our memory");
    }
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{EnvFilter, Registry};
    // The filter was read once already, when the configuration was checked.
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = |filter| {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false)
    };
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start in one process, as in tests, keeps the first one's log.
    let _ = match settings.log_format {
        LogFormat::Text => stderr(filter).with_ansi(colour).try_init(),
        LogFormat::Json => stderr(filter).json().try_init(),
        LogFormat::Journal => {
            let journal =
                tracing_journald::layer().context("log_format = \"journal\": no journal answers here")?;
            let journal = journal.with_syslog_identifier("tussock".to_owned());
            Registry::default().with(filter).with(journal).try_init().map_err(Into::into)
        }
    };
    Ok(())
}
