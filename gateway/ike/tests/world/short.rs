//! The software primitives with random octets that repeat from run to run.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use spi::short::ShortError;
use spi::{Fault, Hash, Prf, Secret, ShortOps, SkSuite};

/// See the module.
pub struct Seeded {
    inner: Arc<dyn ShortOps>,
    state: Mutex<u64>,
}

impl Seeded {
    pub fn new(inner: Arc<dyn ShortOps>, seed: u64) -> Self {
        Seeded { inner, state: Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1) }
    }
}

impl ShortOps for Seeded {
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Result<Secret, Fault> {
        self.inner.prf(prf, key, data)
    }

    fn hash(&self, hash: Hash, data: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        self.inner.hash(hash, data)
    }

    fn sk_seal(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut Vec<u8>,
        at: usize,
    ) -> Result<(), Fault> {
        self.inner.sk_seal(suite, encr_key, integ_key, message, at)
    }

    fn sk_open(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut [u8],
        at: usize,
    ) -> Result<Range<usize>, ShortError> {
        self.inner.sk_open(suite, encr_key, integ_key, message, at)
    }

    fn random(&self, out: &mut [u8]) {
        let mut state = self.state.lock().expect("nobody panics while holding it");
        for octet in out {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            *octet = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8;
        }
    }
}
