//! The environment of DPDK, on a thread of its own.
//!
//! There is one for the process, it starts once, and it cannot be ended so that it could start again. It pins the thread that starts it
//! and counts it as its main one, so that thread is nobody else's: everything that is not a packet is done there, one thing after
//! another. Workers only put requests into queue pairs and take them out, which any thread may do that has the pair for itself.

use std::collections::VecDeque;
use std::ffi::CString;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use super::sys;

/// Memory for everything, MiB, where there are no huge pages. Pages that are not used are not there.
const MEMORY: usize = 512;
/// Huge pages of 2 MiB that must be free if huge pages are to be used.
const HUGE_PAGES: usize = 64;
/// Lines of the log that are kept, to say why something did not work.
const LINES: usize = 4;
/// Levels of DPDK's log.
const ERROR: u32 = 4;
const WARNING: u32 = 5;
const NOTICE: u32 = 6;
const INFO: u32 = 7;

type Job = Box<dyn FnOnce() + Send>;

/// The environment, once it was started.
struct Running {
    jobs: Sender<Job>,
    thread: ThreadId,
    /// PCI functions it was started with.
    functions: Vec<String>,
}

static EAL: OnceLock<Result<Running, String>> = OnceLock::new();
static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts the environment, if that was not done before. `functions` are the PCI functions it may touch; with none it touches no bus.
///
/// # Errors
/// What is in the way. It stays in the way: DPDK starts once, and so does a failure.
pub(super) fn start(functions: &[String]) -> Result<(), String> {
    let eal = EAL.get_or_init(|| {
        keep_openssl();
        let (jobs, waiting) = channel::<Job>();
        let (tell, told) = channel();
        let arguments = arguments(functions, free_huge_pages(), &cpus());
        let thread = std::thread::Builder::new().name("dpdk".into()).spawn(move || {
            sys::log_to(log);
            let began = sys::start(arguments);
            leave_no_files();
            let good = began.is_ok();
            if tell.send(began.map_err(|error| said("DPDK's environment does not start", error))).is_err()
                || !good
            {
                return;
            }
            waiting.iter().for_each(|job| {
                let _alone = alone();
                job();
            });
        });
        let thread = thread.map_err(|error| format!("no thread for DPDK: {error}"))?.thread().id();
        told.recv().map_err(|_| "DPDK's environment ended while it started".to_owned())??;
        tracing::info!(functions = ?functions, "dpdk: the environment is up");
        Ok(Running { jobs, thread, functions: functions.to_vec() })
    });
    let eal = eal.as_ref().map_err(Clone::clone)?;
    match functions.iter().find(|wanted| !eal.functions.contains(wanted)) {
        None => Ok(()),
        Some(function) => Err(format!(
            "DPDK's environment is up already, without {function}: the list of functions is fixed when it starts, so restart"
        )),
    }
}

/// DPDK's driver over OpenSSL loads OpenSSL's providers for itself, and with its last device unloads them, the default one too, for the
/// whole process: nobody in it has an algorithm or a random number from then on. One more load, for ever, keeps them.
fn keep_openssl() {
    match openssl::provider::Provider::try_load(None, "default", true) {
        Ok(provider) => std::mem::forget(provider),
        Err(error) => tracing::warn!(%error, "dpdk: OpenSSL's default provider cannot be kept"),
    }
}

/// Keeps the environment's thread from beginning anything, for what is done elsewhere and is not a packet. Drivers take it for granted that
/// such things come one after the other: Intel's ipsec-mb, set up by two threads at a time, calls functions that are not there.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something on the environment's thread, and waits for it; `None` when there is none.
pub(super) fn call<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    let (tell, told) = channel();
    let sent = run(move || {
        let _ = tell.send(work());
    });
    if sent { told.recv().ok() } else { None }
}

/// Does something on the environment's thread, some time; false when there is none. On that thread itself: at once.
pub(super) fn run(work: impl FnOnce() + Send + 'static) -> bool {
    let Some(Ok(eal)) = EAL.get() else { return false };
    if eal.thread == std::thread::current().id() {
        work();
        return true;
    }
    eal.jobs.send(Box::new(work)).is_ok()
}

/// An error with what DPDK logged last, for people.
pub(super) fn said(what: &str, error: i32) -> String {
    let lines: Vec<String> = lines().drain(..).collect();
    let named = std::io::Error::from_raw_os_error(error);
    match lines.as_slice() {
        [] => format!("{what}: {named}"),
        lines => format!("{what}: {named}; it says: {}", lines.join(" / ")),
    }
}

/// Forgets what was logged, so that the next error does not speak of the last one.
pub(super) fn forget_complaints() {
    lines().clear();
}

fn lines() -> MutexGuard<'static, VecDeque<String>> {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// DPDK's log, into ours.
fn log(level: u32, line: &str) {
    match level {
        0..=ERROR => {
            tracing::warn!(target: "dpdk", "{line}");
            let mut lines = lines();
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
        WARNING => tracing::warn!(target: "dpdk", "{line}"),
        NOTICE | INFO => tracing::debug!(target: "dpdk", "{line}"),
        _ => tracing::trace!(target: "dpdk", "{line}"),
    }
}

/// How the environment is started.
fn arguments(functions: &[String], huge_pages: usize, cpus: &[usize]) -> Vec<CString> {
    let mut list: Vec<String> = vec![
        "tussock".into(),
        // No socket, no file, nothing that others could attach to.
        "--no-telemetry".into(),
        "--no-shconf".into(),
        format!("--file-prefix=tussock-{}", std::process::id()),
        // Addresses for devices are those of this process: an IOMMU is demanded for cards, and software has none.
        "--iova-mode=va".into(),
    ];
    // One thread, not pinned to any processor.
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    if !cpus.is_empty() {
        list.push(format!("--lcores=0@({})", cpus.join(",")));
    }
    match huge_pages {
        // In 22.11 the two exclude each other.
        HUGE_PAGES.. => list.push("--in-memory".into()),
        _ => list.extend(["--no-huge".into(), "-m".into(), MEMORY.to_string()]),
    }
    match functions {
        [] => list.push("--no-pci".into()),
        // A list of what is allowed: without one DPDK takes every function it knows a driver for.
        list_of_them => {
            list.extend(list_of_them.iter().flat_map(|address| ["-a".to_owned(), address.clone()]))
        }
    }
    list.into_iter().filter_map(|argument| CString::new(argument).ok()).collect()
}

/// Even without configuration files DPDK makes a folder for them.
fn leave_no_files() {
    let Some(dir) = sys::runtime_dir().filter(|dir| dir.contains("tussock-")) else { return };
    let _ = std::fs::remove_dir(&dir);
    if let Some(above) = Path::new(&dir).parent() {
        // If others have something in it, it stays.
        let _ = std::fs::remove_dir(above);
    }
}

fn free_huge_pages() -> usize {
    let text = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Processors this process may use.
fn cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(functions: &[String], huge_pages: usize, cpus: &[usize]) -> String {
        let words = arguments(functions, huge_pages, cpus);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_bus_is_touched_unless_a_function_is_named() {
        assert!(line(&[], 0, &[0]).contains("--no-pci"));
        let named = line(&["0000:6b:01.0".into(), "0000:6b:01.1".into()], 0, &[0]);
        assert!(named.contains("-a 0000:6b:01.0 -a 0000:6b:01.1") && !named.contains("--no-pci"));
    }

    #[test]
    fn memory_is_huge_pages_where_there_are_some_and_ordinary_pages_elsewhere() {
        let (with, without) = (line(&[], 64, &[0]), line(&[], 63, &[0]));
        assert!(with.contains("--in-memory") && !with.contains("--no-huge"));
        assert!(without.contains("--no-huge -m 512") && !without.contains("--in-memory"));
    }

    #[test]
    fn its_thread_may_run_wherever_the_process_may() {
        assert!(line(&[], 0, &[1, 5]).contains("--lcores=0@(1,5)"));
        assert!(!line(&[], 0, &[]).contains("--lcores"));
        assert!(!cpus().is_empty());
    }
}
