//! Hashing for tables whose keys strangers choose: quick, and seeded so that nobody can aim at one bucket.

use std::hash::{BuildHasher, Hasher};

/// Multiplies to 128 bits and folds the halves: every bit of the input reaches every bit of the result.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let wide = u128::from(a ^ A) * u128::from(b ^ B);
    wide as u64 ^ (wide >> 64) as u64
}

/// Makes hashers of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(pub(crate) u64);

impl BuildHasher for Seeded {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { state: self.0, seed: self.0 }
    }
}

/// Mixes word after word.
pub(crate) struct Mixer {
    state: u64,
    seed: u64,
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.state = mix(self.state ^ n, self.seed);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_differ_in_high_and_low_bits() {
        let seeded = Seeded(99);
        let mut low = [false; 256];
        let mut high = [false; 128];
        for n in 0..2048_u32 {
            let hash = seeded.hash_one(n);
            low[(hash & 255) as usize] = true;
            high[(hash >> 57) as usize] = true;
        }
        let used = |all: &[bool]| all.iter().filter(|b| **b).count();
        assert!(used(&low) > 240 && used(&high) > 120, "{} {}", used(&low), used(&high));
        assert_ne!(seeded.hash_one(1_u32), Seeded(98).hash_one(1_u32));
    }
}
