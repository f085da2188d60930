//! The log goes to standard error through a thread of its own: whoever reads it may stop doing so, and the worker, which has
//! packets to carry, must not wait for that. What does not fit is lost and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{LogFormat, Settings};

/// Lines that may wait.
const BACKLOG: usize = 4096;
/// How long the first line waits for others to be written with it: whoever logs much need not wake the log for each line.
const GATHER: Duration = Duration::from_millis(2);
/// Octets written at once.
const AT_ONCE: usize = 64 * 1024;
/// How long the last lines may take at the end.
const PATIENCE: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

/// Where lines go.
#[derive(Clone)]
pub struct Log {
    to: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

/// One line being written.
pub struct Line<'a> {
    log: &'a Log,
    bytes: Vec<u8>,
}

/// Starts the log as the settings have it. `None`: there is nothing to flush, or there was a log already, as in tests.
///
/// # Errors
/// No journal, or no thread.
pub fn start(settings: &Settings) -> anyhow::Result<Option<Log>> {
    // The filter was read once already, when the configuration was checked.
    let mut filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    for library in registry::TALKATIVE.iter().filter(|library| !settings.log.contains(**library)) {
        filter = filter.add_directive(format!("{library}=off").parse().context("the log's filter")?);
    }
    if settings.log_format == LogFormat::Journal {
        let journal =
            tracing_journald::layer().context("log_format = \"journal\": no journal answers here")?;
        let journal = journal.with_syslog_identifier("tussock".to_owned());
        let _ = Registry::default().with(filter).with(journal).try_init();
        return Ok(None);
    }
    let log = Log::new(io::stderr()).context("no thread for the log")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_target(false);
    let started = match settings.log_format {
        LogFormat::Json => lines.json().try_init(),
        _ => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
    };
    Ok(started.is_ok().then_some(log))
}

impl Log {
    /// A log that is written to `out` by a thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn new(out: impl Write + Send + 'static) -> io::Result<Log> {
        let (to, from) = sync_channel(BACKLOG);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        std::thread::Builder::new().name("log".into()).spawn(move || write(out, &from, &counter))?;
        Ok(Log { to, lost })
    }

    /// Waits a moment for what was logged so far to be written.
    pub fn flush(&self) {
        let until = Instant::now() + PATIENCE;
        let (done, wait) = sync_channel(1);
        while self.to.try_send(Item::Flush(done.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(PATIENCE / 100);
        }
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { log: self, bytes: Vec::with_capacity(256) }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.log.to.try_send(Item::Line(line)).is_err() {
            self.log.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut out: impl Write, from: &Receiver<Item>, lost: &AtomicU64) {
    let mut lines = Vec::new();
    while let Ok(first) = from.recv() {
        let mut flushed = Vec::new();
        let mut take = |item, lines: &mut Vec<u8>| match item {
            Item::Line(line) => lines.extend_from_slice(&line),
            Item::Flush(done) => flushed.push(done),
        };
        if matches!(first, Item::Line(_)) {
            std::thread::sleep(GATHER);
        }
        take(first, &mut lines);
        while lines.len() < AT_ONCE
            && let Ok(item) = from.try_recv()
        {
            take(item, &mut lines);
        }
        // To whom should it be told that the log cannot be written?
        let _ = out.write_all(&lines);
        lines.clear();
        if !flushed.is_empty() {
            let _ = out.flush();
            for done in flushed {
                let _ = done.try_send(());
            }
        }
        match lost.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => drop(writeln!(out, "tussock: {lost} lines of the log were lost")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    /// Writes nothing until it may.
    #[derive(Clone, Default)]
    struct Stuck {
        at_gate: Arc<AtomicBool>,
        gate: Arc<Mutex<()>>,
        text: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.at_gate.store(true, Ordering::Relaxed);
            let _open = self.gate.lock().unwrap();
            self.text.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_nobody_up_and_lost_lines_are_told() {
        let out = Stuck::default();
        let log = Log::new(out.clone()).unwrap();
        let shut = out.gate.lock().unwrap();
        // The first line is taken and goes nowhere, then all that may wait do, and the rest is too much.
        log.make_writer().write_all(b"line\n").unwrap();
        while !out.at_gate.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let began = Instant::now();
        for _ in 0..BACKLOG + 100 {
            log.make_writer().write_all(b"line\n").unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "a line waited for the reader");
        drop(shut);
        log.flush();
        let text = String::from_utf8(out.text.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| *line == "line").count();
        let lost: usize = text
            .lines()
            .filter_map(|line| line.strip_prefix("tussock: ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!((lines, lost), (1 + BACKLOG, 100));
    }
}
