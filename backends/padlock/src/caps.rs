//! What these units can do.

use spi::caps::{EspCap, Traits};
use spi::{Caps, Encr, Integ};

use crate::detect::Units;
use crate::modp;

/// Jobs one ring holds at most.
pub(crate) const RING: usize = 4096;
/// SAs at one time.
pub(crate) const MAX_SAS: usize = 1 << 18;

pub(crate) fn caps(units: Units) -> Caps {
    Caps {
        esp: esp(units),
        dh: if units.contains(Units::PMM) { modp::GROUPS.to_vec() } else { Vec::new() },
        // See decision 47: long-term keys stay with other devices.
        sign: Vec::new(),
        verify: Vec::new(),
        prf: Vec::new(),
        traits: Traits::IN_ORDER | Traits::RECOVERS,
        ring: RING,
        max_sas: MAX_SAS,
        max_len: u16::MAX as usize,
    }
}

/// AES with a separate MAC; there is no combined mode. Counter mode came with the second version of the unit.
pub(crate) fn esp(units: Units) -> Vec<EspCap> {
    const CBC: [Encr; 3] = [Encr::AES128_CBC, Encr::AES192_CBC, Encr::AES256_CBC];
    const CTR: [Encr; 3] = [Encr::AES128_CTR, Encr::AES192_CTR, Encr::AES256_CTR];
    let mut ciphers = Vec::new();
    if units.contains(Units::ACE | Units::PHE) {
        ciphers.extend(CBC);
    }
    if units.contains(Units::ACE | Units::ACE2 | Units::PHE) {
        ciphers.extend(CTR);
    }
    let both = [Integ::HMAC_SHA2_256_128, Integ::HMAC_SHA1_96];
    ciphers.iter().flat_map(|encr| both.map(|integ| EspCap { encr: *encr, integ, esn: true })).collect()
}
