//! A process, as the supervisor sees it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use ipc::Talk;
use spi::Token;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child as Process, Command};

use super::words::Word;

/// How long a process may take to end when it is told to.
const GOODBYE: Duration = Duration::from_secs(2);
/// Words that may wait while another one is waited for; whoever says more is not one of ours.
const MAX_WAITING: usize = 1024;

/// One of the two.
pub(super) struct Child {
    name: &'static str,
    process: Process,
    talk: Talk,
    pub(super) pid: i32,
    /// Heard while something else was waited for.
    waiting: VecDeque<(Token, Word)>,
    last: u64,
}

/// What there is to hear of it.
pub(super) enum Heard {
    Word(Token, Word),
    /// It ended.
    Ended(String),
}

impl Child {
    /// Starts it, without the variables named in `hide`, and with those in `also`. What libraries make at run time goes into its own
    /// folder.
    pub(super) fn start(
        program: &Program,
        folder: &Path,
        hide: &[&str],
        also: Vec<(&str, OsString)>,
    ) -> anyhow::Result<Child> {
        let (ours, theirs) = ipc::socket_pair().context("no socket")?;
        let Program { name, path, file } = program;
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        command.arg0(path);
        for variable in hide {
            command.env_remove(variable);
        }
        command.env("XDG_RUNTIME_DIR", folder);
        command.envs(also);
        command.stdin(Stdio::from(theirs)).kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("{} does not start", path.display()))?;
        let pid = process.id().context("a process without a number")? as i32;
        let talk = Talk::new(ours, None)?;
        Ok(Child { name, process, talk, pid, waiting: VecDeque::new(), last: 0 })
    }

    /// Says something, and returns what its answer will be called.
    pub(super) fn say(&mut self, word: Word) -> anyhow::Result<Token> {
        self.last += 1;
        self.answer(Token(self.last), word)?;
        Ok(Token(self.last))
    }

    /// Answers what it said.
    pub(super) fn answer(&mut self, token: Token, word: Word) -> anyhow::Result<()> {
        self.talk.say(token, word).map_err(|broken| anyhow!("{}: {broken}", self.name))
    }

    /// The next there is to hear. May be given up and called again.
    pub(super) async fn hear(&mut self) -> Heard {
        match self.waiting.pop_front() {
            Some((token, word)) => Heard::Word(token, word),
            None => self.hear_fresh().await,
        }
    }

    async fn hear_fresh(&mut self) -> Heard {
        loop {
            if let Some((token, word)) = self.talk.hear() {
                return Heard::Word(token, word);
            }
            if self.talk.is_closed() {
                // It is about to end, or said what nobody says: then it is ended.
                let ended = tokio::time::timeout(GOODBYE, self.process.wait()).await;
                if ended.is_err() {
                    let _ = self.process.start_kill();
                }
                return Heard::Ended(how(self.process.wait().await));
            }
            tokio::select! {
                _ = readable(&self.talk) => {}
                status = self.process.wait() => {
                    // Its last words first.
                    return match self.talk.hear() {
                        Some((token, word)) => Heard::Word(token, word),
                        None => Heard::Ended(how(status)),
                    };
                }
            }
        }
    }

    /// What it says to what it was told with this token.
    ///
    /// # Errors
    /// `Failed`, or its end.
    pub(super) async fn answer_to(&mut self, token: Token) -> anyhow::Result<Word> {
        loop {
            match self.hear_fresh().await {
                Heard::Word(of, Word::Failed(why)) if of == token => bail!("{why}"),
                Heard::Word(of, word) if of == token && is_answer(&word) => return Ok(word),
                Heard::Word(of, word) if self.waiting.len() < MAX_WAITING => {
                    self.waiting.push_back((of, word));
                }
                Heard::Word(..) => bail!("{} says too much", self.name),
                Heard::Ended(how) => bail!("{} ended: {how}", self.name),
            }
        }
    }

    /// Has it end, one way or the other.
    pub(super) async fn end(mut self, patience: Duration) {
        let _ = self.say(Word::Stop);
        if tokio::time::timeout(patience, self.process.wait()).await.is_err() {
            tracing::warn!(process = self.name, "it does not end by itself");
            let _ = self.process.kill().await;
        }
    }
}

fn is_answer(word: &Word) -> bool {
    matches!(word, Word::Ready(_) | Word::Done(_) | Word::Devices(_))
}

fn how(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Waits until there may be something to hear.
pub(super) async fn readable(talk: &Talk) -> io::Result<()> {
    // Deprecated for what may show another descriptor each time; an `OwnedFd` does not, and the other way is `unsafe`.
    #[allow(deprecated)]
    let bell = AsyncFd::with_interest(talk.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    bell.readable().await.map(drop)
}

/// A program of ours. It is opened once, so that what is started again is what was started, whatever was installed since.
pub(super) struct Program {
    name: &'static str,
    path: PathBuf,
    file: File,
}

impl Program {
    /// One beside this one, or in the folder for programs that nobody calls by hand.
    pub(super) fn find(name: &'static str) -> anyhow::Result<Program> {
        let own = std::env::current_exe().context("where this program is")?;
        let beside = own.with_file_name(name);
        let elsewhere = Path::new("/usr/libexec/tussock").join(name);
        let opened = [&beside, &elsewhere].into_iter().find_map(|path| Some((path, File::open(path).ok()?)));
        let (path, file) = opened
            .with_context(|| format!("{name} is neither {} nor in /usr/libexec/tussock", beside.display()))?;
        Ok(Program { name, path: path.clone(), file })
    }
}
