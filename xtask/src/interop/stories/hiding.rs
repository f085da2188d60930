//! Traffic-flow confidentiality: what an observer learns from sizes and times.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Place, Story, tshark};
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::process;
use crate::tussock::NET;
use crate::world::{BOB, MOON, SUN};

pub const STORIES: &[Story] = &[Story::ours(
    "tfc",
    "padded to one size, and dummies while nobody speaks: all packets look the same",
    tfc,
)];

fn tfc(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(NET, "tfc", "1300")?;
        end.set(NET, "dummy", "\"50ms\"")?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    let (idle, pings, tcp) = ("idle.pcap", "pings.pcap", "tcp.pcap");
    steps.begin("nobody speaks");
    let wire = place.wire(idle)?;
    std::thread::sleep(Duration::from_secs(1));
    wire.finish()?;
    steps.begin("pings of many sizes");
    let wire = place.wire(pings)?;
    for size in ["0", "56", "500", "1000", "1270"] {
        process::run(
            place.world.on("alice", "ping").args(["-nqc", "2", "-i", "0.02", "-W", "1", "-s", size, BOB]),
        )?;
    }
    wire.finish()?;
    steps.begin("TCP");
    let wire = place.wire(tcp)?;
    let carried =
        Flow::begin(place.world, "alice", "bob", (BOB, 7000), Duration::from_millis(300))?.finish()?;
    wire.finish()?;
    if carried.octets < 100_000 {
        bail!("TCP carried only {carried:?}");
    }
    steps.begin("one size each way, and never silence");
    for (file, one_size) in [(idle, true), (pings, true), (tcp, false)] {
        let text = tshark(
            &place.results.join(file),
            place.results,
            &["-Y", "esp", "-T", "fields", "-e", "ip.src", "-e", "frame.len"],
        )?;
        for from in [MOON, SUN] {
            let sizes = text.lines().filter_map(|line| line.strip_prefix(from)?.trim().parse::<usize>().ok());
            let (count, sizes) = (sizes.clone().count(), sizes.collect::<BTreeSet<_>>());
            if count < 10 {
                bail!("{file}: {from} sent only {count} packets");
            }
            // Nothing is smaller than the padded size: Ethernet, IP, UDP and ESP around 1300 octets.
            let least = 14 + 20 + 8 + 32 + 1300;
            let right = sizes.first().is_some_and(|first| (least..least + 8).contains(first));
            if !right || (one_size && sizes.len() != 1) {
                bail!("{file}: {from} sent packets of {sizes:?} octets");
            }
        }
    }
    place.pings()
}
