//! docs/interop.md, written from a run.

use std::fs;

use anyhow::{Context, Result};

use crate::checkout;
use crate::libreswan;
use crate::report::{Outcome, Row};
use crate::strongswan::Release;

/// Write the table of a run. What stands above the marker in the file is kept.
pub fn write_interop(rows: &[Row]) -> Result<()> {
    let file = checkout::root().join("docs/interop.md");
    let old = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let prose = old.split(MARKER).next().unwrap_or_default();
    let (host, trixie) = (Release::Host.version(), Release::Trixie.version());
    let mut text = format!(
        "{prose}{MARKER}\n\nPeers: strongSwan {host} (Debian 12) and {trixie} (Debian 13), libreswan {} (Debian 12).\n\n",
        libreswan::version()
    );
    text += "| scenario | shows | roles (initiator first) | result |\n|---|---|---|---|\n";
    for row in rows {
        let result = match &row.outcome {
            Outcome::Passed | Outcome::Counted(_) => "passes",
            Outcome::Failed(_) => "**fails**",
            Outcome::Skipped(_) => "not run",
        };
        text += &format!("| {} | {} | {} | {result} |\n", row.name, row.shows, row.roles);
    }
    fs::write(&file, text)?;
    println!("written: {}", file.display());
    Ok(())
}

/// The line below which the table is written by `cargo xtask test interop --write-docs`.
const MARKER: &str = "<!-- below: cargo xtask test interop --write-docs -->";
