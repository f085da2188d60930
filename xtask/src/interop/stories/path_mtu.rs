//! What is too large for the tunnel: its sender is told, with the right number, and a narrower place on the way is
//! found out about.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story, agree, tshark};
use crate::capture::Capture;
use crate::inside::Flow;
use crate::interop::course::{Steps, virtual_address};
use crate::interop::scenario::{SITES, Scenario};
use crate::peer::Peer;
use crate::process;
use crate::tussock::{GATEWAY, NET, SITE};
use crate::world::{ALICE, BOB, BOB6, Layout, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "mtu",
        "too large for the TUN device: the sender is told, smaller ones pass; MSS clamped",
        |p, s| told(p, s, 1400, 1400),
    ),
    // 1500 octets hold IPv4, UDP, ESP header, IV and ICV (20 + 8 + 8 + 8 + 16) and 1440 of payload and trailer.
    Story::ours(
        "mtu-wide",
        "too large for the outside only: the gateway says what fits to the octet",
        |p, s| told(p, s, 1500, 1438),
    ),
    Story::ours("path-mtu-udp", "a narrow link behind a NAT is learnt of, both ways: ESP in UDP", |p, s| {
        narrow(p, s, Way::Nat)
    })
    .on(Layout::BehindNat),
    Story::ours(
        "path-mtu-raw",
        "a narrow link behind a router is learnt of, both ways: ESP as protocol 50",
        |p, s| narrow(p, s, Way::Raw),
    )
    .on(Layout::BehindNat),
    Story::ours(
        "path-mtu-v6",
        "a narrow link behind a router is learnt of, both ways: IPv6 outside",
        |p, s| narrow(p, s, Way::V6),
    )
    .on(Layout::BehindNat),
];

/// Octets around the payload of a ping.
const IN_V4: usize = 28;
const IN_V6: usize = 48;

/// Devices of `mtu`, and `fits` is what gets through the tunnel.
fn told(place: &Place<'_>, steps: &mut Steps, mtu: usize, fits: usize) -> Result<()> {
    let world = place.world;
    let (mut moon, mut sun) = place.sites()?;
    let (moons, suns) = ("[\"10.1.0.0/16\", \"fec1::/64\"]", "[\"10.2.0.0/16\", \"fec2::/64\"]");
    for (end, own, far) in [(&moon, moons, suns), (&sun, suns, moons)] {
        end.set(GATEWAY, "mtu", &mtu.to_string())?;
        end.set(NET, "local", own)?;
        end.set(NET, "remote", far)?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("IPv4: told what fits, and that fits");
    exactly(world, "alice", BOB, fits, IN_V4)?;
    steps.begin("IPv6: told what fits, and that fits");
    exactly(world, "alice", BOB6, fits, IN_V6)?;
    steps.begin("what may be fragmented gets through in pieces");
    for size in ["1472", "4000"] {
        process::run(
            world.on("alice", "ping").args(["-nqc", "1", "-W", "2", "-M", "dont", "-s", size, BOB]),
        )?;
    }
    steps.begin("TCP keeps to it from the first segment");
    for (from, to, port) in [("alice", (BOB, "bob"), 7000), ("bob", (ALICE, "alice"), 7001)] {
        let file = place.results.join(format!("syn-{}.pcap", to.1));
        let syn = Capture::start(world, to.1, "eth0", &file, "tcp[tcpflags] & tcp-syn != 0")?;
        forget_paths(world, "alice")?;
        let carried = Flow::begin(world, from, to.1, (to.0, port), Duration::from_millis(300))?.finish()?;
        syn.finish()?;
        let offered = tshark(
            &file,
            place.results,
            &["-Y", "tcp.flags.ack == 0", "-T", "fields", "-e", "tcp.options.mss_val"],
        )?;
        if offered.trim() != (fits - 40).to_string() || carried.octets < 100_000 {
            bail!("from {from}: MSS {:?} instead of {}, {carried:?}", offered.trim(), fits - 40);
        }
    }
    Ok(())
}

/// Of pings that may not be fragmented, one of 1500 octets is refused with `fits`, one of that size is answered, and
/// one octet more is refused.
fn exactly(world: &World, from: &str, to: &str, fits: usize, around: usize) -> Result<()> {
    for (octets, passes) in [(1500, false), (fits, true), (fits + 1, false)] {
        // Else the sender's own kernel answers what it heard the last time.
        forget_paths(world, from)?;
        let said = whole_ping(world, from, to, octets - around)?;
        let told = said.to_lowercase().contains("mtu = ") || said.to_lowercase().contains("mtu=");
        let right =
            if passes { said.contains(" 0% packet loss") } else { told && mtu_in(&said) == Some(fits) };
        if !right {
            bail!("{from} pings {to} with {octets} octets, of which {fits} fit: {said}");
        }
    }
    Ok(())
}

/// One ping that may not be fragmented; what the program says.
fn whole_ping(world: &World, from: &str, to: &str, payload: usize) -> Result<String> {
    let mut ping = world.on(from, "ping");
    ping.args(["-nc", "1", "-W", "1", "-M", "do", "-s", &payload.to_string(), to]);
    Ok(process::finish(&mut ping, Duration::from_secs(5))?.text())
}

/// The number in "Frag needed and DF set (mtu = 1400)", "Packet too big: mtu=1400", "message too long, mtu=1400".
fn mtu_in(said: &str) -> Option<usize> {
    let after = said.split_once("mtu")?.1.trim_start_matches([' ', '=', ':']);
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn forget_paths(world: &World, host: &str) -> Result<()> {
    for family in ["-4", "-6"] {
        process::run(Command::new("ip").args([
            "-n",
            &world.net.name(host),
            family,
            "route",
            "flush",
            "cache",
        ]))?;
    }
    Ok(())
}

/// What lies between dave and moon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Nat,
    Raw,
    V6,
}

const NARROW: usize = 1300;

fn narrow(place: &Place<'_>, steps: &mut Steps, way: Way) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::BehindNat, ..SITES };
    let (mut moon, mut dave) = (place.tussock(&scenario.moon())?, place.tussock(&scenario.far())?);
    for end in [&moon, &dave] {
        end.set(GATEWAY, "mtu", "1500")?;
        end.set(SITE, "encap", if way == Way::Nat { "\"auto\"" } else { "\"raw\"" })?;
    }
    // Forwarding keeps to the MTU of a route only if it is locked.
    let net = &world.net;
    if way == Way::V6 {
        moon.set(SITE, "local", "[\"fec0::1\"]")?;
        dave.set(SITE, "remote", "[\"fec0::1\"]")?;
        net.ip("dave", "addr add fec9::10/64 dev eth0 nodad\nroute add default via fec9::1\n")?;
        net.ip("nat", "addr add fec9::1/64 dev eth1 nodad\n")?;
        net.ip("moon", "route add fec9::/64 via fec0::50\n")?;
        process::run(world.on("nat", "sysctl").args([
            "-qw",
            &format!("net.ipv6.conf.eth0.mtu={NARROW}"),
            &format!("net.ipv6.conf.eth1.mtu={NARROW}"),
        ]))?;
    } else {
        net.ip("nat", &format!("route replace 192.168.0.0/24 dev eth0 mtu lock {NARROW}\n"))?;
        net.ip("nat", &format!("route replace 10.9.0.0/24 dev eth1 mtu lock {NARROW}\n"))?;
    }
    if way != Way::Nat {
        net.nft("nat", "delete table ip nat\n")?;
    }
    steps.begin("both gateways start, and dave calls");
    moon.start()?;
    dave.start()?;
    dave.up()?;
    agree(&dave, &moon)?;
    let address = virtual_address(world, "dave")?;
    // 20 or 40 for IP, 8 for UDP, then 32 for ESP; payload and trailer in fours.
    let fits = match way {
        Way::Nat => (NARROW - 20 - 8 - 32) / 4 * 4 - 2,
        Way::Raw => (NARROW - 20 - 32) / 4 * 4 - 2,
        Way::V6 => (NARROW - 40 - 32) / 4 * 4 - 2,
    };
    for (from, to) in [("alice", address.as_str()), ("dave", ALICE)] {
        steps.begin(format!("{from} hears of it"));
        let heard = process::until(Duration::from_secs(4), || {
            forget_paths(world, from)?;
            Ok((mtu_in(&whole_ping(world, from, to, 1400 - IN_V4)?) == Some(fits)).then_some(()))
        })?;
        heard.with_context(|| format!("{from} is not told that {fits} octets fit"))?;
        exactly(world, from, to, fits, IN_V4)?;
    }
    steps.begin("it is still known after a rekey");
    let before = agree(&dave, &moon)?;
    dave.rekey_child()?;
    if agree(&dave, &moon)?.child == before.child {
        bail!("not rekeyed: {before:?}");
    }
    exactly(world, "alice", &address, fits, IN_V4)?;
    steps.begin("TCP gets through");
    let carried =
        Flow::begin(world, "alice", "dave", (&address, 7000), Duration::from_millis(500))?.finish()?;
    if carried.octets < 100_000 {
        bail!("TCP carried only {carried:?}");
    }
    Ok(())
}
