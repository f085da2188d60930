//! The key side's process without a gateway's: for whoever wants to see what it does when somebody else asks.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ipc::Talk;

use super::parts::{self, Private};
use super::reader::wait;
use super::users;
use super::words::{BUILD, Begin, Word};
use crate::config::{Loaded, Settings};
use crate::control::server::listen;

/// How long it may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// The process, with this one in the place of its supervisor and of the gateway.
pub struct KeySide {
    process: Child,
    talk: Talk,
    /// The network's end of the channel.
    pub channel: OwnedFd,
}

impl KeySide {
    /// Starts the program by a command, with a configuration. As root it becomes its own user, as always.
    ///
    /// # Errors
    /// It does not start; with its words.
    pub fn start(mut command: Command, loaded: Loaded) -> anyhow::Result<KeySide> {
        let (ours, theirs) = ipc::socket_pair()?;
        let process = command.stdin(Stdio::from(theirs)).spawn()?;
        drop(command);
        let (channel, keys) = ipc::socket_pair()?;
        let settings: Settings = loaded.settings.clone();
        let user = users::users(&settings)?.secure;
        let part = parts::pack(&Private { settings: settings.clone(), config: loaded.secure })?;
        let listener = listen(&settings.key_socket())?;
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let begin = Begin {
            build: BUILD.into(),
            user,
            supervisor: me,
            party: (me, rustix::process::geteuid().as_raw()),
            inherits: false,
            fds: vec![part, keys, listener.into()],
        };
        let mut talk = Talk::new(ours, None)?;
        talk.say(spi::Token(1), Word::Begin(begin))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match talk.hear::<Word>() {
                Some((_, Word::Ready(_))) => return Ok(KeySide { process, talk, channel }),
                Some((_, Word::Failed(why))) => bail!("{why}"),
                _ if talk.is_closed() || Instant::now() >= until => bail!("tussock-secure does not begin"),
                _ => wait(&talk, Duration::from_secs(1))?,
            }
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it goes on, after a moment in which it may have ended.
    pub fn goes_on(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(200));
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Waits for its end by itself; whether it was an orderly one.
    ///
    /// # Errors
    /// There is none.
    pub fn ended_well(&mut self) -> anyhow::Result<bool> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("it does not end")
    }
}

impl Drop for KeySide {
    fn drop(&mut self) {
        let _ = self.talk.say(spi::Token(2), Word::Stop);
        let _ = self.ended_well().context("the key side");
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
