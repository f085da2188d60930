//! What happens by itself: to a dead peer, at the start, and to the routing table.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing};
use crate::ping;
use crate::process;
use crate::tussock::{GATEWAY, NET, SITE};
use crate::world::{BOB, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "dpd-clear",
        "a dead peer's SAs (and, with on_down = \"clear\", its routes) are cleared, and nothing more happens by itself",
        |p, s| dead(p, s, "clear"),
    ),
    Story::ours(
        "dpd-trap",
        "a dead peer's SAs are cleared, its routes stay, and the next packet calls it",
        |p, s| dead(p, s, "trap"),
    ),
    Story::ours(
        "boot",
        "start = \"boot\" waits for a peer that comes later, ever more patiently, and comes back",
        boot,
    ),
    Story::ours(
        "routes",
        "with on_down = \"clear\", routes are there while the tunnel is, or waits for traffic, and not otherwise",
        routes,
    ),
];

/// Given up after a second and a half.
const SHORT: &str = "{ tries = 2, first = \"500ms\", base = 1.0 }";

fn dead(place: &Place<'_>, steps: &mut Steps, action: &str) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(GATEWAY, "retransmit", SHORT)?;
    moon.set(SITE, "dpd", &format!("{{ delay = \"1s\", action = \"{action}\" }}"))?;
    if action == "trap" {
        moon.set(SITE, "start", "\"boot\"")?;
    } else {
        moon.set(NET, "on_down", "\"clear\"")?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("sun is killed, and moon gives it up");
    sun.kill();
    await_nothing(&moon, "with a dead peer")?;
    let trapped = action == "trap";
    has_routes(place.world, trapped)?;
    let state = if trapped { "waiting for traffic" } else { "down" };
    let shown = moon.json("status")?;
    if shown.pointer("/realms/0/children/0/state").and_then(Value::as_str) != Some(state) {
        bail!("the child should be {state}: {shown:#}");
    }
    steps.begin("nobody is called, also when sun is back");
    let wire = place.wire("quiet.pcap")?;
    std::thread::sleep(Duration::from_secs(1));
    sun.start()?;
    std::thread::sleep(Duration::from_millis(1500));
    let seen = wire.finish()?;
    if seen.ike > 0 {
        bail!("{} IKE messages", seen.ike);
    }
    steps.begin("it comes back when it is wanted");
    if trapped {
        ping::until_answered(place.world, "alice", BOB, Duration::from_secs(5))?;
        agree(&moon, &sun)?;
        place.pings()
    } else {
        place.come_up(steps, &moon, &sun).map(drop)
    }
}

fn boot(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(GATEWAY, "retransmit", "{ tries = 1, first = \"300ms\", base = 1.0 }")?;
    moon.set(SITE, "start", "\"boot\"")?;
    steps.begin("moon calls, and nobody is there");
    let wire = place.wire("calls.pcap")?;
    moon.start()?;
    std::thread::sleep(Duration::from_millis(3500));
    // The first call at once, the next after two seconds less a quarter: two messages each.
    let calls = wire.finish()?.ike;
    if !(2..=6).contains(&calls) {
        bail!("{calls} calls in 3.5 s");
    }
    steps.begin("sun starts, and the tunnel comes up by itself");
    sun.start()?;
    let comes_up = |what: &str| -> Result<()> {
        let up = process::until(Duration::from_secs(8), || {
            Ok((!moon.sas()?.is_empty() && crate::peer::tunnel(&moon)?.is_some()).then_some(()))
        })?;
        up.with_context(|| format!("{what}: {:?}", moon.sas()))?;
        agree(&moon, &sun)?;
        place.pings()
    };
    comes_up("it does not come up")?;
    steps.begin("sun ends it, and the tunnel comes back by itself");
    let before = agree(&moon, &sun)?;
    sun.down()?;
    let back = process::until(Duration::from_secs(8), || {
        Ok(crate::peer::tunnel(&moon)?.filter(|tunnel| tunnel.ike != before.ike))
    })?;
    back.with_context(|| format!("it does not come back: {:?}", moon.sas()))?;
    place.pings()?;
    steps.begin("moon's operator takes it down, and it stays down");
    moon.down()?;
    std::thread::sleep(Duration::from_secs(4));
    await_nothing(&moon, "after the operator took it down")
}

fn routes(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let world = place.world;
    moon.set(NET, "on_down", "\"clear\"")?;
    sun.start()?;
    moon.start()?;
    steps.begin("none before, some while it is up, none after");
    has_routes(world, false)?;
    place.come_up(steps, &moon, &sun)?;
    has_routes(world, true)?;
    moon.rekey_child()?;
    agree(&moon, &sun)?;
    has_routes(world, true)?;
    moon.down()?;
    await_nothing(&moon, "after the end")?;
    has_routes(world, false)?;
    steps.begin("some while it waits for traffic");
    moon.set(SITE, "start", "\"traffic\"")?;
    moon.order(&["reload"])?;
    has_routes(world, true)?;
    steps.begin("traffic brings it up");
    if !moon.sas()?.is_empty() {
        bail!("it is up already: {:?}", moon.sas()?);
    }
    ping::until_answered(world, "alice", BOB, Duration::from_secs(5))?;
    agree(&moon, &sun)?;
    place.pings()?;
    steps.begin("ended by the peer it waits again, and the first ping is not lost");
    sun.down()?;
    await_nothing(&moon, "after the end")?;
    has_routes(world, true)?;
    // Held back by a moment only: what is waited for after a Delete is two seconds.
    std::thread::sleep(Duration::from_secs(2));
    let mut first = world.on("alice", "ping");
    process::run(first.args(["-nqc", "1", "-W", "2", BOB])).context("the first ping was lost")?;
    agree(&moon, &sun)?;
    steps.begin("none after the end");
    moon.stop()?;
    has_routes(world, false)
}

/// Wait until moon has a route to sun's network by its TUN device, or none of ours at all.
fn has_routes(world: &World, wanted: bool) -> Result<()> {
    let ours = || {
        let mut show = Command::new("ip");
        show.args(["-n", &world.net.name("moon"), "route", "show", "table", "all", "proto", "116"]);
        process::run(&mut show)
    };
    // A pair that was rekeyed takes late packets for three seconds, and until then it has its route.
    let right = process::until(Duration::from_secs(4), || {
        let text = ours()?;
        let is = if wanted { text.contains("10.2.0.0/16 dev ipsec0") } else { text.trim().is_empty() };
        Ok(is.then_some(()))
    })?;
    right.with_context(|| format!("routes wanted: {wanted}, there are {:?}", ours()))
}
