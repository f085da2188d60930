//! The map of the lab: who lives where, and who is wired to whom.
//!
//! ```text
//!   alice 10.1.0.10 -- moon ---.                      ,--- sun -- bob 10.2.0.10
//!                10.1.0.1      |   "inet" bridge      |     10.2.0.1
//!                      192.168.0.1  192.168.0.0/24  192.168.0.2
//!                              |               |
//!                 carol 192.168.0.100        nat 192.168.0.50 / 10.9.0.1 -- dave 10.9.0.10
//! ```
//!
//! IPv6: `fec0::<last octet>/64` on the bridge, `fec1::/64` behind moon, `fec2::/64` behind sun.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::netns::Netns;

/// Moon's address on the bridge.
pub const MOON: &str = "192.168.0.1";
/// Sun's address on the bridge.
pub const SUN: &str = "192.168.0.2";
/// Moon's IPv6 address on the bridge.
pub const MOON6: &str = "fec0::1";
/// Sun's IPv6 address on the bridge.
pub const SUN6: &str = "fec0::2";
/// The network behind moon.
pub const MOON_NET: &str = "10.1.0.0/16";
/// The network behind sun.
pub const SUN_NET: &str = "10.2.0.0/16";
/// The IPv6 network behind moon.
pub const MOON_NET6: &str = "fec1::/64";
/// The IPv6 network behind sun.
pub const SUN_NET6: &str = "fec2::/64";
/// Moon's address in the network behind it.
pub const MOON_INSIDE: &str = "10.1.0.1";
/// Sun's address in the network behind it.
pub const SUN_INSIDE: &str = "10.2.0.1";
/// The host behind moon.
pub const ALICE: &str = "10.1.0.10";
/// The host behind sun.
pub const BOB: &str = "10.2.0.10";
/// The host behind moon, IPv6.
pub const ALICE6: &str = "fec1::10";
/// The host behind sun, IPv6.
pub const BOB6: &str = "fec2::10";
/// The addresses moon hands out to roadwarriors.
pub const POOL: &str = "10.3.0.0/24";
/// The bridge in the namespace `inet`, where the whole outside world can be heard.
pub const BRIDGE: &str = "br0";

/// Which part of the map a scenario needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// alice - moon - inet - sun - bob.
    Sites,
    /// alice - moon - inet - carol.
    Roadwarrior,
    /// alice - moon - inet - nat - dave; nat masquerades.
    BehindNat,
}

impl Layout {
    /// The host at the far end of moon's tunnel.
    pub fn far_end(self) -> &'static str {
        match self {
            Layout::Sites => "sun",
            Layout::Roadwarrior => "carol",
            Layout::BehindNat => "dave",
        }
    }
}

/// The built map.
pub struct World {
    /// Its namespaces.
    pub net: Netns,
}

impl World {
    /// Claim the namespaces called `kind`; nothing is built yet.
    pub fn claim(kind: &str) -> Result<World> {
        Ok(World { net: Netns::claim(kind)? })
    }

    /// Build the part of the map a layout shows, after clearing what was there.
    pub fn build(&self, layout: Layout) -> Result<()> {
        let net = &self.net;
        net.clear()?;
        net.add("inet")?;
        net.ip("inet", &format!("link add {BRIDGE} type bridge mcast_snooping 0\nlink set {BRIDGE} up\n"))?;
        self.on_the_bridge("moon", 1)?;
        self.behind("alice", "moon", "10.1", "fec1::")?;
        match layout {
            Layout::Sites => {
                self.on_the_bridge("sun", 2)?;
                self.behind("bob", "sun", "10.2", "fec2::")?;
                // Each gateway sends what it does not own to the other: a packet that slips past the tunnel is
                // then seen as a leak and not as "no route to host".
                net.ip("moon", &format!("route add default via {SUN}\nroute add ::/0 via {SUN6}\n"))?;
                net.ip("sun", &format!("route add default via {MOON}\nroute add ::/0 via {MOON6}\n"))?;
                self.forbid_leaks("sun")?;
            }
            Layout::Roadwarrior => {
                self.on_the_bridge("carol", 100)?;
                net.ip("carol", &format!("route add default via {MOON}\n"))?;
                net.ip("moon", "route add default via 192.168.0.100\n")?;
            }
            Layout::BehindNat => {
                self.on_the_bridge("nat", 50)?;
                net.add("dave")?;
                net.link(("dave", "eth0"), ("nat", "eth1"))?;
                net.ip("dave", "addr add 10.9.0.10/24 dev eth0\nroute add default via 10.9.0.1\n")?;
                net.ip("nat", &format!("addr add 10.9.0.1/24 dev eth1\nroute add default via {MOON}\n"))?;
                net.ip("moon", "route add default via 192.168.0.50\n")?;
                self.forward("nat")?;
                net.nft("nat", MASQUERADE)?;
            }
        }
        self.forbid_leaks("moon")
    }

    /// Build moon and sun alone, wired to each other, with their inner addresses and nobody behind them.
    pub fn build_pair(&self) -> Result<()> {
        let net = &self.net;
        net.clear()?;
        net.add("moon")?;
        net.add("sun")?;
        net.link(("moon", "eth0"), ("sun", "eth0"))?;
        net.ip("moon", &format!("addr add {MOON}/24 dev eth0\naddr add {MOON_INSIDE}/32 dev lo\n"))?;
        net.ip("sun", &format!("addr add {SUN}/24 dev eth0\naddr add {SUN_INSIDE}/32 dev lo\n"))
    }

    /// A command on a host of the map.
    pub fn on(&self, host: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.net.command(host, program)
    }

    /// A folder for the sockets of a host.
    pub fn state(&self, host: &str) -> Result<PathBuf> {
        self.net.state(host)
    }

    /// Let clear text pass on the outer wire where that is what is to be seen.
    pub fn allow_leaks(&self, gateways: &[&str]) -> Result<()> {
        gateways.iter().try_for_each(|gateway| self.net.nft(gateway, "delete table inet lab\n"))
    }

    /// One more host on the bridge, with the address 192.168.0.`octet`.
    pub fn join(&self, host: &str, octet: u8) -> Result<()> {
        self.on_the_bridge(host, octet)
    }

    fn on_the_bridge(&self, host: &str, octet: u8) -> Result<()> {
        self.net.add(host)?;
        let port = format!("v-{host}");
        self.net.link((host, "eth0"), ("inet", &port))?;
        self.net.ip("inet", &format!("link set {port} master {BRIDGE}\n"))?;
        self.net.ip(
            host,
            &format!("addr add 192.168.0.{octet}/24 dev eth0\naddr add fec0::{octet}/64 dev eth0 nodad\n"),
        )
    }

    fn behind(&self, host: &str, gateway: &str, v4: &str, v6: &str) -> Result<()> {
        self.net.add(host)?;
        self.net.link((host, "eth0"), (gateway, "eth1"))?;
        let inside = format!(
            "addr add {v4}.0.10/16 dev eth0\naddr add {v6}10/64 dev eth0 nodad\n\
             route add default via {v4}.0.1\nroute add ::/0 via {v6}1\n"
        );
        self.net.ip(host, &inside)?;
        self.net
            .ip(gateway, &format!("addr add {v4}.0.1/16 dev eth1\naddr add {v6}1/64 dev eth1 nodad\n"))?;
        self.forward(gateway)
    }

    fn forward(&self, host: &str) -> Result<()> {
        let both = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
        crate::process::run(self.on(host, "sysctl").arg("-qw").args(both)).map(drop)
    }

    /// No clear text between the inner networks on the outer wire: a ping that is answered went through ESP.
    fn forbid_leaks(&self, gateway: &str) -> Result<()> {
        self.net.nft(gateway, LEAKS)
    }
}

const LEAKS: &str = r#"
table inet lab {
    chain forwarded {
        type filter hook forward priority 0; policy accept;
        oifname "eth0" ip saddr 10.0.0.0/8 ip daddr 10.0.0.0/8 counter drop
        oifname "eth0" ip6 saddr { fec1::/64, fec2::/64 } ip6 daddr { fec1::/64, fec2::/64 } counter drop
        iifname "eth0" ip daddr { 10.1.0.0/16, 10.2.0.0/16 } counter drop
        iifname "eth0" ip6 daddr { fec1::/64, fec2::/64 } counter drop
    }
    chain own {
        type filter hook output priority 0; policy accept;
        oifname "eth0" ip daddr { 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16 } counter drop
    }
}
"#;

const MASQUERADE: &str = r#"
table ip nat {
    chain out {
        type nat hook postrouting priority 100;
        oifname "eth0" masquerade
    }
}
"#;
