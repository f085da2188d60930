//! Certificates in TLS inside EAP that were revoked: strongSwan's at our gateway, and the one of strongSwan's gateway that we call.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::couple::{Authority, MOON, path};
use super::eap::{scenario, their_carol, their_moon, through};
use super::{Place, Story};
use crate::interop::course::Steps;
use crate::interop::residue::Residue;
use crate::peer::{Peer, await_nothing, log_text};
use crate::tussock::{SITE, Tussock};
use crate::world::Layout;

pub const STORIES: &[Story] = &[Story::ours(
    "eap-tls-revoked",
    "a revoked certificate is refused by EAP-TLS: strongSwan's at our gateway, and that of strongSwan's gateway by us",
    revoked,
)
.on(Layout::Roadwarrior)
.cast("tussock <-> strongSwan")];

const CAROL: &str = "carol@lab.test";

fn revoked(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let authority = Authority::new(place, "ca", &[])?;
    authority.issue(MOON)?;
    authority.pki(&["issue", CAROL, "--user"])?;
    let list = path(&authority.dir.join("ca.crl"));
    let ca = path(&authority.ca());
    let how = format!("ca = [{ca}], revocation = \"strict\", crl = [{list}]");
    let mut moon = place.tussock(&scenario().moon())?;
    own(&moon, "pubkey", &authority, MOON, "")?;
    moon.set(SITE, "remote_auth", &format!("{{ method = \"eap\", eap = [\"tls\"], {how} }}"))?;
    let mut carol = their_carol(place, "eap-tls", "carol", "")?;
    give(place, "carol", &authority, CAROL)?;
    steps.begin("strongSwan by EAP-TLS, at a strict gateway whose list names nobody");
    moon.start()?;
    carol.start()?;
    let stock = Residue::of(place.world, "moon")?;
    through(place, &carol, &moon, || Ok(()))?;
    steps.begin("carol's certificate is revoked: refused, both say so, and nothing is left");
    authority.pki(&["revoke", CAROL, "--reason", "key-compromise"])?;
    moon.order(&["reload"])?;
    let said = [log_text(&moon).len(), log_text(&carol).len()];
    if carol.up().is_ok() {
        bail!("it came up");
    }
    await_nothing(&carol, "after the refusal")?;
    await_nothing(&moon, "after the refusal")?;
    stock.must_return(place.world, "after the refusal")?;
    says(&moon, said[0], "the certificate of CN=carol@lab.test was revoked on")?;
    says(&carol, said[1], "received AUTHENTICATION_FAILED")?;
    carol.stop()?;
    moon.stop()?;

    steps.begin("we call strongSwan's gateway by EAP-TLS, strict, with a list that names others");
    authority.pki(&["issue", CAROL, "--user"])?;
    let mut carol = place.tussock(&scenario().far())?;
    let id = format!(", eap_id = \"{CAROL}\", eap = [\"tls\"], {how}");
    own(&carol, "eap", &authority, CAROL, &id)?;
    // The gateway's own proof is another matter, and would be judged first.
    let gateways = format!("{{ method = \"pubkey\", id = \"{MOON}\", ca = [{ca}], revocation = \"off\" }}");
    carol.set(SITE, "remote_auth", &gateways)?;
    let mut moon = their_moon(place, "eap-tls")?;
    give(place, "moon", &authority, MOON)?;
    // In the middle of EAP it takes note of our notify and goes on waiting: for half a minute, unless it is told otherwise.
    moon.configure("charon { half_open_timeout = 3 }")?;
    moon.start()?;
    carol.start()?;
    let stock = Residue::of(place.world, "carol")?;
    through(place, &carol, &moon, || Ok(()))?;
    steps.begin("the gateway's certificate is revoked: we go, both say so, and nothing is left");
    authority.pki(&["revoke", MOON, "--reason", "key-compromise"])?;
    carol.order(&["reload"])?;
    let said = [log_text(&carol).len(), log_text(&moon).len()];
    if carol.up().is_ok() {
        bail!("it came up");
    }
    await_nothing(&carol, "after the refusal")?;
    await_nothing(&moon, "after the refusal")?;
    stock.must_return(place.world, "after the refusal")?;
    says(&carol, said[0], "the certificate of CN=moon.lab.test was revoked on")?;
    says(&moon, said[1], "AUTH_FAILED")?;
    carol.stop()?;
    moon.stop()
}

/// How one of ours proves itself, by a certificate of this authority.
fn own(end: &Tussock<'_>, method: &str, authority: &Authority<'_>, name: &str, more: &str) -> Result<()> {
    let (cert, key) = (path(&authority.cert(name)), path(&authority.key(name)));
    let proof = format!("{{ method = \"{method}\", id = \"{name}\", cert = [{cert}], key = {key}{more} }}");
    end.set(SITE, "local_auth", &proof)
}

/// A certificate, its key and its CA, in the place of those that strongSwan has on this host.
fn give(place: &Place<'_>, host: &str, authority: &Authority<'_>, name: &str) -> Result<()> {
    let folder = place.results.join(host).join("swanctl");
    let copy = |from: &Path, to: String| {
        fs::copy(from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(&authority.cert(name), format!("x509/{host}.crt"))?;
    copy(&authority.key(name), format!("private/{host}.key"))?;
    copy(&authority.ca(), "x509ca/ca.crt".to_owned()).map(drop)
}

fn says(peer: &dyn Peer, from: usize, words: &str) -> Result<()> {
    let text = log_text(peer);
    if !text.get(from..).unwrap_or_default().contains(words) {
        bail!("the log of {} does not say \"{words}\"", peer.maker());
    }
    Ok(())
}
