//! Revocation of certificates that are shown in TLS inside EAP, of clients and of servers.

use ipc::{EapStep, IkeSaRef, Request, Role};
use policy::EapMethod;
use rcgen::{CertificateParams, KeyPair, SerialNumber};

use super::eap::{
    begin, client_realm, grant, meet, packet, prove_both, server_realm, side, step, talk, users,
};
use super::status::{Server, list};
use crate::config::{
    Certificate, Config, Credentials, CrlSource, EapCredentials, Revocation, RevocationMode,
};
use crate::testing::*;

const MOON: &str = "moon.lab.test";

/// The serial numbers of the two.
const MOONS: u8 = 9;
const CAROLS: u8 = 7;

fn numbered(name: &str, serial: u8) -> CertificateParams {
    let mut params = ee_params(name);
    params.serial_number = Some(SerialNumber::from(vec![serial]));
    params
}

/// What the two have of a CA, the server first, where each looks so at revocation of the other's.
fn both(ca: &Ca, servers: Revocation, clients: Revocation) -> [EapCredentials; 2] {
    let of = |name: &str, serial: u8, server: Option<&str>, revocation: Revocation| EapCredentials {
        own: Some(ca.issue_as(&numbered(name, serial), KeyPair::generate().unwrap()).own(&[])),
        anchors: vec![ca.named()],
        revocation,
        server_name: server.map(str::to_owned),
        ..EapCredentials::default()
    };
    [of(MOON, MOONS, None, servers), of("carol", CAROLS, Some(MOON), clients)]
}

/// How it ends for the server and the client.
fn ends(method: EapMethod, [servers, clients]: [EapCredentials; 2]) -> (EapStep, EapStep) {
    let mut moon = side(server_realm(&[method]), users("Ar3etTnp"), Some(servers));
    let mut sun = side(client_realm(&[method]), users("Ar3etTnp"), Some(clients));
    assert_eq!((&moon.problems[..], &sun.problems[..]), (&[][..], &[][..]));
    let ends = talk(&mut moon, &mut sun);
    if matches!(ends.1, EapStep::Accepted { .. }) {
        prove_both(&mut moon, &mut sun);
    }
    ends
}

fn why(step: EapStep) -> String {
    match step {
        EapStep::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn by(mode: RevocationMode, crls: Vec<CrlSource>) -> Revocation {
    Revocation { mode, crls, ..Revocation::default() }
}

fn file(der: Vec<u8>) -> Vec<CrlSource> {
    vec![CrlSource::Given(Certificate { name: "ca.crl".into(), der })]
}

const OFF: fn() -> Revocation = || by(RevocationMode::Off, vec![]);

#[test]
fn a_client_is_let_in_by_eap_tls_as_far_as_the_realm_believes_its_certificate() {
    let ca = Ca::new("CA");
    for mode in [RevocationMode::Strict, RevocationMode::Relaxed] {
        let (moons, _) = ends(EapMethod::Tls, both(&ca, by(mode, file(list(&ca, &[CAROLS], |_| ()))), OFF()));
        let why = why(moons);
        assert!(
            why.contains("CN=carol was revoked on 2026-02-03") && why.contains("key compromise"),
            "{why}"
        );
        let (moons, _) = ends(EapMethod::Tls, both(&ca, by(mode, file(list(&ca, &[MOONS], |_| ()))), OFF()));
        assert_eq!(grant(moons).identity, "carol");
    }
    let (moons, _) = ends(EapMethod::Tls, both(&ca, by(RevocationMode::Strict, vec![]), OFF()));
    assert!(why(moons).contains("the realm is strict"));
    let (moons, _) = ends(EapMethod::Tls, both(&ca, by(RevocationMode::Relaxed, vec![]), OFF()));
    assert_eq!(grant(moons).identity, "carol");
}

#[test]
fn a_client_believes_no_server_whose_certificate_was_revoked() {
    let ca = Ca::new("CA");
    for method in [EapMethod::Tls, EapMethod::Ttls, EapMethod::Peap] {
        let revoked = by(RevocationMode::Relaxed, file(list(&ca, &[MOONS], |_| ())));
        let (moons, suns) = ends(method, both(&ca, OFF(), revoked));
        assert!(why(suns).contains("CN=moon.lab.test was revoked on"), "{method:?}");
        assert!(matches!(moons, EapStep::Send(_)), "the server has heard of nobody");
        let good = by(RevocationMode::Strict, file(list(&ca, &[CAROLS], |_| ())));
        let (moons, suns) = ends(method, both(&ca, OFF(), good));
        assert_eq!(grant(moons).identity, "carol");
        assert!(grant(suns).keyed);
        let (_, suns) = ends(method, both(&ca, OFF(), by(RevocationMode::Strict, vec![])));
        assert!(why(suns).contains("the realm is strict"));
    }
}

#[test]
fn what_has_to_be_fetched_is_waited_for_and_a_password_after_that() {
    let ca = Ca::new("CA");
    let server = Server::of(list(&ca, &[], |_| ()));
    let strict = || by(RevocationMode::Strict, vec![CrlSource::Url(server.url("ca.crl"))]);
    let (moons, suns) = ends(EapMethod::Tls, both(&ca, strict(), strict()));
    assert_eq!(grant(moons).identity, "carol");
    assert!(grant(suns).keyed);
    assert_eq!(server.asked(), 2, "each asked once");
    // Nobody wrote the password down: it is wanted once the server is believed.
    let [servers, clients] = both(&ca, OFF(), strict());
    let mut moon = side(server_realm(&[EapMethod::Ttls]), users("Ar3etTnp"), Some(servers));
    let mut sun = side(client_realm(&[EapMethod::Ttls]), Vec::new(), Some(clients));
    let mut from_moon = meet(&mut moon, &mut sun);
    assert_eq!(step(begin(&mut sun, Role::Initiator)), EapStep::Ready);
    let wanted = loop {
        let EapStep::Send(bytes) = from_moon else { panic!("{from_moon:?}") };
        match step(packet(&mut sun, bytes)) {
            EapStep::Send(answer) => from_moon = step(packet(&mut moon, answer)),
            other => break other,
        }
    };
    assert_eq!(wanted, EapStep::WantPassword("carol".into()));
    assert_eq!(server.asked(), 3);
}

#[test]
fn a_server_that_is_asked_for_a_list_and_gives_none_decides_as_the_realm_says() {
    let ca = Ca::new("CA");
    let server = Server::new(Box::new(|_, _| Some((500, Vec::new()))));
    let of = |mode| by(mode, vec![CrlSource::Url(server.url("ca.crl"))]);
    let (moons, _) = ends(EapMethod::Tls, both(&ca, of(RevocationMode::Strict), OFF()));
    assert!(why(moons).contains("the realm is strict"));
    let (moons, _) = ends(EapMethod::Tls, both(&ca, of(RevocationMode::Relaxed), OFF()));
    assert_eq!(grant(moons).identity, "carol");
    assert_eq!(server.asked(), 2);
}

#[test]
fn a_certificate_that_one_realm_judged_opens_no_stricter_one() {
    let (ca, other) = (Ca::new("CA"), Ca::new("Other"));
    let lists = || file(list(&ca, &[], |_| ()));
    // Where carol lands who is judged by the first realm, and is the second one's by its rule.
    let lands = |first: Revocation, second: Revocation, cas: &[&Ca]| {
        let [mut of_first, clients] = both(&ca, first, OFF());
        let [mut of_second, _] = both(&ca, second, OFF());
        of_second.anchors = cas.iter().map(|ca| ca.named()).collect();
        let named = |name: &str, rule: &str| {
            let mut realm = server_realm(&[EapMethod::Tls]);
            realm.name = name.into();
            realm.remote_id = policy::Peers::parse([rule]).unwrap();
            realm
        };
        let of = |eap: &mut EapCredentials| Credentials {
            eap: Some(std::mem::take(eap)),
            ..Credentials::default()
        };
        let mut moon = Side::new(Config {
            realms: vec![named("all", "any").into(), named("sales", "eap: carol").into()],
            psks: vec![psk(&[MOON, "sun.lab.test"], "between us")],
            credentials: [("all".to_owned(), of(&mut of_first)), ("sales".to_owned(), of(&mut of_second))]
                .into(),
            ..Config::default()
        });
        assert!(moon.problems.is_empty(), "{:?}", moon.problems);
        let mut sun = side(client_realm(&[EapMethod::Tls]), vec![], Some(clients));
        let mut from_moon = meet_in(&mut moon, &mut sun, &["all", "sales"]);
        while let EapStep::Send(bytes) = &from_moon {
            let EapStep::Send(answer) = step(packet(&mut sun, bytes.clone())) else { break };
            from_moon = step(packet(&mut moon, answer));
        }
        match from_moon {
            EapStep::Accepted { realm, .. } => Ok(realm.to_string()),
            other => Err(why(other)),
        }
    };
    let relaxed = || by(RevocationMode::Relaxed, vec![]);
    let strict = || by(RevocationMode::Strict, lists());
    assert_eq!(lands(strict(), strict(), &[&ca]).unwrap(), "sales");
    assert_eq!(lands(strict(), relaxed(), &[&ca, &other]).unwrap(), "sales");
    let told = lands(relaxed(), strict(), &[&ca]).unwrap_err();
    assert!(told.contains("realm `sales`, which is stricter about revocation than realm `all`"), "{told}");
    let told = lands(strict(), strict(), &[&other]).unwrap_err();
    assert!(told.contains("realm `sales`, which believes other CAs than realm `all`"), "{told}");
}

/// Has moon begin with these realms in question, and sun believe it.
fn meet_in(moon: &mut Side, sun: &mut Side, realms: &[&str]) -> EapStep {
    let first = step(moon.ask(Request::EapBegin {
        sa: IkeSaRef(1),
        role: Role::Responder,
        realms: realms.iter().map(|realm| (*realm).into()).collect(),
        asked: None,
        peer_id: id("sun.lab.test"),
        remote: std::net::Ipv4Addr::new(192, 0, 2, 7).into(),
    }));
    let mut gateway = side(server_realm(&[EapMethod::MsChapV2]), users("x"), None);
    begin(&mut gateway, Role::Responder);
    let by_key = proof(gateway.make(1, "r", MOON, responders(Role::Responder)));
    accepted(sun.check(1, "r", "sun.lab.test", MOON, responders(Role::Initiator), by_key));
    assert_eq!(step(begin(sun, Role::Initiator)), EapStep::Ready);
    first
}
