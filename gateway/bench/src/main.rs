//! What `cargo xtask bench` runs in release mode. Each command prints one JSON document or, where a caller talks with it, one
//! a line.

#![deny(unsafe_code)]
#![expect(
    unreachable_pub,
    reason = "a program has no outside; `pub` marks what a module offers its siblings"
)]

mod bare;
mod clock;
mod flood;
mod floor;
mod load;
mod sys;
mod trains;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What `cargo xtask bench` runs.
#[derive(Parser)]
#[command(name = "tussock-bench")]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cost of system calls, ciphers, and of a packet's whole way.
    Floor(floor::Options),
    /// Many IKE peers at once.
    Load(load::Options),
    /// More than anybody can take.
    #[command(subcommand)]
    Flood(flood::Flood),
    /// In a gateway's place, what no gateway can do without.
    Bare(bare::Options),
    /// Superpackets without end.
    #[command(subcommand)]
    Trains(trains::Trains),
}

fn main() -> ExitCode {
    match run(Command::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tussock-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> Result<()> {
    match what {
        What::Floor(options) => println!("{}", floor::run(&options)?),
        What::Load(options) => load::run(&options)?,
        What::Flood(what) => println!("{}", flood::run(&what)?),
        What::Bare(options) => bare::run(&options)?,
        What::Trains(what) => println!("{}", trains::run(&what)?),
    }
    Ok(())
}
