//! Landlock: what of the file system a process may still open. Kernels without it (before Linux 5.13) are served as far as
//! they go, and it is said in the log.

use std::path::{Path, PathBuf};

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};

use super::{Needs, Side};
use crate::config::Settings;

/// Rights that we know of.
const KNOWN: ABI = ABI::V6;

/// To be read by every process: libraries and their configuration, what the kernel tells of the machine.
const READ: &[&str] = &["/usr", "/lib", "/lib64", "/etc", "/proc", "/sys"];
/// To be read and written: devices that are no secret.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/full", "/dev/tty"];

/// Shuts this thread in, and those it starts; says what the kernel does not do.
pub(super) fn shut_in(side: Side, settings: &Settings, needs: &Needs) -> anyhow::Result<Vec<String>> {
    let (mut read, mut write): (Vec<PathBuf>, Vec<PathBuf>) = (paths(READ), paths(DEVICES));
    // Where it may keep files of its own.
    write.push(settings.own_folder(side));
    match side {
        // Whether the kernel answers for clients on a device of the LAN stands in the latter.
        Side::Keys => write.extend(paths(&["/dev/net/tun", "/proc/sys/net/ipv6/conf"])),
        Side::Network if needs.vfio || needs.dpdk => write.push("/dev/vfio".into()),
        Side::Network => {}
    }
    if side == Side::Network {
        write.extend(settings.leases.as_deref().and_then(Path::parent).map(Path::to_owned));
    }
    if needs.dpdk {
        write.extend(paths(&["/dev/hugepages", "/dev/shm"]));
    }
    if needs.libraries {
        read = paths(&["/"]);
        write.extend(paths(&["/dev", "/run", "/var/lib", "/var/run", "/tmp"]));
        write.extend(needs.folders.iter().cloned());
    }
    for accel in &settings.accel {
        // Beside a file there may be others that go with it.
        let places = accel.values.values().filter_map(|value| match value {
            registry::accel::Value::Path(path) => path.parent().map(Path::to_owned),
            _ => None,
        });
        read.extend(places.filter(|place| place.parent().is_some()));
    }
    restrict(side, &read, &write).context("Landlock")
}

fn restrict(side: Side, read: &[PathBuf], write: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let all = AccessFs::from_all(KNOWN);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::Signal)?;
    if side == Side::Network {
        // No TCP at all. The key side may have to ask revocation lists and RADIUS servers.
        ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
    }
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    // Nobody executes anything, makes devices, or moves files about.
    let writing = reading
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::MakeFifo
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::IoctlDev
        | AccessFs::Refer;
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(read, reading))?
        .add_rules(path_beneath_rules(write, writing))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Vec::new(),
        RulesetStatus::PartiallyEnforced => {
            vec!["this kernel's Landlock is older than what we ask of it: some of it is not enforced".into()]
        }
        RulesetStatus::NotEnforced => {
            vec![
                "this kernel has no Landlock: a process that is taken over may open whatever its user may"
                    .into(),
            ]
        }
    })
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}
