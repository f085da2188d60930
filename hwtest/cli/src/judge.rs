//! `run`: every rule over every capability, told as it goes; at the end the devices' random jobs against software's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use hwtest::cross::Plan;
use hwtest::run::{caught, judge};
use hwtest::{Capability, Ending, Narrow, Verdict};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use spi::SignScheme;

use crate::target::Opened;
use crate::{Target, code};

/// The name of the comparison, which is no rule of the kit's list since it needs a second driver.
const CROSS: &str = "random_jobs_end_as_those_of_the_reference";

/// Likewise.
const SIGNATURES: &str = "signatures_verify_at_the_reference";

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    pub(crate) extent: Extent,
    /// Write all verdicts into a file, for programs.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much is checked.
#[derive(Args, Clone, Debug)]
pub(crate) struct Extent {
    /// Only rules whose part or name contains this; several times for several.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Random jobs to compare with software.
    #[arg(long, default_value_t = 100_000)]
    jobs: usize,
    /// What the random jobs follow from; a failure names it.
    #[arg(long)]
    seed: Option<u64>,
}

/// What was found of one device.
pub(crate) struct Findings {
    pub(crate) opened: Opened,
    pub(crate) verdicts: Vec<Verdict>,
}

impl Findings {
    /// Passed, failed, not declared.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let count =
            |of: fn(&Ending) -> bool| self.verdicts.iter().filter(|verdict| of(&verdict.ending)).count();
        [
            count(|ending| *ending == Ending::Passed),
            count(|ending| matches!(ending, Ending::Failed(_))),
            count(|ending| *ending == Ending::NotDeclared),
        ]
    }
}

pub(crate) fn run(options: &Options) -> Result<u8> {
    let mut all = Vec::new();
    for opened in options.target.open()? {
        let findings = findings(opened, &options.extent);
        print(&findings);
        all.push(findings);
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&all.iter().map(as_json).collect::<Vec<_>>())?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(verdict(&all))
}

/// The exit code.
pub(crate) fn verdict(all: &[Findings]) -> u8 {
    let [passed, failed] =
        [0, 1].map(|which| all.iter().map(|findings| findings.counts()[which]).sum::<usize>());
    match (passed, failed) {
        (_, 1..) => code::BROKEN,
        (0, 0) => code::NOTHING,
        _ => 0,
    }
}

/// Checks one device. What fails is printed at once.
pub(crate) fn findings(opened: Opened, extent: &Extent) -> Findings {
    let wanted = |part: &str, name: &str| {
        extent.only.is_empty()
            || extent.only.iter().any(|text| name.contains(&**text) || part.contains(&**text))
    };
    let bar = bar(hwtest::RULES.len());
    let mut verdicts =
        judge(&opened.device, &|rule| wanted(rule.part, rule.name), &mut |verdict, behind, all| {
            bar.set_length(all as u64);
            bar.set_position(behind as u64);
            bar.set_message(format!("{} {}", verdict.rule.replace('_', " "), verdict.capability));
            if let Ending::Failed(what) = &verdict.ending {
                bar.suspend(|| println!("FAIL  {} [{}]\n      {what}", verdict.rule, verdict.capability));
            }
        });
    bar.finish_and_clear();
    if wanted("cross", CROSS) && extent.jobs > 0 {
        verdicts.push(compare(&opened, extent));
    }
    if wanted("cross", SIGNATURES) && !opened.device.desc().caps.sign.is_empty() {
        verdicts.push(signatures(&opened));
    }
    Findings { opened, verdicts }
}

/// Random jobs on the device and in software.
fn compare(opened: &Opened, extent: &Extent) -> Verdict {
    let plan = Plan { jobs: extent.jobs, seed: extent.seed.unwrap_or(Plan::default().seed) };
    let spinner =
        ProgressBar::new_spinner().with_message(format!("{} random jobs beside software", plan.jobs));
    spinner.enable_steady_tick(Duration::from_millis(120));
    let start = Instant::now();
    let narrow = Narrow::new(&Arc::clone(&opened.device), Capability::All);
    let reference = registry::network_drivers(&registry::Config::default());
    let mut compared = (0, 0);
    let ending = match reference.last() {
        None => Ending::Failed("this build has no software to compare with".into()),
        Some(soft) => match caught(|| compared = hwtest::cross::agree(&narrow, &**soft, plan)) {
            Ok(()) if compared == (0, 0) => Ending::NotDeclared,
            Ok(()) => Ending::Passed,
            Err(what) => Ending::Failed(format!("{what} (--seed {} --jobs {})", plan.seed, plan.jobs)),
        },
    };
    spinner.finish_and_clear();
    let (packets, operations) = compared;
    Verdict {
        rule: CROSS,
        capability: format!("{packets} packets, {operations} key exchanges, seed {}", plan.seed),
        ending,
        skipped: Vec::new(),
        took: start.elapsed(),
    }
}

/// Signatures of the device, judged by software: what a device verifies itself is its own word only.
fn signatures(opened: &Opened) -> Verdict {
    let start = Instant::now();
    let narrow = Narrow::new(&Arc::clone(&opened.device), Capability::All);
    let reference = registry::network_drivers(&registry::Config::default());
    let missing = |scheme: &SignScheme| format!("{scheme:?}: no key was named that signs with it");
    let (mut judged, mut skipped) = (0, opened.without_key.iter().map(missing).collect::<Vec<_>>());
    let ending = match reference.last() {
        None => Ending::Failed("this build has no software to judge them".into()),
        Some(soft) => match caught(|| {
            let (count, unknown) = hwtest::cross::signatures_verify(&narrow, &**soft);
            judged = count;
            skipped.extend(unknown.iter().map(|scheme| format!("software does not know {scheme:?}")));
        }) {
            Ok(()) if judged == 0 => {
                skipped.push("the device has no keys that the kit can use; name some with --key".into());
                Ending::NotDeclared
            }
            Ok(()) => Ending::Passed,
            Err(what) => Ending::Failed(what),
        },
    };
    let capability = format!("{judged} schemes");
    Verdict { rule: SIGNATURES, capability, ending, skipped, took: start.elapsed() }
}

pub(crate) fn bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// One line for each rule, then what was skipped and the sums.
fn print(findings: &Findings) {
    let Opened { driver, device, .. } = &findings.opened;
    println!("{driver} {}: {}", device.desc().id, findings.opened.identity());
    let mut rules: BTreeMap<usize, (&str, Vec<&Verdict>)> = BTreeMap::new();
    for verdict in &findings.verdicts {
        let place = hwtest::RULES.iter().position(|rule| rule.name == verdict.rule).unwrap_or(usize::MAX);
        rules.entry(place).or_insert((verdict.rule, Vec::new())).1.push(verdict);
    }
    for (name, verdicts) in rules.values() {
        let failed = verdicts.iter().filter(|verdict| matches!(verdict.ending, Ending::Failed(_))).count();
        let absent = verdicts.iter().all(|verdict| verdict.ending == Ending::NotDeclared);
        let word = match (failed, absent) {
            (1.., _) => "FAIL",
            (0, true) => "-",
            (0, false) => "ok",
        };
        let over = match &verdicts[..] {
            [one] => one.capability.clone(),
            _ if failed > 0 => format!("{failed} of {} capabilities", verdicts.len()),
            _ => format!("{} capabilities", verdicts.len()),
        };
        let seconds: f64 = verdicts.iter().map(|verdict| verdict.took.as_secs_f64()).sum();
        println!("{word:<5} {:<66} {over:<32} {seconds:6.1} s", name.replace('_', " "));
        for verdict in verdicts {
            if let Ending::Failed(what) = &verdict.ending {
                println!("      {}: {what}", verdict.capability);
            }
        }
        let mut skipped: Vec<&String> = verdicts.iter().flat_map(|verdict| &verdict.skipped).collect();
        skipped.sort();
        skipped.dedup();
        skipped.iter().for_each(|why| println!("      not checked: {why}"));
    }
    let [passed, failed, absent] = findings.counts();
    println!("{passed} passed, {failed} failed, {absent} for what the device does not declare\n");
}

fn as_json(findings: &Findings) -> serde_json::Value {
    let verdicts = findings.verdicts.iter().map(|verdict| {
        let (ending, what) = match &verdict.ending {
            Ending::Passed => ("passed", None),
            Ending::Failed(what) => ("failed", Some(what)),
            Ending::NotDeclared => ("not declared", None),
        };
        json!({ "rule": verdict.rule, "capability": verdict.capability, "ending": ending, "what": what,
            "skipped": verdict.skipped, "seconds": verdict.took.as_secs_f64() })
    });
    json!({
        "driver": findings.opened.driver,
        "device": findings.opened.device.desc().id,
        "identity": findings.opened.identity(),
        "version": env!("CARGO_PKG_VERSION"),
        "verdicts": verdicts.collect::<Vec<_>>(),
    })
}
