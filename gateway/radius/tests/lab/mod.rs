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
    let folder = folder.display();
    let listen = match &set.tls {
        None => format!(
            "listen {{\n type = auth\n ipaddr = 127.0.0.1\n port = {access}\n}}\n\
             listen {{\n type = acct\n ipaddr = 127.0.0.1\n port = {accounting}\n}}\n"
        ),
        Some([ca, certificate, key]) => format!(
            "listen {{\n type = auth+acct\n proto = tcp\n ipaddr = 127.0.0.1\n port = {access}\n clients = radsec\n\
             tls {{\n ca_file = {}\n certificate_file = {}\n private_key_file = {}\n require_client_cert = yes\n\
             tls_min_version = \"1.2\"\n tls_max_version = \"1.2\"\n}}\n}}\n",
            ca.display(),
            certificate.display(),
            key.display()
        ),
    };
    let clients = match set.tls {
        None => format!(
            "client lab {{\n ipaddr = 127.0.0.1\n secret = {SECRET}\n require_message_authenticator = yes\n}}\n"
        ),
        Some(_) => {
            "clients radsec {\n client lab {\n ipaddr = 127.0.0.1\n proto = tls\n secret = radsec\n}\n}\n"
                .into()
        }
    };
    format!(
        r#"
prefix = /usr
name = radiusd
confdir = {folder}
raddbdir = {folder}
logdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
pidfile = {folder}/pid
max_request_time = 30
cleanup_delay = 5
max_requests = 16384
log {{ destination = stdout }}
security {{ status_server = yes }}
thread pool {{
 start_servers = 4
 max_servers = 8
 min_spare_servers = 1
 max_spare_servers = 4
}}
modules {{
 eap {{
  default_eap_type = mschapv2
  timer_expire = 60
  max_sessions = 16384
  md5 {{
  }}
  mschapv2 {{
  }}
 }}
 mschap {{
 }}
 pap {{
 }}
 files {{
  filename = {folder}/users
 }}
 detail {{
  filename = {folder}/detail
  permissions = 0600
 }}
 always ok {{
  rcode = ok
 }}
}}
{clients}
server default {{
 {listen}
 authorize {{
  files
  eap {{
   ok = return
  }}
  pap
 }}
 authenticate {{
  Auth-Type MS-CHAP {{
   mschap
  }}
  mschap
  pap
  eap
 }}
 preacct {{
  ok
 }}
 accounting {{
  detail
 }}
 post-auth {{
  Post-Auth-Type REJECT {{
   eap
  }}
 }}
}}
"#
    )
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
