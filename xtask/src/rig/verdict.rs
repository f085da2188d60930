//! What the judges said: a table for people, a file for the support matrix.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::checkout;

/// What one judge found of one algorithm on one card.
pub struct Check {
    /// Who judged: `linux`, `dpdk`, `qatlib`, `driver`.
    pub judge: &'static str,
    /// The card's device number.
    pub device: &'static str,
    pub algorithm: String,
    /// Cases.
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    /// Requests that the card served for it, where they can be told apart by their names.
    pub served: Option<u64>,
    /// Whether a failure counts: the card says that it can do this, or it has to pass for another reason.
    pub counts: bool,
    /// What a reader should know.
    pub note: String,
}

impl Check {
    /// Whether it is as it should be: nothing failed, something ran, and the card had a part in it.
    pub fn is_good(&self) -> bool {
        !self.counts || (self.failed == 0 && self.passed > 0 && self.served != Some(0))
    }
}

/// A run with a card that flips one bit in each result. The judge must notice.
pub struct Control {
    pub judge: &'static str,
    pub device: &'static str,
    pub what: String,
    /// How many cases failed of how many that were tried.
    pub failed: u64,
    pub tried: u64,
    pub noticed: bool,
}

/// A run of a judge that says nothing of algorithms.
pub struct Remark {
    pub judge: &'static str,
    pub device: &'static str,
    pub what: String,
    pub good: bool,
}

/// All that was found.
#[derive(Default)]
pub struct Verdicts {
    pub checks: Vec<Check>,
    pub controls: Vec<Control>,
    pub remarks: Vec<Remark>,
    /// Which kernel, QEMU, and so on.
    pub versions: Vec<(String, String)>,
}

impl Verdicts {
    /// Adds what others said.
    pub fn add(&mut self, other: Verdicts) {
        self.checks.extend(other.checks);
        self.controls.extend(other.controls);
        self.remarks.extend(other.remarks);
        self.versions.extend(other.versions);
    }

    /// Whether everything that counts is as it should be.
    pub fn are_good(&self) -> bool {
        self.checks.iter().all(Check::is_good)
            && self.controls.iter().all(|control| control.noticed)
            && self.remarks.iter().all(|remark| remark.good)
    }

    /// The table.
    pub fn print(&self) {
        println!();
        println!(
            "      {:<7} {:<6} {:<38} {:>7} {:>7} {:>8} {:>9}",
            "judge", "card", "algorithm", "passed", "failed", "skipped", "served"
        );
        for check in &self.checks {
            let served = check.served.map_or_else(|| "-".to_owned(), |served| served.to_string());
            println!(
                "{:<5} {:<7} {:<6} {:<38} {:>7} {:>7} {:>8} {:>9}  {}",
                match (check.is_good(), check.counts) {
                    (true, true) => "ok",
                    (true, false) => "-",
                    (false, _) => "FAIL",
                },
                check.judge,
                check.device,
                check.algorithm,
                check.passed,
                check.failed,
                check.skipped,
                served,
                check.note
            );
        }
        if !self.controls.is_empty() {
            println!("\n      with one bit flipped in every result");
        }
        for control in &self.controls {
            let word = if control.noticed { "ok" } else { "FAIL" };
            println!(
                "{word:<5} {:<7} {:<6} {:<38} {:>7} {:>7}",
                control.judge,
                control.device,
                control.what,
                control.tried - control.failed,
                control.failed
            );
        }
        if !self.remarks.is_empty() {
            println!();
        }
        for remark in &self.remarks {
            let word = if remark.good { "ok" } else { "FAIL" };
            println!("{word:<5} {:<7} {:<6} {}", remark.judge, remark.device, remark.what);
        }
    }

    /// Writes `target/rig/results.json`.
    pub fn write(&self) -> Result<PathBuf> {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "judge": check.judge, "device": check.device, "algorithm": check.algorithm,
                    "passed": check.passed, "failed": check.failed, "skipped": check.skipped,
                    "served": check.served, "counts": check.counts, "good": check.is_good(), "note": check.note,
                })
            })
            .collect();
        let controls: Vec<Value> = self
            .controls
            .iter()
            .map(|control| {
                json!({
                    "judge": control.judge, "device": control.device, "what": control.what,
                    "tried": control.tried, "failed": control.failed, "noticed": control.noticed,
                })
            })
            .collect();
        let remarks: Vec<Value> = self
            .remarks
            .iter()
            .map(|remark| {
                json!({ "judge": remark.judge, "device": remark.device, "what": remark.what, "good": remark.good })
            })
            .collect();
        let versions: serde_json::Map<String, Value> =
            self.versions.iter().map(|(what, version)| (what.clone(), json!(version))).collect();
        let all = json!({ "versions": versions, "checks": checks, "controls": controls, "remarks": remarks });
        let folder = checkout::target().join("rig");
        fs::create_dir_all(&folder)?;
        let file = folder.join("results.json");
        fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        Ok(file)
    }
}
