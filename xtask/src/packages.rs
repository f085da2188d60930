//! Which Debian packages a command needs, and how they get here.
//!
//! As root what is missing is installed; otherwise it is named, with the line to type.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

/// What building needs beyond a linker: AWS-LC is C and assembly, and the `openssl` crate links the system's library.
pub const BUILD: &[&str] = &["gcc", "g++", "make", "pkg-config", "libssl-dev"];

/// What judging plug-ins in C adds: a second compiler, and a font for plots.
pub const PLUGINS: &[&str] = &["clang", "fonts-dejavu-core"];

/// What the software backend's second engine needs, where there is one to be had.
pub const IPSEC_MB: &[&str] = if cfg!(target_arch = "x86_64") { &["libipsec-mb-dev"] } else { &[] };

/// What DPDK's devices need: DPDK with its drivers, and what reads its headers. One of the drivers is for x86_64 only.
pub const DPDK: &[&str] = if cfg!(target_arch = "x86_64") { &["libdpdk-dev", "libclang-dev"] } else { &[] };

/// What the tests of OpenSSL's engines need: a token in software, and the engine that leads to it.
pub const ENGINE: &[&str] = &["softhsm2", "libengine-pkcs11-openssl"];

/// What the tests of EAP need: wpa_supplicant's methods as a program, and two servers.
pub const EAP: &[&str] = &["eapoltest", "freeradius", "hostapd"];

/// What any namespaces lab needs.
pub const LAB: &[&str] = &["iproute2", "nftables", "iputils-ping", "procps", "openssl", "tcpdump"];

/// What the demo adds.
pub const DEMO: &[&str] = &["iperf3"];

/// What interop adds: strongSwan with its user-space ESP (`kernel-libipsec` is in libcharon-extra-plugins) and its EAP
/// methods, and tshark as a second pair of eyes on our IKE messages.
pub const INTEROP: &[&str] = &[
    "strongswan-charon",
    "strongswan-swanctl",
    "libcharon-extra-plugins",
    "libcharon-extauth-plugins",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
    "tshark",
];

/// What comparing with others adds.
pub const PEERS: &[&str] = &["openvpn", "wireguard-tools"];

/// What tests with PKCS #11 tokens add: a token, and a tool that sets one up.
pub const TOKENS: &[&str] = &["softhsm2", "opensc"];

/// What building Kryoptic takes: its bindings to OpenSSL are made when it is built.
pub const KRYOPTIC: &[&str] = &["libclang-dev", "libsqlite3-dev"];

/// How long apt may take: a cold cache on a slow line.
const APT_PATIENCE: Duration = Duration::from_secs(900);

/// Make sure that every package of every list is installed.
pub fn need(lists: &[&[&str]]) -> Result<()> {
    let wanted: Vec<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        bail!("these Debian packages are missing; install them with\n\n    sudo {by_hand}\n");
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this machine has no apt-get; needed are the equivalents of: {}", missing.join(" "));
    }
    eprintln!("installing Debian packages: {}", missing.join(" "));
    if install(&missing).is_err() {
        // A first failure is nearly always a package list that is missing or names versions already replaced.
        apt(&["update"])?;
        install(&missing)?;
    }
    match missing.iter().find(|name| !is_installed(name)) {
        Some(name) => bail!("{name} is still not installed after `{by_hand}`"),
        None => Ok(()),
    }
}

/// The same for what not every machine can have, and everything else goes on without: why not.
pub fn may_have(list: &[&str]) -> Result<()> {
    if list.is_empty() {
        bail!("it is for x86_64 only");
    }
    need(&[list])
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Namespaces, TUN devices and raw sockets are root's business: say so before anything else fails strangely.
pub fn need_root(what: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{what} makes network namespaces and TUN devices, which needs root. Run\n\n    sudo -E env \"PATH=$PATH\" cargo xtask {what}\n"
    )
}

/// Whether dpkg has it installed (not merely known, not merely its configuration).
fn is_installed(name: &str) -> bool {
    let mut ask = Command::new("dpkg-query");
    ask.args(["--show", "--showformat=${db:Status-Status}", name]);
    process::finish(&mut ask, Duration::from_secs(20)).is_ok_and(|done| done.stdout == "installed")
}

fn install(names: &[&str]) -> Result<()> {
    let _quiet = NoServices::claim();
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend_from_slice(names);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    let done = process::finish(&mut command, APT_PATIENCE)?;
    if !done.status.success() {
        bail!("`{}` failed:\n{}", process::line(&command), done.text().trim());
    }
    Ok(())
}

/// Debian starts a service when its package is installed. A charon on the host's own ports 500 and 4500 is not
/// what anybody asked for, so while we install, the policy file that forbids it stands in its place.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    const TEXT: &str = "#!/bin/sh\n# put here by cargo xtask while it installs packages\nexit 101\n";

    fn claim() -> NoServices {
        use std::os::unix::fs::PermissionsExt;
        match std::fs::read_to_string(Self::POLICY) {
            // Left by a run that was killed half-way: ours to remove.
            Ok(text) if text == Self::TEXT => return NoServices { ours: true },
            Ok(_) => return NoServices { ours: false },
            Err(_) => {}
        }
        let made = std::fs::write(Self::POLICY, Self::TEXT).is_ok();
        std::fs::set_permissions(Self::POLICY, std::fs::Permissions::from_mode(0o755)).ok();
        NoServices { ours: made }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            std::fs::remove_file(Self::POLICY).ok();
        }
    }
}
