//! Our server against wpa_supplicant's methods: `eapol_test` speaks RADIUS to a server that runs our conversations, and
//! compares the keys it gets with its own.
#![allow(clippy::unwrap_used)]

mod lab;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use eap::{Inner, MethodKind, TlsVersions};
use lab::radius::{Authenticator, SECRET};
use lab::{ALICE, Ca, Cert, End, Folder, PASSWORD, SERVER, program, world};

const PASS: &str = "password=\"wonder\u{e4}land\"";

/// What eapol_test said, and how our conversation ended.
struct Run {
    success: bool,
    output: String,
    end: End,
}

fn run(tool: &Path, folder: &Folder, authenticator: &Authenticator, network: &str, keyless: bool) -> Run {
    run_times(tool, folder, authenticator, network, keyless, 1)
}

fn run_times(
    tool: &Path,
    folder: &Folder,
    authenticator: &Authenticator,
    network: &str,
    keyless: bool,
    times: usize,
) -> Run {
    let config = format!("network={{\n ssid=\"lab\"\n key_mgmt=IEEE8021X\n eapol_flags=0\n{network}\n}}\n");
    let config = folder.write("eapol.conf", &config);
    let mut command = Command::new(tool);
    command.args(["-c", &config, "-a", "127.0.0.1", "-t", "20", "-r", &(times - 1).to_string()]);
    command.args(["-p", &authenticator.at.port().to_string(), "-s", std::str::from_utf8(SECRET).unwrap()]);
    if keyless {
        command.arg("-n");
    }
    let done = command.output().unwrap();
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    let end = authenticator.ends.recv_timeout(Duration::from_secs(1)).unwrap_or(End::Open);
    Run { success: done.status.success() && output.trim_end().ends_with("SUCCESS"), output, end }
}

fn who(identity: &str) -> String {
    format!(" identity=\"{identity}\"\n {PASS}\n")
}

/// The lines of a certificate and of the CA that the server is verified with.
fn tls(folder: &Folder, ca: &Ca, own: Option<&Cert>, versions: TlsVersions) -> String {
    let ca = folder.write("ca.pem", &ca.pem);
    let mut lines = format!(" ca_cert=\"{ca}\"\n domain_match=\"{SERVER}\"\n");
    if let Some(own) = own {
        let (cert, key) = (folder.write("own.pem", &own.pem), folder.write("own.key", &own.key_pem));
        lines += &format!(" client_cert=\"{cert}\"\n private_key=\"{key}\"\n");
    }
    let phase1 = match versions {
        TlsVersions::Tls13 => "tls_disable_tlsv1_3=0",
        _ => "tls_disable_tlsv1_3=1",
    };
    lines + &format!(" phase1=\"{phase1}\"\n")
}

/// Every method: what we call it, what eapol_test does, whether there is no key.
fn methods(folder: &Folder, world: &lab::World, versions: TlsVersions) -> Vec<(&'static str, String, bool)> {
    let tunnel = |eap: &str, phase2: &str| {
        let tls = tls(folder, &world.ca, None, versions);
        format!("{} eap={eap}\n anonymous_identity=\"anonymous\"\n phase2=\"{phase2}\"\n{tls}", who(ALICE))
    };
    let mutual = tls(folder, &world.ca, Some(&world.client), versions);
    vec![
        ("EAP-TLS", format!(" eap=TLS\n identity=\"{ALICE}\"\n{mutual}"), false),
        ("EAP-TTLS with PAP", tunnel("TTLS", "auth=PAP"), false),
        ("EAP-TTLS with MSCHAPv2", tunnel("TTLS", "auth=MSCHAPV2"), false),
        ("EAP-TTLS with EAP-MSCHAPv2", tunnel("TTLS", "autheap=MSCHAPV2"), false),
        ("EAP-TTLS with EAP-GTC", tunnel("TTLS", "autheap=GTC"), false),
        ("EAP-TTLS with EAP-MD5", tunnel("TTLS", "autheap=MD5"), false),
        ("PEAP with EAP-MSCHAPv2", tunnel("PEAP", "auth=MSCHAPV2"), false),
        ("PEAP with EAP-GTC", tunnel("PEAP", "auth=GTC"), false),
        ("PEAP with EAP-MD5", tunnel("PEAP", "auth=MD5"), false),
        ("EAP-MSCHAPv2", format!("{} eap=MSCHAPV2\n", who(ALICE)), false),
        ("EAP-MD5", format!("{} eap=MD5\n", who(ALICE)), true),
        ("EAP-GTC", format!("{} eap=GTC\n", who(ALICE)), true),
    ]
}

/// A server of every method. The order is against those who test: all but the last have to be asked for.
fn server(world: &lab::World, versions: TlsVersions) -> Authenticator {
    use MethodKind::{Gtc, Md5, MsChapV2, Peap, Tls, Ttls};
    let inner = [Inner::Eap(MsChapV2), Inner::Eap(Gtc), Inner::Eap(Md5), Inner::Pap, Inner::MsChapV2];
    let mut config = world.server(&[Tls, Ttls, Peap, MsChapV2, Md5, Gtc], &inner);
    config.tls = Some(world.tls_server(versions));
    config.check().unwrap();
    Authenticator::start(config)
}

fn versions() -> [(TlsVersions, &'static str); 2] {
    [(TlsVersions::Tls12, "1.2"), (TlsVersions::Tls13, "1.3")]
}

#[test]
fn every_method_lets_in_and_ends_with_the_key_of_wpa_supplicant() {
    let Some(tool) = program("eapol_test", "eapoltest") else { return };
    let world = world();
    let folder = Folder::new("good");
    for (versions, name) in versions() {
        let authenticator = server(&world, versions);
        for (method, network, keyless) in methods(&folder, &world, versions) {
            let Run { success, output, end } = run(&tool, &folder, &authenticator, &network, keyless);
            let tail: Vec<&str> = output.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            if let End::Refused(why) = &end {
                panic!("{method}, TLS {name}: {why}\n{}", tail.join("\n"));
            }
            assert!(success, "{method}, TLS {name}:\n{}", tail.join("\n"));
            let grant = end.grant();
            assert_eq!((grant.identity.as_str(), grant.method.as_str()), (ALICE, method));
            assert_eq!(grant.msk.is_none(), keyless);
            let keys = output.contains("MPPE keys OK: 1  mismatch: 0");
            assert!(keyless || keys, "{method}, TLS {name}: no word of keys");
            println!("{method}, TLS {name}: success{}", if keys { ", keys agree" } else { "" });
        }
    }
}

#[test]
fn peap_is_bound_to_its_tunnel_where_the_peer_wants_it() {
    let Some(tool) = program("eapol_test", "eapoltest") else { return };
    let world = world();
    let folder = Folder::new("bound");
    for (versions, name) in versions() {
        let authenticator = server(&world, versions);
        let all = methods(&folder, &world, versions);
        for (method, network, _) in all.into_iter().filter(|(method, ..)| method.starts_with("PEAP")) {
            let network = network.replace("phase1=\"", "phase1=\"peapver=0 crypto_binding=2 ");
            let Run { success, output, end } = run(&tool, &folder, &authenticator, &network, false);
            assert!(success, "{method}, TLS {name}:\n{output}");
            assert_eq!(end.grant().method, method);
            assert!(output.contains("Valid cryptobinding TLV received"));
            assert!(output.contains("MPPE keys OK: 1  mismatch: 0"), "{method}, TLS {name}");
            println!("{method}, TLS {name}: bound, keys agree");
        }
    }
}

#[test]
fn a_second_conversation_verifies_everything_again() {
    let Some(tool) = program("eapol_test", "eapoltest") else { return };
    let world = world();
    let folder = Folder::new("again");
    for (versions, name) in versions() {
        let authenticator = server(&world, versions);
        for (method, network, _) in methods(&folder, &world, versions).into_iter().take(8) {
            let Run { success, output, end } = run_times(&tool, &folder, &authenticator, &network, false, 2);
            assert!(success, "{method}, TLS {name}:\n{output}");
            for end in [end, authenticator.ends.recv_timeout(Duration::from_secs(1)).unwrap()] {
                assert_eq!(end.grant().method, method);
            }
            assert!(output.contains("MPPE keys OK: 2  mismatch: 0"), "{method}, TLS {name}");
            assert!(!output.contains("resumed=1") && output.matches("resumed=0").count() >= 2);
        }
    }
}

#[test]
fn wrong_passwords_and_strangers_are_refused_alike() {
    let Some(tool) = program("eapol_test", "eapoltest") else { return };
    let world = world();
    let folder = Folder::new("wrong");
    let versions = TlsVersions::Tls12;
    let authenticator = server(&world, versions);
    for (method, network, keyless) in methods(&folder, &world, versions).into_iter().skip(1) {
        let wrong = network.replace(PASSWORD, "looking-glass");
        let stranger = network.replace(ALICE, "mallo@lab.test");
        for (network, reason) in
            [(wrong, "wrong password of alice"), (stranger, "there is no user mallo@lab.test")]
        {
            let Run { success, output, end } = run(&tool, &folder, &authenticator, &network, keyless);
            assert!(!success, "{method}");
            let why = end.why();
            assert!(why.contains(reason), "{method}: {why}");
            assert!(
                output.contains("EAP: Status notification: completion (param=failure)")
                    || output.contains("FAILURE"),
                "{method}"
            );
            if method == "EAP-MSCHAPv2" || method == "PEAP with EAP-MSCHAPv2" {
                assert!(output.contains("error 691"), "{method}:\n{output}");
            }
        }
    }
}

#[test]
fn certificates_that_expired_or_come_from_elsewhere_are_refused() {
    let Some(tool) = program("eapol_test", "eapoltest") else { return };
    let world = world();
    let folder = Folder::new("certs");
    let stranger = Ca::new("Stranger");
    for (versions, name) in versions() {
        let authenticator = server(&world, versions);
        for (cert, reason) in
            [(world.ca.issue(ALICE, 2021, 3), "expired"), (stranger.issue(ALICE, 2049, 4), "UnknownIssuer")]
        {
            let network = format!(
                " eap=TLS\n identity=\"{ALICE}\"\n{}",
                tls(&folder, &world.ca, Some(&cert), versions)
            );
            let Run { success, output, end } = run(&tool, &folder, &authenticator, &network, false);
            assert!(!success);
            let why = end.why();
            assert!(why.contains(reason), "TLS {name}: {why}");
            assert!(output.contains("alert"), "TLS {name}: the peer was not told why:\n{output}");
        }
        // And the other way round: the peer does not know who signed the server.
        let network = format!(
            "{} eap=TTLS\n phase2=\"auth=PAP\"\n{}",
            who(ALICE),
            tls(&folder, &stranger, None, versions)
        );
        let Run { success, end, .. } = run(&tool, &folder, &authenticator, &network, false);
        assert!(!success);
        let why = end.why();
        assert!(why.contains("alert"), "TLS {name}: {why}");
    }
}
