//! The table of constants in the device's memory, as far as drivers use it. The firmware brings it; its index is in units
//! of eight octets.

use crate::fw::Trouble;

/// Settings of a cipher.
pub(super) fn cipher(index: usize) -> Result<u32, Trouble> {
    Ok(match index {
        9 => 0x001,
        10 => 0x101,
        11 => 0x011,
        12 => 0x111,
        13 => 0x021,
        14 => 0x003,
        15 => 0x203,
        16 => 0x103,
        17 => 0x303,
        18 => 0x013,
        19 => 0x213,
        20 => 0x113,
        21 => 0x313,
        22 => 0x023,
        23 => 0x033,
        24 => 0x006,
        25 => 0x206,
        _ => return Err(Trouble::Refused("a constant for a cipher that is not known")),
    })
}

/// Settings of a hash.
pub(super) fn auth(index: usize) -> Result<u32, Trouble> {
    Ok(match index {
        37 => 0x02,
        41 => 0x01,
        // HMAC.
        46 => 0x11,
        48 => 0x03,
        54 => 0x04,
        60 => 0x05,
        70 => 0x06,
        _ => return Err(Trouble::Refused("a constant for a hash that is not known")),
    })
}
