//! `cargo xtask test`: everything that can be checked on one machine, in the order of what it costs.

use anyhow::{Result, bail};
use clap::Args;

use crate::checkout::{self, Profile};
use crate::interop::{self, Cast, Plan};
use crate::packages;
use crate::report::Tally;

/// What to test.
#[derive(Args)]
pub struct Options {
    /// `unit`, `seeds` or `interop`, and for interop parts of scenario names; nothing for everything.
    filter: Vec<String>,
    /// Interop with strongSwan on both ends: checks the lab, not us.
    #[arg(long, conflicts_with = "solo")]
    self_check: bool,
    /// Interop scenarios with our gateway on both ends.
    #[arg(long)]
    solo: bool,
    /// List the interop scenarios and do nothing.
    #[arg(long)]
    list: bool,
}

/// Run; true if nothing failed.
pub fn run(options: &Options) -> Result<bool> {
    if options.list {
        for scenario in interop::catalogue::all() {
            println!("{:<26} {}", scenario.name, interop::shows(&scenario));
        }
        return Ok(true);
    }
    let mut tally = Tally::default();
    let (_part, only) = match options.filter.split_first() {
        Some((part, rest)) => (part.as_str(), rest.to_vec()),
        None => ("", vec![]),
    };
    run_interop(options, only, &mut tally)?;
    Ok(tally.close())
}

fn run_interop(options: &Options, only: Vec<String>, tally: &mut Tally) -> Result<()> {
    packages::need_root("test")?;
    packages::need(&[packages::LAB, packages::INTEROP])?;
    let cast = match (options.self_check, options.solo) {
        (true, _) => Cast::StrongSwanOnly,
        (_, true) => Cast::TussockOnly,
        _ => Cast::Mixed,
    };
    let binary = match cast {
        Cast::StrongSwanOnly => None,
        _ => Some(checkout::build_gateway(Profile::Dev)?),
    };
    let plan = Plan { cast, only, binary };
    interop::run(&plan, tally)?;
    if tally.rows().is_empty() {
        bail!("no scenario is called like that; see `cargo xtask test --list`");
    }
    Ok(())
}
