//! Long-term private keys, as operands for the card. They are in this process's memory, as they are with software; the card keeps
//! none.

use openssl::bn::BigNumRef;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use spi::alg::Curve;
use spi::{Fault, FaultKind, Secret, SignScheme};

use crate::caps::HASHES;

/// Smallest RSA modulus to sign with, octets (NIST SP 800-131A).
const LEAST_RSA: usize = 256;

/// A key that signs.
pub(crate) struct PrivateKey {
    spki: Vec<u8>,
    pub(crate) kind: Kind,
}

/// What it is made of, each number at the length the card wants.
pub(crate) enum Kind {
    Rsa(Rsa),
    /// The scalar, as long as a coordinate, and the point.
    Ec {
        curve: Curve,
        scalar: Secret,
        point: (Vec<u8>, Vec<u8>),
    },
}

/// An RSA key.
pub(crate) struct Rsa {
    pub(crate) n: Vec<u8>,
    pub(crate) e: Vec<u8>,
    pub(crate) d: Secret,
    /// p, q, dP, dQ, qInv, where the key has them; half as long.
    pub(crate) crt: Option<[Secret; 5]>,
}

impl PrivateKey {
    /// Reads a PrivateKeyInfo, RSAPrivateKey or ECPrivateKey. `fits` says whether a modulus of so many octets does.
    ///
    /// # Errors
    /// [`FaultKind::Unsupported`] when it is none, or of a kind or size that the card does not do: software may.
    pub(crate) fn from_der(der: &Secret, fits: impl Fn(usize) -> bool) -> Result<PrivateKey, Fault> {
        let unsupported = |_| Fault::new(FaultKind::Unsupported);
        let key = PKey::private_key_from_der(der.expose()).map_err(unsupported)?;
        let kind = match key.id() {
            Id::RSA => Kind::Rsa(rsa(&key, fits).ok_or(FaultKind::Unsupported)?),
            Id::EC => ec(&key).ok_or(FaultKind::Unsupported)?,
            _ => return Err(FaultKind::Unsupported.into()),
        };
        Ok(PrivateKey { spki: key.public_key_to_der().map_err(unsupported)?, kind })
    }

    /// DER of the SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What it signs with, best first.
    pub(crate) fn schemes(&self) -> Vec<SignScheme> {
        match &self.kind {
            Kind::Rsa(_) => {
                HASHES.map(SignScheme::RsaPss).into_iter().chain(HASHES.map(SignScheme::RsaPkcs1)).collect()
            }
            Kind::Ec { curve, .. } => {
                // RFC 4754 section 3 pairs each curve with the hash of its strength: that one comes first.
                let mut hashes = HASHES;
                hashes.rotate_left(match curve {
                    Curve::P256 => 0,
                    Curve::P384 => 1,
                    Curve::P521 => 2,
                });
                let der = hashes.map(|hash| SignScheme::EcdsaDer(*curve, hash));
                let plain = hashes.map(|hash| SignScheme::EcdsaPlain(*curve, hash));
                der.into_iter().chain(plain).collect()
            }
        }
    }
}

fn rsa(key: &PKey<Private>, fits: impl Fn(usize) -> bool) -> Option<Rsa> {
    let rsa = key.rsa().ok()?;
    let size = rsa.n().num_bytes() as usize;
    if size < LEAST_RSA || rsa.n().num_bits() as usize != 8 * size || !fits(size) {
        return None;
    }
    let half = |number: Option<&BigNumRef>| secret(number?, size / 2);
    let crt =
        || Some([half(rsa.p())?, half(rsa.q())?, half(rsa.dmp1())?, half(rsa.dmq1())?, half(rsa.iqmp())?]);
    Some(Rsa {
        n: rsa.n().to_vec(),
        e: rsa.e().to_vec_padded(size as i32).ok()?,
        d: secret(rsa.d(), size)?,
        crt: crt(),
    })
}

fn ec(key: &PKey<Private>) -> Option<Kind> {
    let ec = key.ec_key().ok()?;
    let curve = match ec.group().curve_name()? {
        Nid::X9_62_PRIME256V1 => Curve::P256,
        Nid::SECP384R1 => Curve::P384,
        Nid::SECP521R1 => Curve::P521,
        _ => return None,
    };
    ec.check_key().ok()?;
    let len = curve.coordinate_len();
    let scalar = secret(ec.private_key(), len)?;
    let point = crate::curve::coordinates(curve, ec.public_key())?;
    Some(Kind::Ec { curve, scalar, point })
}

/// A number at this length; `None` when it is longer.
fn secret(number: &BigNumRef, len: usize) -> Option<Secret> {
    number.to_vec_padded(len as i32).ok().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fw::pke::signs;

    fn open(name: &str, fourth: bool) -> Result<PrivateKey, FaultKind> {
        let path = format!("{}/../../hwtest/testdata/{name}.p8", env!("CARGO_MANIFEST_DIR"));
        let der = Secret::new(std::fs::read(path).unwrap());
        PrivateKey::from_der(&der, signs(fourth)).map_err(|fault| fault.kind)
    }

    #[test]
    fn numbers_have_the_lengths_the_card_wants() {
        let key = open("rsa2048", false).unwrap();
        let Kind::Rsa(rsa) = &key.kind else { panic!("another kind") };
        assert_eq!((rsa.n.len(), rsa.e.len(), rsa.d.len()), (256, 256, 256));
        assert!(rsa.crt.as_ref().unwrap().iter().all(|number| number.len() == 128));
        assert_eq!(key.schemes().len(), 6);
        for (name, curve) in [("p256", Curve::P256), ("p384", Curve::P384), ("p521", Curve::P521)] {
            let key = open(name, true).unwrap();
            let Kind::Ec { curve: got, scalar, point } = &key.kind else { panic!("another kind") };
            let len = curve.coordinate_len();
            assert_eq!((*got, scalar.len(), point.0.len(), point.1.len()), (curve, len, len, len));
            let first = key.schemes()[0];
            assert!(
                matches!(first, SignScheme::EcdsaDer(of, hash) if of == curve && hash.len() >= len.min(64))
            );
        }
    }

    #[test]
    fn other_keys_are_somebody_elses() {
        assert_eq!(open("ed25519", true).err(), Some(FaultKind::Unsupported));
        assert!(PrivateKey::from_der(&Secret::from_slice(b"no key"), signs(true)).is_err());
        let small = openssl::rsa::Rsa::generate(1024).unwrap().private_key_to_der().unwrap();
        assert!(PrivateKey::from_der(&Secret::new(small), signs(true)).is_err(), "too short to sign with");
        let odd = openssl::rsa::Rsa::generate(2304).unwrap().private_key_to_der().unwrap();
        assert!(PrivateKey::from_der(&Secret::new(odd), signs(true)).is_err(), "no function of that size");
    }
}
