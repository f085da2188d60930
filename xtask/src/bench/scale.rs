//! Throughput of one tunnel while its gateway holds many other Child SAs: real ones, of peers that came in from outside, each
//! with selectors of its own.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::contest::{Cipher, QUIET, Versus, come_up, ends};
use super::crowd::{self, Crowd, Kind, Proof};
use super::gateway::{CROWDED, Gateway, Make, also_for_the_crowd, prepare};
use super::table::{Cell, Table, median};
use super::throughput::need;
use super::{Report, Setup};
use crate::strongswan::{Release, StrongSwan};
use crate::traffic::{self, Carried, Load, Way};
use crate::tussock::Tussock;
use crate::world::Layout;

/// What to measure.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Numbers of other Child SAs, in ascending order.
    #[arg(long, value_delimiter = ',')]
    others: Vec<u32>,
    /// Measure strongSwan, with a thousand, in turns with us.
    #[arg(long, value_delimiter = ',')]
    versus: Vec<Versus>,
}

impl Options {
    /// Everything.
    pub fn all() -> Options {
        Options { others: Vec::new(), versus: vec![Versus::Strongswan] }
    }

    fn others(&self, make: Make, quick: bool) -> Vec<u32> {
        let wanted = match (self.others.is_empty(), quick) {
            (false, _) => self.others.clone(),
            (true, true) => vec![0, 500],
            (true, false) => vec![0, 1000, 10_000, 100_000],
        };
        // Its lists are searched from one end to the other: what a thousand cost says enough.
        wanted.into_iter().filter(|count| make == Make::Tussock || *count <= 1000).collect()
    }
}

/// How long bringing up a number of peers may take.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Measure.
pub fn run(setup: &Setup, options: &Options) -> Result<Report> {
    let versus = !options.versus.is_empty();
    let mut report = Report::default();
    if versus {
        report.notes.push(need(Versus::Strongswan)?);
    }
    let mut all: Vec<(Make, u32, Carried)> = Vec::new();
    for round in 1..=setup.runs {
        for make in Make::all(versus) {
            eprintln!("round {round} of {}: {}", setup.runs, make.name());
            let counts = options.others(*make, setup.quick);
            let measured = grow(setup, *make, &counts, &mut report.notes);
            all.extend(
                measured.with_context(|| make.name())?.into_iter().map(|(n, carried)| (*make, n, carried)),
            );
        }
    }
    report.notes.push(format!(
        "{} rounds of {} s, one TCP connection, AES-128-GCM; the sending gateway has the other Child SAs",
        setup.runs, setup.seconds
    ));
    report.tables.push(table(&all, versus));
    Ok(report)
}

/// One gateway that meets more and more peers.
fn grow(setup: &Setup, make: Make, counts: &[u32], notes: &mut Vec<String>) -> Result<Vec<(u32, Carried)>> {
    setup.world.build(Layout::Sites)?;
    setup.world.join(crowd::HOST, 100)?;
    crowd::make_room(&setup.world, "moon")?;
    let (mut moon, mut sun) = pair(setup, make)?;
    also_for_the_crowd(&moon)?;
    come_up(moon.peer(), sun.peer())?;
    let pids = [moon.pid()?, sun.pid()?];
    let mut crowd = Crowd::start(setup, &Kind::initiators(Proof::Psk, true))?;
    let mut measured = Vec::new();
    for count in counts {
        let came = if *count > 0 { Some(crowd.bring_towards(*count, PATIENCE)?) } else { None };
        let up = came.as_ref().map_or(0, |came| came.up);
        eprintln!("{}: {up} others", make.name());
        measured.push((
            up,
            traffic::measure(&setup.world, Way::THROUGH, pids, Load::Tcp(1), setup.seconds, &setup.results)?,
        ));
        if up < *count {
            let why = came.and_then(|came| came.why).unwrap_or_default();
            let note = format!("{}: {up} others and no more of {count}: {why}", make.name());
            if !notes.contains(&note) {
                notes.push(note);
            }
            break;
        }
    }
    drop(crowd);
    moon.peer().kill();
    sun.peer().kill();
    Ok(measured)
}

/// Two gateways, configured for a tunnel between them.
fn pair(setup: &Setup, make: Make) -> Result<(Gateway<'_>, Gateway<'_>)> {
    let one = |end| -> Result<Gateway<'_>> {
        Ok(match make {
            Make::Tussock => {
                let gateway = Tussock::new(&setup.world, &end, &setup.gateway, &setup.results)?;
                prepare(&gateway)?;
                Gateway::Tussock(gateway)
            }
            Make::StrongSwan => {
                let gateway = StrongSwan::new(&setup.world, end, Release::Trixie, &setup.results)?;
                gateway.configure(&format!("{QUIET}{CROWDED}"))?;
                Gateway::StrongSwan(gateway)
            }
        })
    };
    let [moon, sun] = ends(Cipher::Aes128gcm);
    Ok((one(moon)?, one(sun)?))
}

fn table(all: &[(Make, u32, Carried)], versus: bool) -> Table {
    let mut table = Table::new(
        "scale",
        "One TCP connection while the sending gateway holds other Child SAs; loss: payload per CPU second of that gateway",
        &["who", "others", "sender s/GB", "both s/GB", "Gbit/s", "loss %"],
    );
    for make in Make::all(versus) {
        let mut counts: Vec<u32> =
            all.iter().filter(|(of, ..)| of == make).map(|(_, count, _)| *count).collect();
        counts.sort_unstable();
        counts.dedup();
        let figure = |count: u32, figure: fn(&Carried) -> f64| {
            let fits = all.iter().filter(|(of, n, _)| of == make && *n == count);
            median(fits.map(|(_, _, carried)| figure(carried)))
        };
        let sender: fn(&Carried) -> f64 = |carried| carried.per_gb()[0];
        let alone = figure(0, sender);
        for count in counts {
            let cost = figure(count, sender);
            let loss =
                alone.zip(cost).filter(|_| count > 0).map(|(alone, cost)| 100.0 * (1.0 - alone / cost));
            table.row([
                make.name().into(),
                Cell::number(f64::from(count), 0),
                Cell::number(cost, 2),
                Cell::number(figure(count, |carried| carried.per_gb().iter().sum()), 2),
                Cell::number(figure(count, Carried::gbit), 2),
                Cell::number(loss, 1),
            ]);
        }
    }
    table
}
