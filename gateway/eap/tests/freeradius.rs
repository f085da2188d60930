//! Our peer against FreeRADIUS: every method, the keys that both sides have, and what is said when it goes wrong.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use eap::{Inner, MethodKind, Password, TlsClient, TlsVersions};
use lab::radius::{SECRET, go};
use lab::{ALICE, ALL, Ca, Folder, PASSWORD, SERVER, World, certificates, program, world};
use spi::Secret;

/// A FreeRADIUS that runs.
struct FreeRadius {
    at: SocketAddr,
    child: Child,
    _folder: Folder,
}

impl FreeRadius {
    fn start(tool: &Path, world: &World, tls: &str, name: &str) -> FreeRadius {
        let folder = Folder::new(name);
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ca = folder.write("ca.pem", &world.ca.pem);
        let cert = folder.write("own.pem", &world.server.pem);
        let key = folder.write("own.key", &world.server.key_pem);
        folder.write("users", &format!("{ALICE} Cleartext-Password := \"{PASSWORD}\"\n"));
        folder.write("dictionary", "$INCLUDE /usr/share/freeradius/dictionary\n");
        let here = folder.0.to_str().unwrap();
        let secret = std::str::from_utf8(SECRET).unwrap();
        let tls = [("ca", ca.as_str()), ("cert", &cert), ("key", &key), ("version", tls)];
        let tls = fill(include_str!("../../radius/tests/lab/tls.conf"), &tls);
        let tls = fill(&tls, &[("fragment", "700"), ("inner", "md5")]);
        let port = at.port().to_string();
        let listen = [("type", "auth"), ("address", "127.0.0.1"), ("port", &port)];
        let listen = fill(include_str!("../../radius/tests/lab/udp.conf"), &listen);
        let clients = format!("client lab {{\n ipaddr = 127.0.0.1\n secret = {secret}\n}}\n");
        // What it offers first is what nobody wants: every method has to be asked for.
        let of =
            [("folder", here), ("method", "peap"), ("tls", &tls), ("listen", &listen), ("clients", &clients)];
        folder.write("radiusd.conf", &fill(include_str!("../../radius/tests/lab/radiusd.conf"), &of));
        let mut command = Command::new(tool);
        command.args(["-X", "-d", here, "-D", "/usr/share/freeradius"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let ready = lines.by_ref().any(|line| {
            let ready = line.contains("Ready to process requests");
            said.push(line);
            ready
        });
        assert!(ready, "FreeRADIUS does not start:\n{}", said[said.len().saturating_sub(30)..].join("\n"));
        // Somebody has to read what it says, or it waits.
        let loud = std::env::var_os("LOUD").is_some();
        std::thread::spawn(move || {
            lines.for_each(|line| {
                if loud {
                    println!("{line}")
                }
            })
        });
        FreeRadius { at, child, _folder: folder }
    }
}

/// A text with what stands between two @ filled in.
fn fill(text: &str, with: &[(&str, &str)]) -> String {
    with.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_method_is_let_in_and_has_the_key_of_freeradius() {
    let Some(tool) = program("freeradius", "freeradius") else { return };
    let world = world();
    for tls in ["1.2", "1.3"] {
        let server = FreeRadius::start(&tool, &world, tls, &format!("good-{tls}"));
        for (kind, inner, name) in ALL {
            println!("{name}, TLS {tls}");
            let (end, key) = go(server.at, world.client_of(kind, inner));
            let grant = end.grant();
            assert_eq!((grant.identity.as_str(), grant.method.as_str()), (ALICE, name));
            match (grant.msk, key) {
                (Some(ours), Some(theirs)) => {
                    // Of MSCHAPv2 alone it gives two keys of 16 octets, and no zeroes.
                    let theirs = [theirs, vec![0; 64]].concat();
                    assert!(ours.ct_eq(&theirs[..64]), "{name}, TLS {tls}: another key");
                    println!("{name}, TLS {tls}: success, keys agree");
                }
                (None, None) => println!("{name}, TLS {tls}: success"),
                (ours, theirs) => panic!("{name}: {} and {}", ours.is_some(), theirs.is_some()),
            }
        }
    }
}

#[test]
fn wrong_passwords_and_certificates_are_refused_with_a_reason() {
    let Some(tool) = program("freeradius", "freeradius") else { return };
    let world = world();
    let stranger = Ca::new("Stranger");
    for tls in ["1.2", "1.3"] {
        let server = FreeRadius::start(&tool, &world, tls, &format!("wrong-{tls}"));
        for (kind, inner, name) in ALL.into_iter().filter(|(kind, ..)| *kind != MethodKind::Tls) {
            for (who, password) in [(ALICE, "looking-glass"), ("mallo@lab.test", PASSWORD)] {
                let mut config = world.client_of(kind, inner);
                config.identity = who.into();
                config.password = Password::Known(Secret::from_slice(password.as_bytes()));
                let why = go(server.at, config).0.why();
                assert!(
                    why.contains("refused us") || why.contains("wrong name or password"),
                    "{name}: {why}"
                );
                println!("{name}, TLS {tls}, {who} with {password}: {why}");
            }
        }
        for cert in [world.ca.issue(ALICE, 2021, 3), stranger.issue(ALICE, 2049, 4)] {
            let own = certificates(Some(&cert), &[&world.ca], TlsVersions::Both);
            let mut config = world.client_of(MethodKind::Tls, None);
            config.tls = Some(Arc::new(TlsClient::new(own, SERVER).unwrap()));
            let why = go(server.at, config).0.why();
            // This one keeps the alert to itself.
            assert!(why.contains("a certificate that it does not take"), "{why}");
            println!("EAP-TLS, TLS {tls}: {why}");
        }
        // A server that we do not know is told nothing.
        let own = certificates(None, &[&stranger], TlsVersions::Both);
        let mut config = world.client_of(MethodKind::Ttls, Some(Inner::Pap));
        config.tls = Some(Arc::new(TlsClient::new(own, SERVER).unwrap()));
        let why = go(server.at, config).0.why();
        assert!(why.contains("UnknownIssuer"), "{why}");
    }
}
