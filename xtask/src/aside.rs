//! Debian packages of another suite, unpacked into the cache and never installed.
//!
//! apt is pointed at folders of its own, so the machine's package state is neither read nor changed, and the packages'
//! scripts do not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::checkout;
use crate::process;

/// Some packages of a suite, with all that they depend on.
#[derive(Clone, Copy, Debug)]
pub struct Aside {
    /// What the folder is called, and messages speak of.
    pub name: &'static str,
    /// The suite.
    pub suite: &'static str,
    /// The packages.
    pub packages: &'static [&'static str],
}

impl Aside {
    /// The folder the packages are unpacked into.
    pub fn root(&self) -> PathBuf {
        self.home().join("root")
    }

    /// Make sure that they are there.
    pub fn need(&self) -> Result<()> {
        let done = self.home().join("complete");
        if done.exists() {
            return Ok(());
        }
        let Aside { name, suite, .. } = self;
        eprintln!("unpacking {name} of Debian {suite} into {}", self.home().display());
        let files =
            self.fetch_and_unpack().with_context(|| format!("{name} of Debian {suite} cannot be had"))?;
        fs::write(done, files.join("\n"))?;
        Ok(())
    }

    /// The version of one of them, once it is there.
    pub fn version(&self, package: &str) -> String {
        let files = fs::read_to_string(self.home().join("complete")).unwrap_or_default();
        let mut names = files.lines().filter_map(|file| file.strip_prefix(package)?.strip_prefix('_'));
        names.find_map(|rest| rest.split('_').next()).map_or("?".to_owned(), |text| text.replace("%3a", ":"))
    }

    fn home(&self) -> PathBuf {
        checkout::cache().join(format!("{}-{}", self.name, self.suite))
    }

    /// Returns the names of the packages' files.
    fn fetch_and_unpack(&self) -> Result<Vec<String>> {
        let home = self.home();
        fs::remove_dir_all(&home).ok();
        for folder in ["lists/partial", "archives/partial", "root"] {
            fs::create_dir_all(home.join(folder))?;
        }
        fs::write(home.join("status"), "")?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = format!("deb [signed-by={keys}] {} {} main\n", mirror(), self.suite);
        fs::write(home.join("sources.list"), source)?;
        fs::write(home.join("apt.conf"), apt_conf(&home))?;

        apt(&home, &["update"])?;
        let mut download = vec!["install", "--yes", "--download-only"];
        download.extend_from_slice(self.packages);
        apt(&home, &download)?;

        let root = home.join("root");
        let mut files = Vec::new();
        for entry in fs::read_dir(home.join("archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                process::run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&root))?;
                files.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        if files.is_empty() {
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
        Ok(files)
    }
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

/// Only what must differ is set: proxies and the like stay as the machine has them. A mirror that is some days late (the
/// unstable suite's lists are good for a week) still has what its lists name.
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
Acquire::Check-Valid-Until \"false\";
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
