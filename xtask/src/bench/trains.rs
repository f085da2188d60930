//! The share of the floor: superpackets of one length without end, so that no gateway sleeps and no TCP has its part in it, and
//! what a packet costs either gateway, next to what the floor has for that length.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::Setup;
use super::contest::{Carrier as _, Cipher, Tussocks, come_up};
use super::floor::Floor;
use super::table::{Cell, Table, median};
use crate::meter;
use crate::process::{self, Daemon};
use crate::world::{MOON_INSIDE, SUN_INSIDE};

/// Payload of a packet of 1400 octets.
const OCTETS: u32 = 1372;
const PORT: u16 = 9;

/// What a packet cost in one round.
#[derive(Clone, Copy)]
struct Cost {
    /// CPU nanoseconds of the sending and of the receiving gateway.
    ns: [f64; 2],
    /// Packets in a read and in a write.
    packets: [f64; 2],
    /// The floor's nanoseconds in the same round.
    floor: [f64; 2],
}

/// Measure, as often as `setup` says.
pub fn table(setup: &Setup) -> Result<Table> {
    let batches: &[u32] = if setup.quick { &[44] } else { &[8, 16, 32, 44] };
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); batches.len()];
    for round in 1..=setup.runs {
        eprintln!("round {round} of {}: superpackets", setup.runs);
        let floor = Floor::measure(&setup.world.net, &setup.bench, setup.quick)?;
        setup.world.build_pair()?;
        let mut ends = Tussocks::new(setup, Cipher::Aes128gcm)?;
        come_up(&mut ends.moon, &mut ends.sun)?;
        for (batch, costs) in batches.iter().zip(&mut costs) {
            let least = floor.ways(Cipher::Aes128gcm.esp(), f64::from(*batch)).context("an odd floor")?;
            costs.push(
                carry(setup, &ends, *batch, least).with_context(|| format!("superpackets of {batch}"))?,
            );
        }
        ends.stop()?;
    }
    let mut table = Table::new(
        "trains",
        "Superpackets without end, AES-128-GCM, packets of 1400 octets: CPU ns per packet, and the floor's part of it",
        &[
            "batch",
            "read",
            "written",
            "OUT",
            "floor OUT",
            "IN",
            "floor IN",
            "share OUT %",
            "share IN %",
            "share %",
        ],
    );
    for (batch, costs) in batches.iter().zip(&costs) {
        let of = |pick: fn(&Cost) -> f64| median(costs.iter().map(pick));
        let share = |pick: fn([f64; 2]) -> f64| {
            Cell::number(median(costs.iter().map(|cost| 100.0 * pick(cost.floor) / pick(cost.ns))), 0)
        };
        table.row([
            Cell::number(f64::from(*batch), 0),
            Cell::number(of(|cost| cost.packets[0]), 1),
            Cell::number(of(|cost| cost.packets[1]), 1),
            Cell::number(of(|cost| cost.ns[0]), 0),
            Cell::number(of(|cost| cost.floor[0]), 0),
            Cell::number(of(|cost| cost.ns[1]), 0),
            Cell::number(of(|cost| cost.floor[1]), 0),
            share(|ways| ways[0]),
            share(|ways| ways[1]),
            share(|ways| ways.iter().sum()),
        ]);
    }
    Ok(table)
}

fn carry(setup: &Setup, ends: &Tussocks<'_>, batch: u32, floor: [f64; 2]) -> Result<Cost> {
    let log = setup.results.join("sink.log");
    std::fs::remove_file(&log).ok();
    let mut sink = setup.world.on("sun", &setup.bench);
    sink.args(["trains", "sink", "--at", &format!("{SUN_INSIDE}:{PORT}")]);
    let mut sink = Daemon::start(&mut sink, &log)?;
    let ready = process::until(Duration::from_secs(5), || {
        Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("ready")).then_some(()))
    })?;
    if ready.is_none() {
        bail!("tussock-bench does not listen:\n{}", process::tail(&log, 5));
    }
    let mut send = setup.world.on("moon", &setup.bench);
    send.args(["trains", "send", "--from", MOON_INSIDE, "--to", &format!("{SUN_INSIDE}:{PORT}")]);
    send.args(["--batch", &batch.to_string(), "--octets", &OCTETS.to_string()]);
    send.args(["--seconds", &setup.seconds.to_string()]);
    let pids = ends.pids()?;
    let before = (meter::cpus(pids)?, counts(ends)?);
    let done = process::finish(&mut send, Duration::from_secs(u64::from(setup.seconds) + 20))?;
    if !done.status.success() {
        bail!("tussock-bench: {}", done.stderr.trim());
    }
    // What is still in queues has its time counted, too.
    std::thread::sleep(Duration::from_millis(200));
    let after = (meter::cpus(pids)?, counts(ends)?);
    sink.stop(Signal::TERM, Duration::from_secs(2))?;
    let grown = |pick: fn(&Counts) -> u64| (pick(&after.1) - pick(&before.1)).max(1) as f64;
    let (sealed, opened) = (grown(|counts| counts.sealed), grown(|counts| counts.opened));
    let cpu = |end: usize| (after.0[end] - before.0[end]) * 1e9;
    Ok(Cost {
        ns: [cpu(0) / sealed, cpu(1) / opened],
        packets: [sealed / grown(|counts| counts.reads), opened / grown(|counts| counts.writes)],
        floor,
    })
}

struct Counts {
    sealed: u64,
    opened: u64,
    reads: u64,
    writes: u64,
}

fn counts(ends: &Tussocks<'_>) -> Result<Counts> {
    Ok(Counts {
        sealed: ends.moon.count("/esp/sealed")?,
        opened: ends.sun.count("/esp/opened")?,
        reads: ends.moon.count("/tuns/0/reads")?,
        writes: ends.sun.count("/tuns/0/writes")?,
    })
}
