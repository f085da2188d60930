//! OpenVPN between two sites: point to point over TUN, TLS with the lab's certificates, data in user space.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Setup;
use super::contest::{Carrier, Cipher};
use crate::peer::host_dir;
use crate::pki::{Pki, shown};
use crate::process::{self, Daemon};
use crate::tunnel::KeyType;
use crate::world::{MOON_NET, SUN, SUN_NET};

/// A pair.
pub struct OpenVpn {
    moon: Daemon,
    sun: Daemon,
}

/// What it is.
pub fn version() -> Result<String> {
    // It ends with code 1 after saying it.
    let said = process::finish(Command::new("openvpn").arg("--version"), Duration::from_secs(5))?.stdout;
    let version = said.split_whitespace().nth(1).context("openvpn does not say its version")?;
    Ok(format!("OpenVPN {version}"))
}

impl OpenVpn {
    /// Both started; the tunnel comes up by itself.
    pub fn start(setup: &Setup, cipher: Cipher) -> Result<OpenVpn> {
        let sun = end(
            setup,
            "sun",
            cipher,
            &format!("local {SUN}\ntls-server\nifconfig 10.8.0.2 10.8.0.1\n{}", route(MOON_NET)),
        )?;
        let moon = end(
            setup,
            "moon",
            cipher,
            &format!("remote {SUN}\nnobind\ntls-client\nifconfig 10.8.0.1 10.8.0.2\n{}", route(SUN_NET)),
        )?;
        Ok(OpenVpn { moon, sun })
    }
}

impl Carrier for OpenVpn {
    fn pids(&self) -> Result<[u32; 2]> {
        Ok([self.moon.pid(), self.sun.pid()])
    }

    fn stop(&mut self) -> Result<()> {
        for daemon in [&mut self.moon, &mut self.sun] {
            daemon.stop(Signal::TERM, Duration::from_secs(5))?;
        }
        Ok(())
    }
}

/// A network of /16, as OpenVPN writes it.
fn route(network: &str) -> String {
    format!("route {} 255.255.0.0\n", network.trim_end_matches("/16"))
}

fn end(setup: &Setup, host: &str, cipher: Cipher, own: &str) -> Result<Daemon> {
    let dir = host_dir(&setup.results, host)?;
    let pki = Pki::of(KeyType::Ecdsa)?;
    let cipher = match cipher {
        Cipher::Chacha20 => "CHACHA20-POLY1305",
        Cipher::Aes256gcm => "AES-256-GCM",
        _ => "AES-128-GCM",
    };
    let text = format!(
        "{own}dev tun0
dev-type tun
proto udp
port 1194
dh none
ca {}
cert {}
key {}
data-ciphers {cipher}
topology p2p
disable-dco
fast-io
verb 2
",
        shown(&pki.ca()),
        shown(&pki.cert(host)),
        shown(&pki.key(host)),
    );
    let file = dir.join("openvpn.conf");
    fs::write(&file, text)?;
    let mut command = setup.world.on(host, "openvpn");
    Daemon::start(command.arg("--config").arg(&file), &dir.join("openvpn.log"))
}
