//! The one place that names backends. Everything else of the gateway knows `spi` only, and Cargo holds it to that: no
//! other manifest lists a backend.
//!
//! Adding a backend is one line in a list below, one Cargo feature and one dependency.
//!
//! | feature | backend | in which list |
//! |---|---|---|
//! | always | `soft`: everything, in software | both, last |
//! | `ipsec-mb` | `soft` with a second engine for packets | |

use std::sync::Arc;

pub use soft::EngineChoice as SoftEngine;
use spi::{Device, Driver, Fault};

/// What the drivers may be told; defaults suit every machine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Helper threads of the software backend for each crypto queue, at least one.
    pub soft_helpers: usize,
    /// Which engines of the software backend carry packets.
    pub soft_engine: SoftEngine,
}

impl Default for Config {
    fn default() -> Self {
        Config { soft_helpers: 2, soft_engine: SoftEngine::Auto }
    }
}

/// Drivers that packets and ephemeral keys may use, best first. The last one is software and is always there.
pub fn network_drivers(config: &Config) -> Vec<Box<dyn Driver>> {
    vec![Box::new(software(config))]
}

/// Drivers that long-term keys may use, best first. The last one is software and is always there.
pub fn key_drivers(config: &Config) -> Vec<Box<dyn Driver>> {
    vec![Box::new(software(config))]
}

fn software(config: &Config) -> soft::Soft {
    soft::Soft::new(config.soft_helpers).with_engines(config.soft_engine)
}

/// A device that was opened, and where it came from.
#[derive(Clone)]
pub struct Opened {
    /// Name of the driver.
    pub driver: &'static str,
    /// The device.
    pub device: Arc<dyn Device>,
}

/// A device that was found and could not be opened.
#[derive(Clone, Debug)]
pub struct Unopened {
    /// Name of the driver.
    pub driver: &'static str,
    /// The device's own name.
    pub id: String,
    /// Why.
    pub fault: Fault,
}

/// Probes every driver and opens what it finds, in the drivers' order. One device that does not open keeps no other
/// from opening.
pub fn open_all(drivers: &[Box<dyn Driver>]) -> (Vec<Opened>, Vec<Unopened>) {
    let (mut opened, mut unopened) = (Vec::new(), Vec::new());
    for driver in drivers {
        for desc in driver.probe() {
            match driver.open(&desc) {
                Ok(device) => opened.push(Opened { driver: driver.name(), device }),
                Err(fault) => unopened.push(Unopened { driver: driver.name(), id: desc.id, fault }),
            }
        }
    }
    (opened, unopened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_is_always_there_and_always_last() {
        let config = Config::default();
        for drivers in [network_drivers(&config), key_drivers(&config)] {
            assert_eq!(drivers.last().unwrap().name(), "soft");
            let (opened, unopened) = open_all(&drivers);
            let last = opened.last().unwrap();
            assert!(last.driver == "soft" && last.device.short_ops().is_some());
            assert!(unopened.iter().all(|device| device.driver != "soft"));
        }
    }
}
