//! Signatures: RSA PKCS#1 v1.5 and PSS, ECDSA plain and DER, Ed25519.

use spi::{Fault, FaultKind, Hash, Outcome, Reject, Secret, SignScheme};

use crate::op::failed;
use crate::sys::pkey::{How, Key, Kind};

/// Smallest RSA modulus whose signatures are believed, bits. Shorter ones can be factored by one person.
const MIN_RSA_VERIFY: u32 = 1024;
/// Smallest RSA modulus to sign with, bits (NIST SP 800-131A).
const MIN_RSA_SIGN: u32 = 2048;
/// Largest RSA modulus, bits: the time of one verification has to have a bound.
const MAX_RSA: u32 = 8192;

/// A long-term private key.
pub(crate) struct SigningKey(Key);

impl SigningKey {
    /// Reads a PrivateKeyInfo, RSAPrivateKey or ECPrivateKey.
    pub(crate) fn from_der(der: &Secret) -> Result<Self, Fault> {
        let key = Key::private(der.expose()).ok_or(FaultKind::Unsupported)?;
        match key.kind() {
            Kind::Rsa(bits) if !(MIN_RSA_SIGN..=MAX_RSA).contains(&bits) => {
                Err(FaultKind::Unsupported.into())
            }
            _ => Ok(SigningKey(key)),
        }
    }

    /// DER of the SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, Fault> {
        self.0.spki().ok_or(FaultKind::Internal.into())
    }

    /// What it signs with, best first.
    pub(crate) fn schemes(&self) -> Vec<SignScheme> {
        match self.0.kind() {
            Kind::Rsa(_) => SignScheme::of_rsa(),
            Kind::Ec(curve) => SignScheme::of_curve(curve),
            Kind::Ed25519 => vec![SignScheme::Ed25519],
        }
    }

    /// Signs. The hash is computed here: nobody can have a digest signed that is not one.
    pub(crate) fn sign(&self, scheme: SignScheme, octets: &[u8]) -> Result<Vec<u8>, Outcome> {
        if !self.schemes().contains(&scheme) {
            return Err(failed(FaultKind::Unsupported));
        }
        let how = how(scheme).ok_or(failed(FaultKind::Unsupported))?;
        let signature = self.0.sign(how, octets).ok_or(failed(FaultKind::Internal))?;
        match scheme {
            SignScheme::EcdsaPlain(curve, _) => {
                der_to_plain(&signature, curve.coordinate_len()).ok_or(failed(FaultKind::Internal))
            }
            _ => Ok(signature),
        }
    }
}

/// Verifies; `Ok` means good.
pub(crate) fn verify(
    spki: &[u8],
    scheme: SignScheme,
    octets: &[u8],
    signature: &[u8],
) -> Result<(), Outcome> {
    const BAD_KEY: Outcome = Outcome::Rejected(Reject::BadPublicInput);
    const BAD: Outcome = Outcome::Rejected(Reject::BadSignature);
    let how = how(scheme).ok_or(failed(FaultKind::Unsupported))?;
    let key = Key::public(spki).ok_or(BAD_KEY)?;
    let fits = match (key.kind(), scheme) {
        (Kind::Rsa(bits), SignScheme::RsaPkcs1(_) | SignScheme::RsaPss(_)) => {
            (MIN_RSA_VERIFY..=MAX_RSA).contains(&bits)
        }
        (Kind::Ec(curve), SignScheme::EcdsaPlain(wanted, _) | SignScheme::EcdsaDer(wanted, _)) => {
            curve == wanted
        }
        (Kind::Ed25519, SignScheme::Ed25519) => true,
        _ => false,
    };
    if !fits {
        return Err(BAD_KEY);
    }
    let der;
    let signature = match scheme {
        SignScheme::EcdsaPlain(curve, _) => {
            der = plain_to_der(signature, curve.coordinate_len()).ok_or(BAD)?;
            &der
        }
        _ => signature,
    };
    match key.verify(how, octets, signature) {
        Some(true) => Ok(()),
        _ => Err(BAD),
    }
}

fn how(scheme: SignScheme) -> Option<How> {
    let how = match scheme {
        SignScheme::RsaPkcs1(hash) => How::Pkcs1(hash),
        SignScheme::RsaPss(hash) => How::Pss(hash),
        SignScheme::EcdsaPlain(_, hash) | SignScheme::EcdsaDer(_, hash) if hash != Hash::Sha1 => {
            How::Ecdsa(hash)
        }
        SignScheme::Ed25519 => return Some(How::Pure),
        _ => return None,
    };
    (scheme.hash() != Hash::Identity).then_some(how)
}

/// `r | s` to the DER sequence of two integers.
fn plain_to_der(plain: &[u8], len: usize) -> Option<Vec<u8>> {
    if plain.len() != 2 * len {
        return None;
    }
    let (r, s) = plain.split_at(len);
    let mut body = Vec::with_capacity(2 * len + 6);
    for number in [r, s] {
        let start = number.iter().position(|octet| *octet != 0).unwrap_or(len - 1);
        let digits = number.get(start..)?;
        let sign = digits.first().is_some_and(|octet| octet & 0x80 != 0);
        body.push(2);
        body.push((digits.len() + usize::from(sign)) as u8);
        body.extend(sign.then_some(0));
        body.extend_from_slice(digits);
    }
    let mut der = vec![0x30];
    // At most 2 * (66 + 1 + 2) octets: one octet of length, or two.
    if body.len() > 127 {
        der.push(0x81);
    }
    der.push(u8::try_from(body.len()).ok()?);
    der.append(&mut body);
    Some(der)
}

/// The DER sequence of two integers to `r | s`.
fn der_to_plain(der: &[u8], len: usize) -> Option<Vec<u8>> {
    let (body, rest) = element(der, 0x30)?;
    let (r, after) = element(body, 2)?;
    let (s, end) = element(after, 2)?;
    if !rest.is_empty() || !end.is_empty() {
        return None;
    }
    let mut plain = vec![0; 2 * len];
    let (to_r, to_s) = plain.split_at_mut(len);
    for (to, number) in [(to_r, r), (to_s, s)] {
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        let from = len.checked_sub(digits.len())?;
        to.get_mut(from..)?.copy_from_slice(digits);
    }
    Some(plain)
}

/// Content and remainder of a DER element with a length below 256.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match der {
        [t, 0x81, len, rest @ ..] if *t == tag && *len > 127 => (*len, rest),
        [t, len, rest @ ..] if *t == tag && *len < 128 => (*len, rest),
        _ => return None,
    };
    rest.split_at_checked(len as usize)
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
                plain[len + 1] = first;
                let der = plain_to_der(&plain, len).unwrap();
                assert_eq!(der_to_plain(&der, len).unwrap(), plain);
            }
        }
        assert!(plain_to_der(&[1; 63], 32).is_none());
        assert!(der_to_plain(&[0x30, 3, 2, 1], 32).is_none());
    }
}
