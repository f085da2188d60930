//! `cargo xtask bench`: what it costs, next to what it costs others, in one run on one machine.
//!
//! CPU time and ratios, not wall-clock time: they hardly depend on what else the machine is doing, and every report begins
//! with how much that was. See docs/performance.md.

mod contest;
mod crowd;
mod floor;
mod gateway;
mod machine;
mod memory;
mod meter;
mod openvpn;
mod rate;
mod table;
mod throughput;
mod traffic;
mod wireguard;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::checkout::{self, Profile};
use crate::interop::course::fresh;
use crate::packages;
use crate::world::World;
use machine::Machine;
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
    /// CPU time and memory per IKE SA, next to strongSwan's.
    Ike(rate::Options),
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
    packages::need(&[packages::BUILD, packages::LAB, packages::DEMO])?;
    let setup = Setup::new(&options.how)?;
    let machine = Machine::watch()?;
    let (name, report) = match &options.what {
        What::Floor => ("floor", floor::run(&setup)?),
        What::Throughput(options) => ("throughput", throughput::run(&setup, options)?),
        What::Ike(options) => ("ike", rate::run(&setup, options)?),
    };
    show(&options.how, name, &machine, &report);
    Ok(true)
}

/// What came of a measurement.
#[derive(Default)]
pub struct Report {
    /// The figures.
    pub tables: Vec<Table>,
    /// What has to be known about them.
    pub notes: Vec<String>,
}

impl Setup {
    fn new(how: &How) -> Result<Setup> {
        let gateway = checkout::build("tussock", Profile::Release, &how.build_features)?;
        // Its backends come by way of the registry, as the gateway's do.
        let features: Vec<String> =
            how.build_features.iter().map(|name| format!("registry/{name}")).collect();
        let bench = checkout::build("tussock-bench", Profile::Release, &features)?;
        let results = checkout::target().join("bench");
        fresh(&results)?;
        Ok(Setup {
            quick: how.quick,
            runs: if how.quick { 1 } else { how.runs.max(1) },
            seconds: if how.quick { 2 } else { how.seconds.max(1) },
            gateway,
            bench,
            results,
            world: World::claim("bench")?,
        })
    }
}

fn show(how: &How, name: &str, machine: &Machine, report: &Report) {
    let mut text = format!("{}\n", machine.line());
    for note in &report.notes {
        text += &format!("{note}\n");
    }
    for table in &report.tables {
        text += &format!("\n{}", table.text());
    }
    if !how.json {
        print!("{text}");
        return;
    }
    eprint!("{text}");
    let document = json!({
        "bench": name,
        "machine": machine.json(),
        "quick": how.quick,
        "notes": report.notes,
        "tables": report.tables.iter().map(Table::json).collect::<Vec<_>>(),
    });
    println!("{document}");
}
