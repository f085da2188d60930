//! The Internet checksum (RFC 1071) and its correction in place (RFC 1624).

use core::net::IpAddr;

/// A ones' complement sum in the making. Every piece but the last must have an even number of octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Nothing added yet.
    pub const fn new() -> Self {
        Sum(0)
    }

    /// Adds octets; an odd last one counts as the high half of a word.
    #[must_use]
    pub fn octets(mut self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        if !blocks.is_empty() {
            self.0 += u64::from(blocks_of_words(blocks));
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        self.0 += match *rest {
            [] => 0,
            [a] => u64::from(a) << 8,
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c, ..] => u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8),
        };
        Sum(u64::from(fold(self.0)))
    }

    /// Adds one word.
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Sum(self.0 + word as u64)
    }

    /// Adds the pseudo header of TCP, UDP and ICMPv6 (RFC 8200 section 8.1; IPv4 sums to the same form).
    #[must_use]
    pub fn pseudo(self, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        let add = |sum: Sum, address: IpAddr| match address {
            IpAddr::V4(a) => sum.octets(&a.octets()),
            IpAddr::V6(a) => sum.octets(&a.octets()),
        };
        let sum = add(add(self, src), dst);
        sum.octets(&(len as u32).to_be_bytes()).word(protocol.into())
    }

    /// The checksum to store, in host order.
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// The sum of whole blocks, in network order. Eight sums go side by side, which compilers turn into vector instructions; and
/// the words are taken in the machine's own order, since a ones' complement sum minds the order of octets only in the end
/// (RFC 1071 section 2). Ones' complement addition does not mind the width of words either, and a u64 takes 2^32 of 32 bits.
fn blocks_of_words(blocks: &[[u8; 32]]) -> u16 {
    let mut sums = [0u64; 8];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks::<4>().0) {
            *sum += u64::from(u32::from_ne_bytes(*word));
        }
    }
    u16::from_be(fold(sums.iter().sum()))
}

/// The checksum of these octets. Over a range that includes a right checksum it is 0.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().octets(bytes).finish()
}

/// The checksum after one word it covers has changed from `old` to `new`; all in host order (RFC 1624 equation 3).
pub const fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn by_definition(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn worked_example_of_rfc_1071_holds() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    proptest! {
        #[test]
        fn sum_by_wide_words_is_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), by_definition(&bytes));
        }

        #[test]
        fn updated_checksum_verifies(mut bytes in proptest::collection::vec(any::<u8>(), 4..64), new: u16) {
            bytes.truncate(bytes.len() & !1);
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = checksum(&bytes);
            let last = bytes.len() - 2;
            let old = u16::from_be_bytes([bytes[last], bytes[last + 1]]);
            prop_assume!(last > 0);
            bytes[last..].copy_from_slice(&new.to_be_bytes());
            bytes[..2].copy_from_slice(&update_checksum(sum, old, new).to_be_bytes());
            prop_assert_eq!(checksum(&bytes), 0);
        }
    }
}
