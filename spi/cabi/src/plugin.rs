//! The driver: libraries by configuration, each device of one under a name of the operator's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use spi::{Caps, Device, DeviceDesc, Driver, Fault, FaultKind, Unusable};

use crate::device::{PluginDevice, TRAITS};
use crate::inspect::{self, Found, Inspected};
use crate::sys::Library;

pub use crate::inspect::LoadError;

/// A plug-in that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The operator's name for it.
    pub name: String,
    /// The shared library.
    pub library: PathBuf,
    /// One of its devices, by the plug-in's name for it; `None`: the only one.
    pub device: Option<String>,
}

/// Which devices of a plug-in are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The one that a site names, or the only one.
    One,
    /// All. Where there are several, their names stand behind the site's: `name/theirs`.
    All,
}

/// Plug-ins of this process by their files. What was loaded stays, and so does what was found out about it.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Arc<Inspected>>>> = LazyLock::new(Mutex::default);

/// The driver of all plug-ins that are configured.
pub struct Plugin {
    sites: Vec<Site>,
    extent: Extent,
    /// A plug-in that is part of this program, for tests of the loader.
    built_in: Option<Arc<Inspected>>,
    /// Why devices did not open, last time.
    unopened: Mutex<Vec<Unusable>>,
}

impl Plugin {
    /// For these. Libraries are loaded when they are first asked for.
    pub fn new(sites: Vec<Site>) -> Plugin {
        Plugin { sites, extent: Extent::One, built_in: None, unopened: Mutex::default() }
    }

    /// All devices of one library, under a name.
    ///
    /// # Errors
    /// Why it is not used, and what to do about it.
    pub fn load(name: &str, library: &Path) -> Result<Plugin, LoadError> {
        let site = Site { name: name.into(), library: library.into(), device: None };
        let error = |what| LoadError { library: library.into(), what };
        let inspected = loaded(library).map_err(error)?;
        found(&inspected, &site, Extent::All).map_err(error)?;
        Ok(Plugin { extent: Extent::All, ..Plugin::new(vec![site]) })
    }

    /// A plug-in that is part of this program, and writes to nothing once it was shut out.
    ///
    /// # Errors
    /// As [`load`](Plugin::load).
    #[doc(hidden)]
    pub fn of(library: Library) -> Result<Plugin, String> {
        let site = Site { name: "built-in".into(), library: PathBuf::new(), device: None };
        let inspected = Arc::new(inspect::inspect(library, true)?);
        found(&inspected, &site, Extent::All)?;
        Ok(Plugin { extent: Extent::All, built_in: Some(inspected), ..Plugin::new(vec![site]) })
    }

    fn inspected(&self, site: &Site) -> Result<Arc<Inspected>, String> {
        self.built_in.clone().map_or_else(|| loaded(&site.library), Ok)
    }

    /// The devices of a site; or one that nothing is known of, and why.
    fn devices(&self, site: &Site) -> Result<Vec<(DeviceDesc, Found)>, String> {
        let found = found(&*self.inspected(site)?, site, self.extent)?;
        let alone = found.len() == 1;
        let describe = |found: Found| {
            let id = if alone { site.name.clone() } else { format!("{}/{}", site.name, found.name) };
            (DeviceDesc { id, numa_node: found.numa_node, caps: found.caps.clone() }, found)
        };
        Ok(found.into_iter().map(describe).collect())
    }

    fn site(&self, id: &str) -> Option<&Site> {
        let name = id.split_once('/').map_or(id, |(name, _)| name);
        self.sites.iter().find(|site| site.name == name)
    }

    fn try_open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, String> {
        let site = self.site(&desc.id).ok_or("no such plug-in is configured")?;
        let inspected = self.inspected(site)?;
        let mut all = self.devices(site)?.into_iter();
        let (desc, found) =
            all.find(|(known, _)| known.id == desc.id).ok_or("the plug-in has no such device")?;
        let raw = inspected.loaded.device_open(found.index).ok_or_else(|| {
            format!("{} cannot open its device {}; its log may say why", inspected.identity, found.name)
        })?;
        let identity = format!("{} (plug-in)", inspected.identity);
        Ok(Arc::new(PluginDevice::new(desc, identity, found.random, inspected, raw)))
    }
}

/// Loads a library once in the life of this process.
fn loaded(path: &Path) -> Result<Arc<Inspected>, String> {
    let key = path.canonicalize().unwrap_or_else(|_| path.into());
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(&key) {
        return Ok(Arc::clone(known));
    }
    let inspected = Arc::new(inspect::load(path)?);
    all.insert(key, Arc::clone(&inspected));
    Ok(inspected)
}

/// The devices of a plug-in that a site means.
fn found(inspected: &Inspected, site: &Site, extent: Extent) -> Result<Vec<Found>, String> {
    if let Some(lie) = inspected.loaded.lie() {
        return Err(format!(
            "shut out: {lie}. Nothing of it is called any more in this process; tell its vendor, and start the gateway anew \
             with a plug-in that passes `tussock-hwtest run --plugin`"
        ));
    }
    let mut all = inspect::devices(&inspected.loaded)?;
    let names: Vec<&str> = all.iter().map(|found| found.name.as_str()).collect();
    let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if site.device.is_none() && extent == Extent::One && all.len() > 1 {
        return Err(format!("it has several devices; `device` must name one of: {list}"));
    }
    if let Some(wanted) = &site.device {
        let missing = format!("it has no device {wanted}; it has: {list}");
        all.retain(|found| found.name == *wanted);
        if all.is_empty() {
            return Err(missing);
        }
    }
    if all.is_empty() {
        return Err("it finds no device: is the hardware there, and is its kernel driver loaded?".into());
    }
    Ok(all)
}

impl Driver for Plugin {
    fn name(&self) -> &'static str {
        "plugin"
    }

    /// Every device of every plug-in; of one that cannot be used, an entry that does not open.
    fn probe(&self) -> Vec<DeviceDesc> {
        let unknown = |site: &Site| {
            let caps = Caps {
                esp: Vec::new(),
                dh: Vec::new(),
                sign: Vec::new(),
                verify: Vec::new(),
                prf: Vec::new(),
                traits: TRAITS,
                ring: 0,
                max_sas: 0,
                max_len: 0,
            };
            vec![DeviceDesc { id: site.name.clone(), numa_node: None, caps }]
        };
        let of = |site: &Site| match self.devices(site) {
            Ok(devices) => devices.into_iter().map(|(desc, _)| desc).collect(),
            Err(_) => unknown(site),
        };
        self.sites.iter().flat_map(of).collect()
    }

    fn unusable(&self) -> Vec<Unusable> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let opened = self.try_open(desc);
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        unopened.retain(|device| device.id != desc.id);
        opened.map_err(|why| {
            let why = match self.site(&desc.id) {
                Some(site) => LoadError { library: site.library.clone(), what: why }.to_string(),
                None => why,
            };
            unopened.push(Unusable { id: desc.id.clone(), why });
            FaultKind::Internal.into()
        })
    }
}
