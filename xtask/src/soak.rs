//! `cargo xtask soak`: cards that go wrong under traffic, and what that costs.

pub mod cards;
mod each;
mod plan;
mod report;
mod samples;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::checkout::{self, Profile};
use crate::interop::course::{Steps, fresh};
use crate::interop::stories::Place;
use crate::packages;
use crate::world::{Layout, World};

/// What is to go wrong.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
    /// What the namespaces are called: letters and digits.
    #[arg(long, global = true, default_value = "soak")]
    lab: String,
}

#[derive(Subcommand)]
enum What {
    /// Two gateways with two cards each, and for minutes all that can go wrong with a card goes wrong, at random
    Cards(cards::Options),
    /// One kind of fault after the other, as a table
    Faults(each::Options),
}

/// Run; true if nothing was wrong that should not be.
pub fn run(options: &Options) -> Result<bool> {
    packages::need_root("soak")?;
    packages::need(&[packages::BUILD, packages::LAB])?;
    let binary = checkout::build_gateway(Profile::Dev)?;
    let world = World::claim(&options.lab)?;
    let results = checkout::target().join("soak");
    fresh(&results)?;
    match &options.what {
        What::Cards(cards) => {
            world.build(Layout::Sites)?;
            let place = Place { world: &world, binary: &binary, results: &results };
            let report =
                cards::play(&place, &mut Steps::new(&results)?, cards, &mut |line| println!("{line}"))?;
            report.print();
            Ok(report.is_right().inspect_err(|error| println!("\nFAIL  {error:#}")).is_ok())
        }
        What::Faults(each) => each::run(&world, &binary, &results, each),
    }
}
