//! Who carries traffic between moon and sun: we, and those we are compared with.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::Setup;
use super::openvpn::OpenVpn;
use super::wireguard::WireGuard;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_tunnel};
use crate::ping;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Encap, End};
use crate::tussock::{GATEWAY, Tussock};
use crate::world::{MOON_INSIDE, SUN_INSIDE};

/// Somebody else's product.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Versus {
    /// strongSwan with its ESP in user space (kernel-libipsec).
    Strongswan,
    /// wireguard-go, the newest that Debian has.
    WireguardGo,
    /// boringtun-cli, built from crates.io.
    Boringtun,
    /// OpenVPN without its kernel module.
    Openvpn,
}

/// What protects packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128gcm,
    /// AES-256-GCM.
    Aes256gcm,
    /// ChaCha20-Poly1305.
    Chacha20,
    /// AES-128-CBC with HMAC-SHA256.
    Aes128cbc,
}

impl Cipher {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes128gcm => "AES-128-GCM",
            Cipher::Aes256gcm => "AES-256-GCM",
            Cipher::Chacha20 => "ChaCha20-Poly1305",
            Cipher::Aes128cbc => "AES-128-CBC+SHA256",
        }
    }

    /// As ESP proposals write it.
    pub fn esp(self) -> &'static str {
        match self {
            Cipher::Aes128gcm => "aes128gcm16",
            Cipher::Aes256gcm => "aes256gcm16",
            Cipher::Chacha20 => "chacha20poly1305",
            Cipher::Aes128cbc => "aes128-sha256",
        }
    }
}

/// One product with one cipher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contestant {
    /// Whose; ours if nobody else's.
    pub product: Option<Versus>,
    /// What protects packets.
    pub cipher: Cipher,
    /// Ours, where it could do better: with AWS-LC alone.
    pub aws_lc: bool,
}

impl Contestant {
    /// A product as it is.
    pub fn new(product: Option<Versus>, cipher: Cipher) -> Contestant {
        Contestant { product, cipher, aws_lc: false }
    }

    /// Whether the product has the cipher.
    pub fn exists(self) -> bool {
        match self.product {
            None | Some(Versus::Strongswan) => true,
            Some(Versus::WireguardGo | Versus::Boringtun) => self.cipher == Cipher::Chacha20,
            Some(Versus::Openvpn) => self.cipher != Cipher::Aes128cbc,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.product {
            None if self.aws_lc => "tussock, aws-lc",
            None => "tussock",
            Some(Versus::Strongswan) => "strongSwan",
            Some(Versus::WireguardGo) => "wireguard-go",
            Some(Versus::Boringtun) => "boringtun",
            Some(Versus::Openvpn) => "OpenVPN",
        }
    }

    /// The map built anew, both ends started, and pings answered both ways.
    pub fn start<'s>(self, setup: &'s Setup) -> Result<Box<dyn Carrier + 's>> {
        setup.world.build_pair()?;
        let carrier: Box<dyn Carrier + 's> = match self.product {
            None => Box::new(Tussocks::start(setup, self)?),
            Some(Versus::Strongswan) => Box::new(StrongSwans::start(setup, self.cipher)?),
            Some(Versus::WireguardGo | Versus::Boringtun) => {
                Box::new(WireGuard::start(setup, self.product == Some(Versus::WireguardGo))?)
            }
            Some(Versus::Openvpn) => Box::new(OpenVpn::start(setup, self.cipher)?),
        };
        ping::until_answered(&setup.world, "moon", SUN_INSIDE, PATIENCE)
            .and_then(|()| ping::until_answered(&setup.world, "sun", MOON_INSIDE, PATIENCE))
            .with_context(|| {
                format!("{} carries nothing; its logs are in {}", self.name(), setup.results.display())
            })?;
        Ok(carrier)
    }
}

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Two gateways with a tunnel between them.
pub trait Carrier {
    /// The processes, moon's first.
    fn pids(&self) -> Result<[u32; 2]>;
    /// What each end has read from inside so far, moon first, where it tells.
    fn read(&self) -> Option<[Read; 2]> {
        None
    }
    /// End both.
    fn stop(&mut self) -> Result<()>;
}

/// The two ends' configurations.
pub fn ends(cipher: Cipher) -> [End; 2] {
    [SITES.moon(), SITES.far()].map(|end| End { esp: cipher.esp().to_owned(), encap: Encap::Udp, ..end })
}

/// Ours.
pub struct Tussocks<'s> {
    /// The sending one.
    pub moon: Tussock<'s>,
    /// The receiving one.
    pub sun: Tussock<'s>,
}

impl<'s> Tussocks<'s> {
    /// Configured, not started.
    pub fn new(setup: &'s Setup, cipher: Cipher) -> Result<Tussocks<'s>> {
        let make = |end: &End| -> Result<Tussock<'s>> {
            let gateway = Tussock::new(&setup.world, end, &setup.gateway, &setup.results)?;
            gateway.set(GATEWAY, "log", "\"warn\"")?;
            Ok(gateway)
        };
        let [moon, sun] = ends(cipher);
        Ok(Tussocks { moon: make(&moon)?, sun: make(&sun)? })
    }

    fn start(setup: &'s Setup, who: Contestant) -> Result<Tussocks<'s>> {
        let mut both = Tussocks::new(setup, who.cipher)?;
        if who.aws_lc {
            both.moon.set(GATEWAY, "soft_engine", "\"aws-lc\"")?;
            both.sun.set(GATEWAY, "soft_engine", "\"aws-lc\"")?;
        }
        come_up(&mut both.moon, &mut both.sun)?;
        Ok(both)
    }
}

impl Carrier for Tussocks<'_> {
    fn pids(&self) -> Result<[u32; 2]> {
        pids(&self.moon, &self.sun)
    }

    fn read(&self) -> Option<[Read; 2]> {
        let [moon, sun] = [&self.moon, &self.sun].map(|end| read(&end.json("status").ok()?));
        Some([moon?, sun?])
    }

    fn stop(&mut self) -> Result<()> {
        self.moon.stop()?;
        self.sun.stop()
    }
}

/// What a gateway has read from all its TUN devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    /// Superpackets, and packets by themselves.
    pub superpackets: u64,
    /// The packets in them.
    pub packets: u64,
}

impl Read {
    /// What was read since.
    pub fn since(self, before: Read) -> Read {
        Read {
            superpackets: self.superpackets.saturating_sub(before.superpackets),
            packets: self.packets.saturating_sub(before.packets),
        }
    }

    /// Packets in one superpacket.
    pub fn batch(self) -> f64 {
        self.packets as f64 / self.superpackets.max(1) as f64
    }
}

fn read(status: &Value) -> Option<Read> {
    let tuns = status.get("tuns")?.as_array()?;
    let sum = |key: &str| tuns.iter().map(|tun| tun.get(key)?.as_u64()).sum::<Option<u64>>();
    Some(Read { superpackets: sum("reads")?, packets: sum("read")? })
}

/// strongSwan's.
pub struct StrongSwans<'s> {
    /// The sending one.
    pub moon: StrongSwan<'s>,
    /// The receiving one.
    pub sun: StrongSwan<'s>,
}

impl<'s> StrongSwans<'s> {
    /// Configured, not started.
    pub fn new(setup: &'s Setup, cipher: Cipher) -> Result<StrongSwans<'s>> {
        let make = |end: End| -> Result<StrongSwan<'s>> {
            let peer = StrongSwan::new(&setup.world, end, Release::Trixie, &setup.results)?;
            peer.configure(QUIET)?;
            Ok(peer)
        };
        let [moon, sun] = ends(cipher);
        Ok(StrongSwans { moon: make(moon)?, sun: make(sun)? })
    }

    fn start(setup: &'s Setup, cipher: Cipher) -> Result<StrongSwans<'s>> {
        let mut both = StrongSwans::new(setup, cipher)?;
        come_up(&mut both.moon, &mut both.sun)?;
        Ok(both)
    }
}

/// A log that costs nothing.
pub const QUIET: &str = "charon { filelog { lab {\n  default = 0\n  ike = 0\n  cfg = 0\n} } }\n";

impl Carrier for StrongSwans<'_> {
    fn pids(&self) -> Result<[u32; 2]> {
        pids(&self.moon, &self.sun)
    }

    fn stop(&mut self) -> Result<()> {
        self.moon.stop()?;
        self.sun.stop()
    }
}

/// Both started, and a tunnel between them.
pub fn come_up(moon: &mut dyn Peer, sun: &mut dyn Peer) -> Result<()> {
    sun.start()?;
    moon.start()?;
    moon.up()?;
    await_tunnel(moon, "after coming up", |_| true)?;
    Ok(())
}

fn pids(moon: &dyn Peer, sun: &dyn Peer) -> Result<[u32; 2]> {
    let (moon, sun) = moon.pid().zip(sun.pid()).context("a gateway is not running")?;
    Ok([moon, sun])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_read_is_summed_over_all_devices() {
        let status = json!({ "tuns": [{ "reads": 9, "read": 100 }, { "reads": 1, "read": 20 }] });
        let now = read(&status).unwrap();
        assert_eq!((now, now.batch()), (Read { superpackets: 10, packets: 120 }, 12.0));
        assert_eq!(now.since(now).batch(), 0.0);
        assert_eq!(read(&json!({})), None);
    }
}
