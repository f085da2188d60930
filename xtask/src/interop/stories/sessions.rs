//! Sessions that FreeRADIUS let in, when the process that knows of them is killed, when other servers take the place of theirs, when
//! their time is over, and over TLS.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::radius::{PASSWORD, asking, by_udp, carol, come_up, moon, refused, session_id, users_for};
use super::{Place, Story};
use crate::freeradius::FreeRadius;
use crate::interop::course::Steps;
use crate::interop::residue::Residue;
use crate::packages;
use crate::peer::{Peer, await_nothing, log_text};
use crate::pki::{Pki, shown};
use crate::process;
use crate::strongswan::StrongSwan;
use crate::tunnel::KeyType;
use crate::tussock::{Tussock, quoted};
use crate::world::{ALICE, Layout, MOON_INSIDE};

pub const STORIES: &[Story] = &[
    Story::ours(
        "radius-restart",
        "the key side is killed, then the gateway: sessions go on or are closed in the books, and no record is lost",
        restart,
    )
    .on(Layout::Roadwarrior)
    .with(packages::RADIUS)
    .cast("strongSwan -> tussock, FreeRADIUS"),
    Story::ours("radius-reload", "another server by reload: the session goes on, the next one is the other's", reload)
        .on(Layout::Roadwarrior)
        .with(packages::RADIUS)
        .cast("strongSwan -> tussock, FreeRADIUS"),
    Story::ours(
        "radius-time",
        "Session-Timeout of a few seconds: the client is told that it is over, and so are the books",
        time_is_over,
    )
    .on(Layout::Roadwarrior)
    .with(packages::RADIUS)
    .cast("strongSwan -> tussock, FreeRADIUS"),
    Story::ours("radius-tls", "RadSec; a server with another name, or by another CA, is refused and why", over_tls)
        .on(Layout::Roadwarrior)
        .with(packages::RADIUS)
        .cast("strongSwan -> tussock, FreeRADIUS"),
];

/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// A second server's address beside alice's.
const OTHER: &str = "10.1.0.11";

fn caller<'a>(place: &Place<'a>) -> Result<StrongSwan<'a>> {
    let mut carol = carol(place, "eap-mschapv2", PASSWORD)?;
    carol.start()?;
    Ok(carol)
}

fn count(server: &FreeRadius<'_>, lines: &[&str]) -> usize {
    server.records().iter().filter(|record| lines.iter().all(|line| record.contains(line))).count()
}

/// One more record like this than there were.
fn await_another(server: &FreeRadius<'_>, lines: &[&str]) -> Result<()> {
    let before = count(server, lines);
    let more = process::until(PATIENCE, || Ok((count(server, lines) > before).then_some(())))?;
    more.with_context(|| format!("no more than {before} records with {lines:?}"))
}

fn restart(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let at = ("alice", ALICE);
    let mut server = FreeRadius::start(place.world, place.results, at, &users_for(3600))?;
    let stock = Residue::of(place.world, "moon")?;
    let mut moon = moon(place, &[ALICE])?;
    moon.start()?;
    let mut carol = caller(place)?;
    steps.begin("a session is in the books");
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 0)?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    server.await_record(&["Acct-Status-Type = Interim-Update", &mine])?;

    steps.begin("the key side is killed: the session goes on, in the books and for who wants it changed");
    moon.kill_key_side()?;
    await_another(&server, &["Acct-Status-Type = Interim-Update", &mine])?;
    let order = |kind: &str, more: &str, says: &str| {
        let said = server.order(&format!("{MOON_INSIDE}:3799"), kind, &format!("{mine}\n{more}"))?;
        if said.contains(says) { Ok(()) } else { bail!("radclient says {said}") }
    };
    order("coa", "Session-Timeout = 3600", "CoA-ACK")?;
    if count(&server, &["Acct-Status-Type = Accounting-On"]) != 1 {
        bail!("servers were told that all sessions are over");
    }

    steps.begin("no server, the session ends, the key side is killed: the record is there when a server is");
    server.stop();
    carol.down()?;
    await_nothing(&moon, "after the end")?;
    moon.kill_key_side()?;
    let mut server = FreeRadius::start(place.world, place.results, at, &users_for(3600))?;
    let stop = ["Acct-Status-Type = Stop", &mine];
    server.await_record(&[&stop[..], &["Acct-Terminate-Cause = User-Request"]].concat())?;

    steps.begin("a Disconnect-Request finds a session from before the key side was killed");
    come_up(place, &carol, &moon)?;
    let second = session_id(&server, "Acct-Status-Type = Start", 1)?;
    moon.kill_key_side()?;
    let said = server.order(
        &format!("{MOON_INSIDE}:3799"),
        "disconnect",
        &format!("Acct-Session-Id = \"{second}\"\nUser-Name = \"carol\""),
    )?;
    if !said.contains("Disconnect-ACK") {
        bail!("radclient says {said}");
    }
    await_nothing(&moon, "after the Disconnect-Request")?;
    await_nothing(&carol, "after the Disconnect-Request")?;
    let second = format!("Acct-Session-Id = \"{second}\"");
    server.await_record(&["Acct-Status-Type = Stop", &second, "Acct-Terminate-Cause = Admin-Reset"])?;

    steps.begin("the gateway itself is killed: the next one closes the session in the books, then begins");
    come_up(place, &carol, &moon)?;
    let third = session_id(&server, "Acct-Status-Type = Start", 2)?;
    let third = format!("Acct-Session-Id = \"{third}\"");
    let gateway = moon.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    rustix::process::kill_process(gateway.context("no gateway")?, rustix::process::Signal::KILL)?;
    server.await_record(&["Acct-Status-Type = Stop", &third, "Acct-Terminate-Cause = NAS-Reboot"])?;
    let begun = process::until(PATIENCE, || {
        Ok((count(&server, &["Acct-Status-Type = Accounting-On"]) == 2).then_some(()))
    })?;
    begun.context("the gateway that took its place is not in the books")?;
    for (mine, starts) in [(&mine, 1), (&second, 1), (&third, 1)] {
        let (started, stopped) =
            (count(&server, &["Type = Start", mine]), count(&server, &["Acct-Status-Type = Stop", mine]));
        if (started, stopped) != (starts, 1) {
            bail!("{mine} has {started} beginnings and {stopped} ends");
        }
    }
    carol.stop()?;
    moon.stop()?;
    server.stop();
    stock.must_return(place.world, "the end")
}

fn reload(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    place.world.net.ip("alice", &format!("addr add {OTHER}/16 dev eth0\n"))?;
    let mut first = FreeRadius::start(place.world, place.results, ("alice", ALICE), &users_for(3600))?;
    let other = FreeRadius::start(place.world, place.results, ("alice", OTHER), &users_for(3600))?;
    let mut moon = moon(place, &[ALICE])?;
    moon.start()?;
    let carol = caller(place)?;
    steps.begin("a session that the first server let in");
    come_up(place, &carol, &moon)?;
    let id = session_id(&first, "Acct-Status-Type = Start", 0)?;
    let mine = format!("Acct-Session-Id = \"{id}\"");

    steps.begin("another server takes its place by reload: the session is accounted for there");
    moon.rewrite(|text| text.replace(by_udp(ALICE).trim_end(), by_udp(OTHER).trim_end()))?;
    moon.order(&["reload"])?;
    other.await_record(&["Acct-Status-Type = Interim-Update", &mine])?;
    first.stop();
    let said = other.order(&format!("{MOON_INSIDE}:3799"), "disconnect", &mine)?;
    if !said.contains("Disconnect-ACK") {
        bail!("radclient says {said}");
    }
    await_nothing(&carol, "after the Disconnect-Request")?;
    other.await_record(&["Acct-Status-Type = Stop", &mine])?;

    steps.begin("and lets in the next one");
    come_up(place, &carol, &moon)?;
    other.await_record(&["Acct-Status-Type = Start", "User-Name = \"carol\""])?;
    carol.down()?;
    await_nothing(&moon, "after the end")?;

    steps.begin("no server at all by reload, and one again");
    moon.rewrite(|text| text.replace(by_udp(OTHER).trim_end(), ""))?;
    match moon.order(&["reload"]) {
        Ok(text) => bail!("[radius] without a server is taken: {text}"),
        Err(error) if format!("{error:#}").contains("has no server") => {}
        Err(error) => return Err(error),
    }
    come_up(place, &carol, &moon)?;
    Ok(())
}

fn time_is_over(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let server = FreeRadius::start(place.world, place.results, ("alice", ALICE), &users_for(4))?;
    let mut moon = moon(place, &[ALICE])?;
    moon.start()?;
    let stock = Residue::of(place.world, "moon")?;
    let mut carol = caller(place)?;
    steps.begin("a session of four seconds");
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 0)?;
    steps.begin("it ends by itself: the client gets a DELETE, the books say why");
    await_nothing(&moon, "after its time")?;
    await_nothing(&carol, "after its time")?;
    if !log_text(&carol).contains("received DELETE for IKE_SA") {
        bail!("strongSwan was not told that it is over");
    }
    if !log_text(&moon).contains("the time is over for which the peer was let in") {
        bail!("our log does not say that the session's time is over");
    }
    let mine = format!("Acct-Session-Id = \"{id}\"");
    let stop = server.await_record(&["Type = Stop", &mine, "Acct-Terminate-Cause = Session-Timeout"])?;
    let time = stop.lines().find_map(|line| line.trim().strip_prefix("Acct-Session-Time = "));
    if time.and_then(|time| time.parse().ok()).is_none_or(|time: u32| time < 3) {
        bail!("it took {time:?} seconds, says {stop}");
    }
    carol.stop()?;
    stock.must_return(place.world, "the end")
}

fn over_tls(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let at = ("alice", ALICE);
    // dave's certificate, so that it is not the gateway's own.
    let server = FreeRadius::start_radsec(place.world, place.results, at, &users_for(3600), "dave")?;
    let stock = Residue::of(place.world, "moon")?;
    let (pki, foreign) = (Pki::of(KeyType::Rsa)?, Pki::of(KeyType::Ecdsa)?);
    let told = |ca: &Pki, name: &str| {
        let file = |path| quoted(&shown(path));
        let (ca, cert, key) = (file(&ca.ca()), file(&pki.cert("moon")), file(&pki.key("moon")));
        let tls = format!("{{ server = \"{name}\", ca = [{ca}], cert = [{cert}], key = {key} }}");
        format!("[[radius.server]]\nname = \"{ALICE}\"\naddress = \"{ALICE}\"\ntls = {tls}\n")
    };
    let right = told(&pki, "dave.lab.test");
    let mut moon = asking(place)?;
    moon.append(&right)?;
    moon.start()?;
    let mut carol = caller(place)?;
    steps.begin("strongSwan is let in by a server that is spoken to over TLS, which keeps the books");
    come_up(place, &carol, &moon)?;
    let id = session_id(&server, "Acct-Status-Type = Start", 0)?;
    carol.down()?;
    await_nothing(&moon, "after the end")?;
    let mine = format!("Acct-Session-Id = \"{id}\"");
    server.await_record(&["Acct-Status-Type = Stop", &mine, "Acct-Terminate-Cause = User-Request"])?;
    for (what, wrong, says) in [
        ("another name", told(&pki, "radius.lab.test"), "not valid for name \"radius.lab.test\""),
        ("another CA", told(&foreign, "dave.lab.test"), "no CA of `ca` has issued it"),
    ] {
        steps.begin(format!("a server with a certificate for {what} is not believed"));
        change(&moon, &right, &wrong)?;
        refused(&carol, &moon, says)?;
        change(&moon, &wrong, &right)?;
    }
    steps.begin("and the right one again");
    come_up(place, &carol, &moon)?;
    carol.stop()?;
    moon.stop()?;
    stock.must_return(place.world, "the end")
}

fn change(moon: &Tussock<'_>, from: &str, to: &str) -> Result<()> {
    moon.rewrite(|text| text.replace(from.trim_end(), to.trim_end()))?;
    moon.order(&["reload"]).map(drop)
}
