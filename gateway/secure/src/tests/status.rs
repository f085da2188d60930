//! Revocation: from lists and responders, fresh and stale, of the right CA and of others, from servers that answer and such that do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipc::{CertData, PeerProof, Reply, Role};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, KeyIdMethod, KeyPair,
    RevocationReason, RevokedCertParams, SerialNumber,
};

use crate::config::{Certificate, Config, CrlSource, Revocation, RevocationMode, Trust};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";

/// What a server answers to a request: status line and body, or nothing for as long as the connection is open.
type Answer = dyn Fn(&str, &[u8]) -> Option<(u16, Vec<u8>)> + Send + Sync;

/// An HTTP server on this machine.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn new(answer: Box<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, &**answer, &count));
            }
        });
        Server { address, requests }
    }

    /// One that gives everybody the same.
    pub(crate) fn of(body: Vec<u8>) -> Server {
        Server::new(Box::new(move |_, _| Some((200, body.clone()))))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn asked(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, count: &AtomicUsize) {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    let head = loop {
        let Ok(got @ 1..) = stream.read(&mut part) else { return };
        request.extend_from_slice(&part[..got]);
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let length = text
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while request.len() < head + length {
        let Ok(got @ 1..) = stream.read(&mut part) else { return };
        request.extend_from_slice(&part[..got]);
    }
    count.fetch_add(1, Ordering::SeqCst);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    match answer(&path, &request[head..]) {
        Some((status, body)) => {
            let location = if status / 100 == 3 {
                format!("Location: {}\r\n", String::from_utf8_lossy(&body))
            } else {
                String::new()
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
        None => {
            let _ = stream.read(&mut part);
        }
    }
}

/// A list of the CA that names these serial numbers.
pub(crate) fn list(
    ca: &Ca,
    serials: &[u8],
    change: impl FnOnce(&mut CertificateRevocationListParams),
) -> Vec<u8> {
    let mut params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2036, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(|serial| revoked_cert(*serial)).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    change(&mut params);
    ca.sign_crl(params)
}

fn revoked_cert(serial: u8) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from(vec![serial]),
        revocation_time: rcgen::date_time_ymd(2026, 2, 3),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    }
}

fn numbered(serial: u8) -> CertificateParams {
    let mut params = ee_params(MOON);
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params
}

fn trust(ca: &Ca, mode: RevocationMode, crls: Vec<CrlSource>) -> Trust {
    Trust { revocation: Revocation { mode, crls, ..Revocation::default() }, ..trust_ca(&[ca]) }
}

fn file(der: Vec<u8>) -> CrlSource {
    CrlSource::Given(Certificate { name: "ca.crl".into(), der })
}

/// What a realm that looks so at revocation says of moon's certificate.
fn judged(leaf: &Leaf, trust: Trust) -> Reply {
    verdict(leaf.own(&[]), trust)
}

#[test]
fn a_certificate_on_the_list_is_refused_with_when_and_why_and_others_are_let_in() {
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    for mode in [RevocationMode::Strict, RevocationMode::Relaxed] {
        let why = failed(judged(&leaf, trust(&ca, mode, vec![file(list(&ca, &[3, 7, 200], |_| ()))])));
        assert!(why.contains("was revoked on 2026-02-03") && why.contains("key compromise"), "{why}");
        accepted(judged(&leaf, trust(&ca, mode, vec![file(list(&ca, &[3, 200], |_| ()))])));
        accepted(judged(&leaf, trust(&ca, mode, vec![file(list(&ca, &[], |_| ()))])));
    }
    accepted(judged(&leaf, trust(&ca, RevocationMode::Off, vec![file(list(&ca, &[7], |_| ()))])));
}

#[test]
fn without_a_fresh_status_strict_refuses_and_relaxed_lets_in() {
    let (ca, other) = (Ca::new("CA"), Ca::new("Other"));
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let stale =
        |params: &mut CertificateRevocationListParams| params.next_update = rcgen::date_time_ymd(2026, 1, 2);
    let fake = Ca::new("CA");
    let mut broken = list(&ca, &[], |_| ());
    broken.truncate(broken.len() - 1);
    for (crls, what) in [
        (vec![], "says where to ask"),
        (vec![file(list(&ca, &[], stale))], "good until 2026-01-02"),
        (vec![file(list(&other, &[], |_| ()))], "of another CA"),
        (vec![file(list(&fake, &[], |_| ()))], "whose signature is wrong"),
        (vec![file(broken)], "says where to ask"),
    ] {
        let why = failed(judged(&leaf, trust(&ca, RevocationMode::Strict, crls.clone())));
        assert!(why.contains("the realm is strict") && why.contains(what), "{why}");
        accepted(judged(&leaf, trust(&ca, RevocationMode::Relaxed, crls)));
    }
    // A list past its time is no proof of innocence, but it is one of guilt; unless somebody else made it.
    let why = failed(judged(&leaf, trust(&ca, RevocationMode::Relaxed, vec![file(list(&ca, &[7], stale))])));
    assert!(why.contains("was revoked"), "{why}");
    accepted(judged(&leaf, trust(&ca, RevocationMode::Relaxed, vec![file(list(&fake, &[7], |_| ()))])));
}

#[test]
fn every_certificate_below_the_ca_is_looked_at() {
    let root = Ca::new("Root");
    let mut params = ca_params("Middle");
    params.serial_number = Some(SerialNumber::from(vec![9]));
    let middle = root.sub(params);
    let leaf = middle.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let judged =
        |crls: Vec<CrlSource>| verdict(leaf.own(&[&middle]), trust(&root, RevocationMode::Strict, crls));
    accepted(judged(vec![file(list(&middle, &[], |_| ())), file(list(&root, &[7], |_| ()))]));
    let why = failed(judged(vec![file(list(&middle, &[], |_| ())), file(list(&root, &[9], |_| ()))]));
    assert!(why.contains("CN=Middle was revoked"), "{why}");
    let why = failed(judged(vec![file(list(&middle, &[], |_| ()))]));
    assert!(why.contains("CN=Middle") && why.contains("strict"), "{why}");
}

#[test]
fn lists_that_say_less_than_all_are_refused() {
    use rcgen::{CrlIssuingDistributionPoint, CrlScope};
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let partial = |scope, url: &str| {
        let distribution_point = CrlDistributionPoint { uris: vec![url.into()] };
        list(&ca, &[], |params| {
            params.issuing_distribution_point =
                Some(CrlIssuingDistributionPoint { distribution_point, scope });
        })
    };
    let of_cas = partial(Some(CrlScope::CaCertsOnly), "http://crl.lab.test/1");
    let why = failed(judged(&leaf, trust(&ca, RevocationMode::Strict, vec![file(of_cas)])));
    assert!(why.contains("about CAs only"), "{why}");
    let elsewhere = partial(None, "http://crl.lab.test/2");
    let why = failed(judged(&leaf, trust(&ca, RevocationMode::Strict, vec![file(elsewhere)])));
    assert!(why.contains("another distribution point"), "{why}");
    let mut params = numbered(7);
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://127.0.0.1:9/2".into()] }];
    let here = ca.issue_as(&params, KeyPair::generate().unwrap());
    let own = partial(Some(CrlScope::UserCertsOnly), "http://127.0.0.1:9/2");
    accepted(judged(&here, trust(&ca, RevocationMode::Strict, vec![file(own)])));
    // A CA must not have this machine asked what listens on it.
    let why = failed(judged(&here, trust(&ca, RevocationMode::Strict, vec![])));
    assert!(why.contains("127.0.0.1, where nothing is fetched from"), "{why}");
}

#[test]
fn a_list_is_fetched_once_for_all_who_wait_and_kept_on_disk() {
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let server = Server::of(list(&ca, &[7], |_| ()));
    let dir = std::env::temp_dir().join(format!("tussock-crls-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let config = || {
        let crls = vec![CrlSource::Url(server.url("ca.crl"))];
        let config = pubkey(SUN, MOON, None, trust(&ca, RevocationMode::Strict, crls));
        Config { crl_dir: Some(dir.clone()), ..config }
    };
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let mut sun = Side::new(config());
    let proofs = [1, 2, 3].map(|sa| proof(moon.make(sa, "r", MOON, initiators(Role::Initiator))));
    for (sa, proof) in proofs.into_iter().enumerate() {
        sun.begin_check(sa as u64, "r", SUN, MOON, initiators(Role::Responder), proof);
    }
    for _ in 0..3 {
        assert!(failed(sun.answer()).contains("was revoked"));
    }
    assert_eq!(server.asked(), 1);
    // After a restart the one on disk will do.
    let mut again = Side::new(config());
    let made = proof(moon.make(9, "r", MOON, initiators(Role::Initiator)));
    assert!(
        failed(again.check(1, "r", SUN, MOON, initiators(Role::Responder), made)).contains("was revoked")
    );
    assert_eq!(server.asked(), 1);
    let kept: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    assert_eq!(kept.len(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_server_that_says_nothing_holds_up_nobody_else() {
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let silent = Server::new(Box::new(|_, _| None));
    let good = Server::of(list(&ca, &[], |_| ()));
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let mut config =
        pubkey(SUN, MOON, None, trust(&ca, RevocationMode::Strict, vec![CrlSource::Url(silent.url("a"))]));
    let mut other = realm("other", SUN, MOON, policy::AuthPolicy::Pubkey);
    other.local_auth = policy::AuthPolicy::Psk;
    config.realms.push(Arc::new(other));
    let crls = vec![CrlSource::Url(good.url("b"))];
    let trust = trust(&ca, RevocationMode::Strict, crls);
    config.credentials.insert("other".into(), crate::config::Credentials { trust, ..Default::default() });
    let mut sun = Side::new(config);
    let mut proof = |sa| proof(moon.make(sa, "r", MOON, initiators(Role::Initiator)));
    let slow = sun.begin_check(1, "r", SUN, MOON, initiators(Role::Responder), proof(1));
    let more = sun.begin_check(2, "r", SUN, MOON, initiators(Role::Responder), proof(2));
    let quick = sun.begin_check(3, "other", SUN, MOON, initiators(Role::Responder), proof(3));
    let (first, reply) = sun.next_answer();
    assert_eq!(first, quick, "it was asked last");
    accepted(reply);
    let mut ended = Vec::new();
    for _ in 0..2 {
        let (token, reply) = sun.next_answer();
        let why = failed(reply);
        assert!(why.contains("strict") && why.contains("127.0.0.1"), "{why}");
        ended.push(token);
    }
    ended.sort();
    assert_eq!(ended, [slow, more]);
    assert_eq!(silent.asked(), 1, "both waited for the same");
    // A server that failed is not asked again at once.
    let made = proof(4);
    let why = failed(sun.check(4, "r", SUN, MOON, initiators(Role::Responder), made));
    assert!(why.contains("a moment ago"), "{why}");
    assert_eq!(silent.asked(), 1);
}

#[test]
fn odd_answers_of_servers_are_refused_and_redirections_followed_only_to_plain_http() {
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let der = list(&ca, &[], |_| ());
    let huge = vec![0u8; crate::crl::MAX_CRL + 1];
    let server = Server::new(Box::new(move |path, _| {
        Some(match path {
            "/good" => (200, der.clone()),
            "/moved" => (302, b"/good".to_vec()),
            "/tls" => (301, b"https://127.0.0.1/".to_vec()),
            "/file" => (302, b"file:///etc/passwd".to_vec()),
            "/loop" => (302, b"/loop".to_vec()),
            "/huge" => (200, huge.clone()),
            "/short" => (200, der[..der.len() / 2].to_vec()),
            "/text" => (200, b"<html>".to_vec()),
            "/empty" => (200, vec![]),
            _ => (404, vec![]),
        })
    }));
    let judged = |path: &str| {
        judged(&leaf, trust(&ca, RevocationMode::Strict, vec![CrlSource::Url(server.url(path))]))
    };
    accepted(judged("good"));
    accepted(judged("moved"));
    for (path, what) in [
        ("tls", "by TLS"),
        ("file", "not fetched"),
        ("loop", "redirections"),
        ("huge", "more than"),
        ("short", "not a CRL"),
        ("text", "not a CRL"),
        ("empty", "not a CRL"),
        ("nothing", "404"),
    ] {
        let why = failed(judged(path));
        assert!(why.contains(what), "{path}: {why}");
    }
}

#[test]
fn a_list_the_peer_sends_along_counts_like_any_other() {
    let ca = Ca::new("CA");
    let leaf = ca.issue_as(&numbered(7), KeyPair::generate().unwrap());
    let mut moon = Side::new(pubkey(MOON, "any", Some(leaf.own(&[])), Trust::default()));
    let mut sun = Side::new(pubkey(SUN, MOON, None, trust(&ca, RevocationMode::Strict, vec![])));
    let mut with = |sa, der: Vec<u8>| {
        let mut made: PeerProof = proof(moon.make(sa, "r", MOON, initiators(Role::Initiator)));
        made.certs.push(CertData { encoding: 7, data: der });
        sun.check(sa, "r", SUN, MOON, initiators(Role::Responder), made)
    };
    accepted(with(1, list(&ca, &[], |_| ())));
    assert!(failed(with(2, list(&ca, &[7], |_| ()))).contains("was revoked"));
    assert!(failed(with(3, vec![0x30; 20_000])).contains("strict"));
    let why = failed(with(4, vec![0x30; 200_000]));
    assert!(why.contains("octets of certificates"), "{why}");
}
