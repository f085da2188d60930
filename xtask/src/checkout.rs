//! Where things lie in this checkout, and how cargo is called from inside cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The root of the checkout: the folder above `xtask/`.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// The folder cargo builds into, honouring `CARGO_TARGET_DIR`.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Where tools installed for this checkout only live (`bin/` inside).
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// The per-user cache for what is expensive to fetch again: `~/.cache/tussock`.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    base.unwrap_or_else(|| PathBuf::from("/var/cache")).join("tussock")
}

/// A cargo command in the root of the checkout.
///
/// `cargo run` exports facts about *this* package; left in the environment they make build scripts of the
/// packages built next believe that something changed.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        let about_xtask = name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name == "CARGO_BIN_NAME"
            || name == "CARGO_CRATE_NAME"
            || name == "CARGO";
        if about_xtask {
            command.env_remove(&key);
        }
    }
    command
}

/// Whether a gateway is built with optimisation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As `cargo test` builds it, so that nothing is compiled twice.
    Dev,
    /// As it is shipped.
    Release,
}

/// The programs of the gateway; the first starts the others.
pub const PROGRAMS: [&str; 3] = ["tussock", "tussock-gateway", "tussock-secure"];

/// Build the gateway and return the path of its binary.
pub fn build_gateway(profile: Profile) -> Result<PathBuf> {
    build("tussock", profile, &[])
}

/// Build the gateway with a feature that others are built without, and return the path of a copy of its own. The one without is at
/// its place again afterwards, whoever runs it.
pub fn build_gateway_with(feature: &str, profile: Profile) -> Result<PathBuf> {
    let built = build("tussock", profile, &[feature.to_owned()])?;
    // A folder of its own: the programs find each other side by side.
    let folder = built.with_file_name(format!("with-{feature}"));
    std::fs::create_dir_all(&folder)?;
    for program in PROGRAMS {
        let (from, to) = (built.with_file_name(program), folder.join(program));
        std::fs::remove_file(&to).ok();
        std::fs::copy(&from, &to).with_context(|| format!("no copy of {}", from.display()))?;
    }
    build_gateway(profile)?;
    Ok(folder.join("tussock"))
}

/// Build a package whose binary has its name, with some features, and return the path of the binary.
pub fn build(package: &str, profile: Profile, features: &[String]) -> Result<PathBuf> {
    let programs = if package == "tussock" { &PROGRAMS[..] } else { &[package] };
    let mut more: Vec<&str> = programs.iter().flat_map(|program| ["--bin", program]).collect();
    let features = features.join(",");
    if !features.is_empty() {
        more.extend(["--features", &features]);
    }
    compile(package, profile, &more, package)
}

/// Build the library of a package and return its path: a file of this name.
pub fn build_library(package: &str, profile: Profile, file: &str) -> Result<PathBuf> {
    compile(package, profile, &["--lib"], file)
}

/// Runs cargo; returns the path of a file that has to be there then.
fn compile(package: &str, profile: Profile, more: &[&str], file: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", package]).args(more);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    if !process::status(&mut command)? {
        bail!("{package} does not build");
    }
    let built = target().join(folder).join(file);
    built.metadata().with_context(|| format!("{} is not there after the build", built.display()))?;
    Ok(built)
}
