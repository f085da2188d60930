//! `cargo xtask matrix`: the capabilities in docs/support-matrix.md, asked of software, of OpenSSL, of the emulated
//! cards, and of the example plug-in.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
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
    /// Have the kit judge each device as well, and write down what it finds.
    #[arg(long, conflicts_with = "check")]
    run: bool,
}

/// Run; true if the page is true now.
pub fn run(options: &Options) -> Result<bool> {
    packages::need(&[packages::BUILD])?;
    compare(options.check, options.run)
}

/// The check as a row of `cargo xtask test`.
pub fn test() -> Row {
    let began = Instant::now();
    let outcome = match compare(true, false) {
        Ok(true) => Outcome::Passed,
        Ok(false) => Outcome::Failed("docs/support-matrix.md is stale: cargo xtask matrix".to_owned()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    row("unit", "support matrix", began, outcome)
}

/// The emulated cards: what the page calls them, and the emulator.
const CARDS: [(&str, &str); 2] = [("QAT generation 4", "4941"), ("QAT generation 2", "37c9")];

fn compare(check: bool, run: bool) -> Result<bool> {
    let mut build = checkout::cargo();
    if !process::status(build.args(["build", "--quiet", "--package", "tussock-hwtest-cli"]))? {
        bail!("tussock-hwtest does not build");
    }
    let emulator = checkout::build("tussock-qat-emulator", Profile::Dev, &[])?;
    let folder = checkout::target().join("matrix");
    std::fs::create_dir_all(&folder)?;
    let mut running = Vec::new();
    let mut devices = vec![
        ("software", "soft", String::new()),
        ("OpenSSL's default provider", "openssl", "provider=default".to_owned()),
    ];
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
        devices.push((title, "qat", format!("socket={}", socket.display())));
    }
    let library = plugins::example(&folder)?.display().to_string();
    devices.push(("the example in C", "plugin", format!("library={library}")));
    let program = checkout::target().join("debug/tussock-hwtest");
    let mut command = Command::new(&program);
    command.arg("matrix").arg("--file").arg(page());
    if check {
        command.arg("--check");
    }
    for (title, driver, key) in &devices {
        let comma = if key.is_empty() { "" } else { "," };
        command.arg(format!("{title}={driver}{comma}{key}"));
    }
    let mut right = process::status(&mut command)?;
    if run {
        let mut table = "| device | passed | failed | not declared |\n|---|---|---|---|\n".to_owned();
        for (title, driver, key) in &devices {
            let mut judge = Command::new(&program);
            judge.arg("run");
            match (*driver, key.as_str()) {
                ("plugin", _) => judge.arg("--plugin").arg(&library),
                (driver, "") => judge.args(["--driver", driver]),
                (driver, key) => judge.args(["--driver", driver, "--set", key]),
            };
            let done = process::finish(&mut judge, LONGEST)?;
            println!("{title}: {}", done.stdout.trim_end().lines().last().unwrap_or_default());
            right &= done.status.success();
            let [passed, failed, undeclared] =
                counts(&done.stdout).with_context(|| format!("the kit says of {title}: {}", done.text()))?;
            table += &format!("| {title} | {passed} | {failed} | {undeclared} |\n");
        }
        write_found(&table)?;
    }
    Ok(right)
}

/// How long the kit may take for one device.
const LONGEST: Duration = Duration::from_secs(1200);

fn page() -> PathBuf {
    checkout::root().join("docs/support-matrix.md")
}

/// The last line of what the kit says: how many passed, failed, and are about what the device does not declare.
fn counts(said: &str) -> Option<[u32; 3]> {
    let words = said.trim_end().lines().last()?.split(", ");
    let numbers: Vec<u32> = words.filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
    numbers.try_into().ok()
}

fn write_found(table: &str) -> Result<()> {
    const BEGIN: &str = "<!-- found: cargo xtask matrix --run -->\n";
    const END: &str = "<!-- end of found -->";
    let text = std::fs::read_to_string(page())?;
    let (before, rest) = text.split_once(BEGIN).context("the page has no place for what the kit finds")?;
    let (_, after) = rest.split_once(END).context("the place for what the kit finds has no end")?;
    Ok(std::fs::write(page(), format!("{before}{BEGIN}\n{table}\n{END}{after}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kits_last_line_is_understood() {
        let said = "ok    something\n1235 passed, 0 failed, 7 for what the device does not declare\n";
        assert_eq!(counts(said), Some([1235, 0, 7]));
        assert_eq!(counts("error: no device\n"), None);
    }
}
