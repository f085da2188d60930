//! What a card can do, by its generation and by what its physical function says of it.

use spi::alg::{Curve, EncrKind};
use spi::caps::{EspCap, Traits};
use spi::{Caps, Encr, Group, Hash, Integ, SignScheme};

use crate::fw::pke;
use crate::fw::precompute::hash_of;
use crate::generation::{Generation, Service};
use crate::mailbox::Agreement;
use crate::pci::{PciError, PciFunction, config_double};

/// Jobs of one queue at most.
pub(crate) const QUEUE: usize = 4096;
/// SAs at one time: 16 MiB of content descriptors.
pub(crate) const MAX_SAS: usize = 1 << 16;
/// Long-term keys at one time.
pub(crate) const MAX_KEYS: usize = 4096;

/// The hashes signatures are made with. SHA-1 is verified for old peers and never made.
pub(crate) const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
pub(crate) const CURVES: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

/// Bits of the capability mask.
const SYMMETRIC: u32 = 1 << 0;
const ASYMMETRIC: u32 = 1 << 1;
const CIPHER: u32 = 1 << 2;
const AUTHENTICATION: u32 = 1 << 3;
const MONTGOMERY: u32 = 1 << 13;
const GCM_ONE_PASS: u32 = 1 << 16;
const CHACHA_POLY: u32 = 1 << 17;

/// Generation 4 has a word of its configuration space where a set bit means that something is switched off.
const FUSES: u16 = 0x40;
const NO_CIPHER: u32 = 1 << 0;
const NO_AUTHENTICATION: u32 = 1 << 1;
const NO_NUMBERS: u32 = 1 << 2;
const NO_UCS: u32 = 1 << 4;

/// What is switched off; nothing where there is no such word.
pub(crate) fn fuses(function: &dyn PciFunction, generation: &Generation) -> Result<u32, PciError> {
    if generation.fourth { config_double(function, FUSES) } else { Ok(0) }
}

/// Everything the device offers.
pub(crate) fn caps(generation: &Generation, agreed: Agreement, fuses: u32) -> Caps {
    let has = |bits| agreed.caps & bits == bits;
    let pairs = generation.pairs(agreed.map);
    let carries = |service| pairs.iter().any(|pair| pair.service == service);
    let packets = carries(Service::Symmetric)
        && has(SYMMETRIC | CIPHER | AUTHENTICATION)
        && fuses & (NO_CIPHER | NO_AUTHENTICATION) == 0;
    let numbers = carries(Service::Asymmetric) && has(ASYMMETRIC) && fuses & NO_NUMBERS == 0;
    let ucs = generation.fourth && fuses & NO_UCS == 0;
    let mut caps = Caps {
        esp: Vec::new(),
        dh: Vec::new(),
        sign: Vec::new(),
        verify: Vec::new(),
        prf: Vec::new(),
        traits: Traits::RECOVERS | Traits::ASYNCHRONOUS | Traits::DMA,
        ring: QUEUE,
        max_sas: MAX_SAS,
        max_len: u16::MAX as usize,
    };
    if packets {
        let gcm = if generation.fourth { ucs && has(GCM_ONE_PASS) } else { true };
        caps.esp = transforms(generation, gcm, ucs && has(CHACHA_POLY), ucs);
    }
    if numbers {
        caps.dh = groups(generation, has(MONTGOMERY));
        caps.sign = schemes();
        caps.verify = caps.sign.clone();
        caps.verify.extend([SignScheme::RsaPkcs1(Hash::Sha1), SignScheme::RsaPss(Hash::Sha1)]);
    }
    caps
}

fn transforms(generation: &Generation, gcm: bool, chacha: bool, ucs: bool) -> Vec<EspCap> {
    let hashes = || Integ::ALL.iter().copied().filter(|integ| hash_of(*integ).is_some());
    let mut list = Vec::new();
    for encr in Encr::ALL.iter().copied() {
        let Some(info) = encr.info() else { continue };
        let good = match info.kind {
            EncrKind::Aead if encr == Encr::CHACHA20_POLY1305 => chacha,
            EncrKind::Aead => gcm && (Encr::AES128_GCM8.id..=Encr::AES128_GCM16.id).contains(&encr.id),
            EncrKind::Ctr => ucs || !generation.fourth,
            EncrKind::Cbc | EncrKind::Null => true,
            EncrKind::Gmac => false,
        };
        if !good {
            continue;
        }
        match info.is_aead() {
            true => list.push(EspCap { encr, integ: Integ::NONE, esn: true }),
            false => list.extend(hashes().map(|integ| EspCap { encr, integ, esn: true })),
        }
    }
    list
}

fn groups(generation: &Generation, montgomery: bool) -> Vec<Group> {
    let has = |group: &Group| match *group {
        Group::X25519 | Group::X448 => generation.fourth && montgomery,
        Group::ECP256 | Group::ECP384 | Group::ECP521 => true,
        Group::MODP2048 | Group::MODP3072 | Group::MODP4096 | Group::MODP6144 | Group::MODP8192 => {
            group.info().is_some_and(|info| pke::power(info.public_len, generation.fourth).is_some())
        }
        _ => false,
    };
    Group::ALL.iter().copied().filter(has).collect()
}

fn schemes() -> Vec<SignScheme> {
    let mut list: Vec<SignScheme> = HASHES.map(SignScheme::RsaPss).to_vec();
    list.extend(HASHES.map(SignScheme::RsaPkcs1));
    for curve in CURVES {
        list.extend(HASHES.map(|hash| SignScheme::EcdsaDer(curve, hash)));
        list.extend(HASHES.map(|hash| SignScheme::EcdsaPlain(curve, hash)));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{INTEL, model};

    fn of(device: u16, caps_mask: u32, map: u16, fuses: u32) -> Caps {
        let generation = model(INTEL, device).unwrap().generation;
        caps(generation, Agreement { version: 5, caps: caps_mask, map }, fuses)
    }

    #[test]
    fn generations_differ_in_what_is_newer() {
        let fourth = of(0x4941, 0x0003_720f, 0x071c, 0);
        assert!(fourth.carries(Encr::AES256_GCM16, Integ::NONE, true));
        assert!(fourth.carries(Encr::CHACHA20_POLY1305, Integ::NONE, true));
        assert!(fourth.carries(Encr::AES128_CTR, Integ::HMAC_SHA2_384_192, true));
        assert!(!fourth.carries(Encr::AES128_CCM16, Integ::NONE, false));
        assert!(fourth.dh.contains(&Group::X448) && fourth.dh.contains(&Group::MODP6144));
        let second = of(0x37c9, 0x0f, 0x0409, 0);
        assert!(second.carries(Encr::AES256_GCM16, Integ::NONE, true));
        assert!(!second.carries(Encr::CHACHA20_POLY1305, Integ::NONE, false));
        assert!(!second.dh.contains(&Group::X25519) && !second.dh.contains(&Group::MODP8192));
        assert!(second.dh.contains(&Group::ECP521) && second.dh.contains(&Group::MODP4096));
        assert!(!second.dh.contains(&Group::MLKEM768) && !second.dh.contains(&Group::NONE));
    }

    #[test]
    fn what_the_physical_function_does_not_say_is_not_offered() {
        let packets_only = of(0x4941, 0x0003_720f, 0x06db, 0);
        assert!(packets_only.dh.is_empty() && packets_only.sign.is_empty() && !packets_only.esp.is_empty());
        let numbers_only = of(0x4941, 0x0003_720f, 0x0924, 0);
        assert!(numbers_only.esp.is_empty() && !numbers_only.dh.is_empty());
        assert!(of(0x4941, 0, 0x071c, 0).esp.is_empty());
        let no_gcm = of(0x4941, 0x0002_720f, 0x071c, 0);
        assert!(!no_gcm.carries(Encr::AES128_GCM16, Integ::NONE, false) && !no_gcm.esp.is_empty());
        let fused = of(0x4941, 0x0003_720f, 0x071c, NO_NUMBERS | NO_UCS);
        assert!(fused.dh.is_empty() && !fused.carries(Encr::CHACHA20_POLY1305, Integ::NONE, false));
        assert!(of(0x4941, 0x0003_720f, 0x071c, NO_CIPHER).esp.is_empty());
    }
}
