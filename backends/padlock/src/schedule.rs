//! The key schedules that the processor does not make itself: 192 and 256 bits (FIPS 197 sections 5.2 and 5.3.5).
//!
//! A table of the S-box would be looked up at places that tell of the key, so there is none: its values are computed, in the
//! same steps whatever they are. That takes some ten microseconds, once for an SA.

use zeroize::Zeroize;

use crate::blocks::Key;

/// The schedule for encryption, as octets in the order of FIPS 197. `key` has 24 or 32 octets.
pub(crate) fn forward(key: &[u8]) -> Key {
    let words = key.len() / 4;
    let total = 4 * (words + 7);
    let mut out = Key([0; 256]);
    out.0[..key.len()].copy_from_slice(key);
    let mut round = 1;
    for n in words..total {
        let mut word: [u8; 4] = at(&out, n - 1);
        if n % words == 0 {
            word.rotate_left(1);
            word = word.map(s_box);
            word[0] ^= round;
            round = times(round, 2);
        } else if words == 8 && n % words == 4 {
            word = word.map(s_box);
        }
        let before = at(&out, n - words);
        for (octet, before) in word.iter_mut().zip(before) {
            *octet ^= before;
        }
        out.0[4 * n..4 * n + 4].copy_from_slice(&word);
        word.zeroize();
    }
    out
}

/// The schedule of the equivalent inverse cipher: the rounds backwards, the inner ones through InvMixColumns.
pub(crate) fn backward(forward: &Key, key_len: usize) -> Key {
    let rounds = key_len / 4 + 6;
    let mut out = Key([0; 256]);
    for round in 0..=rounds {
        for column in 0..4 {
            let word = at(forward, 4 * (rounds - round) + column);
            let word = if round == 0 || round == rounds { word } else { mix_back(word) };
            let to = 16 * round + 4 * column;
            out.0[to..to + 4].copy_from_slice(&word);
        }
    }
    out
}

fn at(key: &Key, word: usize) -> [u8; 4] {
    let mut out = [0; 4];
    out.copy_from_slice(&key.0[4 * word..4 * word + 4]);
    out
}

fn mix_back([a, b, c, d]: [u8; 4]) -> [u8; 4] {
    let row = |a, b, c, d| times(a, 14) ^ times(b, 11) ^ times(c, 13) ^ times(d, 9);
    [row(a, b, c, d), row(b, c, d, a), row(c, d, a, b), row(d, a, b, c)]
}

/// The product in GF(2^8), without a branch or a table.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        a = a << 1 ^ 0x1b & (a >> 7).wrapping_neg();
        b >>= 1;
    }
    product
}

/// The inverse, which is the 254th power, and the affine map.
fn s_box(octet: u8) -> u8 {
    let square = |a| times(a, a);
    let two = square(octet);
    let three = times(two, octet);
    let twelve = square(square(three));
    let fifteen = times(twelve, three);
    let (mut high, fourteen) = (fifteen, times(twelve, two));
    for _ in 0..4 {
        high = square(high);
    }
    // 15 * 16 + 14 = 254.
    let inverse = times(high, fourteen);
    inverse
        ^ inverse.rotate_left(1)
        ^ inverse.rotate_left(2)
        ^ inverse.rotate_left(3)
        ^ inverse.rotate_left(4)
        ^ 0x63
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap()).collect()
    }

    #[test]
    fn schedules_are_those_of_fips_197_appendices_a_2_and_a_3() {
        let key = hex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b");
        let out = forward(&key);
        assert_eq!(out.0[..24], key);
        assert_eq!(out.0[24..32], hex("fe0c91f72402f5a5"));
        assert_eq!(out.0[51 * 4..52 * 4], hex("01002202"));
        assert!(out.0[52 * 4..].iter().all(|octet| *octet == 0));
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let out = forward(&key);
        assert_eq!(out.0[32..40], hex("9ba354118e6925af"));
        assert_eq!(out.0[12 * 4..13 * 4], hex("a8b09c1a"), "the fourth word of eight goes through the S-box");
        assert_eq!(out.0[59 * 4..60 * 4], hex("706c631e"));
    }

    #[test]
    fn the_way_back_begins_with_the_last_round_and_ends_with_the_first() {
        // FIPS 197 appendix C.3: round 1 of the equivalent inverse cipher.
        let key: Vec<u8> = (0..32).collect();
        let there = forward(&key);
        let back = backward(&there, 32);
        assert_eq!(back.0[..16], there.0[14 * 16..15 * 16]);
        assert_eq!(back.0[14 * 16..15 * 16], there.0[..16]);
        assert_eq!(back.0[16..32], hex("34f1d1ffbfceaa2ffce9e25f2558016e"));
    }

    #[test]
    fn the_s_box_is_a_permutation_with_the_values_of_the_standard() {
        let mut all: Vec<u8> = (0..=255).map(s_box).collect();
        assert_eq!((all[0], all[1], all[0x53], all[0xff]), (0x63, 0x7c, 0xed, 0x16));
        all.sort_unstable();
        assert!(all.iter().enumerate().all(|(n, octet)| n == usize::from(*octet)));
    }
}
