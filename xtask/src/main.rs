//! The habits of this project as commands: `cargo xtask demo`, `test`, `lint`, `fuzz`, `bench`.

#![expect(unreachable_pub, reason = "a program has no outside; `pub` marks what a module offers its siblings")]

mod capture;
mod checkout;
mod interop;
mod netns;
mod packages;
mod peer;
mod ping;
mod pki;
mod process;
mod report;
mod strongswan;
mod swanctl;
mod test;
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
    /// Test: the crates, the fuzz targets on their seeds, and interoperation with strongSwan.
    Test(test::Options),
}

fn main() -> ExitCode {
    let done = match Command::parse().what {
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
