//! OCSP, each answer made by OpenSSL's responder; certificates by URL; and which of our own certificates goes out.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ipc::{CertData, Offered, PeerProof, Reply, Role};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SerialNumber};

use super::status::Server;
use crate::config::{Certificate, Config, Lookups, Revocation, RevocationMode, Trust};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";

/// OpenSSL's responder, a process for each answer, for certificates 1 (good), 7 (revoked); others it does not know.
struct Responder {
    dir: PathBuf,
}

impl Responder {
    fn new(ca: &Ca, signer: (&str, &str)) -> Arc<Responder> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("tussock-ocsp-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let index = "V\t401231235959Z\t\t01\tunknown\t/CN=a\nR\t401231235959Z\t260203000000Z,keyCompromise\t07\tunknown\t/CN=b\n";
        for (name, text) in [
            ("index.txt", index),
            ("ca.pem", &ca.cert.pem()),
            ("signer.pem", signer.0),
            ("signer.key", signer.1),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        Arc::new(Responder { dir })
    }

    fn of_ca(ca: &Ca) -> Arc<Responder> {
        Responder::new(ca, (&ca.cert.pem(), &ca.key_pem()))
    }

    fn of(ca: &Ca, leaf: &Leaf) -> Arc<Responder> {
        Responder::new(ca, (&leaf.cert.pem(), &leaf.key.serialize_pem()))
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        fs::write(self.dir.join("question.der"), question).unwrap();
        let done = Command::new("openssl")
            .args([
                "ocsp",
                "-index",
                "index.txt",
                "-CA",
                "ca.pem",
                "-rsigner",
                "signer.pem",
                "-rkey",
                "signer.key",
            ])
            .args(["-reqin", "question.der", "-respout", "answer.der", "-ndays", "1"])
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::read(self.dir.join("answer.der")).unwrap()
    }

    fn serve(self: &Arc<Self>) -> Server {
        let (one, me) = (Mutex::new(()), Arc::clone(self));
        Server::new(Box::new(move |_, question| {
            let _one = one.lock().unwrap();
            Some((200, me.answer(question)))
        }))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn leaf(ca: &Ca, serial: u8) -> Leaf {
    let mut params = ee_params(MOON);
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    ca.issue_as(&params, KeyPair::generate().unwrap())
}

fn trust(ca: &Ca, mode: RevocationMode, url: Option<String>, signers: Vec<Certificate>) -> Trust {
    Trust { revocation: Revocation { mode, ocsp: url, signers, ..Revocation::default() }, ..trust_ca(&[ca]) }
}

/// What sun says of moon, at this moment and not at that of the recorded certificates: OpenSSL's clock is this one.
fn judged(leaf: &Leaf, trust: Trust, at: SystemTime) -> Reply {
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let made = proof(moon.make(1, "r", MOON, initiators(Role::Initiator)));
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust));
    sun.at = at;
    sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made)
}

#[test]
fn a_responder_says_who_was_revoked_and_who_was_not() {
    let ca = Ca::new("CA");
    let server = Responder::of_ca(&ca).serve();
    let trust = |mode| trust(&ca, mode, Some(server.url("")), vec![]);
    let now = SystemTime::now();
    for mode in [RevocationMode::Strict, RevocationMode::Relaxed] {
        accepted(judged(&leaf(&ca, 1), trust(mode), now));
        let why = failed(judged(&leaf(&ca, 7), trust(mode), now));
        assert!(why.contains("was revoked on 2026-02-03") && why.contains("key compromise"), "{why}");
    }
    let why = failed(judged(&leaf(&ca, 9), trust(RevocationMode::Strict), now));
    assert!(why.contains("does not know the certificate"), "{why}");
    accepted(judged(&leaf(&ca, 9), trust(RevocationMode::Relaxed), now));
}

#[test]
fn only_whom_the_ca_or_the_operator_named_may_answer() {
    let (ca, other) = (Ca::new("CA"), Ca::new("Other"));
    let signer = |ca: &Ca, usage: Option<ExtendedKeyUsagePurpose>| {
        let mut params = ee_params("ocsp.lab.test");
        params.extended_key_usages = usage.into_iter().collect();
        ca.issue_as(&params, KeyPair::generate().unwrap())
    };
    let now = SystemTime::now();
    let ask = |signer: &Leaf, serial, signers| {
        let server = Responder::of(&ca, signer).serve();
        judged(&leaf(&ca, serial), trust(&ca, RevocationMode::Strict, Some(server.url("")), signers), now)
    };
    let delegate = signer(&ca, Some(ExtendedKeyUsagePurpose::OcspSigning));
    accepted(ask(&delegate, 1, vec![]));
    assert!(failed(ask(&delegate, 7, vec![])).contains("was revoked"));
    let plain = signer(&ca, None);
    assert!(failed(ask(&plain, 1, vec![])).contains("no OCSPSigning"));
    let stranger = signer(&other, Some(ExtendedKeyUsagePurpose::OcspSigning));
    assert!(failed(ask(&stranger, 1, vec![])).contains("no certificate of the CA"));
    accepted(ask(&stranger, 1, vec![stranger.named()]));
    // A CA of the same name with another key.
    let fake = Ca::new("CA");
    let forged = signer(&fake, Some(ExtendedKeyUsagePurpose::OcspSigning));
    assert!(failed(ask(&forged, 1, vec![])).contains("signature is wrong"));
}

#[test]
fn old_foreign_and_broken_answers_are_no_status() {
    let ca = Ca::new("CA");
    let responder = Responder::of_ca(&ca);
    let kept = Arc::new(Mutex::new(None::<Vec<u8>>));
    let (first, me) = (Arc::clone(&kept), Arc::clone(&responder));
    // Whatever is asked: the answer to the first question.
    let replayed = Server::new(Box::new(move |_, question| {
        let mut kept = first.lock().unwrap();
        Some((200, kept.get_or_insert_with(|| me.answer(question)).clone()))
    }));
    let now = SystemTime::now();
    let strict = |url: String| trust(&ca, RevocationMode::Strict, Some(url), vec![]);
    let good = leaf(&ca, 1);
    accepted(judged(&good, strict(replayed.url("")), now));
    let why = failed(judged(&good, strict(replayed.url("")), now));
    assert!(why.contains("to another question"), "{why}");
    let answer = kept.lock().unwrap().clone().unwrap();
    let with = |sa: u64, octets: Vec<u8>, leaf: &Leaf, at: SystemTime| {
        let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
        let mut made: PeerProof = proof(moon.make(sa, "r", MOON, initiators(Role::Initiator)));
        made.certs.push(CertData { encoding: 14, data: octets });
        let mut sun = Side::new(pubkey(SUN, MOON, None, trust(&ca, RevocationMode::Strict, None, vec![])));
        sun.at = at;
        sun.check(sa, "r", SUN, MOON, initiators(Role::Responder), made)
    };
    // What a peer sends along needs no nonce, but it has to be young and about the peer.
    accepted(with(1, answer.clone(), &good, now));
    let why = failed(with(2, answer.clone(), &good, now + Duration::from_secs(3 * 86_400)));
    assert!(why.contains("was good until"), "{why}");
    let why = failed(with(3, answer.clone(), &good, now - Duration::from_secs(86_400)));
    assert!(why.contains("of the future"), "{why}");
    let why = failed(with(4, answer.clone(), &leaf(&ca, 2), now));
    assert!(why.contains("about another certificate"), "{why}");
    for end in [0, 1, 10, answer.len() / 2, answer.len() - 1] {
        failed(with(5, answer[..end].to_vec(), &good, now));
    }
    for at in (0..answer.len()).step_by(7) {
        let mut spoiled = answer.clone();
        spoiled[at] ^= 0x20;
        // Some octets do not matter, as those of a nonce nobody compares do, but none turns it into an answer for somebody else.
        if let Reply::PeerAccepted { .. } = with(6, spoiled, &leaf(&ca, 2), now) {
            panic!("octet {at}");
        }
    }
    for body in [vec![], vec![0x30, 3, 0x0a, 1, 3], vec![0x30; 70_000], b"<html>".to_vec()] {
        let server = Server::of(body);
        failed(judged(&good, strict(server.url("")), now));
    }
}

#[test]
fn the_answer_about_our_own_certificate_goes_along_where_it_is_asked_for() {
    let ca = Ca::new("CA");
    let server = Responder::of_ca(&ca).serve();
    let mut moon = Side::new(pubkey(
        MOON,
        "any",
        Some(leaf(&ca, 1).own(&[])),
        trust(&ca, RevocationMode::Relaxed, Some(server.url("")), vec![]),
    ));
    moon.at = SystemTime::now();
    let offered = |ocsp| Offered { hashes: policy::SIGNATURE_HASHES.to_vec(), ocsp, ..Offered::default() };
    let mut made =
        |sa, ocsp| proof(moon.make_offered(sa, "r", MOON, initiators(Role::Initiator), offered(ocsp)));
    assert!(made(1, false).certs.iter().all(|cert| cert.encoding == 4));
    let stapled = made(2, true);
    assert_eq!(stapled.certs.iter().map(|cert| cert.encoding).collect::<Vec<_>>(), [4, 14]);
    let asked = server.asked();
    made(3, true);
    assert_eq!(server.asked(), asked, "it is kept while it is good");
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust(&ca, RevocationMode::Strict, None, vec![])));
    sun.at = SystemTime::now();
    accepted(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), stapled));
}

#[test]
fn a_certificate_is_fetched_by_its_url_where_the_realm_says_so_and_only_the_promised_one() {
    let ca = Ca::new("CA");
    let moons = leaf(&ca, 1);
    let right = Server::of(moons.cert.der().to_vec());
    let wrong = Server::of(leaf(&ca, 1).cert.der().to_vec());
    let urls = Offered { hashes: policy::SIGNATURE_HASHES.to_vec(), urls: true, ..Offered::default() };
    let judged = |server: &Server, lookups| {
        let own = crate::config::OwnKey { url: Some(server.url("moon.crt")), ..moons.own(&[]) };
        let mut moon = Side::new(pubkey(MOON, "any", Some(own), Trust::default()));
        let made = proof(moon.make_offered(1, "r", MOON, initiators(Role::Initiator), urls.clone()));
        assert_eq!(made.certs[0].encoding, 12);
        let mut sun = Side::new(pubkey(SUN, MOON, None, Trust { lookups, ..trust_ca(&[&ca]) }));
        sun.check(1, "r", SUN, MOON, initiators(Role::Responder), made)
    };
    accepted(judged(&right, Lookups::Anywhere));
    assert!(failed(judged(&wrong, Lookups::Anywhere)).contains("not the one whose hash"));
    assert!(failed(judged(&right, Lookups::No)).contains("does not allow"));
    assert!(failed(judged(&right, Lookups::Public)).contains("nothing is fetched from"));
    assert_eq!((right.asked(), wrong.asked()), (1, 1));
    let mut moon = Side::new(pubkey(MOON, "any", Some(moons.own(&[])), Trust::default()));
    let mut made: PeerProof = proof(moon.make(2, "r", MOON, initiators(Role::Initiator)));
    let many = vec![CertData { encoding: 12, data: [&[0; 20][..], right.url("x").as_bytes()].concat() }; 5];
    made.certs.splice(0..1, many);
    let mut sun =
        Side::new(pubkey(SUN, MOON, None, Trust { lookups: Lookups::Anywhere, ..trust_ca(&[&ca]) }));
    let why = failed(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), made));
    assert!(why.contains("at most 4 are fetched"), "{why}");
}

#[test]
fn of_several_own_certificates_the_one_goes_out_whose_ca_the_peer_names() {
    use sha1::{Digest, Sha1};
    let (red, blue) = (Ca::new("Red"), Ca::new("Blue"));
    let (of_red, of_blue) = (leaf(&red, 1), leaf(&blue, 1));
    let hash =
        |ca: &Ca| -> [u8; 20] { Sha1::digest(crate::cert::Cert::parse(ca.cert.der()).unwrap().spki).into() };
    let mut config: Config = pubkey(MOON, "any", Some(of_red.own(&[])), trust_ca(&[&red, &blue]));
    config.credentials.get_mut("r").unwrap().also = vec![of_blue.own(&[])];
    let mut moon = Side::new(config);
    assert_eq!(moon.problems, []);
    let mut sent = |sa, authorities| {
        let offered =
            Offered { hashes: policy::SIGNATURE_HASHES.to_vec(), authorities, ..Offered::default() };
        proof(moon.make_offered(sa, "r", MOON, initiators(Role::Initiator), offered))
    };
    let first = |made: &PeerProof| made.certs[0].data.clone();
    let (red_der, blue_der) = (of_red.cert.der().to_vec(), of_blue.cert.der().to_vec());
    assert_eq!(first(&sent(1, vec![hash(&red)])), red_der);
    let for_blue = sent(2, vec![[9; 20], hash(&blue)]);
    assert_eq!(first(&for_blue), blue_der);
    assert_eq!(first(&sent(3, vec![])), red_der, "the first, where nothing is asked for");
    assert_eq!(first(&sent(4, vec![[9; 20]])), red_der, "or nothing that we have");
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust_ca(&[&blue])));
    accepted(sun.check(2, "r", SUN, MOON, initiators(Role::Responder), for_blue));
}

#[test]
fn an_intermediate_ca_of_the_configuration_need_not_be_sent() {
    let root = Ca::new("Root");
    let middle = root.sub(ca_params("Middle"));
    let moons = middle.issue(MOON, KeyPair::generate().unwrap());
    let between = vec![middle.named()];
    accepted(verdict(moons.own(&[]), Trust { between, ..trust_ca(&[&root]) }));
    // It is believed no more than if the peer had sent it.
    let fake = Ca::new("Root");
    failed(verdict(moons.own(&[]), Trust { between: vec![middle.named()], ..trust_ca(&[&fake]) }));
}

#[test]
fn extended_key_usages_are_those_that_the_realm_takes() {
    use rcgen::ExtendedKeyUsagePurpose as Eku;
    use spi::cert::Usages;
    let ca = Ca::new("CA");
    let of = |usages: &[Eku], takes: Usages| {
        let mut params: CertificateParams = ee_params(MOON);
        params.extended_key_usages = usages.to_vec();
        let leaf = ca.issue_as(&params, KeyPair::generate().unwrap());
        matches!(
            verdict(leaf.own(&[]), Trust { usages: takes, ..trust_ca(&[&ca]) }),
            Reply::PeerAccepted { .. }
        )
    };
    let ike = Eku::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    assert!(
        of(&[], Usages::IPSEC)
            && of(&[Eku::Any], Usages::IPSEC)
            && of(std::slice::from_ref(&ike), Usages::IPSEC)
    );
    assert!(!of(&[Eku::ServerAuth], Usages::IPSEC) && of(&[Eku::ServerAuth], Usages::IPSEC | Usages::SERVER));
    assert!(!of(&[Eku::ClientAuth], Usages::IPSEC | Usages::SERVER));
    assert!(of(&[Eku::ServerAuth, ike], Usages::IPSEC), "one is enough");
}
