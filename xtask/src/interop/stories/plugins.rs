//! A vendor's plug-in in moon: the example in C carries a tunnel; one that begins to lie under traffic is shut out, and traffic goes on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::checkout;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_tunnel};
use crate::plugins;
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tussock::{NET, SITE, Tussock};
use crate::world::{ALICE, BOB};

pub const STORIES: &[Story] = &[
    Story::ours("plugin", "a plug-in in C does the packets and key exchanges of a tunnel", |place, steps| {
        Stage::set(place, &[])?.carry(place, steps)
    }),
    Story::ours(
        "plugin-interop",
        "a plug-in in C does the packets and key exchanges of a tunnel with strongSwan, through rekeyings",
        with_strongswan,
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "plugin-lies",
        "a plug-in that completes what is not out is shut out under traffic, and software goes on",
        |place, steps| Stage::set(place, &["-DLIE_FALSE_TOKEN"])?.outlive(place, steps),
    ),
    Story::ours(
        "plugin-spoils-numbers",
        "a plug-in that seals under another IV is shut out before the packet leaves",
        |place, steps| Stage::set(place, &["-DLIE_IV"])?.outlive(place, steps),
    ),
    Story::ours(
        "plugin-missing",
        "a gateway whose plug-in is not there says so and starts in software",
        missing,
    ),
];

/// The device in moon's configuration.
const NAME: &str = "vendor0";
/// How long flows go on.
const TIME: Duration = Duration::from_secs(5);
/// Bursts until a liar begins to lie: after the questions at the start, and in the midst of traffic.
const HONEST: &str = "-DLIE_FROM=600";

struct Stage<'w> {
    moon: Tussock<'w>,
    sun: Tussock<'w>,
}

/// The example, or a liar made of it.
fn build(place: &Place<'_>, flaws: &[&str]) -> Result<PathBuf> {
    let home = checkout::root().join("spi/cabi");
    let library = place.results.join("libplugin.so");
    let plugin = if flaws.is_empty() { "example/plugin.c" } else { "tests/hostile/hostile.c" };
    let mut command = Command::new("cc");
    command.args(["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-fPIC", "-shared"]);
    command.arg("-I").arg(home.join("include")).arg("-I").arg(home.join("example")).args(flaws).arg(HONEST);
    command.arg("-o").arg(&library).arg(home.join(plugin)).arg(home.join("example/engine.c"));
    process::run(command.args(["-lcrypto", "-lpthread"]))?;
    Ok(library)
}

fn sites<'w>(place: &Place<'w>, library: &std::path::Path) -> Result<(Tussock<'w>, Tussock<'w>)> {
    let (moon, sun) = place.sites()?;
    moon.append(&plugins::section(NAME, library))?;
    for end in [&moon, &sun] {
        end.set(SITE, "ike", "[\"aes128gcm16-prfsha256-x25519\"]")?;
        end.set(NET, "esp", "[\"chacha20poly1305-x25519\"]")?;
    }
    Ok((moon, sun))
}

impl<'w> Stage<'w> {
    fn set(place: &Place<'w>, flaws: &[&str]) -> Result<Stage<'w>> {
        let (moon, sun) = sites(place, &build(place, flaws)?)?;
        Ok(Stage { moon, sun })
    }

    fn carry(mut self, place: &Place<'_>, steps: &mut Steps) -> Result<()> {
        place.begin(steps, &mut self.moon, &mut self.sun)?;
        flows(place, steps)?;
        steps.begin("all of it was done by the plug-in");
        served(&self.moon)
    }

    fn outlive(mut self, place: &Place<'_>, steps: &mut Steps) -> Result<()> {
        place.begin(steps, &mut self.moon, &mut self.sun)?;
        flows(place, steps)?;
        steps.begin("the plug-in was shut out, software has the SAs, and it stays that way");
        let told = |moon: &Tussock<'_>| -> Result<bool> {
            let plugin = moon.device(NAME)?;
            let health = plugin.pointer("/device/health").and_then(Value::as_str).unwrap_or_default();
            Ok(health != "ready" && moon.device_count("soft", "/packets")? > 0)
        };
        process::until(TIME, || Ok(told(&self.moon)?.then_some(())))?
            .with_context(|| format!("{:#}", self.moon.json("accel").unwrap_or_default()))?;
        std::thread::sleep(Duration::from_secs(2));
        if !told(&self.moon)? {
            bail!("it is used again: {:#}", self.moon.json("accel")?);
        }
        place.pings()
    }
}

/// The plug-in has had all packets and key exchanges.
fn served(moon: &Tussock<'_>) -> Result<()> {
    let [packets, operations] = ["/packets", "/operations"].map(|path| moon.device_count(NAME, path));
    if packets? == 0 || operations? == 0 || moon.device_count("soft", "/packets")? > 0 {
        bail!("{:#}", moon.json("accel")?);
    }
    Ok(())
}

/// A session with strongSwan, with rekeyings of both ends and a flow each way.
fn with_strongswan(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let library = build(place, &[])?;
    let (mut ours, mut theirs) = (SITES.moon(), SITES.far());
    for end in [&mut ours, &mut theirs] {
        "aes128gcm16-prfsha256-x25519".clone_into(&mut end.ike);
        "chacha20poly1305-x25519".clone_into(&mut end.esp);
    }
    let mut moon = place.tussock(&ours)?;
    moon.append(&plugins::section(NAME, &library))?;
    let mut sun = StrongSwan::new(place.world, theirs, Release::Host, place.results)?;
    steps.begin("a session, with rekeyings by both ends");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let first = await_tunnel(&moon, "after coming up", |_| true)?;
    await_tunnel(&sun, "the same tunnel", |other| other.ike == first.ike)?;
    place.pings()?;
    moon.rekey_child()?;
    let second = await_tunnel(&moon, "after the Child rekey", |now| now.child != first.child)?;
    sun.rekey_child()?;
    let third = await_tunnel(&moon, "after sun's Child rekey", |now| now.child != second.child)?;
    sun.rekey_ike()?;
    await_tunnel(&moon, "after the IKE rekey", |now| now.ike != third.ike)?;
    flows(place, steps)?;
    steps.begin("all of it was done by the plug-in");
    served(&moon)?;
    moon.down()
}

/// Traffic of both directions, each octet of which arrives.
fn flows(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    steps.begin("traffic goes both ways, and arrives");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
    let (there, back) = (there.finish()?, back.finish()?);
    if there.octets < 1 << 20 || back.octets < 1 << 20 {
        bail!("{there:?} there, {back:?} back");
    }
    Ok(())
}

fn missing(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let library = place.results.join("libabsent.so");
    let (mut moon, mut sun) = sites(place, &library)?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("software carries the tunnel, and the plug-in is named as missing");
    let plugin = moon.device(NAME)?;
    if plugin.pointer("/device/health").is_some_and(|health| health == "ready")
        || moon.device_count("soft", "/packets")? == 0
    {
        bail!("{:#}", moon.json("accel")?);
    }
    Ok(())
}
