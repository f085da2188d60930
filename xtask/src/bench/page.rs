//! docs/performance.md: the tables of a run, each between its two markers; what stands around them is kept.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Report;
use super::table::Table;
use crate::checkout;

/// A report, and the machine's line of the time it was made in.
pub struct Part {
    /// Its name, which is that of the place for its notes.
    pub name: &'static str,
    /// The machine, and its load.
    pub machine: String,
    /// The report.
    pub report: Report,
}

/// Write what was measured.
pub fn write(parts: &[Part]) -> Result<()> {
    let file = checkout::root().join("docs/performance.md");
    let mut text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    for part in parts {
        let lines = std::iter::once(&part.machine).chain(&part.report.notes);
        let notes: String = lines.map(|line| format!("- {line}\n")).collect();
        text = placed(&text, part.name, &notes)?.with_context(|| format!("no place for {}", part.name))?;
        for table in &part.report.tables {
            // Those without a place are for programs.
            text = placed(&text, table.name, &Table::markdown(table))?.unwrap_or(text);
        }
    }
    fs::write(&file, text)?;
    eprintln!("written: {}", file.display());
    Ok(())
}

/// The page with something new in a place; `None` when there is no such place.
fn placed(page: &str, name: &str, new: &str) -> Result<Option<String>> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let Some((before, rest)) = page.split_once(&begin) else { return Ok(None) };
    let Some((_, after)) = rest.split_once(&end) else { bail!("the place {name} has no end") };
    Ok(Some(format!("{before}{begin}\n{new}\n{end}{after}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_stays_and_places_are_filled() {
        let page = "Prose.\n<!-- begin a -->\nold\n<!-- end a -->\nMore.\n";
        let once = placed(page, "a", "new\n").unwrap().unwrap();
        assert_eq!(once, "Prose.\n<!-- begin a -->\n\nnew\n\n<!-- end a -->\nMore.\n");
        assert_eq!(placed(&once, "a", "new\n").unwrap().unwrap(), once);
        assert_eq!(placed(page, "b", "new\n").unwrap(), None);
        assert!(placed("<!-- begin a -->\n", "a", "new\n").is_err());
    }

    #[test]
    fn the_page_has_a_place_for_every_report() {
        let page = fs::read_to_string(checkout::root().join("docs/performance.md")).unwrap();
        let names = [
            "floor",
            "throughput-run",
            "ike-run",
            "scale-run",
            "overload-run",
            "floor-path",
            "throughput",
            "ratios",
        ];
        for name in names.iter().chain(&["ike", "memory", "scale", "overload-tunnel", "overload-ike"]) {
            assert!(placed(&page, name, "x").unwrap().is_some(), "{name}");
        }
    }
}
