//! Which realm a peer gets into, and that nobody who asks can talk the key side into another one.

use std::path::PathBuf;
use std::sync::Arc;

use ipc::{IkeSaRef, MAX_CANDIDATES, PeerProof, Refusal, Reply, Request, Role};
use policy::{AuthPolicy, Identity, Peers, Realm, SignMethod};
use rcgen::{DnType, KeyPair, SanType};

use crate::config::{Config, Credentials, Trust};
use crate::pins::Pins;
use crate::testing::*;

const SUN: &str = "sun.lab.test";
const CAROL: &str = "carol@lab.test";

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A realm of sun's for peers that fit these rules and prove it by signature.
fn of(name: &str, rules: &[&str]) -> Realm {
    let mut realm = realm(name, SUN, "any", AuthPolicy::Pubkey);
    realm.local_auth = AuthPolicy::Psk;
    realm.remote_id = Peers::parse(rules.iter().copied()).unwrap();
    realm
}

fn side(realms: Vec<(Realm, Trust)>) -> Side {
    let mut config = Config { psks: vec![psk(&[], "for everybody")], ..Config::default() };
    for (realm, trust) in realms {
        config.credentials.insert(realm.name.to_string(), Credentials { trust, ..Credentials::default() });
        config.realms.push(Arc::new(realm));
    }
    Side::new(config)
}

/// Carol's proof by a certificate of this CA that has these units in its subject, and her mail address besides.
fn carol(ca: &Ca, units: &[&str], pair: KeyPair) -> PeerProof {
    let mut params = named("carol");
    for unit in units {
        params.distinguished_name.push(DnType::OrganizationalUnitName, *unit);
    }
    params.subject_alt_names = vec![
        SanType::Rfc822Name(CAROL.try_into().unwrap()),
        SanType::DnsName("pc.sales.test".try_into().unwrap()),
    ];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let mut config = pubkey(CAROL, "any", Some(ca.issue_as(&params, pair).own(&[])), Trust::default());
    Arc::make_mut(&mut config.realms[0]).local_id = id(CAROL);
    proof(Side::new(config).make(1, "r", CAROL, initiators(Role::Initiator)))
}

fn ask(side: &mut Side, sa: u64, realms: &[&str], peer: &str, proof: PeerProof) -> Reply {
    side.ask(Request::CheckAuth {
        sa: IkeSaRef(sa),
        realms: realms.iter().map(|name| Arc::from(*name)).collect(),
        asked: None,
        peer_id: id(peer),
        input: initiators(Role::Responder),
        proof,
    })
}

/// The realm that the peer got into.
fn got_into(reply: Reply) -> String {
    match reply {
        Reply::PeerAccepted { realm, .. } => realm.to_string(),
        Reply::Refused(refusal) => panic!("{refusal}"),
        _ => panic!("another answer"),
    }
}

#[test]
fn what_the_certificate_says_decides_and_the_narrowest_rule_wins() {
    let ca = Ca::new("CA");
    let trust = || trust_ca(&[&ca]);
    let mut sun = side(vec![
        (of("all", &["any"]), trust()),
        (of("sales", &["subject: ou=SALES"]), trust()),
        (of("tech", &["subject: OU=Tech", "eap: nobody"]), trust()),
        (of("boss", &["subject: OU=Sales, O=Lab"]), trust()),
        (of("pcs", &["san: *.sales.test"]), trust()),
    ]);
    let all = ["all", "sales", "tech", "pcs"];
    for (n, (units, names, realm)) in [
        (&["Sales"][..], &all[..], "sales"),
        (&["Tech"], &all, "tech"),
        (&["Other"], &all, "pcs"),
        (&["Other"], &["all", "tech"], "all"),
        (&["Sales"], &["all", "sales", "boss"], "boss"),
        // Of two that are as narrow the one that stands first.
        (&["Tech"], &["tech", "sales"], "tech"),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = ask(&mut sun, n as u64, names, CAROL, carol(&ca, units, key()));
        assert_eq!(got_into(reply), realm, "{units:?} among {names:?}");
    }
}

#[test]
fn a_realm_whose_rules_the_peer_does_not_fit_is_not_to_be_had_by_asking_for_it() {
    let ca = Ca::new("CA");
    let mut sun = side(vec![
        (of("boss", &["subject: OU=Boss"]), trust_ca(&[&ca])),
        (of("all", &["any"]), trust_ca(&[&ca])),
    ]);
    let why = failed(ask(&mut sun, 1, &["boss"], CAROL, carol(&ca, &["Sales"], key())));
    assert!(
        why.contains("OU=Sales") && why.contains("is not `subject: OU=Boss`, whom the realm accepts"),
        "{why}"
    );
    // Our own proof is made in the realm that the peer got into and in no other.
    assert_eq!(got_into(ask(&mut sun, 2, &["boss", "all"], CAROL, carol(&ca, &["Sales"], key()))), "all");
    let made = sun.make(2, "boss", SUN, responders(Role::Responder));
    assert!(matches!(refusal(made), Refusal::OutOfTurn(why) if why.contains("another realm")));
    proof(sun.make(2, "all", SUN, responders(Role::Responder)));
    // A certificate in front that says something else than the one that is verified cannot be: it is the same one.
    let mut two = carol(&ca, &["Boss"], key());
    two.data = carol(&ca, &["Sales"], key()).data;
    failed(ask(&mut sun, 3, &["boss"], CAROL, two));
}

#[test]
fn each_realm_has_its_own_cas_and_the_next_one_is_asked_only_where_nobody_vouches() {
    let (ours, theirs) = (Ca::new("Ours"), Ca::new("Theirs"));
    let mut narrow = of("narrow", &["*@lab.test"]);
    let mut sun =
        side(vec![(narrow.clone(), trust_ca(&[&ours])), (of("wide", &["any"]), trust_ca(&[&theirs]))]);
    let both = ["narrow", "wide"];
    assert_eq!(got_into(ask(&mut sun, 1, &both, CAROL, carol(&ours, &[], key()))), "narrow");
    assert_eq!(got_into(ask(&mut sun, 2, &both, CAROL, carol(&theirs, &[], key()))), "wide");
    let why = failed(ask(&mut sun, 3, &["narrow"], CAROL, carol(&theirs, &[], key())));
    assert!(why.contains("no path to a trusted CA") && why.contains("CN=Theirs"), "{why}");
    let why = failed(ask(&mut sun, 4, &both, CAROL, carol(&Ca::new("Nobody's"), &[], key())));
    assert!(why.contains("CN=Nobody's"), "what was wrong in the best one: {why}");
    // A signature that the narrow one does not take is no way into the wide one.
    narrow.methods = vec![SignMethod::Ed25519];
    let mut sun = side(vec![(narrow, trust_ca(&[&ours])), (of("wide", &["any"]), trust_ca(&[&ours]))]);
    let why = failed(ask(&mut sun, 1, &both, CAROL, carol(&ours, &[], key())));
    assert_eq!(why, "the peer signed with ECDSA P-256 SHA2-256, and realm `narrow` takes only ed25519");
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    assert_eq!(got_into(ask(&mut sun, 2, &both, CAROL, carol(&ours, &[], ed25519))), "narrow");
}

#[test]
fn a_realm_that_is_not_there_or_has_another_name_and_too_many_of_them_are_refused_before_anything_is_looked_at()
 {
    let ca = Ca::new("CA");
    let mut sun = side(vec![(of("all", &["any"]), trust_ca(&[&ca]))]);
    let made = || carol(&ca, &[], key());
    for names in [vec![], vec!["none"], vec!["all", "none"], vec!["all"; MAX_CANDIDATES + 1]] {
        assert!(
            matches!(refusal(ask(&mut sun, 1, &names, CAROL, made())), Refusal::NotAllowed(_)),
            "{names:?}"
        );
    }
    let reply = sun.check(1, "all", "venus.lab.test", CAROL, initiators(Role::Responder), made());
    assert!(matches!(refusal(reply), Refusal::NotAllowed(why) if why.contains("does not speak as")));
    accepted(ask(&mut sun, 1, &["all"], CAROL, made()));
}

#[test]
fn a_peer_that_asks_for_another_name_of_ours_shares_that_names_secret() {
    let secrets = || vec![psk(&[SUN, CAROL], "by the first"), psk(&["old.lab.test", CAROL], "by the other")];
    let sides = |secret: &str, own: &str| {
        let realm = realm("r", CAROL, own, AuthPolicy::Psk).into();
        Side::new(Config { realms: vec![realm], psks: vec![psk(&[], secret)], ..Config::default() })
    };
    let mut ours = realm("r", SUN, "any", AuthPolicy::Psk);
    ours.aliases = vec![id("old.lab.test")];
    let mut sun = Side::new(Config { realms: vec![ours.into()], psks: secrets(), ..Config::default() });
    for (n, (asked, secret)) in
        [(SUN, "by the first"), ("old.lab.test", "by the other")].into_iter().enumerate()
    {
        let made = || proof(sides(secret, asked).make(1, "r", CAROL, initiators(Role::Initiator)));
        let n = n as u64;
        accepted(sun.check(n, "r", asked, CAROL, initiators(Role::Responder), made()));
        proof(sun.ask(Request::MakeAuth {
            sa: IkeSaRef(n),
            realm: "r".into(),
            own_id: id(asked),
            peer_id: Some(id(CAROL)),
            input: responders(Role::Responder),
            offered: ipc::Offered::default(),
        }));
        let other = if asked == SUN { "old.lab.test" } else { SUN };
        failed(sun.check(10 + n, "r", other, CAROL, initiators(Role::Responder), made()));
    }
}

#[test]
fn nobody_is_let_in_where_the_realm_says_so_and_nowhere_else() {
    let mut open = realm("open", SUN, "any", AuthPolicy::Null);
    (open.remote_id, open.local_id) = (Peers::new(vec![]), Identity::Anonymous(0));
    let any = realm("any", SUN, "any", AuthPolicy::Psk);
    let config =
        Config { realms: vec![open.into(), any.into()], psks: vec![psk(&[], "x")], ..Config::default() };
    let mut sun = Side::new(config);
    let null = || PeerProof { method: 13, data: vec![0; 32], certs: vec![] };
    let mut as_nobody = |sa, realms: &[&str], peer: Identity, proof| {
        sun.ask(Request::CheckAuth {
            sa: IkeSaRef(sa),
            realms: realms.iter().map(|name| Arc::from(*name)).collect(),
            asked: None,
            peer_id: peer,
            input: initiators(Role::Responder),
            proof,
        })
    };
    let how = accepted(as_nobody(1, &["open"], Identity::Anonymous(7), null()));
    assert!(how.contains("NULL authentication"), "{how}");
    // What it calls itself does not make it somebody.
    let why = failed(as_nobody(2, &["any"], id(CAROL), null()));
    assert!(why.contains("does not say who it is, and realm `any` wants to know"), "{why}");
    assert_eq!(got_into(as_nobody(3, &["any", "open"], id(CAROL), null())), "open");
    let psk = || PeerProof { method: 2, data: vec![0; 32], certs: vec![] };
    let why = failed(as_nobody(4, &["open"], id(CAROL), psk()));
    assert!(why.contains("realm `open` is for peers that do not say who they are"), "{why}");
    failed(as_nobody(5, &["any"], Identity::Anonymous(7), psk()));
    // Our own side of it: no secret is needed, and the network side fills it in.
    let made = sun.ask(Request::MakeAuth {
        sa: IkeSaRef(1),
        realm: "open".into(),
        own_id: Identity::Anonymous(0),
        peer_id: None,
        input: responders(Role::Responder),
        offered: ipc::Offered::default(),
    });
    let made = proof(made);
    assert_eq!((made.method, made.data.len(), made.certs.len()), (13, 0, 0));
}

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("tussock-realms-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn sun(&self) -> Side {
        let mut config = pubkey(SUN, "any", None, Trust { first_use: true, ..Trust::default() });
        config.state_dir = Some(self.0.clone());
        Side::new(config)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_first_key_of_a_peer_is_its_key_from_then_on_also_after_a_restart() {
    let dir = Dir::new("first-use");
    let bytes = key().serialize_der();
    let pair = || KeyPair::try_from(bytes.as_slice()).unwrap();
    // Signed by whomever: nobody looks at it. The next one is of the same key, and counts as the same.
    let made = || carol(&Ca::new("Whoever"), &[], pair());
    let mut sun = dir.sun();
    let how = accepted(ask(&mut sun, 1, &["r"], CAROL, made()));
    let print = how.split("first use of key ").nth(1).unwrap().to_owned();
    assert!(print.starts_with("SHA256:") && print.len() == 71, "{how}");
    for mut sun in [sun, dir.sun()] {
        let how = accepted(ask(&mut sun, 2, &["r"], CAROL, made()));
        assert!(how.ends_with(&format!("remembered key {print}")), "{how}");
        let why = failed(ask(&mut sun, 3, &["r"], CAROL, carol(&Ca::new("Whoever"), &[], key())));
        let parts: Vec<&str> = why.split("SHA256:").collect();
        assert_eq!(parts.len(), 3, "both fingerprints: {why}");
        assert_ne!(parts[1].get(..64), parts[2].get(..64));
        assert!(why.contains(&print) && why.contains("tussock pki pins --remove r/carol@lab.test"), "{why}");
    }
    // Another name is another peer.
    let mut sun = dir.sun();
    assert!(accepted(ask(&mut sun, 4, &["r"], "dave@lab.test", made())).contains("first use"));
    // The operator lets the new key in.
    assert_eq!(Pins::of(&dir.0).forget(Some("r"), &id(CAROL)).unwrap(), 1);
    assert!(
        accepted(ask(&mut sun, 5, &["r"], CAROL, carol(&Ca::new("x"), &[], key()))).contains("first use")
    );
}

#[test]
fn a_raw_key_is_remembered_and_a_peer_that_shows_none_or_does_not_have_it_is_not() {
    let dir = Dir::new("raw");
    let mut sun = dir.sun();
    let pair = key();
    let made = || {
        let mut config = pubkey(CAROL, "any", Some(bare(&pair)), Trust::default());
        Arc::make_mut(&mut config.realms[0]).local_id = id(CAROL);
        proof(Side::new(config).make(1, "r", CAROL, initiators(Role::Initiator)))
    };
    let bare = PeerProof { certs: vec![], ..made() };
    assert!(failed(ask(&mut sun, 1, &["r"], CAROL, bare)).contains("no certificate or public key"));
    // Somebody who shows carol's key and has another one.
    let stolen = PeerProof { data: carol(&Ca::new("x"), &[], key()).data, ..made() };
    assert!(failed(ask(&mut sun, 2, &["r"], CAROL, stolen)).contains("does not verify"));
    assert_eq!(Pins::of(&dir.0).all().unwrap(), [], "only who has the key takes the name");
    assert!(accepted(ask(&mut sun, 3, &["r"], CAROL, made())).contains("first use"));
    assert!(accepted(ask(&mut sun, 4, &["r"], CAROL, made())).contains("remembered key"));
}

#[test]
fn who_cannot_be_remembered_is_not_let_in() {
    let dir = Dir::new("full");
    std::os::unix::fs::symlink("/dev/full", dir.0.join("pins.new")).unwrap();
    let ca = Ca::new("x");
    let why = failed(ask(&mut dir.sun(), 1, &["r"], CAROL, carol(&ca, &[], key())));
    assert!(
        why.contains("cannot be remembered, so it is not let in") && why.contains("No space left"),
        "{why}"
    );
    std::fs::write(dir.0.join("pins"), "garbage\n").unwrap();
    let why = failed(ask(&mut dir.sun(), 1, &["r"], CAROL, carol(&ca, &[], key())));
    assert!(why.contains("cannot be looked up") && why.contains("pins:1: not a pin"), "{why}");
    let mut nowhere = Side::new(pubkey(SUN, "any", None, Trust { first_use: true, ..Trust::default() }));
    let why = failed(ask(&mut nowhere, 1, &["r"], CAROL, carol(&ca, &[], key())));
    assert!(why.contains("no state directory"), "{why}");
}
