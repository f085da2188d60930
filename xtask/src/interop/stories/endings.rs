//! Killed and ended, ours and the peer: what is left, and what comes back.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{PATIENCE, Place, Story, agree};
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_nothing, await_tunnel, log_text};
use crate::ping;
use crate::process;
use crate::strongswan::{Release, StrongSwan};
use crate::tussock::{GATEWAY, SITE};
use crate::world::BOB;

/// How long a process may take to come back.
const COMEBACK: Duration = Duration::from_secs(10);

pub const STORIES: &[Story] = &[
    Story::ours(
        "killed",
        "killed with -9 it leaves no device and no route; started again it has its tunnel back",
        killed,
    ),
    Story::ours(
        "process-killed",
        "kill -9 of tussock-secure under traffic costs nothing, of tussock-gateway the time to come up again; nothing is left",
        process_killed,
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "peer-killed",
        "a peer killed with -9 is noticed, and the tunnel comes back when it is started again",
        peer_killed,
    ),
    Story::ours(
        "shutdown",
        "ended with SIGTERM it sends Deletes, and nothing is left on either side",
        shutdown,
    ),
];

fn killed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let [moon_before, sun_before] = place.stock()?;
    let (mut moon, mut sun) = place.pair(steps)?;
    steps.begin("moon is killed and leaves nothing");
    moon.kill();
    moon_before.without_rules().must_return(place.world, "after kill -9")?;
    steps.begin("moon is started again");
    moon.start()?;
    place.come_up(steps, &moon, &sun)?;
    steps.begin("sun has forgotten the old SAs");
    let left = sun.sas()?.len();
    if left != 1 {
        bail!("sun has {left} IKE SAs: {:?}", sun.sas()?);
    }
    steps.begin("both end, nothing is left");
    moon.stop()?;
    sun.stop()?;
    moon_before.must_return(place.world, "after the end")?;
    sun_before.must_return(place.world, "after the end")
}

fn process_killed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let stock = place.stock()?;
    let mut moon = place.tussock(&SITES.moon())?;
    moon.set(SITE, "start", "\"boot\"")?;
    let mut sun = StrongSwan::new(place.world, SITES.far(), Release::Host, place.results)?;
    steps.begin("a session");
    sun.start()?;
    moon.start()?;
    let first = await_tunnel(&moon, "after the start", |_| true)?;
    place.pings()?;
    let [gateway, secure] = moon.processes()?;

    steps.begin("tussock-secure is killed, and no packet is lost");
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("secure.ping"))?;
    process::run(Command::new("kill").args(["-9", &secure.to_string()]))?;
    let again = || Ok(log_text(&moon).contains("there is a key side again").then_some(()));
    process::until(COMEBACK, again)?.context("there is no key side again")?;
    let [same, other] = moon.processes()?;
    if same != gateway || other == secure {
        bail!("the gateway was {gateway} and is {same}; the key side was {secure} and is {other}");
    }
    moon.rekey_child()?;
    sun.rekey_ike()?;
    let rekeyed =
        await_tunnel(&moon, "after rekeying", |now| now.ike != first.ike && now.child != first.child)?;
    let answered = stream.finish()?;
    steps.begin(format!("{answered} pings were answered; the new one proves who we are"));
    moon.down()?;
    await_nothing(&sun, "after the end")?;
    moon.up()?;
    let second = await_tunnel(&moon, "once more", |now| now.ike != rekeyed.ike)?;
    place.pings()?;

    steps.begin("tussock-gateway is killed under traffic");
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("gateway.ping"))?;
    process::run(Command::new("kill").args(["-9", &gateway.to_string()]))?;
    let mut back = None;
    let again = || {
        back = moon.processes().ok().filter(|[pid, _]| *pid != gateway);
        Ok(back)
    };
    let [_, newest] = process::until(COMEBACK, again)?.context("there is no gateway again")?;
    if newest == other {
        bail!("the key side was not begun anew with the gateway");
    }
    steps.begin("the tunnel comes back by itself");
    let third = await_tunnel(&moon, "by itself", |now| now.ike != second.ike)?;
    await_tunnel(&sun, "the same tunnel, and no other", |other| other.ike == third.ike)?;
    ping::until_answered(place.world, "alice", BOB, COMEBACK)?;
    place.pings()?;
    let (answered, _) = stream.end()?;
    steps.begin(format!("{answered} pings were answered; both end, nothing is left"));
    moon.stop()?;
    await_nothing(&sun, "after moon's end")?;
    sun.stop()?;
    stock.iter().try_for_each(|before| before.must_return(place.world, "after the end"))
}

fn peer_killed(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let mut moon = place.tussock(&SITES.moon())?;
    let mut sun = place.tussock(&SITES.far())?;
    moon.set(GATEWAY, "retransmit", PATIENCE)?;
    moon.set(SITE, "dpd", "{ delay = \"1s\", action = \"restart\" }")?;
    steps.begin("both gateways start");
    sun.start()?;
    moon.start()?;
    let before = place.come_up(steps, &moon, &sun)?;
    steps.begin("sun is killed, which moon notices");
    sun.kill();
    let gone = process::until(Duration::from_secs(10), || {
        Ok((!moon.sas()?.iter().any(|sa| sa.spis == before.ike)).then_some(()))
    })?;
    gone.context("moon keeps an SA with a peer that is gone")?;
    steps.begin("sun is started again, and the tunnel comes back by itself");
    sun.start()?;
    let back = process::until(Duration::from_secs(20), || {
        Ok((!moon.sas()?.is_empty() && agree(&moon, &sun).is_ok()).then_some(()))
    })?;
    back.with_context(|| format!("no tunnel again: {:?}", moon.sas()))?;
    place.pings()
}

fn shutdown(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let [moon_before, sun_before] = place.stock()?;
    let (mut moon, mut sun) = place.pair(steps)?;
    steps.begin("moon is ended, and sun hears of it");
    moon.stop()?;
    await_nothing(&sun, "after moon's end")?;
    if !log_text(&sun).contains("deleted by the peer") {
        bail!("sun does not say that the peer deleted the SAs");
    }
    moon_before.must_return(place.world, "after SIGTERM")?;
    steps.begin("sun ends too");
    sun.stop()?;
    sun_before.must_return(place.world, "after SIGTERM")
}
