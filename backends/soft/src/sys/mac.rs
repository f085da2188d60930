//! HMAC, CMAC and the bare AES block of AWS-LC. Keyed once; a message resets the state and runs no key schedule.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys as lc;
use spi::Hash;

pub(super) fn digest(hash: Hash) -> Option<*const lc::EVP_MD> {
    Some(match hash {
        // SAFETY: these four return pointers to static tables.
        Hash::Sha1 => unsafe { lc::EVP_sha1() },
        // SAFETY: as above.
        Hash::Sha256 => unsafe { lc::EVP_sha256() },
        // SAFETY: as above.
        Hash::Sha384 => unsafe { lc::EVP_sha384() },
        // SAFETY: as above.
        Hash::Sha512 => unsafe { lc::EVP_sha512() },
        Hash::Identity => return None,
    })
}

/// HMAC (RFC 2104) with a key of any length.
pub(crate) struct Hmac {
    ctx: NonNull<lc::HMAC_CTX>,
    len: usize,
}

// SAFETY: an HMAC_CTX has no thread affinity; this is its only owner and every use takes `&mut self`.
unsafe impl Send for Hmac {}

impl Hmac {
    pub(crate) fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        let digest = digest(hash)?;
        // SAFETY: no arguments; null on failure.
        let ctx = NonNull::new(unsafe { lc::HMAC_CTX_new() })?;
        let this = Hmac { ctx, len: hash.len() };
        // A null pointer would mean "keep the key there is"; an empty slice's pointer is never null.
        let at = key.as_ptr().cast::<c_void>();
        // SAFETY: the context is live, the key a live slice of the length given, the digest a static table.
        let ok = unsafe { lc::HMAC_Init_ex(this.ctx.as_ptr(), at, key.len(), digest, null_mut()) };
        (ok == 1).then_some(this)
    }

    /// Writes the first `out.len()` octets of the MAC over the concatenation of `parts`; false when `out` is longer
    /// than the hash.
    pub(crate) fn mac(&mut self, parts: &[&[u8]], out: &mut [u8]) -> bool {
        if out.len() > self.len {
            return false;
        }
        // A whole MAC may be a key and goes straight to its place. What is cut off a shorter one is no secret.
        let mut full = [0u8; 64];
        let to = if out.len() == self.len { out.as_mut_ptr() } else { full.as_mut_ptr() };
        let mut len = 0;
        // SAFETY: the context is live and keyed; null key and digest restart it with the same ones.
        let mut ok = unsafe { lc::HMAC_Init_ex(self.ctx.as_ptr(), null(), 0, null(), null_mut()) };
        for part in parts {
            // SAFETY: the context is live, the part a live slice of the length given.
            ok &= unsafe { lc::HMAC_Update(self.ctx.as_ptr(), part.as_ptr(), part.len()) };
        }
        // SAFETY: the context is live; there is room for the whole digest at `to`, which is `out` when that is as long as
        // the digest, and 64 octets otherwise, which hold the longest of the four.
        ok &= unsafe { lc::HMAC_Final(self.ctx.as_ptr(), to, &mut len) };
        if out.len() < self.len
            && let Some(cut) = full.get(..out.len())
        {
            out.copy_from_slice(cut);
        }
        ok == 1
    }
}

impl Drop for Hmac {
    fn drop(&mut self) {
        // SAFETY: the pointer came from HMAC_CTX_new and is freed, and wiped, once, here.
        unsafe { lc::HMAC_CTX_free(self.ctx.as_ptr()) }
    }
}

/// AES-CMAC (RFC 4493).
pub(crate) struct Cmac {
    ctx: NonNull<lc::CMAC_CTX>,
}

// SAFETY: a CMAC_CTX has no thread affinity; this is its only owner and every use takes `&mut self`.
unsafe impl Send for Cmac {}

impl Cmac {
    pub(crate) fn new(key: &[u8; 16]) -> Option<Self> {
        // SAFETY: no arguments; null on failure.
        let this = Cmac { ctx: NonNull::new(unsafe { lc::CMAC_CTX_new() })? };
        // SAFETY: returns a pointer to a static table.
        let cipher = unsafe { lc::EVP_aes_128_cbc() };
        let at = key.as_ptr().cast::<c_void>();
        // SAFETY: the context is live, the key has the 16 octets the cipher wants.
        let ok = unsafe { lc::CMAC_Init(this.ctx.as_ptr(), at, key.len(), cipher, null_mut()) };
        (ok == 1).then_some(this)
    }

    /// The MAC over the concatenation of `parts`.
    pub(crate) fn mac(&mut self, parts: &[&[u8]]) -> Option<[u8; 16]> {
        let mut out = [0u8; 16];
        let mut len = 0;
        // SAFETY: the context is live and keyed.
        let mut ok = unsafe { lc::CMAC_Reset(self.ctx.as_ptr()) };
        for part in parts {
            // SAFETY: the context is live, the part a live slice of the length given.
            ok &= unsafe { lc::CMAC_Update(self.ctx.as_ptr(), part.as_ptr(), part.len()) };
        }
        // SAFETY: the context is live; CMAC with AES writes 16 octets.
        ok &= unsafe { lc::CMAC_Final(self.ctx.as_ptr(), out.as_mut_ptr(), &mut len) };
        (ok == 1 && len == 16).then_some(out)
    }
}

impl Drop for Cmac {
    fn drop(&mut self) {
        // SAFETY: the pointer came from CMAC_CTX_new and is freed, and wiped, once, here.
        unsafe { lc::CMAC_CTX_free(self.ctx.as_ptr()) }
    }
}

/// One AES-128 block encryption: what XCBC and unpredictable IVs are made of.
pub(crate) struct AesBlock {
    // Boxed, so that moving the owner leaves no copy of the schedule behind.
    key: Box<lc::AES_KEY>,
}

impl AesBlock {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let mut schedule = Box::new(MaybeUninit::<lc::AES_KEY>::zeroed());
        // SAFETY: the key has 128 bits as said; the schedule is writable memory of the right type.
        unsafe { lc::AES_set_encrypt_key(key.as_ptr(), 128, schedule.as_mut_ptr()) };
        // SAFETY: all-zero octets are a valid AES_KEY already, and the call above has filled it.
        AesBlock { key: unsafe { schedule.assume_init() } }
    }

    pub(crate) fn encrypt(&self, block: &mut [u8; 16]) {
        // SAFETY: input and output are the same 16 octets, which AES_encrypt allows; the schedule is complete.
        unsafe { lc::AES_encrypt(block.as_ptr(), block.as_mut_ptr(), &*self.key) }
    }
}

impl Drop for AesBlock {
    fn drop(&mut self) {
        let at = std::ptr::from_mut::<lc::AES_KEY>(&mut self.key).cast::<c_void>();
        // SAFETY: the schedule is plain memory of exactly this size, owned by the box.
        unsafe { lc::OPENSSL_cleanse(at, size_of::<lc::AES_KEY>()) }
    }
}
