//! Emulated OpenSSL providers for the gateways of a lab: a module whose hardware is a thread, and a configuration that says how fast
//! it is and what goes wrong.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::checkout::{self, Profile};

/// Build the module, and return its path.
pub fn build(profile: Profile) -> Result<PathBuf> {
    checkout::build_library("tussock-openssl-emulator", profile, "libtussock_pausing.so")
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
