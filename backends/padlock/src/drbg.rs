//! Random octets for keys: HMAC_DRBG with SHA-256 (SP 800-90A section 10.1.2), seeded anew for each request from the kernel and,
//! where there is one and it is well, from the random number unit. Output of that unit is never given out as it is.

use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use crate::blocks::Work;
use crate::hash::{Hmac, Kind};
use crate::rng::{Counts, Rng, Sick};

/// Octets of either source: 128 bits of strength need 256 bits of entropy with nonce, and XSTORE is believed to have half.
const FROM_KERNEL: usize = 32;
const FROM_UNIT: usize = 64;

/// Why there are no random octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoEntropy {
    /// The kernel has none.
    Kernel,
    /// The unit is not there, or not enabled.
    NoUnit,
    /// The unit is not well.
    Unit(Sick),
}

/// The sources of a device.
pub(crate) struct Entropy {
    unit: Option<Mutex<Rng>>,
    pub(crate) counts: Counts,
}

impl Entropy {
    /// With the random number unit, or without.
    pub(crate) fn new(has_unit: bool) -> Entropy {
        Entropy { unit: has_unit.then(|| Mutex::new(Rng::new())), counts: Counts::default() }
    }

    /// Fills `out` for keys and nonces: from both sources, or from the kernel alone when the unit is not well.
    ///
    /// # Errors
    /// [`NoEntropy::Kernel`].
    pub(crate) fn fill(&self, out: &mut [u8], work: &mut Work) -> Result<(), NoEntropy> {
        let mut seed = Zeroizing::new([0; FROM_KERNEL + FROM_UNIT]);
        from_kernel(&mut seed[..FROM_KERNEL])?;
        // A sick unit was counted, and leaves zeroes, which do no harm.
        let _ = self.draw(&mut seed[FROM_KERNEL..]);
        generate(&*seed, out, work);
        Ok(())
    }

    /// Fills `out` for somebody who asked for the unit's entropy.
    ///
    /// # Errors
    /// Whatever keeps the unit from giving any; `out` is then as it was.
    pub(crate) fn fill_from_unit(&self, out: &mut [u8], work: &mut Work) -> Result<(), NoEntropy> {
        let mut seed = Zeroizing::new([0; FROM_KERNEL + FROM_UNIT]);
        from_kernel(&mut seed[..FROM_KERNEL])?;
        self.draw(&mut seed[FROM_KERNEL..])?;
        generate(&*seed, out, work);
        Ok(())
    }

    fn draw(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        let unit = self.unit.as_ref().ok_or(NoEntropy::NoUnit)?;
        let mut unit = unit.lock().unwrap_or_else(PoisonError::into_inner);
        unit.fill(out, &self.counts).map_err(NoEntropy::Unit)
    }
}

fn from_kernel(out: &mut [u8]) -> Result<(), NoEntropy> {
    let mut at = 0;
    while at < out.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut out[at..], flags) {
            Ok(got) if got > 0 => at += got,
            Err(rustix::io::Errno::INTR) => {}
            _ => return Err(NoEntropy::Kernel),
        }
    }
    Ok(())
}

/// One generator that lives for one request.
fn generate(seed: &[u8], out: &mut [u8], work: &mut Work) {
    let state = &mut work.state;
    let mut key = Zeroizing::new([0; 32]);
    let mut value = Zeroizing::new([1; 32]);
    for mark in [0, 1] {
        *key = Hmac::new(Kind::Sha256, &*key, state).mac(&[&*value, &[mark], seed], state);
        *value = Hmac::new(Kind::Sha256, &*key, state).mac(&[&*value], state);
    }
    let mac = Hmac::new(Kind::Sha256, &*key, state);
    for piece in out.chunks_mut(32) {
        *value = mac.mac(&[&*value], state);
        piece.copy_from_slice(&value[..piece.len()]);
    }
    // What follows in the standard makes the next request independent of this one; there is none.
    state.zeroize();
}
