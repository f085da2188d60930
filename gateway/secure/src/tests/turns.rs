//! What may be asked when, as the whole side sees it; and what a configuration is told is wrong with it.

use std::sync::Arc;

use ipc::{IkeSaRef, Refusal, Request, Role};
use policy::AuthPolicy;
use rcgen::KeyPair;

use crate::config::{Config, Trust};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";

fn psk_side(local: &str, remote: &str) -> Side {
    let realm = Arc::new(realm("r", local, remote, AuthPolicy::Psk));
    Side::new(Config { realms: vec![realm], psks: vec![psk(&[MOON, SUN], "lab-psk")], ..Config::default() })
}

fn out_of_turn(reply: ipc::Reply) -> bool {
    matches!(refusal(reply), Refusal::OutOfTurn(_))
}

#[test]
fn a_proof_is_made_once_until_the_ike_sa_is_forgotten() {
    let mut moon = psk_side(MOON, SUN);
    proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    assert!(out_of_turn(moon.make(1, "r", MOON, initiators(Role::Initiator))));
    proof(moon.make(2, "r", MOON, initiators(Role::Initiator)));
    let token = spi::Token(77);
    assert!(moon.authority.handle(now(), token, Request::Forget { sa: IkeSaRef(1) }).is_none());
    assert!(moon.authority.poll_reply().is_none(), "forgetting has no answer");
    proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
}

#[test]
fn a_responder_is_silent_towards_strangers() {
    let mut sun = psk_side(SUN, MOON);
    assert!(out_of_turn(sun.make(1, "r", SUN, responders(Role::Responder))));
    let bad = ipc::PeerProof { method: 2, data: vec![0; 32], certs: vec![] };
    failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), bad));
    assert!(out_of_turn(sun.make(1, "r", SUN, responders(Role::Responder))));
    let good = || proof(psk_side(MOON, SUN).make(1, "r", MOON, initiators(Role::Initiator)));
    assert!(out_of_turn(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), good())), "one guess each");
    accepted(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), good()));
    proof(sun.make(2, "r", SUN, responders(Role::Responder)));
}

#[test]
fn proofs_of_two_exchanges_do_not_meet_in_one_ike_sa() {
    let mut moon = psk_side(MOON, SUN);
    proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    let mut other = responders(Role::Initiator);
    other.nonce = vec![8; 32];
    let bad = ipc::PeerProof { method: 2, data: vec![0; 32], certs: vec![] };
    assert!(out_of_turn(moon.check(1, "r", MOON, SUN, other, bad)));
}

#[test]
fn only_ike_sa_init_messages_and_only_our_own_identity_are_signed() {
    let mut moon = psk_side(MOON, SUN);
    let refused = |reply| matches!(refusal(reply), Refusal::NotAllowed(_));
    let mut tls = initiators(Role::Initiator);
    tls.message = b"TLS 1.3, server CertificateVerify".to_vec();
    assert!(refused(moon.make(1, "r", MOON, tls)));
    assert!(refused(moon.make(1, "r", MOON, responders(Role::Initiator))), "the peer's message");
    assert!(refused(moon.make(1, "r", SUN, initiators(Role::Initiator))), "not our name");
    assert!(refused(moon.make(1, "other", MOON, initiators(Role::Initiator))), "no such realm");
    proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
}

#[test]
fn problems_name_the_realm_and_what_is_wrong() {
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, KeyPair::generate().unwrap());
    let says = |config: Config, what: &str| {
        let side = Side::new(config);
        assert!(
            side.problems.iter().any(|p| *p.realm == *"r" && p.what.contains(what)),
            "{what}: {:?}",
            side.problems
        );
    };
    assert_eq!(Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), trust_ca(&[&ca]))).problems, []);
    says(
        pubkey(SUN, MOON, Some(leaf.own(&[])), trust_ca(&[&ca])),
        "speaks for `C=CH, O=Lab, CN=moon.lab.test`, `moon.lab.test`, not for",
    );
    let mut strange = leaf.own(&[]);
    strange.source = bare(&KeyPair::generate().unwrap()).source;
    says(pubkey(MOON, SUN, Some(strange), trust_ca(&[&ca])), "does not belong to the private key");
    let mut garbage = leaf.own(&[]);
    garbage.source = spi::KeySource::Der(spi::Secret::from_slice(b"garbage"));
    says(pubkey(MOON, SUN, Some(garbage), trust_ca(&[&ca])), "cannot be opened");
    says(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()), "no peer can be believed");
    let no_ca = Trust { anchors: vec![leaf.named()], ..Trust::default() };
    says(pubkey(MOON, SUN, Some(leaf.own(&[])), no_ca), "is not a CA's");
    let raw_for_all = Trust { keys: vec![raw(&KeyPair::generate().unwrap())], ..Trust::default() };
    says(pubkey(MOON, "any", Some(leaf.own(&[])), raw_for_all), "needs one `id`");
    let mut missing = pubkey(MOON, SUN, None, trust_ca(&[&ca]));
    missing.realms = vec![Arc::new(realm("r", MOON, SUN, AuthPolicy::Pubkey))];
    says(missing, "wants a key and there is none");
    let mut stray = pubkey(MOON, SUN, Some(leaf.own(&[])), trust_ca(&[&ca]));
    stray.credentials.insert("gone".into(), Default::default());
    assert!(Side::new(stray).problems.iter().any(|p| *p.realm == *"gone"));
}

#[test]
fn reload_changes_what_is_believed_and_keeps_what_was_asked() {
    let (old, new) = (Ca::new("Old"), Ca::new("New"));
    let leaf = new.issue(MOON, KeyPair::generate().unwrap());
    let mut moon = Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()));
    let signed = || {
        let mut moon = Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()));
        proof(moon.make(1, "r", MOON, initiators(Role::Initiator)))
    };
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&old])));
    failed(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), signed()));
    assert!(
        sun.authority
            .reload(pubkey(SUN, MOON, None, trust_ca(&[&new])), now())
            .iter()
            .all(|p| p.what.contains("pre-shared"))
    );
    assert!(
        out_of_turn(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), signed())),
        "the table stays"
    );
    accepted(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), signed()));
    // A signature that is out while its key is closed by a reload is made all the same, with the key of the same name.
    let request = Request::MakeAuth {
        sa: IkeSaRef(5),
        realm: "r".into(),
        own_id: id(MOON),
        peer_id: None,
        input: initiators(Role::Initiator),
        offered: ipc::Offered { hashes: vec![spi::Hash::Sha256], ..ipc::Offered::default() },
    };
    moon.authority.handle(now(), spi::Token(900), request);
    moon.authority.reload(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()), now());
    let reply = loop {
        moon.authority.poll();
        if let Some((token, reply)) = moon.authority.poll_reply() {
            assert_eq!(token, spi::Token(900));
            break reply;
        }
    };
    let made = proof(reply);
    accepted(sun.check(3, "r", SUN, MOON, initiators(Role::Responder), made));
}

#[test]
fn a_signature_survives_the_reset_of_its_device() {
    let ca = Ca::new("CA");
    let leaf = ca.issue(MOON, KeyPair::generate().unwrap());
    let devices = devices();
    let mut moon = Side::on(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()), devices.clone());
    let request = Request::MakeAuth {
        sa: IkeSaRef(1),
        realm: "r".into(),
        own_id: id(MOON),
        peer_id: None,
        input: initiators(Role::Initiator),
        offered: ipc::Offered { hashes: vec![spi::Hash::Sha256], ..ipc::Offered::default() },
    };
    moon.authority.handle(now(), spi::Token(1), request);
    devices[0].begin_reset();
    let reply = loop {
        moon.authority.poll();
        if let Some((_, reply)) = moon.authority.poll_reply() {
            break reply;
        }
    };
    let made = proof(reply);
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&ca])));
    accepted(sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made));
    // The handle is stale for good; the next proof opens the key anew.
    proof(moon.make(2, "r", MOON, initiators(Role::Initiator)));
}

#[test]
fn other_rules_for_certificates_count_from_the_reload_on() {
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let ca = Ca::root(ca_params("CA"), rsa);
    let leaf = ca.issue(MOON, KeyPair::generate().unwrap());
    let signed = || {
        let mut moon = Side::new(pubkey(MOON, SUN, Some(leaf.own(&[])), Trust::default()));
        proof(moon.make(1, "r", MOON, initiators(Role::Initiator)))
    };
    let config = |bits| {
        let mut config = pubkey(SUN, MOON, None, trust_ca(&[&ca]));
        config.rules.min_rsa_bits = bits;
        config
    };
    let mut sun = Side::new(config(2048));
    let begun = Request::CheckAuth {
        sa: IkeSaRef(1),
        realms: vec!["r".into()],
        asked: Some(id(SUN)),
        peer_id: id(MOON),
        input: initiators(Role::Responder),
        proof: signed(),
    };
    sun.authority.handle(now(), spi::Token(500), begun);
    sun.authority.reload(config(3072), now());
    let reply = loop {
        sun.authority.poll();
        if let Some((_, reply)) = sun.authority.poll_reply() {
            break reply;
        }
    };
    accepted(reply);
    failed(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), signed()));
    sun.authority.reload(config(2048), now());
    accepted(sun.check(3, "r", SUN, MOON, initiators(Role::Responder), signed()));
}
