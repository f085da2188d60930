//! The program `tussock-hwtest`: whether an accelerator keeps its contract, how fast it is, and a page to send about both.

mod bench;
mod html;
mod judge;
mod machine;
mod matrix;
mod plot;
mod table;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::target::{Absent, Target};

/// Whether an accelerator keeps its contract, and how fast it is.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 all is well, 1 a rule is broken, 2 the command line makes no sense, \
    3 the driver, plug-in or device cannot be used, 4 nothing was checked."
)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Check every rule over every capability that the device declares.
    Run(judge::Options),
    /// Measure packets and operations by size, burst and depth; with plots.
    Bench(bench::Options),
    /// Check and measure, and write one page about it that can be sent.
    Report(html::Options),
    /// Write what devices declare into a page, or see whether it is still true.
    Matrix(matrix::Options),
    /// List the rules.
    Rules,
}

/// Exit codes that scripts may rely on.
mod code {
    pub(crate) const BROKEN: u8 = 1;
    pub(crate) const UNUSABLE: u8 = 3;
    pub(crate) const NOTHING: u8 = 4;
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
    let quiet = |levels: Targets, name: &&str| levels.with_target(*name, LevelFilter::OFF);
    let levels = registry::TALKATIVE.iter().fold(Targets::new().with_default(LevelFilter::WARN), quiet);
    tracing_subscriber::registry().with(log.with_filter(levels)).init();
    let done = match Command::parse().what {
        What::Run(options) => judge::run(&options),
        What::Bench(options) => bench::run(&options),
        What::Report(options) => html::run(&options),
        What::Matrix(options) => matrix::run(&options),
        What::Rules => {
            for rule in hwtest::RULES {
                println!("{:<10} {}", rule.part, rule.name.replace('_', " "));
            }
            return ExitCode::SUCCESS;
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tussock-hwtest: {error:#}");
            // What is in the way of the device is one thing, and everything else another.
            let unusable = error.downcast_ref::<Absent>().is_some();
            ExitCode::from(if unusable { code::UNUSABLE } else { code::BROKEN })
        }
    }
}
