//! `Driver`: one device for each section of the configuration, which is the processor itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use spi::{Device, DeviceDesc, Driver, Fault, FaultKind, Unusable};

use crate::blocks::Work;
use crate::caps;
use crate::detect::{Cpuid, Native, Processor, Units};
use crate::device::PadlockDevice;
use crate::trial;

/// What the driver may be told.
pub struct Config {
    /// The operator's name for it.
    pub name: String,
    /// Whether key exchange by MONTMUL is offered. How that takes its operands in 64-bit mode is not published, so that asking
    /// for it on silicon nobody has tried may end the process.
    pub montmul: bool,
    /// Who answers CPUID.
    pub cpuid: Box<dyn Cpuid>,
}

impl Config {
    /// The processor this runs on, without MONTMUL.
    pub fn new(name: impl Into<String>) -> Config {
        Config { name: name.into(), montmul: false, cpuid: Box::new(Native) }
    }

    /// The same on the emulator that was loaded into this process, if one was. Otherwise it will be missing.
    #[cfg(feature = "emulated")]
    pub fn on_emulator(self) -> Config {
        let leaf = |number| crate::sys::preloaded::leaf(number).unwrap_or(NOBODY);
        Config { cpuid: Box::new(leaf), ..self }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("montmul", &self.montmul)
            .finish_non_exhaustive()
    }
}

/// What an emulator that is not there says: the letters of a vendor that tells what is the matter.
#[cfg(feature = "emulated")]
const NOBODY: [u32; 4] =
    [0, u32::from_le_bytes(*b"no e"), u32::from_le_bytes(*b"ator"), u32::from_le_bytes(*b"mul ")];

/// The driver.
pub struct Padlock {
    config: Config,
    /// Why the device did not open when that was last tried.
    why: Mutex<Option<String>>,
}

impl Padlock {
    /// Nothing is looked at yet.
    pub fn new(config: Config) -> Padlock {
        Padlock { config, why: Mutex::new(None) }
    }

    /// The units that are found and may be used.
    fn units(&self, processor: &Processor) -> Units {
        let wanted = if self.config.montmul { Units::all() } else { Units::all() - Units::PMM };
        processor.units & wanted
    }

    fn try_to_open(&self, desc: DeviceDesc) -> Result<PadlockDevice, String> {
        let processor = Processor::detect(&*self.config.cpuid).map_err(|missing| missing.to_string())?;
        let units = self.units(&processor);
        trial::run(units, &mut Work::new())
            .map_err(|wrong| format!("{processor}: a known answer came out wrong: {wrong}"))?;
        let unused = processor.units - units;
        let note = if unused.is_empty() { "" } else { " (PMM is not used: montmul = false)" };
        Ok(PadlockDevice::new(desc, format!("{processor}{note}"), units))
    }
}

impl Driver for Padlock {
    fn name(&self) -> &'static str {
        "padlock"
    }

    fn probe(&self) -> Vec<DeviceDesc> {
        let found = Processor::detect(&*self.config.cpuid);
        let units = found.map_or(Units::empty(), |processor| self.units(&processor));
        vec![DeviceDesc { id: self.config.name.clone(), numa_node: None, caps: caps::caps(units) }]
    }

    fn unusable(&self) -> Vec<Unusable> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.map(|why| Unusable { id: self.config.name.clone(), why }).into_iter().collect()
    }

    fn open(&self, desc: &DeviceDesc) -> Result<Arc<dyn Device>, Fault> {
        let desc = self.probe().into_iter().find(|own| own.id == desc.id).ok_or(FaultKind::Unsupported)?;
        let opened = self.try_to_open(desc);
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(device) => {
                *why = None;
                Ok(Arc::new(device))
            }
            Err(told) => {
                *why = Some(told);
                Err(FaultKind::Internal.into())
            }
        }
    }
}
