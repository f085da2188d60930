//! What goes through the tunnel, what goes around it, what goes nowhere: carve-outs, and children that share the
//! traffic by protocol and port.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, agree};
use crate::capture;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::peer::Peer;
use crate::ping;
use crate::process;
use crate::tussock::{NET, Tussock};
use crate::world::BOB;

pub const STORIES: &[Story] = &[
    Story::ours(
        "carve-outs",
        "bypass crosses in clear, discard does not cross, priority decides, the rest is encrypted",
        carve_outs,
    ),
    Story::ours(
        "by-port",
        "one child for a TCP port, one for ICMP: each flow takes its SA, others take none",
        by_port,
    ),
];

/// What is sent to each of three addresses behind sun.
const ENCRYPTED: &[u8; 16] = b"through-the-tunn";
const BYPASSED: &[u8; 16] = b"around-in-clear.";
const DISCARDED: &[u8; 16] = b"nowhere-to-be-it";
const AROUND: &str = "10.2.0.20";
const NOWHERE: &str = "10.2.0.21";

fn carve_outs(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    // Clear text is what is to be seen here.
    world.allow_leaks(&["moon", "sun"])?;
    world.net.ip("bob", &format!("addr add {AROUND}/16 dev eth0\naddr add {NOWHERE}/16 dev eth0\n"))?;
    let (mut moon, mut sun) = place.sites()?;
    moon.append(&carve_out("bypass", "10.1.0.0/16", AROUND, 50))?;
    moon.append(&carve_out("discard", "10.1.0.0/16", "10.2.0.16/28", 60))?;
    sun.append(&carve_out("bypass", AROUND, "10.1.0.0/16", 50))?;
    let (file, wire) = (place.results.join("wire.pcap"), place.wire("wire.pcap")?);
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("bypassed traffic gets through, and so does the rest");
    ping::with_words(world, "alice", AROUND, BYPASSED)?;
    ping::with_words(world, "alice", BOB, ENCRYPTED)?;
    steps.begin("discarded traffic does not, and is counted");
    let before = moon.count("/drops/policy_discard")?;
    if ping::with_words(world, "alice", NOWHERE, DISCARDED).is_ok() {
        bail!("pings to {NOWHERE} are answered");
    }
    let discarded = moon.count("/drops/policy_discard")? - before;
    if discarded < 3 {
        bail!("three pings were sent, {discarded} discarded");
    }
    if moon.count("/esp/bypassed")? < 3 || sun.count("/esp/bypassed")? < 3 {
        bail!("bypassed packets are not counted: {:#}", moon.json("status")?);
    }
    steps.begin("the wire saw the bypassed in clear and nothing else");
    let seen = wire.finish()?;
    if seen.others.len() != 6 || seen.esp_in_udp < 6 {
        bail!("three pings and their answers should be in clear: {seen:?}");
    }
    for (words, clear) in [(BYPASSED, true), (ENCRYPTED, false), (DISCARDED, false)] {
        if capture::holds(&file, words)? != clear {
            bail!("{:?}: in clear on the wire should be {clear}", String::from_utf8_lossy(words));
        }
    }
    steps.begin("with the priorities turned round, what was bypassed is discarded");
    let tunnel = agree(&moon, &sun)?;
    moon.rewrite(|text| text.replace("priority = 60", "priority = 40"))?;
    moon.order(&["reload"])?;
    if ping::with_words(world, "alice", AROUND, BYPASSED).is_ok() {
        bail!("pings to {AROUND} are still answered");
    }
    place.pings()?;
    if agree(&moon, &sun)? != tunnel {
        bail!("the tunnel did not outlive a change of carve-outs");
    }
    Ok(())
}

fn carve_out(action: &str, local: &str, remote: &str, priority: u32) -> String {
    format!(
        "[[policy]]\naction = \"{action}\"\nlocal = [\"{local}\"]\nremote = [\"{remote}\"]\npriority = {priority}\n"
    )
}

fn by_port(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let child = |name: &str, local: &str, remote: &str| {
        format!(
            "\n{NET}\nname = \"{name}\"\nlocal = [\"{local}\"]\nremote = [\"{remote}\"]\nesp = [\"aes128gcm16\"]\n"
        )
    };
    let (moons, suns) = ("10.1.0.0/16", "10.2.0.0/16");
    let all = |text: &str, children: [String; 2]| {
        text.split(NET).next().unwrap_or_default().to_owned() + &children.concat()
    };
    let web = format!("{suns}[tcp/7000]");
    let icmp = |net: &str| format!("{net}[icmp]");
    let tcp = |net: &str| format!("{net}[tcp]");
    moon.rewrite(|text| {
        all(text, [child("web", &tcp(moons), &web), child("icmp", &icmp(moons), &icmp(suns))])
    })?;
    sun.rewrite(|text| {
        all(text, [child("web", &web, &tcp(moons)), child("icmp", &icmp(suns), &icmp(moons))])
    })?;
    steps.begin("both gateways start, and both children come up");
    sun.start()?;
    moon.start()?;
    moon.order(&["up", "site"])?;
    let ready = process::until(Duration::from_secs(5), || {
        Ok((carried(&moon, "web").is_ok() && carried(&moon, "icmp").is_ok()).then_some(()))
    })?;
    ready.with_context(|| format!("the children are not there: {:?}", moon.sas()))?;
    steps.begin("pings take the child for ICMP");
    place.pings()?;
    let pinged = (carried(&moon, "web")?, carried(&moon, "icmp")?);
    if pinged != ((0, 0), (6, 6)) {
        bail!("six pings and their answers, and carried are {pinged:?}");
    }
    steps.begin("TCP to the port takes the child for it");
    let flow = Flow::begin(place.world, "alice", "bob", (BOB, 7000), Duration::from_millis(300))?.finish()?;
    let (web, icmp) = (carried(&moon, "web")?, carried(&moon, "icmp")?);
    // A large flow takes at least one packet for every 1400 octets towards bob.
    if web.1 < flow.octets / 1400 || web.0 == 0 || icmp != (6, 6) {
        bail!("{flow:?}, and carried are {web:?} and {icmp:?}");
    }
    steps.begin("TCP to another port takes neither");
    let before = moon.count("/drops/no_policy")?;
    if Flow::begin(place.world, "alice", "bob", (BOB, 7001), Duration::ZERO)?.finish().is_ok() {
        bail!("a connection to port 7001 was made");
    }
    if moon.count("/drops/no_policy")? == before {
        bail!("what fits no child is not counted");
    }
    Ok(())
}

/// Packets in and out of a child, whichever worker's SA they took.
fn carried(end: &Tussock<'_>, name: &str) -> Result<(u64, u64)> {
    let sas = end.json("sas")?;
    let children = sas.pointer("/ike_sas/0/children").and_then(Value::as_array);
    let of_name: Vec<&Value> = children.into_iter().flatten().filter(|child| child["name"] == name).collect();
    if of_name.iter().filter(|child| child["resource"].is_null()).count() != 1 {
        bail!("not one {name}: {sas:#}");
    }
    let count = |key: &str| -> Result<u64> {
        let counts = of_name.iter().map(|child| child.get(key).and_then(Value::as_u64));
        counts.sum::<Option<u64>>().with_context(|| format!("no {key}"))
    };
    Ok((count("packets_in")?, count("packets_out")?))
}
