//! A younger strongSwan than the machine's own: Debian 13's packages, unpacked side by side, never installed.
//!
//! Debian 12's strongSwan sends user-space ESP in UDP only; raw ESP came later. It takes about ten seconds and 150 MB.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkout;
use crate::debian::{self, Apt};

const SUITE: &str = "trixie";

/// swanctl for the control socket's plugin, which comes with it.
const PACKAGES: &[&str] =
    &["strongswan-charon", "strongswan-swanctl", "libcharon-extra-plugins", "libstrongswan-extra-plugins"];

/// The folder the packages are unpacked into.
pub fn root() -> PathBuf {
    home().join("root")
}

/// Make sure that it is there.
pub fn need() -> Result<()> {
    let done = home().join("complete");
    if done.exists() {
        return Ok(());
    }
    eprintln!("unpacking strongSwan of Debian {SUITE} into {}", home().display());
    fetch_and_unpack().with_context(|| format!("strongSwan of Debian {SUITE} cannot be had"))?;
    fs::write(done, "")?;
    Ok(())
}

fn home() -> PathBuf {
    checkout::cache().join(format!("strongswan-{SUITE}"))
}

fn fetch_and_unpack() -> Result<()> {
    let home = home();
    fs::remove_dir_all(&home).ok();
    fs::create_dir_all(&home)?;
    let apt = Apt::begin(&home, &[SUITE])?;
    let (archives, root) = (home.join("archives"), home.join("root"));
    apt.download(&archives, None, PACKAGES)?;
    debian::unpack(&archives, &root, |_| true)?;
    fs::remove_dir_all(archives)?;
    apt.end()?;
    // What the base packages' scripts would have made.
    for folder in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(folder))?;
        std::os::unix::fs::symlink(Path::new("usr").join(folder), root.join(folder)).ok();
    }
    std::os::unix::fs::symlink("/run", root.join("var/run")).ok();
    for folder in ["proc", "sys", "dev", "run", "tmp", "lab"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}
