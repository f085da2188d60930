//! Public keys: what kind one is, and whether it is fit to be believed.

use spi::alg::Curve;
use thiserror::Error;
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfo;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ED448: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.113");
const CURVES: [(ObjectIdentifier, Curve); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), Curve::P256),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), Curve::P384),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), Curve::P521),
];

/// Longest RSA modulus that is believed, bits: the time of one verification has to have a bound.
const MAX_RSA_BITS: usize = 8192;
/// Longest RSA exponent, octets, for the same reason; 65537 has three.
const MAX_EXPONENT: usize = 4;

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Rsa(usize),
    Ec(Curve),
    Ed25519,
    Ed448,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Rsa(bits) => write!(f, "RSA-{bits}"),
            KeyKind::Ec(Curve::P256) => f.write_str("ECDSA P-256"),
            KeyKind::Ec(Curve::P384) => f.write_str("ECDSA P-384"),
            KeyKind::Ec(Curve::P521) => f.write_str("ECDSA P-521"),
            KeyKind::Ed25519 => f.write_str("Ed25519"),
            KeyKind::Ed448 => f.write_str("Ed448"),
        }
    }
}

/// Why a public key is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    #[error("the public key is not understood")]
    Unknown,
    #[error("an RSA key of {0} bits, at least {1} are asked for")]
    TooShort(usize, usize),
    #[error("an RSA key of {0} bits, at most {MAX_RSA_BITS} are accepted")]
    TooLong(usize),
    #[error("an RSA key with an impossible exponent or modulus")]
    BadRsa,
}

/// Looks at a SubjectPublicKeyInfo. Curve points are left to the device that verifies.
pub(crate) fn inspect(spki: &[u8], min_rsa_bits: usize) -> Result<KeyKind, KeyError> {
    let spki = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(spki)
        .map_err(|_| KeyError::Unknown)?;
    match spki.algorithm.oid {
        RSA | RSA_PSS => {
            let key = spki.subject_public_key.as_bytes().ok_or(KeyError::BadRsa)?;
            let bits = rsa_bits(key).ok_or(KeyError::BadRsa)?;
            if bits < min_rsa_bits {
                return Err(KeyError::TooShort(bits, min_rsa_bits));
            }
            if bits > MAX_RSA_BITS {
                return Err(KeyError::TooLong(bits));
            }
            Ok(KeyKind::Rsa(bits))
        }
        EC => {
            // RFC 5480 section 2.1.1: named curves only.
            let curve: ObjectIdentifier =
                spki.algorithm.parameters.and_then(|p| p.decode_as().ok()).ok_or(KeyError::Unknown)?;
            CURVES
                .iter()
                .find(|(oid, _)| *oid == curve)
                .map(|(_, c)| KeyKind::Ec(*c))
                .ok_or(KeyError::Unknown)
        }
        ED25519 => Ok(KeyKind::Ed25519),
        ED448 => Ok(KeyKind::Ed448),
        _ => Err(KeyError::Unknown),
    }
}

/// Bits of the modulus of an RSAPublicKey (RFC 8017 appendix A.1.1) whose exponent is odd and above one. With exponent 0
/// or 1 every signature of some form verifies, whatever the key.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(der).ok()?;
    let (modulus, exponent) = reader
        .sequence(|r| {
            let modulus: UintRef<'_> = r.decode()?;
            let exponent: UintRef<'_> = r.decode()?;
            Ok::<_, x509_cert::der::Error>((modulus.as_bytes(), exponent.as_bytes()))
        })
        .ok()?;
    reader.finish().ok()?;
    let odd = |n: &[u8]| n.last().is_some_and(|octet| octet & 1 == 1);
    if !odd(modulus) || !odd(exponent) || exponent == [1] || exponent.len() > MAX_EXPONENT {
        return None;
    }
    let first = modulus.first()?;
    Some(modulus.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use x509_cert::der::Encode;
    use x509_cert::der::asn1::{BitString, OctetString};

    /// SubjectPublicKeyInfo of an RSA key with this modulus and exponent, big-endian.
    pub(crate) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let int = |n: &[u8]| {
            let mut value = if n.first().is_some_and(|o| o & 0x80 != 0) { vec![0] } else { vec![] };
            value.extend_from_slice(n);
            // An OCTET STRING of the same content has the same length octets.
            let mut der = OctetString::new(value).unwrap().to_der().unwrap();
            der[0] = 2;
            der
        };
        let mut der = OctetString::new([int(modulus), int(exponent)].concat()).unwrap().to_der().unwrap();
        der[0] = 0x30;
        let algorithm = x509_cert::spki::AlgorithmIdentifier { oid: RSA, parameters: Some(AnyRef::NULL) };
        let subject_public_key = BitString::from_bytes(&der).unwrap();
        x509_cert::spki::SubjectPublicKeyInfo { algorithm, subject_public_key }.to_der().unwrap()
    }

    #[test]
    fn rsa_keys_are_measured_and_weak_ones_refused() {
        let modulus = |octets: usize| vec![0xff; octets];
        let e = [1, 0, 1];
        assert_eq!(inspect(&rsa_spki(&modulus(256), &e), 2048), Ok(KeyKind::Rsa(2048)));
        assert_eq!(inspect(&rsa_spki(&modulus(128), &e), 2048), Err(KeyError::TooShort(1024, 2048)));
        assert_eq!(inspect(&rsa_spki(&modulus(1025), &e), 2048), Err(KeyError::TooLong(8200)));
        for bad in [&[0u8][..], &[1], &[2], &[1, 0, 0, 0, 1]] {
            assert_eq!(inspect(&rsa_spki(&modulus(256), bad), 2048), Err(KeyError::BadRsa), "{bad:?}");
        }
        let mut even = modulus(256);
        even[255] = 0xfe;
        assert_eq!(inspect(&rsa_spki(&even, &e), 2048), Err(KeyError::BadRsa));
        assert!(inspect(&rsa_spki(&[], &e), 0).is_err());
    }

    #[test]
    fn curves_are_known_by_name_and_garbage_is_not_a_key() {
        use rcgen::PublicKeyData;
        for (alg, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::Ec(Curve::P256)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::Ec(Curve::P384)),
            (&rcgen::PKCS_ECDSA_P521_SHA512, KeyKind::Ec(Curve::P521)),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
        ] {
            let spki = rcgen::KeyPair::generate_for(alg).unwrap().subject_public_key_info();
            assert_eq!(inspect(&spki, 2048), Ok(kind));
            for cut in 0..spki.len() {
                assert!(inspect(&spki[..cut], 2048).is_err());
            }
        }
    }
}
