//! What a plug-in says of itself and its devices, looked at before anything of it is used. Whoever reads the messages here has the
//! plug-in's source in front of him, or knows somebody who has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spi::alg::GroupKind;
use spi::caps::{EspCap, Traits};
use spi::{Caps, Encr, Group, Integ};

use crate::abi;
use crate::device::TRAITS;
use crate::sys::{self, Answer, Calls, Library, Loaded};

/// Devices of one plug-in that are looked for.
pub(crate) const DEVICES: u32 = 64;
/// Transforms and groups of one device.
const MOST: u32 = 1024;
/// Jobs in a queue and SAs of a device that are made use of.
const MOST_JOBS: u32 = 4096;
const MOST_SAS: u32 = 1 << 20;

/// Why a plug-in is not used, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The library.
    pub library: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "plug-in {}: {}", self.library.display(), self.what)
    }
}

impl std::error::Error for LoadError {}

/// A plug-in whose functions are all there.
pub(crate) struct Inspected {
    pub(crate) loaded: Arc<Loaded>,
    /// Its name and version.
    pub(crate) identity: String,
}

/// Loads a library, and looks at what it exports.
pub(crate) fn load(path: &Path) -> Result<Inspected, String> {
    if !path.exists() {
        return Err("there is no such file; `library` is the path of the vendor's shared library".into());
    }
    let library = Library::load(path).map_err(|error| {
        let error = with_source(&error);
        if error.contains("accel_plugin") {
            format!(
                "it exports no accel_plugin, so it is no plug-in for tussock, or its symbols are hidden: `nm -D` must list \
                 accel_plugin ({error})"
            )
        } else {
            format!(
                "it cannot be loaded: {error}. `file` says whether it is a shared library for this machine, `ldd` which \
                 libraries it misses"
            )
        }
    })?;
    inspect(library, false)
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Looks at the table of functions. One that is harmless can be told to forget what it has.
pub(crate) fn inspect(library: Library, harmless: bool) -> Result<Inspected, String> {
    let ours = abi::ABI;
    let driver = match library.ask(ours) {
        Answer::Driver(driver) => driver,
        Answer::Nothing => {
            return Err(format!(
                "it does not speak ABI {ours} of accel.h (accel_plugin gave NULL): it needs a build against the accel.h of this \
                 gateway, or this gateway is the wrong one for it"
            ));
        }
        Answer::Odd { address, size: 0, .. } => {
            return Err(format!("accel_plugin gave {address:#x}, which is no accel_driver"));
        }
        Answer::Odd { abi, .. } if abi != ours => {
            return Err(format!(
                "it speaks ABI {abi} of accel.h, this gateway ABI {ours}: ask its vendor for a build for ABI {ours}"
            ));
        }
        Answer::Odd { size, .. } => {
            return Err(format!(
                "its accel_driver has {size} octets, and ABI {ours} has {}: set .size = sizeof(accel_driver), and build against \
                 the accel.h of this gateway for 64 bits",
                size_of::<abi::Driver>()
            ));
        }
    };
    let calls = Calls::pick(&driver).map_err(|missing| {
        let list = missing.join(", ");
        format!("its accel_driver has NULL for {list}: only memory_add, op_submit and op_poll may be NULL")
    })?;
    let name = sys::text(driver.name).filter(|name| !name.is_empty());
    let name = name.ok_or("its accel_driver has no name")?;
    let version = sys::text(driver.version).unwrap_or_default();
    let identity = format!("{name} {version}").trim_end().to_owned();
    Ok(Inspected { loaded: Arc::new(Loaded::new(calls, harmless)), identity })
}

/// A device as the plug-in describes it, checked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) numa_node: Option<u8>,
    pub(crate) caps: Caps,
    pub(crate) random: bool,
}

/// Every device of a plug-in.
pub(crate) fn devices(loaded: &Loaded) -> Result<Vec<Found>, String> {
    let mut all: Vec<Found> = Vec::new();
    for index in 0..DEVICES {
        let mut info = blank();
        if !loaded.probe(index, &mut info) {
            break;
        }
        let found = device(index, &info, loaded.has_operations())
            .map_err(|what| format!("its device {index} cannot be: {what}"))?;
        if let Some(twin) = all.iter().find(|other| other.name == found.name) {
            return Err(format!("its devices {} and {index} are both called {}", twin.index, found.name));
        }
        all.push(found);
    }
    Ok(all)
}

fn blank() -> abi::Info {
    abi::Info {
        size: size_of::<abi::Info>() as u32,
        traits: 0,
        name: [0; 32],
        numa_node: -1,
        ring: 0,
        max_sas: 0,
        max_len: 0,
        transform_count: 0,
        group_count: 0,
        has_random: 0,
        transforms: std::ptr::null(),
        groups: std::ptr::null(),
    }
}

fn device(index: u32, info: &abi::Info, operations: bool) -> Result<Found, String> {
    let end = info.name.iter().position(|octet| *octet == 0).ok_or("its name has no end")?;
    let fits = |octet: &u8| octet.is_ascii_graphic() && *octet != b'/';
    let name = info.name.get(..end).filter(|name| !name.is_empty() && name.iter().all(fits));
    let name = name.ok_or("a name has 1 to 31 printable characters, no space and no slash")?;
    for (what, count) in [("transform_count", info.transform_count), ("group_count", info.group_count)] {
        if count > MOST {
            return Err(format!("{what} is {count}; more than {MOST} are not believed"));
        }
    }
    let transforms = sys::copy(info.transforms, info.transform_count as usize);
    let groups = sys::copy(info.groups, info.group_count as usize);
    if transforms.len() != info.transform_count as usize || groups.len() != info.group_count as usize {
        return Err("it counts transforms or groups and points nowhere".into());
    }
    let mut esp = Vec::new();
    for t in &transforms {
        let cap = transform(t)?;
        if esp.iter().any(|other: &EspCap| other.encr == cap.encr && other.integ == cap.integ) {
            return Err(format!("it has {} with {} twice", cap.encr, cap.integ));
        }
        esp.push(cap);
    }
    let mut dh = Vec::new();
    for group in groups.iter().map(|number| Group(*number)) {
        match group.info() {
            Some(info) if info.kind != GroupKind::Kem && group != Group::NONE => dh.push(group),
            _ => return Err(format!("group {} is none that ABI {} can do", group.0, abi::ABI)),
        }
    }
    let random = info.has_random != 0;
    if (random || !dh.is_empty()) && !operations {
        return Err("it has groups or random octets, and op_submit or op_poll is NULL".into());
    }
    if esp.is_empty() && dh.is_empty() && !random {
        return Err("it can do nothing: no transforms, no groups, no random octets".into());
    }
    if info.ring == 0 {
        return Err("ring is 0: a queue holds no job".into());
    }
    if !esp.is_empty() && (info.max_sas == 0 || info.max_len < 128) {
        return Err("max_sas is 0, or max_len is less than any packet".into());
    }
    let mut traits = TRAITS;
    traits.set(Traits::IN_ORDER, info.traits & abi::IN_ORDER != 0);
    traits.set(Traits::FIPS, info.traits & abi::FIPS != 0);
    let caps = Caps {
        esp,
        dh,
        sign: Vec::new(),
        verify: Vec::new(),
        prf: Vec::new(),
        traits,
        ring: info.ring.min(MOST_JOBS) as usize,
        max_sas: info.max_sas.min(MOST_SAS) as usize,
        max_len: info.max_len.min(u16::MAX.into()) as usize,
    };
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(Found { index, name, numa_node: u8::try_from(info.numa_node).ok(), caps, random })
}

fn transform(t: &abi::Transform) -> Result<EspCap, String> {
    let cap = EspCap {
        encr: Encr { id: t.encr, key_bits: t.key_bits },
        integ: Integ(t.integ),
        esn: match t.esn {
            0 => false,
            1 => true,
            other => return Err(format!("esn is {other} in a transform; it is 0 or 1")),
        },
    };
    let why = match (cap.encr.info(), cap.integ.info()) {
        (Some(encr), Some(_)) if encr.is_aead() == (cap.integ == Integ::NONE) => return Ok(cap),
        (Some(encr), Some(_)) if encr.is_aead() => "a combined mode has integ 0",
        (Some(_), Some(_)) => {
            "without a combined mode there is an integrity transform (RFC 4303 section 3.2)"
        }
        (None, _) => "no such encryption, or no such key_bits for it (0 where the key has one size)",
        (_, None) => "no such integrity transform",
    };
    Err(format!("transform {{{}, {}, {}}}: {why}", t.encr, t.key_bits, t.integ))
}
