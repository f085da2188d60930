//! The driver: devices by configuration, each under a name of the operator's.

use std::sync::{Arc, Mutex, PoisonError};

use spi::caps::Traits;
use spi::{Caps, Device, DeviceDesc, Driver, Fault, FaultKind, Unusable};

use crate::config::{Config, Site};
use crate::device::OpenSslDevice;

/// Opens one device.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn open(id: &str, config: &Config) -> Result<Arc<dyn Device>, String> {
    Ok(Arc::new(OpenSslDevice::open(id, config)?))
}

/// The driver.
pub struct OpenSsl {
    sites: Vec<Site>,
    /// Why devices did not open, last time.
    unopened: Mutex<Vec<Unusable>>,
}

impl OpenSsl {
    /// For these devices.
    pub fn new(sites: Vec<Site>) -> Self {
        OpenSsl { sites, unopened: Mutex::default() }
    }
}

impl Driver for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    /// Every configured device; what it can do is known when it is open.
    fn probe(&self) -> Vec<DeviceDesc> {
        let desc = |site: &Site| DeviceDesc { id: site.name.clone(), numa_node: None, caps: unknown() };
        self.sites.iter().map(desc).collect()
    }

    /// Devices that did not open when that was last tried.
    fn unusable(&self) -> Vec<Unusable> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let site = self.sites.iter().find(|site| site.name == desc.id).ok_or(FaultKind::Unsupported)?;
        let opened = open(&site.name, &site.config);
        let mut unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        unopened.retain(|device| device.id != site.name);
        opened.map_err(|why| {
            tracing::debug!(device = %site.name, %why, "openssl: the device does not open");
            unopened.push(Unusable { id: site.name.clone(), why });
            FaultKind::Internal.into()
        })
    }
}

/// What can be said of a provider before it is asked.
pub(crate) fn unknown() -> Caps {
    Caps::unknown(Traits::RECOVERS)
}
