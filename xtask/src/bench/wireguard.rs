//! WireGuard in user space: wireguard-go and boringtun. Both are told by `wg`, over a socket in their own `/run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::Setup;
use super::contest::Carrier;
use crate::aside::Aside;
use crate::checkout;
use crate::peer::host_dir;
use crate::process::{self, Daemon};
use crate::tools;
use crate::world::{MOON, MOON_INSIDE, MOON_NET, SUN, SUN_INSIDE, SUN_NET};

/// Where wireguard-go is looked for, the newest first. Before the release of December 2023 it had no segmentation offload.
const SUITES: [Aside; 3] = [aside("sid"), aside("trixie"), aside("bookworm")];

const fn aside(suite: &'static str) -> Aside {
    Aside { name: "wireguard-go", suite, packages: &["wireguard-go"] }
}

/// The crate.
const BORINGTUN: &str = "boringtun-cli";

const DEVICE: &str = "wg0";
const PORT: u16 = 51820;

/// Make sure that wireguard-go is there; what it is.
pub fn need_wireguard_go() -> Result<String> {
    let (found, _) = wireguard_go()?;
    Ok(format!("wireguard-go {} (Debian {})", found.version("wireguard-go"), found.suite))
}

/// Make sure that boringtun is there; what it is.
pub fn need_boringtun() -> Result<String> {
    tools::need(BORINGTUN)?;
    let said = process::run(Command::new(boringtun()).arg("--version"))?;
    Ok(format!("boringtun {}", said.split_whitespace().last().unwrap_or("?")))
}

fn wireguard_go() -> Result<(Aside, PathBuf)> {
    let mut why = Vec::new();
    for suite in SUITES {
        let binary = suite.root().join("usr/bin/wireguard-go");
        match suite.need() {
            Ok(()) if binary.exists() => return Ok((suite, binary)),
            Ok(()) => why.push(format!("{}: no binary in the package", suite.suite)),
            Err(error) => why.push(format!("{error:#}")),
        }
    }
    bail!("wireguard-go cannot be had: {}", why.join("; "))
}

fn boringtun() -> PathBuf {
    checkout::tools().join("bin").join(BORINGTUN)
}

/// A pair.
pub struct WireGuard {
    moon: Daemon,
    sun: Daemon,
}

impl WireGuard {
    /// Both started and configured.
    pub fn start(setup: &Setup, go: bool) -> Result<WireGuard> {
        let keys = [Keys::make()?, Keys::make()?];
        let moon = end(setup, go, ("moon", MOON_INSIDE, &keys[0]), (SUN, SUN_NET, &keys[1]))?;
        let sun = end(setup, go, ("sun", SUN_INSIDE, &keys[1]), (MOON, MOON_NET, &keys[0]))?;
        Ok(WireGuard { moon, sun })
    }
}

impl Carrier for WireGuard {
    fn pids(&self) -> Result<[u32; 2]> {
        Ok([self.moon.pid(), self.sun.pid()])
    }

    fn stop(&mut self) -> Result<()> {
        for daemon in [&mut self.moon, &mut self.sun] {
            daemon.stop(Signal::TERM, Duration::from_secs(3))?;
        }
        Ok(())
    }
}

struct Keys {
    private: String,
    public: String,
}

impl Keys {
    fn make() -> Result<Keys> {
        let private = process::run(Command::new("wg").arg("genkey"))?.trim().to_owned();
        let public = process::feed(Command::new("wg").arg("pubkey"), &private)?.trim().to_owned();
        Ok(Keys { private, public })
    }
}

/// One end: the daemon with a `/run` of its own, its keys, its addresses.
fn end(setup: &Setup, go: bool, own: (&str, &str, &Keys), peer: (&str, &str, &Keys)) -> Result<Daemon> {
    const RUN: &str = r#"set -e
        mount --bind "$1" /run
        mkdir -p /run/wireguard
        shift
        exec "$@"
    "#;
    let (host, inside, keys) = own;
    let dir = host_dir(&setup.results, host)?;
    let run = setup.world.state(host)?;
    let mut command = setup.world.on(host, "sh");
    command.args(["-c", RUN, "sh"]).arg(&run);
    if go {
        command.args(loaded(&wireguard_go()?)).args(["-f", DEVICE]).env("LOG_LEVEL", "error");
    } else {
        // Its only privilege is to be here; it would look for who called sudo.
        command.arg(boringtun()).args(["--foreground", "--disable-drop-privileges", DEVICE]);
    }
    let mut daemon = Daemon::start(&mut command, &dir.join("wireguard.log"))?;
    let socket = run.join(format!("wireguard/{DEVICE}.sock"));
    let ready =
        process::until(Duration::from_secs(5), || Ok((daemon.has_ended() || socket.exists()).then_some(())))?;
    if ready.is_none() || daemon.has_ended() {
        bail!("WireGuard does not start on {host}:\n{}", process::tail(daemon.log(), 10));
    }
    let (address, network, peer) = peer;
    let file = dir.join("wg.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n\
         [Peer]\nPublicKey = {}\nEndpoint = {address}:{PORT}\nAllowedIPs = {network}\n",
        keys.private, peer.public
    );
    fs::write(&file, text)?;
    let mut tell = Command::new("nsenter");
    tell.args(["--mount", "--net", "--target", &daemon.pid().to_string(), "wg", "setconf", DEVICE])
        .arg(&file);
    process::run(&mut tell).context("wg")?;
    setup.world.net.ip(
        host,
        &format!("link set {DEVICE} up mtu 1420\nroute add {network} dev {DEVICE} src {inside}\n"),
    )?;
    Ok(daemon)
}

/// A program of another suite with that suite's C library, where it wants one.
fn loaded((suite, binary): &(Aside, PathBuf)) -> Vec<PathBuf> {
    let root = suite.root();
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    let library = root.join("usr/lib/x86_64-linux-gnu");
    if !is_dynamic(binary) || !loader.exists() {
        return vec![binary.clone()];
    }
    vec![loader, "--library-path".into(), library, binary.clone()]
}

/// Whether a program names an interpreter (ELF segment PT_INTERP): its path then stands near the beginning.
fn is_dynamic(binary: &Path) -> bool {
    let bytes = fs::read(binary).unwrap_or_default();
    let front = bytes.get(..4096).unwrap_or(&bytes);
    front.windows(9).any(|window| window == b"ld-linux-")
}
