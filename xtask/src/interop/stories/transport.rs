//! Transport mode: host to host, the outer addresses are the inner ones.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story, agree};
use crate::capture;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing};
use crate::ping;
use crate::tussock::{NET, SITE};
use crate::world::{MOON, MOON6, SUN, SUN6};

pub const STORIES: &[Story] = &[
    Story::ours(
        "transport",
        "transport mode, ESP as protocol 50: pings and TCP both ways, nothing in clear",
        |p, s| transport(p, s, "raw", MOON, SUN),
    ),
    Story::ours(
        "transport-udp",
        "transport mode, ESP in UDP: pings and TCP both ways, nothing in clear",
        |p, s| transport(p, s, "udp", MOON, SUN),
    ),
    Story::ours(
        "transport-v6",
        "transport mode over IPv6: pings and TCP both ways, nothing in clear",
        |p, s| transport(p, s, "raw", MOON6, SUN6),
    ),
];

const WORDS: &[u8; 16] = b"host-to-host-txt";

fn transport(place: &Place<'_>, steps: &mut Steps, encap: &str, one: &str, other: &str) -> Result<()> {
    let before = place.stock()?;
    let (mut moon, mut sun) = place.sites()?;
    for (end, own, peer) in [(&moon, one, other), (&sun, other, one)] {
        end.set(SITE, "local", &format!("[\"{own}\"]"))?;
        end.set(SITE, "remote", &format!("[\"{peer}\"]"))?;
        end.set(SITE, "encap", &format!("\"{encap}\""))?;
        end.set(NET, "mode", "\"transport\"")?;
        end.set(NET, "local", "[\"dynamic\"]")?;
        end.set(NET, "remote", "[\"dynamic\"]")?;
    }
    let capture = place.wire("wire.pcap")?;
    steps.begin("both gateways start, and the pair comes up");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    agree(&moon, &sun)?;
    let sas = moon.json("sas")?;
    if sas.pointer("/ike_sas/0/children/0/mode").and_then(|mode| mode.as_str()) != Some("transport") {
        bail!("it is not transport mode: {sas}");
    }
    let world = place.world;
    steps.begin("pings both ways");
    ping::with_words(world, "moon", other, WORDS)?;
    ping::with_words(world, "sun", one, WORDS)?;
    steps.begin("TCP both ways");
    for (from, to, at) in [("moon", "sun", other), ("sun", "moon", one)] {
        let carried = Flow::begin(world, from, to, (at, 7000), Duration::from_millis(500))?.finish();
        let carried = carried.with_context(|| format!("TCP from {from}"))?;
        if carried.octets < 100_000 {
            bail!("TCP from {from} carried only {} octets", carried.octets);
        }
    }
    steps.begin("rekeyed, and ended");
    moon.rekey_child()?;
    agree(&moon, &sun)?;
    ping::with_words(world, "moon", other, WORDS)?;
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    moon.stop()?;
    sun.stop()?;
    before.iter().try_for_each(|host| host.must_return(world, "after both have ended"))?;
    steps.begin("the wire saw IKE and ESP only");
    let seen = capture.finish()?;
    if let Some(odd) = seen.others.first() {
        bail!("{} packets that are neither IKE nor ESP, the first: {odd}", seen.others.len());
    }
    let (right, wrong) =
        if encap == "udp" { (seen.esp_in_udp, seen.esp_raw) } else { (seen.esp_raw, seen.esp_in_udp) };
    if right < 100 || wrong > 0 || capture::holds(&place.results.join("wire.pcap"), WORDS)? {
        bail!("not what was asked for on the wire: {seen:?}");
    }
    Ok(())
}
