//! Network namespaces that go away again: when dropped, on Ctrl-C, and at the next start after a `kill -9`.
//!
//! Everything is named with the prefix `tsk-`. Only namespaces that carry it are ever removed, and only processes
//! that live in one of them are ever ended.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::process;

/// What every namespace of ours begins with.
const PREFIX: &str = "tsk-";

/// Where sockets and process ids live: short paths, because a Unix socket's may have 107 bytes only.
const STATE: &str = "/run/tussock-lab";

/// The prefixes that a signal has to clean up before this process ends.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A set of namespaces with one prefix, owned by this process.
pub struct Netns {
    prefix: String,
    state: PathBuf,
    /// Held while we live; a second run of the same kind must not sweep us away.
    lock: File,
    keep: bool,
}

impl Netns {
    /// Claim the set called `kind` ("demo", "test") and clear away what a killed run left of it.
    pub fn claim(kind: &str) -> Result<Netns> {
        // A dash would let the set "a" sweep the set "a-b" away.
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("`{kind}` is no name for a set of namespaces: letters and digits");
        }
        let state = Path::new(STATE).join(kind);
        fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
        let lock = File::create(Path::new(STATE).join(format!("{kind}.lock")))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another run has the namespaces {PREFIX}{kind}-* on this machine")
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let prefix = format!("{PREFIX}{kind}-");
        clean_up_on_signals();
        sweep(&prefix)?;
        fs::remove_dir_all(&state)?;
        fs::create_dir_all(&state)?;
        live().push(prefix.clone());
        Ok(Netns { prefix, state, lock, keep: false })
    }

    /// The namespace of a host, by its full name.
    pub fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// A folder for the sockets of a host.
    pub fn state(&self, host: &str) -> Result<PathBuf> {
        let dir = self.state.join(host);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Make a namespace: loopback up, no reverse-path filter, no duplicate address detection.
    pub fn add(&self, host: &str) -> Result<()> {
        process::run(Command::new("ip").args(["netns", "add", &self.name(host)]))?;
        self.ip(host, "link set lo up")?;
        let quiet = [
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
        ];
        process::run(self.command(host, "sysctl").arg("-qw").args(quiet))?;
        Ok(())
    }

    /// Join two namespaces by a pair of virtual Ethernet interfaces, both up.
    pub fn link(&self, one: (&str, &str), other: (&str, &str)) -> Result<()> {
        let mut add = Command::new("ip");
        add.args(["link", "add", one.1, "netns", &self.name(one.0), "type", "veth"]);
        add.args(["peer", "name", other.1, "netns", &self.name(other.0)]);
        process::run(&mut add)?;
        self.ip(one.0, &format!("link set {} up", one.1))?;
        self.ip(other.0, &format!("link set {} up", other.1))
    }

    /// Lines for `ip`, one command each, run in the namespace of a host.
    pub fn ip(&self, host: &str, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name(host), "-batch", "-"]);
        process::feed(&mut command, lines).map(drop)
    }

    /// A rule set for `nft -f` in the namespace of a host.
    pub fn nft(&self, host: &str, rules: &str) -> Result<()> {
        process::feed(self.command(host, "nft").args(["-f", "-"]), rules).map(drop)
    }

    /// A command that will run in the namespace of a host.
    ///
    /// `ip netns exec` also gives it its own mount namespace, from which nothing propagates back.
    pub fn command(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program);
        command
    }

    /// End every process in the set and remove the namespaces, but keep the claim: the next scenario builds anew.
    pub fn clear(&self) -> Result<()> {
        sweep(&self.prefix)
    }

    /// Leave everything up when this value goes away.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        live().retain(|prefix| *prefix != self.prefix);
        if !self.keep {
            if let Err(error) = sweep(&self.prefix) {
                eprintln!("xtask: namespaces {}* are still there: {error:#}", self.prefix);
            }
            fs::remove_dir_all(&self.state).ok();
        }
        self.lock.unlock().ok();
    }
}

/// Remove the set called `kind`, whoever made it; true if there was one.
pub fn take_down(kind: &str) -> Result<bool> {
    let prefix = format!("{PREFIX}{kind}-");
    let there = !with_prefix(&prefix)?.is_empty();
    sweep(&prefix)?;
    fs::remove_dir_all(Path::new(STATE).join(kind)).ok();
    Ok(there)
}

fn live() -> std::sync::MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One thread waits for Ctrl-C and its like, cleans up what is live and ends the process the way a shell expects.
fn clean_up_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nxtask: stopping, taking the namespaces down");
                // The lock stays held: nobody may begin a new world while this one ends.
                for prefix in live().iter() {
                    sweep(prefix).ok();
                }
                std::process::exit(128 + signal);
            }
        });
    });
}

fn with_prefix(prefix: &str) -> Result<Vec<String>> {
    let all = process::run(Command::new("ip").args(["netns", "list"]))?;
    let names = all.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
}

/// End the processes in all namespaces of a prefix, politely at first, then delete the namespaces.
fn sweep(prefix: &str) -> Result<()> {
    let names = with_prefix(prefix)?;
    if names.is_empty() {
        return Ok(());
    }
    signal_all(&names, Signal::TERM);
    let end = Instant::now() + Duration::from_secs(2);
    while signal_all(&names, Signal::CONT) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    signal_all(&names, Signal::KILL);
    for name in &names {
        process::run(Command::new("ip").args(["netns", "del", name]))?;
    }
    Ok(())
}

/// Signal whatever lives in these namespaces; returns how many processes that were.
fn signal_all(names: &[String], signal: Signal) -> usize {
    let mut count = 0;
    for name in names {
        let Ok(pids) = process::run(Command::new("ip").args(["netns", "pids", name])) else { continue };
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw) {
            kill_process(pid, signal).ok();
            count += 1;
        }
    }
    count
}
