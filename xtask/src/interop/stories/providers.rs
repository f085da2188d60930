//! OpenSSL in moon: its default provider, one that pauses every job, and one that forgets to wake one.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Place, Story};
use crate::checkout::Profile;
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_tunnel, log_text};
use crate::process;
use crate::providers;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{Auth, End, KeyType};
use crate::tussock::Tussock;
use crate::world::{ALICE, BOB};

pub const STORIES: &[Story] = &[
    Story::ours(
        "openssl-default",
        "OpenSSL's default provider does the packets, the key exchange and the ECDSA signature of a tunnel",
        |place, steps| {
            interop(
                place,
                steps,
                KeyType::Ecdsa,
                ("aes256-sha256-modp3072", "aes256-sha256-modp3072"),
                &default,
            )
        },
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "openssl-pausing",
        "an OpenSSL provider that pauses every job does the packets, the key exchange and the RSA signature",
        |place, steps| {
            interop(
                place,
                steps,
                KeyType::Rsa,
                ("aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519"),
                &pausing,
            )
        },
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "openssl-delay",
        "a provider wakes jobs late, twice, or with an error: the traffic goes on, whole",
        |place, steps| {
            let plan = "[[fault]]\nkind = \"delay\"\nby = \"20ms\"\nservice = \"packet\"\nat = \"6s\"\ntimes = 50\n\n\
                        [[fault]]\nkind = \"doubled-completion\"\nat = \"6s\"\ntimes = 200\n\n\
                        [[fault]]\nkind = \"engine-error\"\nservice = \"packet\"\nat = \"7s\"\ntimes = 5\n";
            faulty(place, steps, plan, "refused")
        },
    ),
    Story::ours(
        "openssl-lost-wake",
        "a provider never wakes a job: its device is reset, and the traffic goes on, whole",
        |place, steps| {
            let plan = "[[fault]]\nkind = \"lost-completion\"\nservice = \"packet\"\nat = \"6s\"\n";
            faulty(place, steps, plan, "abandoned")
        },
    ),
];

/// How long flows go on around a fault. What goes wrong does so six seconds after the provider was loaded, when it has been tried
/// out and measured and is in use.
const TIME: Duration = Duration::from_secs(10);

fn default(_: &Place<'_>) -> Result<String> {
    Ok("[accel.ossl0]\ndriver = \"openssl\"\nprovider = \"default\"\n".into())
}

fn pausing(place: &Place<'_>) -> Result<String> {
    providers::section("ossl0", &providers::build(Profile::Dev)?, place.results, "300us", None)
}

/// A session with strongSwan with rekeyings, in which OpenSSL does all there is to do.
fn interop(
    place: &Place<'_>,
    steps: &mut Steps,
    key: KeyType,
    (ike, esp): (&str, &str),
    section: &dyn Fn(&Place<'_>) -> Result<String>,
) -> Result<()> {
    let with = |mut end: End| {
        (end.auth, end.peer_auth) = (Auth::Cert(key), Auth::Cert(key));
        (end.ike, end.esp) = (ike.to_owned(), esp.to_owned());
        end
    };
    let mut moon = place.tussock(&with(SITES.moon()))?;
    moon.append(&section(place)?)?;
    let mut sun = StrongSwan::new(place.world, with(SITES.far()), Release::Host, place.results)?;
    steps.begin("a session with strongSwan, with rekeyings");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let first = await_tunnel(&moon, "after coming up", |_| true)?;
    await_tunnel(&sun, "the same tunnel", |other| other.ike == first.ike)?;
    place.pings().with_context(|| state(&moon))?;
    moon.rekey_child()?;
    let second = await_tunnel(&moon, "after the Child rekey", |now| now.child != first.child)?;
    sun.rekey_ike()?;
    await_tunnel(&moon, "after the IKE rekey", |now| now.ike != second.ike)?;
    place.pings().with_context(|| state(&moon))?;
    steps.begin("OpenSSL has done the packets and the key exchanges, and software none");
    let (packets, operations) =
        (moon.device_count("ossl0", "/packets")?, moon.device_count("ossl0", "/operations")?);
    // Two exchanges that moon began, each with two operations, and one that sun did; and the pings of both networks.
    if packets < 4 || operations < 4 || moon.device_count("soft", "/packets")? > 0 {
        bail!("{packets} packets and {operations} operations: {:#}", moon.json("accel")?);
    }
    steps.begin("the key of the certificate is with OpenSSL, too");
    let log = log_text(&moon);
    if !log.lines().any(|line| line.contains("a private key is open") && line.contains("ossl0")) {
        bail!("no word of the private key in the log:\n{}", process::tail(moon.log(), 30));
    }
    steps.begin("`tussock accel` says which library and provider it is");
    let text = moon.order(&["accel"])?;
    if !text.contains("OpenSSL 3") && !text.contains("OpenSSL 4") || !text.contains("properties provider=") {
        bail!("it says:\n{text}");
    }
    moon.down()
}

/// Flows of both directions around a fault of the provider in moon.
fn faulty(place: &Place<'_>, steps: &mut Steps, plan: &str, counter: &str) -> Result<()> {
    let (mut moon, mut sun) = place.sites()?;
    let module = providers::build(Profile::Dev)?;
    moon.append(&providers::section(
        "ossl0",
        &module,
        place.results,
        "200us",
        Some(&format!("seed = 7\n\n{plan}")),
    )?)?;
    place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("traffic goes both ways");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
    let (there, back) = (there.finish()?, back.finish()?);
    steps.begin("it arrives, and is what was sent");
    if there.octets < 1 << 20 || back.octets < 1 << 20 {
        bail!("{there:?} there, {back:?} back");
    }
    steps.begin("the fault has happened, and the device is well");
    if moon.device_count("ossl0", &format!("/counters/{counter}"))? == 0 {
        bail!("none has; moon says {:#}", moon.device("ossl0")?);
    }
    let well = process::until(3 * TIME, || {
        let device = moon.device("ossl0")?;
        Ok((device.pointer("/device/health").is_some_and(|health| health == "ready")).then_some(()))
    })?;
    well.with_context(|| format!("it is not: {:#}", moon.device("ossl0").unwrap_or_default()))?;
    place.pings().with_context(|| state(&moon))
}

/// What moon dropped, and what it says of its device, for when something is missing.
fn state(moon: &Tussock<'_>) -> String {
    let drops = moon.json("status").map(|status| status["drops"].to_string());
    let counters = moon.device("ossl0").map(|device| device["counters"].to_string());
    format!("moon dropped {drops:?}; its device counts {counters:?}")
}
