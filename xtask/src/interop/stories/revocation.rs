//! Certificates in their lives: an authority of our own issues them, lists say who was revoked, responders answer, peers fetch, and two
//! gateways meet by one file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::pki::shown;
use crate::process::{self, Daemon};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{GATEWAY, SITE, Tussock, quoted};

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
];

const MOON: &str = "moon.lab.test";
const SUN: &str = "sun.lab.test";
/// Moon's address as everybody sees it, where the lists are.
const SERVER: &str = "192.168.0.1";

/// A web server. Python's own one asks for its host's name first, and in the lab nobody answers.
const WEB: &str = "import functools, http.server, socketserver, sys
socketserver.TCPServer.allow_reuse_address = True
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
socketserver.ThreadingTCPServer((sys.argv[1], 8080), handler).serve_forever()";

/// An authority made with our own commands.
struct Authority<'a> {
    place: &'a Place<'a>,
    dir: PathBuf,
}

impl<'a> Authority<'a> {
    fn new(place: &'a Place<'a>, name: &str, urls: &[&str]) -> Result<Authority<'a>> {
        let authority = Authority { place, dir: place.results.join(name) };
        let subject = format!("C=CH, O=Lab, CN={name}");
        authority.pki(&[&["init", "--subject", &subject], urls].concat())?;
        Ok(authority)
    }

    fn pki(&self, arguments: &[&str]) -> Result<String> {
        process::run(Command::new(self.place.binary).arg("pki").args(arguments).arg("--dir").arg(&self.dir))
    }

    fn issue(&self, name: &str) -> Result<()> {
        self.pki(&["issue", name]).map(drop)
    }

    fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{name}.crt"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{name}.key"))
    }

    /// Its list, where the web server finds it.
    fn publish(&self, www: &Path) -> Result<()> {
        self.pki(&["crl", "--out", &shown(&www.join("ca.crl"))]).map(drop)
    }

    /// What it issued as OpenSSL's responder has it.
    fn index(&self) -> Result<PathBuf> {
        let mut text = String::new();
        for line in self.pki(&["list"])?.lines() {
            let mut words = line.split_whitespace();
            let (serial, name) =
                (words.next().unwrap_or_default().to_uppercase(), words.next().unwrap_or_default());
            text += &match words.next() {
                Some("revoked") => {
                    format!("R\t401231235959Z\t260101000000Z,keyCompromise\t{serial}\tunknown\t/CN={name}\n")
                }
                _ => format!("V\t401231235959Z\t\t{serial}\tunknown\t/CN={name}\n"),
            };
        }
        let file = self.dir.join("index.txt");
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// The two, by certificates of an authority: ours on moon, strongSwan on sun.
struct Couple<'a> {
    moon: Tussock<'a>,
    sun: StrongSwan<'a>,
    results: &'a Path,
}

impl<'a> Couple<'a> {
    fn new(place: &Place<'a>, authority: &Authority<'_>) -> Result<Couple<'a>> {
        let [mut end, mut far] = [SITES.moon(), SITES.far()];
        for end in [&mut end, &mut far] {
            (end.auth, end.peer_auth) = (Auth::Cert(KeyType::Ecdsa), Auth::Cert(KeyType::Ecdsa));
        }
        let moon = place.tussock(&end)?;
        moon.set(GATEWAY, "retransmit", "{ tries = 4, first = \"2s\", base = 2.0 }")?;
        let sun = StrongSwan::new(place.world, far, Release::Host, place.results)?;
        sun.fetches()?;
        let couple = Couple { moon, sun, results: place.results };
        couple.suns(authority)?;
        couple.moons(authority, "")?;
        Ok(couple)
    }

    /// Moon's certificate, and what else there is to its proof.
    fn moons(&self, authority: &Authority<'_>, more: &str) -> Result<()> {
        let (cert, key) = (path(&authority.cert(MOON)), path(&authority.key(MOON)));
        let proof = format!("{{ method = \"pubkey\", id = \"{MOON}\", cert = [{cert}], key = {key}{more} }}");
        self.moon.set(SITE, "local_auth", &proof)
    }

    /// Sun's certificate, and the CA it believes.
    fn suns(&self, authority: &Authority<'_>) -> Result<()> {
        let folder = self.results.join("sun/swanctl");
        for (from, to) in [
            (authority.cert(SUN), "x509/sun.crt"),
            (authority.key(SUN), "private/sun.key"),
            (authority.ca(), "x509ca/ca.crt"),
        ] {
            fs::copy(&from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(())
    }

    /// How moon looks at sun.
    fn judge(&self, authority: &Authority<'_>, how: &str) -> Result<()> {
        let proof =
            format!("{{ method = \"pubkey\", id = \"{SUN}\", ca = [{}]{how} }}", path(&authority.ca()));
        self.moon.set(SITE, "remote_auth", &proof)
    }

    fn start(&mut self) -> Result<()> {
        self.sun.start()?;
        self.moon.start()
    }

    /// Both anew: what they fetched is forgotten.
    fn again(&mut self) -> Result<()> {
        self.sun.stop()?;
        self.moon.stop()?;
        fs::remove_dir_all(self.moon.socket().with_file_name("secure").join("crls")).ok();
        self.start()
    }

    fn come_up(&self, place: &Place<'_>) -> Result<()> {
        self.moon.up()?;
        let seen = await_tunnel(&self.moon, "one tunnel", |_| true)?;
        await_tunnel(&self.sun, "the same tunnel", |other| other.ike == seen.ike)?;
        place.pings()
    }

    fn end(&self) -> Result<()> {
        self.moon.down()?;
        await_nothing(&self.moon, "after the end")?;
        await_nothing(&self.sun, "after the end")
    }

    /// It does not come up whoever calls, both say why, and nothing is left.
    fn refused(&self, by: &dyn Peer, moons: &[&str], suns: &[&str]) -> Result<()> {
        let said = [log_text(&self.moon).len(), log_text(&self.sun).len()];
        if by.up().is_ok() {
            bail!("it came up: {:?}", self.moon.sas()?);
        }
        await_nothing(&self.moon, "after the refusal")?;
        await_nothing(&self.sun, "after the refusal")?;
        for (peer, words, from) in [(&self.moon as &dyn Peer, moons, said[0]), (&self.sun, suns, said[1])] {
            let found = process::until(Duration::from_secs(2), || {
                let text = log_text(peer);
                let new = text.get(from..).unwrap_or_default();
                Ok(words.iter().any(|words| new.contains(words)).then_some(()))
            })?;
            if found.is_none() {
                bail!("the log of {} does not say {words:?}", peer.maker());
            }
        }
        Ok(())
    }
}

fn web(place: &Place<'_>, www: &Path) -> Result<Daemon> {
    fs::create_dir_all(www)?;
    let mut command = place.world.on("moon", "python3");
    command.args(["-u", "-c", WEB, SERVER]).arg(www);
    let mut daemon = Daemon::start(&mut command, &place.results.join("web.log"))?;
    listens(place, 8080, &mut daemon)?;
    Ok(daemon)
}

fn responder(place: &Place<'_>, authority: &Authority<'_>) -> Result<Daemon> {
    let mut command = place.world.on("moon", "openssl");
    command.args(["ocsp", "-port", "8081", "-ndays", "1", "-index"]).arg(authority.index()?);
    command.arg("-CA").arg(authority.ca()).arg("-rsigner").arg(authority.ca());
    command.arg("-rkey").arg(authority.dir.join("ca.key"));
    let mut daemon = Daemon::start(&mut command, &place.results.join("ocsp.log"))?;
    listens(place, 8081, &mut daemon)?;
    Ok(daemon)
}

/// Wait until somebody listens.
fn listens(place: &Place<'_>, port: u16, daemon: &mut Daemon) -> Result<()> {
    // The kernel's table has hexadecimal ports, and 0A for "listens".
    let wanted = format!(":{port:04X} ");
    let there = process::until(Duration::from_secs(10), || {
        let seen = process::run(place.world.on("moon", "cat").args(["/proc/net/tcp", "/proc/net/tcp6"]))?;
        let listens = seen.lines().any(|line| line.contains(&wanted) && line.contains(" 0A "));
        Ok((daemon.has_ended() || listens).then_some(()))
    })?;
    if there.is_none() || daemon.has_ended() {
        bail!("nobody listens at {SERVER}:{port}: {}", process::tail(daemon.log(), 5));
    }
    Ok(())
}

fn stop(mut daemon: Daemon) -> Result<()> {
    daemon.stop(Signal::TERM, Duration::from_secs(4)).map(drop)
}

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
    let server = responder(place, &authority)?;
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
    let server = responder(place, &authority)?;
    couple.again()?;
    couple.refused(&couple.moon, &["was revoked on"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    steps.begin("moon's is revoked, and sun has another: strongSwan refuses ours");
    stop(server)?;
    authority.issue(SUN)?;
    couple.suns(&authority)?;
    authority.pki(&["revoke", MOON])?;
    let server = responder(place, &authority)?;
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
    let invite = place.results.join("sun.invite");
    steps.begin("one, at moon: sun is invited");
    let bare = |end: &Tussock<'_>| {
        end.rewrite(|text| text.split("\n[").next().unwrap_or_default().to_owned() + "\n")
    };
    bare(&moon)?;
    bare(&sun)?;
    let mut command = Command::new(place.binary);
    command.args(["pki", "invite", SUN, "--as", MOON, "--here", "192.168.0.1", "--local", "10.1.0.0/16"]);
    command.args(["--remote", "10.2.0.0/16", "--out"]).arg(&invite).arg("--config").arg(moon.file());
    process::run(&mut command)?;
    steps.begin("two, at sun: it joins");
    let mut command = Command::new(place.binary);
    process::run(command.args(["pki", "join"]).arg(&invite).arg("--config").arg(sun.file()))?;
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

fn path(file: &Path) -> String {
    quoted(&shown(file))
}
