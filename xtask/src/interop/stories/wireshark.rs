//! Our IKE messages read by Wireshark with the key log.

use std::fs;

use anyhow::{Result, bail};

use super::{Place, Story, tshark};
use crate::capture::Capture;
use crate::interop::course::Steps;
use crate::interop::scenario::SITES;
use crate::peer::{Peer, await_nothing, await_tunnel};
use crate::pki::shown;
use crate::strongswan::{Release, StrongSwan};
use crate::tunnel::{CHILD, REALM};
use crate::tussock::{GATEWAY, quoted};
use crate::world::BRIDGE;

pub const STORIES: &[Story] = &[
    Story::ours(
        "wireshark-cbc",
        "tshark decrypts our IKE messages with the key log: AES-CBC with HMAC-SHA2-256",
        |place, steps| wireshark(place, steps, "aes128-sha256-modp2048"),
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "wireshark-ctr",
        "tshark decrypts our IKE messages with the key log: AES-CTR with HMAC-SHA2-384",
        |place, steps| wireshark(place, steps, "aes256ctr-sha384-ecp256"),
    )
    .cast("tussock -> strongSwan"),
    Story::ours(
        "wireshark-gcm",
        "tshark decrypts our IKE messages with the key log: AES-GCM with a 16-octet ICV",
        |place, steps| wireshark(place, steps, "aes256gcm16-prfsha384-ecp384"),
    )
    .cast("tussock -> strongSwan"),
];

/// A session with rekeyings, captured, and every encrypted message read by tshark with the keys we logged.
fn wireshark(place: &Place<'_>, steps: &mut Steps, suite: &str) -> Result<()> {
    let (mut ours, mut theirs) = (SITES.moon(), SITES.far());
    for end in [&mut ours, &mut theirs] {
        suite.clone_into(&mut end.ike);
    }
    let home = place.results.join("tshark");
    let keys = home.join("wireshark");
    fs::create_dir_all(&keys)?;
    let mut moon = place.tussock(&ours)?;
    moon.set(GATEWAY, "keylog", &quoted(&shown(&keys)))?;
    let mut sun = StrongSwan::new(place.world, theirs, Release::Host, place.results)?;
    let file = place.results.join("wire.pcap");
    let capture = Capture::start(place.world, "inet", BRIDGE, &file, "")?;
    steps.begin("a session with rekeyings");
    sun.start()?;
    moon.start()?;
    moon.up()?;
    let first = await_tunnel(&moon, "after coming up", |_| true)?;
    place.pings()?;
    moon.order(&["rekey", &format!("{REALM}/{CHILD}")])?;
    let second = await_tunnel(&moon, "after the Child rekey", |now| now.child != first.child)?;
    sun.rekey_ike()?;
    await_tunnel(&moon, "after the IKE rekey", |now| now.ike != second.ike)?;
    place.pings()?;
    moon.down()?;
    await_nothing(&moon, "after the end")?;
    let seen = capture.finish()?;
    steps.begin("tshark reads all of it");
    let text = tshark(&file, &home, &["-V", "-Y", "isakmp"])?;
    fs::write(place.results.join("tshark.txt"), &text)?;
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    let decrypted = count("Decrypted Data (");
    // Two messages of IKE_SA_INIT are in clear.
    if decrypted + 2 != seen.ike {
        bail!("{} IKE messages, of which {decrypted} were decrypted", seen.ike);
    }
    let genuine =
        text.lines().filter(|line| line.contains("Integrity Checksum Data") && line.contains("[correct]"));
    let genuine = genuine.count();
    if genuine != decrypted {
        bail!("{decrypted} messages were decrypted, but the checksum of {genuine} is correct");
    }
    for bad in ["Malformed Packet", "[incorrect", "Bad: ", "Expert Info (Error"] {
        if count(bad) > 0 {
            bail!("tshark complains of \"{bad}\"; see tshark.txt");
        }
    }
    for part in
        ["Identification - Initiator", "Authentication (39)", "Traffic Selector - Initiator", "Delete (42)"]
    {
        if count(part) == 0 {
            bail!("tshark shows no \"{part}\"; see tshark.txt");
        }
    }
    Ok(())
}
