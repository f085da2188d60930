//! AES-XCBC-MAC (RFC 3566), which AWS-LC does not have.

use crate::sys::mac::AesBlock;
use zeroize::Zeroize;

/// A keyed XCBC.
pub(crate) struct Xcbc {
    k1: AesBlock,
    k2: [u8; 16],
    k3: [u8; 16],
}

impl Xcbc {
    /// RFC 3566 section 4: three keys from one.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let base = AesBlock::new(key);
        let derive = |octet: u8| {
            let mut block = [octet; 16];
            base.encrypt(&mut block);
            block
        };
        let (mut first, k2, k3) = (derive(1), derive(2), derive(3));
        let k1 = AesBlock::new(&first);
        first.zeroize();
        Xcbc { k1, k2, k3 }
    }

    /// The MAC, not truncated, over the concatenation of `parts`.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut state = [0u8; 16];
        // Octets already mixed into the block that is being filled. A full block waits until more comes, because the
        // last one is treated differently.
        let mut filled = 0;
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if filled == 16 {
                    self.k1.encrypt(&mut state);
                    filled = 0;
                }
                let (now, later) = rest.split_at(rest.len().min(16 - filled));
                for (mixed, octet) in state[filled..].iter_mut().zip(now) {
                    *mixed ^= octet;
                }
                filled += now.len();
                rest = later;
            }
        }
        let last = if filled == 16 {
            &self.k2
        } else {
            state[filled] ^= 0x80;
            &self.k3
        };
        for (mixed, octet) in state.iter_mut().zip(last) {
            *mixed ^= octet;
        }
        self.k1.encrypt(&mut state);
        state
    }
}

impl Drop for Xcbc {
    fn drop(&mut self) {
        self.k2.zeroize();
        self.k3.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    #[test]
    fn rfc_3566_section_4_6_cases() {
        // Test cases 1 (empty), 2 (3 octets), 3 (16 octets), 4 (20 octets): the message is the key's counting octets.
        let message: Vec<u8> = (0..20).collect();
        let cases: [(usize, u128); 4] = [
            (0, 0x75f0251d528ac01c4573dfd584d79f29),
            (3, 0x5b376580ae2f19afe7219ceef172756f),
            (16, 0xd2a246fa349b68a79998a4394ff7a263),
            (20, 0x47f51b4564966215b8985c63055ed308),
        ];
        let xcbc = Xcbc::new(&KEY);
        for (len, mac) in cases {
            assert_eq!(xcbc.mac(&[&message[..len]]), mac.to_be_bytes(), "{len} octets");
            for cut in 0..=len {
                assert_eq!(xcbc.mac(&[&message[..cut], &message[cut..len]]), mac.to_be_bytes());
            }
        }
    }
}
