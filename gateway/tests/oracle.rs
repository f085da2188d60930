//! Whether a name is known here: nobody learns that from a refusal. Two engines and two key sides, in memory; a user with a wrong
//! password and a user whom nobody knows try every method that has passwords, and everything that leaves the gateway is compared:
//! octet by octet where nothing is drawn by lot, and by length elsewhere.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

extern crate ike as tussock_ike;

#[path = "../ike/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipc::{EapStep, NetworkEnd, Reply, Request};
use policy::{AuthPolicy, EapMethod, IdMatch, Realm};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};
use secure::{Certificate, Config, Credentials, EapCredentials, EapInner, EapUser, OwnKey, Psk, Running};
use spi::{KeySource, Secret, Token};
use tussock_ike::Event;
use world::World;
use world::policy::{id, realm};

/// What has passwords, and what runs inside it.
const METHODS: [(EapMethod, Option<EapInner>); 10] = [
    (EapMethod::MsChapV2, None),
    (EapMethod::Md5, None),
    (EapMethod::Gtc, None),
    (EapMethod::Ttls, Some(EapInner::Pap)),
    (EapMethod::Ttls, Some(EapInner::MsChapV2)),
    (EapMethod::Ttls, Some(EapInner::EapMsChapV2)),
    (EapMethod::Ttls, Some(EapInner::EapMd5)),
    (EapMethod::Ttls, Some(EapInner::EapGtc)),
    (EapMethod::Peap, Some(EapInner::EapMsChapV2)),
    (EapMethod::Peap, Some(EapInner::EapGtc)),
];
/// Who has an account, and who has none: names of one length.
const KNOWN: &str = "carol";
const UNKNOWN: &str = "trudy";
const WRONG: &str = "a-wrong-guess";

/// What both cost the gateway's key side is printed for people, of as many attempts as `ROUNDS` says; no clock decides here.
#[test]
fn a_user_whom_nobody_knows_is_refused_as_one_with_a_wrong_password() {
    let rounds: u32 = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let papers = Papers::new();
    for (method, inner) in METHODS {
        let mut spent = [Duration::ZERO; 2];
        for round in 0..rounds {
            let mut seen = [KNOWN, UNKNOWN].map(|who| (who, None));
            // Who goes first changes.
            seen.rotate_left(round as usize % 2);
            for (who, seen) in &mut seen {
                *seen = Some(attempt(&papers, method, inner, who));
            }
            seen.rotate_right(round as usize % 2);
            let [wrong, unknown] = seen.map(|(_, seen)| seen.unwrap());
            spent = [spent[0] + wrong.spent, spent[1] + unknown.spent];
            are_alike(&format!("{method:?} {inner:?}"), &wrong, &unknown);
        }
        let [wrong, unknown] = spent.map(|spent| spent / rounds);
        let ratio = unknown.as_secs_f64() / wrong.as_secs_f64();
        eprintln!("{method:?} {inner:?}: wrong {wrong:.1?}, unknown {unknown:.1?}, ratio {ratio:.3}");
    }
}

fn are_alike(name: &str, wrong: &Seen, unknown: &Seen) {
    assert!(wrong.wire.len() >= 8, "{name}: it was tried: {:?}", wrong.wire);
    assert_eq!(wrong.wire, unknown.wire, "{name}: what is on the wire");
    assert_eq!(wrong.eap, unknown.eap, "{name}: EAP");
    assert_eq!(wrong.ends[0], unknown.ends[0], "{name}: what the client is told");
    assert!(wrong.ends[0].contains("wrong name or password"), "{name}: {:?}", wrong.ends);
    // Our own log says which it was.
    assert!(wrong.ends[1].contains("wrong password of ....."), "{name}: {:?}", wrong.ends);
    assert!(unknown.ends[1].contains("there is no user ....."), "{name}: {:?}", unknown.ends);
    // The last word is the same two: EAP-Failure under the identifier of what it answers, and nothing that says more.
    assert!(wrong.eap.last().unwrap().starts_with("gateway 04"), "{name}: {:?}", wrong.eap);
    assert_eq!(wrong.work, unknown.work, "{name}: the work");
}

#[test]
fn somebody_with_the_right_password_comes_in() {
    let papers = Papers::new();
    for (method, inner) in METHODS {
        let (mut world, up, _) = meeting(&papers, method, inner, KNOWN, "the right one");
        world.run(Duration::from_secs(20));
        world.assert_ok(0, up);
    }
}

/// What can be seen of an attempt, and what it cost.
struct Seen {
    /// Every datagram: whose, which exchange, flags, identifier, length.
    wire: Vec<String>,
    /// Every EAP packet at the gateway; what is drawn by lot, and the name, as dots.
    eap: Vec<String>,
    /// How it ended for the client, and for the gateway's log.
    ends: [String; 2],
    /// Operations of each node's IKE, and questions to the gateway's key side.
    work: (usize, usize, BTreeMap<&'static str, usize>),
    /// CPU time of the gateway's key side.
    spent: Duration,
}

fn attempt(papers: &Papers, method: EapMethod, inner: Option<EapInner>, who: &str) -> Seen {
    let (mut world, up, notes) = meeting(papers, method, inner, who, WRONG);
    world.run(Duration::from_secs(20));
    assert!(world.nodes[0].answers[&up].is_err(), "{who} came in");
    let flags = |m: &[u8]| (m[18], m[19], u32::from_be_bytes(m[20..24].try_into().unwrap()));
    let wire = world.wire.iter().map(|(node, m)| format!("{node} {:?} {}", flags(m), m.len())).collect();
    let end = |node: usize| {
        let why = world.nodes[node].events.iter().find_map(|event| match event {
            Event::IkeClosed { why, .. } => Some(why.to_string().replace(who, ".....")),
            _ => None,
        });
        why.unwrap_or_default()
    };
    let ends = [end(0), end(1)];
    let notes = std::mem::take(&mut *notes.lock().unwrap());
    let first = notes.eap.first().map_or(0, |(_, packet)| packet[1]);
    let shown = |(from, packet): &(_, Vec<u8>)| format!("{from} {}", without_chance(packet, first, who));
    let eap = notes.eap.iter().map(shown).collect();
    let work = (world.nodes[0].jobs, world.nodes[1].jobs, notes.questions);
    Seen { wire, eap, ends, work, spent: notes.spent }
}

/// A packet in hexadecimal, without what is drawn by lot, depends on it, or is the name. Identifiers count from the first one, which
/// is by lot.
fn without_chance(packet: &[u8], first: u8, who: &str) -> String {
    let mut packet = packet.to_vec();
    packet[1] = packet[1].wrapping_sub(first);
    if let [_, _, _, _, 26, _, id, ..] = packet.as_mut_slice() {
        *id = id.wrapping_sub(first);
    }
    let mut text: Vec<String> = packet.iter().map(|octet| format!("{octet:02x}")).collect();
    let mut hide = |range: std::ops::Range<usize>| {
        text.iter_mut().take(range.end).skip(range.start).for_each(|octet| *octet = "..".into());
    };
    match packet.as_slice() {
        // MD5: the challenge, or the digest.
        [_, _, _, _, 4, size, ..] => hide(6..6 + usize::from(*size)),
        // MSCHAPv2: the challenge.
        [1, _, _, _, 26, 1, ..] => hide(10..26),
        // The peer's challenge, and its response.
        [2, _, _, _, 26, 2, ..] => hide(10..34 + 24),
        // `E=691 R=0 C=`, and a new challenge that nobody may use.
        [1, _, _, _, 26, 4, ..] => {
            let at = packet.windows(2).position(|pair| pair == b"C=").unwrap();
            hide(at + 2..at + 34);
        }
        // TLS: all that is behind the flags and the length in them.
        [_, _, _, _, 21 | 25, flags, ..] => hide(if flags & 0x80 == 0 { 6 } else { 10 }..packet.len()),
        _ => {}
    }
    let name = |at: &usize| packet[*at..].starts_with(who.as_bytes());
    let at: Vec<usize> = (0..packet.len()).filter(name).collect();
    at.into_iter().for_each(|at| hide(at..at + who.len()));
    text.concat()
}

/// What was noted beside the gateway's key side.
#[derive(Default)]
struct Notes {
    eap: Vec<(&'static str, Vec<u8>)>,
    questions: BTreeMap<&'static str, usize>,
    spent: Duration,
}

/// A client that calls, and a gateway that takes this method.
fn meeting(
    papers: &Papers,
    method: EapMethod,
    inner: Option<EapInner>,
    who: &str,
    password: &str,
) -> (World, tussock_ike::CommandId, Arc<Mutex<Notes>>) {
    let (mut client, mut server) = (realm(0), realm(1));
    client.local_auth = AuthPolicy::Eap;
    client.eap.identity = Some(who.into());
    server.remote_auth = AuthPolicy::Eap;
    server.remote_id = IdMatch::Any.into();
    server.remote = vec![];
    for realm in [&mut client, &mut server] {
        realm.eap.methods = vec![method];
        realm.eap.keyless = true;
    }
    let user = |name: &str, password: &str| EapUser {
        name: name.into(),
        password: Secret::from_slice(password.as_bytes()),
        realms: vec![],
    };
    let at_client = papers.client(inner);
    let at_server = papers.server(inner);
    let client_keys = key_side(&client, user(who, password), at_client);
    let server_keys = key_side(&server, user(KNOWN, "the right one"), at_server);
    let mut world = World::new(1, vec![client], vec![server]);
    let notes = Arc::<Mutex<Notes>>::default();
    world.nodes[0].key_side = Some(answering(client_keys, None));
    world.nodes[1].key_side = Some(answering(server_keys, Some(Arc::clone(&notes))));
    let up = world.up(0);
    (world, up, notes)
}

fn key_side(realm: &Realm, user: EapUser, eap: EapCredentials) -> Running {
    let credentials = Credentials { eap: Some(eap), ..Credentials::default() };
    let config = Config {
        realms: vec![Arc::new(realm.clone())],
        psks: vec![Psk {
            ids: vec![IdMatch::Exact(id(0)), IdMatch::Exact(id(1))],
            realm: None,
            secret: Secret::from_slice(b"between us"),
        }],
        users: vec![user],
        credentials: [("r".to_owned(), credentials)].into(),
        ..Config::default()
    };
    secure::spawn_on(config, vec![soft::Soft::new(1).device()]).unwrap()
}

/// Asks the key side and waits for it; with notes of what was asked and said.
fn answering(mut keys: Running, notes: Option<Arc<Mutex<Notes>>>) -> world::KeySide {
    Box::new(move |request| {
        // All of it is kept here, with the thread.
        let keys = &mut keys;
        let Some(notes) = &notes else { return ask(&mut keys.end, request) };
        let (kind, eap) = match &request {
            Request::EapBegin { .. } => ("begin", true),
            Request::EapPacket { packet, .. } => {
                notes.lock().unwrap().eap.push(("client", packet.clone()));
                ("packet", true)
            }
            Request::Forget { .. } => ("forget", false),
            _ => ("other", false),
        };
        *notes.lock().unwrap().questions.entry(kind).or_default() += 1;
        let before = cpu_time();
        let reply = ask(&mut keys.end, request);
        let mut notes = notes.lock().unwrap();
        if eap {
            notes.spent += cpu_time() - before;
        }
        let said = match &reply {
            Some(Reply::Eap(EapStep::Send(packet) | EapStep::Regret { packet, .. })) => Some(packet),
            Some(Reply::Eap(EapStep::Accepted { packet, .. } | EapStep::Refused { packet, .. })) => {
                packet.as_ref()
            }
            _ => None,
        };
        notes.eap.extend(said.map(|packet| ("gateway", packet.clone())));
        reply
    })
}

fn ask(end: &mut NetworkEnd, request: Request) -> Option<Reply> {
    let answered = !matches!(request, Request::Forget { .. });
    end.submit(Token(1), request).unwrap();
    let mut got = None;
    while answered && got.is_none() {
        // Asleep meanwhile: what is measured is the other's time.
        poll(&mut [PollFd::from_borrowed_fd(end.doorbell(), PollFlags::IN)], None).unwrap();
        end.poll(1, |_, reply| got = Some(reply));
    }
    got
}

/// Of the whole process, whose other threads sleep.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

/// A CA and a server of it. Signatures by Ed25519 are all of one length.
struct Papers {
    ca: Vec<u8>,
    server: Vec<u8>,
    key: Vec<u8>,
}

impl Papers {
    fn new() -> Papers {
        let key = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let (ca_key, server_key) = (key(), key());
        let mut of_ca = rcgen::CertificateParams::new(vec![]).unwrap();
        of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = of_ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(of_ca, ca_key);
        let params = rcgen::CertificateParams::new(vec!["sun.lab.test".to_owned()]).unwrap();
        let server = params.signed_by(&server_key, &issuer).unwrap();
        Papers { ca: ca.der().to_vec(), server: server.der().to_vec(), key: server_key.serialize_der() }
    }

    fn server(&self, inner: Option<EapInner>) -> EapCredentials {
        let cert = Certificate { name: "server".into(), der: self.server.clone() };
        let own = OwnKey {
            name: "server".into(),
            source: KeySource::Der(Secret::from_slice(&self.key)),
            certs: vec![cert.into()],
            url: None,
        };
        EapCredentials { own: Some(own), inner: inner.into_iter().collect(), ..EapCredentials::default() }
    }

    fn client(&self, inner: Option<EapInner>) -> EapCredentials {
        EapCredentials {
            anchors: vec![Certificate { name: "ca".into(), der: self.ca.clone() }],
            server_name: Some("sun.lab.test".into()),
            inner: inner.into_iter().collect(),
            ..EapCredentials::default()
        }
    }
}
