//! The two parts of a configuration. The public part has no place for a secret: `spi::Secret` cannot be serialised. Each is
//! handed over as a memfd, which nobody has to look into to pass it on.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::{Loaded, Settings};
use crate::worker::order::Reload;

/// Longest part, octets: certificates of many thousand peers.
const MOST: u64 = 256 << 20;

/// What the gateway's process is told, and the supervisor.
#[derive(Serialize, Deserialize)]
pub(super) struct Public {
    pub(super) settings: Settings,
    pub(super) reload: Reload,
}

/// What the key side's process is told.
#[derive(Serialize, Deserialize)]
pub(super) struct Private {
    /// For its log and its sandbox.
    pub(super) settings: Settings,
    pub(super) config: secure::Config,
}

/// Both parts of what was read, and the warnings.
pub(super) fn divide(loaded: Loaded) -> anyhow::Result<(Public, Private, Vec<String>)> {
    // Hashes of public keys want no accelerator.
    let (opened, _) = registry::open_all(&registry::key_drivers(&registry::Config::default()));
    let short =
        opened.iter().find_map(|opened| opened.device.short_ops()).context("nothing computes hashes")?;
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    let reload = crate::run::reload_part(&loaded, &*short);
    let settings = loaded.settings.clone();
    let private = Private { settings: loaded.settings, config: loaded.secure };
    Ok((Public { settings, reload }, private, warnings))
}

/// A part, ready to be passed on; nobody can change it any more.
pub(super) fn pack(part: &impl Serialize) -> anyhow::Result<OwnedFd> {
    let mut count = Count(0);
    postcard::to_io(part, &mut count).context("the configuration cannot be handed over")?;
    // All the room there can be, so that growing leaves no copy of a secret behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(count.0));
    postcard::to_io(part, &mut *octets).context("the configuration cannot be handed over")?;
    let fd = memfd_create("configuration", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(&octets)?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(fd)
}

/// The part in a memfd.
pub(super) fn unpack<T: DeserializeOwned>(fd: OwnedFd) -> anyhow::Result<T> {
    let file = File::from(fd);
    let length = file.metadata()?.len();
    if length > MOST {
        bail!("a configuration of {length} octets");
    }
    let mut octets = Zeroizing::new(vec![0; length as usize]);
    file.read_exact_at(&mut octets, 0)?;
    postcard::from_bytes(&octets).context("not a configuration: is it another version?")
}

/// Counts what is written to it.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0 += octets.len();
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
