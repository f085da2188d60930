//! The driver: cards by configuration, each under a name of the operator's, and one way to open a card wherever it is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use spi::caps::Traits;
use spi::mem::{Wish, grant};
use spi::{Caps, Device, DeviceDesc, Driver, Fault, FaultKind, Unusable};

use crate::config::{Config, Place};
use crate::device::QatDevice;
use crate::pci::{PciError, PciFunction};
use crate::vfio;
use crate::vfio_user::VfioUser;

/// Takes over a function, however it is reached; `id` is what it is called in statistics and logs.
///
/// # Errors
/// [`PciError`] with what is in the way, and what to do about it.
pub fn attach(
    id: &str,
    function: Arc<dyn PciFunction>,
    config: &Config,
) -> Result<Arc<dyn Device>, PciError> {
    let desc = DeviceDesc { id: id.into(), numa_node: None, caps: unknown() };
    Ok(Arc::new(QatDevice::open(&desc, function, config)?))
}

/// Opens the card at a place; `id` likewise. Pools that are to hold its packets are best made afterwards: memory made before may
/// not be what the card can reach.
///
/// # Errors
/// [`PciError`] likewise.
pub fn open(id: &str, place: &Place, config: &Config) -> Result<Arc<dyn Device>, PciError> {
    grant(wish(place));
    Ok(Arc::new(open_at(id, place, config)?))
}

fn open_at(id: &str, place: &Place, config: &Config) -> Result<QatDevice, PciError> {
    let (function, numa_node): (Arc<dyn PciFunction>, _) = match place {
        Place::Socket(path) => (Arc::new(VfioUser::open(path)?), None),
        Place::Pci(address) => {
            let (function, found) = vfio::open(Path::new("/"), address)?;
            (Arc::new(function), found.numa_node)
        }
    };
    let desc = DeviceDesc { id: id.into(), numa_node, caps: unknown() };
    QatDevice::open(&desc, function, config)
}

/// What memory a card at a place wants pools to be made of.
fn wish(place: &Place) -> Wish {
    match place {
        Place::Pci(_) => Wish::HugePages,
        Place::Socket(_) => Wish::File,
    }
}

/// What can be said of a card before it is asked.
fn unknown() -> Caps {
    Caps::unknown(Traits::RECOVERS | Traits::ASYNCHRONOUS | Traits::DMA)
}

/// A card that is configured.
#[derive(Clone, Debug)]
pub struct Site {
    /// The operator's name for it.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Its settings.
    pub config: Config,
}

/// The driver.
pub struct Qat {
    sites: Vec<Site>,
    /// Why cards did not open, last time.
    unopened: Mutex<Vec<Unusable>>,
}

impl Qat {
    /// For these cards. Pools made from now on have memory that such cards reach.
    pub fn new(sites: Vec<Site>) -> Self {
        for site in &sites {
            grant(wish(&site.place));
        }
        Qat { sites, unopened: Mutex::default() }
    }
}

impl Driver for Qat {
    fn name(&self) -> &'static str {
        "qat"
    }

    /// Every configured card; what it can do is known when it is open.
    fn probe(&self) -> Vec<DeviceDesc> {
        self.sites
            .iter()
            .map(|site| DeviceDesc { id: site.name.clone(), numa_node: None, caps: unknown() })
            .collect()
    }

    /// Cards that did not open when that was last tried.
    fn unusable(&self) -> Vec<Unusable> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let site = self.sites.iter().find(|site| site.name == desc.id).ok_or(FaultKind::Unsupported)?;
        let opened = open_at(&site.name, &site.place, &site.config);
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        unopened.retain(|card| card.id != site.name);
        match opened {
            Ok(device) => Ok(Arc::new(device)),
            Err(error) => {
                // Who asked hears it, too, and asks again and again while a card is missing.
                tracing::debug!(card = %site.name, %error, "qat: the card does not open");
                unopened.push(Unusable { id: site.name.clone(), why: error.to_string() });
                Err(match error {
                    PciError::Unusable(_) => FaultKind::Unsupported,
                    _ => FaultKind::Internal,
                }
                .into())
            }
        }
    }
}
