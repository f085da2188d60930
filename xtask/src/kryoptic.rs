//! Kryoptic, a PKCS #11 token in software, in Rust: built once from its crate, with the lockfile that comes with it, and kept in the
//! target folder. It takes two minutes. It is no part of our own build: its SQLite and ours cannot be in one lockfile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout;
use crate::packages;
use crate::process;

const VERSION: &str = "1.5.4";
/// Without EdDSA and what else needs a younger OpenSSL than Debian 12's.
const FEATURES: &str = "minimal,kryoptic-lib/dynamic,kryoptic-lib/ffdh,kryoptic-lib/ec_montgomery";

/// The module, built if it is not there yet.
pub fn module() -> Result<PathBuf> {
    let folder = checkout::target().join("kryoptic");
    let module = folder.join("libkryoptic_pkcs11.so");
    if module.exists() {
        return Ok(module);
    }
    packages::need(&[packages::BUILD, packages::KRYOPTIC])?;
    eprintln!("building Kryoptic {VERSION}, which takes two minutes and is done once");
    let source = source(&folder)?;
    let built = folder.join("build");
    let mut build = cargo(&source, &built);
    build.args(["build", "--quiet", "--locked", "--release", "--lib", "--no-default-features"]);
    if !process::status(build.args(["--features", FEATURES]))? {
        bail!("Kryoptic does not build");
    }
    let made = built.join("release/libkryoptic_pkcs11.so");
    fs::copy(&made, &module).with_context(|| format!("{} is not there after the build", made.display()))?;
    Ok(module)
}

/// Its source, where it may be built: fetched by cargo as a dependency of nothing, and copied out of cargo's cache.
fn source(folder: &Path) -> Result<PathBuf> {
    let shell = folder.join("shell");
    fs::create_dir_all(shell.join("src"))?;
    fs::write(shell.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"shell\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n[dependencies]\n\
         kryoptic = {{ version = \"={VERSION}\", default-features = false }}\n"
    );
    fs::write(shell.join("Cargo.toml"), manifest)?;
    let target = folder.join("build");
    let told = process::run(cargo(&shell, &target).args(["metadata", "--quiet", "--format-version", "1"]))?;
    let told: Value = serde_json::from_str(&told)?;
    let packages = told.get("packages").and_then(Value::as_array).context("cargo tells of no packages")?;
    let of = |package: &Value| package.get("name").is_some_and(|name| name == "kryoptic");
    let manifest = packages
        .iter()
        .find(|package| of(package))
        .and_then(|package| package.get("manifest_path")?.as_str());
    let cached =
        Path::new(manifest.context("cargo does not know kryoptic")?).parent().context("no folder")?;
    let source = folder.join("source");
    fs::remove_dir_all(&source).ok();
    process::run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(cached).arg(&source))?;
    // It lies below our workspace and is none of it.
    let manifest = source.join("Cargo.toml");
    fs::write(&manifest, fs::read_to_string(&manifest)? + "\n[workspace]\n")?;
    Ok(source)
}

fn cargo(at: &Path, target: &Path) -> Command {
    let mut command = checkout::cargo();
    command.current_dir(at).env("CARGO_TARGET_DIR", target);
    command
}
