//! More than a gateway can take: datagrams into the tunnel as fast as a sender can, and first IKE messages of strangers
//! without number, while a tunnel is up and is meant to stay so.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::contest::{Cipher, StrongSwans, Tussocks, Versus, come_up};
use super::crowd::{self, Crowd, Kind, Proof};
use super::gateway::{Gateway, Make, also_for_the_crowd};
use super::pings::{self, Pings};
use super::table::{Cell, Table, median};
use super::throughput::need;
use super::{Report, Setup, rekeys};
use crate::meter;
use crate::process::{self, Daemon};
use crate::tussock::NET;
use crate::world::{BOB, BRIDGE, Layout, MOON};

/// What to measure.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Measure strongSwan in turns with us.
    #[arg(long, value_delimiter = ',')]
    versus: Vec<Versus>,
    /// First messages of strangers a second.
    #[arg(long, default_value_t = 30_000)]
    rate: u32,
    /// Seconds of each flood; with --quick 3.
    #[arg(long, default_value_t = 20)]
    flood_seconds: u32,
}

impl Options {
    /// Everything.
    pub fn all() -> Options {
        Options { versus: vec![Versus::Strongswan], rate: 30_000, flood_seconds: 20 }
    }
}

/// Octets of the datagrams.
const OCTETS: [u32; 2] = [64, 1300];
/// After so long the established tunnel's Child SA is rekeyed, again and again, seconds.
const REKEY: u32 = 3;

/// Measure.
pub fn run(setup: &Setup, options: &Options) -> Result<Report> {
    let versus = !options.versus.is_empty();
    let time = Duration::from_secs(if setup.quick { 3 } else { options.flood_seconds.max(1).into() });
    let mut report = Report::default();
    if versus {
        report.notes.push(need(Versus::Strongswan)?);
    }
    let (mut floods, mut sieges) = (Vec::new(), Vec::new());
    for round in 1..=setup.runs {
        for make in Make::all(versus) {
            for octets in OCTETS {
                eprintln!("round {round} of {}: {}, datagrams of {octets} octets", setup.runs, make.name());
                floods.push((*make, octets, flood(setup, *make, octets, time).with_context(|| make.name())?));
            }
            eprintln!("round {round} of {}: {}, strangers", setup.runs, make.name());
            sieges.push((*make, siege(setup, *make, options.rate, time).with_context(|| make.name())?));
        }
    }
    report.notes.push(format!("{} rounds of {} s; ten pings a second", setup.runs, time.as_secs()));
    report.tables = vec![flood_table(&floods, versus), siege_table(&sieges, versus, time)];
    Ok(report)
}

/// What a flood did to a tunnel.
struct Flooded {
    sent: f64,
    arrived: f64,
    /// Growth of the two gateways, octets.
    grown: [f64; 2],
    pings: Pings,
}

fn flood(setup: &Setup, make: Make, octets: u32, time: Duration) -> Result<Flooded> {
    let (mut moon, mut sun) = start(setup, make)?;
    let pids = [moon.pid()?, sun.pid()?];
    let resident = || -> Result<[u64; 2]> { Ok([process::resident(pids[0])?, process::resident(pids[1])?]) };
    let before = resident()?;
    let arrived_before = arrived(setup)?;
    let pings = pings::begin(setup, time)?;
    let mut sender = setup.world.on("alice", &setup.bench);
    sender.args(["flood", "udp", "--to", &format!("{BOB}:9"), "--octets", &octets.to_string()]);
    sender.args(["--seconds", &time.as_secs_f64().to_string()]);
    let flood = Flooding::start(setup, &mut sender)?;
    let mut most = before;
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(Duration::from_millis(100));
        let now = resident()?;
        most = [most[0].max(now[0]), most[1].max(now[1])];
    }
    // Not what queues let go afterwards.
    let arrived = arrived(setup)? - arrived_before;
    let sent = flood.finish(time)?;
    let pings = pings.finish()?;
    moon.peer().kill();
    sun.peer().kill();
    let grown = [0, 1].map(|end: usize| most[end] as f64 - before[end] as f64);
    let seconds = time.as_secs_f64();
    Ok(Flooded { sent: sent / seconds, arrived: arrived / seconds, grown, pings })
}

/// Datagrams that bob got and nobody wanted (`NoPorts`).
fn arrived(setup: &Setup) -> Result<f64> {
    let text = process::run(setup.world.on("bob", "cat").arg("/proc/net/snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = lines.next().zip(lines.next()).context("an odd /proc/net/snmp")?;
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find(|(name, _)| *name == "NoPorts").context("no NoPorts")?.1;
    Ok(value.parse()?)
}

/// What strangers did to a gateway.
struct Besieged {
    sent: f64,
    /// CPU microseconds for each of them.
    cpu: f64,
    grown: f64,
    pings: Pings,
    rekeys: usize,
    /// How much later than asked for the latest was, seconds.
    late: Option<f64>,
    /// How long each new peer took, seconds; `None`: it did not get in.
    newcomers: Vec<Option<f64>>,
}

/// Peers that come while strangers flood, one after the other.
const NEWCOMERS: u32 = 3;

fn siege(setup: &Setup, make: Make, rate: u32, time: Duration) -> Result<Besieged> {
    let (mut moon, mut sun) = start(setup, make)?;
    let pid = moon.pid()?;
    let world = &setup.world;
    // Answers to strangers end here, and strangers are on the wire between the gateways.
    world.net.ip("moon", "route add blackhole 198.18.0.0/15\n")?;
    world.net.ip("inet", &format!("addr add 192.168.0.250/24 dev {BRIDGE}\n"))?;
    let kind = Kind { tries: 30, window: 1, ..Kind::initiators(Proof::Psk, true) };
    let mut crowd = Crowd::start(setup, &kind)?;
    let before = (process::resident(pid)?, meter::cpu(pid)?);
    let watch = rekeys::Watch::start(setup, MOON)?;
    let pings = pings::begin(setup, time)?;
    let mut sender = world.on("inet", &setup.bench);
    sender.args(["flood", "strangers", "--gateway", MOON, "--rate", &rate.to_string()]);
    sender.args(["--seconds", &time.as_secs_f64().to_string()]);
    let (began, flood) = (Instant::now(), Flooding::start(setup, &mut sender)?);
    sleep(time / 4);
    let mut newcomers = Vec::new();
    for number in 1..=NEWCOMERS {
        let left = time.saturating_sub(began.elapsed());
        let came = crowd.bring_towards(number, left);
        newcomers.push(came.ok().filter(|came| came.up == number).map(|came| came.seconds));
        if newcomers.last() == Some(&None) {
            break;
        }
    }
    sleep(time.saturating_sub(began.elapsed()));
    let after = (process::resident(pid)?, meter::cpu(pid)?);
    let sent = flood.finish(time)?;
    let pings = pings.finish()?;
    let seen = watch.finish()?;
    drop(crowd);
    moon.peer().kill();
    sun.peer().kill();
    Ok(Besieged {
        sent: sent / time.as_secs_f64(),
        cpu: 1e6 * (after.1 - before.1) / sent.max(1.0),
        grown: after.0 as f64 - before.0 as f64,
        pings,
        rekeys: seen.changes.len(),
        late: seen.latest(f64::from(REKEY)),
        newcomers,
    })
}

/// Both gateways of a make with a tunnel between them that moon rekeys every few seconds, and the peers' host on the wire.
fn start(setup: &Setup, make: Make) -> Result<(Gateway<'_>, Gateway<'_>)> {
    setup.world.build(Layout::Sites)?;
    setup.world.join(crowd::HOST, 100)?;
    crowd::make_room(&setup.world, "moon")?;
    let (mut moon, mut sun) = match make {
        Make::Tussock => {
            let Tussocks { moon, sun } = Tussocks::new(setup, Cipher::Aes128gcm)?;
            moon.set(NET, "rekey", &format!("\"{REKEY}s\""))?;
            moon.set(NET, "jitter", "0")?;
            (Gateway::Tussock(moon), Gateway::Tussock(sun))
        }
        Make::StrongSwan => {
            let StrongSwans { moon, sun } = StrongSwans::new(setup, Cipher::Aes128gcm)?;
            moon.append(&format!(
                "connections {{ site {{ children {{ net {{\n  rekey_time = {REKEY}s\n  rand_time = 0s\n  life_time = 60s\n}} }} }} }}\n"
            ))?;
            (Gateway::StrongSwan(moon), Gateway::StrongSwan(sun))
        }
    };
    also_for_the_crowd(&moon)?;
    come_up(moon.peer(), sun.peer())?;
    Ok((moon, sun))
}

/// `tussock-bench flood` in the background.
struct Flooding {
    daemon: Daemon,
}

impl Flooding {
    fn start(setup: &Setup, command: &mut Command) -> Result<Flooding> {
        let log = setup.results.join("flood.log");
        std::fs::remove_file(&log).ok();
        Ok(Flooding { daemon: Daemon::start(command, &log)? })
    }

    /// How many it sent.
    fn finish(mut self, time: Duration) -> Result<f64> {
        process::until(time + Duration::from_secs(10), || Ok(self.daemon.has_ended().then_some(())))?;
        let text = std::fs::read_to_string(self.daemon.log())?;
        let said: Value =
            serde_json::from_str(text.trim()).with_context(|| format!("the flood says {text}"))?;
        said.get("sent").and_then(Value::as_f64).context("the flood does not say how much it was")
    }
}

fn flood_table(floods: &[(Make, u32, Flooded)], versus: bool) -> Table {
    let mut table = Table::new(
        "overload-tunnel",
        "UDP into the tunnel as fast as one sender can, and pings through it",
        &[
            "who",
            "octets",
            "offered kpps",
            "delivered kpps",
            "sender grew MB",
            "receiver grew MB",
            "ping ms",
            "max ms",
            "lost %",
        ],
    );
    for make in Make::all(versus) {
        for octets in OCTETS {
            let of = |figure: &dyn Fn(&Flooded) -> Option<f64>| {
                let fits = floods.iter().filter(|(of, size, _)| of == make && *size == octets);
                median(fits.filter_map(|(_, _, flooded)| figure(flooded)))
            };
            table.row([
                make.name().into(),
                Cell::number(f64::from(octets), 0),
                Cell::number(of(&|flooded| Some(flooded.sent / 1e3)), 0),
                Cell::number(of(&|flooded| Some(flooded.arrived / 1e3)), 0),
                Cell::number(of(&|flooded| Some(flooded.grown[0] / 1e6)), 1),
                Cell::number(of(&|flooded| Some(flooded.grown[1] / 1e6)), 1),
                Cell::number(of(&|flooded| flooded.pings.median()), 1),
                Cell::number(of(&|flooded| flooded.pings.max()), 0),
                Cell::number(of(&|flooded| Some(flooded.pings.lost())), 1),
            ]);
        }
    }
    table
}

fn siege_table(sieges: &[(Make, Besieged)], versus: bool, time: Duration) -> Table {
    let mut table = Table::new(
        "overload-ike",
        format!(
            "IKE_SA_INIT of strangers, while the tunnel rekeys every {REKEY} s (up to {} times) and new peers come",
            time.as_secs() / u64::from(REKEY)
        ),
        &[
            "who",
            "strangers/s",
            "CPU µs each",
            "grew MB",
            "ping ms",
            "max ms",
            "lost %",
            "rekeyings",
            "latest by s",
            "new peer s",
            "slowest s",
            "kept out",
        ],
    );
    for make in Make::all(versus) {
        let all = || sieges.iter().filter(|(of, _)| of == make).map(|(_, besieged)| besieged);
        let of = |figure: &dyn Fn(&Besieged) -> Option<f64>| median(all().filter_map(figure));
        let came = || all().flat_map(|besieged| besieged.newcomers.iter().flatten().copied());
        let kept_out = all().flat_map(|besieged| &besieged.newcomers).filter(|came| came.is_none()).count();
        table.row([
            make.name().into(),
            Cell::number(of(&|besieged| Some(besieged.sent)), 0),
            Cell::number(of(&|besieged| Some(besieged.cpu)), 1),
            Cell::number(of(&|besieged| Some(besieged.grown / 1e6)), 1),
            Cell::number(of(&|besieged| besieged.pings.median()), 1),
            Cell::number(of(&|besieged| besieged.pings.max()), 0),
            Cell::number(of(&|besieged| Some(besieged.pings.lost())), 1),
            Cell::number(of(&|besieged| Some(besieged.rekeys as f64)), 0),
            Cell::number(of(&|besieged| besieged.late), 1),
            Cell::number(median(came()), 3),
            Cell::number(came().reduce(f64::max), 3),
            Cell::number(kept_out as f64, 0),
        ]);
    }
    table
}
