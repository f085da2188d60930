//! When a tunnel was rekeyed, seen from outside: the SPI of its ESP packets changes. Nobody has to be asked who has more
//! urgent things to do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Setup;
use crate::capture::{Capture, timed_frames};
use crate::world::BRIDGE;

/// An observer of what one gateway sends.
pub struct Watch {
    capture: Capture,
    file: PathBuf,
}

/// What was seen.
pub struct Seen {
    /// When another SPI than before was used for the first time, seconds of the clock.
    pub changes: Vec<f64>,
}

impl Watch {
    /// ESP in UDP from an address.
    pub fn start(setup: &Setup, from: &str) -> Result<Watch> {
        let file = setup.results.join("rekeys.pcap");
        // What has four zero octets in the SPI's place is IKE (RFC 3948 section 2.2).
        let filter = format!(
            "src host {from} and udp src port 4500 and udp[8:4] != 0 and dst host {}",
            crate::world::SUN
        );
        Ok(Watch { capture: Capture::start(&setup.world, "inet", BRIDGE, &file, &filter)?, file })
    }

    /// Stop, and look.
    pub fn finish(self) -> Result<Seen> {
        self.capture.finish()?;
        seen(&fs::read(&self.file).context("no capture")?)
    }
}

impl Seen {
    /// By how much the latest came later than `interval` after the one before; 0 when none was late. `None` with fewer than
    /// two: nobody knows when the first was due.
    pub fn latest(&self, interval: f64) -> Option<f64> {
        let gaps = self.changes.windows(2).filter_map(|pair| Some(pair.last()? - pair.first()? - interval));
        gaps.reduce(f64::max).map(|late| late.max(0.0))
    }
}

fn seen(capture: &[u8]) -> Result<Seen> {
    /// Ethernet, IPv4 and UDP header.
    const BEFORE: usize = 14 + 20 + 8;
    let (mut spis, mut changes) = (Vec::new(), Vec::new());
    for (time, frame) in timed_frames(capture)? {
        let Some(spi) = frame.get(BEFORE..BEFORE + 4) else { continue };
        if !spis.iter().any(|known: &Vec<u8>| known == spi) {
            if !spis.is_empty() {
                changes.push(time);
            }
            spis.push(spi.to_vec());
        }
    }
    Ok(Seen { changes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_spi_is_a_rekeying_and_an_old_one_is_none() {
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.resize(24, 0);
        for (second, spi) in [(10u32, 1u8), (11, 1), (13, 2), (14, 1), (17, 3)] {
            let length = 42 + 4u32;
            file.extend([second, 500_000, length, length].iter().flat_map(|word| word.to_le_bytes()));
            file.resize(file.len() + 42, 0);
            file.extend([spi; 4]);
        }
        let seen = seen(&file).unwrap();
        assert_eq!(seen.changes, [13.5, 17.5]);
        assert_eq!((seen.latest(3.0), seen.latest(9.0)), (Some(1.0), Some(0.0)));
    }
}
