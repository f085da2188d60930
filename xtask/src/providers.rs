//! Emulated OpenSSL providers for the gateways of a lab: a module whose hardware is a thread, and a configuration that says how fast
//! it is and what goes wrong.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::checkout::{self, Profile};
use crate::process;

/// Build the module, and return its path.
pub fn build(profile: Profile) -> Result<PathBuf> {
    let mut command = checkout::cargo();
    command.args(["build", "--quiet", "--package", "tussock-openssl-emulator", "--lib"]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    if !process::status(&mut command)? {
        bail!("tussock-openssl-emulator does not build");
    }
    let module = checkout::target().join(folder).join("libtussock_pausing.so");
    module.metadata().with_context(|| format!("{} is not there after the build", module.display()))?;
    Ok(module)
}

/// What a gateway has to know of a provider that pauses its jobs for so long; with a fault plan things go wrong. Its files are in
/// `results`.
pub fn section(
    name: &str,
    module: &Path,
    results: &Path,
    latency: &str,
    plan: Option<&str>,
) -> Result<String> {
    let file = config(name, module, results, latency, plan)?;
    Ok(format!(
        "[accel.{name}]\ndriver = \"openssl\"\nprovider = \"pausing\"\nconfig = \"{}\"\n",
        file.display()
    ))
}

/// OpenSSL's configuration for it, a file in `results`.
pub fn config(
    name: &str,
    module: &Path,
    results: &Path,
    latency: &str,
    plan: Option<&str>,
) -> Result<PathBuf> {
    let mut settings = format!("module = {}\nlatency = {latency}\nactivate = 1\n", module.display());
    if let Some(plan) = plan {
        let file = results.join(format!("{name}.toml"));
        std::fs::write(&file, plan)?;
        settings += &format!("plan = {}\n", file.display());
    }
    let file = results.join(format!("{name}.cnf"));
    std::fs::write(
        &file,
        format!(
            "openssl_conf = init\n[init]\nproviders = all\n[all]\npausing = pausing\n[pausing]\n{settings}"
        ),
    )?;
    Ok(file)
}
