//! Child processes: run to the end within a time limit, or kept as a daemon with its output in a file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a command may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished command left behind.
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
}

impl Finished {
    /// Standard output and error in one string, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The command line as a reader would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Run, output to the terminal; true if it ended well. No time limit: a person watches.
pub fn status(command: &mut Command) -> Result<bool> {
    let shown = line(command);
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{shown}`"))?;
    Ok(status.success())
}

/// Run and collect; an error if it fails or takes longer than a minute.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = line(command);
    let done = finish(command, PATIENCE)?;
    if !done.status.success() {
        bail!("`{shown}` failed: {}", done.text().trim());
    }
    Ok(done.stdout)
}

/// Run with `input` on standard input; an error if it fails.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let shown = line(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A child that refuses its input early closes the pipe; its own message is the better one.
        pipe.write_all(input.as_bytes()).ok();
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("`{shown}` failed on\n{input}\n{}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Run and collect whatever the exit code; an error only if it cannot start or takes longer than `limit`.
pub fn finish(command: &mut Command, limit: Duration) -> Result<Finished> {
    let shown = line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let Some(status) = wait(&mut child, limit)? else {
        child.kill().ok();
        child.wait().ok();
        bail!("`{shown}` did not finish within {} s", limit.as_secs());
    };
    let collect = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(Finished { status, stdout: collect(stdout), stderr: collect(stderr) })
}

/// Read a pipe to its end on its own thread, so that a talkative child never blocks on a full one.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

/// Wait at most `limit`; `None` if it still runs.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ask `look` every 20 ms until it answers, for at most `limit`; `None` if it never did.
pub fn until<T>(limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process in the background. Dropping it kills it.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Start `command` with both its outputs appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Daemon> {
        let shown = line(command);
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot run `{shown}`"))?;
        Ok(Daemon { child, log: log.to_path_buf() })
    }

    /// Its process id. `ip netns exec` replaces itself, so this is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Send a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, signal).ok();
        }
    }

    /// Ask it to end and wait at most `limit`; then kill it, and say so by `false`.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<bool> {
        self.signal(signal);
        if wait(&mut self.child, limit)?.is_some() {
            return Ok(true);
        }
        self.kill();
        Ok(false)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Leave it running when this value goes away.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// The file its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

/// Resident memory of a process, octets.
pub fn resident(pid: u32) -> Result<u64> {
    let file = Path::new("/proc").join(pid.to_string()).join("status");
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().next().context("an odd VmRSS")?.parse()?;
    Ok(kilobytes * 1024)
}

/// The last `lines` lines of a file, indented, for an error message; empty if there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    let Ok(bytes) = fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().iter().map(|line| format!("      {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_ended_and_named() {
        let error =
            finish(Command::new("sleep").arg("30"), Duration::from_millis(50)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("sleep 30"), "{error}");
    }

    #[test]
    fn a_failing_command_shows_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo because >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("because"), "{error}");
    }
}
