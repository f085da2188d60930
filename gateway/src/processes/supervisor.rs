//! The supervisor: starts the two processes, starts them again, and passes on what they need. It parses nothing that comes from
//! the network and keeps no secret in its memory.
//!
//! When the gateway's process ends, so does the key side's, and both begin anew: TUN devices, routes and SAs went with it.
//! When the key side's ends, another begins and the gateway's goes on meanwhile.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::fs::{Gid, Uid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Interval;

use super::child::{Child, Heard, Program};
use super::lend::{self, Lender};
use super::reader::{self, Read};
use super::users::{self, User, Users};
use super::words::{BUILD, Begin, Word};
use crate::config::Settings;
use crate::control::lock::Lock;
use crate::control::server;
use crate::log;
use crate::run::RunError;
use crate::sandbox::{self, Side, harden, is_emulated};
use crate::terminal::Terminal;

/// Longest time from the first signal to the end.
const GOODBYE: Duration = Duration::from_secs(6);
/// How long a process that is of no use any more may take to end.
const SHORT: Duration = Duration::from_secs(2);
/// First wait before a process is started again, after one at once.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// A process that ran so long was well.
const WELL: Duration = Duration::from_secs(60);

/// Runs both processes until a signal says that it is enough.
pub(crate) fn run(path: &Path) -> Result<(), RunError> {
    let unhardened = harden();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let (mut signals, hang_up) = signals().context("no signals")?;
        let read = tokio::select! {
            read = reader::read(path) => read?,
            () = signals.end() => return Ok(()),
        };
        let log = log::start(&read.known.settings)?;
        for warning in unhardened.iter().chain(&read.warnings) {
            tracing::warn!("{warning}");
        }
        let result = supervise(path, read, signals, hang_up).await;
        log.into_iter().for_each(|log| log.flush());
        Ok(result?)
    })
}

async fn supervise(path: &Path, read: Read, mut signals: Ends, mut hang_up: Signal) -> anyhow::Result<()> {
    let settings = read.known.settings.clone();
    let _lock = Lock::take(&settings.state_dir)?;
    let users = users::users(&settings)?;
    if users.gateway.is_none() {
        tracing::warn!("not root: all processes run as this user, and each may look at what the others have");
    }
    make_folders(&settings, &users)?;
    let listener = OwnedFd::from(server::listen(&settings.socket())?);
    let _socket = SocketFile(settings.socket());
    let key_listener = OwnedFd::from(server::listen(&settings.key_socket())?);
    let _key_socket = SocketFile(settings.key_socket());
    let programs = (Program::find("tussock-gateway")?, Program::find("tussock-secure")?);
    let lender = Lender::new(&settings, users.gateway.clone());
    // At which the key side asks for PINs; it may be killed while it does.
    let terminal = settings.accel.iter().any(|accel| accel.flag("pin_prompt") == Some(true));
    let terminal = terminal.then(Terminal::own).flatten();
    let mut supervisor = Supervisor {
        programs,
        lender,
        look: lend::looks(),
        path: path.to_path_buf(),
        settings,
        users,
        listener,
        key_listener,
        public: read.public,
        secret: read.secret,
        secure: None,
        gateway: None,
        patience: Patience::default(),
        terminal,
    };
    let begun = tokio::select! {
        begun = supervisor.begin() => Some(begun),
        () = signals.end() => None,
    };
    match begun {
        // Told to end before there was anything.
        None => return supervisor.end(signals).await,
        Some(Err(error)) => return Err(error),
        Some(Ok(())) => {}
    }
    tracing::info!(pid = std::process::id(), socket = %supervisor.settings.socket().display(), "ready");
    loop {
        let over = tokio::select! {
            () = supervisor.turn(&mut hang_up) => false,
            () = signals.end() => true,
        };
        if over {
            return supervisor.end(signals).await;
        }
    }
}

struct Supervisor {
    /// The gateway's and the key side's.
    programs: (Program, Program),
    lender: Lender,
    look: Interval,
    path: PathBuf,
    settings: Settings,
    users: Users,
    /// The control socket; the gateway's process has it too, and each that comes after it.
    listener: OwnedFd,
    /// The key side's own, likewise.
    key_listener: OwnedFd,
    /// The configuration that is in use. The second part is passed on as it is.
    public: OwnedFd,
    secret: OwnedFd,
    secure: Option<Child>,
    gateway: Option<Child>,
    patience: Patience,
    /// As it was at the start, if anything is asked at it.
    terminal: Option<Terminal>,
}

impl Supervisor {
    /// Starts both.
    async fn begin(&mut self) -> anyhow::Result<()> {
        self.lender.lend();
        let (network, keys) = ipc::socket_pair()?;
        let folder = self.settings.own_folder(Side::Keys);
        let secure = self.secure.insert(Child::start(&self.programs.1, &folder, &[], one_heap())?);
        let folder = self.settings.own_folder(Side::Network);
        let hidden: Vec<&str> = self.settings.accel.iter().filter_map(|accel| hidden(accel)).collect();
        let gateway =
            self.gateway.insert(Child::start(&self.programs.0, &folder, &hidden, emulator(&self.settings))?);
        let (secure_pid, gateway_pid) = (secure.pid, gateway.pid);
        self.begin_secure(keys, gateway_pid, false).await?;
        let begin = Begin {
            fds: vec![self.public.try_clone()?, network, self.listener.try_clone()?],
            ..begin_of(self.users.gateway.as_ref(), (secure_pid, uid(self.users.secure.as_ref())), false)
        };
        let gateway = self.gateway.as_mut().context("no process")?;
        let token = gateway.say(Word::Begin(begin))?;
        if let Word::Ready(notes) = gateway.answer_to(token).await? {
            notes.iter().for_each(|note| tracing::warn!("{note}"));
        }
        Ok(())
    }

    async fn begin_secure(&mut self, channel: OwnedFd, gateway: i32, inherits: bool) -> anyhow::Result<()> {
        let begin = Begin {
            fds: vec![self.secret.try_clone()?, channel, self.key_listener.try_clone()?],
            ..begin_of(self.users.secure.as_ref(), (gateway, uid(self.users.gateway.as_ref())), inherits)
        };
        let secure = self.secure.as_mut().context("no process")?;
        let token = secure.say(Word::Begin(begin))?;
        if let Word::Ready(notes) = secure.answer_to(token).await? {
            notes.iter().for_each(|note| tracing::error!("{note}"));
        }
        Ok(())
    }

    /// Waits for something to happen and does what is to be done.
    async fn turn(&mut self, hang_up: &mut Signal) {
        let (Some(secure), Some(gateway)) = (&mut self.secure, &mut self.gateway) else {
            return self.restart().await;
        };
        tokio::select! {
            // Also while there is much to hear.
            _ = self.look.tick(), if !self.lender.is_idle() => self.lender.lend(),
            _ = hang_up.recv() => {
                if let Err(error) = self.reload().await {
                    tracing::error!("configuration not read again:\n{error:#}");
                }
            }
            heard = gateway.hear() => match heard {
                Heard::Word(token, Word::PleaseReload) => {
                    let answer = match self.reload().await {
                        Ok(text) => Word::Done(text),
                        Err(error) => Word::Failed(format!("{error:#}")),
                    };
                    if let Some(gateway) = &mut self.gateway {
                        let _ = gateway.answer(token, answer);
                    }
                }
                // The answer finds its way by the token.
                Heard::Word(token, Word::PleaseLook) => drop(secure.answer(token, Word::PleaseLook)),
                Heard::Word(..) => {}
                Heard::Ended(how) => {
                    tracing::error!(%how, "tussock-gateway has ended: everything begins anew");
                    self.gateway = None;
                }
            },
            heard = secure.hear() => match heard {
                Heard::Word(token, Word::Devices(text)) => drop(gateway.answer(token, Word::Devices(text))),
                Heard::Word(..) => {}
                Heard::Ended(how) => {
                    if let Some(terminal) = &self.terminal {
                        terminal.put_right();
                    }
                    tracing::error!(%how, "tussock-secure has ended: another one begins");
                    self.secure = None;
                }
            },
        }
    }

    /// Starts what is not there.
    async fn restart(&mut self) {
        tokio::time::sleep(self.patience.wait()).await;
        self.patience.begun();
        let survives = self.gateway.is_some();
        let result = match &self.gateway {
            Some(gateway) => {
                let pid = gateway.pid;
                self.secure_again(pid).await
            }
            None => {
                if let Some(secure) = self.secure.take() {
                    secure.end(SHORT).await;
                }
                self.begin().await
            }
        };
        if let Err(error) = result {
            tracing::error!("{error:#}");
            if !survives {
                self.gateway = None;
            }
            self.secure = None;
        }
    }

    async fn secure_again(&mut self, gateway: i32) -> anyhow::Result<()> {
        let (network, keys) = ipc::socket_pair()?;
        let folder = self.settings.own_folder(Side::Keys);
        let pid = self.secure.insert(Child::start(&self.programs.1, &folder, &[], one_heap())?).pid;
        self.begin_secure(keys, gateway, true).await?;
        let party = (pid, uid(self.users.secure.as_ref()));
        let gateway = self.gateway.as_mut().context("no process")?;
        gateway.say(Word::Channel { party, fds: vec![network] })?;
        tracing::info!("tussock-secure is there again");
        Ok(())
    }

    /// Reads the configuration again; says what came of it.
    async fn reload(&mut self) -> anyhow::Result<String> {
        let read = reader::read(&self.path).await.map_err(|error| anyhow!("{error}"))?;
        let (secure, gateway) =
            self.secure.as_mut().zip(self.gateway.as_mut()).context("the gateway is starting")?;
        let mut notes = read.warnings;
        let token = secure.say(Word::Reload { fds: vec![read.secret.try_clone()?] })?;
        if let Word::Done(problems) = secure.answer_to(token).await? {
            notes.extend(problems.lines().map(str::to_owned));
        }
        let token = gateway.say(Word::Reload { fds: vec![read.public.try_clone()?] })?;
        if let Word::Done(more) = gateway.answer_to(token).await? {
            notes.extend(more.lines().map(str::to_owned));
        }
        (self.public, self.secret) = (read.public, read.secret);
        let mut text = format!("{} realms", read.known.reload.realms.len());
        for note in notes {
            tracing::warn!("{note}");
            text += &format!("\n{note}");
        }
        Ok(text)
    }

    /// Takes everything down; at once when there is another signal.
    async fn end(mut self, mut signals: Ends) -> anyhow::Result<()> {
        let (gateway, secure) = (self.gateway.take(), self.secure.take());
        let all = async {
            if let Some(gateway) = gateway {
                gateway.end(GOODBYE).await;
            }
            if let Some(secure) = secure {
                secure.end(SHORT).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = signals.end() => tracing::warn!("stopping at once"),
        }
        if let Some(terminal) = &self.terminal {
            terminal.put_right();
        }
        Ok(())
    }
}

fn begin_of(user: Option<&User>, party: (i32, u32), inherits: bool) -> Begin {
    let supervisor = rustix::process::getpid().as_raw_nonzero().get();
    Begin { build: BUILD.into(), user: user.cloned(), supervisor, party, inherits, fds: Vec::new() }
}

fn uid(user: Option<&User>) -> u32 {
    user.map_or_else(|| rustix::process::geteuid().as_raw(), |user| user.uid)
}

/// A variable of the environment with a PIN, which is none of the gateway's business.
fn hidden(accel: &registry::Accel) -> Option<&str> {
    accel.text("pin_env").filter(|_| accel.text("dh") != Some("token"))
}

/// Has the key side's memory be what it can lock.
fn one_heap() -> Vec<(&'static str, OsString)> {
    sandbox::one_heap().into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// Has the library that carries out an accelerator's instructions be in the process that has the accelerator, and in no other.
fn emulator(settings: &Settings) -> Vec<(&'static str, OsString)> {
    let wanted = settings.accel.iter().any(is_emulated);
    let library = wanted.then(|| std::env::var_os("TUSSOCK_PADLOCK_PRELOAD")).flatten();
    library.into_iter().map(|library| ("LD_PRELOAD", library)).collect()
}

/// For each process a folder that only it may enter, in the state folder.
fn make_folders(settings: &Settings, users: &Users) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // One that is there already belongs to somebody, who has to say that the gateway may write there.
    if let Some(folder) = settings.leases.as_deref().and_then(Path::parent).filter(|folder| !folder.exists())
        && !folder.starts_with(&settings.state_dir)
    {
        let what = || format!("the folder {}", folder.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(what)?;
        if let Some(user) = &users.gateway {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            rustix::fs::chown(folder, Some(uid), Some(gid)).with_context(what)?;
        }
    }
    for (side, user) in [(Side::Network, &users.gateway), (Side::Keys, &users.secure)] {
        let folder = settings.own_folder(side);
        let what = || format!("the folder {}", folder.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(what)?;
        if let Some(user) = user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            rustix::fs::chown(&folder, Some(uid), Some(gid)).with_context(what)?;
        }
    }
    Ok(())
}

/// The control socket's place in the file system; ours, since we hold the lock.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Those that say: enough; and the one that says: read again.
fn signals() -> std::io::Result<(Ends, Signal)> {
    let ends =
        Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    Ok((ends, signal(SignalKind::hangup())?))
}

struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// One that says: enough.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How long to wait before a process is started again: not at all after a long good time, and longer each time otherwise.
#[derive(Default)]
struct Patience {
    begun: Option<Instant>,
    wait: Duration,
}

impl Patience {
    fn wait(&mut self) -> Duration {
        self.wait = match self.begun {
            Some(begun) if begun.elapsed() < WELL => (self.wait * 2).clamp(FIRST_WAIT, LAST_WAIT),
            _ => Duration::ZERO,
        };
        self.wait
    }

    fn begun(&mut self) {
        self.begun = Some(Instant::now());
    }
}
