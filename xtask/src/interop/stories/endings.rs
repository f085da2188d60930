//! Killed and ended, ours and the peer: what is left, and what comes back.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{PATIENCE, Place, Story, agree};
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_nothing, log_text};
use crate::process;
use crate::tussock::{GATEWAY, SITE};

pub const STORIES: &[Story] = &[
    Story::ours(
        "killed",
        "killed with -9 it leaves no device and no route; started again it has its tunnel back",
        killed,
    ),
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
