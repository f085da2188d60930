//! Building blocks that ESP packets and IKE messages share: keyed ciphers and MACs, made from the algorithm table.

use spi::alg::{EncrInfo, EncrKind};
use spi::{Direction, Encr, Fault, FaultKind, Hash, Integ};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::sys::aead::{Aead, Kind};
use crate::sys::cipher::{BlockMode, Ccm, Gmac};
use crate::sys::mac::{Cmac, Hmac};
use crate::xcbc::Xcbc;

const UNSUPPORTED: Fault = Fault::new(FaultKind::Unsupported);
const INTERNAL: Fault = Fault::new(FaultKind::Internal);

/// A keyed combined mode or a keyed cipher, with the salt its nonces begin with.
pub(crate) enum Keyed {
    /// AES-GCM (RFC 4106, RFC 5282) or ChaCha20-Poly1305 (RFC 7634).
    Aead(Box<AeadKey>),
    /// AES-CCM (RFC 4309, RFC 5282).
    Ccm(CcmKey),
    /// AES-GMAC without encryption (RFC 4543).
    Gmac(GmacKey),
    /// Needs a [`Mac`] beside it.
    Plain(Cipher),
}

impl Keyed {
    /// Splits `material` into key and salt as the table says, and runs the key schedule.
    pub(crate) fn new(encr: Encr, material: &[u8], dir: Direction) -> Result<Keyed, Fault> {
        let info = encr.info().ok_or(UNSUPPORTED)?;
        if AeadKey::carries(encr) {
            let mut key = Box::new(AeadKey::unkeyed());
            key.schedule(encr, material)?;
            return Ok(Keyed::Aead(key));
        }
        let (key, salt) = split(&info, material)?;
        let seal = dir == Direction::Seal;
        keyed(&info, key, salt, seal).ok_or(INTERNAL)
    }
}

/// Key and salt.
pub(crate) fn split<'a>(info: &EncrInfo, material: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Fault> {
    if material.len() != info.key_len + info.salt_len {
        return Err(INTERNAL);
    }
    material.split_at_checked(info.key_len).ok_or(INTERNAL)
}

fn keyed(info: &EncrInfo, key: &[u8], salt: &[u8], seal: bool) -> Option<Keyed> {
    Some(match info.kind {
        EncrKind::Aead => Keyed::Ccm(CcmKey { ctx: Ccm::new(key, info.icv_len, seal)?, salt: own(salt)? }),
        EncrKind::Gmac => Keyed::Gmac(GmacKey { ctx: Gmac::new(key)?, salt: own(salt)? }),
        EncrKind::Cbc => Keyed::Plain(Cipher::Cbc(BlockMode::cbc(key, seal)?)),
        EncrKind::Ctr => Keyed::Plain(Cipher::Ctr(BlockMode::ctr(key)?, own(salt)?)),
        EncrKind::Null => Keyed::Plain(Cipher::Null),
    })
}

/// The part of a nonce that comes with the key and is as secret.
pub(crate) type Salt<const N: usize> = Zeroizing<[u8; N]>;

pub(crate) fn own<const N: usize>(salt: &[u8]) -> Option<Salt<N>> {
    salt.try_into().ok().map(Zeroizing::new)
}

/// `salt | iv`, which is the nonce of every AEAD here.
pub(crate) fn nonce<const S: usize, const N: usize>(salt: &[u8; S], iv: &[u8]) -> Option<[u8; N]> {
    let mut nonce = [0; N];
    let (head, tail) = nonce.split_at_mut_checked(S)?;
    head.copy_from_slice(salt);
    if tail.len() != iv.len() {
        return None;
    }
    tail.copy_from_slice(iv);
    Some(nonce)
}

/// AES-GCM or ChaCha20-Poly1305 with its salt. Serves any number of threads at once.
pub(crate) struct AeadKey {
    ctx: Aead,
    salt: Salt<4>,
}

impl AeadKey {
    /// Whether this is the key of that transform. CCM, the other one of its kind, has three octets of salt (RFC 4309
    /// section 4) where these have four.
    pub(crate) fn carries(encr: Encr) -> bool {
        encr.info().is_some_and(|info| info.kind == EncrKind::Aead && info.salt_len == 4)
    }

    /// A key to be: move it to its place, then [`schedule`](AeadKey::schedule) it.
    pub(crate) fn unkeyed() -> Self {
        AeadKey { ctx: Aead::unkeyed(), salt: Salt::default() }
    }

    /// Splits `material` into key and salt and runs the key schedule.
    pub(crate) fn schedule(&mut self, encr: Encr, material: &[u8]) -> Result<(), Fault> {
        let info = encr.info().ok_or(UNSUPPORTED)?;
        let (key, salt) = split(&info, material)?;
        let kind = if encr == Encr::CHACHA20_POLY1305 { Kind::Chacha } else { Kind::Gcm };
        *self.salt = salt.try_into().map_err(|_| INTERNAL)?;
        if self.ctx.schedule(kind, key, info.icv_len) { Ok(()) } else { Err(INTERNAL) }
    }

    pub(crate) fn seal(&self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> bool {
        nonce(&self.salt, iv).is_some_and(|nonce| self.ctx.seal(&nonce, aad, text, icv))
    }

    pub(crate) fn open(&self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        nonce(&self.salt, iv).is_some_and(|nonce| self.ctx.open(&nonce, aad, text, icv))
    }
}

/// AES-CCM with its salt, one direction.
pub(crate) struct CcmKey {
    ctx: Ccm,
    salt: Salt<3>,
}

impl CcmKey {
    pub(crate) fn seal(&mut self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> bool {
        nonce(&self.salt, iv).is_some_and(|nonce| self.ctx.seal(&nonce, aad, text, icv))
    }

    pub(crate) fn open(&mut self, iv: &[u8], aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool {
        nonce(&self.salt, iv).is_some_and(|nonce| self.ctx.open(&nonce, aad, text, icv))
    }
}

/// AES-GMAC with its salt.
pub(crate) struct GmacKey {
    ctx: Gmac,
    salt: Salt<4>,
}

impl GmacKey {
    pub(crate) fn tag(&mut self, iv: &[u8], parts: &[&[u8]]) -> Option<[u8; 16]> {
        self.ctx.tag(&nonce(&self.salt, iv)?, parts)
    }
}

/// A cipher without integrity, one direction.
pub(crate) enum Cipher {
    /// AES-CBC (RFC 3602).
    Cbc(BlockMode),
    /// AES-CTR with its nonce (RFC 3686).
    Ctr(BlockMode, Salt<4>),
    /// None (RFC 2410).
    Null,
}

impl Cipher {
    /// Encrypts or decrypts in place. False: an IV or a text of a length the cipher cannot have.
    pub(crate) fn apply(&mut self, iv: &[u8], text: &mut [u8]) -> bool {
        match self {
            Cipher::Cbc(ctx) => iv.try_into().is_ok_and(|iv| ctx.apply(iv, text)),
            Cipher::Ctr(ctx, salt) => {
                let Some(nonce) = nonce::<4, 12>(salt, iv) else { return false };
                // RFC 3686 section 4: nonce, IV, and a block counter that starts at one.
                let mut block = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
                block[..12].copy_from_slice(&nonce);
                ctx.apply(&block, text)
            }
            Cipher::Null => iv.is_empty(),
        }
    }

    /// Whether a text must be whole 16-octet blocks.
    pub(crate) fn wants_blocks(&self) -> bool {
        matches!(self, Cipher::Cbc(_))
    }
}

/// A keyed integrity transform.
pub(crate) enum Mac {
    /// HMAC, truncated (RFC 2404, RFC 4868).
    Hmac(Hmac),
    /// AES-XCBC-MAC-96 (RFC 3566).
    Xcbc(Xcbc),
    /// AES-CMAC-96 (RFC 4494).
    Cmac(Cmac),
}

impl Mac {
    pub(crate) fn new(integ: Integ, key: &[u8]) -> Result<Mac, Fault> {
        let info = integ.info().ok_or(UNSUPPORTED)?;
        if key.len() != info.key_len {
            return Err(INTERNAL);
        }
        let hmac = |hash| Hmac::new(hash, key).map(Mac::Hmac);
        let mac = match integ {
            Integ::HMAC_SHA1_96 => hmac(Hash::Sha1),
            Integ::HMAC_SHA2_256_128 => hmac(Hash::Sha256),
            Integ::HMAC_SHA2_384_192 => hmac(Hash::Sha384),
            Integ::HMAC_SHA2_512_256 => hmac(Hash::Sha512),
            Integ::AES_XCBC_96 => key.try_into().ok().map(|key| Mac::Xcbc(Xcbc::new(key))),
            Integ::AES_CMAC_96 => key.try_into().ok().and_then(Cmac::new).map(Mac::Cmac),
            _ => return Err(UNSUPPORTED),
        };
        mac.ok_or(INTERNAL)
    }

    /// Writes the ICV over the concatenation of `parts`, cut to the length of `icv`.
    pub(crate) fn write(&mut self, parts: &[&[u8]], icv: &mut [u8]) -> bool {
        let block = match self {
            Mac::Hmac(hmac) => return hmac.mac(parts, icv),
            Mac::Xcbc(xcbc) => Some(xcbc.mac(parts)),
            Mac::Cmac(cmac) => cmac.mac(parts),
        };
        let Some(cut) = block.as_ref().and_then(|b| b.get(..icv.len())) else { return false };
        icv.copy_from_slice(cut);
        true
    }

    /// Compares in constant time.
    pub(crate) fn check(&mut self, parts: &[&[u8]], icv: &[u8]) -> bool {
        let mut own = [0u8; 64];
        let Some(own) = own.get_mut(..icv.len()) else { return false };
        !icv.is_empty() && self.write(parts, own) && same(own, icv)
    }
}

/// Whether two ICVs are equal, in time that depends on their lengths alone. They are gathered by words, and the one look at
/// what was gathered goes through `subtle`: its own comparison of slices has a barrier for every octet.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let ((words, rest), (others, other_rest)) = (one.as_chunks::<4>(), other.as_chunks::<4>());
    let words = words.iter().zip(others);
    let apart = words.fold(0, |apart, (a, b)| apart | (u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b)));
    let apart = rest.iter().zip(other_rest).fold(apart, |apart, (a, b)| apart | u32::from(a ^ b));
    apart.ct_eq(&0).into()
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn icvs_are_the_same_when_every_octet_is() {
        for len in [0, 1, 4, 7, 8, 12, 16, 24, 32] {
            let one: Vec<u8> = (0..len).collect();
            assert!(same(&one, &one.clone()));
            for at in 0..one.len() {
                let mut other = one.clone();
                other[at] ^= 0x80;
                assert!(!same(&one, &other), "octet {at} of {len}");
            }
            assert!(!same(&one, &[&one[..], &[0]].concat()));
        }
    }
}
