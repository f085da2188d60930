//! EAP conversations: between two key sides that have passwords and certificates, and with packets that have no place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipc::{AuthInput, EapGrant, EapStep, IkeSaRef, Refusal, Reply, Request, Role};
use policy::{AuthPolicy, EapMethod, Realm};
use spi::Secret;

use crate::config::{Config, Credentials, EapCredentials, EapUser};
use crate::testing::*;

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";
const A: IkeSaRef = IkeSaRef(1);
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

pub(crate) fn users(password: &str) -> Vec<EapUser> {
    vec![EapUser {
        name: "carol".into(),
        password: Secret::from_slice(password.as_bytes()),
        realms: vec!["r".into()],
    }]
}

/// A gateway that takes these methods; its own proof is by PSK, which is shorter to write than a certificate.
pub(crate) fn server_realm(methods: &[EapMethod]) -> Realm {
    let mut realm = realm("r", MOON, "any", AuthPolicy::Psk);
    realm.remote_auth = AuthPolicy::Eap;
    realm.eap.methods = methods.to_vec();
    realm
}

pub(crate) fn client_realm(methods: &[EapMethod]) -> Realm {
    let mut realm = realm("r", SUN, MOON, AuthPolicy::Psk);
    realm.local_auth = AuthPolicy::Eap;
    realm.eap.methods = methods.to_vec();
    realm.eap.identity = Some("carol".into());
    realm
}

pub(crate) fn side(realm: Realm, users: Vec<EapUser>, eap: Option<EapCredentials>) -> Side {
    let credentials =
        eap.map(|eap| ("r".to_owned(), Credentials { eap: Some(eap), ..Credentials::default() }));
    Side::new(Config {
        realms: vec![realm.into()],
        psks: vec![psk(&[MOON, SUN], "between us")],
        users,
        credentials: credentials.into_iter().collect::<BTreeMap<_, _>>(),
        ..Config::default()
    })
}

pub(crate) fn begin(side: &mut Side, role: Role) -> Reply {
    let peer = if role == Role::Responder { SUN } else { MOON };
    side.ask(Request::EapBegin {
        sa: A,
        role,
        realms: vec!["r".into()],
        asked: None,
        peer_id: id(peer),
        remote: ADDRESS,
    })
}

pub(crate) fn packet(side: &mut Side, packet: Vec<u8>) -> Reply {
    side.ask(Request::EapPacket { sa: A, packet })
}

pub(crate) fn step(reply: Reply) -> EapStep {
    match reply {
        Reply::Eap(step) => step,
        Reply::Refused(refusal) => panic!("{refusal}"),
        _ => panic!("no step"),
    }
}

/// Has the client check the gateway's first proof, as the order of things wants it.
pub(crate) fn meet(moon: &mut Side, sun: &mut Side) -> EapStep {
    let first = step(begin(moon, Role::Responder));
    let by_key = proof(moon.make(1, "r", MOON, responders(Role::Responder)));
    accepted(sun.check(1, "r", SUN, MOON, responders(Role::Initiator), by_key));
    first
}

/// Carries packets until one side has ended; what each said last.
pub(crate) fn talk(moon: &mut Side, sun: &mut Side) -> (EapStep, EapStep) {
    let mut from_moon = meet(moon, sun);
    assert_eq!(step(begin(sun, Role::Initiator)), EapStep::Ready);
    for _ in 0..100 {
        let (to_sun, over) = match &from_moon {
            EapStep::Send(packet) | EapStep::Regret { packet, .. } => (packet.clone(), false),
            EapStep::Accepted { packet: Some(packet), .. }
            | EapStep::Refused { packet: Some(packet), .. } => (packet.clone(), true),
            other => panic!("{other:?}"),
        };
        let from_sun = step(packet(sun, to_sun));
        match from_sun {
            EapStep::Send(answer) if !over => from_moon = step(packet(moon, answer)),
            last => return (from_moon, last),
        }
    }
    panic!("without end");
}

pub(crate) fn grant(step: EapStep) -> EapGrant {
    match step {
        EapStep::Accepted { grant, .. } => *grant,
        other => panic!("{other:?}"),
    }
}

/// The proofs that end IKE_AUTH, and that nothing more is to be had after them.
pub(crate) fn prove_both(moon: &mut Side, sun: &mut Side) {
    let make = |input: AuthInput| Request::EapMakeAuth { sa: A, input };
    let check = |input: AuthInput, proof| Request::EapCheckAuth { sa: A, input, proof };
    assert!(matches!(refusal(moon.ask(make(responders(Role::Responder)))), Refusal::OutOfTurn(_)));
    let suns = proof(sun.ask(make(initiators(Role::Initiator))));
    accepted(moon.ask(check(initiators(Role::Responder), suns)));
    let moons = proof(moon.ask(make(responders(Role::Responder))));
    assert!(matches!(refusal(moon.ask(make(responders(Role::Responder)))), Refusal::OutOfTurn(_)));
    accepted(sun.ask(check(responders(Role::Initiator), moons)));
    assert!(matches!(refusal(sun.ask(make(initiators(Role::Initiator)))), Refusal::OutOfTurn(_)));
}

#[test]
fn a_password_opens_and_the_key_it_gives_proves_both() {
    let methods = [EapMethod::MsChapV2];
    let mut moon = side(server_realm(&methods), users("Ar3etTnp"), None);
    let mut sun = side(client_realm(&methods), users("Ar3etTnp"), None);
    assert_eq!((moon.problems.len(), sun.problems.len()), (0, 0), "{:?} {:?}", moon.problems, sun.problems);
    let (moons, suns) = talk(&mut moon, &mut sun);
    let granted = grant(moons);
    assert_eq!((granted.identity.as_str(), granted.keyed), ("carol", true));
    assert!(grant(suns).keyed);
    prove_both(&mut moon, &mut sun);
}

#[test]
fn certificates_open_by_eap_tls_and_passwords_in_tunnels() {
    let ca = Ca::new("ca");
    let of = |name: &str, server: Option<&str>| {
        let leaf = ca.issue(name, rcgen::KeyPair::generate().unwrap());
        EapCredentials {
            own: Some(leaf.own(&[])),
            anchors: vec![ca.named()],
            server_name: server.map(str::to_owned),
            ..EapCredentials::default()
        }
    };
    for method in [EapMethod::Tls, EapMethod::Ttls, EapMethod::Peap] {
        let mut moon = side(server_realm(&[method]), users("Ar3etTnp"), Some(of(MOON, None)));
        let mut sun = side(client_realm(&[method]), users("Ar3etTnp"), Some(of("carol", Some(MOON))));
        assert_eq!(
            (moon.problems.len(), sun.problems.len()),
            (0, 0),
            "{:?} {:?}",
            moon.problems,
            sun.problems
        );
        let (moons, suns) = talk(&mut moon, &mut sun);
        assert_eq!(grant(moons).identity, "carol", "{method:?}");
        assert!(grant(suns).keyed);
        prove_both(&mut moon, &mut sun);
        // A server of another name is not believed.
        let mut moon = side(server_realm(&[method]), users("Ar3etTnp"), Some(of("other.lab.test", None)));
        let mut sun = side(client_realm(&[method]), users("Ar3etTnp"), Some(of("carol", Some(MOON))));
        let (moons, suns) = talk(&mut moon, &mut sun);
        assert!(matches!((moons, suns), (EapStep::Refused { .. }, EapStep::Refused { .. })), "{method:?}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_end_alike() {
    let methods = [EapMethod::MsChapV2];
    let mut ends = Vec::new();
    for known in [users("another"), {
        let mut users = users("Ar3etTnp");
        users[0].name = "dave".into();
        users
    }] {
        let mut moon = side(server_realm(&methods), known, None);
        let mut sun = side(client_realm(&methods), users("Ar3etTnp"), None);
        let mut sizes = Vec::new();
        let mut from_moon = meet(&mut moon, &mut sun);
        begin(&mut sun, Role::Initiator);
        while let EapStep::Send(bytes) | EapStep::Regret { packet: bytes, .. } = &from_moon {
            sizes.push(bytes.len());
            match step(packet(&mut sun, bytes.clone())) {
                EapStep::Send(answer) => from_moon = step(packet(&mut moon, answer)),
                _ => break,
            }
        }
        assert!(matches!(from_moon, EapStep::Refused { packet: Some(ref p), .. } if p[0] == 4));
        ends.push(sizes);
        let make = Request::EapMakeAuth { sa: A, input: responders(Role::Responder) };
        assert!(matches!(refusal(moon.ask(make)), Refusal::OutOfTurn(_)));
    }
    assert_eq!(ends[0], ends[1], "the same packets, octet by octet as long");
}

#[test]
fn a_password_that_is_not_written_down_is_asked_for_and_a_wrong_one_again() {
    let methods = [EapMethod::MsChapV2];
    for typed in ["Ar3etTnp", "guess"] {
        let mut moon = side(server_realm(&methods), users("Ar3etTnp"), None);
        let mut sun = side(client_realm(&methods), vec![], None);
        assert_eq!(sun.problems, [], "it is not missed before it is wanted");
        let mut from_moon = meet(&mut moon, &mut sun);
        begin(&mut sun, Role::Initiator);
        let mut asked = 0;
        let last = loop {
            let bytes = match &from_moon {
                EapStep::Send(packet) | EapStep::Regret { packet, .. } => packet.clone(),
                EapStep::Accepted { packet: Some(packet), .. } => packet.clone(),
                EapStep::Refused { packet: Some(packet), .. } => packet.clone(),
                other => panic!("{other:?}"),
            };
            let answer = match step(packet(&mut sun, bytes)) {
                EapStep::WantPassword(user) => {
                    assert_eq!(user, "carol");
                    asked += 1;
                    sun.authority.eap.give_password("r", None, Secret::from_slice(typed.as_bytes()));
                    step(sun.ask(Request::EapWait { sa: A }))
                }
                other => other,
            };
            match answer {
                EapStep::Send(answer) => from_moon = step(packet(&mut moon, answer)),
                last => break last,
            }
        };
        assert_eq!(asked, 1);
        match typed {
            "guess" => {
                assert!(matches!(last, EapStep::Refused { .. }), "{last:?}");
                // A password that was refused is not used again.
                assert!(sun.authority.eap.asks_again("r", "carol"));
            }
            _ => assert!(grant(last).keyed),
        }
    }
}

#[test]
fn eap_is_for_realms_that_say_so_and_in_its_order() {
    let methods = [EapMethod::MsChapV2];
    let mut moon = side(realm("r", MOON, "any", AuthPolicy::Psk), users("x"), None);
    assert!(matches!(refusal(begin(&mut moon, Role::Responder)), Refusal::NotAllowed(_)));
    let mut moon = side(server_realm(&methods), users("x"), None);
    assert!(matches!(refusal(packet(&mut moon, vec![2, 1, 0, 4])), Refusal::OutOfTurn(_)));
    // The signature before EAP has begun, as without EAP, is for nobody.
    let early = moon.make(1, "r", MOON, responders(Role::Responder));
    assert!(matches!(refusal(early), Refusal::OutOfTurn(_)));
    assert!(matches!(refusal(moon.ask(Request::EapWait { sa: A })), Refusal::OutOfTurn(_)));
    step(begin(&mut moon, Role::Responder));
    assert!(matches!(refusal(begin(&mut moon, Role::Responder)), Refusal::OutOfTurn(_)));
    // A client does nothing before the gateway has proved itself.
    let mut sun = side(client_realm(&methods), users("x"), None);
    assert!(matches!(refusal(begin(&mut sun, Role::Initiator)), Refusal::OutOfTurn(_)));
    // Nor for somebody else than the realm's gateway.
    let begin_with = |peer: &str| Request::EapBegin {
        sa: IkeSaRef(9),
        role: Role::Initiator,
        realms: vec!["r".into()],
        asked: None,
        peer_id: id(peer),
        remote: ADDRESS,
    };
    assert!(matches!(refusal(sun.ask(begin_with("other.lab.test"))), Refusal::AuthenticationFailed(_)));
    // What is forgotten is gone.
    assert!(moon.authority.handle(moon.at, spi::Token(0), Request::Forget { sa: A }).is_none());
    assert!(matches!(refusal(packet(&mut moon, vec![2, 1, 0, 4])), Refusal::OutOfTurn(_)));
}

#[test]
fn packets_without_end_and_time_without_end_come_to_an_end() {
    let methods = [EapMethod::MsChapV2];
    let mut moon = side(server_realm(&methods), users("x"), None);
    step(begin(&mut moon, Role::Responder));
    let long = packet(&mut moon, vec![2; ipc::MAX_EAP_PACKET + 1]);
    assert!(matches!(refusal(long), Refusal::NotAllowed(_)));
    let mut moon = side(server_realm(&methods), users("x"), None);
    step(begin(&mut moon, Role::Responder));
    // What a method would drop has no successor in IKE.
    for garbage in [vec![], vec![0; 3], vec![1, 1, 0, 5, 1], vec![2, 1, 0, 200]] {
        let mut moon = side(server_realm(&methods), users("x"), None);
        step(begin(&mut moon, Role::Responder));
        let end = step(packet(&mut moon, garbage));
        assert!(matches!(end, EapStep::Refused { packet: Some(ref p), .. } if p[0] == 4), "{end:?}");
        assert!(matches!(refusal(packet(&mut moon, vec![2, 1, 0, 4])), Refusal::OutOfTurn(_)));
    }
    let mut moon = side(server_realm(&methods), users("x"), None);
    step(begin(&mut moon, Role::Responder));
    moon.at += std::time::Duration::from_secs(3600);
    assert!(matches!(refusal(packet(&mut moon, vec![2, 1, 0, 4])), Refusal::OutOfTurn(_)));
}

#[test]
fn the_realm_is_that_of_the_user_and_takes_the_method() {
    let methods = [EapMethod::MsChapV2];
    let named = |name: &str, rule: &str| {
        let mut realm = server_realm(&methods);
        realm.name = name.into();
        realm.remote_id = policy::Peers::parse([rule]).unwrap();
        realm
    };
    let land = |user: &str, realms: Vec<Realm>, of_user: &[&str]| {
        let user = EapUser {
            name: user.into(),
            password: Secret::from_slice(b"Ar3etTnp"),
            realms: of_user.iter().map(|realm| (*realm).to_owned()).collect(),
        };
        let names: Vec<std::sync::Arc<str>> = realms.iter().map(|realm| realm.name.clone()).collect();
        let mut client = client_realm(&methods);
        client.eap.identity = Some(user.name.clone());
        let password =
            EapUser { name: user.name.clone(), password: user.password.duplicate(), realms: vec![] };
        let mut sun = side(client, vec![password], None);
        let mut moon = Side::new(Config {
            realms: realms.into_iter().map(Into::into).collect(),
            psks: vec![psk(&[MOON, SUN], "between us")],
            users: vec![user],
            ..Config::default()
        });
        let mut from_moon = step(moon.ask(Request::EapBegin {
            sa: A,
            role: Role::Responder,
            realms: names,
            asked: None,
            peer_id: id(SUN),
            remote: ADDRESS,
        }));
        let mut gateway = side(server_realm(&methods), users("x"), None);
        begin(&mut gateway, Role::Responder);
        let by_key = proof(gateway.make(1, "r", MOON, responders(Role::Responder)));
        accepted(sun.check(1, "r", SUN, MOON, responders(Role::Initiator), by_key));
        begin(&mut sun, Role::Initiator);
        while let EapStep::Send(bytes) | EapStep::Regret { packet: bytes, .. } = &from_moon {
            let EapStep::Send(answer) = step(packet(&mut sun, bytes.clone())) else { break };
            from_moon = step(packet(&mut moon, answer));
        }
        match from_moon {
            EapStep::Accepted { realm, .. } => Some(realm.to_string()),
            EapStep::Refused { packet: Some(packet), .. } if packet[0] == 4 => None,
            other => panic!("{other:?}"),
        }
    };
    let both = || vec![named("all", "any"), named("sales", "eap: carol")];
    assert_eq!(land("carol", both(), &[]).as_deref(), Some("sales"), "the narrower rule");
    assert_eq!(land("dave", both(), &[]).as_deref(), Some("all"));
    assert_eq!(land("carol", both(), &["all"]).as_deref(), Some("all"), "no user of the other");
    assert_eq!(land("carol", both(), &["elsewhere"]), None, "a user of neither");
    assert_eq!(land("dave", vec![named("sales", "eap: carol")], &[]), None, "nobody's peer");
    // A realm that takes another method only is not entered by this one.
    let mut strict = both();
    strict[1].eap.methods = vec![EapMethod::Md5];
    strict[1].eap.keyless = true;
    assert_eq!(land("carol", strict, &[]).as_deref(), Some("all"));
    // Nor one that goes by another name than the peer was told.
    let mut other = both();
    other[1].local_id = id("other.lab.test");
    assert_eq!(land("carol", other, &[]).as_deref(), Some("all"));
}
