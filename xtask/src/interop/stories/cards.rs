//! Emulated cards in moon, and everything that can go wrong with one: traffic of both directions goes on, whole, with the same SAs
//! and without a sequence number used twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::capture::{self, Capture};
use crate::cards::{self, Card};
use crate::checkout::Profile;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::process;
use crate::tussock::{SITE, Tussock};
use crate::world::{ALICE, BOB, BRIDGE};

/// A story of one kind of fault, which happens some times in the traffic.
macro_rules! fault {
    ($name:literal, $shows:literal, $plan:literal) => {
        Story::ours($name, $shows, |place, steps| faulty(place, steps, $plan))
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
    fault!("card-delay", "completions come late", "kind = \"delay\"\nby = \"20ms\"\nafter = 200\ntimes = 20"),
    fault!(
        "card-reorder",
        "completions come in another order",
        "kind = \"reorder\"\njobs = 3\nafter = 200\ntimes = 20"
    ),
    fault!(
        "card-lost",
        "a completion never comes",
        "kind = \"lost-completion\"\nservice = \"sym\"\nafter = 500"
    ),
    fault!("card-doubled", "completions come twice", "kind = \"doubled-completion\"\nafter = 300\ntimes = 5"),
    fault!(
        "card-cookie",
        "a completion is in the name of another",
        "kind = \"wrong-cookie\"\nservice = \"sym\"\nafter = 500"
    ),
    fault!(
        "card-flip",
        "results have a wrong bit",
        "kind = \"flip-bit\"\nservice = \"sym\"\nafter = 500\ntimes = 5"
    ),
    fault!(
        "card-engine",
        "the engine fails",
        "kind = \"engine-error\"\nservice = \"sym\"\nafter = 500\ntimes = 3"
    ),
    fault!(
        "card-full",
        "a ring takes nothing for a while",
        "kind = \"ring-full\"\nfor = \"100ms\"\nservice = \"sym\"\nafter = 500"
    ),
    fault!(
        "card-slow",
        "a card gets slow",
        "kind = \"slow\"\nfactor = 50.0\nfor = \"1s\"\nservice = \"sym\"\nafter = 500"
    ),
    fault!("card-uncorrectable", "an error that only a reset mends", "kind = \"uncorrectable\"\nat = \"3s\""),
    fault!(
        "card-restart",
        "the card's owner restarts it",
        "kind = \"restart\"\ngrace = \"100ms\"\naway = \"500ms\"\nat = \"3s\""
    ),
    fault!("card-silence", "a card stops without a word", "kind = \"silence\"\nat = \"3s\""),
    fault!("card-unplug", "a card is gone for good", "kind = \"unplug\"\nat = \"3s\""),
    fault!(
        "card-slow-reset",
        "an error, and then a reset that takes long",
        "kind = \"uncorrectable\"\nat = \"3s\"\n\n[[fault]]\nkind = \"slow-reset\"\nfor = \"700ms\"\nafter = 1"
    ),
    fault!(
        "card-no-interrupt",
        "interrupts do not come",
        "kind = \"lost-interrupt\"\nafter = 50\ntimes = 10"
    ),
    fault!(
        "card-false-interrupt",
        "interrupts come for nothing",
        "kind = \"spurious-interrupt\"\nafter = 50\ntimes = 10"
    ),
];

/// How long flows go on around a fault.
const TIME: Duration = Duration::from_secs(5);

/// Moon with two cards, the first of which has a plan.
struct Stage<'w> {
    moon: Tussock<'w>,
    sun: Tussock<'w>,
    cards: [Card; 2],
}

impl<'w> Stage<'w> {
    fn set(place: &Place<'w>, plan: Option<&str>) -> Result<Stage<'w>> {
        let emulator = cards::build(Profile::Dev)?;
        let state = place.world.state("moon")?;
        let plan = plan.map(|plan| format!("seed = 7\n\n[[fault]]\n{plan}\n"));
        let insert =
            |name: &str, plan: Option<&str>| Card::insert(name, &emulator, &state, place.results, plan);
        let cards = [insert("qat0", plan.as_deref())?, insert("qat1", None)?];
        let (moon, sun) = place.sites()?;
        moon.append(&format!("{}\n\n{}", cards[0].section(), cards[1].section()))?;
        Ok(Stage { moon, sun, cards })
    }

    fn begin(&mut self, place: &Place<'_>, steps: &mut Steps) -> Result<()> {
        let up = place.begin(steps, &mut self.moon, &mut self.sun);
        up.map(drop).with_context(|| self.drops())
    }

    /// What both ends have dropped, for when something is missing.
    fn drops(&self) -> String {
        let of = |end: &Tussock<'_>| end.json("status").map(|status| status["drops"].to_string());
        format!("moon dropped {:?}, sun {:?}", of(&self.moon), of(&self.sun))
    }

    /// What moon says of a device.
    fn device(&self, name: &str) -> Result<Value> {
        let all = self.moon.json("accel")?;
        let list = all.get("devices").and_then(Value::as_array).context("no devices")?;
        let found = list.iter().find(|device| device.pointer("/device/name").is_some_and(|n| n == name));
        found.cloned().with_context(|| format!("no device {name} in {all:#}"))
    }

    fn count(&self, name: &str, path: &str) -> Result<u64> {
        let device = self.device(name)?;
        device.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path} in {device:#}"))
    }

    fn is_ready(&self, name: &str) -> Result<bool> {
        Ok(self.device(name)?.pointer("/device/health").is_some_and(|health| health == "ready"))
    }

    /// Inbound SPIs of the Child SAs that are for all workers.
    fn spis(&self) -> Result<Vec<String>> {
        let sas = self.moon.json("sas")?;
        let children =
            sas.pointer("/ike_sas/0/children").and_then(Value::as_array).context("no Child SAs")?;
        let for_all = children.iter().filter(|child| child["resource"].is_null());
        Ok(for_all.filter_map(|child| child["spi_in"].as_str().map(str::to_owned)).collect())
    }

    /// Nothing is left in a queue, or waits for one.
    fn is_idle(&self) -> Result<bool> {
        let all = self.moon.json("accel")?;
        let devices = all.get("devices").and_then(Value::as_array).context("no devices")?;
        let queues = devices.iter().filter_map(|device| device.get("queues")?.as_array()).flatten();
        Ok(queues
            .flat_map(|queue| [queue.get("in_flight"), queue.get("waiting")])
            .all(|count| count.and_then(Value::as_u64) == Some(0)))
    }
}

/// Flows of both directions while something happens. They are whole, the SAs are the same, no number was used twice, and in the end
/// nothing is left in a queue.
fn around(
    place: &Place<'_>,
    steps: &mut Steps,
    stage: &mut Stage<'_>,
    happens: impl FnOnce(&mut Stage<'_>, &mut Steps) -> Result<()>,
) -> Result<()> {
    // A capture would show superpackets, and only the number of the first in each.
    for host in ["moon", "sun"] {
        place.world.net.ip(host, "link set eth0 gso_max_segs 1\n")?;
    }
    let file = place.results.join("numbers.pcap");
    let wire = Capture::start_cut(place.world, "inet", BRIDGE, &file, "udp port 4500 or ip proto 50", 64)?;
    let before = stage.spis()?;
    steps.begin("traffic goes both ways");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
    happens(stage, steps)?;
    steps.begin("the traffic arrives, and is what was sent");
    let (there, back) = (there.finish()?, back.finish()?);
    wire.finish()?;
    if there.octets < 1 << 20 || back.octets < 1 << 20 {
        bail!("{there:?} there, {back:?} back");
    }
    steps.begin("with the same SAs, and no number twice");
    if stage.spis()? != before {
        bail!("the SAs are others now");
    }
    no_number_twice(&file)?;
    steps.begin("and nothing is left in a queue");
    process::until(2 * TIME, || Ok(stage.is_idle()?.then_some(())))?
        .with_context(|| format!("something is left: {:#}", stage.moon.json("accel").unwrap_or_default()))?;
    place.pings().with_context(|| stage.drops())
}

fn no_number_twice(file: &Path) -> Result<()> {
    let all = capture::sequence_numbers(file)?;
    if all.len() < 2 {
        bail!("the capture has {} SAs", all.len());
    }
    for (spi, numbers) in all {
        let different = numbers.iter().collect::<BTreeSet<_>>().len();
        if different != numbers.len() {
            bail!("SPI {spi:08x}: {} sequence numbers used again", numbers.len() - different);
        }
    }
    Ok(())
}

fn faulty(place: &Place<'_>, steps: &mut Steps, plan: &str) -> Result<()> {
    let mut stage = Stage::set(place, Some(plan))?;
    stage.begin(place, steps)?;
    around(place, steps, &mut stage, |_, _| Ok(()))?;
    steps.begin("the fault has happened");
    if stage.cards[0].faults()? == 0 {
        bail!("none has; moon says {:#}", stage.device("qat0")?);
    }
    Ok(())
}

fn pulled(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut stage = Stage::set(place, None)?;
    stage.begin(place, steps)?;
    steps.begin("the key exchange was done by a card");
    let operations = stage.count("qat0", "/operations")? + stage.count("qat1", "/operations")?;
    if operations == 0 {
        bail!("no card has done an operation: {:#}", stage.moon.json("accel")?);
    }
    around(place, steps, &mut stage, |stage, steps| {
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
    steps.begin("the card is used again");
    for name in ["qat0", "qat1"] {
        let ready = process::until(3 * TIME, || Ok(stage.is_ready(name)?.then_some(())))?;
        ready.with_context(|| format!("{name} does not come back"))?;
    }
    if stage.count("soft", "/packets")? > 0 {
        bail!("software has carried packets, though a card was there all the time");
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
    let before = stage.spis()?;
    for card in &mut stage.cards {
        card.put_back()?;
    }
    let back = process::until(4 * TIME, || Ok(place.pings().is_ok().then_some(())))?;
    back.context("nothing is carried any more")?;
    if stage.spis()? != before {
        bail!("the SAs are others now");
    }
    Ok(())
}
