//! A younger strongSwan than the machine's own: Debian 13's packages, unpacked side by side, never installed.
//!
//! Debian 12's strongSwan sends user-space ESP in UDP only; raw ESP came later. apt is pointed at folders of its
//! own, so the machine's package state is neither read nor changed, and the packages' scripts do not run. It takes
//! about ten seconds and 150 MB.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::checkout;
use crate::process;

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
    for folder in ["lists/partial", "archives/partial", "root"] {
        fs::create_dir_all(home.join(folder))?;
    }
    fs::write(home.join("status"), "")?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(home.join("sources.list"), format!("deb [signed-by={keys}] {} {SUITE} main\n", mirror()))?;
    fs::write(home.join("apt.conf"), apt_conf(&home))?;

    apt(&home, &["update"])?;
    let mut download = vec!["install", "--yes", "--download-only"];
    download.extend_from_slice(PACKAGES);
    apt(&home, &download)?;

    let root = home.join("root");
    let mut count = 0;
    for entry in fs::read_dir(home.join("archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&root))?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("apt-get downloaded nothing");
    }
    fs::remove_dir_all(home.join("archives"))?;
    fs::remove_dir_all(home.join("lists"))?;
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

fn apt(home: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-qq").args(arguments).env("APT_CONFIG", home.join("apt.conf")).env("LC_ALL", "C.UTF-8");
    let done = process::finish(&mut command, Duration::from_secs(300))?;
    if !done.status.success() {
        bail!("apt-get {} failed: {}", arguments.join(" "), done.text().trim());
    }
    Ok(())
}

/// Only what must differ is set: proxies and the like stay as the machine has them.
fn apt_conf(home: &Path) -> String {
    let home = home.display();
    format!(
        "Dir::State::status \"{home}/status\";
Dir::State::lists \"{home}/lists\";
Dir::Cache::archives \"{home}/archives\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
Dir::Etc::sourcelist \"{home}/sources.list\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
APT::Install-Recommends \"false\";
APT::Sandbox::User \"root\";
Acquire::Languages \"none\";
"
    )
}

/// The mirror this machine uses, or Debian's own.
fn mirror() -> String {
    let debian = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let modern = debian.lines().find_map(|line| line.strip_prefix("URIs:"));
    let list = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let classic = list.lines().filter(|line| line.starts_with("deb ")).find_map(|line| {
        line.split_whitespace()
            .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
    });
    let found = modern.and_then(|uris| uris.split_whitespace().next()).or(classic);
    found.unwrap_or("http://deb.debian.org/debian").to_owned()
}
