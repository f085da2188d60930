//! Signatures: RSA PKCS#1 v1.5 and PSS, ECDSA plain and DER, Ed25519 and Ed448; with keys from files, from a provider's store, or from
//! an engine.

use std::sync::Arc;

use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use spi::alg::Curve;
use spi::{FaultKind, Hash, Outcome, Reject, SignScheme};

use crate::sys::context::Context;
use crate::sys::engine::Engine;
use crate::sys::pkey::Key;
use crate::sys::sign::{self, How};

/// Smallest RSA modulus whose signatures are believed, bits. Shorter ones can be factored by one person.
const MIN_RSA_VERIFY: u32 = 1024;
/// Smallest RSA modulus to sign with, bits (NIST SP 800-131A).
const MIN_RSA_SIGN: u32 = 2048;
/// Largest RSA modulus, bits: the time of one verification has to have a bound.
const MAX_RSA: u32 = 8192;

/// The hashes that signatures are made with. SHA-1 is verified for old peers (RFC 7296 section 2.15) and never made.
pub(crate) const SHA2: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];

const UNSUPPORTED: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Unsupported));
const INTERNAL: Outcome = Outcome::Failed(spi::Fault::new(FaultKind::Internal));

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// RSA, with the bits of its modulus.
    Rsa(u32),
    /// On one of the three curves.
    Ec(Curve),
    Ed25519,
    Ed448,
}

impl KeyKind {
    pub(crate) fn of(key: &Key) -> Option<Self> {
        if key.is_a(c"RSA") {
            return Some(KeyKind::Rsa(key.bits()));
        }
        if key.is_a(c"ED25519") {
            return Some(KeyKind::Ed25519);
        }
        if key.is_a(c"ED448") {
            return Some(KeyKind::Ed448);
        }
        if !key.is_a(c"EC") {
            return None;
        }
        match key.group()?.as_str() {
            "prime256v1" | "P-256" => Some(KeyKind::Ec(Curve::P256)),
            "secp384r1" | "P-384" => Some(KeyKind::Ec(Curve::P384)),
            "secp521r1" | "P-521" => Some(KeyKind::Ec(Curve::P521)),
            _ => None,
        }
    }

    /// Whether signatures of the scheme belong to such keys.
    fn fits(self, scheme: SignScheme) -> bool {
        match (self, scheme) {
            (KeyKind::Rsa(bits), SignScheme::RsaPkcs1(_) | SignScheme::RsaPss(_)) => {
                (MIN_RSA_VERIFY..=MAX_RSA).contains(&bits)
            }
            (KeyKind::Ec(curve), SignScheme::EcdsaPlain(wanted, _) | SignScheme::EcdsaDer(wanted, _)) => {
                curve == wanted
            }
            (KeyKind::Ed25519, SignScheme::Ed25519) | (KeyKind::Ed448, SignScheme::Ed448) => true,
            _ => false,
        }
    }

    /// The schemes of such a key, best first.
    fn schemes(self) -> Vec<SignScheme> {
        match self {
            KeyKind::Rsa(_) => SignScheme::of_rsa(),
            KeyKind::Ec(curve) => SignScheme::of_curve(curve),
            KeyKind::Ed25519 => vec![SignScheme::Ed25519],
            KeyKind::Ed448 => vec![SignScheme::Ed448],
        }
    }
}

/// A long-term private key.
pub(crate) struct SigningKey {
    key: Key,
    schemes: Vec<SignScheme>,
    spki: Vec<u8>,
    /// Whose it is, if it is an engine's. Behind the key, so that it goes last.
    engine: Option<Arc<Engine>>,
    _context: Arc<Context>,
}

impl SigningKey {
    /// With those of `can` that belong to such a key. `None`: there are none, or it is no key to sign with.
    pub(crate) fn new(
        context: &Arc<Context>,
        key: Key,
        engine: Option<Arc<Engine>>,
        can: &[SignScheme],
    ) -> Option<Self> {
        let kind = KeyKind::of(&key)?;
        if matches!(kind, KeyKind::Rsa(bits) if !(MIN_RSA_SIGN..=MAX_RSA).contains(&bits)) {
            return None;
        }
        let schemes: Vec<SignScheme> = kind.schemes().into_iter().filter(|one| can.contains(one)).collect();
        let spki = key.spki()?;
        let _context = Arc::clone(context);
        (!schemes.is_empty()).then_some(SigningKey { key, schemes, spki, engine, _context })
    }

    /// DER of the SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What it signs with, best first.
    pub(crate) fn schemes(&self) -> &[SignScheme] {
        &self.schemes
    }

    /// Signs.
    pub(crate) fn sign(
        &self,
        context: &Context,
        scheme: SignScheme,
        octets: &[u8],
    ) -> Result<Vec<u8>, Outcome> {
        if !self.schemes.contains(&scheme) {
            return Err(UNSUPPORTED);
        }
        // A key of an engine's goes where the engine is, which is in no context.
        let context = if self.engine.is_some() { None } else { Some(context) };
        let signature = sign::sign(context, &self.key, how(scheme), octets).ok_or(INTERNAL)?;
        match scheme {
            SignScheme::EcdsaPlain(curve, _) => {
                der_to_plain(&signature, curve.coordinate_len()).ok_or(INTERNAL)
            }
            _ => Ok(signature),
        }
    }
}

/// A public key that signatures are verified with, and that the scheme's belong to.
pub(crate) fn public(context: &Context, spki: &[u8], scheme: SignScheme) -> Result<Key, Outcome> {
    let key = Key::from_spki(context, spki).ok_or(Outcome::Rejected(Reject::BadPublicInput))?;
    match KeyKind::of(&key) {
        Some(kind) if kind.fits(scheme) => Ok(key),
        _ => Err(Outcome::Rejected(Reject::BadPublicInput)),
    }
}

/// Verifies; `Ok` means good.
pub(crate) fn verify(
    context: &Context,
    key: &Key,
    scheme: SignScheme,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), Outcome> {
    const BAD: Outcome = Outcome::Rejected(Reject::BadSignature);
    let der;
    let signature = match scheme {
        SignScheme::EcdsaPlain(curve, _) => {
            der = plain_to_der(signature, curve.coordinate_len()).ok_or(BAD)?;
            &der
        }
        _ => signature,
    };
    match sign::verify(context, key, how(scheme), octets, signature) {
        Some(true) => Ok(()),
        Some(false) => Err(BAD),
        None => Err(INTERNAL),
    }
}

/// How OpenSSL is told.
pub(crate) fn how(scheme: SignScheme) -> How {
    match scheme {
        SignScheme::RsaPkcs1(hash) => How::Pkcs1(hash),
        SignScheme::RsaPss(hash) => How::Pss(hash),
        SignScheme::EcdsaPlain(_, hash) | SignScheme::EcdsaDer(_, hash) => How::Ecdsa(hash),
        _ => How::Pure,
    }
}

/// `r | s` to the DER sequence of two integers.
fn plain_to_der(plain: &[u8], len: usize) -> Option<Vec<u8>> {
    if plain.len() != 2 * len {
        return None;
    }
    let (r, s) = plain.split_at(len);
    let number = |octets| BigNum::from_slice(octets).ok();
    EcdsaSig::from_private_components(number(r)?, number(s)?).ok()?.to_der().ok()
}

/// The DER sequence of two integers to `r | s`.
fn der_to_plain(der: &[u8], len: usize) -> Option<Vec<u8>> {
    let signature = EcdsaSig::from_der(der).ok()?;
    let len = i32::try_from(len).ok()?;
    let (r, s) = (signature.r().to_vec_padded(len).ok()?, signature.s().to_vec_padded(len).ok()?);
    Some([r, s].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_der_signatures_convert_both_ways() {
        for len in [32, 48, 66] {
            for first in [0u8, 1, 0x7f, 0x80, 0xff] {
                let mut plain = vec![0xa5; 2 * len];
                plain[0] = first;
                plain[len] = 0;
                let der = plain_to_der(&plain, len).unwrap();
                assert_eq!(der_to_plain(&der, len).unwrap(), plain);
            }
        }
        assert!(plain_to_der(&[1; 63], 32).is_none());
        assert!(der_to_plain(&[0x30, 3, 2, 1], 32).is_none());
    }
}
