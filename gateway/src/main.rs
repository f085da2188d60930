//! The program `tussock`: the gateway and its commands.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tussock::cli::main(tussock::cli::Cli::parse())
}
