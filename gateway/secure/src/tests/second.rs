//! The second opinion: chains of many kinds are judged by us and by rustls-webpki, and the two have to agree. Where they may not, in
//! what webpki does not look at (KeyUsage) or refuses outright (constraints on mail addresses and directory names, anyExtendedKeyUsage
//! by its own rules), it is not asked.

use ipc::Reply;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, GeneralSubtree, IsCa, KeyPair, NameConstraints, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert};

use crate::testing::*;

const MOON: &str = "moon.lab.test";

/// Extended key usages are ours to judge.
struct Anything;

impl ExtendedKeyUsageValidator for Anything {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn ours(root: &Ca, between: &[&Ca], leaf: &Leaf) -> (bool, String) {
    match verdict(leaf.own(between), trust_ca(&[root])) {
        Reply::PeerAccepted { .. } => (true, String::new()),
        Reply::Refused(why) => (false, why.to_string()),
        _ => panic!("neither"),
    }
}

fn theirs(root: &Ca, between: &[&Ca], leaf: &Leaf) -> (bool, String) {
    let der = |cert: &rcgen::Certificate| CertificateDer::from(cert.der().to_vec());
    let (root, leaf) = (der(&root.cert), der(&leaf.cert));
    let between: Vec<_> = between.iter().map(|ca| der(&ca.cert)).collect();
    let at = UnixTime::since_unix_epoch(now().duration_since(std::time::UNIX_EPOCH).unwrap());
    let judge = || {
        let anchors = [anchor_from_trusted_cert(&root)?];
        let end = EndEntityCert::try_from(&leaf)?;
        end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &between, at, Anything, None, None)
            .map(drop)
    };
    let judged: Result<(), webpki::Error> = judge();
    (judged.is_ok(), judged.err().map(|error| error.to_string()).unwrap_or_default())
}

fn agree(what: &str, expected: Option<bool>, root: &Ca, between: &[&Ca], leaf: &Leaf) {
    let (ours, theirs) = (ours(root, between, leaf), theirs(root, between, leaf));
    assert_eq!(ours.0, theirs.0, "{what}: we say {ours:?}, webpki {theirs:?}");
    if let Some(expected) = expected {
        assert_eq!(ours.0, expected, "{what}: {ours:?}");
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[test]
fn name_constraints_hold_as_webpki_has_them() {
    let dns = |name: &str| GeneralSubtree::DnsName(name.into());
    let net = |a: [u8; 4], len| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(a, len));
    let trees: [(&str, Vec<GeneralSubtree>); 8] = [
        ("nothing", vec![]),
        ("lab.test", vec![dns("lab.test")]),
        ("moon.lab.test", vec![dns("moon.lab.test")]),
        ("other.test", vec![dns("other.test")]),
        ("ab.test", vec![dns("ab.test")]),
        ("192.168/16", vec![net([192, 168, 0, 0], 16)]),
        ("10/8 and lab.test", vec![net([10, 0, 0, 0], 8), dns("LAB.test")]),
        ("other.test and moon.lab.test", vec![dns("other.test"), dns("moon.lab.test")]),
    ];
    let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
    let names: [Vec<SanType>; 4] = [
        vec![],
        vec![address("192.168.0.1")],
        vec![SanType::DnsName("sun.other.test".try_into().unwrap())],
        vec![address("10.1.0.1"), SanType::DnsName("Gate.Lab.Test".try_into().unwrap())],
    ];
    let root = Ca::new("Root");
    let mut refused = 0;
    for (permitted_name, permitted) in &trees {
        for (excluded_name, excluded) in &trees {
            let mut params = ca_params("Middle");
            if !permitted.is_empty() || !excluded.is_empty() {
                params.name_constraints = Some(NameConstraints {
                    permitted_subtrees: permitted.clone(),
                    excluded_subtrees: excluded.clone(),
                });
            }
            let middle = root.sub(params);
            for more in &names {
                let mut params = ee_params(MOON);
                params.subject_alt_names.extend(more.iter().cloned());
                let leaf = middle.issue_as(&params, key());
                let what =
                    format!("permitted {permitted_name}, excluded {excluded_name}, {MOON} and {more:?}");
                agree(&what, None, &root, &[&middle], &leaf);
                refused += usize::from(!ours(&root, &[&middle], &leaf).0);
            }
        }
    }
    // A comparison in which everything is refused, or nothing, would show nothing.
    assert!((32..224).contains(&refused), "{refused} of 256 refused");
}

#[test]
fn constraints_hold_further_down_and_of_the_anchor_too() {
    let constrained = |cn: &str, permitted: &str| {
        let mut params = ca_params(cn);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(permitted.into())],
            excluded_subtrees: vec![],
        });
        params
    };
    for (first, second, good) in [
        ("lab.test", "moon.lab.test", true),
        ("moon.lab.test", "lab.test", true),
        ("lab.test", "other.test", false),
        ("other.test", "lab.test", false),
    ] {
        let root = Ca::new("Root");
        let upper = root.sub(constrained("Upper", first));
        let lower = upper.sub(constrained("Lower", second));
        let leaf = lower.issue(MOON, key());
        agree(&format!("{first} above {second}"), Some(good), &root, &[&lower, &upper], &leaf);
        let root = Ca::root(constrained("Root", first), key());
        let lower = root.sub(constrained("Lower", second));
        agree(
            &format!("the anchor {first}, {second}"),
            Some(good),
            &root,
            &[&lower],
            &lower.issue(MOON, key()),
        );
    }
}

#[test]
fn what_webpki_does_not_do_is_done_by_the_rules_of_rfc_5280() {
    let root = Ca::new("Root");
    let directory = |cn: Option<&str>| {
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CountryName, "CH");
        name.push(rcgen::DnType::OrganizationName, "lab");
        cn.iter().for_each(|cn| name.push(rcgen::DnType::CommonName, *cn));
        GeneralSubtree::DirectoryName(name)
    };
    let mail = |text: &str| GeneralSubtree::Rfc822Name(text.into());
    let mut leaf = ee_params(MOON);
    leaf.subject_alt_names.push(SanType::Rfc822Name("carol@lab.test".try_into().unwrap()));
    for (permitted, excluded, good) in [
        (vec![directory(None)], vec![], true),
        (vec![directory(Some("sun.lab.test"))], vec![], false),
        (vec![], vec![directory(None)], false),
        (vec![], vec![directory(Some("sun.lab.test"))], true),
        (vec![mail("lab.test")], vec![], true),
        (vec![mail("carol@lab.test")], vec![], true),
        (vec![mail("dave@lab.test")], vec![], false),
        (vec![mail(".lab.test")], vec![], false),
        (vec![], vec![mail("lab.test")], false),
        (vec![mail("other.test")], vec![], false),
    ] {
        let mut params = ca_params("Middle");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.clone(),
            excluded_subtrees: excluded.clone(),
        });
        let middle = root.sub(params);
        let (accepted, why) = ours(&root, &[&middle], &middle.issue_as(&leaf, key()));
        assert_eq!(accepted, good, "{permitted:?} {excluded:?}: {why}");
        assert!(accepted || why.contains("name constraints"), "{why}");
    }
}

#[test]
fn paths_are_found_and_refused_alike() {
    let root = Ca::new("Root");
    let limited = |cn: &str, n| {
        let mut params = ca_params(cn);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(n));
        params
    };
    let old = |mut params: CertificateParams| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params
    };
    let young = |mut params: CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params
    };
    let none = |mut params: CertificateParams| {
        params.is_ca = IsCa::ExplicitNoCa;
        params
    };
    let shapes: [(&str, CertificateParams, CertificateParams, bool); 9] = [
        ("plain", ca_params("Upper"), ca_params("Lower"), true),
        ("one below", limited("Upper", 1), limited("Lower", 0), true),
        ("too deep", limited("Upper", 0), ca_params("Lower"), false),
        ("upper expired", old(ca_params("Upper")), ca_params("Lower"), false),
        ("lower expired", ca_params("Upper"), old(ca_params("Lower")), false),
        ("upper not yet", young(ca_params("Upper")), ca_params("Lower"), false),
        ("lower is no CA", ca_params("Upper"), none(ca_params("Lower")), false),
        ("upper is no CA", none(ca_params("Upper")), ca_params("Lower"), false),
        ("two of one name", ca_params("Same"), ca_params("Same"), true),
    ];
    for (what, upper, lower, good) in shapes {
        let upper = root.sub(upper);
        let lower = upper.sub(lower);
        let leaf = lower.issue(MOON, key());
        agree(what, Some(good), &root, &[&lower, &upper], &leaf);
        agree(&format!("{what}, the other way round"), Some(good), &root, &[&upper, &lower], &leaf);
        agree(&format!("{what}, without the upper one"), Some(false), &root, &[&lower], &leaf);
        agree(
            &format!("{what}, expired"),
            Some(false),
            &root,
            &[&lower, &upper],
            &lower.issue_as(&old(ee_params(MOON)), key()),
        );
    }
    let (fake, other) = (Ca::new("Root"), Ca::new("Other"));
    agree("a CA of the same name", Some(false), &fake, &[], &root.issue(MOON, key()));
    agree("another CA", Some(false), &other, &[&root], &root.issue(MOON, key()));
    // Two CAs that issued each other: neither goes round for ever.
    let cross = |cn: &str, by: &Ca| by.sub(ca_params(cn));
    let a = cross("A", &root);
    let b = cross("B", &a);
    let a_again = Ca::resigned(&a, &b);
    let loop_leaf = a.issue(MOON, key());
    agree("a loop", Some(false), &other, &[&a_again, &b, &a], &loop_leaf);
    agree("a loop with a way out", Some(true), &root, &[&a_again, &b, &a], &loop_leaf);
}
