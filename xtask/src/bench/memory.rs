//! Memory per SA: how much a gateway has grown between two numbers of peers, each with an IKE SA and a Child SA.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Setup;
use super::crowd::{self, Crowd, Kind, Proof};
use super::gateway::{Gateway, Make};
use super::table::{Cell, Table};
use crate::meter;
use crate::process;
use crate::world::Layout;

/// How long bringing up a number of peers may take.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Measure.
pub fn table(setup: &Setup, versus: bool, notes: &mut Vec<String>) -> Result<Table> {
    let mut table = Table::new(
        "memory",
        "Resident memory with so many IKE SAs, each with a Child SA",
        &["who", "SAs", "resident MB", "octets per SA since the line above", "seconds", "CPU ms/SA"],
    );
    for make in Make::all(versus) {
        let counts: &[u32] = match (make, setup.quick) {
            (_, true) => &[100, 1000],
            // Its lists are searched from one end to the other.
            (Make::StrongSwan, false) => &[1000, 10_000],
            (Make::Tussock, false) => &[1000, 10_000, 100_000],
        };
        grow(setup, *make, counts, &mut table, notes)
            .with_context(|| format!("the memory of {}", make.name()))?;
    }
    Ok(table)
}

fn grow(setup: &Setup, make: Make, counts: &[u32], table: &mut Table, notes: &mut Vec<String>) -> Result<()> {
    setup.world.build(Layout::Roadwarrior)?;
    crowd::make_room(&setup.world, "moon")?;
    let mut gateway = Gateway::responder(setup, make, Proof::Psk)?;
    gateway.peer().start()?;
    let pid = gateway.pid()?;
    let mut crowd = Crowd::start(setup, &Kind::initiators(Proof::Psk, true))?;
    let mut last = (0, process::resident(pid)?);
    let row = |count: u32, resident: u64, each: Option<f64>, came: Option<[f64; 2]>| {
        [
            make.name().into(),
            Cell::number(f64::from(count), 0),
            Cell::number(resident as f64 / 1e6, 1),
            Cell::number(each, 0),
            Cell::number(came.map(|[seconds, _]| seconds), 1),
            Cell::number(came.map(|[_, cpu]| cpu), 3),
        ]
    };
    table.row(row(0, last.1, None, None));
    for count in counts {
        eprintln!("{}: {count} SAs", make.name());
        let before = meter::cpu(pid)?;
        let came = crowd.bring_towards(*count, PATIENCE)?;
        ensure!(came.up > last.0, "no peer gets in any more: {}", came.why.unwrap_or_default());
        // What was needed for a moment only is given back by then.
        sleep(Duration::from_secs(1));
        let resident = process::resident(pid)?;
        let more = f64::from(came.up - last.0);
        let each = (resident as f64 - last.1 as f64) / more;
        let cpu = 1e3 * (meter::cpu(pid)? - before) / more;
        table.row(row(came.up, resident, Some(each), Some([came.seconds, cpu])));
        if came.up < *count {
            let why = came.why.unwrap_or_default();
            notes.push(format!("{}: {} SAs and no more of {count}: {why}", make.name(), came.up));
            break;
        }
        last = (came.up, resident);
    }
    drop(crowd);
    gateway.peer().kill();
    Ok(())
}
