//! The whole way of a packet through two gateways, on one thread, each phase with its own time:
//!
//! 1. a superpacket is read from the TUN device,
//! 2. cut into packets, each with its own headers and checksum, where ESP wants them,
//! 3. sealed,
//! 4. sent as one buffer that the kernel cuts into datagrams;
//! 5. gathered datagrams are received,
//! 6. opened,
//! 7. checked, and one header is made for all,
//! 8. written to the TUN device as one superpacket, payloads where they lie.
//!
//! No SA or policy is looked up, no window kept, nothing is counted: what no gateway can do without.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::{read, writev};
use rustix::net::{SendFlags, send};
use serde_json::{Value, json};
use spi::{Direction, Encr, EspOp, Integ, PacketBuf, Pool};

use super::crypto::{Engine, HEAD, ICV};
use super::packet::{VIRTIO, fold, segment_size, virtio_udp4};
use super::place::{Place, Side};
use super::tun::{PACKET, drain, settle};
use super::udp::receive;
use crate::clock::{Effort, Laps, measure};
use crate::sys::{self, sum};

/// Octets of IPv4 and UDP header.
pub const HEADERS: usize = 28;
/// Octets of payload of each packet.
pub const PAYLOAD: usize = PACKET - HEADERS;
/// RFC 4303 section 2.4: two octets of padding, their number, the next header (IPv4).
const TRAILER: [u8; 4] = [1, 2, 2, 4];
const TEXT: usize = PACKET + TRAILER.len();
/// A whole ESP packet.
pub const SEALED: usize = HEAD + TEXT + ICV;

/// Packets a round.
const ROUND: usize = 64;
/// Longest superpacket, in packets.
pub const LONGEST: usize = 44;

/// A row for each batch length.
pub fn table(place: &Place, effort: Effort, batches: &[usize]) -> Result<Vec<Value>> {
    let row = |batch: usize| -> Result<Value> {
        ensure!((1..=LONGEST).contains(&batch), "a superpacket has 1 to {LONGEST} packets");
        let times = Path::new(place, batch)?.measure(effort);
        let times = times.with_context(|| format!("the whole path, {batch} packets at a time"))?;
        let [read, split, seal, send, receive, open, coalesce, write] = times;
        Ok(json!({
            "batch": batch,
            "read": read, "split": split, "seal": seal, "send": send,
            "receive": receive, "open": open, "coalesce": coalesce, "write": write,
        }))
    };
    batches.iter().map(|batch| row(*batch)).collect()
}

struct Path {
    batch: usize,
    inner: (std::net::UdpSocket, std::net::UdpSocket),
    outer: (std::net::UdpSocket, std::net::UdpSocket),
    left: OwnedFd,
    right: OwnedFd,
    engine: Engine,
    /// One of each for every superpacket of a round.
    plain: Vec<Vec<u8>>,
    slabs: Vec<PacketBuf>,
    heads: Vec<[u8; VIRTIO + HEADERS]>,
    seq: u64,
}

impl Path {
    fn new(place: &Place, batch: usize) -> Result<Path> {
        let count = (ROUND / batch).max(1);
        let pool = Pool::new(LONGEST * SEALED, count)?;
        let (inner, outer) = (place.inside()?, place.outside()?);
        if batch > 1 {
            sys::set_segment(&inner.0, PAYLOAD)?;
            sys::set_gro(&inner.1)?;
            sys::set_segment(&outer.0, SEALED)?;
            sys::set_gro(&outer.1)?;
        }
        Ok(Path {
            batch,
            inner,
            outer,
            left: place.tun(Side::Left, "tun0", true)?,
            right: place.tun(Side::Right, "tun0", true)?,
            engine: Engine::new(Encr::AES128_GCM16, Integ::NONE)?,
            plain: vec![vec![0; 1 << 16]; count],
            slabs: std::iter::from_fn(|| pool.take()).collect(),
            heads: vec![[0; VIRTIO + HEADERS]; count],
            seq: 0,
        })
    }

    fn measure(mut self, effort: Effort) -> Result<[f64; 8]> {
        let payload = vec![0x5a; PAYLOAD * self.batch];
        let mut sink = vec![0; 1 << 16];
        let wanted = VIRTIO + HEADERS + payload.len();
        settle(|| {
            // An unready device refuses what is sent into it.
            send(&self.inner.0, &payload, SendFlags::empty()).ok();
            Ok(read(&self.left, &mut sink).is_ok_and(|length| length == wanted))
        })?;
        drain(&self.left, &mut sink);
        measure(effort, |laps| {
            for _ in &self.plain {
                send(&self.inner.0, &payload, SendFlags::empty())?;
            }
            laps.start();
            self.out(laps)?;
            self.back_in(laps)?;
            for _ in &self.plain {
                let arrived = sys::receive(&self.inner.1, &mut sink)?;
                ensure!(arrived.len == payload.len(), "{} octets of {} arrived", arrived.len, payload.len());
            }
            Ok(self.plain.len() * self.batch)
        })
    }

    fn out(&mut self, laps: &mut Laps<8>) -> Result<()> {
        let wanted = VIRTIO + HEADERS + PAYLOAD * self.batch;
        for plain in &mut self.plain {
            // The kernel may have something of its own to say in between.
            while read(&self.left, &mut plain[..])? != wanted {}
        }
        laps.lap(0);
        for (plain, slab) in self.plain.iter().zip(&mut self.slabs) {
            let plain = plain.get(..wanted).unwrap_or_default();
            split(plain, slab, &mut self.seq)?;
        }
        laps.lap(1);
        self.crypt(Direction::Seal)?;
        laps.lap(2);
        for slab in &self.slabs {
            let sealed = slab.bytes().get(..SEALED * self.batch).unwrap_or_default();
            send(&self.outer.0, sealed, SendFlags::empty())?;
        }
        laps.lap(3);
        Ok(())
    }

    fn back_in(&mut self, laps: &mut Laps<8>) -> Result<()> {
        for slab in &mut self.slabs {
            slab.clear_ops();
            let len = receive(&self.outer.1, slab.bytes_mut(), self.batch)?;
            ensure!(len == SEALED * self.batch, "{len} octets arrived");
            for n in 0..self.batch {
                let op = EspOp::new((n * SEALED) as u32, SEALED as u16, 0);
                slab.push_op(op).map_err(|_| anyhow!("too many packets"))?;
            }
        }
        laps.lap(4);
        self.crypt(Direction::Open)?;
        laps.lap(5);
        for (slab, head) in self.slabs.iter().zip(&mut self.heads) {
            *head = coalesce(slab).context("what was opened is not what was sealed")?;
        }
        laps.lap(6);
        for (slab, head) in self.slabs.iter().zip(&self.heads) {
            write_joined(&self.right, head, slab)?;
        }
        laps.lap(7);
        Ok(())
    }

    fn crypt(&mut self, dir: Direction) -> Result<()> {
        // Taken out and put back in the order they lie in.
        for _ in 0..self.slabs.len() {
            let slab = self.slabs.remove(0);
            self.slabs.push(self.engine.run(dir, slab)?);
        }
        Ok(())
    }
}

/// Cuts a superpacket of UDP over IPv4 into packets that lie as the SPI wants them for sealing.
pub fn split(superpacket: &[u8], slab: &mut PacketBuf, seq: &mut u64) -> Result<()> {
    let size = match segment_size(superpacket) {
        0 => PAYLOAD,
        size => size,
    };
    ensure!(size == PAYLOAD, "segments of {size} octets");
    let (head, payloads) = superpacket
        .get(VIRTIO..)
        .and_then(|packet| packet.split_first_chunk::<HEADERS>())
        .context("a short packet")?;
    slab.clear_ops();
    let id = u16::from_be_bytes([head[4], head[5]]);
    let mut head = *head;
    head[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    head[24..26].copy_from_slice(&((PACKET - 20) as u16).to_be_bytes());
    let pseudo = pseudo(&head);
    for (n, payload) in payloads.chunks_exact(PAYLOAD).enumerate() {
        head[4..6].copy_from_slice(&id.wrapping_add(n as u16).to_be_bytes());
        head[10..12].fill(0);
        let check = !fold(sum(&head[..20]));
        head[10..12].copy_from_slice(&check.to_ne_bytes());
        head[26..28].fill(0);
        let check = match !fold(pseudo + sum(&head[20..]) + sum(payload)) {
            // RFC 768: zero would mean that there is no checksum.
            0 => u16::MAX,
            check => check,
        };
        head[26..28].copy_from_slice(&check.to_ne_bytes());
        let at = n * SEALED;
        let text = slab.bytes_mut().get_mut(at + HEAD..at + HEAD + TEXT).context("too many packets")?;
        let (to_head, rest) = text.split_at_mut(HEADERS);
        let (to_payload, trailer) = rest.split_at_mut(PAYLOAD);
        to_head.copy_from_slice(&head);
        to_payload.copy_from_slice(payload);
        trailer.copy_from_slice(&TRAILER);
        *seq += 1;
        slab.push_op(EspOp::new(at as u32, TEXT as u16, *seq)).map_err(|_| anyhow!("too many packets"))?;
    }
    Ok(())
}

/// Writes a slab's packets as one superpacket: the header, and the payloads where they lie.
pub fn write_joined(tun: &OwnedFd, head: &[u8], slab: &PacketBuf) -> Result<()> {
    let count = slab.ops().len();
    let mut parts = [IoSlice::new(&[]); LONGEST + 1];
    parts[0] = IoSlice::new(head);
    for (n, part) in parts.iter_mut().skip(1).take(count).enumerate() {
        let from = n * SEALED + HEAD + HEADERS;
        *part = IoSlice::new(slab.bytes().get(from..from + PAYLOAD).unwrap_or_default());
    }
    writev(tun, parts.get(..=count).unwrap_or_default())?;
    Ok(())
}

/// The one header for all packets of a slab, if they are whole and of one flow.
pub fn coalesce(slab: &PacketBuf) -> Option<[u8; VIRTIO + HEADERS]> {
    let first: [u8; HEADERS] = *slab.op_bytes(0).first_chunk()?;
    let pseudo = pseudo(&first);
    let count = slab.ops().len();
    for n in 0..count {
        let packet = slab.op_bytes(n);
        let (packet, trailer) = packet.split_at_checked(PACKET)?;
        let (head, rest) = packet.split_at_checked(20)?;
        let same_flow = head[12..20] == first[12..20] && rest[..4] == first[20..24];
        let whole = fold(sum(head)) == u16::MAX && fold(pseudo + sum(rest)) == u16::MAX;
        if trailer != TRAILER || !same_flow || !whole {
            return None;
        }
    }
    let mut out = [0; VIRTIO + HEADERS];
    out[..VIRTIO].copy_from_slice(&virtio_udp4(count, PAYLOAD));
    let head = &mut out[VIRTIO..];
    head.copy_from_slice(&first);
    if count > 1 {
        head[2..4].copy_from_slice(&((HEADERS + PAYLOAD * count) as u16).to_be_bytes());
        head[10..12].fill(0);
        let check = !fold(sum(&head[..20]));
        head[10..12].copy_from_slice(&check.to_ne_bytes());
        head[24..26].copy_from_slice(&((8 + PAYLOAD * count) as u16).to_be_bytes());
        // The rest of the checksum is the kernel's.
        let open = fold(self::pseudo(head));
        head[26..28].copy_from_slice(&open.to_ne_bytes());
    }
    Some(out)
}

/// The pseudo header's part of a UDP checksum (RFC 768).
fn pseudo(head: &[u8]) -> u64 {
    sum(head.get(12..20).unwrap_or_default()) + sum(&[0, 17]) + sum(head.get(24..26).unwrap_or_default())
}
