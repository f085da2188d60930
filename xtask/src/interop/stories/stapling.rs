//! OCSP answers that travel in IKE (RFC 4806), with strongSwan 6: each end asks the responder about its own certificate, and the other
//! end, which cannot ask it, believes what comes along.

use anyhow::{Result, bail};

use super::couple::{Authority, Couple, MOON, SUN, path, responder, stop};
use super::{Place, Story};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_tunnel, log_text};
use crate::strongswan::Release;
use crate::trixie;
use crate::tussock::SITE;

pub const STORIES: &[Story] = &[Story::ours(
    "ocsp-in-ike",
    "both ask for OCSP answers in IKE (RFC 4806) and send theirs: strict on both ends, and what was revoked is refused by what its owner sent",
    stapled,
)
.cast("tussock <-> strongSwan 6")];

/// Nobody but strongSwan asks there: we fetch nothing from this machine itself where a certificate says so.
const NEAR: &str = "http://127.0.0.1:8081/";

/// Which responder we ask is the operator's to say.
const STRICT: &str = ", revocation = \"strict\", ocsp = \"http://127.0.0.1:8081/\"";

fn stapled(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    trixie::need()?;
    // Each end has a CA of its own, whose responder only it can ask.
    let moons = Authority::new(place, "moons", &["--ocsp-url", NEAR])?;
    let suns = Authority::new(place, "suns", &["--ocsp-url", NEAR])?;
    moons.issue(MOON)?;
    suns.issue(SUN)?;
    let at_moon = responder(place, &moons, "moon")?;
    let at_sun = responder(place, &suns, "sun")?;
    let mut couple = Couple::with(place, &suns, Release::Trixie)?;
    // Who asks about its own certificate has to know who issued it: we have that one behind ours, strongSwan among its CAs.
    moon_with_ca(&couple, &moons)?;
    couple.sun_believes_also(&moons)?;
    couple.judge(&suns, STRICT)?;
    couple.sun.append("connections { site { ocsp = both\n remote { revocation = strict } } }\n")?;
    steps.begin("both have the other's answer and come up, whoever calls");
    couple.start()?;
    couple.come_up(place)?;
    couple.end()?;
    couple.sun.up()?;
    await_tunnel(&couple.moon, "one tunnel", |_| true)?;
    place.pings()?;
    couple.end()?;
    let told = log_text(&couple.sun);
    for words in
        ["received OCSP response issued by", "sending OCSP status for certificate \"CN=sun.lab.test\""]
    {
        if !told.contains(words) {
            bail!("strongSwan's log does not say \"{words}\"");
        }
    }
    steps.begin("moon's certificate is revoked: strongSwan refuses it by the answer that we send, and we are told beforehand");
    stop(at_moon)?;
    moons.pki(&["revoke", MOON, "--reason", "key-compromise"])?;
    let at_moon = responder(place, &moons, "moon")?;
    couple.again()?;
    for by in [&couple.moon as &dyn Peer, &couple.sun] {
        let said = log_text(&couple.moon).len();
        couple.refused(
            by,
            &["AUTHENTICATION_FAILED", "does not accept our proof"],
            &["certificate was revoked"],
        )?;
        if !log_text(&couple.moon)
            .get(said..)
            .unwrap_or_default()
            .contains("our own certificate will be refused")
        {
            bail!("moon's log does not say that its own certificate was revoked");
        }
    }
    steps.begin("sun's is revoked, and moon has another: we refuse it by the answer that strongSwan sends");
    moons.issue(MOON)?;
    suns.pki(&["revoke", SUN, "--reason", "key-compromise"])?;
    stop(at_moon)?;
    stop(at_sun)?;
    let (at_moon, at_sun) = (responder(place, &moons, "moon")?, responder(place, &suns, "sun")?);
    couple.again()?;
    for by in [&couple.moon as &dyn Peer, &couple.sun] {
        couple.refused(by, &["was revoked on"], &["AUTHENTICATION_FAILED", "AUTH_FAILED"])?;
    }
    stop(at_moon)?;
    stop(at_sun)
}

fn moon_with_ca(couple: &Couple<'_>, authority: &Authority<'_>) -> Result<()> {
    let (cert, ca, key) = (path(&authority.cert(MOON)), path(&authority.ca()), path(&authority.key(MOON)));
    let proof = format!("{{ method = \"pubkey\", id = \"{MOON}\", cert = [{cert}, {ca}], key = {key} }}");
    couple.moon.set(SITE, "local_auth", &proof)
}
