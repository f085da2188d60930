//! Roadwarriors that prove themselves by EAP: strongSwan's at our gateway, ours at strongSwan's, and ours at ours.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story, agree};
use crate::interop::course::{Steps, virtual_address};
use crate::interop::residue::Residue;
use crate::interop::scenario::{SITES, Scenario};
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::ping;
use crate::pki::{Pki, shown};
use crate::process::{self, Daemon};
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, Layout};

pub const STORIES: &[Story] = &[
    Story::ours(
        "eap-strongswan-calls",
        "strongSwan by EAP-MSCHAPv2, EAP-TLS, EAP-TTLS, MD5 and GTC",
        strongswan_calls,
    )
    .on(Layout::Roadwarrior)
    .cast("strongSwan -> tussock"),
    Story::ours("eap-we-call", "at strongSwan by EAP-MSCHAPv2, EAP-TLS, EAP-TTLS, MD5", we_call)
        .on(Layout::Roadwarrior)
        .cast("tussock -> strongSwan"),
    Story::ours("eap-ours", "MSCHAPv2, TLS, TTLS, PEAP, EAP alone, a password typed when it is wanted", ours)
        .on(Layout::Roadwarrior),
    Story::ours(
        "eap-refused",
        "wrong password, unknown user, no address, no user at all: each said on both ends, nothing left on either",
        refused,
    )
    .on(Layout::Roadwarrior)
    .cast("both ways"),
];

/// RSA, so that certificates are long and messages go in fragments.
const KEYS: KeyType = KeyType::Rsa;

const PASSWORD: &str = "Ar3etTnp.01";

pub fn scenario() -> Scenario {
    Scenario { layout: Layout::Roadwarrior, auth: Auth::Cert(KEYS), ..SITES }
}

/// Our gateway at moon, which lets carol in by these methods.
fn our_moon<'a>(place: &Place<'a>, methods: &str, more: &str) -> Result<Tussock<'a>> {
    let moon = place.tussock(&scenario().moon())?;
    serve(&moon, methods, more)?;
    moon.append(&format!("[[eap]]\nuser = \"carol\"\npassword = {}\n", quoted(PASSWORD)))?;
    Ok(moon)
}

fn serve(moon: &Tussock<'_>, methods: &str, more: &str) -> Result<()> {
    let ca = quoted(&shown(&Pki::of(KEYS)?.ca()));
    moon.set(SITE, "remote_auth", &format!("{{ method = \"eap\", eap = [{methods}], ca = [{ca}]{more} }}"))
}

/// Our gateway at carol, which calls moon.
fn our_carol<'a>(place: &Place<'a>, methods: &str, more: &str) -> Result<Tussock<'a>> {
    let carol = place.tussock(&scenario().far())?;
    call(&carol, methods, more)?;
    Ok(carol)
}

fn call(carol: &Tussock<'_>, methods: &str, more: &str) -> Result<()> {
    let pki = Pki::of(KEYS)?;
    let own = format!(
        "cert = [{}], key = {}",
        quoted(&shown(&pki.cert("carol"))),
        quoted(&shown(&pki.key("carol")))
    );
    // With EAP-TLS it is the certificate that says who we are.
    let user = if methods == "\"tls\"" { "carol@lab.test" } else { "carol" };
    let id = format!("id = \"carol@lab.test\", eap_id = {}", quoted(user));
    carol.set(SITE, "local_auth", &format!("{{ method = \"eap\", {id}, eap = [{methods}], {own}{more} }}"))
}

fn with_password(carol: &Tussock<'_>, password: &str) -> Result<()> {
    carol.append(&format!("[[eap]]\nuser = \"carol\"\npassword = {}\n", quoted(password)))
}

/// strongSwan at carol, which calls by this method, as this user.
pub fn their_carol<'a>(
    place: &Place<'a>,
    method: &str,
    user: &str,
    password: &str,
) -> Result<StrongSwan<'a>> {
    let carol = StrongSwan::new(place.world, scenario().far(), Release::Host, place.results)?;
    let by_key = "      auth = pubkey\n      certs = carol.crt\n";
    let certs = if method == "eap-tls" { "      certs = carol.crt\n" } else { "" };
    let eap_id = if method == "eap-tls" { String::new() } else { format!("      eap_id = {user}\n") };
    let by_eap = format!("      auth = {method}\n{certs}{eap_id}      aaa_id = moon.lab.test\n");
    carol.rewrite(|text| text.replace(by_key, &by_eap))?;
    carol
        .append(&format!("secrets {{\n  eap-1 {{\n    id = {user}\n    secret = \"{password}\"\n  }}\n}}"))?;
    Ok(carol)
}

/// strongSwan at moon, which lets carol in by this method.
pub fn their_moon<'a>(place: &Place<'a>, method: &str) -> Result<StrongSwan<'a>> {
    let moon = StrongSwan::new(place.world, scenario().moon(), Release::Host, place.results)?;
    let by_key = "    remote {\n      auth = pubkey\n";
    let by_eap = format!("    remote {{\n      auth = {method}\n      eap_id = %any\n");
    moon.rewrite(|text| text.replace(by_key, &by_eap))?;
    moon.append(&format!("secrets {{\n  eap-1 {{\n    id = carol\n    secret = \"{PASSWORD}\"\n  }}\n}}"))?;
    moon.configure("charon { plugins { eap-ttls { phase2_method = mschapv2 } } }")?;
    Ok(moon)
}

/// Up, pings both ways, down, nothing left; what is seen in between is `look`ed at.
pub fn through(
    place: &Place<'_>,
    carol: &dyn Peer,
    moon: &dyn Peer,
    look: impl FnOnce() -> Result<()>,
) -> Result<()> {
    carol.up()?;
    let seen = await_tunnel(carol, "one tunnel", |_| true)?;
    await_tunnel(moon, "the same tunnel", |other| other.ike == seen.ike)?;
    ping::check(place.world, "carol", ALICE)?;
    ping::check(place.world, "alice", &virtual_address(place.world, "carol")?)?;
    look()?;
    carol.down()?;
    await_nothing(carol, "after the end")?;
    await_nothing(moon, "after the end")
}

/// Our gateway says that its only peer is this user, proved in this way.
fn is_user(moon: &Tussock<'_>, user: &str, how: &str) -> Result<()> {
    let sas = moon.json("sas")?;
    let word = |path: &str| sas.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (peer, by) = (word("/ike_sas/0/peer_id"), word("/ike_sas/0/how"));
    if peer != user || !by.contains(how) {
        bail!("the peer is `{peer}` by `{by}`, and not `{user}` by {how}");
    }
    Ok(())
}

fn strongswan_calls(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let stock = Residue::of(place.world, "moon")?;
    let mut moon = our_moon(place, "\"mschapv2\"", "")?;
    moon.start()?;
    for (method, ours, more, user, how) in [
        ("eap-mschapv2", "\"mschapv2\"", "", "carol", "MSCHAPv2"),
        // The gateway's first choice is not what the client wants, which says so.
        ("eap-mschapv2", "\"tls\", \"ttls\", \"mschapv2\"", "", "carol", "MSCHAPv2"),
        ("eap-tls", "\"tls\"", "", "carol@lab.test", "TLS"),
        ("eap-ttls", "\"ttls\"", ", inner = [\"eap-mschapv2\"]", "carol", "TTLS"),
        ("eap-md5", "\"md5\"", ", keyless = true", "carol", "MD5"),
        ("eap-gtc", "\"gtc\"", ", keyless = true", "carol", "GTC"),
    ] {
        steps.begin(format!("strongSwan by {method}, at a gateway that takes {ours}"));
        serve(&moon, ours, more)?;
        moon.order(&["reload"])?;
        let mut carol = their_carol(place, method, "carol", PASSWORD)?;
        carol.start()?;
        through(place, &carol, &moon, || is_user(&moon, user, how))?;
        carol.stop()?;
    }
    steps.begin("a chain that EAP-TLS has to cut, in packets that IKE has to cut");
    let pki = Pki::of(KEYS)?;
    let [cert, key, ca] = [pki.cert("moon"), pki.key("moon"), pki.ca()].map(|path| quoted(&shown(&path)));
    serve(&moon, "\"tls\"", &format!(", cert = [{cert}, {ca}], key = {key}"))?;
    moon.set(SITE, "fragment_size", "576")?;
    moon.order(&["reload"])?;
    let mut carol = their_carol(place, "eap-tls", "carol", PASSWORD)?;
    carol.configure("charon { fragment_size = 576 }")?;
    carol.start()?;
    through(place, &carol, &moon, || is_user(&moon, "carol@lab.test", "TLS"))?;
    cut_twice(&log_text(&carol))?;
    carol.stop()?;
    moon.stop()?;
    stock.must_return(place.world, "the end")
}

/// strongSwan's log says that parts of EAP-TLS's messages came and went as several IKE fragments each.
fn cut_twice(log: &str) -> Result<()> {
    // Its start, the server's messages, its end: what is more is parts of them, and words that a part has come.
    const WHOLE: usize = 3;
    let requests = log.lines().filter(|line| line.contains("parsed") && line.contains("EAP/REQ/TLS")).count();
    let (mut came, mut went) = (0, 0);
    let (mut reassembled, mut made) = (false, false);
    for line in log.lines() {
        if line.contains("parsed") {
            came += usize::from(reassembled && line.contains("EAP/REQ/TLS"));
            reassembled = false;
        }
        reassembled |= line.contains("reassembled fragmented IKE message");
        if line.contains("generating") && line.contains("EAP/RES") {
            made = line.contains("EAP/RES/TLS");
        }
        went += usize::from(made && line.contains("splitting IKE message"));
    }
    if requests <= WHOLE + 2 || came < 2 || went < 1 {
        bail!("{requests} requests of EAP-TLS, {came} of them in IKE fragments, {went} answers in such");
    }
    Ok(())
}

fn we_call(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let stock = Residue::of(place.world, "carol")?;
    let mut carol = our_carol(place, "\"mschapv2\"", "")?;
    with_password(&carol, PASSWORD)?;
    carol.start()?;
    for (method, ours, more) in [
        ("eap-mschapv2", "\"mschapv2\"", ""),
        ("eap-mschapv2", "\"tls\", \"ttls\", \"mschapv2\"", ""),
        ("eap-tls", "\"tls\"", ""),
        ("eap-ttls", "\"ttls\"", ", inner = [\"eap-mschapv2\"]"),
        ("eap-md5", "\"md5\"", ", keyless = true"),
    ] {
        steps.begin(format!("we call strongSwan, which wants {method}, with {ours}"));
        call(&carol, ours, more)?;
        carol.order(&["reload"])?;
        let mut moon = their_moon(place, method)?;
        moon.start()?;
        through(place, &carol, &moon, || Ok(()))?;
        moon.stop()?;
    }
    carol.stop()?;
    stock.must_return(place.world, "the end")
}

fn ours(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut carol) = (our_moon(place, "\"mschapv2\"", "")?, our_carol(place, "\"mschapv2\"", "")?);
    moon.start()?;
    carol.start()?;
    let again = |methods: &str, server: &str, client: &str| -> Result<()> {
        serve(&moon, methods, server)?;
        call(&carol, methods, client)?;
        moon.order(&["reload"])?;
        carol.order(&["reload"]).map(drop)
    };
    steps.begin("a password that is not written down is typed when it is wanted");
    again("\"mschapv2\"", "", "")?;
    let up = waiting_up(place, &carol)?;
    carol.order_feeding(&["credentials", "site"], &format!("{PASSWORD}\n"))?;
    finish(up, "tussock up")?;
    agree(&carol, &moon)?;
    is_user(&moon, "carol", "MSCHAPv2")?;
    carol.down()?;
    await_nothing(&moon, "after the end")?;

    with_password(&carol, PASSWORD)?;
    for (methods, server, client, how) in [
        ("\"mschapv2\"", "", "", "MSCHAPv2"),
        ("\"tls\"", "", "", "TLS"),
        ("\"ttls\"", "", "", "TTLS"),
        ("\"peap\"", "", "", "PEAP"),
        ("\"ttls\"", ", eap_only = true", ", eap_only = true", "TTLS"),
    ] {
        steps.begin(format!("by {methods}{server}"));
        again(methods, server, client)?;
        let user = if methods == "\"tls\"" { "carol@lab.test" } else { "carol" };
        through(place, &carol, &moon, || is_user(&moon, user, how))?;
    }
    steps.begin("neither log has the password in it");
    for end in [&moon, &carol] {
        if log_text(end).contains(PASSWORD) {
            bail!("{} wrote the password into its log", end.maker());
        }
    }
    Ok(())
}

/// `tussock up`, which waits.
fn waiting_up(place: &Place<'_>, carol: &Tussock<'_>) -> Result<Daemon> {
    let up = carol.follow(&["up", "site/net"], &place.results.join("up.log"))?;
    let wanted = process::until(std::time::Duration::from_secs(10), || {
        Ok(log_text(carol).contains("a password is wanted").then_some(()))
    })?;
    wanted.context("no password was wanted")?;
    Ok(up)
}

fn finish(mut daemon: Daemon, what: &str) -> Result<()> {
    let ended = process::until(std::time::Duration::from_secs(15), || Ok(daemon.has_ended().then_some(())))?;
    ended.with_context(|| format!("{what} does not end: {}", process::tail(daemon.log(), 5)))
}

fn refused(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut moon = our_moon(place, "\"mschapv2\"", "")?;
    moon.start()?;
    let stock = Residue::of(place.world, "moon")?;
    // MSCHAPv2 has a word for it of its own, after which strongSwan goes.
    let told = "ERROR_AUTHENTICATION_FAILURE";
    for (what, user, password, why) in [
        ("a wrong password", "carol", "guess", "wrong password of carol"),
        ("an unknown user", "mallory", PASSWORD, "there is no user mallory"),
    ] {
        steps.begin(format!("{what}: strongSwan at our gateway"));
        at_ours(place, &moon, (user, password), told, why)?;
        stock.must_return(place.world, "a refusal")?;
    }
    steps.begin("the pool has no address: strongSwan at our gateway");
    moon.set(SITE, "pool", "{ ipv4 = \"10.3.0.0/30\", reserve = { \"erin@lab.test\" = \"10.3.0.2\" } }")?;
    moon.order(&["reload"])?;
    at_ours(place, &moon, ("carol", PASSWORD), "INTERNAL_ADDRESS_FAILURE", "no address left in the pool")?;
    stock.must_return(place.world, "a refusal")?;
    steps.begin("a realm without a single user: strongSwan at our gateway");
    moon.rewrite(|text| {
        text.split("[[eap]]").next().map(|before| format!("{before}\n")).unwrap_or_default()
    })?;
    let said = moon.order(&["reload"])?;
    if !said.contains("there is no [[eap]] user") {
        bail!("`tussock reload` does not say what is missing: {said}");
    }
    at_ours(place, &moon, ("carol", PASSWORD), "AUTHENTICATION_FAILED", "has no EAP method that can run")?;
    stock.must_return(place.world, "a refusal")?;
    moon.stop()?;
    for (what, user, password) in
        [("a wrong password", "carol", "guess"), ("an unknown user", "mallory", PASSWORD)]
    {
        steps.begin(format!("{what}: ours at strongSwan's"));
        let mut carol = our_carol(place, "\"mschapv2\"", "")?;
        carol.rewrite(|text| text.replace("eap_id = \"carol\"", &format!("eap_id = {}", quoted(user))))?;
        carol.append(&format!("[[eap]]\nuser = {}\npassword = {}\n", quoted(user), quoted(password)))?;
        let mut moon = their_moon(place, "eap-mschapv2")?;
        moon.start()?;
        carol.start()?;
        let up = carol.up();
        if up.is_ok() {
            bail!("it came up");
        }
        let said = format!("{up:#?}");
        if !said.contains("authentication: EAP: EAP-MSCHAPv2: wrong name or password") {
            bail!("`tussock up` does not say what is wrong: {said}");
        }
        await_nothing(&carol, "after the refusal")?;
        await_nothing(&moon, "after the refusal")?;
        if !log_text(&moon).contains("EAP method EAP_MSCHAPV2 failed for peer") {
            bail!("strongSwan's log does not say that it refused");
        }
        carol.stop()?;
        moon.stop()?;
    }
    steps.begin("a wrong password: ours at ours, and `tussock events` says which");
    let (mut moon, mut carol) = (our_moon(place, "\"mschapv2\"", "")?, our_carol(place, "\"mschapv2\"", "")?);
    with_password(&carol, "guess")?;
    moon.start()?;
    carol.start()?;
    let events = moon.follow(&["events"], &place.results.join("events.log"))?;
    let up = format!("{:#?}", carol.up());
    if !up.contains("authentication: EAP: EAP-MSCHAPv2: wrong name or password") {
        bail!("`tussock up` does not say what is wrong: {up}");
    }
    let seen = process::until(std::time::Duration::from_secs(5), || {
        let text = std::fs::read_to_string(events.log()).unwrap_or_default();
        Ok(text.contains("wrong password of carol").then_some(()))
    })?;
    seen.context("`tussock events` does not say why")?;
    carol.stop()?;
    moon.stop()
}

/// strongSwan calls our gateway and does not get in; its log and ours say why, and neither end has anything left.
fn at_ours(
    place: &Place<'_>,
    moon: &Tussock<'_>,
    (user, password): (&str, &str),
    told: &str,
    why: &str,
) -> Result<()> {
    let said = log_text(moon).len();
    let mut carol = their_carol(place, "eap-mschapv2", user, password)?;
    carol.start()?;
    if carol.up().is_ok() {
        bail!("it came up");
    }
    if !log_text(&carol).contains(told) {
        bail!("strongSwan was not told {told}");
    }
    // Without an address there is an IKE SA that holds nothing, and both sides take it down when they like.
    if told == "INTERNAL_ADDRESS_FAILURE" {
        carol.down().ok();
    }
    await_nothing(&carol, "after the refusal")?;
    await_nothing(moon, "after the refusal")?;
    let text = log_text(moon);
    if !text.get(said..).unwrap_or_default().contains(why) {
        bail!("our log does not say `{why}`");
    }
    carol.stop()
}
