//! Lifetimes: keys change by themselves while traffic runs, and nothing is lost over it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::peer::{Peer, tunnel};
use crate::ping;
use crate::tussock::{NET, SITE, Tussock};
use crate::world::BOB;

pub const STORIES: &[Story] = &[
    Story::ours("lifetime-time", "Child SAs rekeyed every two seconds: no ping is lost", |p, s| {
        pinged(p, s, &[(NET, "rekey", "\"2s\"")], &[], Changes { ike: false, child: true })
    }),
    Story::ours(
        "lifetime-both",
        "both ends rekey at the same moment, over and over: no ping is lost",
        |p, s| {
            let often = [(NET, "rekey", "\"2s\""), (NET, "jitter", "0.0")];
            pinged(p, s, &often, &often, Changes { ike: false, child: true })
        },
    ),
    Story::ours("lifetime-packets", "Child SAs rekeyed every 200 packets: no ping is lost", |p, s| {
        pinged(p, s, &[(NET, "rekey_packets", "200")], &[], Changes { ike: false, child: true })
    }),
    Story::ours("lifetime-bytes", "Child SAs rekeyed every 16 MiB under TCP: the flow goes on", bytes),
    Story::ours("lifetime-ike", "IKE SAs rekeyed every two seconds: no ping is lost", |p, s| {
        pinged(p, s, &[(SITE, "ike_rekey", "\"2s\"")], &[], Changes { ike: true, child: false })
    }),
    Story::ours(
        "lifetime-ike-both",
        "both ends rekey the IKE SA at the same moment: no ping is lost",
        |p, s| {
            // After a collision the old SA waits two to four seconds for its end, so that the peer may still hear of it: these
            // live longer than that, or there would always be one that waits.
            let often = [(SITE, "ike_rekey", "\"5s\""), (SITE, "jitter", "0.0")];
            pinged_for(p, s, 2 * TIME, &often, &often, Changes { ike: true, child: false })
        },
    ),
    Story::ours(
        "lifetime-reauth",
        "set up anew every two seconds, make before break: no ping is lost",
        |p, s| pinged(p, s, &[(SITE, "ike_reauth", "\"2s\"")], &[], Changes { ike: true, child: true }),
    ),
];

/// How long the traffic runs.
const TIME: Duration = Duration::from_secs(6);
/// How often keys have to change in that time, at least.
const OFTEN: usize = 2;

/// What the lifetimes of a story change.
struct Changes {
    ike: bool,
    child: bool,
}

type Keys = [(&'static str, &'static str, &'static str)];

/// A stream of pings, 200 a second, while keys change.
fn pinged(place: &Place<'_>, steps: &mut Steps, moons: &Keys, suns: &Keys, changes: Changes) -> Result<()> {
    pinged_for(place, steps, TIME, moons, suns, changes)
}

fn pinged_for(
    place: &Place<'_>,
    steps: &mut Steps,
    time: Duration,
    moons: &Keys,
    suns: &Keys,
    changes: Changes,
) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    for (end, keys) in [(&moon, moons), (&sun, suns)] {
        keys.iter().try_for_each(|(section, key, value)| end.set(section, key, value))?;
    }
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("keys change under pings");
    let log = place.results.join("ping.log");
    let stream = ping::Stream::every(place.world, "alice", BOB, Duration::from_millis(5), &log)?;
    let seen = watch(&moon, time)?;
    seen.check(&changes)?;
    steps.begin("no ping was lost");
    let answered = stream.finish();
    // Where one was lost says more than that it was.
    calm(&[&moon, &sun])?;
    let answered = answered?;
    if answered < 500 {
        bail!("only {answered} pings in {} s", time.as_secs());
    }
    place.pings()?;
    steps.begin("no SA piled up");
    must_settle(&[&moon, &sun])
}

fn bytes(place: &Place<'_>, steps: &mut Steps) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    moon.set(NET, "rekey_bytes", "\"16MiB\"")?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("keys change under TCP");
    let flow = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let seen = watch(&moon, TIME)?;
    let carried = flow.finish()?;
    seen.check(&Changes { ike: false, child: true })?;
    if carried.longest_gap > Duration::from_secs(1) {
        bail!("the flow stood still: {carried:?}");
    }
    place.pings()?;
    steps.begin("no SA piled up");
    must_settle(&[&moon, &sun])
}

/// The SAs seen in some time.
#[derive(Debug)]
struct Seen {
    ike: BTreeSet<String>,
    child: BTreeSet<String>,
}

fn watch(end: &Tussock<'_>, time: Duration) -> Result<Seen> {
    let mut seen = Seen { ike: BTreeSet::new(), child: BTreeSet::new() };
    let until = Instant::now() + time;
    while Instant::now() < until {
        for sa in end.sas()? {
            seen.child.extend(sa.children.iter().map(|child| child.spis.0.clone()));
            seen.ike.insert(sa.spis.0);
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    Ok(seen)
}

impl Seen {
    fn check(&self, changes: &Changes) -> Result<()> {
        for (what, seen, should) in [("IKE", &self.ike, changes.ike), ("Child", &self.child, changes.child)] {
            let right = if should { seen.len() > OFTEN } else { seen.len() == 1 };
            if !right {
                bail!("{} {what} SAs: {seen:?}", seen.len());
            }
        }
        Ok(())
    }
}

/// Nothing was dropped that a peer in order would not have sent.
fn calm(ends: &[&Tussock<'_>]) -> Result<()> {
    for end in ends {
        let status = end.json("status")?;
        let drops = status.get("drops").and_then(Value::as_object).context("no drops in the status")?;
        // The kernel's own multicast into a TUN device fits no policy, and on a busy machine a response may come when its
        // request was sent again already: then two come.
        let fine = ["no_policy", "ike: response nobody waits for"];
        let odd = drops
            .iter()
            .find(|(reason, count)| !fine.contains(&reason.as_str()) && count.as_u64() != Some(0));
        if let Some((reason, count)) = odd {
            bail!("{} dropped {count} packets: {reason}", end.maker());
        }
    }
    Ok(())
}

/// Old SAs are gone in the end.
fn must_settle(ends: &[&Tussock<'_>]) -> Result<()> {
    for end in ends {
        let settled = crate::process::until(Duration::from_secs(5), || {
            let (all, one) = (end.sas()?, tunnel(*end)?);
            Ok((one.is_some() && all.len() == 1).then_some(()))
        })?;
        settled.with_context(|| format!("{} has {:?}", end.maker(), end.sas()))?;
    }
    Ok(())
}
