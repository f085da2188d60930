//! A path that loses, and strangers without number.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story, agree};
use crate::capture;
use crate::flood;
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing, await_tunnel};
use crate::ping;
use crate::process;
use crate::tussock::GATEWAY;
use crate::world::{BOB, SUN};

pub const STORIES: &[Story] = &[
    Story::ours("loss", "a fifth of all UDP is lost each way: five set-ups and six rekeyings succeed", loss),
    Story::ours(
        "flood",
        "strangers flood IKE_SA_INIT: cookies; the tunnel rekeys, friends get in, memory is flat",
        stand,
    ),
];

const LOSS: &str = "
table inet loss {
    chain in {
        type filter hook input priority 0
        udp dport { 500, 4500 } numgen random mod 100 < 20 counter drop
    }
    chain out {
        type filter hook output priority 0
        udp dport { 500, 4500 } numgen random mod 100 < 20 counter drop
    }
}
";

fn loss(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(GATEWAY, "retransmit", "{ tries = 12, first = \"100ms\", base = 1.2 }")?;
    }
    place.world.net.nft("moon", LOSS)?;
    sun.start()?;
    moon.start()?;
    for n in 1..=5 {
        steps.begin(format!("set-up {n}, and its end"));
        moon.up()?;
        agree(&moon, &sun)?;
        moon.down()?;
        await_nothing(&moon, "after the end")?;
        await_nothing(&sun, "after the end")?;
    }
    steps.begin("set up once more");
    moon.up()?;
    let mut before = agree(&moon, &sun)?;
    for (n, end) in [&moon, &sun, &moon].into_iter().enumerate() {
        steps.begin(format!("rekeying {n} of both kinds"));
        end.rekey_child()?;
        before = await_tunnel(&moon, "after a Child rekey", |now| now.child != before.child)?;
        end.rekey_ike()?;
        before = await_tunnel(&moon, "after an IKE rekey", |now| now.ike != before.ike)?;
        await_tunnel(&sun, "after the rekeys", |now| now.ike == before.ike)?;
    }
    steps.begin("packets that are not lost get through");
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("ping.log"))?;
    std::thread::sleep(Duration::from_secs(1));
    let (answered, lost) = stream.end()?;
    // 64 of 100 are expected.
    if answered < 20 || lost.is_empty() {
        bail!("{answered} pings answered and {} lost", lost.len());
    }
    Ok(())
}

/// Requests of strangers a second, and for how long.
const STRANGERS: u32 = 2000;
const FLOOD: Duration = Duration::from_secs(8);
/// What half-open SAs and their like may take at most, octets.
const ROOM: u64 = 24 << 20;

fn stand(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let world = place.world;
    let (mut moon, mut sun) = place.sites()?;
    // Sun takes anybody, so that strangers are not turned away at the door; it is the rate that brings cookies, since
    // half-open SAs would last longer than this story.
    sun.rewrite(|text| text.replace("remote = [\"192.168.0.1\"]\n", ""))?;
    sun.set(GATEWAY, "cookie_threshold", "400")?;
    // Answers to strangers end here.
    world.net.ip("moon", "route add blackhole 172.16.0.0/12\n")?;
    world.net.ip("inet", "addr add 192.168.0.250/24 dev br0\n")?;
    let (file, wire) = (place.results.join("wire.pcap"), place.wire("wire.pcap")?);
    let mut before = place.begin(steps, &mut moon, &mut sun)?;
    wire.finish()?;
    let request = capture::init_request(&file)?;
    let pid = sun.pid().context("sun does not run")?;
    let resident = process::resident(pid)?;

    steps.begin("strangers come, and cookies go on");
    let log = place.results.join("ping.log");
    let stream = ping::Stream::start(world, "alice", BOB, &log)?;
    let flood = flood::begin(world, "inet", request, SUN.parse()?, STRANGERS, FLOOD)?;
    let on = |wanted: bool| -> Result<Option<()>> {
        let status = sun.json("status")?;
        Ok((status.pointer("/ike/cookies").and_then(|on| on.as_bool()) == Some(wanted)).then_some(()))
    };
    process::until(Duration::from_secs(2), || on(true))?.context("no cookies")?;
    for end in [&moon, &sun] {
        steps.begin(format!("{} rekeys in the flood", end.maker()));
        end.rekey_child()?;
        before = await_tunnel(&moon, "after a Child rekey", |now| now.child != before.child)?;
        end.rekey_ike()?;
        before = await_tunnel(&moon, "after an IKE rekey", |now| now.ike != before.ike)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    steps.begin("hardly a ping was lost");
    let (answered, lost) = stream.end()?;
    if answered < 50 || lost.len() * 100 > answered {
        bail!("{} of {} pings were lost", lost.len(), answered + lost.len());
    }
    steps.begin("a friend gets in, with a cookie");
    moon.down()?;
    place.come_up(steps, &moon, &sun)?;
    on(true)?.context("cookies went off while strangers still came")?;
    let sent = flood.finish()?;
    if sent < u64::from(STRANGERS) * FLOOD.as_secs() / 2 {
        bail!("this machine sent only {sent} requests");
    }

    steps.begin("memory and log did not grow with the strangers");
    let grown = process::resident(pid)?.saturating_sub(resident);
    if grown > ROOM {
        bail!("{grown} octets more than before {sent} strangers");
    }
    let half_open = sun.count("/ike/half_open")?;
    if half_open > 400 {
        bail!("{half_open} half-open SAs");
    }
    let log = fs::metadata(sun.log())?.len();
    if log > 100_000 {
        bail!("{log} octets of log for {sent} strangers");
    }
    steps.begin("cookies go off again");
    process::until(Duration::from_secs(12), || on(false))?.context("cookies are still on")?;
    place.pings()
}
