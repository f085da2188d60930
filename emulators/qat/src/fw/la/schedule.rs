//! The key schedule of AES backwards (FIPS 197 section 5.2): from the round keys that decryption begins with to the key.

use crate::fw::Trouble;

/// The key whose schedule ends with `last`: for 16 octets the last round key; for 32 the last one and then the one before.
pub(super) fn first_key(last: &[u8]) -> Result<Vec<u8>, Trouble> {
    let (words, key_words) = match last.len() {
        16 => (last.to_vec(), 4),
        32 => (last.iter().cycle().skip(16).take(32).copied().collect(), 8),
        _ => return Err(Trouble::Refused("AES-192 decryption from the end of the key schedule")),
    };
    let words: Vec<[u8; 4]> = words.chunks_exact(4).filter_map(|word| word.first_chunk().copied()).collect();
    // The schedule has words 0 to `total - 1`; these are the last `key_words` of them.
    let total = 4 * (key_words + 7);
    let mut schedule = vec![[0; 4]; total];
    let tail = total - key_words;
    schedule.iter_mut().skip(tail).zip(&words).for_each(|(slot, word)| *slot = *word);
    // w[i] = w[i - n] ^ f(w[i - 1]), and so w[i - n] = w[i] ^ f(w[i - 1]).
    for at in (key_words..total).rev() {
        let before = schedule.get(at - 1).copied().unwrap_or_default();
        let this = schedule.get(at).copied().unwrap_or_default();
        let mixed = match at % key_words {
            0 => {
                let [a, b, c, d] = before;
                let [b, c, d, a] = [b, c, d, a].map(substitute);
                [b ^ round_constant(at / key_words), c, d, a]
            }
            4 if key_words > 6 => before.map(substitute),
            _ => before,
        };
        if let Some(slot) = schedule.get_mut(at - key_words) {
            *slot = xor(this, mixed);
        }
    }
    Ok(schedule.into_iter().take(key_words).flatten().collect())
}

fn xor(one: [u8; 4], other: [u8; 4]) -> [u8; 4] {
    let ([a, b, c, d], [e, f, g, h]) = (one, other);
    [a ^ e, b ^ f, c ^ g, d ^ h]
}

/// x^(i - 1) in the field of 256 elements.
fn round_constant(round: usize) -> u8 {
    (1..round).fold(1, |constant, _| multiply(constant, 2))
}

/// The S-box: the inverse in the field, and an affine map.
fn substitute(octet: u8) -> u8 {
    // The group has 255 elements, so the inverse is the 254th power; of zero that is zero, as it should be.
    let inverse = (0..253).fold(octet, |power, _| multiply(power, octet));
    (1..5).fold(inverse, |sum, turn| sum ^ inverse.rotate_left(turn)) ^ 0x63
}

fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1b;
        }
        b >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// FIPS 197 appendix A has these schedules in full.
    #[test]
    fn the_schedules_of_the_standard_lead_back_to_their_keys() {
        let last = octets("d014f9a8c9ee2589e13f0cc8b6630ca6");
        assert_eq!(first_key(&last).unwrap(), octets("2b7e151628aed2a6abf7158809cf4f3c"));
        let last = octets("fe4890d1e6188d0b046df344706c631ecafaaae3e4d59b349adf6acebd10190d");
        let key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
        assert_eq!(first_key(&last).unwrap(), octets(key));
        assert!(first_key(&[0; 24]).is_err());
    }
}
