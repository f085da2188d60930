//! `cargo xtask fuzz`: each target for some seconds; and the replay of the seeds, which is part of `test`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::checkout;
use crate::packages;
use crate::process;
use crate::report::{Outcome, Tally};
use crate::test::row;
use crate::tools;

/// What to fuzz.
#[derive(Args)]
pub struct Options {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Parts of target names; nothing for all.
    targets: Vec<String>,
}

/// Run; true if no target found anything.
pub fn run(options: &Options) -> Result<bool> {
    packages::need(&[packages::BUILD])?;
    tools::need("cargo-fuzz")?;
    let targets = targets(&options.targets)?;
    if targets.is_empty() {
        bail!("no fuzz target is called like that; there are {:?}", self::targets(&[])?);
    }
    let mut clean = true;
    for target in targets {
        println!("{target}: {} s", options.seconds);
        let mut command = nightly(checkout::cargo());
        let live = home().join("corpus-live").join(&target);
        fs::create_dir_all(&live)?;
        command.arg("fuzz").arg("run").arg("--fuzz-dir").arg(home()).arg(&target).arg(&live);
        command.args(seeds(&target));
        command.args(["--", "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]);
        command.arg(format!("-max_total_time={}", options.seconds));
        // The targets' own lock file and folder: what they are built with is built for nothing else.
        command.env("CARGO_TARGET_DIR", checkout::target().join("fuzz"));
        command.env("PATH", tools::path());
        clean &= process::status(&mut command)?;
    }
    Ok(clean)
}

/// Run each target once over its seeds. Plain cargo and an uninstrumented build do for that: libFuzzer takes files
/// instead of folders as a list to try and end.
pub fn replay_seeds(only: &[String], tally: &mut Tally) -> Result<()> {
    for target in targets(only)? {
        let began = Instant::now();
        let outcome = match replay(&target) {
            Ok(0) => Outcome::Skipped("it has no seeds".to_owned()),
            Ok(_) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        tally.add(row("seeds", &target, began, outcome));
    }
    Ok(())
}

/// Returns how many seeds there were.
fn replay(target: &str) -> Result<usize> {
    /// Files on one command line.
    const BATCH: usize = 500;
    let built = checkout::target().join("fuzz-replay");
    let mut build = checkout::cargo();
    build.args(["build", "--quiet", "--bin", target, "--manifest-path"]).arg(home().join("Cargo.toml"));
    build.env("CARGO_TARGET_DIR", &built);
    if !process::status(&mut build)? {
        bail!("it does not build");
    }
    let mut files = Vec::new();
    for folder in seeds(target) {
        for entry in fs::read_dir(&folder)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    for batch in files.chunks(BATCH) {
        let mut command = Command::new(built.join("debug").join(target));
        command.args(["-timeout=10", "-rss_limit_mb=2048"]).args(batch);
        // Crashing inputs are the seeds themselves; no copies in the checkout.
        command.current_dir(&built);
        let done = process::finish(&mut command, Duration::from_secs(300))?;
        if !done.status.success() {
            let text = done.text();
            let from = text.lines().count().saturating_sub(25);
            bail!("a seed brings it down:\n{}", text.lines().skip(from).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(files.len())
}

fn home() -> PathBuf {
    checkout::root().join("gateway/fuzz")
}

/// The names of the targets that contain one of `only`: one file each in `fuzz_targets/`.
fn targets(only: &[String]) -> Result<Vec<String>> {
    let folder = home().join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no fuzz targets in {}", folder.display()))? {
        let path = entry?.path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if let Some(name) = stem.filter(|_| path.extension().is_some_and(|extension| extension == "rs")) {
            names.push(name);
        }
    }
    names.retain(|name| only.is_empty() || only.iter().any(|part| name.contains(part.as_str())));
    names.sort();
    Ok(names)
}

/// The folders with a target's seeds that exist.
fn seeds(target: &str) -> Vec<PathBuf> {
    let all = ["seeds", "corpus"].map(|folder| home().join(folder).join(target));
    all.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// Coverage instrumentation wants a nightly compiler, or a stable one that is told to look away.
fn nightly(mut command: Command) -> Command {
    let listed = process::run(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    match listed.lines().find(|line| line.starts_with("nightly")) {
        Some(_) => command.env("RUSTUP_TOOLCHAIN", "nightly"),
        None => command.env("RUSTC_BOOTSTRAP", "1"),
    };
    command
}
