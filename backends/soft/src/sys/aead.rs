//! AEAD contexts of AWS-LC: AES-GCM with any tag length, ChaCha20-Poly1305.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use aws_lc_sys as lc;

/// An AEAD with a 12-octet nonce. Sealing and opening do not change it, so one serves all threads.
///
/// It lies where its owner put it: the owner makes it without a key, moves it to where it will stay, and then keys it. So
/// there is no allocation besides the owner's, and no copy of a key schedule is left behind by a move.
pub(crate) struct Aead {
    ctx: lc::EVP_AEAD_CTX,
}

// SAFETY: an EVP_AEAD_CTX has no thread affinity; this is its only owner.
unsafe impl Send for Aead {}
// SAFETY: AWS-LC documents that seal and open take a const context and may run concurrently.
unsafe impl Sync for Aead {}

/// The AEADs there are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// AES-GCM; the key length (16, 24, 32) says which AES.
    Gcm,
    /// ChaCha20-Poly1305 with the full tag.
    Chacha,
}

impl Aead {
    /// Without a key: seals and opens nothing.
    pub(crate) fn unkeyed() -> Self {
        let mut ctx = MaybeUninit::uninit();
        // SAFETY: this writes the whole context, as zeroes.
        unsafe { lc::EVP_AEAD_CTX_zero(ctx.as_mut_ptr()) };
        // SAFETY: written just now; AWS-LC calls this state valid, and nothing needs to be freed in it.
        Aead { ctx: unsafe { ctx.assume_init() } }
    }

    /// Runs the key schedule; a key from before is forgotten. False: lengths the algorithm cannot have.
    pub(crate) fn schedule(&mut self, kind: Kind, key: &[u8], tag_len: usize) -> bool {
        let aead = match (kind, key.len()) {
            // SAFETY: returns a pointer to a static table.
            (Kind::Gcm, 16) => unsafe { lc::EVP_aead_aes_128_gcm() },
            // SAFETY: as above.
            (Kind::Gcm, 24) => unsafe { lc::EVP_aead_aes_192_gcm() },
            // SAFETY: as above.
            (Kind::Gcm, 32) => unsafe { lc::EVP_aead_aes_256_gcm() },
            // SAFETY: as above.
            (Kind::Chacha, 32) => unsafe { lc::EVP_aead_chacha20_poly1305() },
            _ => return false,
        };
        self.wipe();
        // SAFETY: the context is in its zero state, aead a static table and key a live slice of the length given. On
        // failure the context is in the zero state again.
        1 == unsafe {
            lc::EVP_AEAD_CTX_init(&mut self.ctx, aead, key.as_ptr(), key.len(), tag_len, std::ptr::null_mut())
        }
    }

    /// Octets of tag; 0 without a key.
    fn tag_len(&self) -> usize {
        if self.ctx.aead.is_null() { 0 } else { usize::from(self.ctx.tag_len) }
    }

    fn wipe(&mut self) {
        // SAFETY: the context is in its zero state or keyed; both may be cleaned up.
        unsafe { lc::EVP_AEAD_CTX_cleanup(&mut self.ctx) };
        let at = std::ptr::from_mut(&mut self.ctx).cast::<std::ffi::c_void>();
        // SAFETY: the context is plain memory of exactly this size; all zeroes are its zero state.
        unsafe { lc::OPENSSL_cleanse(at, size_of::<lc::EVP_AEAD_CTX>()) };
    }

    /// Encrypts `text` in place and writes the tag. False: the tag slice has another length than agreed, or the text is
    /// too long for the algorithm.
    pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8]) -> bool {
        if tag.is_empty() || tag.len() != self.tag_len() {
            return false;
        }
        let mut written = 0;
        // SAFETY: all pointers come from live slices with the lengths given; input and output are the same slice, which
        // AWS-LC allows; tag does not overlap text, both being exclusive borrows.
        let ok = unsafe {
            lc::EVP_AEAD_CTX_seal_scatter(
                &self.ctx,
                text.as_mut_ptr(),
                tag.as_mut_ptr(),
                &mut written,
                tag.len(),
                nonce.as_ptr(),
                nonce.len(),
                text.as_ptr(),
                text.len(),
                std::ptr::null(),
                0,
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok == 1 && written == tag.len()
    }

    /// Checks the tag and decrypts `text` in place. False: the tag is wrong; `text` is then undefined.
    pub(crate) fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &[u8]) -> bool {
        if tag.is_empty() || tag.len() != self.tag_len() {
            return false;
        }
        // SAFETY: all pointers come from live slices with the lengths given; input and output are the same slice, which
        // AWS-LC allows.
        let ok = unsafe {
            lc::EVP_AEAD_CTX_open_gather(
                &self.ctx,
                text.as_mut_ptr(),
                nonce.as_ptr(),
                nonce.len(),
                text.as_ptr(),
                text.len(),
                tag.as_ptr(),
                tag.len(),
                aad.as_ptr(),
                aad.len(),
            )
        };
        ok == 1
    }
}

impl Drop for Aead {
    fn drop(&mut self) {
        self.wipe();
    }
}
