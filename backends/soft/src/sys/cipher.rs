//! EVP cipher contexts of AWS-LC: CBC and CTR without padding, CCM, and GMAC as GCM without text.
//!
//! Each context is keyed for one direction when it is made; a packet only sets the IV, which costs no key schedule.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys as lc;

struct Ctx {
    ctx: NonNull<lc::EVP_CIPHER_CTX>,
    encrypt: bool,
}

// SAFETY: an EVP_CIPHER_CTX has no thread affinity; this is its only owner and every use takes `&mut self`.
unsafe impl Send for Ctx {}

impl Ctx {
    /// `iv_len` only where the cipher lets it be chosen; `tag_len` only for AEAD modes.
    fn new(
        cipher: *const lc::EVP_CIPHER,
        key: &[u8],
        encrypt: bool,
        iv_len: Option<usize>,
        tag_len: Option<usize>,
    ) -> Option<Self> {
        // SAFETY: no arguments; null on failure.
        let ctx = NonNull::new(unsafe { lc::EVP_CIPHER_CTX_new() })?;
        let this = Ctx { ctx, encrypt };
        // SAFETY: the context is live, the cipher a static table; neither key nor IV is read when null.
        let mut ok = 1
            == unsafe {
                lc::EVP_CipherInit_ex(
                    this.ctx.as_ptr(),
                    cipher,
                    null_mut(),
                    null(),
                    null(),
                    c_int::from(encrypt),
                )
            };
        for (command, len) in [(lc::EVP_CTRL_AEAD_SET_IVLEN, iv_len), (lc::EVP_CTRL_AEAD_SET_TAG, tag_len)] {
            if let Some(len) = len {
                let len = c_int::try_from(len).ok()?;
                // SAFETY: the context is live; with a null pointer these controls set a length and read nothing.
                ok &= 1 == unsafe { lc::EVP_CIPHER_CTX_ctrl(this.ctx.as_ptr(), command, len, null_mut()) };
            }
        }
        // SAFETY: the context is live and has its cipher.
        if !ok || unsafe { lc::EVP_CIPHER_CTX_key_length(this.ctx.as_ptr()) } as usize != key.len() {
            return None;
        }
        // SAFETY: key has the length the cipher wants, as just checked; a null IV is not read.
        let keyed = unsafe {
            lc::EVP_CipherInit_ex(
                this.ctx.as_ptr(),
                null(),
                null_mut(),
                key.as_ptr(),
                null(),
                c_int::from(encrypt),
            )
        };
        // SAFETY: the context is live; padding off makes Update write exactly what it reads.
        let unpadded = unsafe { lc::EVP_CIPHER_CTX_set_padding(this.ctx.as_ptr(), 0) };
        (keyed == 1 && unpadded == 1).then_some(this)
    }

    /// Starts a message; `N` is the cipher's IV length, which the constructors below pair up.
    fn start<const N: usize>(&mut self, iv: &[u8; N]) -> bool {
        // SAFETY: the context is live and keyed; iv has the length this context was made with.
        let ok = unsafe {
            lc::EVP_CipherInit_ex(
                self.ctx.as_ptr(),
                null(),
                null_mut(),
                null(),
                iv.as_ptr(),
                c_int::from(self.encrypt),
            )
        };
        ok == 1
    }

    fn update(&mut self, out: *mut u8, input: *const u8, len: usize) -> bool {
        let Ok(len) = c_int::try_from(len) else { return false };
        let mut written = 0;
        // SAFETY: the callers below pass null, or pointers into live slices of `len` octets; unpadded ciphers write no
        // more than they read, since only whole blocks are passed.
        let ok = unsafe { lc::EVP_CipherUpdate(self.ctx.as_ptr(), out, &mut written, input, len) };
        ok == 1 && written == len
    }

    fn text(&mut self, text: &mut [u8]) -> bool {
        self.update(text.as_mut_ptr(), text.as_ptr(), text.len())
    }

    fn aad(&mut self, aad: &[u8]) -> bool {
        self.update(null_mut(), aad.as_ptr(), aad.len())
    }

    fn set_tag(&mut self, tag: &[u8]) -> bool {
        let Ok(len) = c_int::try_from(tag.len()) else { return false };
        // SAFETY: the context is live; the control reads `len` octets of tag and writes none.
        let ok = unsafe {
            lc::EVP_CIPHER_CTX_ctrl(
                self.ctx.as_ptr(),
                lc::EVP_CTRL_AEAD_SET_TAG,
                len,
                tag.as_ptr().cast_mut().cast::<c_void>(),
            )
        };
        ok == 1
    }

    fn get_tag(&mut self, tag: &mut [u8]) -> bool {
        let Ok(len) = c_int::try_from(tag.len()) else { return false };
        // SAFETY: the context is live; the control writes `len` octets of tag.
        let ok = unsafe {
            lc::EVP_CIPHER_CTX_ctrl(
                self.ctx.as_ptr(),
                lc::EVP_CTRL_AEAD_GET_TAG,
                len,
                tag.as_mut_ptr().cast::<c_void>(),
            )
        };
        ok == 1
    }

    fn finish(&mut self) -> bool {
        let mut nothing = [0u8; 16];
        let mut written = 0;
        // SAFETY: the context is live; without padding at most one block is written.
        let ok = unsafe { lc::EVP_CipherFinal_ex(self.ctx.as_ptr(), nothing.as_mut_ptr(), &mut written) };
        ok == 1 && written == 0
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // SAFETY: the pointer came from EVP_CIPHER_CTX_new and is freed, and wiped, once, here.
        unsafe { lc::EVP_CIPHER_CTX_free(self.ctx.as_ptr()) }
    }
}

macro_rules! by_key_len {
    ($key:expr, $k128:ident, $k192:ident, $k256:ident) => {
        match $key.len() {
            // SAFETY: returns a pointer to a static table.
            16 => unsafe { lc::$k128() },
            // SAFETY: as above.
            24 => unsafe { lc::$k192() },
            // SAFETY: as above.
            32 => unsafe { lc::$k256() },
            _ => return None,
        }
    };
}

/// AES in CBC or counter mode, one direction.
pub(crate) struct BlockMode {
    ctx: Ctx,
    whole_blocks: bool,
}

impl BlockMode {
    /// AES-CBC without padding.
    pub(crate) fn cbc(key: &[u8], encrypt: bool) -> Option<Self> {
        let cipher = by_key_len!(key, EVP_aes_128_cbc, EVP_aes_192_cbc, EVP_aes_256_cbc);
        Some(BlockMode { ctx: Ctx::new(cipher, key, encrypt, None, None)?, whole_blocks: true })
    }

    /// AES-CTR with a 128-bit counter block.
    pub(crate) fn ctr(key: &[u8]) -> Option<Self> {
        let cipher = by_key_len!(key, EVP_aes_128_ctr, EVP_aes_192_ctr, EVP_aes_256_ctr);
        Some(BlockMode { ctx: Ctx::new(cipher, key, true, None, None)?, whole_blocks: false })
    }

    /// Encrypts or decrypts one message in place. False: CBC was given less than whole blocks.
    pub(crate) fn apply(&mut self, iv: &[u8; 16], text: &mut [u8]) -> bool {
        if self.whole_blocks && !text.len().is_multiple_of(16) {
            return false;
        }
        self.ctx.start(iv) && self.ctx.text(text)
    }
}

/// AES-CCM with an 11-octet nonce, one direction.
pub(crate) struct Ccm {
    ctx: Ctx,
    tag_len: usize,
}

impl Ccm {
    pub(crate) fn new(key: &[u8], tag_len: usize, encrypt: bool) -> Option<Self> {
        let cipher = by_key_len!(key, EVP_aes_128_ccm, EVP_aes_192_ccm, EVP_aes_256_ccm);
        Some(Ccm { ctx: Ctx::new(cipher, key, encrypt, Some(11), Some(tag_len))?, tag_len })
    }

    /// Encrypts in place and writes the tag; the context must have been made to encrypt.
    pub(crate) fn seal(&mut self, nonce: &[u8; 11], aad: &[u8], text: &mut [u8], tag: &mut [u8]) -> bool {
        tag.len() == self.tag_len
            && self.ctx.encrypt
            && self.ctx.start(nonce)
            && self.ctx.update(null_mut(), null(), text.len())
            && self.ctx.aad(aad)
            && self.ctx.text(text)
            && self.ctx.get_tag(tag)
    }

    /// Checks the tag and decrypts in place; the context must have been made to decrypt.
    pub(crate) fn open(&mut self, nonce: &[u8; 11], aad: &[u8], text: &mut [u8], tag: &[u8]) -> bool {
        tag.len() == self.tag_len
            && !self.ctx.encrypt
            && self.ctx.set_tag(tag)
            && self.ctx.start(nonce)
            && self.ctx.update(null_mut(), null(), text.len())
            && self.ctx.aad(aad)
            && self.ctx.text(text)
    }
}

/// AES-GMAC with a 12-octet nonce and the full tag.
pub(crate) struct Gmac {
    ctx: Ctx,
}

impl Gmac {
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let cipher = by_key_len!(key, EVP_aes_128_gcm, EVP_aes_192_gcm, EVP_aes_256_gcm);
        Some(Gmac { ctx: Ctx::new(cipher, key, true, Some(12), None)? })
    }

    /// The tag over the concatenation of `parts`.
    pub(crate) fn tag(&mut self, nonce: &[u8; 12], parts: &[&[u8]]) -> Option<[u8; 16]> {
        let mut tag = [0; 16];
        let ok = self.ctx.start(nonce)
            && parts.iter().all(|part| part.is_empty() || self.ctx.aad(part))
            && self.ctx.finish()
            && self.ctx.get_tag(&mut tag);
        ok.then_some(tag)
    }
}
