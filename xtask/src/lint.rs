//! `cargo xtask lint`: formatting, clippy, and what may be built in and from where.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::checkout;
use crate::packages;
use crate::process;
use crate::tools;

/// How much to check.
#[derive(Args)]
pub struct Options {
    /// Only formatting and clippy: no tool has to be installed for these.
    #[arg(long)]
    quick: bool,
}

/// Run; true if all is clean.
pub fn run(options: &Options) -> Result<bool> {
    packages::need(&[packages::BUILD, packages::IPSEC_MB])?;
    let mut clean = step("fmt", &["fmt", "--all", "--check"])?;
    clean &= clippy("clippy", &[])?;
    if !packages::IPSEC_MB.is_empty() {
        clean &= clippy("clippy, ipsec-mb", &["--features", "tussock/ipsec-mb"])?;
    }
    match packages::may_have(packages::DPDK) {
        Ok(()) => clean &= clippy("clippy, dpdk", &["--features", "tussock/dpdk,tussock-qat/dpdk"])?,
        Err(error) => println!("skip  clippy, dpdk: {error:#}"),
    }
    if options.quick {
        return Ok(clean);
    }
    tools::need("cargo-deny")?;
    clean &= step(
        "licences, bans, sources",
        &["deny", "--log-level", "error", "check", "licenses", "bans", "sources"],
    )?;
    if have_advisories()? {
        clean &= step("advisories", &["deny", "--log-level", "error", "check", "advisories"])?;
    } else {
        println!("skip  advisories: their database cannot be fetched from here");
    }
    Ok(clean)
}

fn clippy(what: &str, features: &[&str]) -> Result<bool> {
    let all = ["clippy", "--quiet", "--workspace", "--all-targets"];
    step(what, &[&all, features, &["--", "-D", "warnings"]].concat())
}

fn step(what: &str, arguments: &[&str]) -> Result<bool> {
    let began = Instant::now();
    let clean = process::status(checkout::cargo().args(arguments).env("PATH", tools::path()))?;
    let word = if clean { "ok" } else { "FAIL" };
    println!("{word:<5} {what:<26} {:6.1} s", began.elapsed().as_secs_f64());
    Ok(clean)
}

/// Whether the advisory database is here or can be had.
fn have_advisories() -> Result<bool> {
    let mut fetch = checkout::cargo();
    fetch.args(["deny", "--log-level", "off", "fetch", "db"]).env("PATH", tools::path());
    Ok(process::finish(&mut fetch, Duration::from_secs(120)).is_ok_and(|done| done.status.success()))
}
