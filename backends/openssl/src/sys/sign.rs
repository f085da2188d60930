//! Signatures.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr::{NonNull, null, null_mut};

use openssl_sys::{self as ffi, EVP_MD_CTX, EVP_PKEY_CTX};
use spi::Hash;

use super::context::Context;
use super::pkey::Key;
use super::{errors, raw};

/// How to sign or verify with a key of the right kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(Hash),
    /// RSASSA-PSS, with a salt as long as the hash.
    Pss(Hash),
    /// ECDSA, as DER.
    Ecdsa(Hash),
    /// EdDSA over the octets themselves.
    Pure,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sign,
    Verify,
}

/// A signature that has begun.
struct Running(NonNull<EVP_MD_CTX>);

impl Running {
    /// In the context, or, for a key of an engine's, outside of all.
    fn begin(context: Option<&Context>, key: &Key, how: How, way: Way) -> Option<Self> {
        // SAFETY: no pointers; null on failure.
        let running = Running(NonNull::new(unsafe { ffi::EVP_MD_CTX_new() })?);
        let hash = match how {
            How::Pkcs1(hash) | How::Pss(hash) | How::Ecdsa(hash) => Some(name(hash)?),
            How::Pure => None,
        };
        let hash = hash.map_or(null(), CStr::as_ptr);
        let (lib, query) = context.map_or((null_mut(), null()), |context| (context.lib(), context.query()));
        let mut settings: *mut EVP_PKEY_CTX = null_mut();
        let begin = match way {
            Way::Sign => raw::EVP_DigestSignInit_ex,
            Way::Verify => raw::EVP_DigestVerifyInit_ex,
        };
        // SAFETY: all are live, strings end with a zero. The settings belong to the running signature and live as long.
        let ok = unsafe {
            begin(running.0.as_ptr(), &mut settings, hash, lib, query, key.as_ptr(), null()) == 1
                && match how {
                    How::Pkcs1(_) => ffi::EVP_PKEY_CTX_set_rsa_padding(settings, ffi::RSA_PKCS1_PADDING) > 0,
                    How::Pss(_) => {
                        // -1: as long as the hash (RSA_PSS_SALTLEN_DIGEST), and nothing else when it is verified.
                        ffi::EVP_PKEY_CTX_set_rsa_padding(settings, ffi::RSA_PKCS1_PSS_PADDING) > 0
                            && ffi::EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, -1) > 0
                    }
                    How::Ecdsa(_) | How::Pure => true,
                }
        };
        ok.then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: made by begin, freed once.
        unsafe { ffi::EVP_MD_CTX_free(self.0.as_ptr()) }
        errors::clear();
    }
}

/// Signs. The hash is computed in the same step: nobody can have a digest signed that is not one. Without a context the key is
/// an engine's.
pub(crate) fn sign(context: Option<&Context>, key: &Key, how: How, octets: &[u8]) -> Option<Vec<u8>> {
    let running = Running::begin(context, key, how, Way::Sign)?;
    let (at, mut len) = (running.0.as_ptr(), 0);
    // SAFETY: octets have the length announced; null asks for the largest length of a signature alone.
    if unsafe { ffi::EVP_DigestSign(at, null_mut(), &mut len, octets.as_ptr(), octets.len()) } != 1 {
        return None;
    }
    let mut signature = vec![0; len];
    // SAFETY: as above, and signature is as long as was just said.
    let ok =
        unsafe { ffi::EVP_DigestSign(at, signature.as_mut_ptr(), &mut len, octets.as_ptr(), octets.len()) };
    signature.truncate(len);
    (ok == 1).then_some(signature)
}

/// Whether a signature is good; `None`: the provider cannot say.
pub(crate) fn verify(
    context: &Context,
    key: &Key,
    how: How,
    octets: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let running = Running::begin(Some(context), key, how, Way::Verify)?;
    // SAFETY: slices have the lengths announced.
    let verdict = unsafe {
        let (from, len) = (signature.as_ptr(), signature.len());
        ffi::EVP_DigestVerify(running.0.as_ptr(), from, len, octets.as_ptr(), octets.len())
    };
    Some(verdict == 1)
}

/// Whether the context would verify in this way with this key.
pub(crate) fn can_verify(context: &Context, key: &Key, how: How) -> bool {
    Running::begin(Some(context), key, how, Way::Verify).is_some()
}

/// A hash as OpenSSL calls it.
pub(crate) fn name(hash: Hash) -> Option<&'static CStr> {
    Some(match hash {
        Hash::Sha1 => c"SHA1",
        Hash::Sha256 => c"SHA256",
        Hash::Sha384 => c"SHA384",
        Hash::Sha512 => c"SHA512",
        Hash::Identity => return None,
    })
}
