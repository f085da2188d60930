//! `cargo xtask test`: everything that can be checked on one machine, in the order of what it costs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::checkout::{self, Profile};
use crate::docs;
use crate::fuzz;
use crate::interop::{self, Cast, Plan};
use crate::kryoptic;
use crate::matrix;
use crate::modules::Modules;
use crate::packages;
use crate::report::{Counts, Outcome, Row, Tally};
use crate::rig;

/// What to test.
#[derive(Args)]
pub struct Options {
    /// `unit`, `seeds`, `rig` or `interop` and then parts of names; nothing for everything.
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
    /// What the namespaces are called: letters and digits; runs with different names can go on side by side.
    #[arg(long, default_value = "test")]
    lab: String,
    /// Write the results of interop into docs/interop.md.
    #[arg(long, conflicts_with_all = ["self_check", "solo"])]
    write_docs: bool,
}

/// Run; true if nothing failed.
pub fn run(options: &Options) -> Result<bool> {
    if options.list {
        interop::list();
        return Ok(true);
    }
    let (part, only) = match options.filter.split_first() {
        Some((part, rest)) => (part.as_str(), rest),
        None => ("all", &[][..]),
    };
    if !["all", "unit", "seeds", "rig", "interop"].contains(&part) {
        bail!("there is no part called {part}: unit, seeds, rig or interop");
    }
    let [unit, seeds, run_rig, interop] =
        ["unit", "seeds", "rig", "interop"].map(|name| part == name || part == "all");
    // What cannot be met is better said before ten minutes of compiling.
    packages::need(&[packages::BUILD])?;
    if unit {
        packages::need(&[packages::IPSEC_MB, packages::ENGINE, packages::PLUGINS, packages::EAP])?;
    }
    if interop {
        packages::need_root("test")?;
        packages::need(&[packages::LAB, packages::INTEROP])?;
    }
    let mut tally = Tally::default();
    if unit {
        packages::need(&[packages::TOKENS])?;
        kryoptic::module()?;
        let modules = Modules::need();
        if let Err(error) = &modules {
            println!("skip  OpenSSL's FIPS provider, and its provider for tokens: {error:#}");
        }
        run_unit("cargo test", &["--workspace"], only, modules.ok(), &mut tally)?;
        if packages::IPSEC_MB.is_empty() {
            println!("skip  the engine ipsec-mb: it is for x86_64 only");
        } else {
            run_unit("cargo test, ipsec-mb", WITH_IPSEC_MB, only, None, &mut tally)?;
        }
        match packages::may_have(packages::DPDK) {
            Ok(()) => run_unit("cargo test, dpdk", WITH_DPDK, only, None, &mut tally)?,
            Err(error) => println!("skip  DPDK's devices: {error:#}"),
        }
    }
    if unit && only.is_empty() {
        tally.add(matrix::test());
    }
    if seeds {
        fuzz::replay_seeds(only, &mut tally)?;
    }
    if run_rig {
        tally.add(rig::test()?);
    }
    if interop {
        run_interop(options, only, &mut tally)?;
    }
    Ok(tally.close())
}

/// The crates in which the second engine makes a difference; that the others build with it, `lint` checks.
const WITH_IPSEC_MB: &[&str] =
    &["-ptussock-soft", "-ptussock-esp", "-ptussock-registry", "--features=tussock-soft/ipsec-mb"];

/// DPDK's devices, without the other tests of the crates they are in.
const WITH_DPDK: &[&str] = &[
    "-ptussock-qat",
    "-ptussock-registry",
    "--features=tussock-qat/dpdk,tussock-registry/dpdk",
    "--lib",
    "--test=dpdk",
];

/// `cargo test`, shown as it goes and counted.
fn run_unit(
    name: &str,
    what: &[&str],
    only: &[String],
    modules: Option<Modules>,
    tally: &mut Tally,
) -> Result<()> {
    let began = Instant::now();
    let mut command = checkout::cargo();
    command.args(["test", "--no-fail-fast"]).args(what).args(only);
    command.envs(modules.iter().flat_map(Modules::environment));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut counts = Counts::default();
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts = counts + closing(&line).unwrap_or_default();
    }
    if !child.wait()?.success() && counts.failed == 0 {
        // It did not even build.
        counts.failed = 1;
    }
    let outcome = Outcome::Counted(counts);
    tally.add(row("unit", name, began, outcome));
    Ok(())
}

/// The numbers in a `test result:` line.
fn closing(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| {
        let part = rest.split([';', '.']).map(str::trim).find(|part| part.ends_with(what))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

fn run_interop(options: &Options, only: &[String], tally: &mut Tally) -> Result<()> {
    let cast = match (options.self_check, options.solo) {
        (true, _) => Cast::StrongSwanOnly,
        (_, true) => Cast::TussockOnly,
        _ => Cast::Mixed,
    };
    let binary = match cast {
        Cast::StrongSwanOnly => None,
        _ => match checkout::build_gateway(Profile::Dev) {
            Ok(binary) => Some(binary),
            Err(error) => {
                let began = Instant::now();
                tally.add(row("interop", "build", began, Outcome::Failed(format!("{error:#}"))));
                return Ok(());
            }
        },
    };
    let before = tally.rows().len();
    interop::run(&Plan { cast, only: only.to_vec(), lab: options.lab.clone(), binary }, tally)?;
    let rows = tally.rows().get(before..).unwrap_or_default();
    if rows.is_empty() {
        bail!("no scenario is called like that; see `cargo xtask test --list`");
    }
    if options.write_docs {
        docs::write_interop(rows)?;
    }
    Ok(())
}

/// A row of a part that has no roles.
pub fn row(group: &'static str, name: &str, began: Instant, outcome: Outcome) -> Row {
    Row {
        group,
        name: name.to_owned(),
        roles: String::new(),
        shows: String::new(),
        seconds: began.elapsed().as_secs_f64(),
        outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_cargo_test_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(closing(line), Some(Counts { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(closing("test wire::header ... ok"), None);
    }
}
