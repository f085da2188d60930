//! Our server and our peer, in every method, with the right and the wrong password, certificate, order and number of
//! packets.
#![allow(clippy::unwrap_used)]

mod lab;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use eap::{
    Answer, Conversation, Inner, MethodKind, Password, Peer, PeerConfig, Prompt, Random, Server,
    ServerConfig, Step, TlsClient, TlsServer, TlsVersions, Users,
};
use lab::{ALICE, ALL, Ca, End, PASSWORD, SERVER, certificates, connect, random, run, world};
use proptest::prelude::*;
use spi::Secret;

fn both(
    world: &lab::World,
    kind: MethodKind,
    inner: Option<Inner>,
    versions: TlsVersions,
) -> (ServerConfig, PeerConfig) {
    let inner: Vec<Inner> = inner.into_iter().collect();
    let (mut server, peer) = (world.server(&[kind], &inner), world.peer(&[kind], &inner));
    server.tls = Some(world.tls_server(versions));
    server.check().unwrap();
    peer.check().unwrap();
    (server, peer)
}

#[test]
fn both_sides_end_with_the_same_key() {
    let world = world();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        for (kind, inner, name) in ALL {
            let (server, peer) = both(&world, kind, inner, versions);
            let line = run(server, peer);
            let (server, peer) = (line.server.grant(), line.peer.grant());
            assert_eq!((server.identity.as_str(), server.method.as_str()), (ALICE, name));
            assert_eq!((peer.identity.as_str(), peer.method.as_str()), (ALICE, name));
            match (server.msk, peer.msk) {
                (Some(ours), Some(theirs)) => {
                    assert_eq!(ours.len(), 64);
                    assert!(ours.ct_eq(theirs.expose()), "{name}");
                }
                (None, None) => assert!(!kind.derives_key()),
                _ => panic!("{name}: one side has a key"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_packet_that_comes_twice_changes_nothing(which in 0..ALL.len(), tls13: bool, twice: [bool; 8]) {
        let world = world();
        let versions = if tls13 { TlsVersions::Tls13 } else { TlsVersions::Tls12 };
        let (kind, inner, _) = ALL[which];
        let (server, peer) = both(&world, kind, inner, versions);
        let server = Server::new(Arc::new(server), None, random());
        let peer = Peer::new(Arc::new(peer), random());
        let mut n = 0;
        let line = connect(server, peer, &mut || { n += 1; twice[n % twice.len()] });
        let (server, peer) = (line.server.grant(), line.peer.grant());
        prop_assert_eq!(server.msk.map(|key| key.expose().to_vec()), peer.msk.map(|key| key.expose().to_vec()));
    }
}

#[test]
fn a_stranger_and_a_wrong_password_look_alike() {
    let world = world();
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        for (kind, inner, name) in ALL.into_iter().filter(|(kind, ..)| *kind != MethodKind::Tls) {
            // Names of one length, so that lengths can be compared.
            let lines =
                [(ALICE, "wrong-password"), ("mallo@lab.test", "wrong-password")].map(|(who, password)| {
                    let (server, mut peer) = both(&world, kind, inner, versions);
                    peer.identity = who.into();
                    peer.password = Password::Known(Secret::from_slice(password.as_bytes()));
                    run(server, peer)
                });
            let [wrong, stranger] = lines;
            assert!(wrong.lengths.len() > 3);
            // Records of TLS differ by the length of ECDSA signatures, which is by chance.
            let shape = |lengths: &[usize]| lengths.iter().map(|len| len / 16).collect::<Vec<_>>();
            let count = |line: &lab::Line| line.lengths.len();
            assert_eq!(count(&wrong), count(&stranger), "{name}");
            if !kind.needs_tls() {
                assert_eq!(shape(&wrong.lengths), shape(&stranger.lengths), "{name}");
            }
            assert_eq!(wrong.lengths.last(), stranger.lengths.last());
            // The log knows which it was.
            let reasons = [(wrong, "wrong password of alice"), (stranger, "there is no user mallo")];
            for (line, reason) in reasons {
                let (server, peer) = (line.server.why(), line.peer.why());
                assert!(server.contains(reason), "{name}: {server}");
                assert!(!server.contains("wrong-password") && !peer.contains("wrong-password"));
            }
        }
    }
}

#[test]
fn a_stranger_takes_as_many_questions_as_a_wrong_password() {
    /// Users who are counted when they are looked for.
    struct Counted(Arc<AtomicUsize>);
    impl Users for Counted {
        fn password(&self, name: &str) -> Option<Secret> {
            self.0.fetch_add(1, Ordering::Relaxed);
            lab::users().password(name)
        }
    }
    let world = world();
    for (kind, inner, name) in ALL.into_iter().filter(|(kind, ..)| *kind != MethodKind::Tls) {
        let counts = [ALICE, "mallo@lab.test", "WORK\\alice@lab.test", "WORK\\mallo@lab.test"].map(|who| {
            let (asked, drawn) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (mut server, mut peer) = both(&world, kind, inner, TlsVersions::Both);
            server.users = Arc::new(Counted(Arc::clone(&asked)));
            peer.identity = who.into();
            peer.password = Password::Known(Secret::from_slice(b"wrong-password"));
            let (source, draws) = (random(), Arc::clone(&drawn));
            let counted: Random = Arc::new(move |out: &mut [u8]| {
                draws.fetch_add(out.len(), Ordering::Relaxed);
                source(out);
            });
            let server = Server::new(Arc::new(server), None, counted);
            let line = connect(server, Peer::new(Arc::new(peer), random()), &mut || false);
            line.server.why();
            (asked.load(Ordering::Relaxed), drawn.load(Ordering::Relaxed))
        });
        let [wrong, stranger, wrong_at_work, stranger_at_work] = counts;
        assert!(wrong.0 > 0 && wrong.1 > 0, "{name}");
        assert_eq!(wrong, stranger, "{name}");
        assert_eq!(wrong_at_work, stranger_at_work, "{name}");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_believed() {
    // It says that everything is right, as one does who wants to be connected with.
    let world = world();
    let peer = || Peer::new(Arc::new(world.peer(&[MethodKind::MsChapV2], &[])), random());
    let challenge = [&[1, 1, 0, 27, 26, 1, 9, 0, 22, 16][..], &[7; 16], b"x"].concat();
    let success = format!("S={} M=OK", "0".repeat(40));
    let request = [&[1, 2, 0, 56, 26, 3, 9, 0, 51][..], success.as_bytes()].concat();
    let mut first = peer();
    assert!(matches!(first.receive(Some(&challenge)), Step::Send(_)));
    let Step::Send(answer) = first.receive(Some(&request)) else { panic!("no answer") };
    assert_eq!(answer, [2, 2, 0, 6, 26, 4], "Failure");
    let Step::Refused { why, .. } = first.receive(Some(&[3, 2, 0, 4])) else { panic!("it was believed") };
    assert!(why.contains("does not know the password"), "{why}");
    // Nor is a success that comes at once, before or after the challenge.
    for packets in [&[][..], &[&challenge[..]]] {
        let mut second = peer();
        for packet in packets {
            second.receive(Some(packet));
        }
        assert!(matches!(second.receive(Some(&[3, 1, 0, 4])), Step::Refused { .. }));
    }
}

#[test]
fn a_server_of_another_ca_or_of_another_name_is_not_told_the_password() {
    let world = world();
    let stranger = Ca::new("Stranger");
    let wrong_ca = TlsClient::new(certificates(None, &[&stranger], TlsVersions::Both), SERVER).unwrap();
    let wrong_name =
        TlsClient::new(certificates(None, &[&world.ca], TlsVersions::Both), "other.lab.test").unwrap();
    for (client, reason) in [(wrong_ca, "UnknownIssuer"), (wrong_name, "not valid for name")] {
        let (server, mut peer) = both(&world, MethodKind::Ttls, Some(Inner::Pap), TlsVersions::Both);
        peer.tls = Some(Arc::new(client));
        let line = run(server, peer);
        let (server, peer) = (line.server.why(), line.peer.why());
        assert!(peer.contains(reason), "{peer}");
        assert!(server.contains("alert"), "{server}");
    }
}

#[test]
fn certificates_of_clients_are_judged() {
    let world = world();
    let stranger = Ca::new("Stranger");
    // Whether one was revoked: tests/judge.rs.
    let cases =
        [(world.ca.issue(ALICE, 2021, 3), "expired"), (stranger.issue(ALICE, 2049, 4), "UnknownIssuer")];
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        for (cert, reason) in &cases {
            let (mut server, mut peer) = both(&world, MethodKind::Tls, None, versions);
            let own = certificates(Some(&world.server), &[&world.ca], versions);
            server.tls = Some(Arc::new(TlsServer::new(own).unwrap()));
            let own = certificates(Some(cert), &[&world.ca], versions);
            peer.tls = Some(Arc::new(TlsClient::new(own, SERVER).unwrap()));
            let line = run(server, peer);
            let (server, peer) = (line.server.why(), line.peer.why());
            assert!(server.contains(reason), "{server}");
            assert!(peer.contains("alert"), "{peer}");
        }
    }
}

#[test]
fn long_chains_go_in_fragments_both_ways() {
    let mut world = world();
    let filler: Vec<Vec<u8>> =
        (0..20).map(|n| world.ca.issue(&format!("filler-{n}"), 2049, 50 + n).chain.remove(0)).collect();
    world.server.chain.extend(filler.clone());
    world.client.chain.extend(filler);
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        let (server, peer) = both(&world, MethodKind::Tls, None, versions);
        let line = run(server, peer);
        assert!(line.lengths.iter().filter(|len| **len > 1000).count() > 10, "{:?}", line.lengths);
        assert!(line.server.grant().msk.is_some());
    }
}

#[test]
fn who_is_in_a_certificate_counts_and_not_what_was_said() {
    let world = world();
    let (server, mut peer) = both(&world, MethodKind::Tls, None, TlsVersions::Both);
    peer.identity = "mallory@lab.test".into();
    assert_eq!(run(server, peer).server.grant().identity, ALICE);
}

#[test]
fn outside_is_anonymous_and_inside_is_not() {
    let world = world();
    let (server, mut peer) = both(&world, MethodKind::Ttls, Some(Inner::MsChapV2), TlsVersions::Both);
    peer.anonymous = Some("anonymous@lab.test".into());
    let mut seen = Vec::new();
    let mut server = Server::new(Arc::new(server), None, random());
    let mut peer = Peer::new(Arc::new(peer), random());
    let mut step = server.receive(None);
    while let Step::Send(request) = step {
        let Step::Send(response) = peer.receive(Some(&request)) else { panic!("no answer") };
        seen.extend_from_slice(&response);
        step = server.receive(Some(&response));
    }
    let Step::Accepted { grant, .. } = step else { panic!("not let in") };
    assert_eq!(grant.identity, ALICE);
    assert!(seen.windows(9).any(|part| part == b"anonymous"));
    assert!(!seen.windows(5).any(|part| part == b"alice"));
}

#[test]
fn the_first_method_that_both_want_is_taken() {
    let world = world();
    let server = || {
        world.server(
            &[MethodKind::Tls, MethodKind::Peap, MethodKind::MsChapV2],
            &[Inner::Eap(MethodKind::Gtc)],
        )
    };
    let peer = world.peer(&[MethodKind::Md5, MethodKind::MsChapV2], &[]);
    assert_eq!(run(server(), peer).server.grant().method, "EAP-MSCHAPv2");
    let line = run(server(), world.peer(&[MethodKind::Md5], &[]));
    let why = line.server.why();
    assert!(why.contains("takes none of") && why.contains("[4]"), "{why}");
    line.peer.why();
    // What leaves no key is not offered, nor taken.
    let mut keyless = world.server(&[MethodKind::Md5, MethodKind::MsChapV2], &[]);
    keyless.allow_keyless = false;
    assert!(keyless.check().unwrap_err().contains("leaves no key"));
    let peer = world.peer(&[MethodKind::Md5, MethodKind::MsChapV2], &[]);
    assert_eq!(run(keyless, peer).server.grant().method, "EAP-MSCHAPv2");
    let mut careful = world.peer(&[MethodKind::Md5], &[]);
    careful.allow_keyless = false;
    assert!(matches!(run(world.server(&[MethodKind::Md5], &[]), careful).server, End::Refused(_)));
}

#[test]
fn what_a_peer_cannot_do_is_answered_in_the_form_it_was_asked_in() {
    let world = world();
    let peer = |methods: &[MethodKind]| Peer::new(Arc::new(world.peer(methods, &[])), random());
    let say = |mut peer: Peer, request: &[u8]| match peer.receive(Some(request)) {
        Step::Send(answer) => answer,
        _ => panic!("no answer"),
    };
    let both = [MethodKind::Tls, MethodKind::MsChapV2];
    assert_eq!(say(peer(&both), &[1, 5, 0, 5, 52]), [2, 5, 0, 7, 3, 13, 26]);
    let expanded = [1, 5, 0, 12, 254, 0, 0, 9, 0, 0, 0, 1];
    let nak = [254, 0, 0, 0, 0, 0, 0, 3, 254, 0, 0, 0, 0, 0, 0, 13, 254, 0, 0, 0, 0, 0, 0, 26];
    assert_eq!(say(peer(&both), &expanded), [&[2, 5, 0, 28][..], &nak].concat());
    let mut careful = world.peer(&[MethodKind::Md5], &[]);
    careful.allow_keyless = false;
    assert_eq!(say(Peer::new(Arc::new(careful), random()), &[1, 5, 0, 5, 4]), [2, 5, 0, 6, 3, 0]);
}

#[test]
fn fragments_that_do_not_add_up_end_the_conversation() {
    const LENGTH: u8 = 0x80;
    const MORE: u8 = 0x40;
    let world = world();
    let long = [&[LENGTH | MORE, 0, 1, 0, 1][..], &[0; 10]].concat();
    let cases: [(&str, &[&[u8]]); 7] = [
        ("without flags", &[&[]]),
        ("without its length", &[&[LENGTH, 0, 0]]),
        ("more than 65536", &[&long]),
        ("changes its length", &[&[LENGTH | MORE, 0, 0, 0, 9, 1, 2], &[LENGTH | MORE, 0, 0, 0, 8, 1]]),
        ("more than 3 octets", &[&[LENGTH | MORE, 0, 0, 0, 3, 1, 2], &[MORE, 1, 2]]),
        ("shorter than it said", &[&[LENGTH | MORE, 0, 0, 0, 9, 1, 2], &[0, 1, 2]]),
        ("nothing in it", &[&[MORE]]),
    ];
    for (reason, packets) in cases {
        for kind in [MethodKind::Tls, MethodKind::Ttls, MethodKind::Peap] {
            let mut config = world.server(&[kind], &[Inner::Eap(MethodKind::MsChapV2)]);
            config.ask_identity = false;
            let mut server = Server::new(Arc::new(config), Some(ALICE.as_bytes()), random());
            let mut step = server.receive(None);
            for packet in packets {
                let Step::Send(request) = step else { panic!("{reason}: over too early") };
                let mut response = vec![2, request[1], 0, (5 + packet.len()) as u8, kind.number()];
                response.extend_from_slice(packet);
                step = server.receive(Some(&response));
            }
            let Step::Refused { packet: Some(packet), why } = step else { panic!("{reason}: goes on") };
            assert_eq!(packet[0], 4);
            assert!(why.contains(reason), "{why} is not {reason}");
        }
    }
    // Without an end, it has one: 160 requests, or 64 KiB.
    let mut config = world.server(&[MethodKind::Tls], &[]);
    config.ask_identity = false;
    let mut server = Server::new(Arc::new(config), Some(ALICE.as_bytes()), random());
    let mut step = server.receive(None);
    let mut count = 0;
    while let Step::Send(request) = step {
        count += 1;
        assert_eq!(request.len(), 6, "an acknowledgement");
        let response = [&[2, request[1], 3, 0xee, 13, MORE][..], &[0; 1000]].concat();
        step = server.receive(Some(&response));
    }
    let Step::Refused { why, .. } = step else { panic!("it waits") };
    assert!(why.contains("more than 65536 octets") && count == 66, "{count}: {why}");
}

#[test]
fn what_is_not_allowed_inside_is_refused() {
    let world = world();
    let kinds = [Inner::Pap, Inner::MsChapV2, Inner::Eap(MethodKind::MsChapV2)];
    for allowed in kinds {
        for wanted in kinds.into_iter().filter(|wanted| *wanted != allowed) {
            let server = world.server(&[MethodKind::Ttls], &[allowed]);
            let line = run(server, world.peer(&[MethodKind::Ttls], &[wanted]));
            assert!(line.server.why().contains("not allowed"));
            line.peer.why();
        }
    }
}

#[test]
fn the_identity_is_asked_for_three_times() {
    let world = world();
    let mut server = Server::new(Arc::new(world.server(&[MethodKind::MsChapV2], &[])), None, random());
    let mut step = server.receive(None);
    for _ in 0..3 {
        let Step::Send(request) = step else { panic!("no request") };
        assert_eq!(request[4], 1, "Identity");
        step = server.receive(Some(&[2, request[1], 0, 5, 1]));
    }
    let Step::Refused { packet: Some(packet), why } = step else { panic!("a fourth time") };
    assert_eq!((packet[0], why.contains("does not say who it is")), (4, true));
    assert!(matches!(server.receive(Some(&[2, 1, 0, 5, 1])), Step::Wait));
}

#[test]
fn an_identity_of_the_lower_layer_spares_the_question() {
    let world = world();
    let mut config = world.server(&[MethodKind::MsChapV2], &[]);
    config.ask_identity = false;
    let mut server = Server::new(Arc::new(config), Some(ALICE.as_bytes()), random());
    let Step::Send(request) = server.receive(None) else { panic!("no request") };
    assert_eq!(request[4], 26);
}

/// Somebody who types slowly.
struct Slow(Mutex<Option<Secret>>, Mutex<Vec<Option<String>>>);

impl Prompt for Slow {
    fn ask(&self, identity: &str, question: Option<&str>) -> Answer {
        assert_eq!(identity, ALICE);
        self.1.lock().unwrap().push(question.map(str::to_string));
        match self.0.lock().unwrap().as_ref() {
            Some(password) => Answer::Given(password.duplicate()),
            None => Answer::Pending,
        }
    }
}

#[test]
fn a_password_is_waited_for_in_every_method() {
    let world = world();
    for (kind, inner, name) in ALL.into_iter().filter(|(kind, ..)| *kind != MethodKind::Tls) {
        let (server, mut peer) = both(&world, kind, inner, TlsVersions::Both);
        let slow = Arc::new(Slow(Mutex::new(None), Mutex::new(vec![])));
        peer.password = Password::Ask(Arc::clone(&slow) as Arc<dyn Prompt>);
        let mut server = Server::new(Arc::new(server), None, random());
        let mut peer = Peer::new(Arc::new(peer), random());
        let mut step = server.receive(None);
        while let Step::Send(request) = step {
            let mut answer = peer.receive(Some(&request));
            if matches!(answer, Step::Wait) {
                assert!(matches!(peer.poll(), Step::Wait), "{name}");
                // The same request again is no reason to ask again.
                assert!(matches!(peer.receive(Some(&request)), Step::Wait), "{name}");
                *slow.0.lock().unwrap() = Some(Secret::from_slice(PASSWORD.as_bytes()));
                answer = peer.poll();
            }
            let Step::Send(response) = answer else { panic!("{name}: no answer") };
            step = server.receive(Some(&response));
        }
        assert!(matches!(step, Step::Accepted { .. }), "{name}");
        let asked = slow.1.lock().unwrap();
        assert!(asked.len() >= 3, "{name}: it was not waited for");
        let question = (name.ends_with("GTC")).then(|| "Password:".to_string());
        assert!(asked.iter().all(|asked| *asked == question), "{name}");
    }
}

#[test]
fn a_peer_says_what_it_was_told() {
    let world = world();
    let mut peer = Peer::new(Arc::new(world.peer(&[MethodKind::MsChapV2], &[])), random());
    let Step::Send(answer) = peer.receive(Some(&[1, 1, 0, 8, 2, b'h', b'i', 7])) else { panic!() };
    assert_eq!(answer, [2, 1, 0, 5, 2]);
    let Step::Refused { why, .. } = peer.receive(Some(&[4, 1, 0, 4])) else { panic!() };
    assert!(why.contains("(the server said: hi )"), "{why}");
}

proptest! {
    #[test]
    fn packets_of_strangers_end_a_conversation_or_are_ignored(
        which in 0..ALL.len(),
        packets in prop::collection::vec((0u8..6, any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..40),
    ) {
        static WORLD: std::sync::OnceLock<lab::World> = std::sync::OnceLock::new();
        let world = WORLD.get_or_init(world);
        let (kind, inner, _) = ALL[which];
        let (server, peer) = both(world, kind, inner, TlsVersions::Both);
        let mut server = Server::new(Arc::new(server), None, random());
        let mut peer = Peer::new(Arc::new(peer), random());
        let Step::Send(mut request) = server.receive(None) else { panic!("no request") };
        for (code, id, number, data) in packets {
            // Often the identifier that is waited for, and the method's number.
            let id = if id & 3 != 0 { request[1] } else { id };
            let number = match number & 3 { 0 => number, 1 => 1, _ => kind.number() };
            let mut packet = vec![code, id, 0, (5 + data.len()) as u8, number];
            packet.extend_from_slice(&data);
            match server.receive(Some(&packet)) {
                Step::Send(next) => request = next,
                Step::Accepted { .. } => prop_assert!(false, "let in by chance"),
                Step::Wait | Step::Refused { .. } => {}
            }
            let accepted = matches!(peer.receive(Some(&packet)), Step::Accepted { .. });
            prop_assert!(!accepted || !kind.derives_key());
        }
    }
}
