//! Signatures: which schemes a key has on this token, and how one is made. Octets come in and never a digest, so nothing is signed
//! that was not hashed here or in the token.

use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use openssl::hash::MessageDigest;
use spi::alg::Curve;
use spi::{Hash, SignScheme};

use crate::der::{self, OCTET_STRING, SEQUENCE};
use crate::public::Kind;
use crate::trouble::{Failure, Trouble, What};

/// The schemes that a key of this kind has with these mechanisms, best first.
pub(crate) fn schemes(kind: Kind, mechanisms: &[MechanismType]) -> Vec<SignScheme> {
    let wanted: Vec<SignScheme> = match kind {
        Kind::Rsa(_) => [SignScheme::of_rsa(), vec![SignScheme::RsaPkcs1(Hash::Sha1)]].concat(),
        Kind::Ec(curve) => SignScheme::of_curve(curve),
        Kind::Ed25519 => vec![SignScheme::Ed25519],
        Kind::Ed448 => vec![SignScheme::Ed448],
    };
    wanted.into_iter().filter(|scheme| way(*scheme, mechanisms).is_some()).collect()
}

/// Every scheme that some key has on a token with these mechanisms.
pub(crate) fn all(mechanisms: &[MechanismType]) -> Vec<SignScheme> {
    let kinds = [
        Kind::Rsa(256),
        Kind::Ec(Curve::P256),
        Kind::Ec(Curve::P384),
        Kind::Ec(Curve::P521),
        Kind::Ed25519,
        Kind::Ed448,
    ];
    kinds.into_iter().flat_map(|kind| schemes(kind, mechanisms)).collect()
}

/// Where the hash is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In the token, by a mechanism that hashes.
    There,
    /// Here, and the token gets the digest.
    Here,
}

fn way(scheme: SignScheme, mechanisms: &[MechanismType]) -> Option<Way> {
    let (there, here) = match scheme {
        SignScheme::RsaPkcs1(hash) => (
            match hash {
                Hash::Sha1 => Some(MechanismType::SHA1_RSA_PKCS),
                Hash::Sha256 => Some(MechanismType::SHA256_RSA_PKCS),
                Hash::Sha384 => Some(MechanismType::SHA384_RSA_PKCS),
                Hash::Sha512 => Some(MechanismType::SHA512_RSA_PKCS),
                Hash::Identity => None,
            },
            Some(MechanismType::RSA_PKCS),
        ),
        SignScheme::RsaPss(hash) => (
            match hash {
                Hash::Sha256 => Some(MechanismType::SHA256_RSA_PKCS_PSS),
                Hash::Sha384 => Some(MechanismType::SHA384_RSA_PKCS_PSS),
                Hash::Sha512 => Some(MechanismType::SHA512_RSA_PKCS_PSS),
                Hash::Sha1 | Hash::Identity => None,
            },
            Some(MechanismType::RSA_PKCS_PSS),
        ),
        SignScheme::EcdsaPlain(_, hash) | SignScheme::EcdsaDer(_, hash) => (
            match hash {
                Hash::Sha256 => Some(MechanismType::ECDSA_SHA256),
                Hash::Sha384 => Some(MechanismType::ECDSA_SHA384),
                Hash::Sha512 => Some(MechanismType::ECDSA_SHA512),
                Hash::Sha1 | Hash::Identity => None,
            },
            Some(MechanismType::ECDSA),
        ),
        SignScheme::Ed25519 | SignScheme::Ed448 => (Some(MechanismType::EDDSA), None),
        _ => (None, None),
    };
    let has =
        |mechanism: Option<MechanismType>| mechanism.is_some_and(|mechanism| mechanisms.contains(&mechanism));
    match (has(there), has(here)) {
        (true, _) => Some(Way::There),
        (false, true) => Some(Way::Here),
        (false, false) => None,
    }
}

/// Signs.
pub(crate) fn sign(
    session: &Session,
    key: ObjectHandle,
    kind: Kind,
    mechanisms: &[MechanismType],
    scheme: SignScheme,
    octets: &[u8],
) -> Result<Vec<u8>, Failure> {
    let no_way = || {
        let text = format!("the token has no mechanism for {scheme:?}");
        Failure::Trouble(Trouble::new(What::Unsupported, text))
    };
    let way = way(scheme, mechanisms).ok_or_else(no_way)?;
    let (mechanism, input) = match (scheme, way) {
        (SignScheme::RsaPkcs1(hash), Way::There) => (
            match hash {
                Hash::Sha1 => Mechanism::Sha1RsaPkcs,
                Hash::Sha256 => Mechanism::Sha256RsaPkcs,
                Hash::Sha384 => Mechanism::Sha384RsaPkcs,
                Hash::Sha512 => Mechanism::Sha512RsaPkcs,
                Hash::Identity => return Err(no_way()),
            },
            octets.to_vec(),
        ),
        (SignScheme::RsaPkcs1(hash), Way::Here) => {
            (Mechanism::RsaPkcs, digest_info(hash, octets).ok_or_else(no_way)?)
        }
        (SignScheme::RsaPss(hash), way) => {
            let parameters = pss(hash).ok_or_else(no_way)?;
            match (way, hash) {
                (Way::Here, _) => {
                    (Mechanism::RsaPkcsPss(parameters), digest(hash, octets).ok_or_else(no_way)?)
                }
                (Way::There, Hash::Sha256) => (Mechanism::Sha256RsaPkcsPss(parameters), octets.to_vec()),
                (Way::There, Hash::Sha384) => (Mechanism::Sha384RsaPkcsPss(parameters), octets.to_vec()),
                (Way::There, _) => (Mechanism::Sha512RsaPkcsPss(parameters), octets.to_vec()),
            }
        }
        (SignScheme::EcdsaPlain(_, hash) | SignScheme::EcdsaDer(_, hash), Way::There) => (
            match hash {
                Hash::Sha256 => Mechanism::EcdsaSha256,
                Hash::Sha384 => Mechanism::EcdsaSha384,
                _ => Mechanism::EcdsaSha512,
            },
            octets.to_vec(),
        ),
        (SignScheme::EcdsaPlain(curve, hash) | SignScheme::EcdsaDer(curve, hash), Way::Here) => {
            let mut digest = digest(hash, octets).ok_or_else(no_way)?;
            // FIPS 186-5 section 6.4.1: of a digest longer than the order only the leftmost bits count. Not every token cuts it.
            digest.truncate(curve.coordinate_len());
            (Mechanism::Ecdsa, digest)
        }
        (SignScheme::Ed25519, _) => {
            (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), octets.to_vec())
        }
        // PKCS #11 v3.0 section 2.3.14: Ed448 wants its parameters, with no context.
        (SignScheme::Ed448, _) => {
            (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed448(&[]))), octets.to_vec())
        }
        _ => return Err(no_way()),
    };
    let signature = session.sign(&mechanism, key, &input)?;
    finish(kind, scheme, signature)
}

/// The signature as the scheme has it; nonsense is noticed.
fn finish(kind: Kind, scheme: SignScheme, signature: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let expected = match kind {
        Kind::Rsa(octets) => octets,
        Kind::Ec(curve) => 2 * curve.coordinate_len(),
        Kind::Ed25519 => 64,
        Kind::Ed448 => 114,
    };
    if signature.len() != expected {
        let text = format!(
            "the token made a signature of {} octets, and it should have {expected}",
            signature.len()
        );
        return Err(Trouble::new(What::Nonsense, text).into());
    }
    match scheme {
        SignScheme::EcdsaDer(curve, _) => {
            let (r, s) = signature.split_at(curve.coordinate_len());
            Ok(der::element(SEQUENCE, &[der::unsigned(r), der::unsigned(s)].concat()))
        }
        _ => Ok(signature),
    }
}

fn digest(hash: Hash, octets: &[u8]) -> Option<Vec<u8>> {
    let by = match hash {
        Hash::Sha1 => MessageDigest::sha1(),
        Hash::Sha256 => MessageDigest::sha256(),
        Hash::Sha384 => MessageDigest::sha384(),
        Hash::Sha512 => MessageDigest::sha512(),
        Hash::Identity => return None,
    };
    openssl::hash::hash(by, octets).ok().map(|digest| digest.to_vec())
}

/// A digest with its name around it (RFC 8017 section 9.2).
fn digest_info(hash: Hash, octets: &[u8]) -> Option<Vec<u8>> {
    let name: &[u8] = match hash {
        Hash::Sha1 => &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a],
        Hash::Sha256 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
        Hash::Sha384 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2],
        Hash::Sha512 => &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
        Hash::Identity => return None,
    };
    let algorithm = der::element(SEQUENCE, &[name, &[5, 0]].concat());
    Some(der::element(SEQUENCE, &[algorithm, der::element(OCTET_STRING, &digest(hash, octets)?)].concat()))
}

/// The mask is by the same hash, and the salt as long as it.
fn pss(hash: Hash) -> Option<PkcsPssParams> {
    let (hash_alg, mgf) = match hash {
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
        Hash::Sha1 | Hash::Identity => return None,
    };
    Some(PkcsPssParams { hash_alg, mgf, s_len: Ulong::new(hash.len() as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_follow_the_mechanisms_and_the_token_hashes_where_it_can() {
        let rsa = Kind::Rsa(256);
        assert_eq!(schemes(rsa, &[]), []);
        let raw = schemes(rsa, &[MechanismType::RSA_PKCS]);
        assert_eq!(raw.first(), Some(&SignScheme::RsaPkcs1(Hash::Sha256)));
        assert!(raw.iter().all(|scheme| matches!(scheme, SignScheme::RsaPkcs1(_))));
        let both = [MechanismType::RSA_PKCS_PSS, MechanismType::SHA384_RSA_PKCS_PSS];
        assert_eq!(schemes(rsa, &both)[0], SignScheme::RsaPss(Hash::Sha256));
        assert_eq!(way(SignScheme::RsaPss(Hash::Sha384), &both), Some(Way::There));
        assert_eq!(way(SignScheme::RsaPss(Hash::Sha256), &both), Some(Way::Here));
        let ec = schemes(Kind::Ec(Curve::P384), &[MechanismType::ECDSA]);
        assert_eq!(ec[0], SignScheme::EcdsaDer(Curve::P384, Hash::Sha384));
        assert_eq!(schemes(Kind::Ed25519, &[MechanismType::ECDSA]), []);
    }

    #[test]
    fn a_signature_of_the_wrong_length_is_none() {
        let ec = Kind::Ec(Curve::P256);
        let plain = SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256);
        assert!(
            matches!(finish(ec, plain, vec![1; 63]), Err(Failure::Trouble(t)) if t.what == What::Nonsense)
        );
        let der = finish(
            ec,
            SignScheme::EcdsaDer(Curve::P256, Hash::Sha256),
            [vec![0; 31], vec![0x81; 33]].concat(),
        );
        assert_eq!(der.unwrap()[..8], [0x30, 39, 2, 2, 0, 0x81, 2, 33]);
    }
}
