//! Signature keys of AWS-LC: parse, describe, sign, verify.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys as lc;
use spi::Hash;
use spi::alg::Curve;

use super::mac::digest;

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RSA, with the bits of its modulus.
    Rsa(u32),
    /// ECDSA on one of the three curves.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
}

/// How to sign or verify with a key of the right kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(Hash),
    /// RSASSA-PSS; MGF1 and salt length follow the hash.
    Pss(Hash),
    /// ECDSA, DER signature.
    Ecdsa(Hash),
    /// Over the message itself.
    Pure,
}

/// A key, private or public.
pub(crate) struct Key {
    key: NonNull<lc::EVP_PKEY>,
    kind: Kind,
}

// SAFETY: an EVP_PKEY has no thread affinity.
unsafe impl Send for Key {}
// SAFETY: AWS-LC documents that a key may be used by several threads at once as long as none changes it, and nothing
// here does after construction.
unsafe impl Sync for Key {}

struct Owned(NonNull<lc::EVP_PKEY>);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: a reference this value owns, given up once.
        unsafe { lc::EVP_PKEY_free(self.0.as_ptr()) }
    }
}

fn cbs(der: &[u8]) -> lc::CBS {
    lc::CBS { data: der.as_ptr(), len: der.len() }
}

impl Key {
    /// A SubjectPublicKeyInfo with nothing after it.
    pub(crate) fn public(spki: &[u8]) -> Option<Self> {
        let mut input = cbs(spki);
        // SAFETY: input is a view of a live slice; null on failure.
        let key = Owned(NonNull::new(unsafe { lc::EVP_parse_public_key(&mut input) })?);
        if input.len != 0 {
            return None;
        }
        Self::known(key)
    }

    /// A PrivateKeyInfo, RSAPrivateKey or ECPrivateKey with nothing after it.
    pub(crate) fn private(der: &[u8]) -> Option<Self> {
        let key = Self::pkcs8(der).or_else(|| Self::pkcs1(der)).or_else(|| Self::sec1(der));
        // The failed attempts left their complaints in the thread's error queue.
        // SAFETY: touches only that queue.
        unsafe { lc::ERR_clear_error() };
        Self::known(key?)
    }

    fn pkcs8(der: &[u8]) -> Option<Owned> {
        let mut input = cbs(der);
        // SAFETY: input is a view of a live slice; null on failure.
        let key = Owned(NonNull::new(unsafe { lc::EVP_parse_private_key(&mut input) })?);
        (input.len == 0).then_some(key)
    }

    fn pkcs1(der: &[u8]) -> Option<Owned> {
        // SAFETY: der is a live slice of the length given; trailing octets are refused; null on failure.
        let rsa = NonNull::new(unsafe { lc::RSA_private_key_from_bytes(der.as_ptr(), der.len()) })?;
        // SAFETY: no arguments; null on failure.
        let key = NonNull::new(unsafe { lc::EVP_PKEY_new() }).map(Owned);
        // SAFETY: both are live when the key is; set1 takes a reference of its own.
        let ok = key
            .as_ref()
            .is_some_and(|key| unsafe { lc::EVP_PKEY_set1_RSA(key.0.as_ptr(), rsa.as_ptr()) } == 1);
        // SAFETY: gives up our reference, once.
        unsafe { lc::RSA_free(rsa.as_ptr()) };
        key.filter(|_| ok)
    }

    fn sec1(der: &[u8]) -> Option<Owned> {
        let mut input = cbs(der);
        // SAFETY: input is a view of a live slice; a null group means that the key must name its curve.
        let ec = NonNull::new(unsafe { lc::EC_KEY_parse_private_key(&mut input, null()) })?;
        // SAFETY: no arguments; null on failure.
        let key = NonNull::new(unsafe { lc::EVP_PKEY_new() }).map(Owned);
        let ok = key.as_ref().is_some_and(|key| {
            // SAFETY: both are live; set1 takes a reference of its own.
            unsafe { lc::EVP_PKEY_set1_EC_KEY(key.0.as_ptr(), ec.as_ptr()) == 1 }
        });
        // SAFETY: gives up our reference, once.
        unsafe { lc::EC_KEY_free(ec.as_ptr()) };
        key.filter(|_| ok && input.len == 0)
    }

    fn known(owned: Owned) -> Option<Self> {
        let at = owned.0.as_ptr();
        // SAFETY: the key is live.
        let kind = match unsafe { lc::EVP_PKEY_id(at) } {
            lc::EVP_PKEY_RSA => {
                // SAFETY: the key is live.
                Kind::Rsa(u32::try_from(unsafe { lc::EVP_PKEY_bits(at) }).ok()?)
            }
            lc::EVP_PKEY_EC => {
                // SAFETY: the key is live and an EC key; the references are borrowed and used here only.
                let nid = unsafe {
                    lc::EC_GROUP_get_curve_name(lc::EC_KEY_get0_group(lc::EVP_PKEY_get0_EC_KEY(at)))
                };
                Kind::Ec(match nid {
                    lc::NID_X9_62_prime256v1 => Curve::P256,
                    lc::NID_secp384r1 => Curve::P384,
                    lc::NID_secp521r1 => Curve::P521,
                    _ => return None,
                })
            }
            lc::EVP_PKEY_ED25519 => Kind::Ed25519,
            _ => return None,
        };
        let key = owned.0;
        std::mem::forget(owned);
        Some(Key { key, kind })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// DER of the SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        let mut cbb = std::mem::MaybeUninit::<lc::CBB>::zeroed();
        // SAFETY: initialises the zeroed builder.
        if unsafe { lc::CBB_init(cbb.as_mut_ptr(), 128) } != 1 {
            return None;
        }
        let (mut data, mut len) = (null_mut(), 0);
        // SAFETY: the builder is initialised and the key live; finish hands over the octets and empties the builder.
        let ok = unsafe {
            lc::EVP_marshal_public_key(cbb.as_mut_ptr(), self.key.as_ptr()) == 1
                && lc::CBB_finish(cbb.as_mut_ptr(), &mut data, &mut len) == 1
        };
        if !ok {
            // SAFETY: the builder is initialised and was not finished.
            unsafe { lc::CBB_cleanup(cbb.as_mut_ptr()) };
            return None;
        }
        // SAFETY: finish returned `len` octets at data, ours until freed below.
        let out = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
        // SAFETY: data came from AWS-LC's allocator and is freed once.
        unsafe { lc::OPENSSL_free(data.cast()) };
        Some(out)
    }

    /// Signs `octets`; `how` must fit the kind.
    pub(crate) fn sign(&self, how: How, octets: &[u8]) -> Option<Vec<u8>> {
        let op = Operation::new(self, how, true)?;
        let mut len = 0;
        // SAFETY: the operation is set up for signing; a null output asks for the length.
        let asked =
            unsafe { lc::EVP_DigestSign(op.0.as_ptr(), null_mut(), &mut len, octets.as_ptr(), octets.len()) };
        if asked != 1 {
            return None;
        }
        let mut out = vec![0; len];
        // SAFETY: out has `len` octets, which the call was just told and respects.
        let signed = unsafe {
            lc::EVP_DigestSign(op.0.as_ptr(), out.as_mut_ptr(), &mut len, octets.as_ptr(), octets.len())
        };
        if signed != 1 {
            return None;
        }
        out.truncate(len);
        Some(out)
    }

    /// Whether `signature` over `octets` is good; `None` when `how` does not fit the kind.
    pub(crate) fn verify(&self, how: How, octets: &[u8], signature: &[u8]) -> Option<bool> {
        let op = Operation::new(self, how, false)?;
        // SAFETY: the operation is set up for verifying; both slices are live and have the lengths given.
        let ok = unsafe {
            lc::EVP_DigestVerify(
                op.0.as_ptr(),
                signature.as_ptr(),
                signature.len(),
                octets.as_ptr(),
                octets.len(),
            )
        };
        // SAFETY: touches only the thread's error queue.
        unsafe { lc::ERR_clear_error() };
        Some(ok == 1)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the reference this value owns, given up once. AWS-LC wipes a key with its last reference.
        unsafe { lc::EVP_PKEY_free(self.key.as_ptr()) }
    }
}

struct Operation(NonNull<lc::EVP_MD_CTX>);

impl Operation {
    fn new(key: &Key, how: How, sign: bool) -> Option<Self> {
        let (hash, padding) = match (how, key.kind) {
            (How::Pkcs1(hash), Kind::Rsa(_)) => (Some(hash), Some(lc::RSA_PKCS1_PADDING)),
            (How::Pss(hash), Kind::Rsa(_)) => (Some(hash), Some(lc::RSA_PKCS1_PSS_PADDING)),
            (How::Ecdsa(hash), Kind::Ec(_)) => (Some(hash), None),
            (How::Pure, Kind::Ed25519) => (None, None),
            _ => return None,
        };
        let digest = match hash {
            Some(hash) => digest(hash)?,
            None => null(),
        };
        // SAFETY: no arguments; null on failure.
        let this = Operation(NonNull::new(unsafe { lc::EVP_MD_CTX_new() })?);
        let mut params = null_mut();
        let init = if sign { lc::EVP_DigestSignInit } else { lc::EVP_DigestVerifyInit };
        // SAFETY: context and key are live, the digest a static table or, for Ed25519, null. The context takes a
        // reference to the key; params belongs to the context.
        let mut ok = 1 == unsafe { init(this.0.as_ptr(), &mut params, digest, null_mut(), key.key.as_ptr()) };
        if let (true, Some(padding)) = (ok, padding) {
            // SAFETY: params is live as long as the context.
            ok = 1 == unsafe { lc::EVP_PKEY_CTX_set_rsa_padding(params, padding) };
            if padding == lc::RSA_PKCS1_PSS_PADDING {
                // SAFETY: as above. RFC 7427 section A.4 as spi puts it: salt as long as the hash, and no other length
                // passes; MGF1 takes the same hash by default.
                ok &=
                    1 == unsafe { lc::EVP_PKEY_CTX_set_rsa_pss_saltlen(params, lc::RSA_PSS_SALTLEN_DIGEST) };
            }
        }
        ok.then_some(this)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: the pointer came from EVP_MD_CTX_new and is freed once, here.
        unsafe { lc::EVP_MD_CTX_free(self.0.as_ptr()) }
    }
}
