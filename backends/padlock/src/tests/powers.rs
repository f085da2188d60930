use openssl::bn::{BigNum, BigNumContext};
use spi::{Group, Outcome, Reject, Secret};

use super::{hex, work};
use crate::{modp, number};

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

fn known(group: Group, base: &[u8], exponent: &[u8]) -> Vec<u8> {
    let (base, exponent) = (BigNum::from_slice(base).unwrap(), BigNum::from_slice(exponent).unwrap());
    let mut out = BigNum::new().unwrap();
    out.mod_exp(&base, &exponent, &prime(group), &mut BigNumContext::new().unwrap()).unwrap();
    out.to_vec_padded(group.info().unwrap().public_len as i32).unwrap()
}

#[test]
fn powers_in_every_group_are_those_of_openssl_at_full_length() {
    work();
    for group in modp::GROUPS {
        let len = group.info().unwrap().public_len;
        let exponent: Vec<u8> = (0..modp::exponent_len(group)).map(|n| n as u8 ^ 0xc5).collect();
        let exponent = Secret::new(exponent);
        let public = modp::public(group, &exponent).unwrap();
        assert_eq!(public, known(group, &[2], exponent.expose()), "{group}");
        let secret = modp::derive(group, &exponent, &public).unwrap();
        assert_eq!(secret.expose(), known(group, &public, exponent.expose()), "{group}");
        // 2^1000 is below each prime: what is left of it are zeroes.
        let mut two = vec![0; len];
        two[len - 1] = 2;
        let short = modp::derive(group, &Secret::new(vec![3, 0xe8]), &two).unwrap();
        let expected = [vec![0; len - 126], vec![1], vec![0; 125]].concat();
        assert_eq!(short.expose(), expected, "{group}");
    }
}

#[test]
fn values_at_and_beyond_the_edges_are_refused() {
    work();
    let bad = Err(Outcome::Rejected(Reject::BadPublicInput));
    let exponent = Secret::new(vec![7]);
    for group in modp::GROUPS {
        let p = prime(group).to_vec();
        let near = |delta: i16| {
            let mut value = p.clone();
            let last = value.last_mut().unwrap();
            *last = (i16::from(*last) + delta) as u8;
            value
        };
        // All these primes end in ff: one more carries.
        let mut above = p.clone();
        above[..8].fill(0xff);
        let first = above.iter().rposition(|octet| *octet != 0xff).unwrap();
        above[first] += 1;
        let small = |n: u8| [vec![0; p.len() - 1], vec![n]].concat();
        let got = |theirs: &[u8]| modp::derive(group, &exponent, theirs).map(|_| ());
        for refused in
            [small(0), small(1), near(-1), near(0), above, vec![0xff; p.len()], p[1..].to_vec(), vec![]]
        {
            assert_eq!(got(&refused), bad, "{group}");
        }
        for taken in [small(2), near(-2)] {
            assert_eq!(got(&taken), Ok(()), "{group}");
        }
    }
}

/// The whole table of four bits is gathered from, and no other entry is taken.
#[test]
fn every_digit_of_an_exponent_counts() {
    work();
    let modulus = hex("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff43");
    let words = number::from_octets(&modulus, 8).unwrap();
    let base = number::from_octets(&[0x13, 0x57, 0x9b], 8).unwrap();
    let m = BigNum::from_slice(&modulus).unwrap();
    for exponent in (0..=255u8).flat_map(|n| [[0, n], [n, 0x0f]]) {
        let got = number::to_octets(&modp::power(&words, &base, &exponent).unwrap());
        let mut expected = BigNum::new().unwrap();
        let (b, e) =
            (BigNum::from_slice(&[0x13, 0x57, 0x9b]).unwrap(), BigNum::from_slice(&exponent).unwrap());
        expected.mod_exp(&b, &e, &m, &mut BigNumContext::new().unwrap()).unwrap();
        assert_eq!(got, expected.to_vec_padded(32).unwrap(), "{exponent:?}");
    }
}
