//! What a judge says of certificates holds, at once or later, for clients and for servers.
#![allow(clippy::unwrap_used)]

mod lab;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use eap::{
    Answer, Conversation, Inner, Inquiry, Judge, MethodKind, Password, Peer, PeerConfig, Prompt, Server,
    ServerConfig, Step, TlsVersions,
};
use lab::{ALICE, PASSWORD, World, random, world};
use spi::Secret;

/// Knows whose certificate was revoked, and takes its time to say so.
struct Court {
    revoked: Vec<Vec<u8>>,
    after: usize,
    asked: Mutex<Vec<Vec<Vec<u8>>>>,
}

impl Court {
    fn new(revoked: &[&lab::Cert], after: usize) -> Arc<Court> {
        let revoked = revoked.iter().map(|cert| cert.chain[0].clone()).collect();
        Arc::new(Court { revoked, after, asked: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Judge for Court {
    fn begin(&self, chain: Vec<Vec<u8>>) -> Box<dyn Inquiry> {
        let bad = self.revoked.contains(&chain[0]);
        self.asked.lock().unwrap().push(chain);
        Box::new(Case { left: self.after, bad })
    }
}

struct Case {
    left: usize,
    bad: bool,
}

impl Inquiry for Case {
    fn poll(&mut self) -> Option<Result<(), String>> {
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        Some(if self.bad { Err("it was revoked".into()) } else { Ok(()) })
    }
}

/// Waits as long as it is a judge that is waited for.
fn patiently(conversation: &mut dyn Conversation, mut step: Step) -> Step {
    for _ in 0..100 {
        if !matches!(step, Step::Wait) {
            return step;
        }
        if conversation.is_judging() {
            // It is nobody's turn: what comes meanwhile is nothing.
            assert!(matches!(conversation.receive(Some(&[2, 99, 0, 6, 13, 0])), Step::Wait));
        }
        step = conversation.poll();
    }
    panic!("it waits for ever");
}

/// How both end: whom the server let in, or why not; and the same of the peer.
fn ends(server: ServerConfig, peer: PeerConfig, courts: [&Arc<Court>; 2]) -> [Result<String, String>; 2] {
    let [of_clients, of_servers] = courts.map(|court| Some(Arc::clone(court) as Arc<dyn Judge>));
    let mut server = Server::new(Arc::new(server), None, random()).judged_by(of_clients);
    let mut peer = Peer::new(Arc::new(peer), random()).judged_by(of_servers);
    let mut ends = [Err("open".to_owned()), Err("open".to_owned())];
    let mut step = server.receive(None);
    for _ in 0..100 {
        let packet = match patiently(&mut server, step) {
            Step::Wait => unreachable!(),
            Step::Send(packet) => packet,
            Step::Accepted { packet, grant } => {
                ends[0] = Ok(grant.identity);
                packet.unwrap()
            }
            Step::Refused { packet, why } => {
                ends[0] = Err(why);
                packet.unwrap()
            }
        };
        let answer = peer.receive(Some(&packet));
        match patiently(&mut peer, answer) {
            Step::Wait => unreachable!(),
            Step::Send(answer) => step = server.receive(Some(&answer)),
            Step::Accepted { grant, .. } => {
                ends[1] = Ok(grant.identity);
                return ends;
            }
            Step::Refused { why, .. } => {
                ends[1] = Err(why);
                return ends;
            }
        }
    }
    panic!("without end");
}

const METHODS: [(MethodKind, Option<Inner>); 4] = [
    (MethodKind::Tls, None),
    (MethodKind::Ttls, Some(Inner::Pap)),
    (MethodKind::Ttls, Some(Inner::Eap(MethodKind::MsChapV2))),
    (MethodKind::Peap, Some(Inner::Eap(MethodKind::MsChapV2))),
];

fn sides(
    world: &World,
    kind: MethodKind,
    inner: Option<Inner>,
    versions: TlsVersions,
) -> (ServerConfig, PeerConfig) {
    let inner: Vec<Inner> = inner.into_iter().collect();
    let (mut server, mut peer) = (world.server(&[kind], &inner), world.peer(&[kind], &inner));
    server.tls = Some(world.tls_server(versions));
    peer.tls = Some(world.tls_client(versions));
    (server, peer)
}

#[test]
fn a_client_whose_certificate_was_revoked_is_refused_and_others_are_let_in() {
    let world = world();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        for after in [0, 3] {
            let sides = || sides(&world, MethodKind::Tls, None, versions);
            let nobody = Court::new(&[], 0);
            let court = Court::new(&[&world.client], after);
            let (server, peer) = sides();
            let [of_server, of_peer] = ends(server, peer, [&court, &nobody]);
            assert!(of_server.unwrap_err().ends_with("EAP-TLS: it was revoked"));
            assert!(of_peer.unwrap_err().contains("the server refused us"));
            assert_eq!(court.asked.lock().unwrap()[..], *std::slice::from_ref(&world.client.chain));
            let (server, peer) = sides();
            let other = Court::new(&[&world.server], after);
            let [of_server, of_peer] = ends(server, peer, [&other, &nobody]);
            assert_eq!((of_server.unwrap(), of_peer.unwrap()), (ALICE.to_owned(), ALICE.to_owned()));
        }
    }
}

#[test]
fn a_server_whose_certificate_was_revoked_is_told_no_password() {
    let world = world();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        for (kind, inner) in METHODS {
            for after in [0, 3] {
                let nobody = Court::new(&[], 0);
                let court = Court::new(&[&world.server], after);
                let (server, mut peer) = sides(&world, kind, inner, versions);
                let asked = Arc::new(AtomicUsize::new(0));
                peer.password = Password::Ask(Arc::new(Slow { asked: Arc::clone(&asked), after: 0 }));
                let [of_server, of_peer] = ends(server, peer, [&nobody, &court]);
                assert!(of_peer.unwrap_err().ends_with(": it was revoked"));
                assert_eq!(of_server.unwrap_err(), "open", "it knows nobody");
                assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody was asked for the password");
                assert_eq!(court.asked(), 1);
            }
        }
    }
}

#[test]
fn a_judge_and_a_password_may_be_waited_for_one_after_the_other() {
    let world = world();
    for (kind, inner) in METHODS {
        let (nobody, court) = (Court::new(&[], 2), Court::new(&[], 2));
        let (server, mut peer) = sides(&world, kind, inner, TlsVersions::Both);
        peer.password = Password::Ask(Arc::new(Slow { asked: Arc::default(), after: 3 }));
        let [of_server, of_peer] = ends(server, peer, [&nobody, &court]);
        assert_eq!((of_server.unwrap(), of_peer.unwrap()), (ALICE.to_owned(), ALICE.to_owned()));
        // Only EAP-TLS has clients with certificates.
        assert_eq!((nobody.asked(), court.asked()), (usize::from(kind == MethodKind::Tls), 1));
    }
}

/// Somebody who takes long to type.
struct Slow {
    asked: Arc<AtomicUsize>,
    after: usize,
}

impl Prompt for Slow {
    fn ask(&self, _: &str, _: Option<&str>) -> Answer {
        if self.asked.fetch_add(1, Ordering::Relaxed) < self.after {
            return Answer::Pending;
        }
        Answer::Given(Secret::from_slice(PASSWORD.as_bytes()))
    }
}

#[test]
fn why_a_certificate_was_refused_is_known_before_the_client_has_answered_the_alert() {
    let world = world();
    let expired = world.ca.issue(ALICE, 2021, 3);
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let (server, mut peer) = sides(&world, MethodKind::Tls, None, versions);
        let own = lab::certificates(Some(&expired), &[&world.ca], versions);
        peer.tls = Some(Arc::new(eap::TlsClient::new(own, lab::SERVER).unwrap()));
        let mut server = Server::new(Arc::new(server), None, random());
        let mut peer = Peer::new(Arc::new(peer), random());
        let mut step = server.receive(None);
        while server.failed().is_none() {
            let Step::Send(request) = step else { panic!("no request") };
            let Step::Send(response) = peer.receive(Some(&request)) else { panic!("no response") };
            step = server.receive(Some(&response));
        }
        let why = server.failed().unwrap();
        assert!(why.starts_with("alice@lab.test: EAP-TLS: TLS: ") && why.contains("expired"), "{why}");
    }
}
