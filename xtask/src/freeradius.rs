//! FreeRADIUS in a namespace: Debian's program with a configuration of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::pki::Pki;
use crate::process::{self, Daemon};
use crate::tunnel::KeyType;
use crate::world::World;

/// What it shares with the gateway.
pub const SECRET: &str = "radius-secret-of-the-lab";
const PATIENCE: Duration = Duration::from_secs(30);

/// How it is spoken to.
#[derive(Clone, Copy)]
enum Speaks {
    Udp,
    /// With this host's certificate.
    Tls(&'static str),
}

/// A server that runs.
pub struct FreeRadius<'w> {
    world: &'w World,
    host: &'static str,
    dir: PathBuf,
    daemon: Daemon,
}

impl<'w> FreeRadius<'w> {
    /// Starts one at that host and address, with these lines for its file of users. EAP-TLS and EAP-TTLS have moon's
    /// certificate.
    pub fn start(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
    ) -> Result<FreeRadius<'w>> {
        FreeRadius::begin(world, results, (host, address), users, (Speaks::Udp, &["-xx"]))
    }

    /// The same over TLS alone (RFC 6614), with that host's certificate.
    pub fn start_radsec(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
        who: &'static str,
    ) -> Result<FreeRadius<'w>> {
        FreeRadius::begin(world, results, (host, address), users, (Speaks::Tls(who), &["-xx"]))
    }

    /// The same, and it writes no line for each packet.
    pub fn start_quiet(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
    ) -> Result<FreeRadius<'w>> {
        FreeRadius::begin(world, results, (host, address), users, (Speaks::Udp, &[]))
    }

    fn begin(
        world: &'w World,
        results: &Path,
        (host, address): (&'static str, &str),
        users: &str,
        (speaks, more): (Speaks, &[&str]),
    ) -> Result<FreeRadius<'w>> {
        let dir = results.join(format!("freeradius-{}", address.replace([':', '.'], "-")));
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        fs::write(dir.join("users"), users)?;
        fs::write(dir.join("dictionary"), "$INCLUDE /usr/share/freeradius/dictionary\n")?;
        fs::write(dir.join("radiusd.conf"), configuration(&dir, address, speaks)?)?;
        let mut command = world.net.command(host, "/usr/sbin/freeradius");
        command.args(["-f", "-l", "stdout"]).args(more).arg("-d").arg(&dir);
        let log = dir.join("log");
        fs::remove_file(&log).ok();
        let mut daemon = Daemon::start(&mut command, &log)?;
        let ready = process::until(PATIENCE, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if daemon.has_ended() {
                bail!("FreeRADIUS does not start: {}", process::tail(&log, 10));
            }
            Ok(text.contains("Ready to process requests").then_some(()))
        })?;
        ready.context("FreeRADIUS does not become ready")?;
        Ok(FreeRadius { world, host, dir, daemon })
    }

    /// Its records, each as lines `Name = value`.
    pub fn records(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("detail")).unwrap_or_default();
        text.split("\n\n").map(str::trim).filter(|record| !record.is_empty()).map(str::to_owned).collect()
    }

    /// Waits for a record in which all of these lines stand.
    pub fn await_record(&self, lines: &[&str]) -> Result<String> {
        let found = process::until(Duration::from_secs(15), || {
            Ok(self.records().into_iter().find(|record| lines.iter().all(|line| record.contains(line))))
        })?;
        found.with_context(|| format!("no record with {lines:?}; there are\n{}", self.records().join("\n\n")))
    }

    /// Sends a Disconnect- or CoA-Request from its host; what `radclient` says.
    pub fn order(&self, to: &str, kind: &str, attributes: &str) -> Result<String> {
        let mut command = self.world.net.command(self.host, "radclient");
        command.args(["-x", "-r", "2", "-t", "5", to, kind, SECRET]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let input = format!("Event-Timestamp = {now}\nMessage-Authenticator = 0x00\n{attributes}\n");
        // It ends with an error when the answer is no; the answer is what counts.
        let file = self.dir.join("order");
        fs::write(&file, input)?;
        let done = process::finish(command.arg("-f").arg(&file), PATIENCE)?;
        Ok(done.text())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.daemon.kill();
    }
}

fn configuration(dir: &Path, address: &str, speaks: Speaks) -> Result<String> {
    let pki = Pki::of(KeyType::Rsa)?;
    let dir = dir.display().to_string();
    let files = |who: &str| [pki.ca(), pki.cert(who), pki.key(who)].map(|path| path.display().to_string());
    let [ca, cert, key] = files("moon");
    let tls = [("ca", ca.as_str()), ("cert", &cert), ("key", &key), ("version", "1.2")];
    let tls = fill(fill(TLS, &tls), &[("fragment", "1024"), ("inner", "mschapv2")]);
    let udp = |kind, port| fill(UDP, &[("type", kind), ("address", address), ("port", port)]);
    let (listen, clients) = match speaks {
        Speaks::Udp => (
            udp("auth", "1812") + &udp("acct", "1813"),
            format!(
                "client lab {{\n ipaddr = 0.0.0.0/0\n secret = {SECRET}\n require_message_authenticator = yes\n}}\n"
            ),
        ),
        Speaks::Tls(who) => {
            let [ca, cert, key] = files(who);
            let of = [("address", address), ("port", "2083"), ("ca", &ca), ("cert", &cert), ("key", &key)];
            let clients = "clients radsec {\n client lab {\n ipaddr = 0.0.0.0/0\n proto = tls\n secret = radsec\n}\n}\n";
            (fill(RADSEC, &of), clients.to_owned())
        }
    };
    let of = [
        ("folder", dir.as_str()),
        ("method", "mschapv2"),
        ("tls", &tls),
        ("listen", &listen),
        ("clients", &clients),
    ];
    Ok(fill(MAIN, &of))
}

// One configuration for all tests.
const MAIN: &str = include_str!("../../gateway/radius/tests/lab/radiusd.conf");
const TLS: &str = include_str!("../../gateway/radius/tests/lab/tls.conf");
const UDP: &str = include_str!("../../gateway/radius/tests/lab/udp.conf");
const RADSEC: &str = include_str!("../../gateway/radius/tests/lab/radsec.conf");

/// A text with what stands between two @ filled in.
fn fill(text: impl Into<String>, with: &[(&str, &str)]) -> String {
    with.iter().fold(text.into(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}
