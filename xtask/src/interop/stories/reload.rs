//! The configuration read again.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::peer::await_nothing;
use crate::ping;
use crate::world::BOB;

pub const STORIES: &[Story] = &[Story::ours(
    "reload",
    "reload keeps tunnels whose realm did not change, and a broken file changes nothing",
    reload,
)];

fn reload(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (moon, sun) = place.pair(steps)?;
    let before = agree(&moon, &sun)?;
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("ping.log"))?;
    let stays = |what: &str| -> Result<()> {
        std::thread::sleep(Duration::from_millis(300));
        let now = agree(&moon, &sun)?;
        if now != before {
            bail!("{what}: the tunnel was {before:?} and is {now:?}");
        }
        Ok(())
    };
    steps.begin("a realm is added");
    moon.rewrite(|text| {
        let (_, realm) = text.split_once("[realm.site]").unwrap_or_default();
        let other = realm.replace("realm.site", "realm.other").replace("192.168.0.2", "192.168.0.99");
        format!("{text}\n[realm.other]{}", other.replace("10.2.0.0", "10.99.0.0"))
    })?;
    moon.order(&["reload"])?;
    stays("after a realm was added")?;
    if !moon.order(&["status", "--json"])?.contains("\"other\"") {
        bail!("the new realm is not there");
    }
    steps.begin("a broken file is refused with its line");
    let good = moon.text()?;
    moon.rewrite(|text| format!("{text}\nnonsense = 1\n"))?;
    match moon.order(&["reload"]) {
        Ok(_) => bail!("a broken file was accepted"),
        Err(error) if !format!("{error:#}").contains("gateway.toml:") => {
            return Err(error.context("the refusal names no line"));
        }
        Err(_) => {}
    }
    stays("after a broken file")?;
    steps.begin("the realm of the tunnel is removed");
    moon.rewrite(|_| good.clone())?;
    stream.finish()?;
    moon.rewrite(|text| {
        let start = text.find("[realm.site]").unwrap_or(0);
        let end = text.find("[realm.other]").unwrap_or(text.len());
        text.get(..start).unwrap_or_default().to_owned() + text.get(end..).unwrap_or_default()
    })?;
    moon.order(&["reload"])?;
    await_nothing(&moon, "after its realm was removed")?;
    await_nothing(&sun, "after moon's realm was removed")
}
