//! The three processes as they run. Nearly all of it needs root, and namespaces of its own.
//!
//! | module | what is shown |
//! |---|---|
//! | `table` | what privilege each has |
//! | `memory` | where secrets are, and where not |
//! | `killed` | what happens when one of them is killed |
//! | `echo` | terminals after somebody was asked for a password |
//! | `fake` | what a gateway that is no longer ours gets from the key side |
//! | `one` | all of it in one process |
//! | `pair` | two gateways to show it on |
#![allow(clippy::unwrap_used, missing_docs)]

mod echo;
mod fake;
mod killed;
mod memory;
mod one;
mod pair;
mod table;

use std::process::Command;

/// A pre-shared key.
const SECRET: &str = "planted: 7f3a9b52c4e8d016";

/// Whether this can be tried here; says loudly when not.
fn can(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: {what} needs root");
    }
    root
}

fn tool(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}
