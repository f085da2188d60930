//! Suites that strongSwan's user-space ESP, or its plugins of this release, do not have.

use anyhow::{Context, Result, bail};

use super::{Place, Story, agree};
use crate::interop::course::Steps;
use crate::peer::{Peer, await_nothing};
use crate::tussock::{NET, SITE, quoted};

pub const STORIES: &[Story] = &[Story::ours(
    "suites",
    "suites that strongSwan does not have here: up, pings, rekeyed, one after the other",
    suites,
)];

/// IKE and ESP.
const SUITES: &[(&str, &str)] = &[
    ("aes128gcm16-prfsha256-x25519", "aes128ccm16"),
    ("aes256gcm12-prfsha384-ecp521", "aes256gcm12-ecp521"),
    ("aes256-sha512-x448", "aes128gmac-x448"),
    ("aes128-aesxcbc-modp4096", "null-sha256-modp4096"),
    ("aes128ctr-aescmac-x25519", "aes128-aesxcbc"),
    ("chacha20poly1305-prfaescmac-ecp384", "aes128ctr-aescmac"),
    ("aes256ccm16-prfsha512-ecp256", "aes256ccm8-ecp384"),
    ("aes192-sha384-modp6144", "aes192gmac"),
    ("aes192gcm8-prfsha1-modp8192", "aes256ctr-sha1-esn"),
    ("aes128ccm8-prfaesxcbc-ecp256", "null-aescmac-esn"),
];

fn suites(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let wire = place.wire("wire.pcap")?;
    sun.start()?;
    moon.start()?;
    for (ike, esp) in SUITES {
        steps.begin(format!("{ike} and {esp}"));
        for end in [&sun, &moon] {
            end.set(SITE, "ike", &format!("[{}]", quoted(ike)))?;
            end.set(NET, "esp", &format!("[{}]", quoted(esp)))?;
            end.order(&["reload"])?;
        }
        moon.up()?;
        let before = agree(&moon, &sun)?;
        let sas = moon.json("sas")?;
        let suite = |at: &str| sas.pointer(at).and_then(|suite| suite.as_str()).context("no suite");
        // The first child's keys come from the IKE SA's exchange, so its suite names no group.
        let has = (suite("/ike_sas/0/suite")?, suite("/ike_sas/0/children/0/suite")?);
        let group = |part: &&str| ["modp", "ecp", "x25519", "x448"].iter().any(|kind| part.starts_with(kind));
        let without_group: Vec<_> = esp.split('-').filter(|part| !group(part)).collect();
        if !is_same(has.0, ike) || has.1 != without_group.join("-") {
            bail!("the suites are {has:?}");
        }
        place.pings()?;
        moon.rekey_child()?;
        if agree(&moon, &sun)?.child == before.child {
            bail!("not rekeyed");
        }
        place.pings()?;
        moon.down()?;
        await_nothing(&sun, "after the end")?;
    }
    steps.begin("the wire saw IKE and ESP only");
    let seen = wire.finish()?;
    match seen.others.first() {
        Some(odd) => bail!("{} packets that are neither IKE nor ESP, the first: {odd}", seen.others.len()),
        None => Ok(()),
    }
}

/// Whether a suite as shown, which names its PRF, is the one asked for, which may leave it to be implied.
fn is_same(shown: &str, asked: &str) -> bool {
    asked.split('-').all(|part| shown.split('-').any(|other| other == part))
}
