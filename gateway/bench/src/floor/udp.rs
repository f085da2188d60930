//! UDP from one namespace to another over a veth pair, both sockets on this thread: send some, then receive them. The pair
//! delivers inside the sender's system call, so sending holds the peer's way up to the socket as well.

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde_json::{Value, json};

use super::place::Place;
use crate::clock::{Effort, measure};
use crate::sys;

/// Packets a round.
const ROUND: usize = 64;

/// A row for plain datagrams and one for each batch length, for short and long packets.
pub fn table(place: &Place, effort: Effort, batches: &[usize]) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for octets in [64, 1400] {
        for batch in batches.iter().copied() {
            let [send, receive] = pair(place, effort, octets, batch)
                .with_context(|| format!("UDP, {batch} datagrams of {octets} octets"))?;
            rows.push(json!({ "octets": octets, "batch": batch, "send": send, "receive": receive }));
        }
    }
    Ok(rows)
}

fn pair(place: &Place, effort: Effort, octets: usize, batch: usize) -> Result<[f64; 2]> {
    let (from, to) = place.outside()?;
    if batch > 1 {
        sys::set_segment(&from, octets)?;
        sys::set_gro(&to)?;
    }
    let bytes = vec![0x5a; octets * batch];
    let mut buffer = vec![0; 1 << 16];
    let sends = (ROUND / batch).max(1);
    measure(effort, |laps| {
        laps.start();
        for _ in 0..sends {
            send(&from, &bytes, SendFlags::empty())?;
        }
        laps.lap(0);
        for _ in 0..sends {
            let len = receive(&to, &mut buffer, batch)?;
            ensure!(len == bytes.len(), "{len} octets of {} arrived", bytes.len());
        }
        laps.lap(1);
        Ok(sends * batch)
    })
}

/// Octets received, by the call that does it for least: only what was gathered comes with a length of its parts.
pub fn receive(socket: &UdpSocket, into: &mut [u8], batch: usize) -> Result<usize> {
    if batch == 1 {
        return Ok(recv(socket, into, RecvFlags::DONTWAIT)?.0);
    }
    Ok(sys::receive(socket, into)?.len)
}
