//! The control word: what XCRYPT is to do with a key.

use spi::Direction;

use crate::blocks::Control;

/// Key lengths AES has, in octets.
pub(crate) const KEYS: [usize; 3] = [16, 24, 32];

/// The control word of a key of so many octets.
///
/// | bits | |
/// |---|---|
/// | 0-3 | rounds: 10, 12, 14 |
/// | 4-6 | algorithm, 0: AES. Bit 5 would let the processor take texts that are not aligned; it is never set |
/// | 7 | 1: the key is a schedule already. 192 and 256 bits always are |
/// | 8 | 1: intermediate results. Never |
/// | 9 | 1: decrypt |
/// | 10-11 | key size: 0, 1, 2 |
pub(crate) fn word(key_len: usize, dir: Direction) -> Control {
    debug_assert!(KEYS.contains(&key_len));
    let step = (key_len as u32 - 16) / 4;
    let (rounds, size) = (10 + step, step / 2);
    let scheduled = u32::from(size > 0);
    let decrypt = u32::from(dir == Direction::Open);
    Control([rounds | scheduled << 7 | decrypt << 9 | size << 10, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_where_it_belongs() {
        let word = |len, dir| super::word(len, dir).0;
        assert_eq!(word(16, Direction::Seal), [0x00a, 0, 0, 0]);
        assert_eq!(word(16, Direction::Open), [0x20a, 0, 0, 0]);
        assert_eq!(word(24, Direction::Seal), [0x48c, 0, 0, 0]);
        assert_eq!(word(24, Direction::Open), [0x68c, 0, 0, 0]);
        assert_eq!(word(32, Direction::Seal), [0x88e, 0, 0, 0]);
        assert_eq!(word(32, Direction::Open), [0xa8e, 0, 0, 0]);
    }
}
