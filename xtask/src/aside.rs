//! Debian packages of another suite, unpacked into the cache as a system that a program can be started in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checkout;
use crate::debian::{self, Apt};

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
        let (archives, root) = (home.join("archives"), home.join("root"));
        let apt = Apt::begin(&home, &[self.suite])?;
        apt.download(&archives, None, self.packages)?;
        debian::unpack(&archives, &root, |_| true)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&archives)? {
            files.push(entry?.file_name().to_string_lossy().into_owned());
        }
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
        Ok(files)
    }
}
