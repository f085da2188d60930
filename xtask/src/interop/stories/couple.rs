//! What stories about certificates have in common: an authority made with our own commands, our gateway and strongSwan with certificates
//! of it, and servers that tell who was revoked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::Place;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::pki::shown;
use crate::process::{self, Daemon};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{GATEWAY, SITE, Tussock, quoted};

pub const MOON: &str = "moon.lab.test";
pub const SUN: &str = "sun.lab.test";
/// Moon's address as everybody sees it, where the lists are.
pub const SERVER: &str = "192.168.0.1";

/// A web server. Python's own one asks for its host's name first, and in the lab nobody answers.
const WEB: &str = "import functools, http.server, socketserver, sys
socketserver.TCPServer.allow_reuse_address = True
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
socketserver.ThreadingTCPServer((sys.argv[1], 8080), handler).serve_forever()";

/// An authority made with our own commands.
pub struct Authority<'a> {
    place: &'a Place<'a>,
    pub dir: PathBuf,
}

impl<'a> Authority<'a> {
    pub fn new(place: &'a Place<'a>, name: &str, urls: &[&str]) -> Result<Authority<'a>> {
        let authority = Authority { place, dir: place.results.join(name) };
        let subject = format!("C=CH, O=Lab, CN={name}");
        authority.pki(&[&["init", "--subject", &subject], urls].concat())?;
        Ok(authority)
    }

    pub fn pki(&self, arguments: &[&str]) -> Result<String> {
        process::run(Command::new(self.place.binary).arg("pki").args(arguments).arg("--dir").arg(&self.dir))
    }

    pub fn issue(&self, name: &str) -> Result<()> {
        self.pki(&["issue", name]).map(drop)
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    pub fn cert(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{name}.crt"))
    }

    pub fn key(&self, name: &str) -> PathBuf {
        self.dir.join("certs").join(format!("{name}.key"))
    }

    /// Its list, where the web server finds it.
    pub fn publish(&self, www: &Path) -> Result<()> {
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
pub struct Couple<'a> {
    pub moon: Tussock<'a>,
    pub sun: StrongSwan<'a>,
    results: &'a Path,
}

impl<'a> Couple<'a> {
    pub fn new(place: &Place<'a>, authority: &Authority<'_>) -> Result<Couple<'a>> {
        Couple::with(place, authority, Release::Host)
    }

    /// The same with one of Debian's strongSwans.
    pub fn with(place: &Place<'a>, authority: &Authority<'_>, release: Release) -> Result<Couple<'a>> {
        let [mut end, mut far] = [SITES.moon(), SITES.far()];
        for end in [&mut end, &mut far] {
            (end.auth, end.peer_auth) = (Auth::Cert(KeyType::Ecdsa), Auth::Cert(KeyType::Ecdsa));
        }
        let moon = place.tussock(&end)?;
        moon.set(GATEWAY, "retransmit", "{ tries = 4, first = \"2s\", base = 2.0 }")?;
        let sun = StrongSwan::new(place.world, far, release, place.results)?;
        sun.fetches()?;
        let couple = Couple { moon, sun, results: place.results };
        couple.suns(authority)?;
        couple.moons(authority, "")?;
        Ok(couple)
    }

    /// Moon's certificate, and what else there is to its proof.
    pub fn moons(&self, authority: &Authority<'_>, more: &str) -> Result<()> {
        self.moon_has(&authority.cert(MOON), &authority.key(MOON), more)
    }

    /// The same, whoever issued it.
    pub fn moon_has(&self, cert: &Path, key: &Path, more: &str) -> Result<()> {
        let (cert, key) = (path(cert), path(key));
        let proof = format!("{{ method = \"pubkey\", id = \"{MOON}\", cert = [{cert}], key = {key}{more} }}");
        self.moon.set(SITE, "local_auth", &proof)
    }

    /// Sun's certificate, and the CA it believes.
    pub fn suns(&self, authority: &Authority<'_>) -> Result<()> {
        self.sun_has(&authority.cert(SUN), &authority.key(SUN))?;
        self.give_sun(&authority.ca(), "x509ca/ca.crt")
    }

    /// Another CA that sun believes.
    pub fn sun_believes_also(&self, authority: &Authority<'_>) -> Result<()> {
        self.give_sun(&authority.ca(), "x509ca/also.crt")
    }

    /// Sun's certificate, whoever issued it.
    pub fn sun_has(&self, cert: &Path, key: &Path) -> Result<()> {
        self.give_sun(cert, "x509/sun.crt")?;
        self.give_sun(key, "private/sun.key")
    }

    fn give_sun(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.results.join("sun/swanctl").join(to);
        fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    }

    /// How moon looks at sun.
    pub fn judge(&self, authority: &Authority<'_>, how: &str) -> Result<()> {
        let proof =
            format!("{{ method = \"pubkey\", id = \"{SUN}\", ca = [{}]{how} }}", path(&authority.ca()));
        self.moon.set(SITE, "remote_auth", &proof)
    }

    pub fn start(&mut self) -> Result<()> {
        self.sun.start()?;
        self.moon.start()
    }

    /// Both look at their files again.
    pub fn reload(&self) -> Result<()> {
        self.sun.load()?;
        self.moon.order(&["reload"]).map(drop)
    }

    /// Both anew: what they fetched is forgotten.
    pub fn again(&mut self) -> Result<()> {
        self.sun.stop()?;
        self.moon.stop()?;
        fs::remove_dir_all(self.moon.socket().with_file_name("secure").join("crls")).ok();
        self.start()
    }

    pub fn come_up(&self, place: &Place<'_>) -> Result<()> {
        self.moon.up()?;
        let seen = await_tunnel(&self.moon, "one tunnel", |_| true)?;
        await_tunnel(&self.sun, "the same tunnel", |other| other.ike == seen.ike)?;
        place.pings()
    }

    pub fn end(&self) -> Result<()> {
        self.moon.down()?;
        await_nothing(&self.moon, "after the end")?;
        await_nothing(&self.sun, "after the end")
    }

    /// It does not come up whoever calls, both say why, and nothing is left.
    pub fn refused(&self, by: &dyn Peer, moons: &[&str], suns: &[&str]) -> Result<()> {
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

pub fn web(place: &Place<'_>, www: &Path) -> Result<Daemon> {
    fs::create_dir_all(www)?;
    let mut command = place.world.on("moon", "python3");
    command.args(["-u", "-c", WEB, SERVER]).arg(www);
    let mut daemon = Daemon::start(&mut command, &place.results.join("web.log"))?;
    listens(place, "moon", 8080, &mut daemon)?;
    Ok(daemon)
}

/// OpenSSL's responder on a host, with what the authority says at this moment.
pub fn responder(place: &Place<'_>, authority: &Authority<'_>, host: &str) -> Result<Daemon> {
    let mut command = place.world.on(host, "openssl");
    command.args(["ocsp", "-port", "8081", "-ndays", "1", "-index"]).arg(authority.index()?);
    command.arg("-CA").arg(authority.ca()).arg("-rsigner").arg(authority.ca());
    command.arg("-rkey").arg(authority.dir.join("ca.key"));
    let mut daemon = Daemon::start(&mut command, &place.results.join("ocsp.log"))?;
    listens(place, host, 8081, &mut daemon)?;
    Ok(daemon)
}

/// Wait until somebody listens.
pub fn listens(place: &Place<'_>, host: &str, port: u16, daemon: &mut Daemon) -> Result<()> {
    // The kernel's table has hexadecimal ports, and 0A for "listens".
    let wanted = format!(":{port:04X} ");
    let there = process::until(Duration::from_secs(10), || {
        let seen = process::run(place.world.on(host, "cat").args(["/proc/net/tcp", "/proc/net/tcp6"]))?;
        let listens = seen.lines().any(|line| line.contains(&wanted) && line.contains(" 0A "));
        Ok((daemon.has_ended() || listens).then_some(()))
    })?;
    if there.is_none() || daemon.has_ended() {
        bail!("nobody listens at port {port} of {host}: {}", process::tail(daemon.log(), 5));
    }
    Ok(())
}

pub fn stop(mut daemon: Daemon) -> Result<()> {
    daemon.stop(Signal::TERM, Duration::from_secs(4)).map(drop)
}
pub fn path(file: &Path) -> String {
    quoted(&shown(file))
}
