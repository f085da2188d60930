//! Signatures: what is signed verifies here and elsewhere, and what is not a signature does not.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, hex};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use spi::alg::Curve;
use spi::crypto::{KeyInfo, KeySource};
use spi::{Device, FaultKind, Hash, Outcome, Reject, Secret, SignScheme};

const BAD: Outcome = Outcome::Rejected(Reject::BadSignature);
const BAD_KEY: Outcome = Outcome::Rejected(Reject::BadPublicInput);

fn open(ops: &Ops, der: Vec<u8>) -> Result<KeyInfo, spi::Fault> {
    ops.device.open_key(KeySource::Der(Secret::new(der)))
}

fn ec(curve: Nid) -> EcKey<Private> {
    EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()
}

fn one_of_each() -> Vec<PKey<Private>> {
    vec![
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        PKey::from_ec_key(ec(Nid::X9_62_PRIME256V1)).unwrap(),
        PKey::from_ec_key(ec(Nid::SECP384R1)).unwrap(),
        PKey::from_ec_key(ec(Nid::SECP521R1)).unwrap(),
        PKey::generate_ed25519().unwrap(),
    ]
}

#[test]
fn every_scheme_of_every_key_verifies_and_only_as_itself() {
    let ops = Ops::new();
    let mut used = Vec::new();
    for key in one_of_each() {
        let info = open(&ops, key.private_key_to_pkcs8().unwrap()).unwrap();
        assert_eq!(info.spki, key.public_key_to_der().unwrap());
        for scheme in info.schemes.iter().copied() {
            used.push(scheme);
            let signature = ops.sign(info.id, scheme, b"octets").unwrap();
            assert_eq!(ops.verify(&info.spki, scheme, b"octets", &signature), Ok(()), "{scheme:?}");
            assert_eq!(ops.verify(&info.spki, scheme, b"octet", &signature), Err(BAD), "{scheme:?}");
            let mut bent = signature.clone();
            *bent.last_mut().unwrap() ^= 1;
            assert_eq!(ops.verify(&info.spki, scheme, b"octets", &bent), Err(BAD), "{scheme:?}");
            for wrong in [&[][..], &signature[1..], &[signature.clone(), vec![0]].concat()] {
                assert_eq!(ops.verify(&info.spki, scheme, b"octets", wrong), Err(BAD), "{scheme:?}");
            }
            for other in info.schemes.iter().copied().filter(|other| *other != scheme) {
                assert_eq!(ops.verify(&info.spki, other, b"octets", &signature), Err(BAD), "{other:?}");
            }
        }
    }
    used.sort();
    let mut declared = ops.device.desc().caps.sign.clone();
    declared.sort();
    assert_eq!(used, declared, "caps and keys name the same schemes");
}

#[test]
fn another_implementation_believes_our_signatures_and_we_believe_its() {
    let ops = Ops::new();
    for key in one_of_each() {
        let info = open(&ops, key.private_key_to_pkcs8().unwrap()).unwrap();
        for scheme in info.schemes.iter().copied() {
            let digest = match scheme.hash() {
                Hash::Sha256 => Some(MessageDigest::sha256()),
                Hash::Sha384 => Some(MessageDigest::sha384()),
                Hash::Sha512 => Some(MessageDigest::sha512()),
                _ => None,
            };
            let (mut verifier, mut signer) = match digest {
                Some(digest) => (
                    openssl::sign::Verifier::new(digest, &key).unwrap(),
                    openssl::sign::Signer::new(digest, &key).unwrap(),
                ),
                None => (
                    openssl::sign::Verifier::new_without_digest(&key).unwrap(),
                    openssl::sign::Signer::new_without_digest(&key).unwrap(),
                ),
            };
            match scheme {
                SignScheme::RsaPss(_) => {
                    let pss = openssl::rsa::Padding::PKCS1_PSS;
                    let salt = || openssl::sign::RsaPssSaltlen::DIGEST_LENGTH;
                    verifier.set_rsa_padding(pss).unwrap();
                    verifier.set_rsa_pss_saltlen(salt()).unwrap();
                    signer.set_rsa_padding(pss).unwrap();
                    signer.set_rsa_pss_saltlen(salt()).unwrap();
                }
                // The plain form is not known there.
                SignScheme::EcdsaPlain(..) => continue,
                _ => {}
            }
            let ours = ops.sign(info.id, scheme, b"octets").unwrap();
            assert!(verifier.verify_oneshot(&ours, b"octets").unwrap(), "{scheme:?}");
            let theirs = signer.sign_oneshot_to_vec(b"octets").unwrap();
            assert_eq!(ops.verify(&info.spki, scheme, b"octets", &theirs), Ok(()), "{scheme:?}");
        }
    }
}

#[test]
fn pss_salts_of_another_length_are_refused() {
    let ops = Ops::new();
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let spki = key.public_key_to_der().unwrap();
    for len in [0, 20, 31, 32, 33, 222] {
        let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), &key).unwrap();
        signer.set_rsa_padding(openssl::rsa::Padding::PKCS1_PSS).unwrap();
        signer.set_rsa_pss_saltlen(openssl::sign::RsaPssSaltlen::custom(len)).unwrap();
        let signature = signer.sign_oneshot_to_vec(b"octets").unwrap();
        let good = ops.verify(&spki, SignScheme::RsaPss(Hash::Sha256), b"octets", &signature);
        assert_eq!(good, if len == 32 { Ok(()) } else { Err(BAD) }, "salt of {len}");
    }
}

#[test]
fn keys_are_read_from_pkcs1_and_sec1_too_and_nothing_may_follow() {
    let ops = Ops::new();
    let rsa = Rsa::generate(2048).unwrap();
    let ec = ec(Nid::SECP384R1);
    for der in [
        rsa.private_key_to_der().unwrap(),
        ec.private_key_to_der().unwrap(),
        PKey::generate_ed25519().unwrap().private_key_to_pkcs8().unwrap(),
    ] {
        let info = open(&ops, der.clone()).unwrap();
        let signature = ops.sign(info.id, info.schemes[0], b"octets").unwrap();
        assert_eq!(ops.verify(&info.spki, info.schemes[0], b"octets", &signature), Ok(()));
        assert!(open(&ops, [der.clone(), vec![0]].concat()).is_err(), "trailing octet");
        for len in [0, 1, 2, der.len() / 2, der.len() - 1] {
            assert!(open(&ops, der[..len].to_vec()).is_err(), "cut to {len}");
        }
    }
    assert!(ops.device.open_key(KeySource::Uri("pkcs11:token=x".into())).is_err());
}

#[test]
fn keys_that_are_too_weak_or_of_another_kind_are_not_opened() {
    let ops = Ops::new();
    assert!(open(&ops, Rsa::generate(1024).unwrap().private_key_to_der().unwrap()).is_err());
    assert!(open(&ops, ec(Nid::SECP256K1).private_key_to_der().unwrap()).is_err());
    assert!(open(&ops, PKey::generate_x25519().unwrap().private_key_to_pkcs8().unwrap()).is_err());
    assert!(open(&ops, PKey::generate_ed448().unwrap().private_key_to_pkcs8().unwrap()).is_err());
}

/// SubjectPublicKeyInfo of an RSA key with any numbers at all.
fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    fn der(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u32).to_be_bytes();
        let len = if body.len() < 128 {
            vec![len[3]]
        } else {
            let digits = &len[len.iter().position(|b| *b != 0).unwrap()..];
            [&[0x80 | digits.len() as u8], digits].concat()
        };
        [&[tag], &len[..], body].concat()
    }
    let number = |digits: &[u8]| {
        let sign = if digits.first().is_some_and(|d| d & 0x80 != 0) { vec![0] } else { vec![] };
        der(2, &[sign, digits.to_vec()].concat())
    };
    let key = der(0x30, &[number(modulus), number(exponent)].concat());
    let algorithm = hex("300d06092a864886f70d0101010500");
    der(0x30, &[algorithm, der(3, &[vec![0], key].concat())].concat())
}

#[test]
fn rsa_keys_with_small_moduli_or_useless_exponents_are_refused_before_anything_is_computed() {
    let ops = Ops::new();
    let scheme = SignScheme::RsaPkcs1(Hash::Sha256);
    let good = Rsa::generate(2048).unwrap();
    let modulus = good.n().to_vec();
    let verify = |modulus: &[u8], exponent: &[u8]| {
        ops.verify(&rsa_spki(modulus, exponent), scheme, b"octets", &vec![1; modulus.len()])
    };
    assert_eq!(verify(&modulus, &[1, 0, 1]), Err(BAD), "the key is good, the signature is not");
    // With an exponent of one every signature is its own message.
    for exponent in [&[0][..], &[1], &[2], &[4], &[1, 0, 0], &[1; 256]] {
        assert_eq!(verify(&modulus, exponent), Err(BAD_KEY), "exponent {exponent:?}");
    }
    for (bits, expected) in
        [(512, BAD_KEY), (1016, BAD_KEY), (1024, BAD), (8192, BAD), (8200, BAD_KEY), (32768, BAD_KEY)]
    {
        assert_eq!(verify(&vec![0xff; bits / 8], &[1, 0, 1]), Err(expected), "{bits} bits");
    }
    let mut even = modulus.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert_eq!(verify(&even, &[1, 0, 1]), Err(BAD_KEY), "even modulus");
    for modulus in [&[0][..], &[1], &[3]] {
        assert_eq!(verify(modulus, &[3]), Err(BAD_KEY));
    }
}

#[test]
fn a_key_for_another_scheme_is_refused() {
    let ops = Ops::new();
    let spki = PKey::from_ec_key(ec(Nid::SECP384R1)).unwrap().public_key_to_der().unwrap();
    let wrong = [
        SignScheme::EcdsaDer(Curve::P256, Hash::Sha256),
        SignScheme::EcdsaPlain(Curve::P521, Hash::Sha512),
        SignScheme::RsaPkcs1(Hash::Sha256),
        SignScheme::Ed25519,
    ];
    for scheme in wrong {
        assert_eq!(ops.verify(&spki, scheme, b"octets", &[1; 96]), Err(BAD_KEY), "{scheme:?}");
    }
    let unsupported = Outcome::Failed(FaultKind::Unsupported.into());
    for scheme in
        [SignScheme::Ed448, SignScheme::EcdsaDer(Curve::P384, Hash::Sha1), SignScheme::RsaPss(Hash::Identity)]
    {
        assert_eq!(ops.verify(&spki, scheme, b"octets", &[1; 96]), Err(unsupported), "{scheme:?}");
    }
    for len in 0..spki.len() {
        let got = ops.verify(&spki[..len], SignScheme::EcdsaDer(Curve::P384, Hash::Sha384), b"", &[1]);
        assert_eq!(got, Err(BAD_KEY), "cut to {len}");
    }
}

#[test]
fn nothing_is_signed_with_sha_1_or_with_a_scheme_of_another_key() {
    let ops = Ops::new();
    let unsupported = Err(Outcome::Failed(FaultKind::Unsupported.into()));
    let rsa = Rsa::generate(2048).unwrap();
    let info = open(&ops, rsa.private_key_to_der().unwrap()).unwrap();
    for scheme in [SignScheme::RsaPkcs1(Hash::Sha1), SignScheme::RsaPss(Hash::Sha1), SignScheme::Ed25519] {
        assert_eq!(ops.sign(info.id, scheme, b"octets"), unsupported, "{scheme:?}");
    }
    let mut signer =
        openssl::sign::Signer::new(MessageDigest::sha1(), &PKey::from_rsa(rsa).unwrap()).unwrap();
    signer.update(b"octets").unwrap();
    let signature = signer.sign_to_vec().unwrap();
    assert_eq!(ops.verify(&info.spki, SignScheme::RsaPkcs1(Hash::Sha1), b"octets", &signature), Ok(()));
}

#[test]
fn closed_and_reset_keys_are_stale() {
    let ops = Ops::new();
    let stale = Err(Outcome::Failed(FaultKind::StaleHandle.into()));
    let der = PKey::generate_ed25519().unwrap().private_key_to_pkcs8().unwrap();
    let first = open(&ops, der.clone()).unwrap().id;
    ops.device.close_key(first);
    let second = open(&ops, der).unwrap().id;
    assert_eq!(ops.sign(first, SignScheme::Ed25519, b""), stale);
    assert!(ops.sign(second, SignScheme::Ed25519, b"").is_ok());
    ops.device.begin_reset();
    assert_eq!(ops.sign(second, SignScheme::Ed25519, b""), stale);
}
