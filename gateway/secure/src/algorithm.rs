//! Signature algorithms by their DER AlgorithmIdentifier: those of RFC 7427 appendix A and RFC 8420, which are also those of
//! certificates. What we send is copied octet for octet from the standards, because some peers compare and do not parse.

use spi::{Hash, SignScheme};
use x509_cert::der::asn1::{AnyRef, ContextSpecific, ObjectIdentifier};
use x509_cert::der::{Decode, Reader, TagNumber};
use x509_cert::spki::AlgorithmIdentifierRef;

use crate::key::KeyKind;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// An algorithm as an AlgorithmIdentifier names it: the curve of ECDSA is the key's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    RsaPkcs1(Hash),
    RsaPss(Hash),
    Ecdsa(Hash),
    Ed25519,
    Ed448,
}

/// Algorithms whose parameters are absent or NULL.
const PLAIN: [(ObjectIdentifier, Algorithm); 10] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), Algorithm::RsaPkcs1(Hash::Sha1)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), Algorithm::RsaPkcs1(Hash::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), Algorithm::RsaPkcs1(Hash::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), Algorithm::RsaPkcs1(Hash::Sha512)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), Algorithm::Ecdsa(Hash::Sha1)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), Algorithm::Ecdsa(Hash::Sha256)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), Algorithm::Ecdsa(Hash::Sha384)),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), Algorithm::Ecdsa(Hash::Sha512)),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), Algorithm::Ed25519),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), Algorithm::Ed448),
];

impl Algorithm {
    /// Reads an AlgorithmIdentifier in DER; `None` for anything unknown, incomplete or with parameters that make no sense.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        Self::from_identifier(AlgorithmIdentifierRef::from_der(der).ok()?)
    }

    fn from_identifier(id: AlgorithmIdentifierRef<'_>) -> Option<Self> {
        if id.oid == RSASSA_PSS {
            return pss(id.parameters?);
        }
        let (_, algorithm) = PLAIN.iter().find(|(oid, _)| *oid == id.oid)?;
        match (algorithm, id.parameters) {
            (_, None) => Some(*algorithm),
            // RFC 4055 section 5 wants NULL for RSA; for the others (RFC 5758, RFC 8410) parameters are absent.
            (Algorithm::RsaPkcs1(_), Some(p)) if p.is_null() => Some(*algorithm),
            _ => None,
        }
    }

    /// The hash; Identity for EdDSA.
    pub(crate) fn hash(self) -> Hash {
        match self {
            Algorithm::RsaPkcs1(h) | Algorithm::RsaPss(h) | Algorithm::Ecdsa(h) => h,
            Algorithm::Ed25519 | Algorithm::Ed448 => Hash::Identity,
        }
    }

    /// The scheme a key of this kind verifies it with; `None` when the two do not go together.
    pub(crate) fn scheme(self, key: KeyKind) -> Option<SignScheme> {
        match (self, key) {
            (Algorithm::RsaPkcs1(hash), KeyKind::Rsa(_)) => Some(SignScheme::RsaPkcs1(hash)),
            (Algorithm::RsaPss(hash), KeyKind::Rsa(_)) => Some(SignScheme::RsaPss(hash)),
            (Algorithm::Ecdsa(hash), KeyKind::Ec(curve)) => Some(SignScheme::EcdsaDer(curve, hash)),
            (Algorithm::Ed25519, KeyKind::Ed25519) => Some(SignScheme::Ed25519),
            (Algorithm::Ed448, KeyKind::Ed448) => Some(SignScheme::Ed448),
            _ => None,
        }
    }
}

/// RSASSA-PSS-params (RFC 8017 appendix A.2.3). MGF1 with the same hash and a salt as long as the hash, which is all
/// RFC 7427 appendix A.4 has; the defaults of the type are SHA-1 throughout.
fn pss(params: AnyRef<'_>) -> Option<Algorithm> {
    let parse = params.sequence(|r| {
        let hash = explicit::<AlgorithmIdentifierRef<'_>>(r, 0)?;
        let mgf = explicit::<AlgorithmIdentifierRef<'_>>(r, 1)?;
        let salt = explicit::<u16>(r, 2)?;
        let trailer = explicit::<u8>(r, 3)?;
        Ok::<_, x509_cert::der::Error>((hash, mgf, salt, trailer))
    });
    let (hash_id, mgf, salt, trailer) = parse.ok()?;
    let hash = hash(hash_id?)?;
    let mgf = mgf.filter(|m| m.oid == MGF1)?;
    let mgf_hash = crate::algorithm::hash(mgf.parameters?.decode_as().ok()?)?;
    let fits = mgf_hash == hash && usize::from(salt.unwrap_or(20)) == hash.len() && trailer.unwrap_or(1) == 1;
    fits.then_some(Algorithm::RsaPss(hash))
}

fn explicit<'a, T>(reader: &mut impl Reader<'a>, number: u32) -> Result<Option<T>, x509_cert::der::Error>
where
    T: Decode<'a, Error = x509_cert::der::Error>
        + x509_cert::der::DecodeValue<'a>
        + x509_cert::der::FixedTag
        + 'a,
{
    let field = ContextSpecific::<T>::decode_explicit(reader, TagNumber(number))?;
    Ok(field.map(|f| f.value))
}

fn hash(id: AlgorithmIdentifierRef<'_>) -> Option<Hash> {
    if id.parameters.is_some_and(|p| !p.is_null()) {
        return None;
    }
    match id.oid {
        SHA1 => Some(Hash::Sha1),
        SHA256 => Some(Hash::Sha256),
        SHA384 => Some(Hash::Sha384),
        SHA512 => Some(Hash::Sha512),
        _ => None,
    }
}

/// The AlgorithmIdentifier we send with a signature of this scheme (RFC 7427 appendix A, RFC 8420 appendix A). `None` for
/// schemes that have none: plain ECDSA, and everything with SHA-1 (RFC 8247 section 4.2).
pub(crate) fn identifier(scheme: SignScheme) -> Option<Vec<u8>> {
    let number = match scheme.hash() {
        Hash::Sha256 => 0,
        Hash::Sha384 => 1,
        Hash::Sha512 => 2,
        Hash::Identity => 3,
        Hash::Sha1 => return None,
    };
    Some(match scheme {
        SignScheme::RsaPkcs1(_) => {
            let last = *[0x0b, 0x0c, 0x0d].get(number)?;
            vec![0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last, 5, 0]
        }
        SignScheme::RsaPss(hash) => {
            let last = *[1, 2, 3].get(number)?;
            let hash_id = [0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, last, 5, 0];
            let mut out = vec![0x30, 0x41, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a, 0x30, 0x34];
            out.extend([0xa0, 0x0f]);
            out.extend(hash_id);
            out.extend([0xa1, 0x1c, 0x30, 0x1a, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8]);
            out.extend(hash_id);
            out.extend([0xa2, 3, 2, 1, hash.len() as u8]);
            out
        }
        SignScheme::EcdsaDer(..) => {
            let last = *[2, 3, 4].get(number)?;
            vec![0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, last]
        }
        SignScheme::Ed25519 => vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
        SignScheme::Ed448 => vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x71],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::alg::Curve;

    #[test]
    fn what_we_send_is_what_we_read() {
        let rsa = KeyKind::Rsa(2048);
        let ec = KeyKind::Ec(Curve::P384);
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            for (scheme, key) in [
                (SignScheme::RsaPkcs1(hash), rsa),
                (SignScheme::RsaPss(hash), rsa),
                (SignScheme::EcdsaDer(Curve::P384, hash), ec),
            ] {
                let der = identifier(scheme).unwrap();
                let algorithm = Algorithm::from_der(&der).unwrap();
                assert_eq!(algorithm.scheme(key), Some(scheme));
                assert_eq!(algorithm.hash(), hash);
                assert_eq!(algorithm.scheme(KeyKind::Ed25519), None, "keys and algorithms have to fit");
            }
        }
        let ed = Algorithm::from_der(&identifier(SignScheme::Ed25519).unwrap()).unwrap();
        assert_eq!(ed.scheme(KeyKind::Ed25519), Some(SignScheme::Ed25519));
        assert_eq!(identifier(SignScheme::RsaPkcs1(Hash::Sha1)), None);
        assert_eq!(identifier(SignScheme::EcdsaPlain(Curve::P256, Hash::Sha256)), None);
    }

    #[test]
    fn pss_with_explicit_trailer_or_without_null_is_read_too() {
        // The same as sha256 above, hash identifiers without NULL, trailer field 1 spelt out.
        let hash = [0x30, 0x0b, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        let mut params = vec![0xa0, 0x0d];
        params.extend(hash);
        params.extend([0xa1, 0x1a, 0x30, 0x18, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8]);
        params.extend(hash);
        params.extend([0xa2, 3, 2, 1, 32, 0xa3, 3, 2, 1, 1]);
        let wrap = |params: &[u8]| {
            let mut der = vec![0x30, 11 + 2 + params.len() as u8, 6, 9];
            der.extend([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a, 0x30, params.len() as u8]);
            der.extend(params);
            der
        };
        assert_eq!(Algorithm::from_der(&wrap(&params)), Some(Algorithm::RsaPss(Hash::Sha256)));
        // Another salt length, another trailer, or SHA-1 by default: not ours.
        let at = params.len() - 6;
        let mut other = params.clone();
        other[at] = 20;
        assert_eq!(Algorithm::from_der(&wrap(&other)), None);
        // An enormous salt, and MGF1 without its hash.
        let mut huge = params.clone();
        huge.splice(at - 3..at + 1, [0xa2, 6, 2, 4, 0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(Algorithm::from_der(&wrap(&huge)), None);
        let mut bare = vec![0xa0, 0x0d];
        bare.extend(hash);
        bare.extend([
            0xa1, 0x0d, 0x30, 0x0b, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8, 0xa2, 3, 2, 1, 32,
        ]);
        assert_eq!(Algorithm::from_der(&wrap(&bare)), None);
        *params.last_mut().unwrap() = 2;
        assert_eq!(Algorithm::from_der(&wrap(&params)), None);
        assert_eq!(Algorithm::from_der(&wrap(&[])), None);
    }

    #[test]
    fn garbage_and_cut_identifiers_are_no_algorithm() {
        let der = identifier(SignScheme::RsaPss(Hash::Sha256)).unwrap();
        for cut in 0..der.len() {
            assert_eq!(Algorithm::from_der(&der[..cut]), None);
        }
        for at in 0..der.len() {
            let mut der = der.clone();
            der[at] ^= 0x55;
            let _ = Algorithm::from_der(&der);
        }
        // ECDSA with NULL parameters, RSA with an OCTET STRING, an unknown OID.
        assert_eq!(
            Algorithm::from_der(&[0x30, 0x0c, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 5, 0]),
            None
        );
        assert_eq!(
            Algorithm::from_der(&[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 4, 0]),
            None
        );
        assert_eq!(Algorithm::from_der(&[0x30, 3, 6, 1, 0x2a]), None);
    }
}
