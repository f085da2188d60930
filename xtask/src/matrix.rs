//! `cargo xtask matrix`: the capabilities in docs/support-matrix.md, asked of software, of OpenSSL, of the emulated
//! cards, and of the example plug-in.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::checkout::{self, Profile};
use crate::packages;
use crate::plugins;
use crate::process::{self, Daemon};
use crate::report::{Outcome, Row};
use crate::test::row;

/// Write, or only look.
#[derive(Args)]
pub struct Options {
    /// Write nothing; fail if the page is stale.
    #[arg(long)]
    check: bool,
}

/// Run; true if the page is true now.
pub fn run(options: &Options) -> Result<bool> {
    packages::need(&[packages::BUILD])?;
    compare(options.check)
}

/// The check as a row of `cargo xtask test`.
pub fn test() -> Row {
    let began = Instant::now();
    let outcome = match compare(true) {
        Ok(true) => Outcome::Passed,
        Ok(false) => Outcome::Failed("docs/support-matrix.md is stale: cargo xtask matrix".to_owned()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    row("unit", "support matrix", began, outcome)
}

/// The emulated cards: what the page calls them, and the emulator.
const CARDS: [(&str, &str); 2] = [("QAT generation 4", "4941"), ("QAT generation 2", "37c9")];

fn compare(check: bool) -> Result<bool> {
    let mut build = checkout::cargo();
    if !process::status(build.args(["build", "--quiet", "--package", "tussock-hwtest-cli"]))? {
        bail!("tussock-hwtest does not build");
    }
    let emulator = checkout::build("tussock-qat-emulator", Profile::Dev, &[])?;
    let folder = checkout::target().join("matrix");
    std::fs::create_dir_all(&folder)?;
    let mut command = Command::new(checkout::target().join("debug/tussock-hwtest"));
    command.arg("matrix").arg("--file").arg(checkout::root().join("docs/support-matrix.md"));
    if check {
        command.arg("--check");
    }
    command.args(["software=soft", "OpenSSL's default provider=openssl,provider=default"]);
    let mut running = Vec::new();
    for (title, device) in CARDS {
        let socket = folder.join(format!("{device}.sock"));
        std::fs::remove_file(&socket).ok();
        let mut card = Command::new(&emulator);
        card.arg("--socket").arg(&socket).args(["--device", device, "--log", "warn"]);
        running.push(Daemon::start(&mut card, &folder.join(format!("{device}.log")))?);
        let there = process::until(Duration::from_secs(10), || Ok(socket.exists().then_some(())))?;
        if there.is_none() {
            bail!("the emulated card {device} does not come");
        }
        command.arg(format!("{title}=qat,socket={}", socket.display()));
    }
    command.arg(format!("the example in C=plugin,library={}", plugins::example(&folder)?.display()));
    process::status(&mut command)
}
