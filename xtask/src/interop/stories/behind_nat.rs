//! A roadwarrior behind a NAT that forgets, and that moves.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, agree};
use crate::interop::course::{Steps, virtual_address};
use crate::interop::scenario::{SITES, Scenario};
use crate::peer::{Peer, log_text};
use crate::ping;
use crate::process;
use crate::tussock::{GATEWAY, SITE, Tussock};
use crate::world::{ALICE, Layout, MOON, World};

pub const STORIES: &[Story] = &[Story::ours(
    "nat-rebinding",
    "the NAT forgets, takes another port, then another address: traffic goes on, no new SA; keepalives",
    rebinding,
)
.on(Layout::BehindNat)];

fn rebinding(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let scenario = Scenario { layout: Layout::BehindNat, encap: crate::tunnel::Encap::Auto, ..SITES };
    let (mut moon, mut dave) = (place.tussock(&scenario.moon())?, place.tussock(&scenario.far())?);
    dave.set(GATEWAY, "keepalive", "\"1s\"")?;
    dave.set(SITE, "dpd", "{ delay = \"2s\", action = \"clear\" }")?;
    steps.begin("both gateways start, and dave calls");
    moon.start()?;
    dave.start()?;
    dave.up()?;
    let before = agree(&dave, &moon)?;
    let address = virtual_address(world, "dave")?;
    let stays = |what: &str| -> Result<()> {
        let now = agree(&dave, &moon)?;
        if now != before {
            bail!("{what}: the tunnel was {before:?} and is {now:?}");
        }
        Ok(())
    };

    steps.begin("an idle tunnel gets keepalives");
    let wire = place.wire("idle.pcap")?;
    std::thread::sleep(Duration::from_millis(3500));
    let idle = wire.finish()?;
    if !(2..=5).contains(&idle.keepalives) {
        bail!("in 3.5 idle seconds, one keepalive a second: {idle:?}");
    }

    steps.begin("dave pings while the NAT takes another port");
    let log = place.results.join("from-dave.log");
    let stream = ping::Stream::start(world, "dave", ALICE, &log)?;
    std::thread::sleep(Duration::from_millis(300));
    rebind(world, "192.168.0.50", "192.168.0.50", 40_000)?;
    awaits(&moon, "192.168.0.50:40")?;
    std::thread::sleep(Duration::from_millis(300));
    let (answered, lost) = stream.end()?;
    if lost.len() > 25 || answered < 20 {
        bail!("{} pings lost and {answered} answered, one every 20 ms", lost.len());
    }
    stays("after another port")?;

    steps.begin("alice pings while the NAT takes another address");
    ping::check(world, "alice", &address)?;
    rebind(world, "192.168.0.50", "192.168.0.51", 50_000)?;
    // Nothing of dave's goes out but what makes no claim, until dave misses moon and asks (RFC 7296 section 2.23).
    ping::until_answered(world, "alice", &address, Duration::from_secs(6))?;
    awaits(&moon, "192.168.0.51:50")?;
    stays("after another address")?;
    if !log_text(&moon).contains("peer moved") {
        bail!("moon's log does not say that the peer moved");
    }

    steps.begin("both rekey over the new path");
    moon.rekey_child()?;
    dave.rekey_ike()?;
    let after = agree(&dave, &moon)?;
    if after.child == before.child || after.ike == before.ike {
        bail!("not rekeyed: {after:?}");
    }
    ping::check(world, "alice", &address)?;
    ping::check(world, "dave", ALICE)
}

/// The NAT forgets all it knew and from now on uses `to`, and ports from `port` on.
fn rebind(world: &World, from: &str, to: &str, port: u16) -> Result<()> {
    let rule = format!("oifname \"eth0\" meta l4proto udp masquerade to :{port}-{}", port + 999);
    let chain = "type nat hook postrouting priority 100";
    world.net.nft(
        "nat",
        &format!("delete table ip nat\ntable ip nat {{\nchain out {{\n{chain}\n{rule}\n}}\n}}\n"),
    )?;
    // What was masqueraded by an address is forgotten when the address goes.
    world.net.ip(
        "nat",
        &format!("addr del {from}/24 dev eth0\naddr add {to}/24 dev eth0\nroute add default via {MOON}\n"),
    )
}

/// Wait until an end has its peer at an address and port that begin so.
fn awaits(end: &Tussock<'_>, start: &str) -> Result<()> {
    let there = process::until(Duration::from_secs(2), || {
        let sas = end.json("sas")?;
        let remote = sas.pointer("/ike_sas/0/remote").and_then(Value::as_str).unwrap_or_default();
        Ok(remote.starts_with(start).then_some(()))
    })?;
    there.with_context(|| format!("the peer is not at {start}…: {:#}", end.json("sas").unwrap_or_default()))
}
