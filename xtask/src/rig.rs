//! `cargo xtask rig`: drivers that we have not written judge the emulated cards.
//!
//! A guest of QEMU has an IOMMU and one PCI device, which is the emulator at the other end of a vfio-user socket. In the
//! guest runs Linux with its own driver, DPDK's tests with its own, the sample of Intel's library; or a program of ours on
//! the kernel's /dev/vfio. Nothing of it needs privileges, hardware or KVM.

mod cpio;
mod dpdk;
mod driver;
mod initrd;
mod linux;
mod machine;
mod matrix;
mod modules;
mod place;
mod qatlib;
mod tunnel;
mod verdict;

use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::checkout::{self, Profile};
use crate::process;
use crate::report::{Counts, Outcome, Row};
use crate::test::row;
use place::Place;
use verdict::Verdicts;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Which judges; all of them if none is named.
    #[arg(value_enum)]
    judges: Vec<Judge>,
    /// A program for the judge `driver` instead of the driver's own `hwcheck`: it gets the card's place on the bus and prints
    /// PASS or FAIL, line by line.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Fetch all packages anew.
    #[arg(long)]
    fresh: bool,
    /// Write docs/support-matrix.md afterwards; all judges have to be run for that.
    #[arg(long, conflicts_with_all = ["judges", "program"])]
    write_docs: bool,
    /// Write docs/support-matrix.md from the last run, and run nothing.
    #[arg(long, conflicts_with_all = ["judges", "program", "fresh", "write_docs"])]
    only_docs: bool,
}

/// Who judges.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Judge {
    /// Linux's driver for 37c9 and the kernel's self-tests.
    Linux,
    /// DPDK's driver and tests, on 4941 and 37c9.
    Dpdk,
    /// Intel's library and its sample, on 4941.
    Qatlib,
    /// A program of ours on /dev/vfio.
    Driver,
    /// Two gateways of ours on /dev/vfio, each with a card.
    Tunnel,
}

impl Judge {
    fn done(self) -> &'static str {
        match self {
            Judge::Linux => "Linux's driver has judged",
            Judge::Dpdk => "DPDK's driver has judged",
            Judge::Qatlib => "Intel's library has judged",
            Judge::Driver => "our driver has run",
            Judge::Tunnel => "our gateways have run",
        }
    }
}

/// Run; true if nothing failed.
pub fn run(options: &Options) -> Result<bool> {
    if options.only_docs {
        return matrix::write().map(|()| true);
    }
    let place = match Place::need(options.fresh) {
        Ok(place) => place,
        Err(error) => {
            println!("skip  rig: {error:#}");
            return Ok(true);
        }
    };
    let verdicts = judge(options, &place)?;
    verdicts.print();
    println!("\nwritten to {}", verdicts.write()?.display());
    if options.write_docs {
        matrix::write()?;
    }
    Ok(verdicts.are_good())
}

/// All judges as one row of `cargo xtask test`.
pub fn test() -> Result<Row> {
    let began = Instant::now();
    let options =
        Options { judges: Vec::new(), program: None, fresh: false, write_docs: false, only_docs: false };
    let place = match Place::need(false) {
        Ok(place) => place,
        Err(error) => return Ok(row("rig", "rig", began, Outcome::Skipped(format!("{error:#}")))),
    };
    let verdicts = judge(&options, &place)?;
    verdicts.print();
    verdicts.write()?;
    let good = verdicts.checks.iter().map(|check| (check.is_good(), check.counts));
    let good = good.chain(verdicts.controls.iter().map(|control| (control.noticed, true)));
    let good = good.chain(verdicts.remarks.iter().map(|remark| (remark.good, true)));
    let counts = good.fold(Counts::default(), |sum, (good, counts)| match (good, counts) {
        (true, true) => Counts { passed: sum.passed + 1, ..sum },
        (true, false) => Counts { skipped: sum.skipped + 1, ..sum },
        (false, _) => Counts { failed: sum.failed + 1, ..sum },
    });
    Ok(row("rig", "rig", began, Outcome::Counted(counts)))
}

fn judge(options: &Options, place: &Place) -> Result<Verdicts> {
    let wants = |judge| options.judges.is_empty() || options.judges.contains(&judge);
    let began = Instant::now();
    let say = |what: &str| println!("rig   {:6.1} s  {what}", began.elapsed().as_secs_f64());
    let emulator = build_emulator()?;
    say("emulator built");
    let hwcheck = match (wants(Judge::Driver), &options.program) {
        (true, Some(program)) => Some(program.clone()),
        (true, None) => build_hwcheck()?,
        (false, _) => None,
    };
    if wants(Judge::Driver) && hwcheck.is_none() {
        say("skipped: there is no driver for the card in this checkout");
    }
    let gateway = match wants(Judge::Tunnel) {
        true => Some(checkout::build_gateway(Profile::Dev)?),
        false => None,
    };
    machine::note_interrupts()?;
    let lane = |judges: &[Judge]| -> Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        for judge in judges.iter().filter(|judge| wants(**judge)) {
            match (judge, &hwcheck, &gateway) {
                (Judge::Linux, ..) => linux::judge(place, &emulator, &mut verdicts)?,
                (Judge::Dpdk, ..) => dpdk::judge(place, &emulator, &mut verdicts)?,
                (Judge::Qatlib, ..) => qatlib::judge(place, &emulator, &mut verdicts)?,
                (Judge::Driver, Some(program), _) => driver::judge(place, &emulator, program, &mut verdicts)?,
                (Judge::Tunnel, _, Some(gateway)) => tunnel::judge(place, &emulator, gateway, &mut verdicts)?,
                (Judge::Driver | Judge::Tunnel, ..) => continue,
            }
            say(judge.done());
        }
        Ok(verdicts)
    };
    // Two guests at a time: DPDK's tests take as long as everything else together.
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(|| lane(&[Judge::Dpdk]));
        let one = lane(&[Judge::Linux, Judge::Qatlib, Judge::Driver, Judge::Tunnel]);
        (one, other.join())
    });
    let mut verdicts = one?;
    verdicts.add(other.map_err(|_| anyhow!("a thread panicked"))??);
    verdicts.versions = place.versions()?;
    Ok(verdicts)
}

/// Build the driver's program for places where there is nothing else, if there is a driver.
fn build_hwcheck() -> Result<Option<PathBuf>> {
    if !checkout::root().join("backends/qat/examples/hwcheck.rs").exists() {
        return Ok(None);
    }
    let mut command = checkout::cargo();
    command.args(["build", "--quiet", "--package", "tussock-qat", "--example", "hwcheck"]);
    if !process::status(&mut command)? {
        bail!("hwcheck does not build");
    }
    Ok(Some(checkout::target().join("debug/examples/hwcheck")))
}

/// Build the emulator and return the path of its binary.
fn build_emulator() -> Result<PathBuf> {
    let mut command = checkout::cargo();
    command.args(["build", "--quiet", "--package", "tussock-qat-emulator"]);
    if !process::status(&mut command)? {
        bail!("the emulator does not build");
    }
    let binary = checkout::target().join("debug/tussock-qat-emulator");
    binary.metadata().with_context(|| format!("{} is not there after the build", binary.display()))?;
    Ok(binary)
}
