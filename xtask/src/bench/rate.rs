//! The key exchange: CPU time and memory per SA, in both roles, next to strongSwan's.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use super::crowd::{self, Crowd, Kind, Proof};
use super::gateway::{Gateway, Make};
use super::table::{Cell, Table, median};
use super::throughput::need;
use super::{Report, Setup, contest, memory};
use crate::meter;
use crate::world::Layout;

/// What to measure.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// What the gateway under test does; without it both.
    #[arg(long, value_delimiter = ',')]
    role: Vec<Role>,
    /// How both sides prove who they are; without it all, with --quick by a shared secret.
    #[arg(long, value_delimiter = ',')]
    auth: Vec<Proof>,
    /// Only with a Child SA each.
    #[arg(long, conflicts_with = "childless")]
    child: bool,
    /// Only without.
    #[arg(long)]
    childless: bool,
    /// IKE SAs in each measurement.
    #[arg(long, default_value_t = 2000)]
    count: u32,
    /// Measure strongSwan in turns with us.
    #[arg(long, value_delimiter = ',')]
    versus: Vec<contest::Versus>,
    /// Leave memory out.
    #[arg(long)]
    no_memory: bool,
}

/// What the gateway under test does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Role {
    /// It is called.
    Responder,
    /// It calls, told to over its control socket.
    Initiator,
}

impl Options {
    /// Everything, against strongSwan.
    pub fn all() -> Options {
        Options { count: 2000, versus: vec![contest::Versus::Strongswan], ..Options::default() }
    }
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Course {
    role: Role,
    proof: Proof,
    child: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: f64,
    /// CPU milliseconds per SA, of the gateway.
    gateway: f64,
    /// CPU milliseconds per SA that playing the peer took.
    peer: f64,
}

/// Before anything counts: tables have grown, caches know the certificate.
const WARM_UP: u32 = 64;
/// How long a measurement may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measure.
pub fn run(setup: &Setup, options: &Options) -> Result<Report> {
    let count = if setup.quick { options.count.min(300) } else { options.count };
    let versus = !options.versus.is_empty();
    let mut report = Report::default();
    if versus {
        report.notes.push(need(contest::Versus::Strongswan)?);
    }
    let mut all: Vec<(Course, Make, Pace)> = Vec::new();
    for round in 1..=setup.runs {
        for course in options.courses(setup.quick) {
            for make in Make::all(versus) {
                eprintln!("round {round} of {}: {} {course:?}", setup.runs, make.name());
                let pace = pace(setup, *make, course, count)
                    .with_context(|| format!("{} as {course:?}", make.name()))?;
                all.push((course, *make, pace));
            }
        }
    }
    report.notes.push(format!(
        "{} rounds of {count} IKE SAs, 16 in the making at a time; aes128gcm16-prfsha256-x25519, ESP aes128gcm16",
        setup.runs
    ));
    report.notes.push(
        "peers check the gateway's proof; with certificates all have the same one, so that its chain is checked once"
            .to_owned(),
    );
    report.tables.push(table(&options.courses(setup.quick), &all, versus));
    if !options.no_memory {
        let table = memory::table(setup, versus, &mut report.notes)?;
        report.tables.push(table);
    }
    Ok(report)
}

impl Options {
    fn courses(&self, quick: bool) -> Vec<Course> {
        let pick = |chosen: &[Role]| {
            if chosen.is_empty() { vec![Role::Responder, Role::Initiator] } else { chosen.to_vec() }
        };
        let proofs = match (self.auth.is_empty(), quick) {
            (false, _) => self.auth.clone(),
            (true, true) => vec![Proof::Psk],
            (true, false) => vec![Proof::Psk, Proof::Ecdsa, Proof::Rsa],
        };
        let mut all = Vec::new();
        for role in pick(&self.role) {
            for proof in &proofs {
                // As initiator a gateway brings up what it is configured for, which is a Child SA.
                let childless = !self.child && role == Role::Responder;
                if childless {
                    all.push(Course { role, proof: *proof, child: false });
                }
                if !self.childless {
                    all.push(Course { role, proof: *proof, child: true });
                }
            }
        }
        all
    }
}

fn pace(setup: &Setup, make: Make, course: Course, count: u32) -> Result<Pace> {
    setup.world.build(Layout::Roadwarrior)?;
    crowd::make_room(&setup.world, "moon")?;
    let total = WARM_UP + count;
    let mut gateway = match course.role {
        Role::Responder => Gateway::responder(setup, make, course.proof)?,
        Role::Initiator => Gateway::initiator(setup, make, course.proof, total)?,
    };
    gateway.peer().start()?;
    let mut kind = Kind::initiators(course.proof, course.child);
    if course.role == Role::Initiator {
        kind.control = Some(gateway.control());
    }
    let mut crowd = Crowd::start(setup, &kind)?;
    crowd.bring_to(WARM_UP, PATIENCE)?;
    settle();
    let before = meter::cpu(gateway.pid()?)?;
    let came = crowd.bring_to(total, PATIENCE)?;
    // The last answer may still be on its way in.
    settle();
    let used = meter::cpu(gateway.pid()?)? - before;
    let there = gateway.ike_sas()?;
    ensure!(there >= u64::from(total), "the gateway has {there} IKE SAs, the peers {total}");
    drop(crowd);
    gateway.peer().kill();
    let each = |seconds: f64| 1e3 * seconds / f64::from(count);
    Ok(Pace { per_second: f64::from(count) / came.seconds, gateway: each(used), peer: each(came.cpu) })
}

fn settle() {
    sleep(Duration::from_millis(300));
}

fn table(courses: &[Course], all: &[(Course, Make, Pace)], versus: bool) -> Table {
    let mut table = Table::new(
        "ike",
        "Setting up IKE SAs: CPU milliseconds per SA of the gateway under test",
        &[
            "role",
            "auth",
            "Child SA",
            "who",
            "CPU ms/SA",
            "SAs per CPU s",
            "SAs/s",
            "peer ms/SA",
            "theirs ÷ ours",
            "median",
        ],
    );
    for course in courses {
        for make in Make::all(versus) {
            let of = |which: Make| {
                let fits = move |(of, by, _): &&(Course, Make, Pace)| of == course && *by == which;
                all.iter().filter(fits).map(|(_, _, pace)| *pace).collect::<Vec<_>>()
            };
            let paces = of(*make);
            let cost = median(paces.iter().map(|pace| pace.gateway));
            let ratios: Vec<f64> = match make {
                Make::Tussock => Vec::new(),
                Make::StrongSwan => {
                    paces.iter().zip(of(Make::Tussock)).map(|(them, us)| them.gateway / us.gateway).collect()
                }
            };
            let shown: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.1}")).collect();
            table.row([
                format!("{:?}", course.role).to_lowercase().into(),
                course.proof.name().into(),
                if course.child { "yes" } else { "no" }.into(),
                make.name().into(),
                Cell::number(cost, 3),
                Cell::number(cost.map(|cost| 1e3 / cost), 0),
                Cell::number(median(paces.iter().map(|pace| pace.per_second)), 0),
                Cell::number(median(paces.iter().map(|pace| pace.peer)), 3),
                shown.join(" ").into(),
                Cell::number(median(ratios), 1),
            ]);
        }
    }
    table
}
