//! One boot of a guest with emulated cards: QEMU and the emulator are started, watched, and ended, whatever happens.
//!
//! QEMU translates instead of using the processor's virtualisation. A `/dev/kvm` that can be opened proves little (there
//! are hosts where it is, and no unchanged kernel boots), and two ways to run would be two sets of surprises.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::{self, Daemon};

use super::place::Place;

/// How long the emulator may take to listen, and to end.
const EMULATOR_PATIENCE: Duration = Duration::from_secs(10);
/// What the init script says last.
const DONE: &str = "rig: done";
/// More console than this is a guest that has gone mad.
const MAX_CONSOLE: usize = 64 << 20;

/// The card flips a bit in every result.
pub const FLIPPED: &[&str] = &["--flip-bit"];

/// What protects the host's memory from the card.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Iommu {
    /// As it should be.
    Full,
    /// It translates addresses and does not remap interrupts.
    NoRemapping,
    /// There is none.
    None,
}

/// A boot.
pub struct Boot<'a> {
    /// What it is called in messages and file names.
    pub name: &'a str,
    /// The emulated cards: a device number, and how many there are.
    pub device: &'a str,
    pub cards: usize,
    /// More for the emulator's command line, such as [`FLIPPED`].
    pub card: &'a [&'a str],
    /// The first file system.
    pub initrd: &'a [u8],
    pub iommu: Iommu,
    pub megabytes: u32,
    pub processors: u32,
    /// More for the kernel's command line.
    pub append: &'a str,
    pub patience: Duration,
}

/// What is left of a boot.
pub struct Outcome {
    /// The guest's console, line by line.
    pub console: Vec<String>,
    /// The emulator's counters, card by card.
    pub counters: Vec<Value>,
    /// The folder with the logs.
    pub logs: PathBuf,
    /// Whether the guest came to the end of its script.
    pub complete: bool,
    /// Why it did not.
    pub trouble: Option<String>,
}

impl Outcome {
    /// Requests that all cards have served whose name fits.
    pub fn served(&self, fits: impl Fn(&str) -> bool) -> u64 {
        (0..self.counters.len()).map(|card| self.served_by(card, &fits)).sum()
    }

    /// Requests that one card has served whose name fits.
    pub fn served_by(&self, card: usize, fits: impl Fn(&str) -> bool) -> u64 {
        let requests = self.counters.get(card).and_then(|counters| counters.get("requests")?.as_object());
        let requests = requests.into_iter().flatten().filter(|(name, _)| fits(name));
        requests.filter_map(|(_, tally)| tally.get("served")?.as_u64()).sum()
    }

    /// Lines of the console that begin with `PASS ` and with `FAIL `, which is how programs of ours judge.
    pub fn passes(&self) -> (u64, u64) {
        let begin = |word| self.console.iter().filter(|line| line.starts_with(word)).count() as u64;
        (begin("PASS "), begin("FAIL "))
    }

    /// What failed first; empty if nothing did.
    pub fn first_trouble(&self) -> String {
        let failed = self.console.iter().find(|line| line.starts_with("FAIL "));
        match (failed, &self.trouble) {
            (Some(line), _) => line.clone(),
            (None, Some(trouble)) => format!("{trouble}, see {}", self.logs.display()),
            (None, None) => String::new(),
        }
    }

    /// What follows `rig: WORD ` in the lines of the console that begin so.
    pub fn said<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.console
            .iter()
            .filter_map(move |line| line.strip_prefix("rig: ")?.strip_prefix(word)?.strip_prefix(' '))
    }
}

/// Boots a guest and waits for its end, or until `enough` says so of a line.
pub fn boot(
    boot: &Boot<'_>,
    place: &Place,
    emulator: &Path,
    mut enough: impl FnMut(&str) -> bool,
) -> Result<Outcome> {
    let logs = crate::checkout::target().join("rig").join(boot.name);
    fs::remove_dir_all(&logs).ok();
    fs::create_dir_all(&logs)?;
    let initrd = logs.join("initrd.cpio");
    fs::write(&initrd, boot.initrd)?;
    let stats = logs.join("counters.json");

    // A path for a socket has 107 octets at most, and a checkout may lie deep.
    let folder = SocketFolder::new()?;
    let sockets: Vec<PathBuf> = (0..boot.cards).map(|card| folder.0.join(format!("card{card}"))).collect();
    let mut command = Command::new(emulator);
    for socket in &sockets {
        command.arg("--socket").arg(socket);
    }
    command.args(["--device", boot.device, "--log", "warn", "--stats"]).arg(&stats);
    command.args(boot.card);
    let mut server = Daemon::start(&mut command, &logs.join("emulator.log"))?;
    let up = process::until(EMULATOR_PATIENCE, || {
        let there = sockets.iter().all(|socket| socket.exists());
        Ok((server.has_ended() || there).then_some(()))
    })?;
    if up.is_none() || server.has_ended() {
        bail!("the emulator does not listen:\n{}", process::tail(server.log(), 5));
    }

    let guest = Qemu::start(&qemu(boot, place, &initrd, &sockets)?, &logs)?;
    let end = Instant::now() + boot.patience;
    let mut console = Vec::new();
    let mut octets = 0;
    let mut stopped = false;
    let trouble = loop {
        if interrupted() {
            bail!("interrupted");
        }
        match guest.lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                octets += line.len();
                let last = line == DONE;
                stopped = enough(&line);
                console.push(line);
                if last || stopped {
                    break None;
                }
                if octets > MAX_CONSOLE {
                    break Some("the guest does not stop talking".to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) if server.has_ended() => {
                break Some(format!("the emulator has ended:\n{}", process::tail(server.log(), 10)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Some("the guest has ended before its time".to_owned());
            }
        }
        if Instant::now() >= end {
            break Some(format!("the guest did not finish within {} s", boot.patience.as_secs()));
        }
    };
    drop(guest);
    server.stop(Signal::TERM, EMULATOR_PATIENCE)?;
    let complete = trouble.is_none() && !stopped;
    fs::remove_file(&initrd).ok();
    let counters = fs::read_to_string(&stats).context("the emulator has left no counters")?;
    let counters: Value = serde_json::from_str(&counters)?;
    let cards = counters.as_array().into_iter().flatten();
    let counters = cards.filter_map(|card| card.get("counters")).cloned().collect();
    Ok(Outcome { console, counters, logs, complete, trouble })
}

fn qemu(boot: &Boot<'_>, place: &Place, initrd: &Path, sockets: &[PathBuf]) -> Result<Command> {
    let words = place.qemu();
    let (program, first) = words.split_first().context("no QEMU")?;
    let mut command = Command::new(program);
    command.args(first);
    let size = boot.megabytes;
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-nographic",
        "-accel",
        "tcg,thread=multi,tb-size=256",
    ]);
    command.args(["-cpu", "max", "-machine", "q35,kernel-irqchip=split,hpet=off,memory-backend=mem"]);
    command.args(["-smp", &boot.processors.to_string(), "-m", &format!("{size}M")]);
    // Shared, or the emulator would see registers and no memory.
    command.args(["-object", &format!("memory-backend-memfd,id=mem,size={size}M,share=on")]);
    match boot.iommu {
        Iommu::Full => command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]),
        Iommu::NoRemapping => command.args(["-device", "intel-iommu,intremap=off,caching-mode=on"]),
        Iommu::None => &mut command,
    };
    command.arg("-kernel").arg(place.kernel()?).arg("-initrd").arg(initrd);
    command.args(["-append", &format!("{KERNEL} {}", boot.append), "-serial", "stdio"]);
    for (card, socket) in sockets.iter().enumerate() {
        let device = serde_json::json!({
            "driver": "vfio-user-pci", "id": format!("card{card}"), "addr": format!("{:#x}", FIRST_SLOT + card),
            "socket": { "type": "unix", "path": socket.display().to_string() },
        });
        command.args(["-device", &device.to_string()]);
    }
    Ok(command)
}

/// The place of the first card on the bus.
const FIRST_SLOT: usize = 5;

/// Quick to boot, quiet, and an end when it panics.
const KERNEL: &str = "console=ttyS0 quiet loglevel=3 panic=-1 intel_iommu=on iommu=nopt tsc=reliable no_timer_check \
                      mitigations=off random.trust_cpu=on";

/// QEMU and the thread that reads its console. Dropping it ends both.
struct Qemu {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Qemu {
    fn start(command: &Command, logs: &Path) -> Result<Qemu> {
        let mut copy = Command::new(command.get_program());
        copy.args(command.get_args());
        let errors = fs::File::create(logs.join("qemu.log"))?;
        let mut log = fs::File::create(logs.join("console.log"))?;
        let mut child = copy
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .context("cannot run QEMU")?;
        let console = child.stdout.take().context("QEMU has no console")?;
        let (sender, lines) = mpsc::channel();
        let began = Instant::now();
        thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                writeln!(log, "{:8.3} {text}", began.elapsed().as_secs_f64()).ok();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(Qemu { child, lines })
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // With a vfio-user server that does not answer, QEMU takes its time over anything softer.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A folder with a short name.
struct SocketFolder(PathBuf);

impl SocketFolder {
    fn new() -> Result<SocketFolder> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tussock-rig-{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(SocketFolder(folder))
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on an interrupt is noted instead of ending this process, which would leave QEMU and emulators behind.
pub fn note_interrupts() -> Result<()> {
    let flag = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(())
}

/// Whether somebody wants us to end.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}
