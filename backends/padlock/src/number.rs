//! Numbers as MONTMUL has them: words of 32 bits, lowest first, at a fixed length. What is done to secrets takes the same steps
//! whatever they are.

use std::ops::Not;

use zeroize::Zeroize;

/// Words of a big-endian number, filled up to `len`; `None`: it is longer.
pub(crate) fn from_octets(octets: &[u8], len: usize) -> Option<Vec<u32>> {
    let mut words = vec![0; len];
    for (n, octet) in octets.iter().rev().enumerate() {
        match words.get_mut(n / 4) {
            Some(word) => *word |= u32::from(*octet) << (8 * (n % 4)),
            None if *octet == 0 => {}
            None => return None,
        }
    }
    Some(words)
}

/// The octets of a number, big-endian, at its full length.
pub(crate) fn to_octets(words: &[u32]) -> Vec<u8> {
    words.iter().rev().flat_map(|word| word.to_be_bytes()).collect()
}

/// `a - b`, and 1 if that is below zero.
pub(crate) fn subtract(a: &[u32], b: &[u32]) -> (Vec<u32>, u32) {
    let mut borrow = 0;
    let difference = a.iter().zip(b).map(|(a, b)| {
        let wide = u64::from(*a).wrapping_sub(u64::from(*b)).wrapping_sub(borrow);
        borrow = wide >> 63;
        wide as u32
    });
    let difference: Vec<u32> = difference.collect();
    (difference, borrow as u32)
}

/// `a`, or `b` if `choice` is 1 and not 0, into `a`.
pub(crate) fn choose(a: &mut [u32], b: &[u32], choice: u32) {
    let mask = std::hint::black_box(choice).wrapping_neg();
    for (a, b) in a.iter_mut().zip(b) {
        *a = *a & mask.not() | *b & mask;
    }
}

/// `carry * 2^n + a` less `modulus` if it is not below it. It must be below twice the modulus.
pub(crate) fn reduce(a: &mut [u32], carry: u32, modulus: &[u32]) {
    let (mut less, borrow) = subtract(a, modulus);
    // With a carry the difference is right whatever was borrowed.
    choose(a, &less, carry & 1 | (borrow ^ 1));
    less.zeroize();
}

/// `2a mod modulus`.
pub(crate) fn double(a: &mut [u32], modulus: &[u32]) {
    let mut carry = 0;
    for word in a.iter_mut() {
        (*word, carry) = (*word << 1 | carry, *word >> 31);
    }
    reduce(a, carry, modulus);
}

/// `-1 / word mod 2^32` of an odd word.
pub(crate) fn negative_inverse(word: u32) -> u32 {
    // Newton: each step doubles the bits that are right, of which an odd number is its own inverse to three.
    let mut inverse = word;
    for _ in 0..4 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(word.wrapping_mul(inverse)));
    }
    inverse.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_and_words_are_each_others_inverse() {
        let octets: Vec<u8> = (1..=16).collect();
        let words = from_octets(&octets, 4).unwrap();
        assert_eq!(words, [0x0d0e_0f10, 0x090a_0b0c, 0x0506_0708, 0x0102_0304]);
        assert_eq!(to_octets(&words), octets);
        assert_eq!(from_octets(&[0, 0, 5], 1), Some(vec![5]));
        assert!(from_octets(&octets, 3).is_none());
    }

    #[test]
    fn a_reduced_number_is_below_its_modulus() {
        let modulus = [0xffff_fff1, 0xffff_ffff];
        for (mut a, carry, expected) in [
            ([5, 0], 0, [5, 0]),
            ([0xffff_fff1, 0xffff_ffff], 0, [0, 0]),
            ([0xffff_fff0, 0xffff_ffff], 0, [0xffff_fff0, 0xffff_ffff]),
            // 2^64 + 3 - modulus
            ([3, 0], 1, [18, 0]),
        ] {
            reduce(&mut a, carry, &modulus);
            assert_eq!(a, expected);
        }
        let mut a = [0, 0x8000_0000];
        double(&mut a, &modulus);
        assert_eq!(a, [15, 0]);
    }

    #[test]
    fn the_negative_inverse_is_one() {
        for word in [1u32, 3, 0xffff_ffff, 0x1234_5677, 0x8000_0001] {
            assert_eq!(word.wrapping_mul(negative_inverse(word)), u32::MAX);
        }
    }
}
