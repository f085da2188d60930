//! Building blocks that ESP packets and IKE messages share: keyed ciphers and MACs, made from the algorithm table.

use spi::alg::{EncrInfo, EncrKind};
use spi::{Direction, Encr, Fault, FaultKind, Hash, Integ};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::sys::aead::Aead;
use crate::sys::cipher::{BlockMode, Ccm, Gmac};
use crate::sys::mac::{Cmac, Hmac};
use crate::xcbc::Xcbc;

const UNSUPPORTED: Fault = Fault::new(FaultKind::Unsupported);
const INTERNAL: Fault = Fault::new(FaultKind::Internal);

/// A keyed combined mode or a keyed cipher, with the salt its nonces begin with.
pub(crate) enum Keyed {
    /// AES-GCM (RFC 4106, RFC 5282) or ChaCha20-Poly1305 (RFC 7634).
    Aead(AeadKey),
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
        if material.len() != info.key_len + info.salt_len {
            return Err(INTERNAL);
        }
        let (key, salt) = material.split_at(info.key_len);
        let seal = dir == Direction::Seal;
        keyed(encr, &info, key, salt, seal).ok_or(INTERNAL)
    }
}

fn keyed(encr: Encr, info: &EncrInfo, key: &[u8], salt: &[u8], seal: bool) -> Option<Keyed> {
    Some(match info.kind {
        EncrKind::Aead if encr == Encr::CHACHA20_POLY1305 => {
            Keyed::Aead(AeadKey { ctx: Aead::chacha(key)?, salt: own(salt)? })
        }
        // Three octets of salt are CCM's (RFC 4309 section 4), four are GCM's.
        EncrKind::Aead if salt.len() == 3 => {
            Keyed::Ccm(CcmKey { ctx: Ccm::new(key, info.icv_len, seal)?, salt: own(salt)? })
        }
        EncrKind::Aead => Keyed::Aead(AeadKey { ctx: Aead::gcm(key, info.icv_len)?, salt: own(salt)? }),
        EncrKind::Gmac => Keyed::Gmac(GmacKey { ctx: Gmac::new(key)?, salt: own(salt)? }),
        EncrKind::Cbc => Keyed::Plain(Cipher::Cbc(BlockMode::cbc(key, seal)?)),
        EncrKind::Ctr => Keyed::Plain(Cipher::Ctr(BlockMode::ctr(key)?, own(salt)?)),
        EncrKind::Null => Keyed::Plain(Cipher::Null),
    })
}

/// The part of a nonce that comes with the key and is as secret.
type Salt<const N: usize> = Zeroizing<[u8; N]>;

fn own<const N: usize>(salt: &[u8]) -> Option<Salt<N>> {
    salt.try_into().ok().map(Zeroizing::new)
}

/// `salt | iv`, which is the nonce of every AEAD here.
fn nonce<const S: usize, const N: usize>(salt: &[u8; S], iv: &[u8]) -> Option<[u8; N]> {
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
        !icv.is_empty() && self.write(parts, own) && bool::from(own.ct_eq(icv))
    }
}
