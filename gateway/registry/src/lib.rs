//! The one place that names backends. Everything else of the gateway knows `spi` only, and Cargo holds it to that: no
//! other manifest lists a backend.
//!
//! Adding a backend is one line in a list below, one Cargo feature, one dependency, and a file in `accel` that says what the
//! configuration may hold about it.
//!
//! | feature | backend | in which list |
//! |---|---|---|
//! | always | `soft`: everything, in software | both, last |
//! | `ipsec-mb` | `soft` with a second engine for packets | |
//! | `plugin` (on by default) | `cabi`: shared libraries of vendors who write C, see [`accel`] | network |
//! | `qat` (on by default) | `qat`: Intel QuickAssist cards that are configured, see [`accel`] | network |
//! | `dpdk` | `qat` through DPDK: its software devices, and cards | network |
//! | `padlock` (on by default) | `padlock`: the instructions of VIA and Zhaoxin processors, where that is configured | network |
//! | `padlock-emulated` | `padlock` may be told to take the emulator in its process for the processor; for tests | |
//! | `openssl` (on by default) | `ossl`: providers of OpenSSL's that are configured; engines, for their keys | both |
//! | `pkcs11` (on by default) | `pkcs11`: tokens that are configured | keys; network where they do key exchanges |

pub mod accel;

/// What an operator does at a token, for the commands.
#[cfg(feature = "pkcs11")]
pub use pkcs11 as tokens;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use accel::Accel;

pub use soft::EngineChoice as SoftEngine;
use spi::{Device, Driver, Fault};

/// Libraries of drivers that write to the log what their drivers decide about: by these names they are kept out of it. cryptoki calls
/// every mechanism an error that it has no name for.
pub const TALKATIVE: &[&str] = &["cryptoki"];

/// What the drivers may be told; defaults suit every machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Config {
    /// Helper threads of the software backend for each crypto queue, at least one.
    pub soft_helpers: usize,
    /// Which engines of the software backend carry packets.
    pub soft_engine: SoftEngine,
    /// Accelerators that are configured, which [`accel::check`] has found to make sense.
    pub accel: Vec<Accel>,
}

impl Default for Config {
    fn default() -> Self {
        Config { soft_helpers: 2, soft_engine: SoftEngine::Auto, accel: Vec::new() }
    }
}

/// Drivers that packets and ephemeral keys may use, best first. The last one is software and is always there.
pub fn network_drivers(config: &Config) -> Vec<Box<dyn Driver>> {
    let list = [
        #[cfg(feature = "qat")]
        accel::qat(&config.accel).map(|driver| Box::new(driver) as Box<dyn Driver>),
        #[cfg(feature = "dpdk")]
        accel::dpdk(&config.accel).map(|driver| Box::new(driver) as Box<dyn Driver>),
        #[cfg(feature = "padlock")]
        accel::padlock(&config.accel).map(|driver| Box::new(driver) as Box<dyn Driver>),
        #[cfg(feature = "openssl")]
        accel::openssl(&config.accel, false).map(|driver| Box::new(driver) as Box<dyn Driver>),
        #[cfg(feature = "plugin")]
        accel::plugin(&config.accel).map(|driver| Box::new(driver) as Box<dyn Driver>),
        #[cfg(feature = "pkcs11")]
        tokens_for(config, pkcs11::Side::Exchanges),
    ];
    before_software(list, config)
}

/// Drivers that long-term keys may use, best first. The last one is software and is always there.
pub fn key_drivers(config: &Config) -> Vec<Box<dyn Driver>> {
    let list = [
        #[cfg(feature = "pkcs11")]
        tokens_for(config, pkcs11::Side::Keys),
        #[cfg(feature = "openssl")]
        accel::openssl(&config.accel, true).map(|driver| Box::new(driver) as Box<dyn Driver>),
    ];
    before_software(list, config)
}

fn before_software<const N: usize>(
    list: [Option<Box<dyn Driver>>; N],
    config: &Config,
) -> Vec<Box<dyn Driver>> {
    let software: Box<dyn Driver> = Box::new(software(config));
    list.into_iter().flatten().chain([software]).collect()
}

#[cfg(feature = "pkcs11")]
fn tokens_for(config: &Config, side: pkcs11::Side) -> Option<Box<dyn Driver>> {
    accel::tokens(&config.accel, side).map(|driver| Box::new(driver) as Box<dyn Driver>)
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
    /// Why, for programs.
    pub fault: Fault,
    /// Why, for people; what to do about it, where the driver knows.
    pub why: String,
}

/// Probes every driver and opens what it finds, in the drivers' order. One device that does not open keeps no other
/// from opening.
pub fn open_all(drivers: &[Box<dyn Driver>]) -> (Vec<Opened>, Vec<Unopened>) {
    let (mut opened, mut unopened) = (Vec::new(), Vec::new());
    for driver in drivers {
        for desc in driver.probe() {
            match driver.open(&desc) {
                Ok(device) => opened.push(Opened { driver: driver.name(), device }),
                Err(fault) => {
                    let told = driver.unusable().into_iter().find(|device| device.id == desc.id);
                    let why = told.map_or_else(|| fault.to_string(), |device| device.why);
                    unopened.push(Unopened { driver: driver.name(), id: desc.id, fault, why });
                }
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

    #[cfg(feature = "qat")]
    #[test]
    fn a_card_that_does_not_open_says_why_and_keeps_software_from_nothing() {
        let socket = std::path::PathBuf::from("/nonexistent/qat.sock");
        let config = Config { accel: vec![Accel::new("qat0").with("socket", socket)], ..Config::default() };
        let (opened, unopened) = open_all(&network_drivers(&config));
        assert_eq!(opened.last().unwrap().driver, "soft");
        assert_eq!((unopened[0].driver, unopened[0].id.as_str()), ("qat", "qat0"));
        assert!(unopened[0].why.contains("/nonexistent/qat.sock"), "{}", unopened[0].why);
    }
}
