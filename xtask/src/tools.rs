//! Cargo's additional commands: used from the machine if it has them, else installed for this checkout only.

use std::ffi::OsString;
use std::fs;

use anyhow::{Result, bail};

use crate::checkout;
use crate::process;

/// Make sure that a tool can be called with [`path`] as its search path.
pub fn need(tool: &str) -> Result<()> {
    if std::env::split_paths(&path()).any(|folder| folder.join(tool).is_file()) {
        return Ok(());
    }
    eprintln!("installing {tool} into {}", checkout::tools().display());
    let build = checkout::target().join("tools-build");
    let mut command = checkout::cargo();
    command.args(["install", "--quiet", "--locked", tool, "--root"]).arg(checkout::tools());
    command.env("CARGO_TARGET_DIR", &build);
    let done = process::status(&mut command)?;
    fs::remove_dir_all(build).ok();
    if !done {
        bail!("{tool} cannot be installed");
    }
    Ok(())
}

/// The search path with this checkout's tools first.
pub fn path() -> OsString {
    let mut path = checkout::tools().join("bin").into_os_string();
    if let Some(old) = std::env::var_os("PATH") {
        path.push(":");
        path.push(old);
    }
    path
}
