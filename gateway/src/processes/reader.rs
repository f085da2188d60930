//! The process that reads the configuration: `tussock read-config`, which nobody but the supervisor calls. It passes on what it
//! read, and ends, and its memory with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ipc::Talk;
use spi::Token;

use super::parts::{self, Public};
use super::words::Word;
use crate::config;
use crate::run::RunError;

/// How long it takes for its last words to be heard.
const PARTING: Duration = Duration::from_secs(10);

/// What it read.
pub(super) struct Read {
    /// The public part, as it is passed on.
    pub(super) public: OwnedFd,
    /// The secret part; nobody looks into it here.
    pub(super) secret: OwnedFd,
    /// The public part.
    pub(super) known: Public,
    /// What is worth a word.
    pub(super) warnings: Vec<String>,
}

/// The process itself.
pub(crate) fn main(path: &Path) -> ExitCode {
    match read_and_pass_on(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tussock read-config: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read_and_pass_on(path: &Path) -> anyhow::Result<()> {
    let _ = crate::sandbox::harden();
    crate::sandbox::lift_limits();
    let _ = crate::sandbox::keep_in_memory();
    let mut talk = talk_on_stdin().context("this is a part of `tussock run`")?;
    let word = match config::load(path) {
        Ok(loaded) => {
            let (public, private, warnings) = parts::divide(loaded)?;
            Word::Parts { warnings, fds: vec![parts::pack(&public)?, parts::pack(&private)?] }
        }
        Err(problems) => Word::Failed(problems.to_string()),
    };
    talk.say(Token(0), word)?;
    // The supervisor hangs up when it has heard.
    let until = std::time::Instant::now() + PARTING;
    while !talk.is_closed() && std::time::Instant::now() < until {
        wait(&talk, until.saturating_duration_since(std::time::Instant::now()))?;
        let _ = talk.hear::<Word>();
    }
    Ok(())
}

/// The conversation with the supervisor, which started us with it.
pub(super) fn talk_on_stdin() -> io::Result<Talk> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_domain(&socket)?;
    Talk::new(socket, None)
}

/// Waits until there is something to hear, or so long.
pub(super) fn wait(talk: &Talk, limit: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut [PollFd::new(talk, PollFlags::IN)], Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has a process read the configuration.
pub(super) async fn read(path: &Path) -> Result<Read, RunError> {
    let (ours, theirs) = ipc::socket_pair().context("no socket")?;
    // What runs here, whatever was installed since.
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg0("tussock")
        .arg("read-config")
        .arg("--config")
        .arg(path)
        .envs(crate::sandbox::one_heap())
        .stdin(Stdio::from(theirs))
        .kill_on_drop(true);
    let mut process = command.spawn().context("no process to read the configuration")?;
    drop(command);
    let mut talk = Talk::new(ours, None).context("no socket")?;
    let word = loop {
        if let Some((_, word)) = talk.hear::<Word>() {
            break word;
        }
        if talk.is_closed() {
            let status = process.wait().await.context("the process that reads the configuration")?;
            return Err(anyhow!("the configuration was not read: {status}").into());
        }
        super::child::readable(&talk).await.context("the process that reads the configuration")?;
    };
    drop(talk);
    let _ = process.wait().await;
    let (warnings, fds) = match word {
        Word::Parts { warnings, fds } => (warnings, fds),
        Word::Failed(problems) => return Err(RunError::Unreadable(problems)),
        _ => return Err(anyhow!("the configuration was not read").into()),
    };
    Ok(take_parts(warnings, fds)?)
}

fn take_parts(warnings: Vec<String>, fds: Vec<OwnedFd>) -> anyhow::Result<Read> {
    let Ok([public, secret]) = <[OwnedFd; 2]>::try_from(fds) else {
        bail!("a configuration that is not whole")
    };
    let known = parts::unpack(public.try_clone()?)?;
    Ok(Read { public, secret, known, warnings })
}
