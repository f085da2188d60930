//! AEAD contexts of AWS-LC: AES-GCM with any tag length, ChaCha20-Poly1305.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use aws_lc_sys as lc;

/// A keyed AEAD with a 12-octet nonce. Sealing and opening do not change it, so one serves all threads.
pub(crate) struct Aead {
    ctx: NonNull<lc::EVP_AEAD_CTX>,
    tag_len: usize,
}

// SAFETY: an EVP_AEAD_CTX has no thread affinity; this is its only owner.
unsafe impl Send for Aead {}
// SAFETY: AWS-LC documents that seal and open take a const context and may run concurrently.
unsafe impl Sync for Aead {}

impl Aead {
    /// AES-GCM; the key length (16, 24, 32) says which AES.
    pub(crate) fn gcm(key: &[u8], tag_len: usize) -> Option<Self> {
        let aead = match key.len() {
            // SAFETY: returns a pointer to a static table.
            16 => unsafe { lc::EVP_aead_aes_128_gcm() },
            // SAFETY: as above.
            24 => unsafe { lc::EVP_aead_aes_192_gcm() },
            // SAFETY: as above.
            32 => unsafe { lc::EVP_aead_aes_256_gcm() },
            _ => return None,
        };
        Self::new(aead, key, tag_len)
    }

    /// ChaCha20-Poly1305 with the full tag.
    pub(crate) fn chacha(key: &[u8]) -> Option<Self> {
        if key.len() != 32 {
            return None;
        }
        // SAFETY: returns a pointer to a static table.
        Self::new(unsafe { lc::EVP_aead_chacha20_poly1305() }, key, 16)
    }

    fn new(aead: *const lc::EVP_AEAD, key: &[u8], tag_len: usize) -> Option<Self> {
        // SAFETY: aead is a static table and key a live slice of the length given; null comes back on failure.
        let ctx = unsafe { lc::EVP_AEAD_CTX_new(aead, key.as_ptr(), key.len(), tag_len) };
        NonNull::new(ctx).map(|ctx| Aead { ctx, tag_len })
    }

    /// Encrypts `text` in place and writes the tag. False: the tag slice has another length than agreed, or the text is
    /// too long for the algorithm.
    pub(crate) fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8]) -> bool {
        if tag.len() != self.tag_len {
            return false;
        }
        let mut written = 0;
        // SAFETY: all pointers come from live slices with the lengths given; input and output are the same slice, which
        // AWS-LC allows; tag does not overlap text, both being exclusive borrows.
        let ok = unsafe {
            lc::EVP_AEAD_CTX_seal_scatter(
                self.ctx.as_ptr(),
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
        if tag.len() != self.tag_len {
            return false;
        }
        // SAFETY: all pointers come from live slices with the lengths given; input and output are the same slice, which
        // AWS-LC allows.
        let ok = unsafe {
            lc::EVP_AEAD_CTX_open_gather(
                self.ctx.as_ptr(),
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
        // SAFETY: the pointer came from EVP_AEAD_CTX_new and is freed once, here.
        unsafe { lc::EVP_AEAD_CTX_free(self.ctx.as_ptr()) }
    }
}
