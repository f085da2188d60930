//! Authentication methods: which one we prove ourselves with, and how a peer's signature is to be verified.
//!
//! | number | method | made | accepted |
//! |---|---|---|---|
//! | 1 | RSA, PKCS #1 v1.5 (RFC 7296) | with SHA-1, if the rules allow it | SHA-2; SHA-1 if the rules allow it |
//! | 2 | shared key | yes | yes |
//! | 9, 10, 11 | ECDSA on P-256, P-384, P-521 (RFC 4754) | for peers without RFC 7427 | yes |
//! | 14 | digital signature (RFC 7427, RFC 8420) | for peers that announce hashes | yes |

use policy::SIGNATURE_HASHES;
use spi::alg::Curve;
use spi::{Hash, SignScheme};
use thiserror::Error;
use wire::numbers::AuthMethod;

use crate::algorithm::{self, Algorithm};
use crate::config::Rules;
use crate::key::KeyKind;

/// How we prove ourselves by signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) method: AuthMethod,
    pub(crate) scheme: SignScheme,
    /// What stands before the signature in the AUTH payload.
    pub(crate) prefix: Vec<u8>,
}

/// Chooses among what the key can do, best first, by what the peer announced.
///
/// # Errors
/// A text for the operator.
pub(crate) fn choose(schemes: &[SignScheme], offered: &[Hash], rules: Rules) -> Result<Chosen, String> {
    // RFC 7427 section 3: method 14 with a hash the peer announced.
    let mut signatures: Vec<Chosen> = schemes
        .iter()
        .filter(|s| offered.contains(&s.hash()))
        .filter_map(|&scheme| {
            let identifier = algorithm::identifier(scheme)?;
            let mut prefix = vec![u8::try_from(identifier.len()).ok()?];
            prefix.extend_from_slice(&identifier);
            Some(Chosen { method: AuthMethod::DIGITAL_SIGNATURE, scheme, prefix })
        })
        .collect();
    if !rules.rsa_pss {
        signatures.sort_by_key(|c| matches!(c.scheme, SignScheme::RsaPss(_)));
    }
    if let Some(best) = signatures.into_iter().next() {
        return Ok(best);
    }
    // RFC 4754 section 2: the curve fixes the hash, the method is the curve.
    let older = |&scheme: &SignScheme| {
        let method = match scheme {
            SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256) => AuthMethod::ECDSA_256,
            SignScheme::EcdsaPlain(Curve::P384, Hash::Sha384) => AuthMethod::ECDSA_384,
            SignScheme::EcdsaPlain(Curve::P521, Hash::Sha512) => AuthMethod::ECDSA_512,
            _ => return None,
        };
        Some(Chosen { method, scheme, prefix: Vec::new() })
    };
    if let Some(chosen) = schemes.iter().find_map(older) {
        return Ok(chosen);
    }
    let is_rsa = schemes.iter().any(|s| matches!(s, SignScheme::RsaPkcs1(_)));
    if is_rsa && offered.is_empty() {
        // RFC 7296 section 3.8 leaves the hash of method 1 open but says SHA-1 in practice, and RFC 8247 section 4.1
        // says not to.
        if rules.rsa_sha1 {
            let scheme = SignScheme::RsaPkcs1(Hash::Sha1);
            return Ok(Chosen { method: AuthMethod::RSA_SIGNATURE, scheme, prefix: Vec::new() });
        }
        return Err(
            "the peer does not know RFC 7427, which leaves RSA with SHA-1, and that is not allowed".into()
        );
    }
    Err(match offered {
        [] => "the peer does not know RFC 7427, which this kind of key needs".into(),
        _ => "the peer announced no hash this key can sign with".into(),
    })
}

/// Why a proof cannot even be verified.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum MethodError {
    #[error("authentication method {0} is not supported")]
    Unsupported(AuthMethod),
    #[error("the digital signature has no algorithm that is understood")]
    BadAlgorithm,
    #[error("the signature is by {0}, the key is {1}")]
    OtherKey(String, KeyKind),
    #[error("the signature uses a hash that was not announced")]
    HashNotOffered,
    #[error("an empty signature")]
    Empty,
}

/// Ways to verify a peer's signature with a key of this kind; the first that verifies is good. There is one, except
/// with method 1, where nothing but the signature itself says which hash it is.
pub(crate) fn attempts(
    method: AuthMethod,
    data: &[u8],
    key: KeyKind,
    rules: Rules,
) -> Result<Vec<(SignScheme, Vec<u8>)>, MethodError> {
    let curve = |curve, hash| {
        if key == KeyKind::Ec(curve) {
            Ok(vec![(SignScheme::EcdsaPlain(curve, hash), data.to_vec())])
        } else {
            Err(MethodError::OtherKey(method.to_string(), key))
        }
    };
    if data.is_empty() {
        return Err(MethodError::Empty);
    }
    match method {
        AuthMethod::RSA_SIGNATURE => {
            if !matches!(key, KeyKind::Rsa(_)) {
                return Err(MethodError::OtherKey(method.to_string(), key));
            }
            let sha1 = rules.rsa_sha1.then_some(Hash::Sha1);
            let hashes = [Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().chain(sha1);
            Ok(hashes.map(|hash| (SignScheme::RsaPkcs1(hash), data.to_vec())).collect())
        }
        AuthMethod::ECDSA_256 => curve(Curve::P256, Hash::Sha256),
        AuthMethod::ECDSA_384 => curve(Curve::P384, Hash::Sha384),
        AuthMethod::ECDSA_512 => curve(Curve::P521, Hash::Sha512),
        AuthMethod::DIGITAL_SIGNATURE => {
            let (identifier, signature) = data
                .split_first()
                .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
                .ok_or(MethodError::BadAlgorithm)?;
            let algorithm = Algorithm::from_der(identifier).ok_or(MethodError::BadAlgorithm)?;
            if !SIGNATURE_HASHES.contains(&algorithm.hash()) {
                return Err(MethodError::HashNotOffered);
            }
            let scheme =
                algorithm.scheme(key).ok_or_else(|| MethodError::OtherKey(format!("{algorithm:?}"), key))?;
            if signature.is_empty() {
                return Err(MethodError::Empty);
            }
            Ok(vec![(scheme, signature.to_vec())])
        }
        other => Err(MethodError::Unsupported(other)),
    }
}

/// A scheme for people: `ECDSA P-256 SHA2-256`.
pub(crate) fn scheme_text(scheme: SignScheme, key: KeyKind) -> String {
    let hash = match scheme.hash() {
        Hash::Sha1 => " SHA-1",
        Hash::Sha256 => " SHA2-256",
        Hash::Sha384 => " SHA2-384",
        Hash::Sha512 => " SHA2-512",
        Hash::Identity => "",
    };
    let padding = match scheme {
        SignScheme::RsaPss(_) => " PSS",
        SignScheme::RsaPkcs1(_) => " PKCS #1",
        _ => "",
    };
    format!("{key}{padding}{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: [SignScheme; 4] = [
        SignScheme::RsaPss(Hash::Sha256),
        SignScheme::RsaPss(Hash::Sha512),
        SignScheme::RsaPkcs1(Hash::Sha256),
        SignScheme::RsaPkcs1(Hash::Sha512),
    ];
    const P384: [SignScheme; 3] = [
        SignScheme::EcdsaDer(Curve::P384, Hash::Sha384),
        SignScheme::EcdsaDer(Curve::P384, Hash::Sha256),
        SignScheme::EcdsaPlain(Curve::P384, Hash::Sha384),
    ];

    fn chosen(schemes: &[SignScheme], offered: &[Hash], rules: Rules) -> Result<(u8, SignScheme), String> {
        choose(schemes, offered, rules).map(|c| (c.method.0, c.scheme))
    }

    #[test]
    fn announced_hashes_lead_to_a_digital_signature_with_one_of_them() {
        let rules = Rules::default();
        assert_eq!(chosen(&RSA, &[Hash::Sha512], rules), Ok((14, SignScheme::RsaPss(Hash::Sha512))));
        let pkcs1 = Rules { rsa_pss: false, ..rules };
        assert_eq!(chosen(&RSA, &[Hash::Sha256], pkcs1), Ok((14, SignScheme::RsaPkcs1(Hash::Sha256))));
        assert_eq!(
            chosen(&P384, &[Hash::Sha256], rules),
            Ok((14, SignScheme::EcdsaDer(Curve::P384, Hash::Sha256)))
        );
        let ed = [SignScheme::Ed25519];
        assert_eq!(chosen(&ed, &[Hash::Sha256, Hash::Identity], rules), Ok((14, SignScheme::Ed25519)));
        assert!(chosen(&ed, &[Hash::Sha256], rules).unwrap_err().contains("no hash"));
    }

    #[test]
    fn peers_without_rfc_7427_get_the_older_methods_but_no_sha1() {
        let rules = Rules::default();
        assert_eq!(chosen(&P384, &[], rules), Ok((10, SignScheme::EcdsaPlain(Curve::P384, Hash::Sha384))));
        assert!(chosen(&RSA, &[], rules).unwrap_err().contains("SHA-1"));
        let lax = Rules { rsa_sha1: true, ..rules };
        assert_eq!(chosen(&RSA, &[], lax), Ok((1, SignScheme::RsaPkcs1(Hash::Sha1))));
        assert!(chosen(&[SignScheme::Ed25519], &[], rules).is_err());
        // Only SHA-1 announced: an RSA key has nothing to answer with, an ECDSA key has.
        assert!(chosen(&RSA, &[Hash::Sha1], lax).is_err());
        assert_eq!(chosen(&P384, &[Hash::Sha1], rules).unwrap().0, 10);
    }

    #[test]
    fn a_signature_is_verified_only_as_what_it_says_it_is() {
        let rules = Rules::default();
        let key = KeyKind::Ec(Curve::P384);
        let got = attempts(AuthMethod::ECDSA_384, &[1; 96], key, rules).unwrap();
        assert_eq!(got, [(SignScheme::EcdsaPlain(Curve::P384, Hash::Sha384), vec![1; 96])]);
        assert!(matches!(
            attempts(AuthMethod::ECDSA_256, &[1; 64], key, rules),
            Err(MethodError::OtherKey(..))
        ));
        assert!(matches!(
            attempts(AuthMethod::RSA_SIGNATURE, &[1; 64], key, rules),
            Err(MethodError::OtherKey(..))
        ));
        let of = |scheme| [choose(&[scheme], &[scheme.hash()], rules).unwrap().prefix, vec![7; 9]].concat();
        let data = of(SignScheme::EcdsaDer(Curve::P384, Hash::Sha512));
        let got = attempts(AuthMethod::DIGITAL_SIGNATURE, &data, key, rules).unwrap();
        assert_eq!(got, [(SignScheme::EcdsaDer(Curve::P384, Hash::Sha512), vec![7; 9])]);
        let data = of(SignScheme::Ed25519);
        assert!(matches!(
            attempts(AuthMethod::DIGITAL_SIGNATURE, &data, key, rules),
            Err(MethodError::OtherKey(..))
        ));
    }

    #[test]
    fn method_1_tries_sha2_and_sha1_only_by_rule() {
        let key = KeyKind::Rsa(2048);
        let schemes = |rules| -> Vec<_> {
            let all = attempts(AuthMethod::RSA_SIGNATURE, &[1; 256], key, rules).unwrap();
            all.into_iter().map(|(s, _)| s.hash()).collect()
        };
        assert_eq!(schemes(Rules::default()), [Hash::Sha256, Hash::Sha384, Hash::Sha512]);
        assert_eq!(schemes(Rules { rsa_sha1: true, ..Rules::default() }).last(), Some(&Hash::Sha1));
    }

    #[test]
    fn garbage_identifiers_and_unannounced_hashes_are_refused() {
        let rules = Rules { rsa_sha1: true, ..Rules::default() };
        let key = KeyKind::Rsa(2048);
        let refused = |data: &[u8]| attempts(AuthMethod::DIGITAL_SIGNATURE, data, key, rules).unwrap_err();
        for bad in [&[0u8, 1, 2][..], &[255, 1, 2], &[1], &[2, 0x30, 0x80, 1]] {
            assert_eq!(refused(bad), MethodError::BadAlgorithm);
        }
        assert_eq!(refused(&[]), MethodError::Empty);
        // sha1WithRSAEncryption, whatever the rules for method 1 are.
        let sha1 = [15, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0, 1, 2, 3];
        assert_eq!(refused(&sha1), MethodError::HashNotOffered);
        let data = choose(&RSA, &[Hash::Sha256], rules).unwrap().prefix;
        assert_eq!(refused(&data), MethodError::Empty, "an identifier and no signature");
        for method in [0, 3, 12, 13, 200] {
            assert!(matches!(
                attempts(AuthMethod(method), &[1], key, rules),
                Err(MethodError::Unsupported(_))
            ));
        }
    }
}
