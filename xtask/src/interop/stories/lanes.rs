//! The data path by itself: several lanes, superpackets and their absence, what goes first, and budgets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, tshark};
use crate::inside::{self, Flow};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_tunnel};
use crate::ping;
use crate::process;
use crate::tussock::{GATEWAY, SITE, Tussock};
use crate::world::{ALICE, BOB};

pub const STORIES: &[Story] = &[
    Story::ours(
        "lanes",
        "three lanes at each end: flows of both directions are whole, packets are handed to the lane with the SA",
        lanes,
    ),
    Story::ours(
        "sas-per-worker",
        "a worker with packets has a Child SA of its own set up beside the one for all (RFC 9611), and loses it with that",
        own_sas,
    ),
    Story::ours(
        "worker",
        "worker = 1: all SAs of the realm are that worker's, and no other has SAs of its own",
        worker,
    ),
    Story::ours(
        "superpackets",
        "TCP travels in superpackets, and a capture shows the packets they stand for, all checksums right",
        superpackets,
    ),
    Story::ours(
        "no-superpackets",
        "offload = false: one packet in a read and a write, and nothing else is different",
        without,
    ),
    Story::ours(
        "tap",
        "tun_kind = \"tap\": a device of Ethernet carries the same, with superpackets, and answers ARP and ND",
        tap,
    ),
    Story::ours("latency", "mode = \"latency\": each packet is a burst", latency),
    Story::ours(
        "cpu-share",
        "cpu_share holds a flood back, and critical packets pass it without loss",
        share,
    ),
];

/// How long flows go on.
const TIME: Duration = Duration::from_secs(2);
/// A port of nothing special, and that of BFD.
const PLAIN: u16 = 9000;
const BFD: u16 = 3784;

fn both_ways(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    steps.begin("flows of both directions are whole");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7000), TIME)?;
    for flow in [there, back] {
        let carried = flow.finish()?;
        // A megabyte is nothing, and shows that windows opened.
        if carried.octets < 1 << 20 {
            bail!("it carried {} octets in {} s", carried.octets, TIME.as_secs());
        }
    }
    Ok(())
}

fn lanes(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(GATEWAY, "workers", "3")?;
        end.set(GATEWAY, "sas_per_worker", "false")?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    both_ways(place, steps)?;
    steps.begin("datagrams of many flows arrive, whichever lane reads them");
    let sent = 600;
    let got = datagrams(place, (1..=sent).map(|n| (PLAIN, n as u16)).collect(), Duration::from_millis(1))?;
    if got.len() < usize::from(sent as u16) {
        bail!("{} of {sent} arrived", got.len());
    }
    let status = moon.json("status")?;
    let lanes = status.pointer("/lanes").and_then(Value::as_array).context("no lanes in the status")?;
    let count =
        |key: &str| lanes.iter().filter_map(|lane| lane.get(key).and_then(Value::as_u64)).collect::<Vec<_>>();
    let (sas, handed) = (count("sas"), count("handed"));
    if lanes.len() != 3 || sas.iter().sum::<u64>() != 2 || handed.iter().sum::<u64>() == 0 {
        bail!("SAs by lane {sas:?}, handed over {handed:?}");
    }
    steps.begin("rekeying keeps it going, and the end leaves nothing");
    moon.rekey_child()?;
    both_ways(place, steps)?;
    place.pings()?;
    moon.stop()?;
    sun.stop()?;
    Ok(())
}

fn own_sas(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(GATEWAY, "workers", "3")?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    let many = |n: u16| (1..=n).map(|number| (PLAIN, number)).collect::<Vec<_>>();
    let gap = Duration::from_millis(2);
    steps.begin("traffic of many flows has every worker ask for an SA");
    datagrams(place, many(300), gap)?;
    let workers = || -> Result<Vec<Option<u64>>> {
        let sas = moon.json("sas")?;
        let children =
            sas.pointer("/ike_sas/0/children").and_then(Value::as_array).context("no Child SAs")?;
        let mut workers: Vec<_> =
            children.iter().map(|child| child.get("resource").and_then(Value::as_u64)).collect();
        workers.sort_unstable();
        Ok(workers)
    };
    let have = process::until(TIME, || Ok(Some(workers()?).filter(|workers| workers.len() == 3)))?;
    let have = have.with_context(|| format!("Child SAs are for workers {:?}", workers().ok()))?;
    let ([None, Some(one), Some(other)], true) = (&have[..], have.windows(2).all(|two| two[0] != two[1]))
    else {
        bail!("Child SAs are for workers {have:?}");
    };
    steps.begin("every worker sends with its own, if only after a while");
    let sending = || -> Result<bool> {
        let sas = moon.json("sas")?;
        let children =
            sas.pointer("/ike_sas/0/children").and_then(Value::as_array).context("no Child SAs")?;
        let sends = |worker: &u64| children.iter().any(|c| c["resource"] == *worker && c["sending"] == true);
        Ok([one, other].into_iter().all(sends))
    };
    process::until(4 * TIME, || Ok(sending()?.then_some(())))?
        .with_context(|| format!("one is not: {:#}", moon.json("sas").unwrap_or_default()))?;
    steps.begin("then nothing is handed over any more, and all arrives");
    let handed = || -> Result<u64> {
        let status = moon.json("status")?;
        let lanes = status.pointer("/lanes").and_then(Value::as_array).context("no lanes")?;
        Ok(lanes.iter().filter_map(|lane| lane.get("handed").and_then(Value::as_u64)).sum())
    };
    let before = handed()?;
    let sent = 300;
    let got = datagrams(place, many(sent), gap)?;
    let after = handed()?;
    if got.len() < usize::from(sent) || after != before {
        bail!("{} of {sent} arrived, {} handed over; workers {one} and {other}", got.len(), after - before);
    }
    both_ways(place, steps)?;
    steps.begin("the one for all is rekeyed and they stay beside it");
    moon.rekey_child()?;
    both_ways(place, steps)?;
    if workers()?.len() != 3 {
        bail!("Child SAs are for workers {:?}", workers()?);
    }
    place.pings()
}

fn worker(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(GATEWAY, "workers", "3")?;
        end.set(SITE, "worker", "1")?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("datagrams of many flows arrive");
    let sent = 300;
    let got = datagrams(place, (1..=sent).map(|n| (PLAIN, n)).collect(), Duration::from_millis(1))?;
    if got.len() < usize::from(sent) {
        bail!("{} of {sent} arrived", got.len());
    }
    steps.begin("by one SA of worker 1, also after a rekey");
    for again in [true, false] {
        for end in [&moon, &sun] {
            let sas = end.json("sas")?;
            let children = sas.pointer("/ike_sas/0/children").and_then(Value::as_array).context("no SAs")?;
            let spi = |child: &Value| u32::from_str_radix(child.get("spi_in")?.as_str()?, 16).ok();
            let workers: Vec<_> = children.iter().map(|child| spi(child).map(|spi| spi % 3)).collect();
            if workers != [Some(1)] {
                bail!("Child SAs are with workers {workers:?}");
            }
        }
        if again {
            moon.rekey_child()?;
            for end in [&moon, &sun] {
                await_tunnel(end, "after the rekey", |_| true)?;
                // The old pair takes late packets for a while, on this worker too.
                let alone = || Ok(end.sas()?.iter().all(|sa| sa.children.len() == 1).then_some(()));
                process::until(8 * TIME, alone)?.context("the old pair stays")?;
            }
        }
    }
    place.pings()
}

fn superpackets(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("a capture listens");
    let file = place.results.join("inside.pcapng");
    let log = place.results.join("capture.log");
    let arguments = ["capture", "--out", file.to_str().context("an odd path")?];
    let mut listening = moon.follow(&arguments, &log)?;
    let there = process::until(Duration::from_secs(2), || Ok(file.exists().then_some(())))?;
    there.context("no capture")?;
    ping::check(place.world, "alice", BOB)?;
    both_ways(place, steps)?;
    listening.stop(rustix::process::Signal::INT, Duration::from_secs(2))?;
    were_superpackets(&[(&moon, "moon"), (&sun, "sun")], steps)?;
    steps.begin("tshark finds every packet of the capture in order");
    let home = place.results.join("tshark");
    let check = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let bad = "tcp.checksum.status == 0 || ip.checksum.status == 0 || frame.len > 1400";
    let text = tshark(&file, &home, &[&check[..], &["-Y", bad]].concat())?;
    if !text.trim().is_empty() {
        bail!("odd packets:\n{}", text.lines().take(5).collect::<Vec<_>>().join("\n"));
    }
    let all = tshark(&file, &home, &["-Y", "tcp.len > 1000"])?.lines().count();
    if all < 100 {
        bail!("only {all} full segments in the capture");
    }
    Ok(())
}

fn were_superpackets(ends: &[(&Tussock<'_>, &str)], steps: &mut Steps) -> Result<()> {
    steps.begin("they were superpackets");
    for (end, name) in ends {
        let [read, written] = packets_a_call(end)?;
        if read < 2.0 || written < 2.0 {
            bail!("{name}: {read:.1} packets in a read, {written:.1} in a write");
        }
    }
    Ok(())
}

fn tap(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(GATEWAY, "tun_kind", "\"tap\"")?;
    place.begin(steps, &mut moon, &mut sun)?;
    both_ways(place, steps)?;
    were_superpackets(&[(&moon, "moon")], steps)?;
    steps.begin("with ARP turned on the kernel asks, and is answered");
    let device = moon.json("status")?;
    let device = device.pointer("/tuns/0/name").and_then(Value::as_str).context("no TUN in the status")?;
    let ip =
        |arguments: &[&str]| -> Result<String> { process::run(place.world.on("moon", "ip").args(arguments)) };
    ip(&["link", "set", "dev", device, "arp", "on"])?;
    ip(&["neigh", "flush", "dev", device])?;
    place.pings()?;
    let known = ip(&["neigh", "show", "dev", device])?;
    if !known.lines().any(|line| line.starts_with(BOB) && line.contains("lladdr")) {
        bail!("the kernel knows {known:?}");
    }
    Ok(())
}

fn without(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(GATEWAY, "offload", "false")?;
    place.begin(steps, &mut moon, &mut sun)?;
    both_ways(place, steps)?;
    let [read, written] = packets_a_call(&moon)?;
    if (read, written) != (1.0, 1.0) {
        bail!("{read} packets in a read, {written} in a write");
    }
    Ok(())
}

fn latency(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(SITE, "mode", "\"latency\"")?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("datagrams close behind each other are bursts of their own");
    let got = datagrams(place, vec![(PLAIN, 1); 200], Duration::ZERO)?;
    if got.is_empty() {
        bail!("none arrived");
    }
    let status = moon.json("status")?;
    let of = |key: &str| -> u64 {
        let lanes = status.pointer("/lanes").and_then(Value::as_array);
        lanes.into_iter().flatten().filter_map(|lane| lane.get(key).and_then(Value::as_u64)).sum()
    };
    if of("sealed") + of("opened") != of("bursts") {
        bail!("{} sealed, {} opened, {} bursts", of("sealed"), of("opened"), of("bursts"));
    }
    both_ways(place, steps)
}

fn share(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(SITE, "cpu_share", "0.02")?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("a flood comes");
    // What the kernel drops in front of the gateway, the gateway cannot tell apart. So the device's queue is long, and the
    // flood is many times the share, but less than the machine can read.
    place.world.net.ip("moon", "link set ipsec0 txqueuelen 10000\n")?;
    let to = SocketAddr::new(BOB.parse::<IpAddr>()?, PLAIN + 1);
    let flood = inside::begin(place.world, "alice", move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let end = Instant::now() + 2 * TIME;
        while Instant::now() < end {
            for _ in 0..30 {
                socket.send_to(&[7; 1200], to)?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;
    let dropped = || moon.count("/drops/cpu_share");
    let held = process::until(TIME, || Ok((dropped().unwrap_or(0) > 0).then_some(())))?;
    held.context("nothing is held back")?;
    steps.begin("critical packets pass it");
    let sent = 100;
    let got = datagrams(place, vec![(BFD, 1); sent], Duration::from_millis(10))?;
    flood.finish()?;
    if got.len() < sent {
        bail!("{} of {sent} critical packets arrived", got.len());
    }
    steps.begin("and when it is over and worked off, all is as before");
    let waiting = || -> Result<u64> {
        let status = moon.json("status")?;
        let lanes = status.pointer("/lanes").and_then(Value::as_array).context("no lanes")?;
        let shares = lanes.iter().filter_map(|lane| lane.get("shares").and_then(Value::as_array)).flatten();
        Ok(shares.filter_map(|share| share.get(2).and_then(Value::as_u64)).sum())
    };
    let over = process::until(TIME, || Ok((waiting()? == 0).then_some(())))?;
    over.context("bursts wait without end")?;
    place.pings()
}

/// Packets in one read and in one write of an end's TUN device, on average.
fn packets_a_call(end: &Tussock<'_>) -> Result<[f64; 2]> {
    let count = |key: &str| -> Result<f64> { Ok(end.count(&format!("/tuns/0/{key}"))? as f64) };
    Ok([count("read")? / count("reads")?, count("written")? / count("writes")?])
}

/// Sends a datagram from alice to bob to each of these ports, from as many sockets as there are numbers, and returns those
/// that arrived.
fn datagrams(place: &Place<'_>, list: Vec<(u16, u16)>, pause: Duration) -> Result<Vec<(u16, u16)>> {
    let mut ports: Vec<u16> = list.iter().map(|(port, _)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    let sockets = inside::run(place.world, "bob", move || {
        let open = |port: &u16| UdpSocket::bind(("0.0.0.0", *port)).map(|socket| (*port, socket));
        Ok(ports.iter().map(open).collect::<std::io::Result<Vec<_>>>()?)
    })?;
    let listening = sockets.into_iter().map(|(port, socket)| {
        inside::begin(place.world, "bob", move || {
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            let (mut buffer, mut got) = ([0; 16], Vec::new());
            while let Ok(2) = socket.recv(&mut buffer) {
                got.push((port, u16::from_be_bytes([buffer[0], buffer[1]])));
            }
            Ok(got)
        })
    });
    let listening = listening.collect::<Result<Vec<_>>>()?;
    inside::run(place.world, "alice", move || {
        let mut socket = (0, UdpSocket::bind("0.0.0.0:0")?);
        for (port, number) in &list {
            if socket.0 != *number {
                socket = (*number, UdpSocket::bind("0.0.0.0:0")?);
            }
            socket.1.send_to(&number.to_be_bytes(), (BOB, *port))?;
            std::thread::sleep(pause);
        }
        Ok(())
    })?;
    let got = listening.into_iter().map(inside::Going::finish).collect::<Result<Vec<_>>>()?;
    Ok(got.concat())
}
