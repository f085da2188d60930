//! strongSwan as a peer: its two configuration files, its daemon in a namespace, its tool to drive it.
//!
//! Tricks the lab depends on:
//!
//! 1. `kernel-libipsec` stands before `kernel-netlink` in the plugin list. The first that offers kernel IPsec wins,
//!    and the kernel need not know ESP at all; the second is still wanted for addresses and routes.
//! 2. The path of charon's pid file is compiled in, so every charon gets its own `/run` by a bind mount in the
//!    mount namespace that `ip netns exec` makes anyway.
//! 3. The control socket is a plain file, so swanctl runs outside, with the host's swanctl for either release.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::peer::{ChildSa, IkeSa, Peer, host_dir};
use crate::pki::Pki;
use crate::process::{self, Daemon};
use crate::swanctl;
use crate::trixie;
use crate::tunnel::{Auth, CHILD, Encap, End, FirstChild, Lease, REALM, Start};
use crate::world::World;

/// Which of Debian's strongSwans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// The one of this Debian (12: 5.9.8), installed on this machine. Its user-space ESP is always in UDP.
    Host,
    /// Debian 13's (6.0.1), unpacked into the cache. It can do raw ESP.
    Trixie,
}

impl From<Encap> for Release {
    /// The one that can send ESP that way.
    fn from(encap: Encap) -> Release {
        if encap == Encap::Raw { Release::Trixie } else { Release::Host }
    }
}

impl Release {
    /// The version, as the daemon tells it.
    pub fn version(self) -> String {
        let mut ask = match self {
            Release::Host => Command::new(CHARON),
            Release::Trixie => {
                let mut ask = Command::new("chroot");
                ask.arg(trixie::root()).arg(CHARON);
                ask
            }
        };
        let answer = process::run(ask.arg("--version")).unwrap_or_default();
        answer.split_whitespace().last().unwrap_or("?").to_owned()
    }
}

/// Where Debian puts the daemon, in either release.
const CHARON: &str = "/usr/lib/ipsec/charon";

/// How long swanctl may wait for a negotiation, in seconds.
const NEGOTIATION: &str = "12";

/// One charon on one lab host.
pub struct StrongSwan<'w> {
    world: &'w World,
    end: End,
    release: Release,
    /// Its configuration and log, kept after the run.
    dir: PathBuf,
    /// Its `/run`, with the control socket.
    run: PathBuf,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl<'w> StrongSwan<'w> {
    /// Write its configuration below `results`; it is not started yet.
    pub fn new(world: &'w World, end: End, release: Release, results: &Path) -> Result<StrongSwan<'w>> {
        let dir = host_dir(results, end.host)?;
        let run = world.state(end.host)?;
        let log = dir.join("charon.log");
        // In the chroot the folder of the host is bound to /lab.
        let seen = match release {
            Release::Host => dir.clone(),
            Release::Trixie => PathBuf::from("/lab"),
        };
        fs::write(dir.join("strongswan.conf"), strongswan_conf(&end, &seen))?;
        credentials(&end, &dir)?;
        fs::write(dir.join("swanctl/swanctl.conf"), swanctl_conf(&end))?;
        Ok(StrongSwan { world, end, release, dir, run, log, daemon: None })
    }

    /// More of strongswan.conf; what is said later counts.
    pub fn configure(&self, more: &str) -> Result<()> {
        append(&self.dir.join("strongswan.conf"), more)
    }

    /// Have it fetch what certificates name by HTTP.
    pub fn fetches(&self) -> Result<()> {
        let file = self.dir.join("strongswan.conf");
        let text = fs::read_to_string(&file)?;
        Ok(fs::write(&file, text.replacen(" x509 revocation ", " x509 revocation curl ", 1))?)
    }

    /// Have it fetch nothing.
    pub fn fetches_nothing(&self) -> Result<()> {
        let file = self.dir.join("strongswan.conf");
        let text = fs::read_to_string(&file)?;
        Ok(fs::write(&file, text.replacen(" curl ", " ", 1))?)
    }

    /// More of swanctl.conf.
    pub fn append(&self, more: &str) -> Result<()> {
        append(&self.dir.join("swanctl/swanctl.conf"), more)
    }

    /// Change swanctl.conf before the daemon starts, or before [`StrongSwan::load`].
    pub fn rewrite(&self, change: impl Fn(&str) -> String) -> Result<()> {
        let file = self.dir.join("swanctl/swanctl.conf");
        Ok(fs::write(&file, change(&fs::read_to_string(&file)?))?)
    }

    /// Have it read swanctl.conf, and the keys and certificates beside it; what it read before is forgotten.
    pub fn load(&self) -> Result<()> {
        let file = self.dir.join("swanctl/swanctl.conf");
        let file = file.to_str().context("the checkout's path is not UTF-8")?;
        self.order(&["--load-all", "--clear", "--noprompt", "--file", file])
    }

    /// How many IKE SAs it has.
    pub fn ike_sas(&self) -> Result<u64> {
        let text = self.swanctl(&["--stats"])?.stdout;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("IKE_SAs:"));
        let count = line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok());
        count.with_context(|| format!("`swanctl --stats` says {text}"))
    }

    /// charon in its namespaces.
    fn charon(&self) -> Command {
        /// $1 the host's /run, $2 its folder, $3 where the daemon's tree begins ("" for this machine's own).
        const MOUNTS: &str = r#"set -e
            if [ -n "$3" ]; then
                mount -t proc proc "$3/proc"
                mount --rbind /dev "$3/dev"
                mkdir -p "$3/lab"
                mount --bind "$2" "$3/lab"
                mount --bind "$1" "$3/run"
                export STRONGSWAN_CONF=/lab/strongswan.conf
                exec chroot "$3" "$4"
            fi
            mount --bind "$1" /run
            export STRONGSWAN_CONF="$2/strongswan.conf"
            exec "$4"
        "#;
        let mut command = self.world.on(self.end.host, "sh");
        command.args(["-c", MOUNTS, "sh"]).arg(&self.run).arg(&self.dir);
        match self.release {
            Release::Host => command.arg(""),
            Release::Trixie => command.arg(trixie::root()),
        };
        command.arg(CHARON).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("charon.vici")
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<process::Finished> {
        let mut command = Command::new("swanctl");
        command.args(arguments).arg("--uri").arg(format!("unix://{}", self.socket().display()));
        command.env("STRONGSWAN_CONF", self.dir.join("strongswan.conf"));
        process::finish(&mut command, Duration::from_secs(30))
    }

    /// swanctl, and an error with its last words if it was refused.
    fn order(&self, arguments: &[&str]) -> Result<()> {
        let done = self.swanctl(arguments)?;
        if done.status.success() {
            return Ok(());
        }
        let text = done.text();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        bail!("strongSwan refused `swanctl {}`: {}", arguments.join(" "), last.join("; "))
    }
}

impl Peer for StrongSwan<'_> {
    fn maker(&self) -> String {
        format!("strongSwan on {}", self.end.host)
    }

    fn start(&mut self) -> Result<()> {
        fs::remove_file(self.socket()).ok();
        let mut daemon = Daemon::start(&mut self.charon(), &self.dir.join("charon.out"))?;
        let ready = process::until(Duration::from_secs(10), || {
            // The socket is there a moment before anybody listens on it.
            let answers = self.socket().exists() && self.swanctl(&["--stats"])?.status.success();
            Ok((daemon.has_ended() || answers).then_some(()))
        })?;
        if ready.is_none() || daemon.has_ended() {
            bail!(
                "charon does not start:\n{}{}",
                process::tail(daemon.log(), 10),
                process::tail(&self.log, 10)
            );
        }
        self.daemon = Some(daemon);
        self.load()
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if !daemon.stop(Signal::TERM, Duration::from_secs(8))? {
            bail!("charon did not end on SIGTERM");
        }
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    fn up(&self) -> Result<()> {
        self.order(&["--initiate", "--ike", REALM, "--child", CHILD, "--timeout", NEGOTIATION])
    }

    fn down(&self) -> Result<()> {
        self.order(&["--terminate", "--ike", REALM, "--timeout", NEGOTIATION])
    }

    fn rekey_child(&self) -> Result<()> {
        self.order(&["--rekey", "--child", CHILD])
    }

    fn rekey_ike(&self) -> Result<()> {
        self.order(&["--rekey", "--ike", REALM])
    }

    fn sas(&self) -> Result<Vec<IkeSa>> {
        let done = self.swanctl(&["--list-sas", "--pretty"])?;
        if !done.status.success() {
            bail!("strongSwan does not list its SAs: {}", done.text().trim());
        }
        Ok(swanctl::parse(&done.stdout)
            .children
            .iter()
            .flat_map(|event| &event.children)
            .map(ike_sa)
            .collect())
    }

    fn shown_sas(&self) -> Result<String> {
        Ok(self.swanctl(&["--list-sas"])?.stdout)
    }

    fn leave(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.leave();
        }
    }

    fn log(&self) -> &Path {
        &self.log
    }
}

fn append(file: &Path, more: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    Ok(fs::write(file, format!("{text}\n{more}"))?)
}

fn ike_sa(section: &swanctl::Section) -> IkeSa {
    let children = section.children.iter().find(|inner| inner.name == "child-sas");
    let children = children.map(|all| all.children.iter().map(child_sa).collect()).unwrap_or_default();
    IkeSa {
        spis: (section.value("initiator-spi").to_owned(), section.value("responder-spi").to_owned()),
        established: section.value("state") == "ESTABLISHED",
        children,
    }
}

fn child_sa(section: &swanctl::Section) -> ChildSa {
    ChildSa {
        spis: (section.value("spi-in").to_owned(), section.value("spi-out").to_owned()),
        installed: section.value("state") == "INSTALLED",
        beside: false,
    }
}

/// The daemon's own configuration. `dir` is its folder as the daemon sees it.
fn strongswan_conf(end: &End, dir: &Path) -> String {
    const PLUGINS: &str = "random nonce openssl gmp curve25519 aes sha1 sha2 hmac cmac xcbc kdf drbg ccm ctr gcm \
        chapoly mgf1 pem pkcs1 pkcs8 x509 revocation constraints pubkey kernel-libipsec kernel-netlink \
        socket-default vici counters error-notify eap-identity eap-mschapv2 eap-tls eap-ttls eap-md5 eap-gtc";
    let raw = if end.encap == Encap::Raw { "yes" } else { "no" };
    let fragments = end.fragment_size.map(|size| format!("fragment_size = {size}")).unwrap_or_default();
    format!(
        "charon {{
  load = {PLUGINS}
  retransmit_tries = 3
  retransmit_timeout = 1.0
  {fragments}
  filelog {{
    lab {{
      path = {dir}/charon.log
      flush_line = yes
      time_format = %H:%M:%S
      time_precision = ms
      default = 1
      ike = 2
      cfg = 2
    }}
  }}
  syslog {{
    daemon {{ default = -1 }}
    auth {{ default = -1 }}
  }}
  plugins {{
    kernel-libipsec {{ raw_esp = {raw} }}
    vici {{ socket = unix:///run/charon.vici }}
  }}
}}
swanctl {{
  load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey
}}
",
        dir = dir.display()
    )
}

/// The connection, its child and its secret.
fn swanctl_conf(end: &End) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    say(&format!("connections {{\n  {REALM} {{\n    version = 2\n    mobike = no"));
    say(&format!("    proposals = {}", end.ike));
    if let Some(address) = end.address {
        say(&format!("    local_addrs = {address}"));
    }
    if let Some(address) = end.peer_address {
        say(&format!("    remote_addrs = {address}"));
    }
    if end.encap == Encap::Udp {
        say("    encap = yes");
    }
    if end.first_child == FirstChild::Later {
        say("    childless = force");
    }
    match end.lease {
        Lease::None => {}
        Lease::Request => say("    vips = 0.0.0.0"),
        Lease::Pool(_) => say("    pools = addresses"),
    }
    say(&format!("    local {{\n{}      id = {}\n    }}", proof(end.auth, Some(end.host)), end.id));
    say(&format!("    remote {{\n{}      id = {}\n    }}", proof(end.peer_auth, None), end.peer_id));
    say(&format!("    children {{\n      {CHILD} {{\n        esp_proposals = {}", end.esp));
    if !end.local.is_empty() {
        say(&format!("        local_ts = {}", end.local.join(", ")));
    }
    if !end.remote.is_empty() {
        say(&format!("        remote_ts = {}", end.remote.join(", ")));
    }
    if end.start == Start::Traffic {
        say("        start_action = trap");
    }
    say("      }\n    }\n  }\n}");
    if let Lease::Pool(prefix) = end.lease {
        say(&format!("pools {{\n  addresses {{\n    addrs = {prefix}\n  }}\n}}"));
    }
    if end.auth == Auth::Psk || end.peer_auth == Auth::Psk {
        let mut secret = String::new();
        write!(secret, "id-1 = {}\n    id-2 = {}\n    secret = \"{}\"", end.id, end.peer_id, end.secret).ok();
        say(&format!("secrets {{\n  ike-1 {{\n    {secret}\n  }}\n}}"));
    }
    text
}

fn proof(auth: Auth, holder: Option<&str>) -> String {
    match (auth, holder) {
        (Auth::Psk, _) => "      auth = psk\n".to_owned(),
        (Auth::Cert(_), Some(host)) => format!("      auth = pubkey\n      certs = {host}.crt\n"),
        (Auth::Cert(_), None) => "      auth = pubkey\n".to_owned(),
    }
}

/// Copy keys and certificates to where swanctl looks for them.
fn credentials(end: &End, dir: &Path) -> Result<()> {
    let place = |folder: &str, file: &Path| -> Result<()> {
        let folder = dir.join("swanctl").join(folder);
        fs::create_dir_all(&folder)?;
        let name = file.file_name().context("a credential without a name")?;
        fs::copy(file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    };
    fs::create_dir_all(dir.join("swanctl"))?;
    if let Auth::Cert(kind) = end.auth {
        let pki = Pki::of(kind)?;
        place("x509", &pki.cert(end.host))?;
        place("private", &pki.key(end.host))?;
    }
    if let Auth::Cert(kind) = end.peer_auth {
        place("x509ca", &Pki::of(kind)?.ca())?;
    }
    Ok(())
}
