//! What the processes give up. Whoever takes one of them over finds it without privilege, without most of the file system,
//! and without most system calls.
//!
//! | module | what is given up |
//! |---|---|
//! | `drop` | root, groups, capabilities, core dumps, being looked into |
//! | `files` | files (Landlock) |
//! | `calls` | system calls (seccomp) |
//! | `memory` | nothing; it keeps memory out of the swap |
//! | [`rehearsal`] | all of it, for tests |
//!
//! All of it is done while the process has one thread, so that every thread it ever has is bound by it.

mod calls;
mod drop;
mod files;
mod memory;
pub mod rehearsal;
mod sys;

use std::path::PathBuf;

pub(crate) use calls::tighten_lane;
pub use drop::harden;
pub(crate) use drop::{become_user, lift_limits};
pub(crate) use memory::{keep_in_memory, one_heap};

use rustix::thread::CapabilitySet;

use crate::config::Settings;

/// Which process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `tussock-gateway`.
    Network,
    /// `tussock-secure`.
    Keys,
}

impl Side {
    /// The capabilities that it keeps.
    pub(crate) fn keeps(self) -> CapabilitySet {
        match self {
            Side::Network => CapabilitySet::empty(),
            Side::Keys => CapabilitySet::NET_ADMIN,
        }
    }
}

/// What a process may reach because of the accelerators in its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// It loads libraries of others (tokens, providers, plug-ins), which read what they like and keep files of their own.
    pub(crate) libraries: bool,
    /// DPDK: huge pages, memory on a node of choice, a run-time folder.
    pub(crate) dpdk: bool,
    /// Cards by VFIO.
    pub(crate) vfio: bool,
    /// Instructions that trap and are carried out by a library in this process, in builds for tests: it reaches memory of this process
    /// by system calls.
    pub(crate) traps: bool,
    /// Folders of files that its devices keep.
    pub(crate) folders: Vec<PathBuf>,
}

impl Needs {
    /// Of a process with these settings.
    pub(crate) fn of(side: Side, settings: &Settings) -> Needs {
        let mut needs = Needs::default();
        for accel in &settings.accel {
            match (accel.driver.as_str(), side) {
                ("pkcs11", Side::Keys) | ("openssl", _) | ("plugin", Side::Network) => needs.libraries = true,
                ("pkcs11", Side::Network) => needs.libraries |= accel.text("dh") == Some("token"),
                ("dpdk", Side::Network) => needs.dpdk = true,
                ("padlock", Side::Network) => needs.traps |= is_emulated(accel),
                ("qat", Side::Network) => needs.vfio |= accel.path("socket").is_none(),
                _ => {}
            }
        }
        if needs.libraries {
            needs.folders = named_by_environment();
        }
        needs
    }
}

/// Whether an emulator carries out what this accelerator would. Builds for production have none.
pub(crate) fn is_emulated(accel: &registry::Accel) -> bool {
    cfg!(feature = "padlock-emulated") && accel.driver == "padlock" && accel.flag("emulated") == Some(true)
}

/// Folders that variables of the environment name: where modules find their files (`SOFTHSM2_CONF` and its like).
fn named_by_environment() -> Vec<PathBuf> {
    let usual = ["HOME", "PWD", "OLDPWD", "PATH", "SHELL", "MAIL"];
    let variables = std::env::vars_os().filter(|(name, _)| !usual.iter().any(|usual| name == usual));
    let paths = variables.map(|(_, value)| PathBuf::from(value)).filter(|path| path.is_absolute());
    let folder = |path: PathBuf| if path.is_dir() { Some(path) } else { path.parent().map(PathBuf::from) };
    // Of a file at the top the folder is everything.
    paths.filter(|path| path.exists()).filter_map(folder).filter(|folder| folder.parent().is_some()).collect()
}

/// Shuts the process in; says what this kernel does not do.
///
/// # Errors
/// What this kernel should do, and did not.
pub(crate) fn shut_in(side: Side, settings: &Settings, needs: &Needs) -> anyhow::Result<Vec<String>> {
    if !settings.sandbox {
        return Ok(vec!["sandbox = \"off\": what this process may ask of the kernel is not limited".into()]);
    }
    let missing = files::shut_in(side, settings, needs)?;
    calls::shut_in(side, needs)?;
    Ok(missing)
}
