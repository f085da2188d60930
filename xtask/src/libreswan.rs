//! libreswan as a peer: Debian's pluto in a namespace, unpacked beside this machine's packages, with which it would quarrel about a
//! program's name. It has NULL authentication, which strongSwan has not.
//!
//! Its packets are carried by the kernel alone. Where that has no ESP, pluto's Child SAs fail, and the IKE SA is all that can be seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::aside::Aside;
use crate::peer::host_dir;
use crate::process::{self, Daemon};
use crate::world::World;

const LIBRESWAN: Aside =
    Aside { name: "libreswan", suite: "bookworm", packages: &["libreswan", "libnss3-tools"] };

const PATIENCE: Duration = Duration::from_secs(20);

/// Make sure that it is there.
pub fn need() -> Result<()> {
    LIBRESWAN.need()
}

/// Its version, once it is there.
pub fn version() -> String {
    LIBRESWAN.version("libreswan").split('-').next().unwrap_or("?").to_owned()
}

/// One pluto on one lab host.
pub struct Libreswan<'w> {
    world: &'w World,
    host: &'static str,
    dir: PathBuf,
    run: PathBuf,
    log: PathBuf,
    daemon: Option<Daemon>,
}

impl<'w> Libreswan<'w> {
    /// Write its configuration, which is `text`, below `results`; it is not started yet.
    pub fn new(world: &'w World, host: &'static str, results: &Path, text: &str) -> Result<Libreswan<'w>> {
        let dir = host_dir(results, host)?;
        let run = world.state(host)?;
        fs::create_dir_all(run.join("pluto"))?;
        for folder in ["nss", "ipsec.d/policies"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::write(dir.join("ipsec.conf"), text)?;
        fs::write(dir.join("secrets"), "")?;
        let log = dir.join("pluto.log");
        Ok(Libreswan { world, host, dir, run, log, daemon: None })
    }

    /// Start it.
    pub fn start(&mut self) -> Result<()> {
        let certutil = ["/usr/bin/certutil", "-N", "-d", "sql:/lab/nss", "--empty-password"];
        process::run(&mut self.inside(&certutil))?;
        let mut pluto = self.inside(&[
            "/usr/libexec/ipsec/pluto",
            "--nofork",
            "--stderrlog",
            "--no-dnssec",
            "--use-xfrm",
        ]);
        pluto.args([
            "--config",
            "/lab/ipsec.conf",
            "--secretsfile",
            "/lab/secrets",
            "--ipsecdir",
            "/lab/ipsec.d",
        ]);
        pluto.args(["--nssdir", "/lab/nss", "--dumpdir", "/lab", "--rundir", "/run/pluto"]);
        let mut daemon = Daemon::start(&mut pluto, &self.log)?;
        let ready = process::until(PATIENCE, || {
            Ok((daemon.has_ended() || self.text().contains("loading secrets")).then_some(()))
        })?;
        if ready.is_none() || daemon.has_ended() || self.text().contains("failed to add connection") {
            bail!("pluto does not start:\n{}", process::tail(&self.log, 10));
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Have it call; it does not wait for what comes of it.
    pub fn call(&self, connection: &str) -> Result<()> {
        self.whack(&["--initiate", "--asynchronous", "--name", connection])
    }

    /// Have it forget the connection, and with it all SAs.
    pub fn end(&self, connection: &str) -> Result<()> {
        self.whack(&["--delete", "--name", connection])
    }

    fn whack(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.inside(&["/usr/libexec/ipsec/whack", "--rundir", "/run/pluto"]);
        process::finish(command.args(arguments), PATIENCE).map(|_| ())
    }

    /// What it has said.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said something after the first `from` octets of its log.
    pub fn await_words(&self, from: usize, words: &str) -> Result<()> {
        let said = process::until(PATIENCE, || {
            Ok(self.text().get(from..).is_some_and(|text| text.contains(words)).then_some(()))
        })?;
        said.with_context(|| format!("pluto does not say `{words}`:\n{}", process::tail(&self.log, 12)))
    }

    /// A program of its packages, in its namespaces.
    fn inside(&self, program: &[&str]) -> Command {
        /// $1 the host's /run, $2 its folder, $3 where the packages are.
        const MOUNTS: &str = r#"set -e
            mount -t proc proc "$3/proc"
            mount --rbind /dev "$3/dev"
            mkdir -p "$3/lab"
            mount --bind "$2" "$3/lab"
            mount --bind "$1" "$3/run"
            root=$3
            shift 3
            exec chroot "$root" "$@"
        "#;
        let mut command = self.world.on(self.host, "sh");
        command.args(["-c", MOUNTS, "sh"]).arg(&self.run).arg(&self.dir).arg(LIBRESWAN.root()).args(program);
        command
    }
}
