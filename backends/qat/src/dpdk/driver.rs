//! The driver: devices by configuration, each under a name of the operator's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spi::caps::Traits;
use spi::mem::{Wish, grant};
use spi::{Caps, Device, DeviceDesc, Driver, Fault, FaultKind, Unusable};

use super::device::DpdkDevice;
use super::eal;
use super::sys::{self, Engine, Wanted};

/// Requests a queue pair holds.
pub(super) const PLACES: u32 = 1024;
/// SAs that can be there at one time.
pub(super) const MAX_SAS: usize = 2048;
/// Operations that can be out at one time.
const OPERATIONS: u32 = 256;

/// Where a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DpdkPlace {
    /// In software: the name of one of DPDK's drivers, for example `crypto_openssl`.
    Software(String),
    /// On the PCI bus, for example `0000:6b:00.1`, and bound to vfio-pci.
    Pci(String),
}

/// A device that is configured.
#[derive(Clone, Debug)]
pub struct DpdkSite {
    /// The operator's name for it.
    pub name: String,
    /// Where it is.
    pub place: DpdkPlace,
}

/// The driver.
pub struct Dpdk {
    sites: Vec<DpdkSite>,
    /// Why devices did not open, last time.
    unopened: Mutex<Vec<Unusable>>,
}

impl Dpdk {
    /// For these devices. DPDK itself is not started before the first one is opened.
    pub fn new(sites: Vec<DpdkSite>) -> Self {
        if sites.iter().any(|site| matches!(site.place, DpdkPlace::Pci(_))) {
            grant(Wish::HugePages);
        }
        Dpdk { sites, unopened: Mutex::default() }
    }

    fn open_at(&self, site: &DpdkSite) -> Result<DpdkDevice, String> {
        let functions: Vec<String> = self
            .sites
            .iter()
            .filter_map(|site| match &site.place {
                DpdkPlace::Pci(address) => Some(address.clone()),
                DpdkPlace::Software(_) => None,
            })
            .collect();
        eal::start(&functions)?;
        let place = site.place.clone();
        let opened = eal::call(move || {
            eal::forget_complaints();
            match place {
                DpdkPlace::Software(driver) => open_software(&driver),
                DpdkPlace::Pci(address) => open_function(&address),
            }
        });
        let (packets, numbers) = opened.ok_or("DPDK's thread has ended")??;
        let desc = DeviceDesc { id: site.name.clone(), numa_node: None, caps: unknown() };
        Ok(DpdkDevice::new(desc, &site.place, packets, numbers))
    }
}

/// The device for packets and the one for operations; they may be one.
type Engines = (Option<Arc<Engine>>, Option<Arc<Engine>>);

fn open_software(driver: &str) -> Result<Engines, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // DPDK finds the driver by the beginning of the device's name.
    let name = format!("{driver}_tussock{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let pairs = software_pairs();
    sys::plug("vdev", &name, &format!("max_nb_queue_pairs={pairs}"))
        .map_err(|error| eal::said(&format!("DPDK has no software device {driver}"), error))?;
    let wanted = wanted(Some(("vdev", name.clone())), pairs);
    let engine = match Engine::ask(&name) {
        Some(_) => Arc::new(Engine::open(&name, wanted)?),
        None => {
            sys::unplug("vdev", &name);
            return Err(format!("{driver} is a device of DPDK's, but none for cryptography"));
        }
    };
    let (symmetric, asymmetric) = (engine.info().symmetric, engine.info().asymmetric);
    Ok((symmetric.then(|| Arc::clone(&engine)), asymmetric.then_some(engine)))
}

/// A card is several devices, one for each of its services.
fn open_function(address: &str) -> Result<Engines, String> {
    let open = |service: &str| {
        let name = format!("{address}_qat_{service}");
        let Some(info) = Engine::ask(&name) else { return Ok(None) };
        // The function stays on its bus: what is plugged in there was found when DPDK started.
        Engine::open(&name, wanted(None, info.most_pairs)).map(|engine| Some(Arc::new(engine)))
    };
    let engines = (open("sym")?, open("asym")?);
    match engines {
        (None, None) => Err(eal::said(
            &format!(
                "DPDK has no QAT device at {address}; it must be a virtual function that is bound to vfio-pci, with an IOMMU"
            ),
            19,
        )),
        some => Ok(some),
    }
}

fn wanted(plugged: Option<(&'static str, String)>, pairs: u16) -> Wanted {
    Wanted { plugged, pairs, places: PLACES, sessions: MAX_SAS as u32, operations: OPERATIONS }
}

/// A worker has a pair for packets and one for operations, and a few more are needed while queues are made anew.
fn software_pairs() -> u16 {
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
    (2 * workers + 4).clamp(8, 64) as u16
}

/// What can be said of a device before it is asked.
fn unknown() -> Caps {
    Caps::unknown(Traits::RECOVERS)
}

impl Driver for Dpdk {
    fn name(&self) -> &'static str {
        "dpdk"
    }

    /// Every configured device; what it can do is known when it is open.
    fn probe(&self) -> Vec<DeviceDesc> {
        let found = |site: &DpdkSite| DeviceDesc { id: site.name.clone(), numa_node: None, caps: unknown() };
        self.sites.iter().map(found).collect()
    }

    /// Devices that did not open when that was last tried.
    fn unusable(&self) -> Vec<Unusable> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let site = self.sites.iter().find(|site| site.name == desc.id).ok_or(FaultKind::Unsupported)?;
        let opened = self.open_at(site);
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        unopened.retain(|device| device.id != site.name);
        match opened {
            Ok(device) => Ok(Arc::new(device)),
            Err(why) => {
                tracing::debug!(device = %site.name, why, "dpdk: the device does not open");
                unopened.push(Unusable { id: site.name.clone(), why });
                Err(FaultKind::Internal.into())
            }
        }
    }
}
