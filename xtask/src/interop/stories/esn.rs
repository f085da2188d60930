//! Extended sequence numbers, which strongSwan's user-space ESP does not have.

use anyhow::{Context, Result, bail};

use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::peer::Peer;
use crate::ping;
use crate::tussock::NET;
use crate::world::BOB;

pub const STORIES: &[Story] = &[
    Story::ours(
        "esn-gcm",
        "extended sequence numbers with AES-GCM, through rekeyings by both ends",
        |p, s| esn(p, s, "aes128gcm16-esn"),
    ),
    Story::ours(
        "esn-cbc",
        "extended sequence numbers with AES-CBC and HMAC, through rekeyings by both ends",
        |p, s| esn(p, s, "aes256-sha512-esn"),
    ),
];

fn esn(place: &Place<'_>, steps: &mut Steps, suite: &str) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(NET, "esp", &format!("[\"{suite}\"]"))?;
    }
    let mut before = place.begin(steps, &mut moon, &mut sun)?;
    let stream = ping::Stream::start(place.world, "alice", BOB, &place.results.join("ping.log"))?;
    for end in [&moon, &sun] {
        steps.begin(format!("{} rekeys", end.maker()));
        let sas = end.json("sas")?;
        let has = sas.pointer("/ike_sas/0/children/0/suite").and_then(|suite| suite.as_str());
        if !has.context("no suite")?.ends_with("esn") {
            bail!("no extended sequence numbers: {has:?}");
        }
        end.rekey_child()?;
        let now = agree(&moon, &sun)?;
        if now.child == before.child {
            bail!("the Child SA is still the same: {now:?}");
        }
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    steps.begin("no ping was lost");
    stream.finish()?;
    place.pings()
}
