//! Our peer against hostapd's server, which offers PEAP with compound binding and fragments of its own size.
#![allow(clippy::unwrap_used)]

mod lab;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use eap::{MethodKind, Password};
use lab::radius::{SECRET, go};
use lab::{ALICE, ALL, Folder, PASSWORD, World, program, world};
use spi::Secret;

/// A hostapd that runs, as a RADIUS server and nothing else.
struct Hostapd {
    at: SocketAddr,
    child: Child,
    _folder: Folder,
}

impl Hostapd {
    fn start(tool: &Path, world: &World, kind: MethodKind, inner: &str, tls13: bool) -> Hostapd {
        let folder = Folder::new(&format!("hostapd-{kind}-{inner}-{tls13}"));
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let name = match kind {
            MethodKind::Md5 => "MD5",
            MethodKind::Gtc => "GTC",
            MethodKind::MsChapV2 => "MSCHAPV2",
            MethodKind::Tls => "TLS",
            MethodKind::Ttls => "TTLS",
            MethodKind::Peap => "PEAP",
        };
        let outside = if kind.needs_tls() {
            format!("* {name}\n")
        } else {
            format!("\"{ALICE}\" {name} \"{PASSWORD}\"\n")
        };
        let users = folder.write("users", &format!("{outside}\"{ALICE}\" {inner} \"{PASSWORD}\" [2]\n"));
        let clients =
            folder.write("clients", &format!("127.0.0.1/32 {}\n", std::str::from_utf8(SECRET).unwrap()));
        let ca = folder.write("ca.pem", &world.ca.pem);
        let cert = folder.write("own.pem", &world.server.pem);
        let key = folder.write("own.key", &world.server.key_pem);
        let flags = if tls13 { "[ENABLE-TLSv1.3]" } else { "[DISABLE-TLSv1.3]" };
        let port = at.port();
        let config = folder.write(
            "hostapd.conf",
            &format!(
                "interface=lo\ndriver=none\nlogger_stdout=-1\nlogger_stdout_level=0\nieee8021x=1\n\
                 eap_server=1\neap_user_file={users}\nradius_server_clients={clients}\n\
                 radius_server_auth_port={port}\nca_cert={ca}\nserver_cert={cert}\nprivate_key={key}\n\
                 tls_flags={flags}\nfragment_size=300\n"
            ),
        );
        let mut command = Command::new(tool);
        let mut child = command.args(["-dd", &config]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.by_ref().any(|line| line.contains("AP-ENABLED")), "hostapd does not start");
        // Somebody has to read what it says, or it waits.
        let loud = std::env::var_os("LOUD").is_some();
        std::thread::spawn(move || {
            lines.for_each(|line| {
                if loud {
                    println!("{line}")
                }
            })
        });
        Hostapd { at, child, _folder: folder }
    }
}

impl Drop for Hostapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_method_is_let_in_and_has_the_key_of_hostapd() {
    let Some(tool) = program("hostapd", "hostapd") else { return };
    let world = world();
    for tls13 in [false, true] {
        for (kind, inner, name) in ALL {
            let inside = match name.rsplit(' ').next() {
                Some("PAP") => "TTLS-PAP",
                Some("MSCHAPv2") => "TTLS-MSCHAPV2",
                Some("EAP-MD5") => "MD5",
                Some("EAP-GTC") => "GTC",
                _ => "MSCHAPV2",
            };
            let server = Hostapd::start(&tool, &world, kind, inside, tls13);
            let (end, key) = go(server.at, world.client_of(kind, inner));
            if kind == MethodKind::Peap && tls13 {
                // hostapd 2.10 binds with a key of TLS 1.2 whatever it speaks, which its own eapol_test does not
                // accept either.
                let why = end.why();
                assert!(why.contains("its binding is wrong"), "{why}");
                continue;
            }
            let grant = end.grant();
            assert_eq!((grant.identity.as_str(), grant.method.as_str()), (ALICE, name));
            assert_eq!(grant.msk.is_some(), kind.derives_key());
            if let Some(ours) = grant.msk {
                // Of MSCHAPv2 alone it gives 32 octets, and no zeroes.
                let theirs = [key.unwrap(), vec![0; 64]].concat();
                assert!(ours.ct_eq(&theirs[..64]), "{name}, TLS 1.3 {tls13}: another key");
            }
            println!("{name}, TLS 1.{}: success", if tls13 { 3 } else { 2 });
            let mut config = world.client_of(kind, inner);
            if kind != MethodKind::Tls {
                config.password = Password::Known(Secret::from_slice(b"looking-glass"));
                let why = go(server.at, config).0.why();
                assert!(why.contains("wrong name or password"), "{name}: {why}");
                println!("{name}, TLS 1.{}: {why}", if tls13 { 3 } else { 2 });
            }
        }
    }
}
