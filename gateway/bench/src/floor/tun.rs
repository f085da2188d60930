//! TUN devices by themselves: reading, where the packets came by a device that feeds them, and writing, where a route lets
//! them end at once.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::{read, write};
use serde_json::{Value, json};

use super::packet::{KINDS, Kind, VIRTIO};
use super::place::{NOWHERE, Place, Side, THROUGH};
use crate::clock::{Effort, measure};

/// Octets of a packet.
pub const PACKET: usize = 1400;
/// Packets a round; the device's queue holds 500.
const ROUND: usize = 64;

/// A row for single packets and one for each kind of superpacket.
pub fn table(place: &Place, effort: Effort, batch: usize) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    let single = KINDS.into_iter().filter(|kind| !kind.tcp && !kind.v6).map(|kind| (kind, false, 1));
    let many = KINDS.into_iter().map(|kind| (kind, true, batch));
    for (kind, superpackets, count) in single.chain(many) {
        let name = if superpackets { kind.name } else { "single" };
        let feeder = place.tun(Side::Left, "tun1", superpackets)?;
        let tun = place.tun(Side::Left, "tun0", superpackets)?;
        let read = reading(&feeder, &tun, effort, kind, superpackets, count)
            .with_context(|| format!("reading, {name}"))?;
        let write =
            writing(&tun, effort, kind, superpackets, count).with_context(|| format!("writing, {name}"))?;
        rows.push(json!({ "packets": name, "batch": count, "read": read, "write": write }));
    }
    Ok(rows)
}

fn reading(
    feeder: &OwnedFd,
    tun: &OwnedFd,
    effort: Effort,
    kind: Kind,
    superpackets: bool,
    count: usize,
) -> Result<f64> {
    let packet = kind.superpacket(THROUGH, PACKET, count);
    let bytes = if superpackets { &packet[..] } else { &packet[VIRTIO..] };
    let mut buffer = vec![0; 1 << 17];
    settle(|| {
        write(feeder, bytes)?;
        Ok(read(tun, &mut buffer).is_ok_and(|length| length == bytes.len()))
    })?;
    drain(tun, &mut buffer);
    let reads = (ROUND / count).max(1);
    let [time] = measure(effort, |laps| {
        for _ in 0..reads {
            write(feeder, bytes)?;
        }
        laps.start();
        for _ in 0..reads {
            // The kernel may have something of its own to say in between.
            while read(tun, &mut buffer)? != bytes.len() {}
        }
        laps.lap(0);
        Ok(reads * count)
    })?;
    Ok(time)
}

fn writing(tun: &OwnedFd, effort: Effort, kind: Kind, superpackets: bool, count: usize) -> Result<f64> {
    let packet = kind.superpacket(NOWHERE, PACKET, count);
    let bytes = if superpackets { &packet[..] } else { &packet[VIRTIO..] };
    let writes = (ROUND / count).max(1);
    let [time] = measure(effort, |laps| {
        laps.start();
        for _ in 0..writes {
            write(tun, bytes)?;
        }
        laps.lap(0);
        Ok(writes * count)
    })?;
    Ok(time)
}

/// Tries until a packet gets through: the kernel takes up to a second to notice that a device has somebody behind it.
pub fn settle(mut attempt: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    while !attempt()? {
        ensure!(Instant::now() < end, "no packet gets through");
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Takes out what the kernel itself has sent (router solicitations and the like).
pub fn drain(tun: &OwnedFd, buffer: &mut [u8]) {
    while read(tun, &mut *buffer).is_ok() {}
}
