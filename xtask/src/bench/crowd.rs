//! Thousands of IKE peers on one host of the map: `tussock-bench load`, and how it is talked with.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Setup;
use crate::pki::Pki;
use crate::process;
use crate::tunnel::{Auth, KeyType};
use crate::world::{MOON, World};

/// The host they all are on.
pub const HOST: &str = "carol";
/// Their addresses outside.
pub const OUTSIDE: &str = "172.16.0.0/12";
/// Their networks inside, one address each.
pub const INSIDE: &str = "10.64.0.0/10";
/// Who they are, with a shared secret.
pub const IDS: &str = "*@load.lab.test";
/// That secret.
pub const SECRET: &str = "load-psk-0123456789abcdef";
/// The password of all of them, by EAP.
pub const PASSWORD: &str = "load-eap-0123456789abcdef";

/// How they prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Proof {
    /// By a shared secret, each with an identity of its own.
    Psk,
    /// All by one ECDSA P-256 certificate.
    Ecdsa,
    /// All by one RSA-3072 certificate.
    Rsa,
    /// Each a user of its own by EAP-MSCHAPv2; the gateway by an ECDSA P-256 certificate.
    #[value(skip)]
    Eap,
}

impl Proof {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Proof::Psk => "PSK",
            Proof::Ecdsa => "ECDSA P-256",
            Proof::Rsa => "RSA-3072",
            Proof::Eap => "EAP-MSCHAPv2",
        }
    }

    /// As the lab's ends have it.
    pub fn auth(self) -> Auth {
        match self {
            Proof::Psk => Auth::Psk,
            Proof::Ecdsa | Proof::Eap => Auth::Cert(KeyType::Ecdsa),
            Proof::Rsa => Auth::Cert(KeyType::Rsa),
        }
    }
}

/// What kind of peers.
#[derive(Clone, Debug)]
pub struct Kind {
    /// How they prove themselves.
    pub proof: Proof,
    /// Whether each IKE SA has a Child SA.
    pub child: bool,
    /// The gateway's control socket, as `tussock-bench` wants it, where the gateway begins.
    pub control: Option<String>,
    /// How many may be in the making at a time.
    pub window: u32,
    /// How often a request is sent again before a peer gives up; once a second.
    pub tries: u32,
}

impl Kind {
    /// Peers that begin, sixteen at a time.
    pub fn initiators(proof: Proof, child: bool) -> Kind {
        Kind { proof, child, control: None, window: 16, tries: 5 }
    }
}

/// The peers' host made ready: its addresses, and the gateway's way to them.
pub fn make_room(world: &World, gateway: &str) -> Result<()> {
    world.net.ip(HOST, &format!("route add local {OUTSIDE} dev lo\n"))?;
    world.net.ip(gateway, &format!("route replace {OUTSIDE} via 192.168.0.100\n"))?;
    // A certificate of three thousand bits needs no fragments on such a wire: what is measured is IKE.
    for (host, device) in [(HOST, "eth0"), (gateway, "eth0"), ("inet", "v-carol"), ("inet", "br0")] {
        world.net.ip(host, &format!("link set {device} mtu 9000\n"))?;
    }
    world.net.ip("inet", &format!("link set v-{gateway} mtu 9000\n"))
}

/// What came of bringing peers up.
#[derive(Clone, Debug)]
pub struct Came {
    /// Those that are up.
    pub up: u32,
    /// Why others are not.
    pub why: Option<String>,
    /// How long it took, seconds.
    pub seconds: f64,
    /// CPU seconds that playing the peers took.
    pub cpu: f64,
    /// Requests sent once more.
    pub again: u32,
}

/// The peers.
pub struct Crowd {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    log: std::path::PathBuf,
}

impl Crowd {
    /// There, and none of them up yet.
    pub fn start(setup: &Setup, kind: &Kind) -> Result<Crowd> {
        Crowd::on(&setup.world, &setup.bench, &setup.results, kind, None)
    }

    /// The same on any map. They expect this certificate of the gateway, or the lab's for moon.
    pub fn on(
        world: &World,
        bench: &Path,
        results: &Path,
        kind: &Kind,
        gateway: Option<&Path>,
    ) -> Result<Crowd> {
        let mut command = world.on(HOST, bench);
        command.args(["load", if kind.control.is_some() { "respond" } else { "initiate" }]);
        command.args(["--gateway", MOON, "--window", &kind.window.to_string()]);
        command.args(["--tries", &kind.tries.to_string()]);
        if let Some(control) = &kind.control {
            command.args(["--control", control]);
        }
        if !kind.child {
            command.arg("--childless");
        }
        if kind.proof == Proof::Eap {
            command.args(["--eap", PASSWORD, "--gateway-cert"]).arg(Pki::of(KeyType::Ecdsa)?.cert("moon"));
        }
        match kind.proof.auth() {
            _ if kind.proof == Proof::Eap => &mut command,
            Auth::Psk => command.args(["--secret", SECRET]),
            Auth::Cert(key) => {
                let pki = Pki::of(key)?;
                command.args(["--id", ID]).arg("--cert").arg(pki.cert(HOST));
                command.arg("--key").arg(pki.key(HOST)).arg("--gateway-cert");
                command.arg(gateway.map_or_else(|| pki.cert("moon"), Path::to_path_buf))
            }
        };
        let log = results.join("crowd.log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().context("tussock-bench does not start")?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        let (to, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Crowd { child, input, lines, log })
    }

    /// So many IKE SAs, within some time; an error if one of them does not come up.
    pub fn bring_to(&mut self, count: u32, limit: Duration) -> Result<Came> {
        let came = self.bring_towards(count, limit)?;
        if came.up < count {
            bail!("{} of {count} peers are up: {}", came.up, came.why.unwrap_or_default());
        }
        Ok(came)
    }

    /// So many IKE SAs, or as many as the gateway takes.
    pub fn bring_towards(&mut self, count: u32, limit: Duration) -> Result<Came> {
        self.want(count)?;
        self.await_end(limit)
    }

    /// Ask for so many, and come back later.
    pub fn want(&mut self, count: u32) -> Result<()> {
        writeln!(self.input, "{count}").and_then(|()| self.input.flush()).with_context(|| self.last_words())
    }

    /// Wait until nothing more is to be hoped for.
    pub fn await_end(&mut self, limit: Duration) -> Result<Came> {
        let Ok(line) = self.lines.recv_timeout(limit) else {
            bail!("the peers are not up within {} s: {}", limit.as_secs(), self.last_words());
        };
        let report: Value =
            serde_json::from_str(&line).with_context(|| format!("tussock-bench says {line}"))?;
        let number = |key: &str| report.get(key).and_then(Value::as_f64);
        let up = number("up").context("an odd report")? as u32;
        let (seconds, cpu) = number("seconds").zip(number("cpu_seconds")).context("an odd report")?;
        let why = report.get("why").and_then(Value::as_str).map(str::to_owned);
        let again = number("sent_again").unwrap_or_default() as u32;
        Ok(Came { up, why, seconds, cpu, again })
    }

    fn last_words(&self) -> String {
        process::tail(&self.log, 5)
    }
}

/// The one identity of peers with the one certificate.
pub const ID: &str = "carol@lab.test";

impl Drop for Crowd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
