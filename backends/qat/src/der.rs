//! As much DER as verifying takes: public keys, and ECDSA signatures as sequences of two numbers. Strict: one encoding for each
//! value, and nothing behind it.

use spi::alg::Curve;

/// What a SubjectPublicKeyInfo holds (RFC 5280 section 4.1.2.7).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, without zeroes in front (RFC 3279 section 2.3.1).
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point, with its first octet (RFC 5480 section 2.2). Not checked.
    Ec { curve: Curve, point: Vec<u8> },
}

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const NULL: u8 = 0x05;
const NAME: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// Object identifiers: rsaEncryption, id-ecPublicKey, and the curves.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// Reads a SubjectPublicKeyInfo; `None` when it is none, or of a kind that is not known here.
pub(crate) fn public_key(spki: &[u8]) -> Option<PublicKey> {
    let mut outer = Reader::all(spki, SEQUENCE)?;
    let mut algorithm = Reader(outer.take(SEQUENCE)?);
    let key = outer.take(BITS).filter(|_| outer.is_empty())?;
    // Whole octets: no bits are unused.
    let (0, key) = key.split_first().map(|(unused, key)| (*unused, key))? else { return None };
    match algorithm.take(NAME)? {
        RSA => {
            algorithm.take(NULL).filter(|null| null.is_empty() && algorithm.is_empty())?;
            let mut numbers = Reader::all(key, SEQUENCE)?;
            let (n, e) = (numbers.number()?, numbers.number()?);
            numbers.is_empty().then(|| PublicKey::Rsa { n: n.to_vec(), e: e.to_vec() })
        }
        EC => {
            let curve = match algorithm.take(NAME)? {
                P256 => Curve::P256,
                P384 => Curve::P384,
                P521 => Curve::P521,
                _ => return None,
            };
            algorithm.is_empty().then(|| PublicKey::Ec { curve, point: key.to_vec() })
        }
        _ => None,
    }
}

/// The sequence of r and s (RFC 3279 section 2.2.3).
pub(crate) fn signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(r.len() + s.len() + 6);
    for number in [r, s] {
        let start = number.iter().position(|octet| *octet != 0).unwrap_or(number.len().saturating_sub(1));
        let digits = number.get(start..).unwrap_or_default();
        let sign = digits.first().is_some_and(|first| first & 0x80 != 0);
        body.extend([INTEGER, digits.len() as u8 + u8::from(sign)]);
        body.extend(sign.then_some(0));
        body.extend_from_slice(digits);
    }
    // At most 2 * (66 + 1 + 2) octets.
    let mut der = vec![SEQUENCE];
    der.extend((body.len() > 0x7f).then_some(0x81));
    der.push(body.len() as u8);
    der.append(&mut body);
    der
}

/// r and s of such a sequence, each `len` octets long.
pub(crate) fn split_signature(der: &[u8], len: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut numbers = Reader::all(der, SEQUENCE)?;
    let mut part = || {
        let digits = numbers.number()?;
        let mut part = vec![0; len.checked_sub(digits.len())?];
        part.extend_from_slice(digits);
        Some(part)
    };
    let (r, s) = (part()?, part()?);
    numbers.is_empty().then_some((r, s))
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the one element there is.
    fn all(der: &'a [u8], tag: u8) -> Option<Self> {
        let mut reader = Reader(der);
        let content = reader.take(tag)?;
        reader.is_empty().then_some(Reader(content))
    }

    /// The content of the next element, which has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (len, rest) = match *first {
            len @ 0..=0x7f => (usize::from(len), rest),
            0x81 => {
                let (len, rest) = rest.split_first()?;
                (usize::from(*len), rest)
            }
            0x82 => {
                let (len, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*len)), rest)
            }
            _ => return None,
        };
        // The shortest form of a length, and no other.
        let shortest = match *first {
            0x81 => len > 0x7f,
            0x82 => len > 0xff,
            _ => true,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        if *found != tag || !shortest {
            return None;
        }
        self.0 = rest;
        Some(content)
    }

    /// A number that is not negative, without the zero in front that says so; zero is empty.
    fn number(&mut self) -> Option<&'a [u8]> {
        let octets = self.take(INTEGER)?;
        match octets {
            [0] => Some(&[]),
            [0, first, ..] if first & 0x80 != 0 => octets.get(1..),
            [first, ..] if *first != 0 && first & 0x80 == 0 => Some(octets),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;

    #[test]
    fn public_keys_are_read_as_an_independent_implementation_writes_them() {
        let rsa = Rsa::generate(2048).unwrap();
        let spki = PKey::from_rsa(rsa.clone()).unwrap().public_key_to_der().unwrap();
        assert_eq!(public_key(&spki), Some(PublicKey::Rsa { n: rsa.n().to_vec(), e: rsa.e().to_vec() }));
        for len in 0..spki.len() {
            assert_eq!(public_key(&spki[..len]), None, "cut after {len}");
        }
        assert_eq!(public_key(&[&spki[..], &[0]].concat()), None, "something behind it");
        for (nid, wanted, len) in [
            (Nid::X9_62_PRIME256V1, Curve::P256, 65),
            (Nid::SECP384R1, Curve::P384, 97),
            (Nid::SECP521R1, Curve::P521, 133),
        ] {
            let key = EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap();
            let spki = PKey::from_ec_key(key).unwrap().public_key_to_der().unwrap();
            let Some(PublicKey::Ec { curve, point }) = public_key(&spki) else { panic!("not read") };
            assert_eq!((curve, point.len()), (wanted, len));
            assert!((0..spki.len()).all(|len| public_key(&spki[..len]).is_none()));
        }
        let ed25519 = PKey::generate_ed25519().unwrap().public_key_to_der().unwrap();
        assert_eq!(public_key(&ed25519), None);
    }

    #[test]
    fn signatures_convert_both_ways() {
        for len in [32, 48, 66] {
            for first in [0u8, 1, 0x7f, 0x80, 0xff] {
                let (mut r, mut s) = (vec![0xa5; len], vec![0xa5; len]);
                (r[0], s[0], s[1]) = (first, 0, first);
                let der = signature(&r, &s);
                assert_eq!(split_signature(&der, len), Some((r, s)));
            }
        }
    }

    #[test]
    fn other_encodings_of_a_signature_are_none() {
        for bad in [
            &[0x30, 6, 2, 1, 1, 2, 1][..],
            &[0x30, 6, 2, 1, 1, 2, 1, 1, 0],
            &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1],
            &[0x30, 7, 2, 2, 0, 1, 2, 1, 1],
            &[0x30, 6, 2, 1, 0x81, 2, 1, 1],
            &[0x30, 5, 2, 0, 2, 1, 1],
            &[0x31, 6, 2, 1, 1, 2, 1, 1],
            &[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0],
        ] {
            assert_eq!(split_signature(bad, 32), None, "{bad:02x?}");
        }
        assert!(split_signature(&[0x30, 6, 2, 1, 1, 2, 1, 1], 32).is_some());
    }
}
