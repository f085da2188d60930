//! Primitives that hide nothing and cost nothing: the engine cannot tell, and the fuzzer sees the plaintext. Random octets
//! are counted, so that a script always runs the same way.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use spi::short::ShortError;
use spi::{Fault, FaultKind, Hash, Prf, Reject, Secret, ShortOps, SkSuite};

/// See the module.
#[derive(Default)]
pub struct Toy(AtomicU64);

impl ShortOps for Toy {
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Result<Secret, Fault> {
        let len = prf.info().ok_or(Fault::new(FaultKind::Unsupported))?.out_len;
        let mut sum = Sum::new(1);
        sum.add(key);
        data.iter().for_each(|d| sum.add(d));
        Ok(Secret::new(sum.octets(len)))
    }

    fn hash(&self, hash: Hash, data: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let mut sum = Sum::new(2);
        data.iter().for_each(|d| sum.add(d));
        Ok(sum.octets(hash.len()))
    }

    fn sk_seal(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut Vec<u8>,
        _at: usize,
    ) -> Result<(), Fault> {
        let icv = icv(suite, encr_key, integ_key, message);
        message.extend(icv);
        Ok(())
    }

    fn sk_open(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut [u8],
        at: usize,
    ) -> Result<Range<usize>, ShortError> {
        let bad = ShortError::Rejected(Reject::BadLength);
        let end = message.len().checked_sub(suite.icv_len()).ok_or(bad)?;
        let start = at.checked_add(suite.iv_len()).filter(|start| *start < end).ok_or(bad)?;
        let (covered, found) = message.split_at(end);
        if icv(suite, encr_key, integ_key, covered) != found {
            return Err(ShortError::Rejected(Reject::BadIcv));
        }
        Ok(start..end)
    }

    fn random(&self, out: &mut [u8]) {
        let mut sum = Sum::new(3);
        sum.add(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        out.copy_from_slice(&sum.octets(out.len()));
    }
}

fn icv(suite: SkSuite, encr_key: &Secret, integ_key: &Secret, covered: &[u8]) -> Vec<u8> {
    let mut sum = Sum::new(4);
    sum.add(encr_key.expose());
    sum.add(integ_key.expose());
    sum.add(covered);
    sum.octets(suite.icv_len())
}

/// A sum that is different for different input often enough.
struct Sum(u64);

impl Sum {
    fn new(what: u64) -> Self {
        Sum(0xcbf2_9ce4_8422_2325 ^ what)
    }

    /// Over the concatenation, wherever it is cut.
    fn add(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn octets(&self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        let mut state = self.0;
        while out.len() < len {
            state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9);
            out.extend((state ^ (state >> 32)).to_be_bytes());
        }
        out.truncate(len);
        out
    }
}
