//! Short primitives: known answers and the protection of IKE messages.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{device, hex};
use spi::alg::EncrKind;
use spi::short::ShortError;
use spi::{Device, Encr, FaultKind, Hash, Integ, Prf, Reject, Secret, ShortOps, SkSuite};

fn short() -> Arc<dyn ShortOps> {
    device().short_ops().unwrap()
}

fn prf(prf: Prf, key: &[u8], data: &[&[u8]]) -> Vec<u8> {
    short().prf(prf, key, data).unwrap().expose().to_vec()
}

#[test]
fn rfc_4434_and_rfc_4615_keys_of_three_lengths() {
    let data: Vec<u8> = (0..20).collect();
    let key: Vec<u8> = [(0..16).collect(), vec![0xed, 0xcb]].concat();
    let cases = [
        (Prf::AES128_XCBC, 16, "47f51b4564966215b8985c63055ed308"),
        (Prf::AES128_XCBC, 10, "0fa087af7d866e7653434e602fdde835"),
        (Prf::AES128_XCBC, 18, "8cd3c93ae598a9803006ffb67c40e9e4"),
        (Prf::AES128_CMAC, 18, "84a348a4a45d235babfffc0d2b4da09a"),
        (Prf::AES128_CMAC, 16, "980ae87b5f4c9c5214f5b6a8455e4c2d"),
        (Prf::AES128_CMAC, 10, "290d9e112edb09ee141fcf64c0b72f3d"),
    ];
    for (which, len, expected) in cases {
        assert_eq!(prf(which, &key[..len], &[&data]), hex(expected), "{which} {len}");
        assert_eq!(prf(which, &key[..len], &[&data[..7], &[], &data[7..]]), hex(expected), "{which} {len}");
    }
}

#[test]
fn rfc_4231_and_rfc_2202_case_2() {
    let cases = [
        (Prf::HMAC_SHA1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (Prf::HMAC_SHA2_256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            Prf::HMAC_SHA2_384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            Prf::HMAC_SHA2_512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd\
             caeab1a34d4a6b4b636e070a38bce737",
        ),
    ];
    for (which, expected) in cases {
        assert_eq!(prf(which, b"Jefe", &[b"what do ya want ", b"for nothing?"]), hex(expected), "{which}");
    }
}

#[test]
fn every_prf_gives_its_length_whatever_the_key() {
    for which in Prf::ALL {
        for len in [0, 1, 15, 16, 17, 64, 65, 128, 129, 1000] {
            let out = prf(*which, &vec![7; len], &[b"data"]);
            assert_eq!(out.len(), which.info().unwrap().out_len, "{which} {len}");
        }
    }
    assert_eq!(short().prf(Prf(1), b"k", &[]).err(), Some(FaultKind::Unsupported.into()), "HMAC-MD5");
}

#[test]
fn hashes_of_the_three_letters() {
    let short = short();
    assert_eq!(
        short.hash(Hash::Sha1, &[b"a", b"bc"]).unwrap(),
        hex("a9993e364706816aba3e25717850c26c9cd0d89d")
    );
    assert_eq!(
        short.hash(Hash::Sha256, &[b"abc"]).unwrap(),
        hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    );
    for hash in [Hash::Sha384, Hash::Sha512] {
        assert_eq!(short.hash(hash, &[]).unwrap().len(), hash.len());
    }
    assert!(short.hash(Hash::Identity, &[]).is_err());
}

#[test]
fn random_octets_differ() {
    let (mut a, mut b) = ([0; 32], [0; 32]);
    short().random(&mut a);
    short().random(&mut b);
    assert_ne!(a, b);
}

fn suites() -> Vec<SkSuite> {
    let mut list = Vec::new();
    for encr in Encr::ALL.iter().copied() {
        match encr.info().unwrap().kind {
            EncrKind::Aead => list.push(SkSuite { encr, integ: Integ::NONE }),
            EncrKind::Cbc | EncrKind::Ctr => list.extend(
                Integ::ALL.iter().filter(|i| **i != Integ::NONE).map(|i| SkSuite { encr, integ: *i }),
            ),
            EncrKind::Gmac | EncrKind::Null => {}
        }
    }
    list
}

fn keys(suite: SkSuite) -> (Secret, Secret) {
    let (e, i) = (suite.encr.info().unwrap(), suite.integ.info().unwrap());
    (Secret::new(vec![3; e.key_len + e.salt_len]), Secret::new(vec![9; i.key_len]))
}

#[test]
fn every_suite_opens_what_it_sealed_and_nothing_else() {
    let short = short();
    for suite in suites() {
        let (encr_key, integ_key) = keys(suite);
        for blocks in [0, 1, 5] {
            let (at, text) = (32, vec![0x5a; suite.block() * blocks]);
            let iv: Vec<u8> = (0..suite.iv_len() as u8).collect();
            let mut message = [vec![0x11; at], iv, text.clone()].concat();
            let plain = message.len();
            short.sk_seal(suite, &encr_key, &integ_key, &mut message, at).unwrap();
            assert_eq!(message.len(), plain + suite.icv_len(), "{suite:?}");
            let mut opened = message.clone();
            let range = short.sk_open(suite, &encr_key, &integ_key, &mut opened, at).unwrap();
            assert_eq!(range, plain - text.len()..plain, "{suite:?}");
            assert_eq!(opened[range], text, "{suite:?}");
            for bent in [0, at, plain - 1, message.len() - 1] {
                let mut message = message.clone();
                message[bent] ^= 1;
                let got = short.sk_open(suite, &encr_key, &integ_key, &mut message, at);
                assert_eq!(got, Err(ShortError::Rejected(Reject::BadIcv)), "{suite:?} {bent}");
            }
            for len in 0..at + suite.iv_len() + suite.icv_len() {
                let mut cut = message.clone();
                cut.truncate(len);
                let got = short.sk_open(suite, &encr_key, &integ_key, &mut cut, at);
                assert_eq!(got, Err(ShortError::Rejected(Reject::BadLength)), "{suite:?} {len}");
            }
        }
    }
}

#[test]
fn nothing_of_a_separate_suite_is_decrypted_unless_the_icv_is_right() {
    let suite = SkSuite { encr: Encr::AES128_CBC, integ: Integ::HMAC_SHA2_256_128 };
    let (encr_key, integ_key) = keys(suite);
    let mut message = vec![7; 32 + 16 + 32];
    short().sk_seal(suite, &encr_key, &integ_key, &mut message, 32).unwrap();
    message[0] ^= 1;
    let before = message.clone();
    assert!(short().sk_open(suite, &encr_key, &integ_key, &mut message, 32).is_err());
    assert_eq!(message, before);
}

#[test]
fn cbc_text_that_is_not_whole_blocks_is_a_bad_length() {
    let suite = SkSuite { encr: Encr::AES128_CBC, integ: Integ::HMAC_SHA1_96 };
    let (encr_key, integ_key) = keys(suite);
    let mut message = vec![7; 32 + 16 + 17 + 12];
    let got = short().sk_open(suite, &encr_key, &integ_key, &mut message, 32);
    assert_eq!(got, Err(ShortError::Rejected(Reject::BadLength)));
}

#[test]
fn suites_that_may_not_protect_an_ike_sa_are_unsupported() {
    let none = |encr: Encr, integ| {
        let suite = SkSuite { encr, integ };
        let (encr_key, integ_key) = keys(suite);
        let sealed = short().sk_seal(suite, &encr_key, &integ_key, &mut vec![0; 64], 32);
        sealed.map_err(|fault| fault.kind)
    };
    let unsupported = Err(FaultKind::Unsupported);
    assert_eq!(none(Encr::NULL, Integ::HMAC_SHA2_256_128), unsupported);
    assert_eq!(none(Encr::AES128_GMAC, Integ::NONE), unsupported);
    assert_eq!(none(Encr::AES128_CBC, Integ::NONE), unsupported);
    assert_eq!(none(Encr::AES128_GCM16, Integ::HMAC_SHA2_256_128), unsupported);
    assert_eq!(none(Encr::AES128_GCM16, Integ::NONE), Ok(()));
}

#[test]
fn a_key_of_the_wrong_length_and_an_offset_outside_are_faults_not_panics() {
    let suite = SkSuite { encr: Encr::AES128_GCM16, integ: Integ::NONE };
    let (key, none) = keys(suite);
    let short_key = Secret::new(vec![3; 19]);
    assert!(short().sk_seal(suite, &short_key, &none, &mut vec![0; 64], 32).is_err());
    for at in [57, 64, 65, usize::MAX] {
        assert!(short().sk_seal(suite, &key, &none, &mut vec![0; 64], at).is_err(), "{at}");
        assert!(short().sk_open(suite, &key, &none, &mut [0; 64], at).is_err(), "{at}");
    }
}

#[test]
fn rfc_7634_appendix_b() {
    let suite = SkSuite { encr: Encr::CHACHA20_POLY1305, integ: Integ::NONE };
    let key: Vec<u8> = [(0x80..0xa0).collect(), vec![0xa0, 0xa1, 0xa2, 0xa3]].concat();
    let (key, none) = (Secret::new(key), Secret::new(Vec::new()));
    let head = hex("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029");
    let text = hex("0000000c000040010000000a00");
    let iv = hex("1011121314151617");
    let mut message = [head.clone(), iv, text].concat();
    short().sk_seal(suite, &key, &none, &mut message, head.len()).unwrap();
    assert_eq!(message[40..], hex("610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2"));
}
