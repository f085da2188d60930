//! Proofs go round, by every method and scheme; wrong ones do not, and say why to the operator alone.

use ipc::{CertData, Offered, PeerProof, Refusal, Reply, Role};
use openssl::rsa::Padding;
use policy::AuthPolicy;
use rcgen::{KeyPair, RsaKeySize};
use spi::Hash;

use crate::config::{Config, Rules, Trust};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";

fn psk_side(local: &str, remote: &str, secret: &str) -> Side {
    let realm = realm("r", local, remote, AuthPolicy::Psk).into();
    Side::new(Config { realms: vec![realm], psks: vec![psk(&[MOON, SUN], secret)], ..Config::default() })
}

fn rsa() -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
}

fn offered(hashes: &[Hash]) -> Offered {
    Offered { hashes: hashes.to_vec(), ..Offered::default() }
}

#[test]
fn psk_proves_both_sides() {
    let (mut moon, mut sun) = (psk_side(MOON, SUN, "lab-psk"), psk_side(SUN, MOON, "lab-psk"));
    let by_moon = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    assert_eq!((by_moon.method, by_moon.data.len(), by_moon.certs.len()), (2, 32, 0));
    assert_eq!(&*accepted(sun.check(9, "r", SUN, MOON, initiators(Role::Responder), by_moon)), "PSK");
    let by_sun = proof(sun.make(9, "r", SUN, responders(Role::Responder)));
    accepted(moon.check(1, "r", MOON, SUN, responders(Role::Initiator), by_sun));
}

#[test]
fn wrong_psk_and_unknown_identity_differ_for_the_operator_and_not_on_the_wire() {
    let mut moon = psk_side(MOON, SUN, "lab-psk");
    let by_moon = || proof(psk_side(MOON, SUN, "lab-psk").make(1, "r", MOON, initiators(Role::Initiator)));
    let mut sun = psk_side(SUN, "any", "another");
    let wrong = failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), by_moon()));
    let unknown = failed(sun.check(2, "r", SUN, "venus.lab.test", initiators(Role::Responder), by_moon()));
    assert!(wrong.contains("another pre-shared key"), "{wrong}");
    assert!(unknown.contains("no pre-shared key"), "{unknown}");
    let mut strict = psk_side(SUN, "venus.lab.test", "lab-psk");
    let stranger = failed(strict.check(1, "r", SUN, MOON, initiators(Role::Responder), by_moon()));
    assert!(stranger.contains("whom the realm accepts"), "{stranger}");
    for text in [wrong, unknown, stranger] {
        assert!(!text.contains("lab-psk") && !text.contains("another`"), "no secret in {text}");
    }
    // Cut, empty, and the proof of the other direction.
    for data in [vec![], by_moon().data[..31].to_vec(), [by_moon().data, vec![0]].concat()] {
        let mut sun = psk_side(SUN, MOON, "lab-psk");
        failed(sun.check(
            1,
            "r",
            SUN,
            MOON,
            initiators(Role::Responder),
            PeerProof { method: 2, data, certs: vec![] },
        ));
    }
    let mirrored = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    failed(moon.check(1, "r", MOON, SUN, responders(Role::Initiator), mirrored));
}

#[test]
fn no_secret_means_no_proof() {
    let realm = std::sync::Arc::new(realm("r", MOON, SUN, AuthPolicy::Psk));
    let psks = vec![psk(&[MOON, "venus.lab.test"], "x"), psk(&[], "")];
    let mut moon = Side::new(Config { realms: vec![realm], psks, ..Config::default() });
    assert!(moon.problems[0].what.contains("no pre-shared key for"), "{:?}", moon.problems);
    let request = ipc::Request::MakeAuth {
        sa: ipc::IkeSaRef(1),
        realm: "r".into(),
        own_id: id(MOON),
        peer_id: Some(id(SUN)),
        input: initiators(Role::Initiator),
        offered: Offered::default(),
    };
    assert!(matches!(refusal(moon.ask(request)), Refusal::NoCredential(_)));
    // The empty secret does not stand in.
    let forged = psk_side(SUN, MOON, "");
    assert!(forged.problems[0].what.contains("no pre-shared key at all"));
}

#[test]
fn every_kind_of_key_proves_itself_with_every_hash_it_may_use() {
    let ca = Ca::new("CA");
    let sha2 = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    let ecdsa =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512];
    let mut cases: Vec<(KeyPair, Vec<Hash>, bool)> =
        vec![(rsa(), sha2.to_vec(), true), (rsa(), sha2.to_vec(), false)];
    cases.extend(ecdsa.map(|alg| (KeyPair::generate_for(alg).unwrap(), sha2.to_vec(), true)));
    cases.push((KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), vec![Hash::Identity], true));
    let mut seen = Vec::new();
    for (key, hashes, rsa_pss) in cases {
        let leaf = ca.issue(MOON, key);
        let mut config = pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default());
        config.rules.rsa_pss = rsa_pss;
        let mut moon = Side::new(config);
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&ca])));
        for (n, hash) in hashes.into_iter().enumerate() {
            let n = n as u64;
            let made = proof(moon.make_offered(n, "r", MOON, initiators(Role::Initiator), offered(&[hash])));
            assert_eq!((made.method, made.certs.len()), (14, 1));
            let mut bent = PeerProof { method: 14, data: made.data.clone(), certs: made.certs.clone() };
            *bent.data.last_mut().unwrap() ^= 1;
            let how = accepted(sun.check(n, "r", SUN, MOON, initiators(Role::Responder), made));
            assert!(how.ends_with("certificate of C=CH, O=Lab, CN=moon.lab.test"), "{how}");
            let why = failed(sun.check(100 + n, "r", SUN, MOON, initiators(Role::Responder), bent));
            assert!(why.contains("does not verify"), "{why}");
            seen.push(how.split(',').next().unwrap().to_owned());
        }
    }
    assert_eq!(
        seen,
        [
            "RSA-2048 PSS SHA2-256",
            "RSA-2048 PSS SHA2-384",
            "RSA-2048 PSS SHA2-512",
            "RSA-2048 PKCS #1 SHA2-256",
            "RSA-2048 PKCS #1 SHA2-384",
            "RSA-2048 PKCS #1 SHA2-512",
            "ECDSA P-256 SHA2-256",
            "ECDSA P-256 SHA2-384",
            "ECDSA P-256 SHA2-512",
            "ECDSA P-384 SHA2-256",
            "ECDSA P-384 SHA2-384",
            "ECDSA P-384 SHA2-512",
            "ECDSA P-521 SHA2-256",
            "ECDSA P-521 SHA2-384",
            "ECDSA P-521 SHA2-512",
            "Ed25519"
        ]
    );
}

#[test]
fn peers_without_rfc_7427_are_met_with_the_methods_of_rfc_4754() {
    let ca = Ca::new("CA");
    for (alg, method, len) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, 9, 64),
        (&rcgen::PKCS_ECDSA_P384_SHA384, 10, 96),
        (&rcgen::PKCS_ECDSA_P521_SHA512, 11, 132),
    ] {
        let leaf = ca.issue(MOON, KeyPair::generate_for(alg).unwrap());
        let mut moon = Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()));
        let made = proof(moon.make_offered(1, "r", MOON, initiators(Role::Initiator), offered(&[])));
        assert_eq!((made.method, made.data.len()), (method, len));
        let cut = PeerProof { data: made.data[1..].to_vec(), certs: made.certs.clone(), ..made };
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&ca])));
        accepted(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made));
        failed(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), cut));
    }
    let mut moon = Side::new(pubkey(MOON, SUN, Some(ca.issue(MOON, rsa()).own(&[])), Trust::default()));
    let why = refusal(moon.make_offered(1, "r", MOON, initiators(Role::Initiator), offered(&[])));
    assert!(matches!(&why, Refusal::NoCredential(why) if why.contains("SHA-1")), "{why}");
}

/// AUTH data of method 1 made by hand: any encoding at all, raised to the private exponent.
fn raw_rsa(key: &KeyPair, encoded: &[u8]) -> Vec<u8> {
    let key = openssl::pkey::PKey::private_key_from_der(key.serialized_der()).unwrap().rsa().unwrap();
    let mut out = vec![0; 256];
    key.private_encrypt(encoded, &mut out, Padding::NONE).unwrap();
    out
}

/// EMSA-PKCS1-v1_5 with as much padding as there is room for, then `tail`, then the rest as zeroes.
fn pkcs1(tail: &[u8], padding: usize) -> Vec<u8> {
    let mut out = vec![0, 1];
    out.resize(2 + padding, 0xff);
    out.push(0);
    out.extend_from_slice(tail);
    out.resize(256, 0);
    out
}

#[test]
fn method_1_takes_sha2_and_no_forged_encoding() {
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, rsa());
    let input = initiators(Role::Initiator);
    let octets = [&input.message[..], &input.nonce, &input.maced_id].concat();
    let sha256 = openssl::sha::sha256(&octets);
    let sha1 = openssl::sha::sha1(&octets);
    const SHA256: [u8; 19] =
        [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    const SHA1: [u8; 15] = [0x30, 0x21, 0x30, 9, 6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0, 4, 0x14];
    let info = [&SHA256[..], &sha256].concat();
    let full = pkcs1(&info, 256 - 3 - info.len());
    let check = |data: Vec<u8>, rules: Rules| {
        let mut config = pubkey(SUN, MOON, None, trust_ca(&[&ca]));
        config.rules = rules;
        let certs = vec![CertData { encoding: 4, data: leaf.cert.der().to_vec() }];
        Side::new(config).check(
            1,
            "r",
            SUN,
            MOON,
            initiators(Role::Responder),
            PeerProof { method: 1, data, certs },
        )
    };
    let strict = Rules::default();
    let how = accepted(check(raw_rsa(&leaf.key, &full), strict));
    assert!(how.starts_with("RSA-2048 PKCS #1 SHA2-256"), "{how}");
    let info1 = [&SHA1[..], &sha1].concat();
    let with_sha1 = raw_rsa(&leaf.key, &pkcs1(&info1, 256 - 3 - info1.len()));
    failed(check(with_sha1.clone(), strict));
    let lax = Rules { rsa_sha1: true, ..strict };
    assert!(accepted(check(with_sha1, lax)).contains("SHA-1"));
    // A hash cut short, the rest of the block whatever was convenient; short padding with a tail (Bleichenbacher 2006);
    // no DigestInfo; a digest of something else; an empty and an overlong block.
    let mut short = info[..info.len() - 8].to_vec();
    short[1] -= 8;
    short[18] -= 8;
    for forged in [
        pkcs1(&short, 256 - 3 - short.len()),
        pkcs1(&info, 8),
        pkcs1(&sha256, 256 - 3 - 32),
        pkcs1(&[&SHA256[..], &[0; 32]].concat(), 256 - 3 - info.len()),
    ] {
        failed(check(raw_rsa(&leaf.key, &forged), lax));
    }
    let pair = openssl::pkey::PKey::private_key_from_der(leaf.key.serialized_der()).unwrap().rsa().unwrap();
    failed(check(pair.n().to_vec(), lax));
    for data in [vec![], vec![0], vec![0; 256], vec![1; 255], vec![0xff; 512]] {
        failed(check(data, lax));
    }
}

#[test]
fn garbage_in_place_of_a_signature_is_refused_whatever_its_method() {
    let ca = Ca::new("CA");
    let keys = [KeyPair::generate().unwrap(), KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(), rsa()];
    for key in keys {
        let leaf = ca.issue(MOON, key);
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&ca])));
        let mut sa = 0;
        for method in [0u8, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15, 255] {
            for data in
                [vec![], vec![0], vec![255; 64], vec![7; 96], [&[5, 0x30, 3, 6, 1, 1][..], &[0; 64]].concat()]
            {
                sa += 1;
                let certs = vec![CertData { encoding: 4, data: leaf.cert.der().to_vec() }];
                let proof = PeerProof { method, data, certs };
                failed(sun.check(sa, "r", SUN, MOON, initiators(Role::Responder), proof));
            }
        }
    }
}

#[test]
fn a_hash_we_did_not_announce_is_refused_even_if_the_signature_is_good() {
    // ecdsa-with-SHA1 by a good key: made with OpenSSL, since no device of ours makes it.
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, KeyPair::generate().unwrap());
    let key = openssl::pkey::PKey::private_key_from_der(leaf.key.serialized_der()).unwrap();
    let input = initiators(Role::Initiator);
    let octets = [&input.message[..], &input.nonce, &input.maced_id].concat();
    let sign = |digest| {
        let mut signer = openssl::sign::Signer::new(digest, &key).unwrap();
        signer.sign_oneshot_to_vec(&octets).unwrap()
    };
    let check = |identifier: &[u8], signature: Vec<u8>| {
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&ca])));
        let certs = vec![CertData { encoding: 4, data: leaf.cert.der().to_vec() }];
        let data = [&[identifier.len() as u8][..], identifier, &signature].concat();
        sun.check(1, "r", SUN, MOON, initiators(Role::Responder), PeerProof { method: 14, data, certs })
    };
    let sha256 = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    accepted(check(&sha256, sign(openssl::hash::MessageDigest::sha256())));
    let sha1 = [0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
    let why = failed(check(&sha1, sign(openssl::hash::MessageDigest::sha1())));
    assert!(why.contains("not announced"), "{why}");
}

#[test]
fn the_realm_says_whether_a_psk_or_a_signature_is_wanted() {
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, KeyPair::generate().unwrap());
    let signed = proof(Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default())).make(
        1,
        "r",
        MOON,
        initiators(Role::Initiator),
    ));
    let shared = proof(psk_side(MOON, SUN, "lab-psk").make(1, "r", MOON, initiators(Role::Initiator)));
    let mut wants_psk = psk_side(SUN, MOON, "lab-psk");
    assert!(
        failed(wants_psk.check(1, "r", SUN, MOON, initiators(Role::Responder), signed))
            .contains("wants a PSK")
    );
    let mut config = pubkey(SUN, MOON, None, trust_ca(&[&ca]));
    config.psks.push(psk(&[MOON, SUN], "lab-psk"));
    let why = failed(Side::new(config).check(1, "r", SUN, MOON, initiators(Role::Responder), shared));
    assert!(why.contains("wants a signature"), "{why}");
}

#[test]
fn intermediates_go_along_and_roots_and_what_the_peer_has_do_not() {
    let root = Ca::new("Root");
    let middle = root.sub(ca_params("Middle"));
    let low = middle.sub(ca_params("Low"));
    let leaf = low.issue(MOON, KeyPair::generate().unwrap());
    let own = || leaf.own(&[&low, &middle, &root]);
    let sent = |authorities: Vec<[u8; 20]>| {
        let mut moon = Side::new(pubkey(MOON, SUN, Some(own()), Trust::default()));
        let offered = Offered { hashes: vec![Hash::Sha256], authorities, ..Offered::default() };
        proof(moon.make_offered(1, "r", MOON, initiators(Role::Initiator), offered)).certs.len()
    };
    let hash = |ca: &Ca| {
        let cert = openssl::x509::X509::from_der(ca.cert.der()).unwrap();
        openssl::sha::sha1(&cert.public_key().unwrap().public_key_to_der().unwrap())
    };
    assert_eq!(sent(vec![]), 3, "leaf, low, middle");
    assert_eq!(sent(vec![hash(&root)]), 3);
    assert_eq!(sent(vec![[7; 20], hash(&middle)]), 2, "the peer has the middle one");
    assert_eq!(sent(vec![hash(&low)]), 1);
    let config = pubkey(SUN, MOON, None, trust_ca(&[&root, &middle]));
    let short = devices()[0].short_ops().unwrap();
    let authorities = crate::authorities(&config, &*short);
    assert_eq!(authorities["r"].authorities, [hash(&root), hash(&middle)]);
    accepted(verdict(own(), trust_ca(&[&root])));
}

#[test]
fn many_proofs_are_under_way_at_once_and_each_gets_its_own_answer() {
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, rsa());
    let mut moon = Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()));
    for n in 0..40 {
        let request = ipc::Request::MakeAuth {
            sa: ipc::IkeSaRef(n),
            realm: "r".into(),
            own_id: id(MOON),
            peer_id: None,
            input: initiators(Role::Initiator),
            offered: offered(&[Hash::Sha256]),
        };
        assert!(moon.authority.handle(now(), spi::Token(1000 + n), request).is_none());
    }
    assert!(moon.authority.poll_reply().is_none(), "nothing is done before the device was polled");
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 40 {
        moon.authority.poll();
        while let Some((token, reply)) = moon.authority.poll_reply() {
            assert!(matches!(reply, Reply::Proof { .. }) && answered.insert(token.0));
        }
    }
    assert_eq!(answered, (1000..1040).collect());
}
