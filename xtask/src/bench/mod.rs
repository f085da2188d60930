//! `cargo xtask bench`: what it costs, next to what it costs others, in one run on one machine.
//!
//! CPU time and ratios, not wall-clock time: they hardly depend on what else the machine is doing, and every report begins
//! with how much that was. See docs/performance.md.

mod bare;
mod contest;
pub mod crowd;
mod floor;
mod gateway;
mod machine;
mod memory;
mod openvpn;
mod overload;
mod page;
mod pings;
mod rate;
mod rekeys;
mod roadwarriors;
mod scale;
mod table;
mod throughput;
mod trains;
mod wireguard;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::checkout::{self, Profile};
use crate::interop::course::fresh;
use crate::packages;
use crate::process;
use crate::world::World;
use machine::Machine;
use page::Part;
use table::Table;

/// What to measure, and how thoroughly.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    how: How,
}

#[derive(Subcommand)]
enum What {
    /// What this machine allows per packet, whoever writes the gateway.
    Floor,
    /// CPU time per gigabyte and per datagram, next to others'.
    Throughput(throughput::Options),
    /// What a packet in superpackets without end costs, next to what no gateway can do without.
    Trains,
    /// CPU time and memory per IKE SA, next to strongSwan's.
    Ike(rate::Options),
    /// Throughput while the gateway holds many other Child SAs.
    Scale(scale::Options),
    /// Floods into the tunnel and of strangers: what becomes of memory, pings, rekeying and new peers.
    Overload(overload::Options),
    /// Hundreds of roadwarriors at once by EAP through FreeRADIUS, while a tunnel between sites carries pings.
    Roadwarriors(roadwarriors::Options),
    /// What the driver for QuickAssist costs for each packet, without the card's own time.
    Qat,
    /// All of these, against everybody, as docs/performance.md has them. Takes an hour and a half.
    All,
}

/// How thoroughly.
#[derive(Args, Clone)]
pub struct How {
    /// One JSON document on standard output; what is for people goes to standard error.
    #[arg(long, global = true)]
    json: bool,
    /// One short run of everything: shows that it works, not how fast.
    #[arg(long, global = true)]
    quick: bool,
    /// Runs of which the median is taken.
    #[arg(long, global = true, default_value_t = 5)]
    runs: usize,
    /// Seconds of traffic in each measurement.
    #[arg(long, global = true, default_value_t = 5)]
    seconds: u32,
    /// Write the tables into docs/performance.md.
    #[arg(long, global = true)]
    write_docs: bool,
    /// Cargo features to build the gateway with.
    #[arg(long, global = true, value_delimiter = ',')]
    build_features: Vec<String>,
}

/// What every measurement needs.
pub struct Setup {
    /// Short ones.
    pub quick: bool,
    /// Runs of which the median is taken.
    pub runs: usize,
    /// Seconds of traffic.
    pub seconds: u32,
    /// Whether the gateway has two engines for packets.
    pub has_ipsec_mb: bool,
    /// The gateway.
    pub gateway: PathBuf,
    /// `tussock-bench`.
    pub bench: PathBuf,
    /// Where configurations and logs go.
    pub results: PathBuf,
    /// The namespaces.
    pub world: World,
}

/// Measure and print.
pub fn run(options: &Options) -> Result<bool> {
    packages::need_root("bench")?;
    if let What::Qat = options.what {
        packages::need(&[packages::BUILD])?;
        let mut command = checkout::cargo();
        command.args(["run", "--quiet", "--release", "--package", "tussock-qat", "--example", "overhead"]);
        return process::status(&mut command);
    }
    packages::need(&[packages::BUILD, packages::LAB, packages::DEMO])?;
    if options.how.write_docs && options.how.quick {
        bail!("--quick shows that it works; its figures are not for the page");
    }
    let setup = Setup::new(&options.how)?;
    match &options.what {
        What::Floor => alone("floor", &options.how, || floor::run(&setup)),
        What::Throughput(what) => alone("throughput-run", &options.how, || throughput::run(&setup, what)),
        What::Trains => alone("trains-run", &options.how, || trains::run(&setup)),
        What::Ike(what) => alone("ike-run", &options.how, || rate::run(&setup, what)),
        What::Scale(what) => alone("scale-run", &options.how, || scale::run(&setup, what)),
        What::Overload(what) => alone("overload-run", &options.how, || overload::run(&setup, what)),
        What::Roadwarriors(what) => {
            alone("roadwarriors-run", &options.how, || roadwarriors::run(&setup, what))
        }
        What::Qat => Ok(true),
        What::All => all(&setup, &options.how),
    }
}

/// One measurement, printed.
fn alone(name: &'static str, how: &How, measure: impl FnOnce() -> Result<Report>) -> Result<bool> {
    let machine = Machine::watch()?;
    let report = how.noted(measure()?);
    let json = show(how, name, &machine, &report);
    if how.json {
        println!("{json}");
    }
    if how.write_docs {
        page::write(&[Part { name, machine: machine.line(), report }])?;
    }
    Ok(true)
}

/// Everything, printed as it comes, and written down.
fn all(setup: &Setup, how: &How) -> Result<bool> {
    type Measure<'a> = (&'static str, Box<dyn Fn() -> Result<Report> + 'a>);
    let measures: [Measure<'_>; 6] = [
        ("floor", Box::new(|| floor::run(setup))),
        ("throughput-run", Box::new(|| throughput::run(setup, &throughput::Options::all()))),
        ("trains-run", Box::new(|| trains::run(setup))),
        ("ike-run", Box::new(|| rate::run(setup, &rate::Options::all()))),
        ("scale-run", Box::new(|| scale::run(setup, &scale::Options::all()))),
        ("overload-run", Box::new(|| overload::run(setup, &overload::Options::all()))),
    ];
    let (mut parts, mut documents, mut complete) = (Vec::new(), Vec::new(), true);
    for (name, measure) in measures {
        let machine = Machine::watch()?;
        let report = match measure() {
            Ok(report) => how.noted(report),
            Err(error) => {
                // The others have taken their time, and shall not have done so in vain.
                eprintln!("xtask: {name}: {error:#}");
                complete = false;
                continue;
            }
        };
        documents.push(show(how, name, &machine, &report));
        parts.push(Part { name, machine: machine.line(), report });
    }
    if how.json {
        println!("{}", Value::Array(documents));
    }
    if how.write_docs {
        page::write(&parts)?;
    }
    Ok(complete)
}

/// What came of a measurement.
#[derive(Default)]
pub struct Report {
    /// The figures.
    pub tables: Vec<Table>,
    /// What has to be known about them.
    pub notes: Vec<String>,
}

impl How {
    /// A report that says what the gateway was built with.
    fn noted(&self, mut report: Report) -> Report {
        if !self.build_features.is_empty() {
            report.notes.push(format!("built with {}", self.build_features.join(", ")));
        }
        report
    }
}

impl Setup {
    fn new(how: &How) -> Result<Setup> {
        let gateway = checkout::build("tussock", Profile::Release, &how.build_features)?;
        // Its backends come by way of the registry, as the gateway's do.
        let features: Vec<String> =
            how.build_features.iter().map(|name| format!("registry/{name}")).collect();
        if how.build_features.iter().any(|feature| feature == "ipsec-mb") {
            packages::need(&[packages::IPSEC_MB])?;
        }
        let bench = checkout::build("tussock-bench", Profile::Release, &features)?;
        let results = checkout::target().join("bench");
        fresh(&results)?;
        Ok(Setup {
            quick: how.quick,
            runs: if how.quick { 1 } else { how.runs.max(1) },
            seconds: if how.quick { 2 } else { how.seconds.max(1) },
            has_ipsec_mb: how.build_features.iter().any(|feature| feature == "ipsec-mb"),
            gateway,
            bench,
            results,
            world: World::claim("bench")?,
        })
    }
}

/// Print for people; the document for programs.
fn show(how: &How, name: &str, machine: &Machine, report: &Report) -> Value {
    let mut text = format!("{}\n", machine.line());
    for note in &report.notes {
        text += &format!("{note}\n");
    }
    for table in &report.tables {
        text += &format!("\n{}", table.text());
    }
    if how.json {
        eprint!("{text}");
    } else {
        print!("{text}");
    }
    json!({
        "bench": name.trim_end_matches("-run"),
        "machine": machine.json(),
        "quick": how.quick,
        "notes": report.notes,
        "tables": report.tables.iter().map(Table::json).collect::<Vec<_>>(),
    })
}
