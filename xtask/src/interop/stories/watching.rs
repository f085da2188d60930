//! What an operator sees: captured inner packets, events, counters.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use super::{Place, Story, agree, tshark};
use crate::inside;
use crate::interop::course::Steps;
use crate::peer::Peer;
use crate::process;
use crate::tussock::Tussock;
use crate::world::{ALICE, BOB, SUN, World};

pub const STORIES: &[Story] = &[
    Story::ours(
        "capture",
        "tussock capture writes inner packets of both directions, and tshark reads them",
        capture,
    ),
    Story::ours(
        "events",
        "tussock events tells of set-up, rekeyings and end, in order; texts and JSON fit",
        events,
    ),
    Story::ours(
        "garbage",
        "garbage on UDP 500 and 4500 is dropped and counted by its reason; nothing else happens",
        garbage,
    ),
];

fn capture(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (moon, _sun) = place.pair(steps)?;
    steps.begin("pings are captured");
    let file = place.results.join("inside.pcapng");
    let mut capture =
        moon.follow(&["capture", "--out", &file.display().to_string()], &place.results.join("capture.log"))?;
    // The file begins when the gateway has taken in the listener.
    let begun = process::until(Duration::from_secs(2), || {
        Ok(fs::metadata(&file).is_ok_and(|file| file.len() > 0).then_some(()))
    })?;
    begun.context("the capture does not begin")?;
    place.pings()?;
    std::thread::sleep(Duration::from_millis(100));
    if !capture.stop(Signal::INT, Duration::from_secs(2))? {
        bail!("tussock capture does not end");
    }
    steps.begin("tshark reads them");
    let fields = ["frame.interface_name", "icmp.type", "ip.src"].map(|field| ["-e", field]).concat();
    let text = tshark(&file, place.results, &[&["-Y", "icmp", "-T", "fields"], &fields[..]].concat())?;
    let echo = |way: &str, kind: u8, from: &str| {
        let line = format!("{way}\t{kind}\t{from}");
        text.lines().filter(|found| *found == line).count()
    };
    // Alice's three pings and the answers to bob's go in, bob's pings and answers come out.
    let seen =
        [echo("before", 8, ALICE), echo("before", 0, ALICE), echo("after", 8, BOB), echo("after", 0, BOB)];
    if seen != [3; 4] || text.lines().count() != 12 {
        bail!("not three of each: {seen:?}\n{text}");
    }
    let whole = tshark(&file, place.results, &["-V", "-Y", "icmp"])?;
    for bad in ["Malformed", "[incorrect", "Bad checksum"] {
        if whole.contains(bad) {
            bail!("tshark complains: {bad}");
        }
    }
    if !whole.contains("site/net") {
        bail!("packets that came out of the tunnel do not name their child");
    }
    Ok(())
}

fn events(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    sun.start()?;
    moon.start()?;
    let (json, text) = (place.results.join("events.json"), place.results.join("events.txt"));
    let mut as_json = moon.follow(&["events", "--json"], &json)?;
    let mut as_text = moon.follow(&["events"], &text)?;
    std::thread::sleep(Duration::from_millis(300));
    let first = place.come_up(steps, &moon, &sun)?;
    steps.begin("both are rekeyed, and it ends");
    moon.rekey_child()?;
    let second = agree(&moon, &sun)?;
    moon.rekey_ike()?;
    if second.child == first.child || agree(&moon, &sun)?.ike == second.ike {
        bail!("not rekeyed");
    }
    shows(&moon)?;
    moon.down()?;
    std::thread::sleep(Duration::from_millis(300));
    as_json.stop(Signal::INT, Duration::from_secs(2))?;
    as_text.stop(Signal::INT, Duration::from_secs(2))?;
    steps.begin("the events are there, in order");
    let records: Vec<Value> = fs::read_to_string(&json)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect::<Result<_>>()?;
    let times: Vec<f64> = records.iter().filter_map(|record| record["at"].as_f64()).collect();
    if times.len() != records.len() || !times.is_sorted() {
        bail!("events without a time, or out of order: {times:?}");
    }
    let expected: [(&str, Fits); 6] = [
        ("the IKE SA", |r| is(r, "ike-established") && r["peer"] == "sun.lab.test"),
        ("the Child SA", |r| is(r, "child-established") && r["replaces"].is_null()),
        ("its rekeying", |r| is(r, "child-established") && !r["replaces"].is_null()),
        ("the IKE SA's rekeying", |r| is(r, "ike-rekeyed")),
        ("the end of the Child SA", |r| is(r, "child-closed") && r["why"] == "taken down"),
        ("the end of the IKE SA", |r| is(r, "ike-closed") && r["was_up"] == true && r["normal"] == true),
    ];
    let mut rest = records.iter();
    for (what, fits) in expected {
        if !rest.any(fits) {
            bail!("no event of {what}, or not where it belongs; see {}", json.display());
        }
    }
    let lines = fs::read_to_string(&text)?;
    if lines.lines().count() != records.len() || !lines.contains("ike-rekeyed new=") {
        bail!("as text there is something else: {}", text.display());
    }
    Ok(())
}

/// Whether an event is the one looked for.
type Fits = fn(&Value) -> bool;

fn is(record: &Value, event: &str) -> bool {
    record["event"] == event
}

/// `status` and `sas` for people say what the JSON says.
fn shows(moon: &Tussock<'_>) -> Result<()> {
    let (status, sas) = (moon.json("status")?, moon.json("sas")?);
    let shown = (moon.order(&["status"])?, moon.order(&["sas"])?);
    for (at, text) in [("/version", &shown.0), ("/realms/0/name", &shown.0), ("/tuns/0/name", &shown.0)] {
        let word = status.pointer(at).and_then(Value::as_str).with_context(|| format!("no {at}"))?;
        if !text.contains(word) {
            bail!("`status` does not show {at}: {text}");
        }
    }
    for at in ["/spi_i", "/peer_id", "/suite", "/children/0/spi_in", "/children/0/suite"] {
        let at = format!("/ike_sas/0{at}");
        let word = sas.pointer(&at).and_then(Value::as_str).with_context(|| format!("no {at}"))?;
        if !shown.1.contains(word) {
            bail!("`sas` does not show {at}: {}", shown.1);
        }
    }
    if status.pointer("/realms/0/state").and_then(Value::as_str) != Some("up") {
        bail!("the realm is not up: {status:#}");
    }
    Ok(())
}

fn garbage(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (moon, sun) = place.pair(steps)?;
    let before = agree(&moon, &sun)?;
    let world = place.world;
    world.net.ip("inet", "addr add 192.168.0.250/24 dev br0\n")?;
    let sas = sun.json("sas")?;
    let spi = sas.pointer("/ike_sas/0/children/0/spi_in").and_then(Value::as_str).context("no SPI")?;
    let spi = u32::from_str_radix(spi, 16)?;
    let ike = u64::from_str_radix(&before.ike.0, 16)?;
    let esp = |spi: u32, sequence: u32, length: usize| {
        [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &vec![0x5a; length]].concat()
    };
    let ike_message = |spi: u64| {
        // An IKE header of an INFORMATIONAL request, and nothing that could be its content.
        let head = [46, 0x20, 37, 0x08, 0, 0, 0, 7, 0, 0, 0, 60];
        [&[0; 4], &spi.to_be_bytes()[..], &[9; 8], &head, &[0x5a; 32]].concat()
    };
    for (what, path, datagram) in [
        ("ESP for nobody", "/drops/unknown_spi", esp(0x7fff_0001, 1, 64)),
        ("ESP with a number far ahead", "/drops/bad_icv", esp(spi, 1_000_000, 64)),
        ("ESP too short", "/drops/runt", esp(spi, 1_000_000, 8)),
        ("ESP that is no multiple of four", "/drops/misaligned", esp(spi, 1_000_000, 65)),
        ("ESP with a reserved SPI", "/drops/spi_reserved", esp(7, 1, 64)),
    ] {
        steps.begin(what);
        let counted = sun.count(path)?;
        shout(world, &datagram, 20, 4500)?;
        let now = process::until(Duration::from_secs(2), || {
            Ok(Some(sun.count(path)?).filter(|now| *now == counted + 20))
        })?;
        now.with_context(|| format!("{path} was {counted}, and 20 datagrams later {:#}", drops(&sun)))?;
    }
    steps.begin("IKE for nobody, and for the SA that is there");
    let counted = ike_drops(&sun)?;
    shout(world, &ike_message(0x0102_0304), 20, 4500)?;
    shout(world, &ike_message(ike), 20, 4500)?;
    shout(world, &[0x5a; 40], 20, 500)?;
    let now = process::until(Duration::from_secs(2), || {
        Ok(Some(ike_drops(&sun)?).filter(|now| *now >= counted + 60))
    })?;
    now.with_context(|| format!("60 messages were not counted: {:#}", drops(&sun)))?;
    steps.begin("the tunnel does not mind");
    place.pings()?;
    if agree(&moon, &sun)? != before {
        bail!("the tunnel is another one");
    }
    sun.rekey_child()?;
    place.pings()
}

fn drops(end: &Tussock<'_>) -> Value {
    end.json("status").map(|mut status| status["drops"].take()).unwrap_or_default()
}

fn ike_drops(end: &Tussock<'_>) -> Result<u64> {
    let drops = drops(end);
    let of_ike =
        drops.as_object().context("no drops")?.iter().filter(|(reason, _)| reason.starts_with("ike: "));
    Ok(of_ike.filter_map(|(_, count)| count.as_u64()).sum())
}

/// Send a datagram to sun from a stranger's address, some times.
fn shout(world: &World, datagram: &[u8], times: usize, port: u16) -> Result<()> {
    let datagram = datagram.to_vec();
    inside::run(world, "inet", move || {
        let socket = UdpSocket::bind("192.168.0.250:4500")?;
        (0..times).try_for_each(|_| socket.send_to(&datagram, (SUN, port)).map(drop))?;
        Ok(())
    })
}
