//! The public half of a key, from what a token says: its kind, and its SubjectPublicKeyInfo.

use cryptoki::object::{Attribute, KeyType};
use spi::alg::Curve;

use crate::der::{self, OCTET_STRING, SEQUENCE};

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RSA, octets of the modulus.
    Rsa(usize),
    /// A NIST curve.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
    /// Ed448.
    Ed448,
}

/// rsaEncryption with its NULL (RFC 3279 section 2.3.1).
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
/// id-ecPublicKey (RFC 5480 section 2.1.1).
const EC: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// The curves, as CKA_EC_PARAMS has them.
pub(crate) const CURVES: [(&[u8], Curve); 3] = [
    (&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], Curve::P256),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x22], Curve::P384),
    (&[6, 5, 0x2b, 0x81, 4, 0, 0x23], Curve::P521),
];
/// id-Ed25519 and id-Ed448 (RFC 8410 section 3).
pub(crate) const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
pub(crate) const ED448: &[u8] = &[6, 3, 0x2b, 0x65, 0x71];

/// What a token says of a key.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) kind: Option<KeyType>,
    pub(crate) modulus: Option<Vec<u8>>,
    pub(crate) exponent: Option<Vec<u8>>,
    pub(crate) parameters: Option<Vec<u8>>,
    pub(crate) point: Option<Vec<u8>>,
}

impl Told {
    /// Takes what is of use; what was known stays.
    pub(crate) fn take(&mut self, attributes: &[Attribute]) {
        for attribute in attributes {
            match attribute {
                Attribute::KeyType(kind) => self.kind = self.kind.or(Some(*kind)),
                Attribute::Modulus(value) => keep(&mut self.modulus, value),
                Attribute::PublicExponent(value) => keep(&mut self.exponent, value),
                Attribute::EcParams(value) => keep(&mut self.parameters, value),
                Attribute::EcPoint(value) => keep(&mut self.point, value),
                _ => {}
            }
        }
    }

    /// The kind; `None` when it is one that nobody signs with here, or too little is known.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let parameters = self.parameters.as_deref();
        match self.kind? {
            KeyType::RSA => {
                let modulus = self.modulus.as_deref()?;
                let zeroes = modulus.iter().take_while(|octet| **octet == 0).count();
                Some(Kind::Rsa(modulus.len() - zeroes).filter_short()?)
            }
            KeyType::EC => {
                CURVES.iter().find(|(der, _)| Some(*der) == parameters).map(|(_, curve)| Kind::Ec(*curve))
            }
            KeyType::EC_EDWARDS => match parameters? {
                ED25519 => Some(Kind::Ed25519),
                ED448 => Some(Kind::Ed448),
                // PKCS #11 v3.0 lets a token name the curve instead (section 2.3.10): a PrintableString.
                [0x13, 12, name @ ..] if name == b"edwards25519" => Some(Kind::Ed25519),
                [0x13, 10, name @ ..] if name == b"edwards448" => Some(Kind::Ed448),
                _ => None,
            },
            _ => None,
        }
    }

    /// The SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Option<Vec<u8>> {
        let point = || self.point.as_deref();
        match self.kind()? {
            Kind::Rsa(_) => {
                let (modulus, exponent) = (self.modulus.as_deref()?, self.exponent.as_deref()?);
                let numbers = [der::unsigned(modulus), der::unsigned(exponent)].concat();
                Some(der::spki(RSA, &der::element(SEQUENCE, &numbers)))
            }
            Kind::Ec(curve) => {
                let parameters = self.parameters.as_deref()?;
                let algorithm = der::element(SEQUENCE, &[EC, parameters].concat());
                let point = ec_point(point()?, 1 + 2 * curve.coordinate_len())?;
                crate::point::is_on(curve, point).then(|| der::spki(&algorithm, point))
            }
            Kind::Ed25519 => Some(der::spki(&der::element(SEQUENCE, ED25519), ec_point(point()?, 32)?)),
            Kind::Ed448 => Some(der::spki(&der::element(SEQUENCE, ED448), ec_point(point()?, 57)?)),
        }
    }
}

impl Kind {
    /// No RSA key shorter than this has ever been useful; an empty modulus is none.
    fn filter_short(self) -> Option<Kind> {
        match self {
            Kind::Rsa(octets) if octets < 64 => None,
            kind => Some(kind),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Rsa(octets) => write!(f, "RSA-{}", octets * 8),
            Kind::Ec(Curve::P256) => f.write_str("ECDSA P-256"),
            Kind::Ec(Curve::P384) => f.write_str("ECDSA P-384"),
            Kind::Ec(Curve::P521) => f.write_str("ECDSA P-521"),
            Kind::Ed25519 => f.write_str("Ed25519"),
            Kind::Ed448 => f.write_str("Ed448"),
        }
    }
}

/// The octets of a point that has this length. CKA_EC_POINT is an OCTET STRING around it; some tokens leave that away.
pub(crate) fn ec_point(told: &[u8], len: usize) -> Option<&[u8]> {
    if told.len() == len {
        return Some(told);
    }
    der::only(OCTET_STRING, told).filter(|point| point.len() == len)
}

fn keep(place: &mut Option<Vec<u8>>, value: &[u8]) {
    if place.is_none() && !value.is_empty() {
        *place = Some(value.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::pkey::{PKey, Private};

    fn told(key: &PKey<Private>) -> Told {
        let mut told = Told::default();
        if let Ok(rsa) = key.rsa() {
            told.kind = Some(KeyType::RSA);
            told.modulus = Some([vec![0], rsa.n().to_vec()].concat());
            told.exponent = Some(rsa.e().to_vec());
        } else {
            told.kind = Some(KeyType::EC_EDWARDS);
            told.parameters = Some(ED25519.to_vec());
            told.point = Some(key.raw_public_key().unwrap());
        }
        told
    }

    #[test]
    fn the_public_half_is_what_openssl_makes_of_the_same_key() {
        let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
        assert_eq!(told(&rsa).spki().unwrap(), rsa.public_key_to_der().unwrap());
        assert_eq!(told(&rsa).kind(), Some(Kind::Rsa(128)));
        let ed = PKey::generate_ed25519().unwrap();
        assert_eq!(told(&ed).spki().unwrap(), ed.public_key_to_der().unwrap());
        let named = Told { parameters: Some(b"\x13\x0cedwards25519".to_vec()), ..told(&ed) };
        assert_eq!(named.spki().unwrap(), ed.public_key_to_der().unwrap());
    }

    #[test]
    fn what_is_missing_or_makes_no_sense_gives_nothing() {
        assert!(Told::default().spki().is_none());
        let rsa = Told { kind: Some(KeyType::RSA), modulus: Some(vec![0; 300]), ..Told::default() };
        assert!(rsa.kind().is_none(), "a modulus of zeroes");
        let bad = Told {
            kind: Some(KeyType::EC),
            parameters: Some(CURVES[0].0.to_vec()),
            point: Some(vec![4; 65]),
            ..Told::default()
        };
        assert!(bad.kind().is_some() && bad.spki().is_none(), "no point of the curve");
    }
}
