//! What a device can do: every transform and group the SPI knows, put to the device's own list of capabilities.

use spi::caps::{EspCap, Traits};
use spi::{Caps, Encr, Group, Hash, Integ, SignScheme};

use super::driver::{MAX_SAS, PLACES};
use super::sa::Shape;
use super::sys::Engine;
use crate::caps::HASHES;
use crate::work::dh;

/// Sizes of RSA keys that stand for the others, octets: a device that signs with none of them does not sign.
const RSA_SIZES: [usize; 3] = [256, 384, 512];

pub(super) fn caps(packets: Option<&Engine>, numbers: Option<&Engine>) -> Caps {
    let hardware = [packets, numbers].into_iter().flatten().any(|engine| engine.info().hardware);
    let mut caps = Caps {
        esp: packets.map(transforms).unwrap_or_default(),
        dh: Vec::new(),
        sign: Vec::new(),
        verify: Vec::new(),
        prf: Vec::new(),
        traits: Traits::RECOVERS,
        ring: PLACES as usize,
        max_sas: MAX_SAS,
        max_len: u16::MAX as usize,
    };
    if hardware {
        caps.traits |= Traits::ASYNCHRONOUS | Traits::DMA;
    }
    if let Some(engine) = numbers {
        let has = |group: &Group| dh::prime(*group).is_some_and(|prime| engine.does_powers(prime.len()));
        caps.dh = Group::ALL.iter().copied().filter(has).collect();
        if RSA_SIZES.iter().any(|len| engine.does_rsa(*len, true) || engine.does_rsa(*len, false)) {
            caps.sign = HASHES.map(SignScheme::RsaPss).to_vec();
            caps.sign.extend(HASHES.map(SignScheme::RsaPkcs1));
        }
        // Opening a signature is a power, too.
        if RSA_SIZES.iter().all(|len| engine.does_powers(*len)) {
            caps.verify = HASHES.map(SignScheme::RsaPss).to_vec();
            caps.verify.extend(HASHES.map(SignScheme::RsaPkcs1));
            caps.verify.extend([SignScheme::RsaPkcs1(Hash::Sha1), SignScheme::RsaPss(Hash::Sha1)]);
        }
    }
    caps
}

fn transforms(engine: &Engine) -> Vec<EspCap> {
    let mut list = Vec::new();
    for encr in Encr::ALL.iter().copied() {
        for integ in Integ::ALL.iter().copied() {
            let does = |esn| Shape::of(encr, integ, esn).is_some_and(|shape| shape.is_done_by(engine));
            if does(false) {
                list.push(EspCap { encr, integ, esn: does(true) });
            }
        }
    }
    list
}
