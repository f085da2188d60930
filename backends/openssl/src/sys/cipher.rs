//! Ciphers: fetched from a provider, keyed for one SA, and run over one packet after the other.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr::{NonNull, null, null_mut};

use openssl_sys::{self as ffi, EVP_CIPHER, EVP_CIPHER_CTX};

use super::context::Context;
use super::{errors, raw};

/// A cipher of a provider's.
pub(crate) struct Cipher(NonNull<EVP_CIPHER>);

// SAFETY: counted, and never written to after the fetch.
unsafe impl Send for Cipher {}
// SAFETY: as above.
unsafe impl Sync for Cipher {}

impl Cipher {
    /// Fetches one; `None`: no provider has it under the context's query.
    pub(crate) fn fetch(context: &Context, name: &CStr) -> Option<Self> {
        // SAFETY: the context is live, the strings end with a zero; null on failure.
        let cipher = unsafe { ffi::EVP_CIPHER_fetch(context.lib(), name.as_ptr(), context.query()) };
        if cipher.is_null() {
            errors::clear();
        }
        NonNull::new(cipher).map(Cipher)
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        // SAFETY: fetched once, given back once.
        unsafe { ffi::EVP_CIPHER_free(self.0.as_ptr()) }
    }
}

/// Why a cipher did not give what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The check value is another.
    BadIcv,
    /// The provider says that it cannot.
    Broken,
}

/// A keyed cipher for one direction. One packet at a time.
pub(crate) struct Keyed {
    context: NonNull<EVP_CIPHER_CTX>,
    seal: bool,
}

// SAFETY: it has one owner at a time, and nothing in it belongs to a thread.
unsafe impl Send for Keyed {}

impl Keyed {
    /// Runs the key schedule. `key` has the octets the cipher wants, which the table of algorithms knows.
    pub(crate) fn new(cipher: &Cipher, key: &[u8], seal: bool) -> Option<Self> {
        // SAFETY: no pointers; null on failure.
        let context = NonNull::new(unsafe { ffi::EVP_CIPHER_CTX_new() })?;
        let keyed = Keyed { context, seal };
        // SAFETY: the cipher is live and is held by the context from now on. Its key has as many octets as it reads: asked first.
        let ok = unsafe {
            let (at, enc) = (context.as_ptr(), c_int::from(seal));
            raw::EVP_CipherInit_ex2(at, cipher.0.as_ptr(), null(), null(), enc, null()) == 1
                && usize::try_from(ffi::EVP_CIPHER_CTX_get_key_length(at)) == Ok(key.len())
                && raw::EVP_CipherInit_ex2(at, null(), key.as_ptr(), null(), enc, null()) == 1
                && ffi::EVP_CIPHER_CTX_set_padding(at, 0) == 1
        };
        if !ok {
            errors::clear();
        }
        ok.then_some(keyed)
    }

    /// Begins a packet.
    pub(crate) fn begin(&mut self, iv: &[u8]) -> Result<(), Failed> {
        let at = self.context.as_ptr();
        // SAFETY: the context is live and keyed.
        if usize::try_from(unsafe { ffi::EVP_CIPHER_CTX_get_iv_length(at) }) != Ok(iv.len()) {
            return Err(Failed::Broken);
        }
        // SAFETY: as above, and the IV has the octets that are read.
        let ok = unsafe {
            raw::EVP_CipherInit_ex2(at, null(), null(), iv.as_ptr(), c_int::from(self.seal), null())
        };
        done(ok == 1)
    }

    /// Octets that are authenticated and not encrypted.
    pub(crate) fn aad(&mut self, aad: &[u8]) -> Result<(), Failed> {
        let (mut len, given) = (0, length(aad)?);
        // SAFETY: the context is live, aad has the octets announced; nothing is written without a destination.
        let ok = unsafe {
            ffi::EVP_CipherUpdate(self.context.as_ptr(), null_mut(), &mut len, aad.as_ptr(), given)
        };
        done(ok == 1)
    }

    /// Encrypts or decrypts in place.
    pub(crate) fn apply(&mut self, text: &mut [u8]) -> Result<(), Failed> {
        if text.is_empty() {
            return Ok(());
        }
        let (mut len, given) = (0, length(text)?);
        let at = text.as_mut_ptr();
        // SAFETY: text has the octets announced. Input and output are the same place, which EVP allows; without padding no more
        // comes out than went in.
        let ok = unsafe { ffi::EVP_CipherUpdate(self.context.as_ptr(), at, &mut len, at, given) };
        done(ok == 1 && len == given)
    }

    /// Ends a packet without a check value.
    pub(crate) fn end(&mut self) -> Result<(), Failed> {
        done(self.finish())
    }

    /// Ends a sealed packet and writes its check value.
    pub(crate) fn tag(&mut self, icv: &mut [u8]) -> Result<(), Failed> {
        let len = length(icv)?;
        // SAFETY: the context is live, icv has the octets announced.
        let ok = self.finish()
            && unsafe {
                let to = icv.as_mut_ptr().cast();
                ffi::EVP_CIPHER_CTX_ctrl(self.context.as_ptr(), raw::AEAD_GET_TAG, len, to)
            } == 1;
        done(ok)
    }

    /// Says which check value an opened packet has, before its text is decrypted.
    pub(crate) fn expect(&mut self, icv: &[u8]) -> Result<(), Failed> {
        let len = length(icv)?;
        // SAFETY: as above; the octets are copied, not written to.
        let ok = unsafe {
            let from = icv.as_ptr().cast_mut().cast();
            ffi::EVP_CIPHER_CTX_ctrl(self.context.as_ptr(), raw::AEAD_SET_TAG, len, from)
        };
        done(ok == 1)
    }

    /// Ends an opened packet: whether its check value was the right one.
    pub(crate) fn verify(&mut self) -> Result<(), Failed> {
        match self.finish() {
            true => Ok(()),
            false => {
                errors::clear();
                Err(Failed::BadIcv)
            }
        }
    }

    fn finish(&mut self) -> bool {
        let (mut rest, mut len) = ([0u8; 32], 0);
        // SAFETY: the context is live; the last block of any cipher fits.
        let ok = unsafe { raw::EVP_CipherFinal_ex(self.context.as_ptr(), rest.as_mut_ptr(), &mut len) };
        ok == 1 && len == 0
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        // SAFETY: made by new, freed once; the provider wipes the key.
        unsafe { ffi::EVP_CIPHER_CTX_free(self.context.as_ptr()) }
    }
}

fn length(octets: &[u8]) -> Result<c_int, Failed> {
    octets.len().try_into().map_err(|_| Failed::Broken)
}

fn done(ok: bool) -> Result<(), Failed> {
    match ok {
        true => Ok(()),
        false => {
            errors::clear();
            Err(Failed::Broken)
        }
    }
}
