//! Moon on the PadLock instructions, which trap and are carried out by an emulator in the process that carries the packets; and on a processor that has none.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, agree};
use crate::checkout::Profile;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::padlock::{self, Emulated};
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tussock::{NET, SITE, Tussock, quoted};
use crate::world::{ALICE, BOB};

pub const STORIES: &[Story] = &[
    Story::ours(
        "padlock",
        "packets and MODP key exchanges on emulated PadLock; rekeyed by both ends, and a flow each way",
        with_strongswan,
    )
    .cast("tussock -> strongSwan"),
    Story::ours("padlock-suites", "every cipher of PadLock with ESN, software at the other end", suites),
    Story::ours(
        "padlock-vanished",
        "a machine that loses PadLock under traffic ends the gateway; its supervisor starts it again, it says what is missing, and software has the tunnel",
        vanished,
    ),
    Story::ours(
        "padlock-lies",
        "PadLock computes something else from some moment on, under traffic: it is found out by known answers, and software has the SAs",
        lies,
    ),
    Story::ours(
        "padlock-missing",
        "a processor without PadLock: `tussock accel` says which CPUID leaf is missing, and software goes on",
        missing,
    ),
];

/// How long the flows go on.
const TIME: Duration = Duration::from_secs(3);
/// When something happens to PadLock, after the gateway's start: its trial is over, and it has a tunnel.
const LATER: Duration = Duration::from_secs(12);

fn with_strongswan(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let emulated = Emulated::build(Profile::Dev)?;
    let (mut ours, mut theirs) = (SITES.moon(), SITES.far());
    for end in [&mut ours, &mut theirs] {
        end.ike = "aes256-sha256-modp2048".to_owned();
        end.esp = "aes256-sha256-modp2048".to_owned();
    }
    let mut moon = Tussock::new(place.world, &ours, &emulated.gateway, place.results)?;
    moon.append(padlock::SECTION)?;
    emulated.put_into(&mut moon);
    let mut sun = StrongSwan::new(place.world, theirs, Release::Host, place.results)?;
    steps.begin("a session");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let first = await_tunnel(&moon, "after coming up", |_| true)?;
    place.pings()?;
    steps.begin("moon rekeys the Child SA");
    moon.rekey_child()?;
    let second = await_tunnel(&moon, "after the Child rekey", |now| now.child != first.child)?;
    place.pings()?;
    steps.begin("sun rekeys both");
    sun.rekey_child()?;
    let third = await_tunnel(&moon, "after sun's Child rekey", |now| now.child != second.child)?;
    sun.rekey_ike()?;
    await_tunnel(&moon, "after the IKE rekey", |now| now.ike != third.ike)?;
    place.pings()?;
    steps.begin("flows both ways");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
    let (there, back) = (there.finish()?, back.finish()?);
    if there.octets < 1 << 18 || back.octets < 1 << 18 {
        bail!("{there:?} there, {back:?} back");
    }
    steps.begin("all of it was done by PadLock");
    all_on_padlock(&moon)?;
    moon.down()?;
    await_nothing(&moon, "after the end")?;
    moon.stop()?;
    let served = emulated.served(moon.state(), &["xstore", "xcrypt", "xsha1", "xsha256", "montmul"])?;
    steps.begin(format!("executed: {served}"));
    sun.stop()
}

fn suites(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let emulated = Emulated::build(Profile::Dev)?;
    let mut moon = Tussock::new(place.world, &SITES.moon(), &emulated.gateway, place.results)?;
    moon.append(padlock::SECTION)?;
    emulated.put_into(&mut moon);
    let mut sun = place.tussock(&SITES.far())?;
    sun.start()?;
    moon.start()?;
    for esp in [
        "aes128-sha1-esn",
        "aes192-sha256-esn",
        "aes256-sha1",
        "aes128ctr-sha256-esn",
        "aes192ctr-sha1",
        "aes256ctr-sha256-esn",
    ] {
        steps.begin(esp);
        for end in [&sun, &moon] {
            end.set(SITE, "ike", "[\"aes128-sha256-modp3072\"]")?;
            end.set(NET, "esp", &format!("[{}]", quoted(esp)))?;
            end.order(&["reload"])?;
        }
        moon.up()?;
        agree(&moon, &sun)?;
        place.pings().with_context(|| format!("moon {}, sun {}", drops(&moon), drops(&sun)))?;
        moon.down()?;
        await_nothing(&sun, "after the end")?;
    }
    steps.begin("all of it was done by PadLock");
    all_on_padlock(&moon)?;
    moon.stop()?;
    emulated.served(moon.state(), &["xcrypt", "xsha1", "xsha256", "montmul"])?;
    sun.stop()
}

/// As of a guest that is moved to a host without the instructions: the next one is illegal, and no program outlives that. What can be had is
/// that it is started again, and that this works.
fn vanished(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (_emulated, moon, sun) = late(place, steps, |emulated, moon| {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + LATER;
        emulated.put_into_with(moon, &format!(",vanish={}", at.as_secs()));
        Ok(())
    })?;
    let before = moon.pid();
    steps.begin("PadLock is lost under traffic, and the process that carries it with it");
    let _flow = Flow::begin(place.world, "alice", "bob", (BOB, 7000), 2 * LATER)?;
    let ended = || {
        let log = log_text(&moon);
        let line = log.lines().find(|line| line.contains("tussock-gateway has ended")).map(str::to_owned);
        Ok(line)
    };
    let how = process::until(3 * LATER, ended)?.context("it goes on without instructions")?;
    if !how.contains("SIGILL") {
        bail!("it ended otherwise: {how}");
    }
    steps.begin("its supervisor starts it again, and it says what is missing");
    let again = || Ok(moon.pid().filter(|pid| Some(*pid) != before));
    process::until(LATER, again)?.context("it is not started again")?;
    let via = moon.device("via")?;
    let why = via.pointer("/device/why").and_then(Value::as_str).context("no reason")?;
    if !why.contains("ACE") {
        bail!("it says {why:?}");
    }
    steps.begin("and software has the tunnel");
    moon.up()?;
    agree(&moon, &sun)?;
    place.pings()?;
    if moon.device_count("soft", "/packets")? == 0 {
        bail!("software has carried nothing: {:#}", moon.json("accel")?);
    }
    let left = sun.sas()?.len();
    if left != 1 {
        bail!("sun has {left} IKE SAs");
    }
    Ok(())
}

/// What is wrong is every octet that PadLock gives out; the ends of the flows see to it that what arrives is right.
fn lies(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (_emulated, moon, _sun) = late(place, steps, |emulated, moon| {
        emulated.put_into_with(moon, &format!(",flips={}", LATER.as_secs()));
        Ok(())
    })?;
    steps.begin("PadLock begins to lie under traffic, which arrives, and is what was sent");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), 2 * LATER)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), 2 * LATER)?;
    let (there, back) = (there.finish()?, back.finish()?);
    if there.octets < 1 << 18 || back.octets < 1 << 18 {
        bail!("{there:?} there, {back:?} back");
    }
    steps.begin("it was found out, and software has the SAs");
    let told = || Ok((moon.device_count("soft", "/packets")? > 0 && !is_ready(&moon)?).then_some(()));
    process::until(LATER, told)?.with_context(|| format!("{:#}", moon.json("accel").unwrap_or_default()))?;
    place.pings()
}

fn is_ready(moon: &Tussock<'_>) -> Result<bool> {
    Ok(moon.device("via")?.pointer("/device/health").is_some_and(|health| health == "ready"))
}

/// Moon and sun with a tunnel that is on PadLock, of which something happens later.
fn late<'w>(
    place: &Place<'w>,
    steps: &mut Steps,
    tell: impl Fn(&Emulated, &mut Tussock<'w>) -> Result<()>,
) -> Result<(Emulated, Tussock<'w>, Tussock<'w>)> {
    let emulated = Emulated::build(Profile::Dev)?;
    let (mut ours, mut theirs) = (SITES.moon(), SITES.far());
    for end in [&mut ours, &mut theirs] {
        end.ike = "aes128-sha256-modp2048".to_owned();
        end.esp = "aes128-sha256".to_owned();
    }
    let mut moon = Tussock::new(place.world, &ours, &emulated.gateway, place.results)?;
    moon.append(padlock::SECTION)?;
    let mut sun = place.tussock(&theirs)?;
    tell(&emulated, &mut moon)?;
    place.begin(steps, &mut moon, &mut sun)?;
    all_on_padlock(&moon)?;
    Ok((emulated, moon, sun))
}

fn missing(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    if std::fs::read_to_string("/proc/cpuinfo")?.contains("phe_en") {
        steps.begin("this processor has PadLock: nothing is missing");
        return Ok(());
    }
    let (mut moon, mut sun) = place.sites()?;
    moon.append("[accel.via]\ndriver = \"padlock\"")?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("it says what is missing");
    let via = moon.device("via")?;
    let why = via.pointer("/device/why").and_then(Value::as_str).context("no reason")?;
    if !why.contains("has no PadLock: CPUID leaf") {
        bail!("it says {why:?}");
    }
    if moon.device_count("soft", "/packets")? == 0 {
        bail!("software has carried nothing");
    }
    Ok(())
}

/// Packets and operations were served by PadLock, and none by software.
fn all_on_padlock(moon: &Tussock<'_>) -> Result<()> {
    for path in ["/packets", "/operations"] {
        let (here, soft) = (moon.device_count("via", path)?, moon.device_count("soft", path)?);
        if here == 0 || soft > 0 {
            bail!("{here} of {path} on PadLock and {soft} in software: {:#}", moon.json("accel")?);
        }
    }
    Ok(())
}

/// What a gateway has dropped, for when something is missing.
fn drops(gateway: &Tussock<'_>) -> String {
    gateway.json("status").map_or_else(|error| error.to_string(), |status| status["drops"].to_string())
}
