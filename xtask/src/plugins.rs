//! The example of a vendor's plug-in, built with the machine's C compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::checkout;
use crate::process;

/// What it carries.
pub const ESP: &str = "chacha20poly1305";

/// Build it in a folder, and return its path.
pub fn example(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("libexample.so");
    let home = checkout::root().join("spi/cabi");
    let mut command = Command::new("cc");
    command.args(["-O2", "-std=c11", "-fPIC", "-shared", "-I"]).arg(home.join("include"));
    command.arg("-o").arg(&library).args([home.join("example/plugin.c"), home.join("example/engine.c")]);
    process::run(command.args(["-lcrypto", "-lpthread"]))?;
    Ok(library)
}

/// What a gateway has to know of it.
pub fn section(name: &str, library: &Path) -> String {
    format!("[accel.{name}]\ndriver = \"plugin\"\nlibrary = \"{}\"\n", library.display())
}
