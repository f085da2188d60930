//! Who is who: raw public keys, chains with an authority in between, names by their ending.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::{Place, Story};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing, log_text};
use crate::pki::{Pki, shown};
use crate::process;
use crate::tunnel::KeyType;
use crate::tussock::{SITE, Tussock, quoted};

pub const STORIES: &[Story] = &[
    Story::ours("raw-keys", "raw public keys, one RSA, one Ed25519; another key is refused", raw_keys),
    Story::ours(
        "intermediate",
        "a chain with an authority in between, names by *.lab.test; others are refused",
        chain,
    ),
    Story::ours(
        "pinned",
        "a certificate that is pinned is believed, another of the same authority is not",
        pinned,
    ),
];

fn raw_keys(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let (rsa, ed) = (Pki::of(KeyType::Rsa)?, Pki::of(KeyType::Ed25519)?);
    let public = |key: &Path, name: &str| -> Result<String> {
        let file = place.results.join(name);
        process::run(openssl(&["pkey", "-pubout"]).arg("-in").arg(key).arg("-out").arg(&file))?;
        Ok(format!("pubkey = {}", path(&file)))
    };
    own(&moon, "moon.lab.test", &format!("key = {}", path(&rsa.key("moon"))))?;
    own(&sun, "sun.lab.test", &format!("key = {}", path(&ed.key("sun"))))?;
    theirs(&moon, "sun.lab.test", &public(&ed.key("sun"), "sun.pub")?)?;
    theirs(&sun, "moon.lab.test", &public(&rsa.key("moon"), "moon.pub")?)?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("another key for the same name is refused");
    moon.down()?;
    theirs(&sun, "moon.lab.test", &public(&rsa.key("carol"), "carol.pub")?)?;
    refused(&moon, &sun)
}

fn pinned(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let pki = Pki::of(KeyType::Ecdsa)?;
    let pin = |host: &str| format!("cert = [{}]", path(&pki.cert(host)));
    for (end, host, peer) in [(&moon, "moon", "sun"), (&sun, "sun", "moon")] {
        let key = path(&pki.key(host));
        own(end, &format!("{host}.lab.test"), &format!("{}, key = {key}", pin(host)))?;
        theirs(end, &format!("{peer}.lab.test"), &pin(peer))?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("with another one pinned it is refused");
    moon.down()?;
    theirs(&sun, "moon.lab.test", &pin("carol"))?;
    refused(&moon, &sun)
}

fn chain(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let pki = Pki::of(KeyType::Ecdsa)?;
    steps.begin("certificates are made");
    let between = authority(&pki, place.results)?;
    let names = |host: &str| format!("{host}.lab.test");
    for (end, host) in [(&moon, "moon"), (&sun, "sun")] {
        let cert = under(&between, &pki, host, &names(host))?;
        let certs = format!("cert = [{}, {}]", path(&cert), path(&between.with_extension("crt")));
        own(end, &names(host), &format!("{certs}, key = {}", path(&pki.key(host))))?;
        // The root is all that is trusted; what lies between comes from the peer.
        theirs(end, "*.lab.test", &format!("ca = [{}]", path(&pki.ca())))?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("a name that ends otherwise is refused");
    moon.down()?;
    let cert = under(&between, &pki, "moon", "moon.lab.test.example")?;
    let certs = format!("cert = [{}, {}]", path(&cert), path(&between.with_extension("crt")));
    own(&moon, "moon.lab.test.example", &format!("{certs}, key = {}", path(&pki.key("moon"))))?;
    refused(&moon, &sun)?;
    steps.begin("a name that the certificate does not have is refused");
    own(&moon, "moon.lab.test", &format!("{certs}, key = {}", path(&pki.key("moon"))))?;
    refused(&moon, &sun)?;
    steps.begin("without what lies between it is refused");
    let cert = under(&between, &pki, "moon", "moon.lab.test")?;
    own(&moon, "moon.lab.test", &format!("cert = [{}], key = {}", path(&cert), path(&pki.key("moon"))))?;
    refused(&moon, &sun)
}

/// After both have read their configuration again: no tunnel, and sun's log says whose fault it is.
fn refused(moon: &Tussock<'_>, sun: &Tussock<'_>) -> Result<()> {
    let said = log_text(sun).len();
    sun.order(&["reload"])?;
    // A key that does not fit its certificate may be refused right here.
    let up = moon.order(&["reload"]).and_then(|_| moon.up());
    if up.is_ok() {
        bail!("it came up: {:?}", moon.sas()?);
    }
    await_nothing(moon, "after the refusal")?;
    await_nothing(sun, "after the refusal")?;
    let text = log_text(sun);
    if !text.get(said..).unwrap_or_default().contains("authentication") {
        bail!(
            "sun's log does not speak of authentication; moon says {:#}",
            up.err().unwrap_or_else(|| anyhow::anyhow!("nothing"))
        );
    }
    Ok(())
}

fn own(end: &Tussock<'_>, id: &str, proof: &str) -> Result<()> {
    end.set(SITE, "local_auth", &format!("{{ method = \"pubkey\", id = {}, {proof} }}", quoted(id)))
}

fn theirs(end: &Tussock<'_>, id: &str, proof: &str) -> Result<()> {
    end.set(SITE, "remote_auth", &format!("{{ method = \"pubkey\", id = {}, {proof} }}", quoted(id)))
}

/// An authority signed by the root; its key, with the certificate next to it.
fn authority(pki: &Pki, dir: &Path) -> Result<PathBuf> {
    let key = dir.join("between.key");
    let made = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    process::run(openssl(&made).arg("-out").arg(&key))?;
    let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    sign(&key, "/C=CH/O=Lab/CN=Lab intermediate", extensions, (&pki.key("ca"), &pki.ca()), &key)?;
    Ok(key)
}

/// A certificate for a host's key and a name, signed by an authority.
fn under(authority: &Path, pki: &Pki, host: &str, name: &str) -> Result<PathBuf> {
    let extensions = format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nsubjectAltName=DNS:{name}\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    );
    let stem = authority.with_file_name(format!("{name}.key"));
    let by = (authority, authority.with_extension("crt"));
    sign(&pki.key(host), &format!("/C=CH/O=Lab/CN={name}"), &extensions, (by.0, &by.1), &stem)?;
    Ok(stem.with_extension("crt"))
}

/// Sign a certificate for `key`; its files are called like `stem`.
fn sign(key: &Path, subject: &str, extensions: &str, by: (&Path, &Path), stem: &Path) -> Result<()> {
    let (request, more) = (stem.with_extension("csr"), stem.with_extension("ext"));
    process::run(openssl(&["req", "-new", "-subj", subject, "-key"]).arg(key).arg("-out").arg(&request))?;
    fs::write(&more, extensions)?;
    let mut sign = openssl(&["x509", "-req", "-days", "30", "-in"]);
    sign.arg(&request).arg("-CAkey").arg(by.0).arg("-CA").arg(by.1).arg("-set_serial");
    // Names are never signed twice under one authority here but moon's, and that with the same content.
    sign.arg(subject.len().to_string()).arg("-extfile").arg(&more).arg("-out");
    process::run(sign.arg(stem.with_extension("crt"))).map(drop)
}

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

fn path(file: &Path) -> String {
    quoted(&shown(file))
}
