//! Emulated cards in moon, and everything that can go wrong with one: traffic of both directions goes on, whole, with the same SAs
//! and without a sequence number used twice.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Place, Story};
use crate::cards::Card;
use crate::cards::faults::{self, Fault};
use crate::cards::stage::{Stage, TIME};
use crate::interop::course::Steps;
use crate::process;
use crate::soak;
use crate::tussock::SITE;
use crate::world::BOB;

/// A story of one kind of fault, which happens some times in the traffic.
macro_rules! fault {
    ($fault:ident) => {
        Story::ours(faults::$fault.name, faults::$fault.shows, |place, steps| {
            faulty(place, steps, &faults::$fault)
        })
    };
}

pub const STORIES: &[Story] = &[
    Story::ours(
        "cards",
        "two emulated QAT cards do the packets and key exchanges of a tunnel; one is pulled out and put back",
        pulled,
    ),
    Story::ours(
        "cards-never",
        "fallback = \"never\": what a dead card's SAs carry is dropped and counted until it is back",
        never,
    ),
    fault!(DELAY),
    fault!(REORDER),
    fault!(LOST),
    fault!(DOUBLED),
    fault!(COOKIE),
    fault!(FLIP),
    fault!(ENGINE),
    fault!(FULL),
    fault!(SLOW),
    fault!(UNCORRECTABLE),
    fault!(RESTART),
    fault!(SILENCE),
    fault!(UNPLUG),
    fault!(SLOW_RESET),
    fault!(NO_INTERRUPT),
    fault!(FALSE_INTERRUPT),
    fault!(MAILBOX),
    fault!(CHECKSUM),
    fault!(INCOMPATIBLE),
    Story::ours(
        "cards-soak",
        "two gateways with two cards each, everything going wrong at random for 45 seconds; nothing is left behind",
        soaked,
    ),
];

fn faulty(place: &Place<'_>, steps: &mut Steps, fault: &Fault) -> Result<()> {
    let mut stage = Stage::set(place, Some(&fault.plan()))?;
    stage.begin(place, steps)?;
    stage.under_traffic(place, steps, |_, _| Ok(()))?.is_right()?;
    steps.begin("the fault has happened");
    if stage.cards[0].faults()? == 0 {
        bail!("none has; moon says {:#}", stage.device("qat0")?);
    }
    Ok(())
}

fn soaked(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let options = soak::cards::Options { minutes: 0.75, seed: 7 };
    soak::cards::play(place, steps, &options, &mut |_| ())?.is_right()
}

fn pulled(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut stage = Stage::set(place, None)?;
    stage.begin(place, steps)?;
    steps.begin("the key exchange was done by a card");
    let operations = stage.count("qat0", "/operations")? + stage.count("qat1", "/operations")?;
    if operations == 0 {
        bail!("no card has done an operation: {:#}", stage.moon.json("accel")?);
    }
    let follow_log = place.results.join("follow.log");
    let mut follow = stage.moon.follow(&["accel", "--follow"], &follow_log)?;
    let met = stage.under_traffic(place, steps, |stage, steps| {
        std::thread::sleep(TIME / 5);
        let has_sas =
            |stage: &Stage<'_>, name: &str| Ok::<_, anyhow::Error>(stage.count(name, "/device/sas")? > 0);
        let busy = usize::from(!has_sas(stage, "qat0")?);
        let names = ["qat0", "qat1"];
        let (busy_name, other_name) = (names[busy], names[1 - busy]);
        steps.begin("the card with the SAs is pulled out, and the other one has them");
        stage.cards[busy].pull_out();
        let moved = process::until(TIME / 2, || {
            Ok((!has_sas(stage, busy_name)? && has_sas(stage, other_name)?).then_some(()))
        })?;
        moved.with_context(|| format!("the SAs do not leave {busy_name}"))?;
        stage.cards[busy].put_back()
    })?;
    met.is_right()?;
    steps.begin("the card is used again");
    for name in ["qat0", "qat1"] {
        let ready = process::until(3 * TIME, || Ok(stage.is_ready(name)?.then_some(())))?;
        ready.with_context(|| format!("{name} does not come back"))?;
    }
    if stage.count("soft", "/packets")? > 0 {
        bail!("software has carried packets, though a card was there all the time");
    }
    steps.begin("who followed has seen it");
    follow.stop(Signal::INT, Duration::from_secs(2))?;
    let followed = std::fs::read_to_string(&follow_log)?;
    for word in ["device-failed", "sas-moved", "device-ready", "packets/s"] {
        if !followed.contains(word) {
            bail!("`tussock accel --follow` says nothing of {word}:\n{followed}");
        }
    }
    Ok(())
}

fn never(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut stage = Stage::set(place, None)?;
    stage.moon.set(SITE, "fallback", "\"never\"")?;
    stage.begin(place, steps)?;
    steps.begin("both cards are pulled out, and packets are dropped");
    stage.cards.iter_mut().for_each(Card::pull_out);
    let dropped = process::until(TIME, || {
        process::finish(
            place.world.on("alice", "ping").args(["-nqc", "1", "-W", "1", BOB]),
            Duration::from_secs(3),
        )?;
        Ok((stage.moon.count("/drops/device_down")? > 0).then_some(()))
    })?;
    dropped.with_context(|| {
        format!("no drop is counted as device_down: {:#}", stage.moon.json("status").unwrap_or_default())
    })?;
    if stage.count("soft", "/packets")? > 0 {
        bail!("software has carried packets");
    }
    steps.begin("they are put back, and the same SAs carry packets again");
    let before = stage.moon.shared_spis()?;
    for card in &mut stage.cards {
        card.put_back()?;
    }
    let back = process::until(4 * TIME, || Ok(place.pings().is_ok().then_some(())))?;
    back.context("nothing is carried any more")?;
    if stage.moon.shared_spis()? != before {
        bail!("the SAs are others now");
    }
    Ok(())
}
