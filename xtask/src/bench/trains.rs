//! The share of the floor: superpackets of one length without end, so that no gateway sleeps and no TCP has its part in it, and
//! what a packet costs either gateway, next to what the floor has for that length: on one thread, and in the gateways' place.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::bare::Bare;
use super::contest::{Carrier, Cipher, Tussocks, come_up};
use super::floor::Floor;
use super::table::{Cell, Table, median};
use super::{Report, Setup};
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
}

/// One batch length in one round.
#[derive(Clone, Copy)]
struct Turn {
    ours: Cost,
    /// In the gateways' place, what no gateway can do without.
    bare: Cost,
    /// The floor's nanoseconds, on one thread.
    floor: [f64; 2],
}

/// Two processes that carry.
pub trait Ends {
    /// The sending one first.
    fn pids(&self) -> Result<[u32; 2]>;
    /// What they have carried so far.
    fn counts(&self) -> Result<Counts>;
}

impl Ends for Tussocks<'_> {
    fn pids(&self) -> Result<[u32; 2]> {
        Carrier::pids(self)
    }

    fn counts(&self) -> Result<Counts> {
        Ok(Counts {
            sealed: self.moon.count("/esp/sealed")?,
            opened: self.sun.count("/esp/opened")?,
            reads: self.moon.count("/tuns/0/reads")?,
            writes: self.sun.count("/tuns/0/writes")?,
        })
    }
}

/// Measure, as often as `setup` says.
pub fn run(setup: &Setup) -> Result<Report> {
    let notes = vec![format!("{} rounds of {} s for each length", setup.runs, setup.seconds)];
    Ok(Report { tables: vec![table(setup)?], notes })
}

fn table(setup: &Setup) -> Result<Table> {
    let batches: &[u32] = if setup.quick { &[44] } else { &[8, 16, 32, 44] };
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); batches.len()];
    for round in 1..=setup.runs {
        eprintln!("round {round} of {}: superpackets", setup.runs);
        let floor = Floor::measure(&setup.world.net, &setup.bench, setup.quick)?;
        let mut bare = Bare::start(setup)?;
        let of_bare = carry_all(setup, &bare, batches).context("in the gateways' place")?;
        bare.stop()?;
        setup.world.build_pair()?;
        let mut ends = Tussocks::new(setup, Cipher::Aes128gcm)?;
        come_up(&mut ends.moon, &mut ends.sun)?;
        let of_ours = carry_all(setup, &ends, batches)?;
        ends.stop()?;
        for ((batch, turns), (ours, bare)) in
            batches.iter().zip(&mut turns).zip(of_ours.into_iter().zip(of_bare))
        {
            let floor = floor.ways(Cipher::Aes128gcm.esp(), f64::from(*batch)).context("an odd floor")?;
            turns.push(Turn { ours, bare, floor });
        }
    }
    let mut table = Table::new(
        "trains",
        "Superpackets without end, AES-128-GCM, packets of 1400 octets: CPU ns per packet; the floor on one thread, and in two processes",
        &[
            "batch",
            "read",
            "written",
            "OUT",
            "IN",
            "bare OUT",
            "bare IN",
            "floor OUT",
            "floor IN",
            "share of bare %",
            "share of floor %",
        ],
    );
    for (batch, turns) in batches.iter().zip(&turns) {
        let of = |pick: fn(&Turn) -> f64| median(turns.iter().map(pick));
        let share = |pick: fn(&Turn) -> [f64; 2]| {
            let both = |ways: [f64; 2]| ways.iter().sum::<f64>();
            Cell::number(median(turns.iter().map(|turn| 100.0 * both(pick(turn)) / both(turn.ours.ns))), 0)
        };
        table.row([
            Cell::number(f64::from(*batch), 0),
            Cell::number(of(|turn| turn.ours.packets[0]), 1),
            Cell::number(of(|turn| turn.ours.packets[1]), 1),
            Cell::number(of(|turn| turn.ours.ns[0]), 0),
            Cell::number(of(|turn| turn.ours.ns[1]), 0),
            Cell::number(of(|turn| turn.bare.ns[0]), 0),
            Cell::number(of(|turn| turn.bare.ns[1]), 0),
            Cell::number(of(|turn| turn.floor[0]), 0),
            Cell::number(of(|turn| turn.floor[1]), 0),
            share(|turn| turn.bare.ns),
            share(|turn| turn.floor),
        ]);
    }
    Ok(table)
}

fn carry_all(setup: &Setup, ends: &impl Ends, batches: &[u32]) -> Result<Vec<Cost>> {
    let one = |batch: &u32| carry(setup, ends, *batch).with_context(|| format!("superpackets of {batch}"));
    batches.iter().map(one).collect()
}

fn carry(setup: &Setup, ends: &impl Ends, batch: u32) -> Result<Cost> {
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
    let before = (meter::cpus(pids)?, ends.counts()?);
    let done = process::finish(&mut send, Duration::from_secs(u64::from(setup.seconds) + 20))?;
    if !done.status.success() {
        bail!("tussock-bench: {}", done.stderr.trim());
    }
    // What is still in queues has its time counted, too; and who counts for himself tells when he has come to rest.
    std::thread::sleep(Duration::from_millis(400));
    let after = (meter::cpus(pids)?, ends.counts()?);
    sink.stop(Signal::TERM, Duration::from_secs(2))?;
    let grown = |pick: fn(&Counts) -> u64| (pick(&after.1) - pick(&before.1)).max(1) as f64;
    let (sealed, opened) = (grown(|counts| counts.sealed), grown(|counts| counts.opened));
    let cpu = |end: usize| (after.0[end] - before.0[end]) * 1e9;
    Ok(Cost {
        ns: [cpu(0) / sealed, cpu(1) / opened],
        packets: [sealed / grown(|counts| counts.reads), opened / grown(|counts| counts.writes)],
    })
}

/// What two ends have carried: the sending one out, the receiving one in.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// Packets sealed.
    pub sealed: u64,
    /// Packets opened.
    pub opened: u64,
    /// Superpackets read.
    pub reads: u64,
    /// Superpackets written.
    pub writes: u64,
}
