//! [`ShortOps`]: what IKE needs at once and in microseconds.

use std::ops::Range;

use aws_lc_rs::{digest, rand};
use spi::short::ShortError;
use spi::{Direction, Fault, FaultKind, Hash, Integ, Prf, Reject, Secret, ShortOps, SkSuite};

use crate::sys::mac::{Cmac, Hmac};
use crate::transform::{Cipher, Keyed, Mac};
use crate::xcbc::Xcbc;
use zeroize::Zeroizing;

/// The short primitives; no state.
pub(crate) struct Short;

const UNSUPPORTED: Fault = Fault::new(FaultKind::Unsupported);
const INTERNAL: Fault = Fault::new(FaultKind::Internal);

impl ShortOps for Short {
    fn prf(&self, prf: Prf, key: &[u8], data: &[&[u8]]) -> Result<Secret, Fault> {
        let hmac = |hash: Hash| {
            let mut out = vec![0; hash.len()];
            let made = Hmac::new(hash, key).is_some_and(|mut hmac| hmac.mac(data, &mut out));
            let secret = Secret::new(out);
            made.then_some(secret).ok_or(INTERNAL)
        };
        match prf {
            Prf::HMAC_SHA1 => hmac(Hash::Sha1),
            Prf::HMAC_SHA2_256 => hmac(Hash::Sha256),
            Prf::HMAC_SHA2_384 => hmac(Hash::Sha384),
            Prf::HMAC_SHA2_512 => hmac(Hash::Sha512),
            Prf::AES128_XCBC => {
                let key = xcbc_prf_key(key);
                Ok(kept(Xcbc::new(&*block(&key)?).mac(data)))
            }
            Prf::AES128_CMAC => {
                let key = cmac_prf_key(key)?;
                Cmac::new(&*block(&key)?).and_then(|mut cmac| cmac.mac(data)).map(kept).ok_or(INTERNAL)
            }
            _ => Err(UNSUPPORTED),
        }
    }

    fn hash(&self, hash: Hash, data: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let mut context = digest::Context::new(match hash {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
            Hash::Identity => return Err(UNSUPPORTED),
        });
        data.iter().for_each(|part| context.update(part));
        Ok(context.finish().as_ref().to_vec())
    }

    fn sk_seal(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut Vec<u8>,
        at: usize,
    ) -> Result<(), Fault> {
        let mut keys = SkKeys::new(suite, encr_key, integ_key, Direction::Seal)?;
        let covered = message.len();
        if covered < at.saturating_add(suite.iv_len()) {
            return Err(INTERNAL);
        }
        message.resize(covered + suite.icv_len(), 0);
        let (body, icv) = message.split_at_mut(covered);
        let sealed = match &mut keys {
            SkKeys::Combined(keyed) => {
                let (aad, body) = body.split_at_mut(at);
                let (iv, text) = body.split_at_mut(suite.iv_len());
                match keyed {
                    Keyed::Aead(key) => key.seal(iv, aad, text, icv),
                    Keyed::Ccm(key) => key.seal(iv, aad, text, icv),
                    Keyed::Gmac(_) | Keyed::Plain(_) => false,
                }
            }
            SkKeys::Separate(cipher, mac) => {
                let (iv, text) = body[at..].split_at_mut(suite.iv_len());
                // RFC 7296 section 3.14: the checksum is computed over the encrypted message.
                cipher.apply(iv, text) && mac.write(&[body], icv)
            }
        };
        sealed.then_some(()).ok_or(INTERNAL)
    }

    fn sk_open(
        &self,
        suite: SkSuite,
        encr_key: &Secret,
        integ_key: &Secret,
        message: &mut [u8],
        at: usize,
    ) -> Result<Range<usize>, ShortError> {
        const SHORT: ShortError = ShortError::Rejected(Reject::BadLength);
        let mut keys = SkKeys::new(suite, encr_key, integ_key, Direction::Open)?;
        let covered = message.len().checked_sub(suite.icv_len()).ok_or(SHORT)?;
        let start = at.checked_add(suite.iv_len()).filter(|start| *start <= covered).ok_or(SHORT)?;
        let (body, icv) = message.split_at_mut(covered);
        let good = match &mut keys {
            SkKeys::Combined(keyed) => {
                let (aad, body) = body.split_at_mut(at);
                let (iv, text) = body.split_at_mut(suite.iv_len());
                match keyed {
                    Keyed::Aead(key) => key.open(iv, aad, text, icv),
                    Keyed::Ccm(key) => key.open(iv, aad, text, icv),
                    Keyed::Gmac(_) | Keyed::Plain(_) => return Err(UNSUPPORTED.into()),
                }
            }
            SkKeys::Separate(cipher, mac) => {
                if cipher.wants_blocks() && !(covered - start).is_multiple_of(16) {
                    return Err(SHORT);
                }
                mac.check(&[body], icv) && {
                    let (iv, text) = body[at..].split_at_mut(suite.iv_len());
                    cipher.apply(iv, text)
                }
            }
        };
        good.then_some(start..covered).ok_or(ShortError::Rejected(Reject::BadIcv))
    }

    fn random(&self, out: &mut [u8]) {
        // AWS-LC itself stops the process when the kernel has no entropy to give; it never returns short.
        rand::fill(out).expect("AWS-LC's generator does not fail");
    }
}

enum SkKeys {
    Combined(Keyed),
    Separate(Cipher, Mac),
}

impl SkKeys {
    fn new(suite: SkSuite, encr_key: &Secret, integ_key: &Secret, dir: Direction) -> Result<Self, Fault> {
        let keyed = Keyed::new(suite.encr, encr_key.expose(), dir)?;
        match keyed {
            // RFC 7296 section 5: an IKE SA is never without encryption.
            Keyed::Plain(Cipher::Null) | Keyed::Gmac(_) => Err(UNSUPPORTED),
            Keyed::Plain(_) if suite.integ == Integ::NONE => Err(UNSUPPORTED),
            Keyed::Plain(cipher) => Ok(SkKeys::Separate(cipher, Mac::new(suite.integ, integ_key.expose())?)),
            // RFC 5282 section 8: a combined mode comes without an integrity transform.
            _ if suite.integ != Integ::NONE => Err(UNSUPPORTED),
            _ => Ok(SkKeys::Combined(keyed)),
        }
    }
}

fn block(key: &Secret) -> Result<Zeroizing<[u8; 16]>, Fault> {
    key.expose().try_into().map(Zeroizing::new).map_err(|_| INTERNAL)
}

/// A MAC that is a key for somebody.
fn kept(mac: [u8; 16]) -> Secret {
    Secret::from_slice(&*Zeroizing::new(mac))
}

/// RFC 4434 section 2: shorter keys are filled with zeroes, longer ones are MACed under the key of all zeroes.
fn xcbc_prf_key(key: &[u8]) -> Secret {
    if key.len() > 16 {
        return kept(Xcbc::new(&[0; 16]).mac(&[key]));
    }
    let mut full = vec![0; 16];
    full[..key.len()].copy_from_slice(key);
    Secret::new(full)
}

/// RFC 4615 section 3: any key that is not 16 octets is MACed under the key of all zeroes.
fn cmac_prf_key(key: &[u8]) -> Result<Secret, Fault> {
    if key.len() == 16 {
        return Ok(Secret::from_slice(key));
    }
    Cmac::new(&[0; 16]).and_then(|mut cmac| cmac.mac(&[key])).map(kept).ok_or(INTERNAL)
}
