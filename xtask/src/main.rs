//! The habits of this project as commands: `cargo xtask demo`, `test`, `rig`, `soak`, `lint`, `fuzz`, `bench`.

#![expect(
    unreachable_pub,
    reason = "a program has no outside; `pub` marks what a module offers its siblings"
)]

mod aside;
mod bench;
mod capture;
mod cards;
mod checkout;
mod debian;
mod demo;
mod docs;
mod flood;
mod freeradius;
mod fuzz;
mod inside;
mod interop;
mod kryoptic;
mod libreswan;
mod lint;
mod matrix;
mod meter;
mod modules;
mod netns;
mod numbers;
mod packages;
mod padlock;
mod peer;
mod ping;
mod pki;
mod plugins;
mod process;
mod providers;
mod report;
mod resolved;
mod rig;
mod silence;
mod soak;
mod strongswan;
mod swanctl;
mod test;
mod tokens;
mod tools;
mod traffic;
mod trixie;
mod tunnel;
mod tussock;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The habits of this project as commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show it: two gateways, a tunnel, pings, what the wire sees, throughput.
    Demo(demo::Options),
    /// Measure: the machine's floor, throughput, IKE, scale, overload; next to others.
    Bench(bench::Options),
    /// Formatting, clippy, licences and sources of dependencies.
    Lint(lint::Options),
    /// Fuzz each target for some seconds.
    Fuzz(fuzz::Options),
    /// Write what each device declares into docs/support-matrix.md.
    Matrix(matrix::Options),
    /// Have drivers that we have not written judge the emulated cards, in guests of QEMU.
    Rig(rig::Options),
    /// Let cards go wrong under traffic: each kind of fault by itself, or everything at once and for minutes.
    Soak(soak::Options),
    /// Test: the crates, the fuzz targets on their seeds, and interoperation with strongSwan.
    Test(test::Options),
}

fn main() -> ExitCode {
    let done = match Command::parse().what {
        What::Demo(options) => demo::run(&options),
        What::Bench(options) => bench::run(&options),
        What::Lint(options) => lint::run(&options),
        What::Fuzz(options) => fuzz::run(&options),
        What::Matrix(options) => matrix::run(&options),
        What::Rig(options) => rig::run(&options),
        What::Soak(options) => soak::run(&options),
        What::Test(options) => test::run(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
