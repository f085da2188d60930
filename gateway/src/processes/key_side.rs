//! The program `tussock-secure`: the key side as a process.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ipc::{Party, SecureEnd, Talk};
use rustix::event::{PollFd, PollFlags, poll};
use spi::Token;
use tokio::signal::unix::{SignalKind, signal};

use super::parts::{self, Private};
use super::reader::{talk_on_stdin, wait};
use super::words::{BUILD, Begin, Word};
use crate::control::passwords;
use crate::keyside::KeyDevices;
use crate::log;
use crate::sandbox::{self, Needs, Side};

/// How long the supervisor may take to say what to do.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// The program.
pub fn main() -> ExitCode {
    // It was started by a descriptor, which is no name for it.
    let _ = rustix::thread::set_name(c"tussock-secure");
    let mut talk = match talk_on_stdin() {
        Ok(talk) => talk,
        Err(_) => {
            eprintln!("tussock-secure: a part of `tussock run`, which starts it");
            return ExitCode::from(2);
        }
    };
    match run(&mut talk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The supervisor's first word.
pub(super) fn begin(talk: &mut Talk) -> anyhow::Result<(Token, Begin)> {
    let until = std::time::Instant::now() + FIRST_WORD;
    loop {
        match talk.hear::<Word>() {
            Some((token, Word::Begin(begin))) if begin.build == BUILD => return Ok((token, begin)),
            Some((token, Word::Begin(begin))) => {
                let why = format!("this is version {BUILD}, and the supervisor is version {}", begin.build);
                let _ = talk.say(token, Word::Failed(why.clone()));
                bail!(why);
            }
            Some(_) => bail!("the supervisor does not begin with the beginning"),
            None if talk.is_closed() => bail!("the supervisor is gone"),
            None => {}
        }
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            bail!("the supervisor does not say what to do");
        }
        wait(talk, left)?;
    }
}

fn run(talk: &mut Talk) -> anyhow::Result<()> {
    let (token, begin) = begin(talk)?;
    let served = match serve(begin) {
        Ok((served, problems)) => {
            talk.say(token, Word::Ready(problems))?;
            served
        }
        Err(error) => {
            talk.say(token, Word::Failed(format!("{error:#}")))?;
            return Ok(());
        }
    };
    let (handle, devices) = (served.handle, KeyDevices::new(served.devices));
    loop {
        while let Some((token, word)) = talk.hear::<Word>() {
            match word {
                Word::Reload { fds } => {
                    let answer = match reload(&handle, fds) {
                        Ok(problems) => Word::Done(problems),
                        Err(error) => Word::Failed(format!("{error:#}")),
                    };
                    talk.say(token, answer)?;
                }
                Word::PleaseLook => {
                    let text = serde_json::to_string(&devices.look()).unwrap_or_default();
                    talk.say(token, Word::Devices(text))?;
                }
                // Dropping the handle takes the rules for routes back.
                Word::Stop => return Ok(()),
                _ => {}
            }
        }
        if talk.is_closed() {
            return Ok(());
        }
        let mut fds = [
            PollFd::from_borrowed_fd(talk.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(handle.ended(), PollFlags::IN),
        ];
        let _ = poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            // The gateway's process ended, or it is not what it should be: whoever comes next finds us clean.
            tracing::info!("the network side is gone");
            return Ok(());
        }
    }
}

/// The key side, and what is wrong with its configuration.
fn serve(begin: Begin) -> anyhow::Result<(secure::Served, Vec<String>)> {
    let [part, channel, listener] =
        <[OwnedFd; 3]>::try_from(begin.fds).map_err(|_| anyhow!("told too little"))?;
    let mut notes = sandbox::harden();
    sandbox::lift_limits();
    notes.extend(sandbox::keep_in_memory());
    // Without it no name servers of peers are used; whoever wants that is told then.
    let resolv_conf = secure::open_resolv_conf().ok();
    if let Some(user) = &begin.user {
        sandbox::become_user(user, Side::Keys.keeps(), begin.supervisor)?;
    }
    // Read by whoever we are now: until here nobody saw a secret.
    let Private { settings, mut config } = parts::unpack(part)?;
    let needs = Needs::of(Side::Keys, &settings);
    notes.extend(sandbox::shut_in(Side::Keys, &settings, &needs)?);
    let _ = log::start(&settings)?;
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    ignore_signals()?;
    let (pid, uid) = begin.party;
    let end = SecureEnd::of_socket(channel, Some(Party { pid, uid }))?;
    config.inherits = begin.inherits;
    config.resolv_conf = resolv_conf;
    let served = secure::serve(config, end).context("the key side does not start")?;
    passwords::serve(listener.into(), served.handle.passwords()).context("no thread")?;
    let problems = served.problems.iter().map(ToString::to_string).collect();
    Ok((served, problems))
}

fn reload(handle: &secure::Handle, fds: Vec<OwnedFd>) -> anyhow::Result<String> {
    let part = fds.into_iter().next().context("a configuration that is not there")?;
    let Private { config, .. } = parts::unpack(part)?;
    let problems = handle.reload(config)?;
    Ok(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// A terminal's signals go to all processes at once; when it is time to end the supervisor says so.
fn ignore_signals() -> anyhow::Result<()> {
    // A handler of tokio's stays for as long as the process lives.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let _ = signal(kind)?;
        }
        Ok(())
    })
}
