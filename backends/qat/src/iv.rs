//! IVs for CBC, which must not be foretold (RFC 3602 section 3): a counter, encrypted under a key that is used for nothing else.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use openssl::rand::rand_bytes;
use zeroize::Zeroizing;

/// IVs of one queue.
pub(crate) struct Ivs {
    key: Aes128,
    next: u128,
}

impl Ivs {
    /// With a key of its own; `None` when there is no randomness.
    pub(crate) fn new() -> Option<Self> {
        let mut key = Zeroizing::new([0; 16]);
        rand_bytes(&mut *key).ok()?;
        Some(Ivs { key: Aes128::new_from_slice(&*key).ok()?, next: 0 })
    }

    /// One that was never given out before.
    pub(crate) fn next(&mut self) -> [u8; 16] {
        let mut block = aes::Block::from(self.next.to_be_bytes());
        self.next += 1;
        self.key.encrypt_block(&mut block);
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let (mut a, mut b) = (Ivs::new().unwrap(), Ivs::new().unwrap());
        let mut all: Vec<[u8; 16]> = (0..100).flat_map(|_| [a.next(), b.next()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
