//! FreeRADIUS from Debian, unprivileged, in a folder of its own with a configuration of ours.
#![allow(unreachable_pub, reason = "`pub` marks what is for the tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use spi::Secret;

pub const SECRET: &str = "testing123";
const PROGRAM: &str = "/usr/sbin/freeradius";
/// How long anything here may take on a machine that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether it is installed; says so loudly if not.
pub fn is_there(test: &str) -> bool {
    let there = Path::new(PROGRAM).exists() && Path::new("/usr/bin/radclient").exists();
    if !there {
        eprintln!("SKIPPED {test}: install freeradius and freeradius-utils");
    }
    there
}

/// A running server.
pub struct FreeRadius {
    pub folder: PathBuf,
    pub access: SocketAddr,
    pub accounting: SocketAddr,
    child: Child,
}

/// What a server is started with.
#[derive(Default)]
pub struct Set {
    /// Lines of the file `users`.
    pub users: String,
    /// Whether it speaks TLS only, with these: CA, certificate and key as files.
    pub tls: Option<[PathBuf; 3]>,
}

impl FreeRadius {
    pub fn start(name: &str, set: &Set) -> FreeRadius {
        let folder = std::env::temp_dir().join(format!("tussock-radius-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Somebody else may take a port between our asking and its binding; then others are tried.
        for _ in 0..5 {
            let ports = if set.tls.is_some() { [tcp_port(); 2] } else { [udp_port(), udp_port()] };
            if let Some(child) = try_start(&folder, set, ports) {
                let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
                return FreeRadius { folder, access: at(ports[0]), accounting: at(ports[1]), child };
            }
        }
        panic!("FreeRADIUS does not start in {}", folder.display());
    }

    /// As the client is told of it.
    pub fn server(&self, name: &str) -> radius::Server {
        radius::Server {
            name: name.into(),
            access: Some(self.access),
            accounting: Some(self.accounting),
            secret: Secret::from_slice(SECRET.as_bytes()),
            tls: None,
        }
    }

    /// What accounting wrote down: a record a paragraph.
    pub fn records(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("detail")).unwrap_or_default();
        text.split("\n\n").map(str::trim).filter(|record| !record.is_empty()).map(str::to_owned).collect()
    }

    /// Makes it stand still, or go on.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn try_start(folder: &Path, set: &Set, ports: [u16; 2]) -> Option<Child> {
    std::fs::write(folder.join("radiusd.conf"), configuration(folder, set, ports)).unwrap();
    std::fs::write(folder.join("users"), &set.users).unwrap();
    std::fs::write(folder.join("dictionary"), "$INCLUDE /usr/share/freeradius/dictionary\n").unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["-f", "-xx", "-l", "stdout", "-d"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (to, ready) = mpsc::channel();
    std::thread::spawn(move || {
        let mut log = log;
        for line in output.lines().map_while(Result::ok) {
            let _ = writeln!(log, "{line}");
            if line.contains("Ready to process requests") {
                let _ = to.send(());
            }
        }
    });
    if ready.recv_timeout(PATIENCE).is_ok() {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    eprintln!("{}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    None
}

fn configuration(folder: &Path, set: &Set, [access, accounting]: [u16; 2]) -> String {
    let (any, folder) = ("127.0.0.1", folder.display().to_string());
    let udp = |kind, port: u16| {
        fill(include_str!("udp.conf"), &[("type", kind), ("address", any), ("port", &port.to_string())])
    };
    let (listen, clients) = match &set.tls {
        None => (
            udp("auth", access) + &udp("acct", accounting),
            format!(
                "client lab {{\n ipaddr = {any}\n secret = {SECRET}\n require_message_authenticator = yes\n}}\n"
            ),
        ),
        Some(files) => {
            let [ca, cert, key] = files.each_ref().map(|file| file.display().to_string());
            let port = access.to_string();
            let of = [("address", any), ("port", &port), ("ca", &ca), ("cert", &cert), ("key", &key)];
            let clients = "clients radsec {\n client lab {\n ipaddr = 127.0.0.1\n proto = tls\n secret = radsec\n}\n}\n";
            (fill(include_str!("radsec.conf"), &of), clients.into())
        }
    };
    fill(
        include_str!("radiusd.conf"),
        &[
            ("folder", &folder),
            ("method", "mschapv2"),
            ("tls", ""),
            ("clients", &clients),
            ("listen", &listen),
        ],
    )
}

/// A text with what stands between two @ filled in.
fn fill(text: &str, with: &[(&str, &str)]) -> String {
    with.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

pub fn udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something is so.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `radclient`, once; what it printed.
pub fn radclient(to: SocketAddr, kind: &str, secret: &str, attributes: &str) -> String {
    let mut child = Command::new("/usr/bin/radclient")
        .args(["-x", "-r", "1", "-t", "10", &to.to_string(), kind, secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(attributes.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
