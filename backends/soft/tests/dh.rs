//! Key exchange: known answers, both ends agree, and what a peer may not send.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Ops, hex};
use openssl::bn::{BigNum, BigNumContext};
use spi::alg::GroupKind;
use spi::{CryptoOp, FaultKind, Group, Outcome, Reject};

const BAD: Outcome = Outcome::Rejected(Reject::BadPublicInput);
const MODP: [Group; 5] =
    [Group::MODP2048, Group::MODP3072, Group::MODP4096, Group::MODP6144, Group::MODP8192];

fn prime(group: Group) -> BigNum {
    match group {
        Group::MODP2048 => BigNum::get_rfc3526_prime_2048(),
        Group::MODP3072 => BigNum::get_rfc3526_prime_3072(),
        Group::MODP4096 => BigNum::get_rfc3526_prime_4096(),
        Group::MODP6144 => BigNum::get_rfc3526_prime_6144(),
        _ => BigNum::get_rfc3526_prime_8192(),
    }
    .unwrap()
}

/// An independent `base ^ exponent mod p`.
fn power(group: Group, base: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut result = BigNum::new().unwrap();
    let (base, exponent) = (BigNum::from_slice(base).unwrap(), BigNum::from_slice(exponent).unwrap());
    result.mod_exp(&base, &exponent, &prime(group), &mut BigNumContext::new().unwrap()).unwrap();
    result.to_vec_padded(group.info().unwrap().public_len as i32).unwrap()
}

fn padded(group: Group, number: &[u8]) -> Vec<u8> {
    let len = group.info().unwrap().public_len;
    [vec![0; len - number.len()], number.to_vec()].concat()
}

#[test]
fn both_ends_of_every_group_agree_at_the_length_of_the_table() {
    let ops = Ops::new();
    for group in Group::ALL.iter().copied().filter(|group| *group != Group::NONE) {
        let info = group.info().unwrap();
        let (a, to_b) = ops.generate(group);
        assert_eq!(to_b.len(), info.public_len, "{group}");
        let (secret, again) = if info.kind == GroupKind::Kem {
            let (to_a, secret) = ops.encapsulate(group, &to_b).unwrap();
            assert_eq!(to_a.len(), info.response_len, "{group}");
            (secret, ops.derive(group, &a, &to_a).unwrap())
        } else {
            let (b, to_a) = ops.generate(group);
            assert_ne!(to_a, to_b, "{group}");
            (ops.derive(group, &b, &to_b).unwrap(), ops.derive(group, &a, &to_a).unwrap())
        };
        assert_eq!(secret.len(), info.secret_len, "{group}");
        assert_eq!(secret, again, "{group}");
    }
}

#[test]
fn a_value_of_the_wrong_length_is_refused() {
    let ops = Ops::new();
    for group in Group::ALL.iter().copied().filter(|group| *group != Group::NONE) {
        let info = group.info().unwrap();
        let (ours, theirs) = ops.generate(group);
        let right = if info.kind == GroupKind::Kem { info.response_len } else { info.public_len };
        for len in [0, 1, right - 1, right + 1] {
            assert_eq!(ops.derive(group, &ours, &vec![2; len]), Err(BAD), "{group} {len}");
        }
        if info.kind == GroupKind::Kem {
            let longer = [theirs.clone(), vec![0]].concat();
            for theirs in [&[][..], &theirs[1..], &longer] {
                assert_eq!(ops.encapsulate(group, theirs), Err(BAD), "{group}");
            }
        }
    }
}

#[test]
fn modp_agrees_with_another_implementation() {
    let ops = Ops::new();
    for group in MODP {
        let (ours, public) = ops.generate(group);
        assert_eq!(public, power(group, &[2], &ours), "{group}");
        let theirs = power(group, &[2], b"some other exponent of sufficient length, any will do");
        assert_eq!(ops.derive(group, &ours, &theirs).unwrap(), power(group, &theirs, &ours), "{group}");
    }
}

#[test]
fn modp_secrets_keep_their_leading_zeroes() {
    let ops = Ops::new();
    for group in MODP {
        // 2 ^ 1000 is shorter than any of the primes: nothing is reduced, and the rest is zeroes.
        let len = group.info().unwrap().secret_len;
        let mut expected = vec![0; len];
        expected[len - 126] = 1;
        assert_eq!(ops.derive(group, &1000u16.to_be_bytes(), &padded(group, &[2])), Ok(expected), "{group}");
    }
    // And one that was found, not made: about one in 256 begins with a zero.
    let found = (0..5000u32).find(|n| {
        let theirs = power(Group::MODP2048, &[2], &(n + 3000).to_be_bytes());
        let secret = ops.derive(Group::MODP2048, b"an exponent of ours", &theirs).unwrap();
        assert_eq!(secret.len(), 256);
        if secret[0] == 0 {
            assert_eq!(secret, power(Group::MODP2048, &theirs, b"an exponent of ours"));
        }
        secret[0] == 0
    });
    assert!(found.is_some(), "none of 5000 secrets began with a zero");
}

#[test]
fn modp_values_at_and_beyond_the_edges_are_refused() {
    let ops = Ops::new();
    for group in MODP {
        let p = prime(group);
        let near = |delta: i32| {
            let mut n = p.to_owned().unwrap();
            if delta < 0 {
                n.sub_word(-delta as u32).unwrap()
            } else {
                n.add_word(delta as u32).unwrap()
            };
            n.to_vec()
        };
        let ours = [7u8; 40];
        for bad in [
            padded(group, &[0]),
            padded(group, &[1]),
            near(-1),
            near(0),
            near(1),
            vec![0xff; p.num_bytes() as usize],
        ] {
            assert_eq!(ops.derive(group, &ours, &bad), Err(BAD), "{group}");
        }
        for good in [padded(group, &[2]), near(-2)] {
            assert!(ops.derive(group, &ours, &good).is_ok(), "{group}");
        }
    }
}

#[test]
fn points_off_the_curve_and_all_zero_results_are_refused() {
    let ops = Ops::new();
    for group in [Group::ECP256, Group::ECP384, Group::ECP521] {
        let (ours, mut theirs) = ops.generate(group);
        *theirs.last_mut().unwrap() ^= 1;
        assert_eq!(ops.derive(group, &ours, &theirs), Err(BAD), "{group}");
        theirs.fill(0);
        assert_eq!(ops.derive(group, &ours, &theirs), Err(BAD), "{group}");
        theirs.fill(0xff);
        assert_eq!(ops.derive(group, &ours, &theirs), Err(BAD), "{group}");
    }
    // RFC 7748 section 6: points of small order.
    for group in [Group::X25519, Group::X448] {
        let (ours, theirs) = ops.generate(group);
        let mut point = vec![0; theirs.len()];
        assert_eq!(ops.derive(group, &ours, &point), Err(BAD), "{group}: zero");
        point[0] = 1;
        assert_eq!(ops.derive(group, &ours, &point), Err(BAD), "{group}: one");
    }
}

#[test]
fn an_encapsulation_key_with_an_unreduced_coefficient_is_refused() {
    let ops = Ops::new();
    for group in [Group::MLKEM512, Group::MLKEM768, Group::MLKEM1024] {
        let (_, mut key) = ops.generate(group);
        // Twelve bits that are 4095, above q = 3329 (FIPS 203 section 7.2).
        key[0] = 0xff;
        key[1] |= 0x0f;
        assert_eq!(ops.encapsulate(group, &key), Err(BAD), "{group}");
    }
}

#[test]
fn an_altered_ciphertext_gives_another_secret_and_no_error() {
    // FIPS 203 section 6.3: implicit rejection.
    let ops = Ops::new();
    let (ours, public) = ops.generate(Group::MLKEM768);
    let (mut ciphertext, secret) = ops.encapsulate(Group::MLKEM768, &public).unwrap();
    ciphertext[5] ^= 1;
    let other = ops.derive(Group::MLKEM768, &ours, &ciphertext).unwrap();
    assert_ne!(other, secret);
    assert_eq!(ops.derive(Group::MLKEM768, &ours, &ciphertext).unwrap(), other, "but always the same one");
}

#[test]
fn groups_that_are_not_in_the_table_and_wrong_kinds_are_unsupported() {
    let ops = Ops::new();
    let unsupported = Err(Outcome::Failed(FaultKind::Unsupported.into()));
    for group in [Group::NONE, Group(2), Group(1000)] {
        assert_eq!(ops.derive(group, &[1], &[2]), unsupported);
        assert!(ops.run(CryptoOp::DhGenerate { group }).is_err());
    }
    assert!(ops.encapsulate(Group::X25519, &[2; 32]).is_err());
}

#[test]
fn rfc_5903_section_8_1_and_rfc_8031_appendix_a() {
    let ops = Ops::new();
    let (i, r) = (
        hex("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"),
        hex("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"),
    );
    let to_i = hex("d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
                    56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab");
    let to_r = hex("dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180
                    5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3");
    let secret = hex("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de");
    assert_eq!(ops.derive(Group::ECP256, &i, &to_i), Ok(secret.clone()));
    assert_eq!(ops.derive(Group::ECP256, &r, &to_r), Ok(secret));

    let i = hex("701fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d54");
    let to_i = hex("0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25");
    let secret = hex("c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950");
    assert_eq!(ops.derive(Group::X25519, &i, &to_i), Ok(secret));
}

#[test]
fn random_octets_come_in_the_length_that_was_asked_for() {
    let ops = Ops::new();
    let random = |len| match ops.run(CryptoOp::Random { len }) {
        Ok(spi::CryptoOutput::Secret(secret)) => Some(secret.expose().to_vec()),
        _ => None,
    };
    assert_eq!(random(65_536).unwrap().len(), 65_536);
    assert_ne!(random(16), random(16));
    assert!(random(0).is_none() && random(65_537).is_none() && random(usize::MAX).is_none());
}
