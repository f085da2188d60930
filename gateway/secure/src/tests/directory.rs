//! Lists from an LDAP server: OpenLDAP's.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use rcgen::{KeyPair, SerialNumber};

use super::status::list;
use crate::config::{CrlSource, Revocation, RevocationMode, Trust};
use crate::testing::*;

struct Slapd {
    dir: PathBuf,
    child: Child,
    port: u16,
}

impl Slapd {
    /// A server with these lists; `None`, and a word about it, where there is no OpenLDAP.
    fn new(lists: &[(&str, Vec<u8>)]) -> Option<Slapd> {
        if !Path::new("/usr/sbin/slapd").exists() {
            eprintln!("SKIPPED: there is no /usr/sbin/slapd (Debian package slapd)");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("tussock-ldap-{}", std::process::id()));
        fs::create_dir_all(dir.join("db")).unwrap();
        let conf = format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {0}/pid\n\
             database mdb\nmaxsize 33554432\nsuffix \"dc=lab,dc=test\"\ndirectory {0}/db\n",
            dir.display()
        );
        fs::write(dir.join("slapd.conf"), conf).unwrap();
        let mut ldif =
            "dn: dc=lab,dc=test\nobjectClass: dcObject\nobjectClass: organization\ndc: lab\no: Lab\n\n"
                .to_owned();
        for (name, der) in lists {
            ldif += &format!(
                "dn: cn={name},dc=lab,dc=test\nobjectClass: cRLDistributionPoint\ncn: {name}\n\
                 certificateRevocationList;binary:: {}\n\n",
                Base64::encode_string(der)
            );
        }
        ldif += "dn: cn=bare,dc=lab,dc=test\nobjectClass: cRLDistributionPoint\ncn: bare\n\n";
        fs::write(dir.join("lab.ldif"), ldif).unwrap();
        let run = |program: &str, more: &[&str]| {
            let mut command = Command::new(program);
            command
                .arg("-f")
                .arg(dir.join("slapd.conf"))
                .args(more)
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command
        };
        let lab = dir.join("lab.ldif");
        let added = run("/usr/sbin/slapadd", &["-l", lab.to_str().unwrap()]).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = format!("ldap://127.0.0.1:{port}");
        let child = run("/usr/sbin/slapd", &["-h", &at, "-d", "0"]).stderr(Stdio::null()).spawn().unwrap();
        // From here on it ends with the value.
        let slapd = Slapd { dir, child, port };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(slapd);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("slapd does not start");
    }

    fn url(&self, rest: &str) -> String {
        format!("ldap://127.0.0.1:{}/{rest}", self.port)
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn lists_come_from_ldap_and_what_is_not_there_is_said() {
    let ca = Ca::new("CA");
    let mut params = ee_params("moon.lab.test");
    params.serial_number = Some(SerialNumber::from(vec![7]));
    let leaf = ca.issue_as(&params, KeyPair::generate().unwrap());
    // One that takes more than one read.
    let many: Vec<u8> = (8..=255).collect();
    let lists = [
        ("revoked", list(&ca, &[7], |_| ())),
        ("clean", list(&ca, &many, |_| ())),
        ("odd", b"no list".to_vec()),
    ];
    let Some(slapd) = Slapd::new(&lists[..2]) else { return };
    let judged = |rest: &str| {
        let crls = vec![CrlSource::Url(slapd.url(rest))];
        let revocation = Revocation { mode: RevocationMode::Strict, crls, ..Revocation::default() };
        verdict(leaf.own(&[]), Trust { revocation, ..trust_ca(&[&ca]) })
    };
    accepted(judged("cn=clean,dc=lab,dc=test?certificateRevocationList;binary?base?objectClass=*"));
    accepted(judged("cn=clean,dc=lab,dc=test"));
    let why = failed(judged("cn=revoked,dc=lab,dc=test?certificateRevocationList"));
    assert!(why.contains("was revoked"), "{why}");
    for (rest, what) in [
        ("cn=nobody,dc=lab,dc=test", "no such entry"),
        ("cn=bare,dc=lab,dc=test", "no such attribute"),
        ("cn=clean,dc=lab,dc=test?cn", "not a CRL"),
        ("dc=lab,dc=test?certificateRevocationList?sub", "not of one entry"),
        ("?certificateRevocationList", "names no entry"),
        ("cn=clean,dc=lab,dc=test??base?(cn=x)", "has a filter"),
    ] {
        let why = failed(judged(rest));
        assert!(why.contains(what), "{rest}: {why}");
    }
}

#[test]
fn servers_that_do_not_speak_ldap_or_promise_too_much_are_left() {
    use std::io::{Read, Write};
    let ca = Ca::new("CA");
    let leaf = ca.issue("moon.lab.test", KeyPair::generate().unwrap());
    for (answer, what) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak LDAP"),
        (&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 1][..], "more than"),
        (&[0x30, 0x88, 1, 2, 3, 4, 5, 6, 7, 8][..], "does not speak LDAP"),
        (&[0x30, 0x0c, 2, 1, 1, 0x61, 7, 0x0a, 1, 0x35, 4, 0, 4, 0][..], "will not talk to strangers"),
        (&[0x30, 5, 2, 1][..], "broke off"),
        (&[][..], "broke off"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ldap://{}/cn=x", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(answer);
        });
        let crls = vec![CrlSource::Url(url)];
        let revocation = Revocation { mode: RevocationMode::Strict, crls, ..Revocation::default() };
        let why = failed(verdict(leaf.own(&[]), Trust { revocation, ..trust_ca(&[&ca]) }));
        assert!(why.contains(what), "{answer:02x?}: {why}");
        server.join().unwrap();
    }
}
