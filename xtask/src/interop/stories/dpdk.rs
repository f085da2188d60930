//! DPDK's software devices in moon: packets and key exchanges of a tunnel are done there, and a worker's software has nothing to do.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Place, Story};
use crate::checkout::{self, Profile};
use crate::inside::Flow;
use crate::interop::course::Steps;
use crate::packages::DPDK;
use crate::peer::Peer;
use crate::process;
use crate::tussock::{NET, SITE, Tussock};
use crate::world::{ALICE, BOB};

pub const STORIES: &[Story] = &[
    Story::ours(
        "dpdk-openssl",
        "the DPDK device crypto_openssl does the packets and the MODP key exchange of a tunnel, with ESN",
        |place, steps| carried(place, steps, "crypto_openssl", "aes256-sha256-esn", true),
    )
    .with(DPDK),
    Story::ours(
        "dpdk-aesni-mb",
        "the DPDK device crypto_aesni_mb does the packets of a tunnel, through a rekeying",
        |place, steps| carried(place, steps, "crypto_aesni_mb", "chacha20poly1305", false),
    )
    .with(DPDK),
];

const TIME: Duration = Duration::from_secs(3);
/// What moon calls the device.
const NAME: &str = "dpdk0";

fn carried(place: &Place<'_>, steps: &mut Steps, driver: &str, suite: &str, exchanges: bool) -> Result<()> {
    steps.begin("the gateway is built with DPDK");
    let binary = checkout::build_gateway_with("dpdk", Profile::Dev)?;
    let place = &Place { binary: &binary, ..*place };
    let (mut moon, mut sun) = place.sites()?;
    for end in [&moon, &sun] {
        end.set(NET, "esp", &format!("[\"{suite}\"]"))?;
        end.set(SITE, "ike", "[\"aes128-sha256-modp2048\"]")?;
    }
    moon.append(&format!("[accel.{NAME}]\ndriver = \"dpdk\"\nvdev = \"{driver}\""))?;
    moon.check()?;
    let before = place.begin(steps, &mut moon, &mut sun)?;
    steps.begin("traffic goes both ways");
    let there = Flow::begin(place.world, "alice", "bob", (BOB, 7000), TIME)?;
    let back = Flow::begin(place.world, "bob", "alice", (ALICE, 7001), TIME)?;
    std::thread::sleep(TIME / 3);
    moon.rekey_child()?;
    let (there, back) = (there.finish()?, back.finish()?);
    if there.octets < 1 << 20 || back.octets < 1 << 20 {
        bail!("{there:?} there, {back:?} back");
    }
    if super::agree(&moon, &sun)?.child == before.child {
        bail!("the Child SA is still the same");
    }
    steps.begin("the device has done it, and software nothing");
    let device = moon.device(NAME)?;
    let count = |path: &str| number(&device, path);
    if !said(&device, "/identity").contains(driver) || !said(&device, "/device/health").contains("ready") {
        bail!("moon says of the device {device:#}");
    }
    if count("/packets")? < 1000 || (count("/operations")? == 0) == exchanges {
        bail!("the device has carried {} packets: {device:#}", count("/packets")?);
    }
    if moon.device_count("soft", "/packets")? > 0 {
        bail!("software has carried packets");
    }
    steps.begin("nothing is left in a queue");
    let idle = process::until(2 * TIME, || Ok(is_idle(&moon)?.then_some(())))?;
    idle.with_context(|| format!("something is left: {:#}", moon.json("accel").unwrap_or_default()))?;
    place.pings()
}

fn number(device: &Value, path: &str) -> Result<u64> {
    device.pointer(path).and_then(Value::as_u64).with_context(|| format!("no {path} in {device:#}"))
}

fn said(device: &Value, path: &str) -> String {
    device.pointer(path).map(Value::to_string).unwrap_or_default()
}

fn is_idle(gateway: &Tussock<'_>) -> Result<bool> {
    let device = gateway.device(NAME)?;
    let queues = device.get("queues").and_then(Value::as_array).context("no queues")?;
    let counts = queues.iter().flat_map(|queue| [queue.get("in_flight"), queue.get("waiting")]);
    Ok(counts.flatten().all(|count| count.as_u64() == Some(0)))
}
