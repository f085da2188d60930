//! Modules of OpenSSL's that a machine may not have: the FIPS provider, and the provider for keys in tokens. They are Debian 13's, unpacked
//! into the cache; any OpenSSL 3 takes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::checkout;
use crate::debian::{self, Apt};
use crate::process;

const SUITE: &str = "trixie";
const PACKAGES: [&str; 2] = ["openssl-provider-fips", "pkcs11-provider"];

/// Where they are.
pub struct Modules {
    /// The folder with `fips.so` and `pkcs11.so`.
    pub folder: PathBuf,
    /// A configuration that activates the FIPS provider, after its self-tests on this machine.
    pub fips: PathBuf,
}

impl Modules {
    /// Make sure that they are there.
    pub fn need() -> Result<Modules> {
        let home = checkout::cache().join("openssl-modules");
        let (done, fips) = (home.join("complete"), home.join("fips.cnf"));
        if !done.exists() {
            eprintln!("unpacking OpenSSL's modules of Debian {SUITE} into {}", home.display());
            fetch(&home).with_context(|| format!("OpenSSL's modules of Debian {SUITE} cannot be had"))?;
            let folder = folder(&home)?;
            install(&folder, &home.join("fipsmodule.cnf"), &fips)?;
            fs::write(done, "")?;
        }
        Ok(Modules { folder: folder(&home)?, fips })
    }

    /// What tests are told of them by.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("TUSSOCK_OSSL_MODULES", &self.folder), ("TUSSOCK_FIPS_CONFIG", &self.fips)]
    }
}

fn fetch(home: &Path) -> Result<()> {
    fs::remove_dir_all(home).ok();
    let archives = home.join("archives");
    let apt = Apt::begin(home, &[SUITE])?;
    apt.download_only(&archives, &PACKAGES)?;
    debian::unpack(&archives, &home.join("root"), |_| true)?;
    fs::remove_dir_all(archives)?;
    apt.end()
}

/// `/usr/lib/…/ossl-modules` of what was unpacked.
fn folder(home: &Path) -> Result<PathBuf> {
    let mut libraries = fs::read_dir(home.join("root/usr/lib"))?.flatten();
    let found = libraries.find_map(|entry| {
        let modules = entry.path().join("ossl-modules");
        modules.join("fips.so").exists().then_some(modules)
    });
    found.context("no fips.so in the package openssl-provider-fips")
}

/// What `openssl fipsinstall` writes after its self-tests, and a configuration around it.
fn install(folder: &Path, section: &Path, config: &Path) -> Result<()> {
    let mut tests = Command::new("openssl");
    tests.arg("fipsinstall").arg("-module").arg(folder.join("fips.so")).arg("-out").arg(section);
    process::run(&mut tests)?;
    let text = format!(
        "openssl_conf = init\n.include {}\n[init]\nproviders = all\n[all]\nfips = fips_sect\nbase = base\n[base]\nactivate = 1\n",
        section.display()
    );
    Ok(fs::write(config, text)?)
}
