//! Tests of the commands that need neither token nor network.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ca::{Crl, Folder, Init, Issue, Reason, Renew, Revoke};
use super::export::Export;
use super::invite::{Invite, Join};
use super::*;

#[test]
fn subjects_and_names_are_understood_or_refused_with_a_reason() {
    let name = subject("C=CH, O=Lab\\, Inc., CN=moon.lab.test").unwrap();
    let shown: Vec<String> = name.iter().map(|(_, value)| format!("{value:?}")).collect();
    assert!(shown.len() == 3 && shown[1].contains("Lab, Inc."), "{shown:?}");
    assert!(subject("CN").unwrap_err().to_string().contains("has no `=`"));
    assert!(subject("X=1").unwrap_err().to_string().contains("there are C, ST"));
    assert!(matches!(alternative("192.168.0.1").unwrap(), SanType::IpAddress(_)));
    assert!(matches!(alternative("carol@lab.test").unwrap(), SanType::Rfc822Name(_)));
    assert!(matches!(alternative("moon.lab.test").unwrap(), SanType::DnsName(_)));
    for odd in ["möön", "", "moon lab", "../../etc/x", "a..b", "CN=moon", "keyid:0a0b", "moon.lab.test/x"] {
        assert!(alternative(odd).unwrap_err().to_string().contains("is no name of a host"), "{odd}");
    }
    assert_eq!(hex("01fe"), Ok(Hex(vec![1, 0xfe])));
    assert!(hex("").is_err() && hex("1").is_err() && hex("zz").is_err() && hex("é").is_err());
}

/// A folder for one test, gone at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("tussock-pki-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Place(dir)
    }

    fn folder(&self) -> Folder {
        Folder { dir: self.0.join("ca") }
    }

    fn init(&self) {
        let init = Init {
            folder: self.folder(),
            subject: "C=CH, CN=Test CA".into(),
            days: 3650,
            kind: Kind::P256,
            crl_urls: vec!["http://crl.lab.test/ca.crl".into()],
            ocsp_urls: vec!["http://ocsp.lab.test/".into()],
        };
        ca::init(&init).unwrap();
    }

    fn issue(&self, name: &str) -> Issue {
        Issue {
            folder: self.folder(),
            name: name.into(),
            names: vec![],
            user: false,
            subject: None,
            days: 30,
            kind: Kind::P256,
        }
    }

    /// What openssl says, which has no reason to be kind to us.
    fn openssl(&self, arguments: &[&str]) -> String {
        let out =
            std::process::Command::new("openssl").args(arguments).current_dir(&self.0).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_ca_issues_renews_and_revokes_and_openssl_agrees() {
    let place = Place::new("life");
    place.init();
    let issued =
        ca::issue(&Issue { names: vec!["192.0.2.1".into()], ..place.issue("moon.lab.test") }).unwrap();
    let verify = ["verify", "-x509_strict", "-CAfile", "ca/ca.crt", "-crl_check", "-CRLfile", "ca/ca.crl"];
    let moon = "ca/certs/moon.lab.test.crt";
    place.openssl(&[&verify[..], &[moon]].concat());
    let text = place.openssl(&["x509", "-in", moon, "-noout", "-text"]);
    for part in [
        "DNS:moon.lab.test, IP Address:192.0.2.1",
        "ipsec Internet Key Exchange",
        "URI:http://crl.lab.test/ca.crl",
        "OCSP - URI:http://ocsp.lab.test/",
        "Digital Signature",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let why = ca::issue(&place.issue("moon.lab.test")).unwrap_err().to_string();
    assert!(why.contains("pki renew moon.lab.test"), "{why}");
    let renewed =
        ca::renew(&Renew { folder: place.folder(), name: "moon.lab.test".into(), days: 60, new_key: None })
            .unwrap();
    assert_ne!(renewed.serial, issued.serial);
    place.openssl(&[&verify[..], &[moon]].concat());
    let key = place.openssl(&["pkey", "-in", "ca/certs/moon.lab.test.key", "-pubout"]);
    assert_eq!(key, place.openssl(&["x509", "-in", moon, "-noout", "-pubkey"]));
    let revoke = Revoke {
        folder: place.folder(),
        which: "moon.lab.test".into(),
        reason: Reason::KeyCompromise,
        days: 30,
    };
    assert_eq!(
        ca::revoke(&revoke).unwrap(),
        [issued.serial, renewed.serial],
        "the renewed one and the old one"
    );
    assert!(ca::revoke(&revoke).unwrap_err().to_string().contains("revoked already"));
    let refused =
        std::process::Command::new("openssl").args(verify).arg(moon).current_dir(&place.0).output().unwrap();
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("certificate revoked")
    );
    let list = place.openssl(&["crl", "-in", "ca/ca.crl", "-noout", "-text"]);
    assert!(list.contains("Key Compromise") && list.contains("X509v3 CRL Number"), "{list}");
    let der = place.0.join("out.crl");
    ca::crl(&Crl { folder: place.folder(), days: 7, out: Some(der) }).unwrap();
    place.openssl(&["crl", "-inform", "DER", "-in", "out.crl", "-noout", "-CAfile", "ca/ca.crt"]);
    assert!(ca::show(&place.folder()).unwrap().contains("revoked"));
    assert!(
        ca::renew(&Renew { folder: place.folder(), name: "moon.lab.test".into(), days: 1, new_key: None })
            .is_err()
    );
    // A name whose certificate was revoked can have another.
    ca::issue(&place.issue("moon.lab.test")).unwrap();
    place.openssl(&[&verify[..], &[moon]].concat());
}

#[test]
fn every_kind_of_key_and_of_name_is_issued_and_mistakes_say_what_to_do() {
    let place = Place::new("kinds");
    let none = ca::issue(&place.issue("moon.lab.test")).unwrap_err().to_string();
    assert!(none.contains("tussock pki init"), "{none}");
    place.init();
    for (kind, name) in
        [(Kind::P384, "192.0.2.7"), (Kind::Ed25519, "carol@lab.test"), (Kind::Rsa2048, "sun.lab.test")]
    {
        let issue = Issue { kind, user: name.contains('@'), ..place.issue(name) };
        match ca::issue(&issue) {
            Ok(_) => {
                let file = format!("ca/certs/{}.crt", store::file_name(name));
                place.openssl(&["verify", "-CAfile", "ca/ca.crt", &file]);
            }
            Err(error) => panic!("{name}: {error:#}"),
        }
    }
    let odd = ca::issue(&place.issue("a,b/../c")).unwrap_err().to_string();
    assert!(odd.contains("`a,b/../c` is no name of a host"), "{odd}");
    assert_eq!(store::file_name("a,b/../c"), "a_b_.._c", "and would harm nobody's file");
    let long = ca::issue(&Issue { days: 9999, ..place.issue("mars.lab.test") }).unwrap_err().to_string();
    assert!(long.contains("the CA itself lasts"), "{long}");
    let unknown =
        Revoke { folder: place.folder(), which: "nobody".into(), reason: Reason::Unspecified, days: 1 };
    assert!(ca::revoke(&unknown).unwrap_err().to_string().contains("it has issued 192.0.2.7"));
    for (file, mode) in
        [("ca/ca.key", 0o600), ("ca/index.json", 0o600), ("ca/certs/192.0.2.7.key", 0o600), ("ca", 0o700)]
    {
        assert_eq!(fs::metadata(place.0.join(file)).unwrap().mode() & 0o777, mode, "{file}");
    }
    let init = Init {
        folder: place.folder(),
        subject: "CN=x".into(),
        days: 1,
        kind: Kind::P256,
        crl_urls: vec![],
        ocsp_urls: vec![],
    };
    assert!(ca::init(&init).err().unwrap().to_string().contains("there is a CA in"));
    assert!(ca::init(&Init { crl_urls: vec!["https://x/".into()], ..init }).is_err());
}

#[test]
fn two_at_once_leave_an_index_with_both() {
    let place = Place::new("two");
    place.init();
    let names: Vec<String> = (0..8).map(|n| format!("host{n}.lab.test")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let issue = place.issue(name);
            scope.spawn(move || ca::issue(&issue).unwrap());
        }
    });
    let shown = ca::show(&place.folder()).unwrap();
    assert!(names.iter().all(|name| shown.contains(name.as_str())), "{shown}");
}

#[test]
fn a_pkcs12_file_opens_with_its_password() {
    let place = Place::new("p12");
    place.init();
    ca::issue(&place.issue("carol@lab.test")).unwrap();
    fs::write(place.0.join("pass"), "geheim\n").unwrap();
    let export = Export {
        folder: place.folder(),
        name: "carol@lab.test".into(),
        out: place.0.join("carol.p12"),
        password_file: Some(place.0.join("pass")),
    };
    export::export(&export).unwrap();
    let text = place.openssl(&["pkcs12", "-in", "carol.p12", "-passin", "pass:geheim", "-nodes"]);
    assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1);
    fs::write(place.0.join("pass"), "\n").unwrap();
    assert!(export::export(&export).unwrap_err().to_string().contains("empty"));
}

#[test]
fn an_invite_makes_two_configurations_that_fit_each_other() {
    let place = Place::new("invite");
    let (moon, sun) = (place.0.join("moon/gateway.toml"), place.0.join("sun/gateway.toml"));
    let invite = Invite {
        name: "sun.lab.test".into(),
        own: "moon.lab.test".into(),
        here: "192.168.0.1".parse().unwrap(),
        there: Some("192.168.0.2".parse().unwrap()),
        local: vec!["10.1.0.0/16".into()],
        remote: vec!["10.2.0.0/16".into()],
        out: Some(place.0.join("sun.invite")),
        png: Some(place.0.join("sun.png")),
        qr: true,
        config: moon.clone(),
        dir: None,
        days: 397,
    };
    let said = invite::invite(&invite).unwrap();
    assert!(said.contains("tussock pki join") && said.contains('█'), "{said}");
    assert!(fs::read(place.0.join("sun.png")).unwrap().starts_with(b"\x89PNG"));
    let join = Join { invite: place.0.join("sun.invite"), config: sun.clone() };
    invite::join(&join).unwrap();
    for (file, local, remote) in
        [(&moon, "moon.lab.test", "sun.lab.test"), (&sun, "sun.lab.test", "moon.lab.test")]
    {
        let loaded = crate::config::load(file).unwrap();
        let realm = &loaded.realms[0];
        assert_eq!((realm.local_id.to_string(), realm.remote_id.to_string()), (local.into(), remote.into()));
        assert!(secure::check(loaded.secure).unwrap().is_empty());
        assert_eq!(
            loaded.warnings.len(),
            0,
            "{:?}",
            loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        );
    }
    // A second one to the same CA adds a realm; the same one again does not.
    let more = Invite {
        name: "mars.lab.test".into(),
        out: Some(place.0.join("mars.invite")),
        png: None,
        qr: false,
        there: None,
        remote: vec!["10.3.0.0/16".into()],
        ..invite.clone()
    };
    invite::invite(&more).unwrap();
    assert_eq!(crate::config::load(&moon).unwrap().realms.len(), 2);
    assert!(invite::invite(&invite).unwrap_err().to_string().contains("is there already"));
    assert!(invite::join(&join).unwrap_err().to_string().contains("once"));
    fs::write(place.0.join("cut"), &fs::read(place.0.join("mars.invite")).unwrap()[..300]).unwrap();
    let cut = Join { invite: place.0.join("cut"), config: place.0.join("x/gateway.toml") };
    assert!(invite::join(&cut).unwrap_err().to_string().contains("not all of one"));
}

#[test]
fn an_invite_that_cannot_be_written_leaves_nothing_and_can_be_tried_again() {
    let place = Place::new("again");
    let config = place.0.join("gateway.toml");
    let invite = Invite {
        name: "sun.lab.test".into(),
        own: "moon.lab.test".into(),
        here: "192.168.0.1".parse().unwrap(),
        there: None,
        local: vec!["10.1.0.0/16".into()],
        remote: vec!["10.2.0.0/16".into()],
        out: Some(place.0.join("nowhere/sun.invite")),
        png: None,
        qr: false,
        config: config.clone(),
        dir: None,
        days: 397,
    };
    let why = format!("{:#}", invite::invite(&invite).unwrap_err());
    assert!(why.contains("cannot write") && why.contains("nowhere/sun.invite"), "{why}");
    // Nor one whose picture cannot.
    let (out, png) = (place.0.join("sun.invite"), Some(place.0.join("nowhere/sun.png")));
    let picture = Invite { out: Some(out.clone()), png, ..invite.clone() };
    assert!(invite::invite(&picture).is_err());
    let folder = Folder { dir: place.0.join("pki") };
    assert!(!ca::show(&folder).unwrap().contains("sun.lab.test"));
    let left: Vec<_> = fs::read_dir(&place.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["pki"]);
    invite::invite(&Invite { out: Some(out.clone()), ..invite }).unwrap();
    assert!(out.exists() && config.exists());
}

#[test]
fn a_file_without_a_folder_before_it_is_in_this_one() {
    assert_eq!(store::folder_of(Path::new("sun.invite")), Path::new("."));
    assert_eq!(store::folder_of(Path::new("/etc/sun.invite")), Path::new("/etc"));
    assert_eq!(store::folder_of(Path::new("a/sun.invite")), Path::new("a"));
}

#[test]
fn a_ca_that_has_expired_says_so() {
    let place = Place::new("expired");
    place.init();
    ca::issue(&place.issue("moon.lab.test")).unwrap();
    // The same key and name, in a certificate of the past.
    let dir = place.0.join("ca");
    fs::write(dir.join("index.txt"), "").unwrap();
    fs::write(
        dir.join("cnf"),
        "[ca]\ndefault_ca=d\n[d]\ndatabase=ca/index.txt\nnew_certs_dir=ca\nrand_serial=yes\ndefault_md=sha256\n\
         policy=p\nx509_extensions=e\n[p]\ncountryName=supplied\ncommonName=supplied\n[e]\n\
         basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
    )
    .unwrap();
    place.openssl(&["req", "-new", "-key", "ca/ca.key", "-subj", "/C=CH/CN=Test CA", "-out", "ca/csr"]);
    let dates = ["-startdate", "20200101000000Z", "-enddate", "20210203000000Z"];
    let files = ["-keyfile", "ca/ca.key", "-in", "ca/csr", "-out", "ca/ca.crt"];
    let sign = ["ca", "-batch", "-notext", "-selfsign", "-config", "ca/cnf"];
    place.openssl(&[&sign[..], &dates, &files].concat());
    let expired = "the CA expired on 2021-02-03";
    let why = |error: anyhow::Error| format!("{error:#}");
    assert!(why(ca::issue(&place.issue("sun.lab.test")).unwrap_err()).contains(expired));
    let renew = Renew { folder: place.folder(), name: "moon.lab.test".into(), days: 3, new_key: None };
    assert!(why(ca::renew(&renew).unwrap_err()).contains(expired));
    let crl = Crl { folder: place.folder(), days: 30, out: None };
    assert!(why(ca::crl(&crl).unwrap_err()).contains(expired));
}
