//! Chains: good ones are believed, and every way of being wrong is refused with its reason.

use std::time::Duration;

use ipc::{CertData, PeerProof, Reply, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints, RsaKeySize, SanType,
};

use crate::config::{RawKey, Trust};
use crate::path::MAX_CERTS;
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// The verdict on a certificate of moon made to measure by `ca`.
fn measured(ca: &Ca, params: &CertificateParams, trust: Trust) -> Reply {
    verdict(ca.issue_as(params, key()).own(&[]), trust)
}

#[test]
fn a_chain_of_intermediates_in_any_order_is_believed() {
    let root = Ca::new("Root");
    let middle = root.sub(ca_params("Middle"));
    let low = middle.sub(ca_params("Low"));
    let leaf = low.issue(MOON, key());
    accepted(verdict(leaf.own(&[&low, &middle]), trust_ca(&[&root])));
    accepted(verdict(leaf.own(&[&middle, &low]), trust_ca(&[&root])));
    accepted(verdict(leaf.own(&[&low, &middle]), trust_ca(&[&middle])));
    accepted(verdict(leaf.own(&[]), trust_ca(&[&root, &low])));
    let why = failed(verdict(leaf.own(&[&middle]), trust_ca(&[&root])));
    assert!(why.contains("issued by C=CH, O=Lab, CN=Low, which is not a CA of the realm"), "{why}");
}

#[test]
fn a_ca_of_the_same_name_with_another_key_is_not_the_ca() {
    let (real, fake) = (Ca::new("CA"), Ca::new("CA"));
    let leaf = fake.issue(MOON, key());
    let why = failed(verdict(leaf.own(&[]), trust_ca(&[&real])));
    assert!(why.contains("does not verify"), "{why}");
    failed(verdict(leaf.own(&[&fake]), trust_ca(&[&real])));
    // Both in the list, as while a key is being replaced: the right one is found, with and without key identifiers.
    accepted(verdict(leaf.own(&[]), trust_ca(&[&real, &fake])));
    let mut plain = ee_params(MOON);
    plain.use_authority_key_identifier_extension = false;
    accepted(verdict(fake.issue_as(&plain, key()).own(&[]), trust_ca(&[&real, &fake])));
}

#[test]
fn validity_is_looked_at_everywhere_on_the_path() {
    let long_ago = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    let later = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    let root = Ca::new("Root");
    for (change, what) in [
        (&long_ago as &dyn Fn(&mut CertificateParams), "expired on 2020-02-03"),
        (&later, "not valid before 2090-01-01"),
    ] {
        let mut ee = ee_params(MOON);
        change(&mut ee);
        let why = failed(measured(&root, &ee, trust_ca(&[&root])));
        assert!(why.contains(what), "{why}");
        let mut sub = ca_params("Middle");
        change(&mut sub);
        let middle = root.sub(sub);
        let why = failed(verdict(middle.issue(MOON, key()).own(&[&middle]), trust_ca(&[&root])));
        assert!(why.contains(what) && why.contains("CN=Middle"), "{why}");
        let mut params = ca_params("Old root");
        change(&mut params);
        let old = Ca::root(params, key());
        let why = failed(measured(&old, &ee_params(MOON), trust_ca(&[&old])));
        assert!(why.contains(what) && why.contains("CN=Old root"), "{why}");
    }
}

#[test]
fn validity_is_judged_at_the_time_of_the_question() {
    let root = Ca::new("Root");
    let mut ee = ee_params(MOON);
    ee.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let leaf = root.issue_as(&ee, key());
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
    for (sa, years, good) in [(1, 0, true), (2, 5, false), (3, 0, true)] {
        let made = proof(moon.make(sa, "r", MOON, initiators(Role::Initiator)));
        sun.at = now() + Duration::from_secs(years * 365 * 86400);
        let reply = sun.check(sa, "r", SUN, MOON, initiators(Role::Responder), made);
        assert_eq!(matches!(reply, Reply::PeerAccepted { .. }), good, "in {years} years");
    }
}

#[test]
fn only_cas_sign_certificates_and_only_as_deep_as_they_may() {
    let root = Ca::new("Root");
    for (is_ca, usages, what) in [
        (IsCa::NoCa, vec![], "is not a CA's"),
        (IsCa::ExplicitNoCa, vec![], "is not a CA's"),
        (
            IsCa::Ca(BasicConstraints::Unconstrained),
            vec![KeyUsagePurpose::DigitalSignature],
            "without keyCertSign",
        ),
    ] {
        let mut params = named("Middle");
        (params.is_ca, params.key_usages) = (is_ca, usages);
        let middle = root.sub(params);
        let why = failed(verdict(middle.issue(MOON, key()).own(&[&middle]), trust_ca(&[&root])));
        assert!(why.contains(what), "{why}");
    }
    let constrained = |n| {
        let mut params = ca_params("Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(n));
        Ca::root(params, key())
    };
    let zero = constrained(0);
    accepted(measured(&zero, &ee_params(MOON), trust_ca(&[&zero])));
    let middle = zero.sub(ca_params("Middle"));
    let why = failed(verdict(middle.issue(MOON, key()).own(&[&middle]), trust_ca(&[&zero])));
    assert!(why.contains("allows 0 CAs below it, here there are 1"), "{why}");
    let one = constrained(1);
    let middle = one.sub(ca_params("Middle"));
    accepted(verdict(middle.issue(MOON, key()).own(&[&middle]), trust_ca(&[&one])));
}

#[test]
fn an_end_entity_is_nobodys_ca() {
    let root = Ca::new("Root");
    // The holder of one certificate makes another for somebody else, with itself as CA.
    let mallory = root.sub(ee_params("mallory.lab.test"));
    let forged = mallory.issue(MOON, key());
    let why = failed(verdict(forged.own(&[&mallory]), trust_ca(&[&root])));
    assert!(why.contains("is not a CA's"), "{why}");
}

#[test]
fn usages_that_allow_ike_are_accepted_and_others_are_not() {
    use ExtendedKeyUsagePurpose as Eku;
    let root = Ca::new("Root");
    let with = |key_usages: &[KeyUsagePurpose], extended: &[Eku]| {
        let mut params = ee_params(MOON);
        params.key_usages = key_usages.to_vec();
        params.extended_key_usages = extended.to_vec();
        measured(&root, &params, trust_ca(&[&root]))
    };
    let ipsec_ike = Eku::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for extended in [
        vec![],
        vec![ipsec_ike.clone()],
        vec![Eku::Any],
        vec![Eku::ServerAuth],
        vec![Eku::CodeSigning, Eku::ClientAuth],
    ] {
        accepted(with(&[KeyUsagePurpose::DigitalSignature], &extended));
    }
    accepted(with(&[], &[]));
    accepted(with(&[KeyUsagePurpose::ContentCommitment], &[]));
    assert!(failed(with(&[KeyUsagePurpose::KeyEncipherment], &[])).contains("without digitalSignature"));
    assert!(failed(with(&[], &[Eku::CodeSigning, Eku::EmailProtection])).contains("without one for IKE"));
}

#[test]
fn what_is_critical_and_not_understood_is_refused() {
    let root = Ca::new("Root");
    let mut params = ee_params(MOON);
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    params.custom_extensions = vec![extension.clone()];
    accepted(measured(&root, &params, trust_ca(&[&root])));
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    let why = failed(measured(&root, &params, trust_ca(&[&root])));
    assert!(why.contains("unknown critical extension 1.2.3.4"), "{why}");
    let mut limited = ca_params("Limited");
    let permitted = vec![GeneralSubtree::DnsName("other.test".into())];
    limited.name_constraints =
        Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: vec![] });
    let middle = root.sub(limited);
    let why = failed(verdict(middle.issue(MOON, key()).own(&[&middle]), trust_ca(&[&root])));
    assert!(why.contains("name constraints"), "{why}");
    // Two of one kind, which no tool makes: the second is renamed. Its signature does not matter, parsing comes first.
    let mut twice = ee_params(MOON);
    twice.custom_extensions =
        [[1, 2, 3, 4], [1, 2, 3, 5]].map(|oid| CustomExtension::from_oid_content(&oid, vec![5, 0])).into();
    let mut der = root.issue_as(&twice, key()).cert.der().to_vec();
    let at = der.windows(5).position(|w| w == [6, 3, 42, 3, 5]).unwrap();
    der[at + 4] = 4;
    assert!(crate::cert::Cert::parse(&der).unwrap_err().to_string().contains("1.2.3.4 twice"));
}

#[test]
fn the_certificate_has_to_speak_for_the_claimed_identity() {
    let root = Ca::new("Root");
    let mut params = ee_params(MOON);
    params.subject_alt_names.push(SanType::Rfc822Name("carol@lab.test".try_into().unwrap()));
    params.subject_alt_names.push(SanType::IpAddress("192.168.0.1".parse().unwrap()));
    params.subject_alt_names.push(SanType::IpAddress("fec0::1".parse().unwrap()));
    let leaf = root.issue_as(&params, key());
    let check = |claimed: &str| {
        let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
        let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
        let mut sun = Side::new(pubkey(SUN, "any", None, trust_ca(&[&root])));
        sun.check(1, "r", SUN, claimed, initiators(Role::Responder), made)
    };
    for claimed in [MOON, "carol@lab.test", "192.168.0.1", "fec0::1", "C=CH, O=Lab, CN=moon.lab.test"] {
        accepted(check(claimed));
    }
    for claimed in
        ["venus.lab.test", "lab.test", "dave@lab.test", "192.168.0.2", "C=CH, O=Lab, CN=venus", "keyid:00"]
    {
        let why = failed(check(claimed));
        assert!(
            why.contains("the certificate speaks for `C=CH, O=Lab, CN=moon.lab.test`, `moon.lab.test`"),
            "{why}"
        );
    }
}

#[test]
fn a_subject_without_alternative_names_speaks_for_itself() {
    let root = Ca::new("Root");
    let mut params = ee_params(MOON);
    params.subject_alt_names.clear();
    let leaf = root.issue_as(&params, key());
    let mut moon =
        Side::new(pubkey("C=CH, O=Lab, CN=moon.lab.test", "any", Some(leaf.own(&[])), Trust::default()));
    assert!(moon.problems.iter().all(|p| !p.what.contains("speaks for")), "{:?}", moon.problems);
    let made = proof(moon.make(1, "r", "C=CH, O=Lab, CN=moon.lab.test", initiators(Role::Initiator)));
    let mut sun = Side::new(pubkey(SUN, "any", None, trust_ca(&[&root])));
    accepted(sun.check(1, "r", SUN, "c=ch, o=lab, cn=MOON.lab.test", initiators(Role::Responder), made));
}

#[test]
fn short_rsa_keys_are_refused_at_both_ends_of_the_path() {
    let rsa = || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let root = Ca::root(ca_params("Root"), rsa());
    let strict = |leaf: Leaf, trust: Trust| {
        let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
        let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
        let mut config = pubkey(SUN, MOON, None, trust);
        config.rules.min_rsa_bits = 3072;
        Side::new(config).check(1, "r", SUN, MOON, initiators(Role::Responder), made)
    };
    accepted(verdict(root.issue(MOON, rsa()).own(&[]), trust_ca(&[&root])));
    let ec = Ca::new("EC root");
    let why = failed(strict(ec.issue(MOON, rsa()), trust_ca(&[&ec])));
    assert!(why.contains("RSA key of 2048 bits, at least 3072"), "{why}");
    failed(strict(root.issue(MOON, key()), trust_ca(&[&root])));
}

/// A public key as rcgen wants it, with any content.
struct Crafted(Vec<u8>);

impl rcgen::PublicKeyData for Crafted {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

#[test]
fn an_rsa_key_with_exponent_zero_or_one_is_refused_wherever_it_comes_from() {
    let root = Ca::new("Root");
    let modulus = [&[2u8, 0x82, 1, 1, 0][..], &[0xff; 256]].concat();
    for exponent in [0, 1] {
        let body = [&modulus[..], &[2, 1, exponent]].concat();
        let rsa = [&[0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8][..], &body].concat();
        let cert = root.sign(&ee_params(MOON), &Crafted(rsa));
        for method in [1, 14] {
            let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
            let certs = vec![CertData { encoding: 4, data: cert.der().to_vec() }];
            let data =
                [&[15, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11, 5, 0][..], &[0; 256]]
                    .concat();
            let proof = PeerProof { method, data, certs };
            let why = failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), proof));
            assert!(why.contains("impossible exponent"), "{why}");
        }
        let spki = crate::key::tests::rsa_spki(&[0xff; 256], &[exponent]);
        let trust = Trust { keys: vec![RawKey { name: "x.pub".into(), spki }], ..Trust::default() };
        let side = Side::new(pubkey(SUN, MOON, None, trust));
        assert!(side.problems.iter().any(|p| p.what.contains("x.pub")), "{:?}", side.problems);
    }
}

#[test]
fn too_many_or_too_large_certificates_are_not_looked_at() {
    let root = Ca::new("Root");
    let leaf = root.issue(MOON, key());
    let check = |certs: Vec<CertData>| {
        let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
        let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
        sun.check(1, "r", SUN, MOON, initiators(Role::Responder), PeerProof { certs, ..made })
    };
    let x509 = |data: Vec<u8>| CertData { encoding: 4, data };
    let own = || x509(leaf.cert.der().to_vec());
    accepted(check(vec![own(); MAX_CERTS]));
    assert!(failed(check(vec![own(); MAX_CERTS + 1])).contains("at most 16"));
    assert!(failed(check(vec![own(), x509(vec![0; 200_000])])).contains("octets of certificates"));
    assert!(failed(check(vec![x509(vec![0x30; 40_000])])).contains("octets, at most"));
    // Garbage that is not needed for the path does no harm; garbage in the first place does.
    accepted(check(vec![own(), x509(vec![]), x509(vec![0x30, 0x80])]));
    failed(check(vec![x509(vec![]), own()]));
    let der = leaf.cert.der().to_vec();
    for cut in (0..der.len()).step_by(7) {
        failed(check(vec![x509(der[..cut].to_vec())]));
    }
}

#[test]
fn certificates_with_any_octet_changed_are_judged_and_not_believed() {
    let root = Ca::new("Root");
    let leaf = root.issue(MOON, key());
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
    let der = leaf.cert.der().to_vec();
    let mut sa = 0;
    for at in 0..der.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bent = der.clone();
            bent[at] ^= change;
            sa += 1;
            let certs = vec![CertData { encoding: 4, data: bent }];
            let proof = PeerProof { method: made.method, data: made.data.clone(), certs };
            failed(sun.check(sa, "r", SUN, MOON, initiators(Role::Responder), proof));
        }
    }
}

#[test]
fn a_maze_of_cross_signed_cas_is_given_up_in_bounded_time() {
    // Sixteen certificates of one name, each issued by that name: every one fits below every other.
    let root = Ca::new("Root");
    let maze: Vec<Ca> = (0..MAX_CERTS - 1)
        .map(|_| {
            let mut params = ca_params("Maze");
            params.use_authority_key_identifier_extension = false;
            Ca::root(params, key())
        })
        .collect();
    let leaf = maze[0].issue(MOON, key());
    let mut certs = vec![CertData { encoding: 4, data: leaf.cert.der().to_vec() }];
    certs.extend(maze.iter().map(|ca| CertData { encoding: 4, data: ca.cert.der().to_vec() }));
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
    let begin = std::time::Instant::now();
    failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), PeerProof { certs, ..made }));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn encodings_other_than_x509_and_raw_keys_are_refused_before_they_are_parsed() {
    let root = Ca::new("Root");
    let leaf = root.issue(MOON, key());
    for encoding in [0, 1, 2, 3, 6, 8, 9, 10, 11, 12, 13, 200] {
        for first in [true, false] {
            let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
            let mut made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
            let odd = CertData { encoding, data: leaf.cert.der().to_vec() };
            made.certs.insert(usize::from(!first), odd);
            let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&root])));
            let why = failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made));
            assert!(
                why.contains("not supported") || why.contains("does not allow the realm to fetch"),
                "{why}"
            );
        }
    }
}

#[test]
fn raw_public_keys_are_believed_by_configuration_alone() {
    let pair = key();
    let moon = || Side::new(pubkey(MOON, "any", Some(bare(&pair)), Trust::default()));
    let made = || proof(moon().make(1, "r", MOON, initiators(Role::Initiator)));
    let sent = [CertData { encoding: 15, data: raw(&pair).spki }];
    assert_eq!(made().certs, sent, "the key itself, for whoever has not seen it (RFC 7670)");
    let trust = |pair: &KeyPair| Trust { keys: vec![raw(&key()), raw(pair)], ..Trust::default() };
    let sun = |remote: &str, trust: Trust| Side::new(pubkey(SUN, remote, None, trust));
    let how = accepted(sun(MOON, trust(&pair)).check(1, "r", SUN, MOON, initiators(Role::Responder), made()));
    assert!(how.contains("public key peer.pub"), "{how}");
    // In a CERT payload of encoding 15 (RFC 7670), and in a certificate nobody vouches for.
    let mut sent = made();
    sent.certs = vec![CertData { encoding: 15, data: raw(&pair).spki }];
    accepted(sun(MOON, trust(&pair)).check(1, "r", SUN, MOON, initiators(Role::Responder), sent));
    let mut wrapped = made();
    let cert = ee_params(MOON).self_signed(&pair).unwrap();
    wrapped.certs = vec![CertData { encoding: 4, data: cert.der().to_vec() }];
    accepted(sun(MOON, trust(&pair)).check(1, "r", SUN, MOON, initiators(Role::Responder), wrapped));
    // Another key, a key for somebody else, a key when anybody is welcome.
    let mut unknown = made();
    unknown.certs = vec![CertData { encoding: 15, data: raw(&pair).spki }];
    failed(sun(MOON, trust(&key())).check(1, "r", SUN, MOON, initiators(Role::Responder), unknown));
    failed(sun(MOON, trust(&key())).check(1, "r", SUN, MOON, initiators(Role::Responder), made()));
    failed(sun(MOON, trust(&pair)).check(1, "r", SUN, "venus.lab.test", initiators(Role::Responder), made()));
    failed(sun("any", trust(&pair)).check(1, "r", SUN, MOON, initiators(Role::Responder), made()));
}

#[test]
fn a_pinned_certificate_is_believed_while_it_is_valid() {
    let pair = key();
    let mut params = ee_params(MOON);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let cert = params.self_signed(&pair).unwrap();
    let leaf = Leaf { cert, key: pair };
    let trust = || Trust { pinned: vec![leaf.named()], ..Trust::default() };
    let how = accepted(verdict(leaf.own(&[]), trust()));
    assert!(how.contains("pinned certificate of C=CH, O=Lab, CN=moon.lab.test"), "{how}");
    // The peer need not send what we have.
    accepted(verdict(bare(&leaf.key), trust()));
    let fresh = key();
    let other = Leaf { cert: params.self_signed(&fresh).unwrap(), key: fresh };
    let why = failed(verdict(other.own(&[]), trust()));
    assert!(why.contains("not one the realm believes"), "{why}");
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust()));
    sun.at = now() + Duration::from_secs(10 * 365 * 86400);
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    assert!(failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made)).contains("expired"));
    // Where many identities are welcome, the certificate has to name the one claimed.
    let check = |claimed: &str| {
        let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
        let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
        let mut sun = Side::new(pubkey(SUN, "any", None, trust()));
        sun.check(1, "r", SUN, claimed, initiators(Role::Responder), made)
    };
    accepted(check(MOON));
    failed(check("venus.lab.test"));
}

#[test]
fn a_self_signed_certificate_is_not_believed_because_it_says_so() {
    let root = Ca::new("Root");
    let pair = key();
    let mut params = ee_params(MOON);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let leaf = Leaf { cert: params.self_signed(&pair).unwrap(), key: pair };
    failed(verdict(leaf.own(&[]), trust_ca(&[&root])));
}

#[test]
fn certificates_of_strongswans_pki_are_believed() {
    let Some(files) = pki() else { return };
    let load = |name: &str| std::fs::read(files.join(name)).unwrap();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let anchors = crate::load::certificates("ca.pem", &load(&format!("ca-{kind}.pem"))).unwrap();
        let certs = crate::load::certificates("moon.pem", &load(&format!("moon-{kind}.pem"))).unwrap();
        let source =
            crate::load::private_key("moon.key", &spi::Secret::new(load(&format!("moon-{kind}.key"))))
                .unwrap();
        let certs = certs.into_iter().map(Into::into).collect();
        let own = crate::config::OwnKey { name: "moon.key".into(), source, certs, url: None };
        // `pki` dates certificates from today on.
        let mut moon = Side::new(pubkey(MOON, "any", Some(own), Trust::default()));
        let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
        let mut sun = Side::new(pubkey(SUN, MOON, None, Trust { anchors, ..Trust::default() }));
        sun.at = std::time::SystemTime::now() + Duration::from_secs(60);
        accepted(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made));
    }
    std::fs::remove_dir_all(files).unwrap();
}

/// A CA and a certificate of moon for three kinds of keys, by strongSwan's `pki`.
fn pki() -> Option<std::path::PathBuf> {
    let dir = std::env::temp_dir().join(format!("tussock-pki-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut script = String::from("set -e\n");
    for (kind, size) in [("rsa", "rsa --size 2048"), ("ecdsa", "ecdsa --size 256"), ("ed25519", "ed25519")] {
        script += &format!(
            "pki --gen --type {size} --outform pem > ca-{kind}.key\n\
             pki --self --ca --in ca-{kind}.key --type priv --dn 'C=CH, O=Lab, CN={kind} CA' --outform pem > ca-{kind}.pem\n\
             pki --gen --type {size} --outform pem > moon-{kind}.key\n\
             pki --pub --in moon-{kind}.key --type priv | pki --issue --type pub --cacert ca-{kind}.pem --cakey ca-{kind}.key \
                 --dn 'C=CH, O=Lab, CN=moon.lab.test' --san moon.lab.test --flag serverAuth --outform pem > moon-{kind}.pem\n"
        );
    }
    let made = std::process::Command::new("sh").arg("-c").arg(script).current_dir(&dir).output().unwrap();
    if made.status.success() {
        return Some(dir);
    }
    eprintln!("SKIPPED: strongSwan's pki made no certificates: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::remove_dir_all(dir).unwrap();
    None
}
