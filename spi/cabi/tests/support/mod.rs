//! Plug-ins built from C, with every compiler there is.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and may panic"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a plug-in has to get through.
const STRICT: &[&str] =
    &["-O2", "-g", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fPIC", "-shared"];

pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles C into a library; `None`, loudly, without the compiler.
pub fn build(compiler: &str, name: &str, sources: &[&str], more: &[&str]) -> Option<PathBuf> {
    let library =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{compiler}-{}.so", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(STRICT).arg("-I").arg(here("include")).arg("-I").arg(here("example")).args(more);
    command
        .arg("-o")
        .arg(&library)
        .args(sources.iter().map(|source| here(source)))
        .args(["-lcrypto", "-lpthread"]);
    let Ok(output) = command.output() else {
        eprintln!(
            "SKIPPED: there is no {compiler}; apt-get install {}",
            if compiler == "cc" { "gcc" } else { compiler }
        );
        return None;
    };
    assert!(output.status.success(), "{compiler} {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

/// The example.
pub fn example(compiler: &str) -> Option<PathBuf> {
    build(compiler, "example", &["example/plugin.c", "example/engine.c"], &[])
}
