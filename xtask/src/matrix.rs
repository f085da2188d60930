//! `cargo xtask matrix`: the capabilities in docs/support-matrix.md, asked of every device that a machine without hardware can have; and
//! what the kit finds of each. Who is on the list is in [`devices`].

mod devices;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::checkout;
use crate::packages;
use crate::process;
use crate::report::{Outcome, Row};
use crate::test::row;
use devices::{Columns, Stage};

/// Write, or only look.
#[derive(Args)]
pub struct Options {
    /// Write nothing; fail if the page is stale. Devices that not every machine can have are left as the page has
    /// them.
    #[arg(long)]
    check: bool,
    /// Have the kit judge each device as well, and write down what it finds; also of those that not every machine can have.
    #[arg(long, conflicts_with = "check")]
    run: bool,
    /// Have it judge only devices whose titles contain this; several times for several. The others keep their rows.
    #[arg(long, requires = "run", value_name = "TEXT")]
    only: Vec<String>,
}

/// Run; true if the page is true now.
pub fn run(options: &Options) -> Result<bool> {
    packages::need(&[packages::BUILD])?;
    compare(options.check, options.run, &options.only)
}

/// The check as a row of `cargo xtask test`.
pub fn test() -> Row {
    let began = Instant::now();
    let outcome = match compare(true, false, &[]) {
        Ok(true) => Outcome::Passed,
        Ok(false) => Outcome::Failed("docs/support-matrix.md is stale: cargo xtask matrix".to_owned()),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    row("unit", "support matrix", began, outcome)
}

fn compare(check: bool, run: bool, only: &[String]) -> Result<bool> {
    let stage = Stage::set()?;
    let mut tables = vec![stage.usual()?];
    if run {
        let others = stage.others()?;
        tables.extend((!others.devices.is_empty()).then_some(others));
    }
    let mut right = true;
    for table in &tables {
        right &= write_capabilities(table, check)?;
    }
    if run {
        let mut found = "| device | passed | failed | not declared |\n|---|---|---|---|\n".to_owned();
        for table in &tables {
            right &= judge(table, only, &mut found)?;
        }
        write_found(&found)?;
    }
    Ok(right)
}

/// What each device of a table declares, into the page or compared with it.
fn write_capabilities(table: &Columns, check: bool) -> Result<bool> {
    let mut command = table.program();
    command.arg("matrix").arg("--file").arg(page()).args(["--mark", table.mark]);
    if check {
        command.arg("--check");
    }
    command.args(table.devices.iter().map(devices::Column::as_column));
    process::status(&mut command)
}

/// How long the kit may take for one device.
const LONGEST: Duration = Duration::from_secs(1800);

/// Has the kit judge each device of a table; a row for each. Those that nobody asked for keep the row they have.
fn judge(table: &Columns, only: &[String], found: &mut String) -> Result<bool> {
    let mut right = true;
    let old = std::fs::read_to_string(page())?;
    for device in &table.devices {
        let asked = only.is_empty() || only.iter().any(|part| device.title.contains(part.as_str()));
        let row = format!("| {} | ", device.title);
        let is_row = |line: &&str| line.starts_with(&row) && line.matches('|').count() == 5;
        if let Some(row) = old.lines().find(is_row).filter(|_| !asked) {
            *found += &format!("{row}\n");
            continue;
        }
        let mut judge = table.program();
        judge.arg("run").args(device.as_target());
        let done = process::finish(&mut judge, LONGEST)?;
        let title = device.title;
        println!("{title}: {}", done.stdout.trim_end().lines().last().unwrap_or_default());
        right &= done.status.success();
        let [passed, failed, undeclared] =
            counts(&done.stdout).with_context(|| format!("the kit says of {title}: {}", done.text()))?;
        *found += &format!("| {title} | {passed} | {failed} | {undeclared} |\n");
    }
    Ok(right)
}

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
