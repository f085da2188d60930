//! What the kernel refuses each process, and what not: a process of these tests gives up what one of ours does, by the same steps,
//! and tries. The answers are in docs/privsep.md. Our processes give up what they have while they have one thread, which a process of the
//! usual harness has not: this one has a harness of its own.
#![allow(clippy::unwrap_used, missing_docs)]

mod sys;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tussock::processes::User;
use tussock::sandbox::{Side, rehearsal};

use crate::sys::{call, fork};

/// Who tries.
const KINDS: [&str; 3] = ["gateway", "lane", "secure"];
/// The user numbers of the two processes where the system names none.
const USERS: [u32; 2] = [0x7473_6701, 0x7473_6702];

/// Where it is tried, and what is open before anything is given up.
struct Place {
    dir: PathBuf,
    own: PathBuf,
    others: PathBuf,
    udp: UdpSocket,
    /// Somebody listens there.
    port: u16,
    /// A process of root's.
    tester: i64,
}

/// One thing to try.
type Trial = (&'static str, fn(&Place) -> io::Result<()>);

const TRIALS: &[Trial] = &[
    ("send on a socket that is open", |place| place.udp.send_to(b"x", "127.0.0.1:9").map(drop)),
    ("read `/etc/passwd`", |_| File::open("/etc/passwd").map(drop)),
    ("read `/proc`", |_| File::open("/proc/self/stat").map(drop)),
    ("write in its own folder", |place| make_and_remove(&place.own.join("file"))),
    ("write in the other's folder", |place| make_and_remove(&place.others.join("file"))),
    ("read a file that everybody may read, elsewhere", |place| File::open(place.dir.join("file")).map(drop)),
    ("write a file that everybody may write, elsewhere", |place| {
        OpenOptions::new().write(true).open(place.dir.join("file")).map(drop)
    }),
    ("make a file in `/etc`", |_| make_and_remove(Path::new("/etc/tussock-test"))),
    ("make a link in its own folder", |place| std::os::unix::fs::symlink("/etc", place.own.join("link"))),
    ("open `/dev/net/tun`", |_| OpenOptions::new().write(true).open("/dev/net/tun").map(drop)),
    ("look into a process of root's", |place| File::open(format!("/proc/{}/mem", place.tester)).map(drop)),
    ("connect to a Unix socket of root's", |place| {
        UnixStream::connect(place.dir.join("root.sock")).map(drop)
    }),
    ("make a piece of memory a file", |_| Ok(memfd_create("x", MemfdFlags::CLOEXEC).map(drop)?)),
    ("make a thread", |_| std::thread::Builder::new().spawn(|| {}).map(|thread| thread.join().unwrap())),
    ("make a process (`clone`)", |_| fork(libc::SYS_clone)),
    ("make a process (`clone3`)", |_| call(libc::SYS_clone3, [0; 4]).map(drop)),
    #[cfg(target_arch = "x86_64")]
    ("make a process (`fork`)", |_| fork(libc::SYS_fork)),
    ("UDP socket", |_| UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("TCP connection", |place| TcpStream::connect(("127.0.0.1", place.port)).map(drop)),
    ("netlink, for routes", |_| a_socket(libc::AF_NETLINK, Type::RAW, libc::NETLINK_ROUTE)),
    ("netlink, for the kernel's IPsec", |_| a_socket(libc::AF_NETLINK, Type::RAW, libc::NETLINK_XFRM)),
    ("raw IP socket", |_| a_socket(libc::AF_INET, Type::RAW, libc::IPPROTO_ICMP)),
    ("packet socket", |_| a_socket(libc::AF_PACKET, Type::RAW, 0)),
    ("the kernel's ciphers (`AF_ALG`)", |_| a_socket(libc::AF_ALG, Type::SEQPACKET, 0)),
    ("mark packets (CAP_NET_ADMIN)", |place| SockRef::from(&place.udp).set_mark(7)),
    ("`io_uring_setup`", |_| call(libc::SYS_io_uring_setup, [0; 4]).map(drop)),
    ("signal to itself", |_| {
        let (process, thread) = (call(libc::SYS_getpid, [0; 4])?, call(libc::SYS_gettid, [0; 4])?);
        call(libc::SYS_tgkill, [process, thread, 0, 0]).map(drop)
    }),
    ("signal to another process (`kill`)", |place| call(libc::SYS_kill, [place.tester, 0, 0, 0]).map(drop)),
    ("signal to another process (`tgkill`)", |place| {
        call(libc::SYS_tgkill, [place.tester, place.tester, 0, 0]).map(drop)
    }),
    ("a handle of another process", |place| call(libc::SYS_pidfd_open, [place.tester, 0, 0, 0]).map(drop)),
    ("become root (`setresuid`)", |_| call(libc::SYS_setresuid, [0; 4]).map(drop)),
    ("become root (`setuid`)", |_| call(libc::SYS_setuid, [0; 4]).map(drop)),
    ("root's group", |_| call(libc::SYS_setresgid, [0; 4]).map(drop)),
    ("further groups", |_| call(libc::SYS_setgroups, [0; 4]).map(drop)),
    ("capabilities", |_| call(libc::SYS_capset, [0; 4]).map(drop)),
    ("be looked into again", |_| call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0]).map(drop)),
    ("core dumps again", |_| {
        let all = rustix::process::Rlimit { current: None, maximum: None };
        Ok(rustix::process::setrlimit(rustix::process::Resource::Core, all)?)
    }),
    ("type into a terminal (`TIOCSTI`)", |_| {
        call(libc::SYS_ioctl, [0, libc::TIOCSTI as i64, 0, 0]).map(drop)
    }),
    ("no filters any more (`personality`)", |_| call(libc::SYS_personality, [0; 4]).map(drop)),
];

/// Calls that end the process.
const DEADLY: &[(&str, i64)] = &[
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("setns", libc::SYS_setns),
    ("unshare", libc::SYS_unshare),
    ("bpf", libc::SYS_bpf),
    ("init_module", libc::SYS_init_module),
    ("finit_module", libc::SYS_finit_module),
    ("delete_module", libc::SYS_delete_module),
    ("reboot", libc::SYS_reboot),
    ("swapon", libc::SYS_swapon),
    ("swapoff", libc::SYS_swapoff),
    ("settimeofday", libc::SYS_settimeofday),
    ("clock_settime", libc::SYS_clock_settime),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
];

fn make_and_remove(file: &Path) -> io::Result<()> {
    File::create_new(file).and_then(|_| fs::remove_file(file))
}

fn a_socket(domain: i32, kind: Type, protocol: i32) -> io::Result<()> {
    Socket::new(Domain::from(domain), kind, Some(Protocol::from(protocol))).map(drop)
}

fn settings(dir: &Path) -> tussock::config::Settings {
    let text = format!("[gateway]\nstate_dir = \"{}\"\n", dir.join("run").display());
    let loaded = tussock::config::parse(&dir.join("g.toml"), &text, 0o600);
    loaded.unwrap_or_else(|problems| panic!("{problems}")).settings
}

const TESTS: [(&str, fn()); 2] = [
    ("the_kernel_refuses_what_the_page_says", the_kernel_refuses_what_the_page_says),
    ("what_nobody_of_ours_asks_for_ends_the_process", what_nobody_of_ours_asks_for_ends_the_process),
];

fn main() {
    if let Ok(told) = std::env::var("TUSSOCK_TRIES") {
        return tries(&told);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    let wanted: Vec<_> = TESTS.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|word| word == "--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    println!("\nrunning {} tests", wanted.len());
    if !wanted.is_empty() && !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: giving up privilege needs root");
    } else {
        for (name, test) in &wanted {
            test();
            println!("test {name} ... ok");
        }
    }
    let others = TESTS.len() - wanted.len();
    println!(
        "\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; {others} filtered out",
        wanted.len()
    );
}

/// The process that gives everything up, and tries. Its parent tells it who it is to be, and whether it is to die.
fn tries(told: &str) {
    let mut words = told.split(',');
    let (kind, dir) = (words.next().unwrap(), PathBuf::from(words.next().unwrap()));
    let number = |word: Option<&str>| word.unwrap().parse::<i64>().unwrap();
    let (tester, port, deadly) = (number(words.next()), number(words.next()), number(words.next()));
    let settings = settings(&dir);
    let (side, other, uid) = match kind {
        "secure" => (Side::Keys, Side::Network, USERS[1]),
        _ => (Side::Network, Side::Keys, USERS[0]),
    };
    let place = Place {
        own: settings.own_folder(side),
        others: settings.own_folder(other),
        dir,
        udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
        port: port as u16,
        tester,
    };
    assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1, "one thread, as in our processes");
    if kind != "control" {
        let notes = rehearsal::enter(side, &settings, &User { uid, gid: uid, groups: Vec::new() }).unwrap();
        for note in notes {
            println!("note {note}");
        }
    }
    let is_lane = kind == "lane";
    let run = move || {
        if is_lane {
            rehearsal::enter_lane().unwrap();
        }
        match deadly {
            -1 => try_all(&place),
            // What takes an address is given none; nothing has a meaning with these.
            call_number => format!("survived {:?}\n", call(call_number, [-1, 0, 0, 0]).is_ok()),
        }
    };
    let said = if is_lane { std::thread::scope(|scope| scope.spawn(run).join().unwrap()) } else { run() };
    io::stdout().write_all(said.as_bytes()).unwrap();
}

fn try_all(place: &Place) -> String {
    let answers = TRIALS.iter().map(|(what, try_it)| {
        let answer = match try_it(place).map_err(|error| error.raw_os_error().unwrap_or(0)) {
            Ok(()) => "yes".to_owned(),
            Err(libc::EPERM) => "EPERM".to_owned(),
            Err(libc::EACCES) => "EACCES".to_owned(),
            Err(libc::ENOSYS) => "ENOSYS".to_owned(),
            Err(other) => format!("error {other}"),
        };
        format!("answer {what}={answer}\n")
    });
    answers.collect()
}

/// A folder with what is tried at, and a listener for those who may connect.
struct Stage {
    dir: PathBuf,
    listener: TcpListener,
    _socket: UnixListener,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let dir = std::env::temp_dir().join(format!("tussock-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let settings = settings(&dir);
        for (side, uid) in [(Side::Network, USERS[0]), (Side::Keys, USERS[1])] {
            let own = settings.own_folder(side);
            fs::create_dir_all(&own).unwrap();
            std::os::unix::fs::chown(&own, Some(uid), Some(uid)).unwrap();
            fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let _socket = UnixListener::bind(dir.join("root.sock")).unwrap();
        fs::set_permissions(dir.join("root.sock"), fs::Permissions::from_mode(0o600)).unwrap();
        Stage { dir, listener: TcpListener::bind("127.0.0.1:0").unwrap(), _socket }
    }

    /// What the process that tries says, and how it ended.
    fn tries(&self, kind: &str, deadly: i64) -> (String, std::process::ExitStatus) {
        let port = self.listener.local_addr().unwrap().port();
        let told = format!("{kind},{},{},{port},{deadly}", self.dir.display(), std::process::id());
        let done = Command::new(std::env::current_exe().unwrap())
            .env("TUSSOCK_TRIES", told)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        (said.into_owned(), done.status)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn the_kernel_refuses_what_the_page_says() {
    let stage = Stage::new("refusals");
    let all = ["control", "gateway", "lane", "secure"].map(|kind| {
        let (said, status) = stage.tries(kind, -1);
        assert!(status.success(), "{kind}: {status}\n{said}");
        said
    });
    if let Some(note) = all.iter().flat_map(|said| said.lines()).find_map(|line| line.strip_prefix("note ")) {
        eprintln!("SKIPPED: {note}");
        return;
    }
    let answers = |said: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix("answer "));
        lines.map(|line| line.rsplit_once('=').unwrap().1.to_owned()).collect()
    };
    let [control, gateway, lane, secure] = all.map(|said| answers(&said));
    let mut table =
        String::from("| | `tussock-gateway` | its lanes | `tussock-secure` |\n|---|---|---|---|\n");
    for (n, (what, _)) in TRIALS.iter().enumerate() {
        // `io_uring` may be off altogether.
        let ours = what.contains("io_uring") || !["EPERM", "EACCES", "ENOSYS"].contains(&&*control[n]);
        assert!(ours, "{what}: {} without any of it, too", control[n]);
        table += &format!("| {what} | {} | {} | {} |\n", gateway[n], lane[n], secure[n]);
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/privsep.md");
    assert!(
        fs::read_to_string(page).unwrap().contains(&table),
        "docs/privsep.md does not have this table:\n{table}"
    );
}

fn what_nobody_of_ours_asks_for_ends_the_process() {
    let stage = Stage::new("deadly");
    for (name, number) in DEADLY {
        let (said, status) = stage.tries("control", *number);
        assert!(status.success() && said.contains("survived"), "{name} without a sandbox: {status}\n{said}");
        for kind in KINDS {
            let (said, status) = stage.tries(kind, *number);
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{name} in {kind}: {status}\n{said}");
        }
    }
}
