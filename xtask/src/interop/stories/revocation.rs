//! Certificates in their lives: an authority of our own issues them, lists say who was revoked, responders answer, peers fetch, and two
//! gateways meet by one file.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::couple::{Authority, Couple, MOON, SERVER, SUN, path, responder, stop, web};
use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::process;
use crate::tussock::Tussock;

pub const STORIES: &[Story] = &[
    Story::ours(
        "revoked-crl",
        "a list says who was revoked: each end refuses the other's; strict and relaxed without a server",
        by_list,
    )
    .cast("tussock <-> strongSwan"),
    Story::ours("revoked-ocsp", "the same by OCSP: each end refuses the other's", by_responder)
        .cast("tussock <-> strongSwan"),
    Story::ours(
        "hash-and-url",
        "both send a URL in place of their certificate, and fetch the other's",
        by_url,
    )
    .cast("tussock <-> strongSwan"),
    Story::ours(
        "several-authorities",
        "of two certificates we send the one whose CA strongSwan asks for",
        several,
    )
    .cast("tussock <-> strongSwan"),
    Story::ours(
        "four-commands",
        "two gateways meet by four commands, with nothing typed twice",
        four_commands,
    ),
    Story::ours("invite-qr", "an invite goes over as a picture, which zbarimg reads", by_picture)
        .with(&["zbar-tools"]),
];

const STRICT: &str = ", revocation = \"strict\"";

fn by_list(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let www = place.results.join("www");
    let authority = Authority::new(place, "ca", &["--crl-url", "http://192.168.0.1:8080/ca.crl"])?;
    authority.issue(MOON)?;
    authority.issue(SUN)?;
    let server = web(place, &www)?;
    authority.publish(&www)?;
    let mut couple = Couple::new(place, &authority)?;
    couple.judge(&authority, STRICT)?;
    couple.sun.append("connections { site { remote { revocation = strict } } }\n")?;
    steps.begin("with a list that names nobody it comes up, strict on both ends");
    couple.start()?;
    couple.come_up(place)?;
    couple.end()?;
    steps.begin("sun's certificate is revoked: we refuse it");
    authority.pki(&["revoke", SUN, "--reason", "key-compromise"])?;
    authority.publish(&www)?;
    couple.again()?;
    couple.refused(&couple.moon, &["was revoked on"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    couple.refused(&couple.sun, &["was revoked on"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    steps.begin("moon's is revoked, and sun has another: strongSwan refuses ours");
    authority.issue(SUN)?;
    couple.suns(&authority)?;
    authority.pki(&["revoke", MOON, "--reason", "key-compromise"])?;
    authority.publish(&www)?;
    couple.again()?;
    couple.refused(&couple.moon, &["AUTHENTICATION_FAILED"], &["certificate was revoked"])?;
    steps.begin("moon has another, too: it comes up");
    authority.issue(MOON)?;
    couple.moons(&authority, "")?;
    couple.again()?;
    couple.come_up(place)?;
    couple.end()?;
    steps.begin("without the server, strict refuses");
    stop(server)?;
    couple.sun.append("connections { site { remote { revocation = relaxed } } }\n")?;
    couple.again()?;
    couple.refused(&couple.moon, &["the realm is strict"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    steps.begin("and relaxed lets in, with a warning");
    couple.judge(&authority, ", revocation = \"relaxed\"")?;
    couple.again()?;
    couple.come_up(place)?;
    if !log_text(&couple.moon).contains("could not be found out") {
        bail!("moon's log has no warning");
    }
    couple.end()
}

fn by_responder(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let authority = Authority::new(place, "ca", &["--ocsp-url", "http://192.168.0.1:8081/"])?;
    authority.issue(MOON)?;
    authority.issue(SUN)?;
    let server = responder(place, &authority, "moon")?;
    let mut couple = Couple::new(place, &authority)?;
    couple.judge(&authority, STRICT)?;
    couple.sun.append("connections { site { remote { revocation = strict } } }\n")?;
    steps.begin("the responder knows both as good: it comes up, strict on both ends");
    couple.start()?;
    couple.come_up(place)?;
    couple.end()?;
    steps.begin("sun's certificate is revoked: we refuse it");
    stop(server)?;
    authority.pki(&["revoke", SUN])?;
    let server = responder(place, &authority, "moon")?;
    couple.again()?;
    couple.refused(&couple.moon, &["was revoked on"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    steps.begin("moon's is revoked, and sun has another: strongSwan refuses ours");
    stop(server)?;
    authority.issue(SUN)?;
    couple.suns(&authority)?;
    authority.pki(&["revoke", MOON])?;
    let server = responder(place, &authority, "moon")?;
    couple.again()?;
    couple.refused(&couple.moon, &["AUTHENTICATION_FAILED"], &["certificate was revoked"])?;
    stop(server)
}

fn by_url(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let www = place.results.join("www");
    let authority = Authority::new(place, "ca", &[])?;
    authority.issue(MOON)?;
    authority.issue(SUN)?;
    let server = web(place, &www)?;
    let mut couple = Couple::new(place, &authority)?;
    steps.begin("certificates are published under the names that strongSwan gives them");
    // Both by the hash of their octets: that is strongSwan's way.
    for name in [MOON, SUN] {
        let der = www.join("one.crt");
        let mut convert = Command::new("openssl");
        process::run(
            convert.args(["x509", "-outform", "DER", "-in"]).arg(authority.cert(name)).arg("-out").arg(&der),
        )?;
        let hash = process::run(Command::new("openssl").args(["dgst", "-sha1", "-r"]).arg(&der))?;
        fs::rename(&der, www.join(hash.split_whitespace().next().context("no hash")?))?;
        if name == MOON {
            let hash = hash.split_whitespace().next().unwrap_or_default();
            couple.moons(&authority, &format!(", url = \"http://{SERVER}:8080/{hash}\""))?;
        }
    }
    couple.judge(&authority, ", lookup = \"anywhere\", revocation = \"off\"")?;
    couple.sun.configure("charon { hash_and_url = yes }\n")?;
    couple.sun.append(&format!(
        "authorities {{ lab {{ cacert = ca.crt\n cert_uri_base = http://{SERVER}:8080/ }} }}\n"
    ))?;
    couple.start()?;
    steps.begin("we call, and each fetches the other's");
    couple.come_up(place)?;
    couple.end()?;
    steps.begin("strongSwan calls, and each fetches the other's");
    couple.sun.up()?;
    await_tunnel(&couple.moon, "one tunnel", |_| true)?;
    couple.end()?;
    let fetched = fs::read_to_string(place.results.join("web.log"))?.matches("GET /").count();
    if fetched < 3 {
        bail!("{fetched} certificates were fetched");
    }
    steps.begin("where the realm does not fetch, it does not say so, and gets the certificate itself");
    couple.judge(&authority, ", revocation = \"off\"")?;
    couple.again()?;
    couple.come_up(place)?;
    couple.end()?;
    stop(server)
}

fn several(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (red, blue) = (Authority::new(place, "red", &[])?, Authority::new(place, "blue", &[])?);
    red.issue(MOON)?;
    for name in [MOON, SUN] {
        blue.issue(name)?;
    }
    let mut couple = Couple::new(place, &blue)?;
    let also =
        format!(", also = [{{ cert = [{}], key = {} }}]", path(&blue.cert(MOON)), path(&blue.key(MOON)));
    couple.moons(&red, &also)?;
    couple.judge(&blue, "")?;
    steps.begin(
        "the first certificate is of a CA that strongSwan does not know, the second of one that it asks for",
    );
    couple.start()?;
    couple.come_up(place)?;
    couple.end()?;
    couple.sun.up()?;
    await_tunnel(&couple.moon, "one tunnel", |_| true)?;
    couple.end()?;
    steps.begin("without the second it is refused");
    couple.moons(&red, "")?;
    couple.again()?;
    couple.refused(
        &couple.moon,
        &["AUTHENTICATION_FAILED"],
        &["no issuer certificate found", "no trusted ECDSA public key"],
    )
}

fn four_commands(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    steps.begin("one, at moon: sun is invited");
    bare(&moon)?;
    bare(&sun)?;
    type_in(&moon, INVITE)?;
    steps.begin("the file goes to sun");
    let invite = "sun.lab.test.invite";
    fs::rename(moon.file().with_file_name(invite), sun.file().with_file_name(invite))?;
    steps.begin("two, at sun: it joins");
    type_in(&sun, "pki join sun.lab.test.invite")?;
    steps.begin("three and four: both run, and meet");
    moon.start()?;
    sun.start()?;
    agree(&moon, &sun)?;
    place.pings()?;
    steps.begin("moon revokes sun's certificate, and at the next call it is refused");
    let dir = moon.file().with_file_name("pki");
    process::run(Command::new(place.binary).args(["pki", "revoke", SUN, "--dir"]).arg(&dir))?;
    sun.stop()?;
    await_nothing(&moon, "after sun has ended")?;
    moon.order(&["reload"])?;
    sun.start()?;
    let said = process::until(Duration::from_secs(8), || {
        Ok(log_text(&moon).contains("was revoked on").then_some(()))
    })?;
    if said.is_none() {
        bail!("moon's log does not say that sun was revoked");
    }
    await_nothing(&moon, "after the refusal")
}

const INVITE: &str =
    "pki invite sun.lab.test --as moon.lab.test --here 192.168.0.1 --local 10.1.0.0/16 --remote 10.2.0.0/16";

/// Take the realm out of a configuration.
fn bare(end: &Tussock<'_>) -> Result<()> {
    end.rewrite(|text| text.split("\n[").next().unwrap_or_default().to_owned() + "\n")
}

/// One of our commands, typed in the folder of the configuration with names as a person gives them.
fn type_in(end: &Tussock<'_>, words: &str) -> Result<String> {
    let mut command = end.program();
    command.args(words.split(' ')).args(["--config", "gateway.toml"]);
    process::run(command.current_dir(end.file().with_file_name("")))
}

fn by_picture(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    bare(&moon)?;
    bare(&sun)?;
    steps.begin("sun is invited by a picture");
    type_in(&moon, &format!("{INVITE} --png sun.png"))?;
    steps.begin("which zbarimg reads, and sun joins by");
    let picture = moon.file().with_file_name("sun.png");
    let read = process::run(Command::new("zbarimg").args(["-q", "--raw"]).arg(&picture))?;
    let mut join = sun.program();
    process::feed(join.args(["pki", "join", "-", "--config"]).arg(sun.file()), &read)?;
    moon.start()?;
    sun.start()?;
    agree(&moon, &sun)?;
    place.pings()
}
