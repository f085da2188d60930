//! Packages of another Debian than the machine's own, unpacked side by side, never installed.
//!
//! apt is pointed at folders of its own, so the machine's package state is neither read nor changed, the packages'
//! scripts do not run, and nobody has to be root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::process;

/// How long apt may take for one step, on a slow line.
const PATIENCE: Duration = Duration::from_secs(300);
/// `dpkg-deb` spends its time in one thread's decompression.
const UNPACKERS: usize = 2;

/// A package state of our own, in a folder.
pub struct Apt {
    home: PathBuf,
}

impl Apt {
    /// Makes one, with the package lists of some suites; the first is what packages come from unless said otherwise.
    pub fn begin(home: &Path, suites: &[&str]) -> Result<Apt> {
        fs::create_dir_all(home.join("lists/partial"))?;
        fs::write(home.join("status"), "")?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirror = mirror();
        let sources: String =
            suites.iter().map(|suite| format!("deb [signed-by={keys}] {mirror} {suite} main\n")).collect();
        fs::write(home.join("sources.list"), sources)?;
        fs::write(home.join("apt.conf"), apt_conf(home))?;
        let apt = Apt { home: home.to_path_buf() };
        apt.call("apt-get", &["-qq", "update"])?;
        Ok(apt)
    }

    /// Downloads packages and all that they need into `archives`, which keeps what is there already.
    pub fn download(&self, archives: &Path, suite: Option<&str>, packages: &[&str]) -> Result<()> {
        fs::create_dir_all(archives.join("partial"))?;
        let place = format!("Dir::Cache::archives={}", archives.display());
        let mut arguments = vec!["-qq", "-o", &place, "install", "--yes", "--download-only"];
        if let Some(suite) = suite {
            arguments.extend(["--target-release", suite]);
        }
        arguments.extend_from_slice(packages);
        self.call("apt-get", &arguments).map(|_| ())
    }

    /// Downloads packages without what they need into the folder `into`.
    pub fn download_only(&self, into: &Path, packages: &[&str]) -> Result<()> {
        fs::create_dir_all(into)?;
        let mut command = self.command("apt-get");
        command.current_dir(into).args(["-qq", "download"]).args(packages);
        finish(&mut command).map(|_| ())
    }

    /// The first package that `package` depends on whose name begins with `prefix`.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let said = self.call("apt-cache", &["depends", package])?;
        let found = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with(prefix)));
        Ok(found.with_context(|| format!("{package} depends on no {prefix}…"))?.to_owned())
    }

    /// Forgets the package lists.
    pub fn end(self) -> Result<()> {
        fs::remove_dir_all(self.home.join("lists"))?;
        Ok(())
    }

    fn call(&self, program: &str, arguments: &[&str]) -> Result<String> {
        finish(self.command(program).args(arguments))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.home.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Unpacks every package of a folder whose file name is `wanted` into `root`.
pub fn unpack(archives: &Path, root: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(root)?;
    let mut packages = Vec::new();
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".deb") && wanted(&name) {
            packages.push(path);
        }
    }
    if packages.is_empty() {
        bail!("apt-get downloaded nothing into {}", archives.display());
    }
    let share = packages.len().div_ceil(UNPACKERS);
    thread::scope(|scope| {
        let at_work: Vec<_> = packages
            .chunks(share)
            .map(|some| {
                scope.spawn(move || {
                    some.iter().try_for_each(|package| {
                        let mut command = Command::new("dpkg-deb");
                        process::run(command.arg("--extract").arg(package).arg(root)).map(|_| ())
                    })
                })
            })
            .collect();
        at_work.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn finish(command: &mut Command) -> Result<String> {
    let done = process::finish(command, PATIENCE)?;
    if !done.status.success() {
        bail!("`{}` failed: {}", process::line(command), done.text().trim());
    }
    Ok(done.stdout)
}

/// Only what must differ is set: proxies and the like stay as the machine has them. A mirror that is some days late (the unstable
/// suite's lists are good for a week) still has what its lists name.
fn apt_conf(home: &Path) -> String {
    let home = home.display();
    format!(
        "Dir::State \"{home}\";
Dir::State::status \"{home}/status\";
Dir::State::lists \"{home}/lists\";
Dir::Cache::archives \"{home}/archives\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
Dir::Etc::sourcelist \"{home}/sources.list\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
APT::Install-Recommends \"false\";
APT::Sandbox::User \"\";
Debug::NoLocking \"true\";
Acquire::Languages \"none\";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";
Acquire::http::Timeout \"20\";
Acquire::Retries \"2\";
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
