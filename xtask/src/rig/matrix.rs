//! docs/support-matrix.md, written from the last run: what each judge found of each algorithm on each card.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::checkout;

/// The line below which the tables are written.
const MARKER: &str = "<!-- below: cargo xtask rig --write-docs -->";

/// Writes the tables. What stands above the marker in the file is kept.
pub fn write() -> Result<()> {
    let results = checkout::target().join("rig/results.json");
    let results =
        fs::read_to_string(&results).with_context(|| format!("no results in {}", results.display()))?;
    let file = checkout::root().join("docs/support-matrix.md");
    let old = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let prose = old.split(MARKER).next().unwrap_or_default();
    fs::write(&file, format!("{prose}{MARKER}\n\n{}", tables(&serde_json::from_str(&results)?)))?;
    println!("written: {}", file.display());
    Ok(())
}

fn tables(results: &Value) -> String {
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
    let list = |key: &str| results[key].as_array().into_iter().flatten();

    let mut columns: BTreeSet<(String, String)> = BTreeSet::new();
    let mut rows: BTreeMap<String, BTreeMap<(String, String), String>> = BTreeMap::new();
    for check in list("checks") {
        let column = (word(check, "device"), word(check, "judge"));
        let (passed, failed) = (number(check, "passed"), number(check, "failed"));
        let mut cell = match failed {
            0 => format!("{passed}"),
            _ => format!("{passed}, **{failed} failed**"),
        };
        if check["counts"] == false {
            cell = format!("not claimed ({failed} failed)");
        } else if let Some(served) = check["served"].as_u64() {
            let _ = write!(cell, " ({served})");
        }
        rows.entry(word(check, "algorithm")).or_default().insert(column.clone(), cell);
        columns.insert(column);
    }
    let mut text = String::from("| algorithm |");
    columns.iter().for_each(|(device, judge)| text += &format!(" {device} by {judge} |"));
    text += &format!("\n|---|{}\n", "---|".repeat(columns.len()));
    for (algorithm, cells) in &rows {
        text += &format!("| {algorithm} |");
        columns
            .iter()
            .for_each(|column| text += &format!(" {} |", cells.get(column).map_or("", |cell| cell)));
        text += "\n";
    }
    text += "\nWith one bit flipped in every result:\n\n| judge | card | what | failed | of |\n|---|---|---|---|---|\n";
    for control in list("controls") {
        let (failed, tried) = (number(control, "failed"), number(control, "tried"));
        let (judge, device, what) = (word(control, "judge"), word(control, "device"), word(control, "what"));
        text += &format!("| {judge} | {device} | {what} | {failed} | {tried} |\n");
    }
    let versions = results["versions"].as_object().into_iter().flatten();
    let versions: Vec<String> =
        versions.map(|(what, version)| format!("{what} {}", version.as_str().unwrap_or_default())).collect();
    text += &format!("\nVersions: {}.\n", versions.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_judge_on_each_card_has_a_column_and_each_algorithm_a_row() {
        let check = |judge, device, algorithm, passed, failed, counts| {
            json!({ "judge": judge, "device": device, "algorithm": algorithm, "passed": passed, "failed": failed,
                "served": 90, "counts": counts })
        };
        let results = json!({
            "versions": { "linux": "6.12" },
            "checks": [
                check("linux", "37c9", "aes-cbc", 1, 0, true),
                check("dpdk", "4941", "aes-cbc", 20, 1, true),
                check("dpdk", "37c9", "zuc", 3, 29, false),
            ],
            "controls": [{ "judge": "linux", "device": "37c9", "what": "aes-cbc", "failed": 1, "tried": 1 }],
        });
        let text = tables(&results);
        assert!(
            text.starts_with(
                "| algorithm | 37c9 by dpdk | 37c9 by linux | 4941 by dpdk |\n|---|---|---|---|\n"
            )
        );
        assert!(text.contains("| aes-cbc |  | 1 (90) | 20, **1 failed** (90) |\n"));
        assert!(text.contains("| zuc | not claimed (29 failed) |  |  |\n"));
        assert!(
            text.contains("| linux | 37c9 | aes-cbc | 1 | 1 |\n")
                && text.ends_with("Versions: linux 6.12.\n")
        );
    }

    #[test]
    fn the_page_has_its_marker() {
        let page = fs::read_to_string(checkout::root().join("docs/support-matrix.md")).unwrap();
        assert!(page.contains(MARKER));
    }
}
