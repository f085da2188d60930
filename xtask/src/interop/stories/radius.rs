//! Roadwarriors that FreeRADIUS lets in: strongSwan's at our gateway, with the server behind it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::freeradius::{FreeRadius, SECRET};
use crate::interop::course::{Steps, virtual_address};
use crate::interop::residue::Residue;
use crate::interop::scenario::{SITES, Scenario};
use crate::packages;
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::ping;
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, KeyType};
use crate::tussock::{SITE, Tussock, quoted};
use crate::world::{ALICE, Layout, MOON_INSIDE};

pub const STORIES: &[Story] = &[
    Story::ours(
        "radius",
        "FreeRADIUS lets in by EAP-MSCHAPv2, EAP-TTLS and EAP-TLS, gives the address, keeps the books, sends away",
        let_in,
    )
    .on(Layout::Roadwarrior)
    .with(packages::RADIUS)
    .cast("strongSwan -> tussock, FreeRADIUS"),
    Story::ours(
        "radius-fails",
        "a wrong password, the first server down, both down and back: each said clearly, and nothing left",
        fails,
    )
    .on(Layout::Roadwarrior)
    .with(packages::RADIUS)
    .cast("strongSwan -> tussock, FreeRADIUS"),
];

pub(super) const PASSWORD: &str = "Ar3etTnp.01";
/// What FreeRADIUS gives carol: of the lab's pool, so that it is found like any other.
const ADDRESS: &str = "10.3.0.77";

fn users() -> String {
    users_for(3600)
}

/// carol, who may stay so many seconds.
pub(super) fn users_for(seconds: u32) -> String {
    let grants = format!(
        " Framed-IP-Address = {ADDRESS},\n Session-Timeout = {seconds},\n Class = \"staff\",\n Filter-Id = \"lan\"\n"
    );
    // With a certificate there is no password to check.
    format!("carol Cleartext-Password := \"{PASSWORD}\"\n{grants}\ncarol@lab.test\n{grants}")
}

fn scenario() -> Scenario {
    Scenario { layout: Layout::Roadwarrior, auth: Auth::Cert(KeyType::Rsa), ..SITES }
}

/// Our gateway at moon, which asks these servers.
pub(super) fn moon<'a>(place: &Place<'a>, servers: &[&str]) -> Result<Tussock<'a>> {
    let moon = asking(place)?;
    for server in servers {
        moon.append(&by_udp(server))?;
    }
    Ok(moon)
}

/// A server of the configuration, by its address.
pub(super) fn by_udp(server: &str) -> String {
    format!("[[radius.server]]\nname = \"{server}\"\naddress = \"{server}\"\nsecret = {}\n", quoted(SECRET))
}

/// Our gateway at moon, which has no server yet.
pub(super) fn asking<'a>(place: &Place<'a>) -> Result<Tussock<'a>> {
    let moon = place.tussock(&scenario().moon())?;
    moon.set(SITE, "remote_auth", "{ method = \"eap\", radius = true }")?;
    let dynamic = format!(
        "dynamic = {{ listen = \"{MOON_INSIDE}\", clients = [\"{ALICE}\"], secret = {} }}",
        quoted(SECRET)
    );
    moon.append(&format!(
        "[radius]\nnas_identifier = \"moon.lab.test\"\ninterim = \"2s\"\ntimeout = \"500ms\"\n{dynamic}\n"
    ))?;
    Ok(moon)
}

/// strongSwan at carol, which calls by this method.
pub(super) fn carol<'a>(place: &Place<'a>, method: &str, password: &str) -> Result<StrongSwan<'a>> {
    let carol = StrongSwan::new(place.world, scenario().far(), Release::Host, place.results)?;
    let by_key = "      auth = pubkey\n      certs = carol.crt\n";
    let more = if method == "eap-tls" { "      certs = carol.crt\n" } else { "      eap_id = carol\n" };
    let by_eap = format!("      auth = {method}\n{more}      aaa_id = moon.lab.test\n");
    carol.rewrite(|text| text.replace(by_key, &by_eap))?;
    carol
        .append(&format!("secrets {{\n  eap-1 {{\n    id = carol\n    secret = \"{password}\"\n  }}\n}}"))?;
    carol.configure("charon { plugins { eap-ttls { phase2_method = mschapv2 } } }")?;
    Ok(carol)
}

pub(super) fn come_up(place: &Place<'_>, carol: &StrongSwan<'_>, moon: &Tussock<'_>) -> Result<()> {
    carol.up()?;
    let seen = await_tunnel(carol, "one tunnel", |_| true)?;
    await_tunnel(moon, "the same tunnel", |other| other.ike == seen.ike)?;
    ping::check(place.world, "carol", ALICE)?;
    let has = virtual_address(place.world, "carol")?;
    if has != ADDRESS {
        bail!("carol has {has}, and not the address that the server gave");
    }
    ping::check(place.world, "alice", &has)
}

fn let_in(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let server = FreeRadius::start(place.world, place.results, ("alice", ALICE), &users())?;
    let stock = Residue::of(place.world, "moon")?;
    let mut moon = moon(place, &[ALICE])?;
    moon.start()?;
    for (method, user, how) in [
        ("eap-mschapv2", "carol", "RADIUS, EAP-MSCHAPv2"),
        ("eap-ttls", "carol", "RADIUS, EAP-TTLS"),
        ("eap-tls", "carol@lab.test", "RADIUS, EAP-TLS"),
    ] {
        steps.begin(format!("strongSwan by {method}, and the server's address"));
        let mut carol = carol(place, method, PASSWORD)?;
        carol.start()?;
        come_up(place, &carol, &moon)?;
        shown(&moon, user, how)?;
        carol.down()?;
        await_nothing(&moon, "after the end")?;
        carol.stop()?;
    }
    steps.begin("what was carried is in the books: start, interim, stop");
    let id = session_id(&server, "Acct-Status-Type = Start", 0)?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    let framed = format!("Framed-IP-Address = {ADDRESS}");
    let class = "Class = 0x7374616666";
    server.await_record(&["Acct-Status-Type = Start", &mine, &framed, class, "User-Name = \"carol\""])?;
    let stop =
        server.await_record(&["Acct-Status-Type = Stop", &mine, "Acct-Terminate-Cause = User-Request"])?;
    for empty in ["Acct-Input-Octets = 0\n", "Acct-Output-Octets = 0\n", "Acct-Input-Packets = 0\n"] {
        if stop.contains(empty) {
            bail!("nothing was carried, says {stop}");
        }
    }
    let mut carol = carol(place, "eap-mschapv2", PASSWORD)?;
    carol.start()?;
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 3)?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    server.await_record(&["Acct-Status-Type = Interim-Update", &mine])?;
    steps.begin("a Disconnect-Request for somebody else is refused");
    let to = format!("{MOON_INSIDE}:3799");
    let said = server.order(&to, "disconnect", "User-Name = \"dave\"")?;
    if !said.contains("Disconnect-NAK") || !said.contains("Session-Context-Not-Found") {
        bail!("radclient says {said}");
    }
    steps.begin("a Disconnect-Request closes the tunnel at both ends");
    let said = server.order(&to, "disconnect", "User-Name = \"carol\"")?;
    if !said.contains("Disconnect-ACK") {
        bail!("radclient says {said}");
    }
    await_nothing(&moon, "after the Disconnect-Request")?;
    await_nothing(&carol, "after the Disconnect-Request")?;
    server.await_record(&["Acct-Status-Type = Stop", &mine, "Acct-Terminate-Cause = Admin-Reset"])?;
    steps.begin("a CoA-Request shortens the session, which ends when its time is over");
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 4)?;
    let said = server.order(&to, "coa", &format!("Acct-Session-Id = \"{id}\"\nSession-Timeout = 2"))?;
    if !said.contains("CoA-ACK") {
        bail!("radclient says {said}");
    }
    await_nothing(&moon, "after its time")?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    server.await_record(&["Acct-Status-Type = Stop", &mine, "Acct-Terminate-Cause = Session-Timeout"])?;
    steps.begin("the gateway's own end is in the books, too");
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 5)?;
    moon.stop()?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    server.await_record(&["Acct-Status-Type = Stop", &mine, "Acct-Terminate-Cause = Admin-Reboot"])?;
    server.await_record(&["Acct-Status-Type = Accounting-Off", "NAS-Identifier = \"moon.lab.test\""])?;
    carol.stop()?;
    stock.must_return(place.world, "the end")
}

fn fails(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut server = FreeRadius::start(place.world, place.results, ("alice", ALICE), &users())?;
    // Nobody is there.
    let nobody = "10.1.0.99";
    let mut moon = moon(place, &[nobody, ALICE])?;
    moon.start()?;
    let stock = Residue::of(place.world, "moon")?;
    steps.begin("the first server is down, the second lets in");
    let mut good = carol(place, "eap-mschapv2", PASSWORD)?;
    good.start()?;
    come_up(place, &good, &moon)?;
    if !log_text(&moon).contains("a RADIUS server is down") {
        bail!("the log does not say that the first server is down");
    }
    good.down()?;
    await_nothing(&moon, "after the end")?;
    good.stop()?;
    steps.begin("a wrong password");
    let mut wrong = carol(place, "eap-mschapv2", "guess")?;
    wrong.start()?;
    refused(&wrong, &moon, "refuses carol")?;
    wrong.stop()?;
    stock.must_return(place.world, "a refusal")?;
    steps.begin("both servers are down");
    server.stop();
    let mut good = carol(place, "eap-mschapv2", PASSWORD)?;
    good.start()?;
    let said = log_text(&moon).len();
    refused(&good, &moon, &format!("{ALICE}: "))?;
    let text = log_text(&moon).get(said..).unwrap_or_default().to_owned();
    let of_both = format!("{nobody} is down: ");
    let lines = text.lines().filter(|line| line.contains("EAP failed") && line.contains(&of_both));
    let down =
        text.lines().filter(|line| line.contains("a RADIUS server is down") && line.contains("Access"));
    if (lines.count(), down.count()) != (1, 1) {
        bail!("our log does not say once that both are down, and why: {text}");
    }
    steps.begin("and the next one is told at once");
    refused(&good, &moon, "is down: ")?;
    stock.must_return(place.world, "a refusal")?;
    steps.begin("when one is back, the next attempt finds it");
    let server = FreeRadius::start(place.world, place.results, ("alice", ALICE), &users())?;
    let back = process::until(Duration::from_secs(15), || {
        let text = log_text(&moon);
        let lines = text.lines().filter(|line| line.contains("a RADIUS server is back"));
        Ok(lines.filter(|line| line.contains("Access")).count().eq(&1).then_some(()))
    })?;
    back.context("our log does not say that the server is back")?;
    come_up(place, &good, &moon)?;
    good.down()?;
    await_nothing(&moon, "after the end")?;
    good.stop()?;
    stock.must_return(place.world, "the end")?;
    drop(server);
    moon.stop()
}

/// It does not come up; strongSwan is told so, our log says why, and nothing is left.
pub(super) fn refused(carol: &StrongSwan<'_>, moon: &Tussock<'_>, why: &str) -> Result<()> {
    let said = log_text(moon).len();
    if carol.up().is_ok() {
        bail!("it came up");
    }
    await_nothing(carol, "after the refusal")?;
    await_nothing(moon, "after the refusal")?;
    let text = log_text(carol);
    if !text.contains("EAP_FAILURE") && !text.contains("AUTHENTICATION_FAILED") {
        bail!("strongSwan was not told that it failed");
    }
    let text = log_text(moon);
    if !text.get(said..).unwrap_or_default().contains(why) {
        bail!("our log does not say `{why}`");
    }
    Ok(())
}

/// Our gateway shows whom it let in, how, and with what.
fn shown(moon: &Tussock<'_>, user: &str, how: &str) -> Result<()> {
    let sas = moon.json("sas")?;
    let word = |path: &str| sas.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (peer, by) = (word("/ike_sas/0/peer_id"), word("/ike_sas/0/how"));
    if peer != user || by != how {
        bail!("the peer is `{peer}` by `{by}`, and not `{user}` by `{how}`");
    }
    if word("/ike_sas/0/groups/0") != "staff" || word("/ike_sas/0/groups/1") != "lan" {
        bail!("the groups are not shown: {sas:#}");
    }
    let left = sas.pointer("/ike_sas/0/session_left").and_then(Value::as_u64).context("no session_left")?;
    if !(3000..=3600).contains(&left) {
        bail!("{left} s are left of an hour");
    }
    Ok(())
}

/// The session of the n-th record of a kind.
pub(super) fn session_id(server: &FreeRadius<'_>, kind: &str, n: usize) -> Result<String> {
    let found = process::until(Duration::from_secs(15), || {
        let records = server.records();
        let record = records.iter().filter(|record| record.contains(kind)).nth(n);
        let line = record
            .and_then(|record| record.lines().find_map(|l| l.trim().strip_prefix("Acct-Session-Id = ")));
        Ok(line.map(|id| id.trim_matches('"').to_owned()))
    })?;
    found.with_context(|| format!("no {} records of {kind}", n + 1))
}
