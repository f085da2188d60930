//! Whoever is ended while somebody types a password or a PIN leaves a terminal that shows what is typed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::pair::Pair;
use crate::{SECRET, can, tool};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A terminal with a program at it.
struct Desk {
    keyboard: OwnedFd,
    screen: File,
    program: Child,
}

impl Desk {
    /// The program has the terminal for its own.
    fn with(mut command: Command) -> Desk {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let mut open = OpenOptions::new();
        let screen = open.read(true).write(true).open(name).unwrap();
        let [input, output, errors] = [(); 3].map(|()| Stdio::from(screen.try_clone().unwrap()));
        let program = command.stdin(input).stdout(output).stderr(errors).spawn().unwrap();
        Desk { keyboard, screen, program }
    }

    fn shows(&self) -> bool {
        tcgetattr(&self.screen).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn until_asked(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.shows() {
            assert!(self.program.try_wait().unwrap().is_none(), "it ended without asking");
            assert!(Instant::now() < until, "nothing is asked");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn presses(&self, key: u8) {
        File::from(self.keyboard.try_clone().unwrap()).write_all(&[key]).unwrap();
    }

    fn is_told(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }

    fn ends(mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.program.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(self.shows(), "{status}: nothing is shown of what is typed");
    }
}

/// With a terminal of its own, which is its standard input.
fn at_a_terminal(program: &str) -> Command {
    let mut command = Command::new("setsid");
    command.args(["--ctty", program]);
    command
}

/// Ended by Ctrl-C, and by a signal from outside.
fn both(make: impl Fn() -> Command) {
    let mut desk = Desk::with(make());
    assert!(desk.shows(), "before");
    desk.until_asked();
    desk.presses(3);
    desk.ends();
    for signal in [Signal::TERM, Signal::INT] {
        let mut desk = Desk::with(make());
        desk.until_asked();
        desk.is_told(signal);
        desk.ends();
    }
}

#[test]
fn after_a_password_for_eap() {
    both(|| {
        let mut command = at_a_terminal(env!("CARGO_BIN_EXE_tussock"));
        command.args(["credentials", "site", "--socket", "/nonexistent/control.sock"]);
        command
    });
}

#[test]
fn after_a_password_for_a_file() {
    let dir = std::env::temp_dir().join(format!("tussock-echo-{}", std::process::id()));
    let ca = dir.join("pki");
    let pki = |arguments: &[&str]| {
        let mut command = at_a_terminal(env!("CARGO_BIN_EXE_tussock"));
        command.arg("pki").args(arguments).arg("--dir").arg(&ca);
        command
    };
    fs::create_dir_all(&dir).unwrap();
    let tussock = env!("CARGO_BIN_EXE_tussock");
    let folder = ca.to_str().unwrap();
    tool(tussock, &["pki", "init", "--dir", folder]);
    tool(tussock, &["pki", "issue", "moon.lab.test", "--dir", folder]);
    let out = dir.join("moon.p12");
    both(|| pki(&["export", "moon.lab.test", "--out", out.to_str().unwrap()]));
    assert!(!out.exists());
    fs::remove_dir_all(dir).unwrap();
}

/// A token that the key side's user may use.
fn token(dir: &Path) {
    let tokens = dir.join("tokens");
    fs::create_dir_all(&tokens).unwrap();
    let file = dir.join("softhsm.conf");
    fs::write(&file, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    let arguments = ["--init-token", "--free", "--label", "lab", "--pin", "1234", "--so-pin", "1234"];
    let done = Command::new("softhsm2-util").args(arguments).env("SOFTHSM2_CONF", &file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    tool("chmod", &["-R", "a+rwX", tokens.to_str().unwrap()]);
}

#[test]
fn after_the_pin_of_a_token() {
    if !can("a gateway with a token") {
        return;
    }
    if !Path::new(SOFTHSM).exists() {
        eprintln!("SKIPPED: there is no SoftHSM here (Debian's softhsm2)");
        return;
    }
    let pair = Pair::new("echo");
    let dir = pair.place("moon", "token");
    fs::create_dir_all(&dir).unwrap();
    token(&dir);
    let conf = dir.join("softhsm.conf");
    both(|| {
        let mut command = at_a_terminal(env!("CARGO_BIN_EXE_tussock"));
        command.args([
            "pki",
            "token",
            "list",
            "--module",
            SOFTHSM,
            "--token",
            "pkcs11:token=lab",
            "--pin-prompt",
        ]);
        command.env("SOFTHSM2_CONF", &conf);
        command
    });

    // It is the key side that asks, and the supervisor that is told to end.
    let auth = "method = \"pubkey\", key = \"pkcs11:token=lab;object=moon\"";
    let accel = format!(
        "[accel.hsm]\ndriver = \"pkcs11\"\nmodule = \"{SOFTHSM}\"\ntoken = \"pkcs11:token=lab\"\npin_prompt = true\n"
    );
    let psk = format!("[[psk]]\nids = [\"moon.lab.test\", \"sun.lab.test\"]\nsecret = \"{}\"\n", SECRET);
    let file = pair.configure("moon", 1, 2, (auth, "method = \"psk\""), &format!("{psk}{accel}"));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let [space, _] = pair.hosts();
    let mut command = at_a_terminal("ip");
    command.args(["netns", "exec", &space, env!("CARGO_BIN_EXE_tussock"), "run", "--config"]).arg(&file);
    command.env("SOFTHSM2_CONF", &conf);
    let mut desk = Desk::with(command);
    desk.until_asked();
    desk.is_told(Signal::TERM);
    desk.ends();
}
