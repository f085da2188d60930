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

/// CPU nanoseconds a packet cost the sending and the receiving gateway, and packets in a read and in a write.
type Cost = ([f64; 2], [f64; 2]);

/// Measure, as often as `setup` says.
pub fn table(setup: &Setup, floor: &Floor) -> Result<Table> {
    let batches: &[u32] = if setup.quick { &[44] } else { &[8, 16, 32, 44] };
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); batches.len()];
    for round in 1..=setup.runs {
        eprintln!("round {round} of {}: superpackets", setup.runs);
        setup.world.build_pair()?;
        let mut ends = Tussocks::new(setup, Cipher::Aes128gcm)?;
        come_up(&mut ends.moon, &mut ends.sun)?;
        for (batch, costs) in batches.iter().zip(&mut costs) {
            costs.push(carry(setup, &ends, *batch).with_context(|| format!("superpackets of {batch}"))?);
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
        let [out, back] = [of(|cost| cost.0[0]), of(|cost| cost.0[1])];
        let least = floor.ways(Cipher::Aes128gcm.esp(), f64::from(*batch));
        let share = |floor: Option<f64>, ours: Option<f64>| {
            Cell::number(floor.zip(ours).map(|(floor, ours)| 100.0 * floor / ours), 0)
        };
        let sum = |pair: [Option<f64>; 2]| pair.into_iter().sum::<Option<f64>>();
        let [floor_out, floor_in] = least.map_or([None; 2], |both| both.map(Some));
        table.row([
            Cell::number(f64::from(*batch), 0),
            Cell::number(of(|cost| cost.1[0]), 1),
            Cell::number(of(|cost| cost.1[1]), 1),
            Cell::number(out, 0),
            Cell::number(floor_out, 0),
            Cell::number(back, 0),
            Cell::number(floor_in, 0),
            share(floor_out, out),
            share(floor_in, back),
            share(sum([floor_out, floor_in]), sum([out, back])),
        ]);
    }
    Ok(table)
}

fn carry(setup: &Setup, ends: &Tussocks<'_>, batch: u32) -> Result<Cost> {
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
    Ok((
        [cpu(0) / sealed, cpu(1) / opened],
        [sealed / grown(|counts| counts.reads), opened / grown(|counts| counts.writes)],
    ))
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
