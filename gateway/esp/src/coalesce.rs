//! Superpackets on the way in: packets of one flow that follow each other are handed to the interface as one, with a
//! description of how to cut it (`struct virtio_net_hdr`). The kernel then walks its stack once for all of them.
//!
//! Joined is only what cutting gives back as it was: the same headers, numbers that follow each other, right checksums. What
//! the checksum of a packet said about its way to the peer's gateway would otherwise be lost. Nothing is copied: the first
//! packet's headers are changed where they lie, and of the others the payload stays where it is, be it in another burst.

use std::ops::Range;

use spi::{EspOp, Outcome};
use wire::ip::{IPV4_LEN, IPV6_LEN, Sum, checksum, protocol};

use crate::esp::{Offload, SegmentKind, Segments};
use crate::output::InnerPackets;

/// Flows that are gathered at the same time; another one ends the oldest.
const OPEN: usize = 8;
/// Packets in one train.
const MOST: usize = 64;
/// Octets of one train: what an IP length field can say.
const LONGEST: usize = 65_535;

/// Octets of a TCP header without options, and of a UDP header.
const TCP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// What the interface can cut again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joinable {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

/// Where a part of a train lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which of the bursts.
    pub burst: usize,
    /// Where in its buffer.
    pub range: Range<usize>,
}

/// Some packets as one: pieces of buffers to be written one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Train {
    /// The first packet, then the payload of each of the others.
    pub pieces: Vec<Piece>,
    /// How the kernel cuts it; nothing for a single packet.
    pub offload: Offload,
    /// Octets of IP and transport header.
    pub head: usize,
}

impl Train {
    /// The octets, piece by piece.
    pub fn octets<'b>(&self, bursts: &'b [InnerPackets]) -> impl Iterator<Item = &'b [u8]> {
        self.pieces.iter().filter_map(|piece| bursts.get(piece.burst)?.buf.bytes().get(piece.range.clone()))
    }
}

/// Makes trains. Keeps its memory from one time to the next.
#[derive(Default)]
pub struct Coalescer {
    trains: Vec<Train>,
    used: usize,
    open: Vec<Open>,
}

/// A train that more may be joined to.
struct Open {
    train: usize,
    flow: Flow,
    mask: [u8; HEADS],
    /// Octets of payload of each but the last.
    size: usize,
    /// Sequence number of what would follow (TCP), and the IPv4 identification of the last.
    next: u32,
    id: u16,
    octets: usize,
    /// Whether the first one's checksum was looked at.
    checked: bool,
    /// The last one wants to be delivered at once.
    pushed: bool,
    /// Nothing more may follow: the last one is shorter, or wants to be delivered.
    full: bool,
}

/// Where the headers of a packet lie.
#[derive(Clone, Copy)]
struct Flow {
    kind: SegmentKind,
    burst: usize,
    at: usize,
    /// Offset of the transport header, and octets of both.
    upper: usize,
    head: usize,
    len: usize,
}

impl Flow {
    fn packet<'b>(&self, bursts: &'b [InnerPackets]) -> &'b [u8] {
        bursts
            .get(self.burst)
            .and_then(|burst| burst.buf.bytes().get(self.at..self.at + self.len))
            .unwrap_or(&[])
    }
}

impl Coalescer {
    /// The packets of bursts for one interface as trains, in an order that keeps that of every flow. The headers of those that
    /// are joined are changed.
    pub fn join(&mut self, bursts: &mut [InnerPackets], can: Joinable) -> &[Train] {
        self.used = 0;
        self.open.clear();
        for burst in 0..bursts.len() {
            for op in 0..bursts[burst].buf.ops().len() {
                let EspOp { at, len, outcome, .. } = bursts[burst].buf.ops()[op];
                let range = at as usize..at as usize + usize::from(len);
                if len > 0 && outcome == Outcome::Done && range.end <= bursts[burst].buf.bytes().len() {
                    self.add(bursts, Piece { burst, range }, can);
                }
            }
        }
        self.close_all(bursts);
        &self.trains[..self.used]
    }

    fn add(&mut self, bursts: &mut [InnerPackets], piece: Piece, can: Joinable) {
        let packet = &bursts[piece.burst].buf.bytes()[piece.range.clone()];
        let flow = match flow(packet, piece.burst, piece.range.start) {
            Some(flow) if matches!(flow.kind, SegmentKind::Tcp) && can.tcp => flow,
            Some(flow) if matches!(flow.kind, SegmentKind::Udp) && can.udp => flow,
            // A fragment may be of any flow: what came before it goes before it.
            None if self.open.iter().any(|open| same_hosts(open.flow.packet(bursts), packet)) => {
                self.close_all(bursts);
                return self.single(piece);
            }
            _ => return self.single(piece),
        };
        // Most packets follow the one before them.
        if let Some(last) = self.open.len().checked_sub(1)
            && self.joins(bursts, last, packet, &flow)
        {
            return;
        }
        let begins = may_begin(packet, &flow).then(|| Open {
            train: 0,
            flow,
            mask: mask(packet, &flow),
            size: flow.len - flow.head,
            next: number(packet, &flow).wrapping_add((flow.len - flow.head) as u32),
            id: identification(packet),
            octets: flow.len,
            checked: false,
            pushed: wants_delivery(packet, &flow),
            full: wants_delivery(packet, &flow),
        });
        let place =
            self.open.iter().position(|open| same_flow(open.flow.packet(bursts), &open.flow, packet, &flow));
        if let Some(place) = place {
            if place + 1 < self.open.len() && self.joins(bursts, place, packet, &flow) {
                return;
            }
            self.close(bursts, place);
        }
        self.single(piece);
        if let Some(open) = begins {
            if self.open.len() == OPEN {
                self.close(bursts, 0);
            }
            self.open.push(Open { train: self.used - 1, ..open });
        }
    }

    /// Joins a packet to an open train of its flow, if it follows.
    fn joins(&mut self, bursts: &[InnerPackets], place: usize, packet: &[u8], flow: &Flow) -> bool {
        let open = &mut self.open[place];
        let train = &mut self.trains[open.train];
        let payload = flow.len - flow.head;
        let fits = !open.full
            && payload > 0
            && payload <= open.size
            && open.octets + payload <= LONGEST
            && train.pieces.len() < MOST;
        let first = open.flow.packet(bursts);
        let follows = fits
            && like(first, &open.flow, &open.mask, packet, flow)
            && follows(packet, open, flow)
            && (open.checked || right(first, &open.flow))
            && right(packet, flow);
        if !follows {
            return false;
        }
        open.checked = true;
        train.pieces.push(Piece { burst: flow.burst, range: flow.at + flow.head..flow.at + flow.len });
        open.octets += payload;
        open.next = open.next.wrapping_add(payload as u32);
        open.id = identification(packet);
        open.pushed = wants_delivery(packet, flow);
        open.full = payload < open.size || open.pushed;
        true
    }

    fn single(&mut self, piece: Piece) {
        if self.used == self.trains.len() {
            self.trains.push(Train::default());
        }
        let train = &mut self.trains[self.used];
        train.pieces.clear();
        train.pieces.push(piece);
        (train.offload, train.head) = (Offload::default(), 0);
        self.used += 1;
    }

    fn close(&mut self, bursts: &mut [InnerPackets], place: usize) {
        let open = self.open.remove(place);
        finish(bursts, &mut self.trains[open.train], &open);
    }

    fn close_all(&mut self, bursts: &mut [InnerPackets]) {
        for open in self.open.drain(..) {
            finish(bursts, &mut self.trains[open.train], &open);
        }
    }
}

/// Writes into the first packet's headers that it is all of them.
fn finish(bursts: &mut [InnerPackets], train: &mut Train, open: &Open) {
    if train.pieces.len() < 2 {
        return;
    }
    let Flow { kind, burst, at, upper, head, .. } = open.flow;
    let header = &mut bursts[burst].buf.bytes_mut()[at..at + head];
    let upper_len = open.octets - upper;
    if is_v4(header) {
        header[2..4].copy_from_slice(&(open.octets as u16).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&header[..IPV4_LEN]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        header[4..6].copy_from_slice(&((open.octets - IPV6_LEN) as u16).to_be_bytes());
    }
    let sum_at = match kind {
        SegmentKind::Tcp => {
            // Cutting gives it to the last one only, which is where it was.
            header[upper + 13] |= if open.pushed { PSH } else { 0 };
            16
        }
        SegmentKind::Udp => {
            header[upper + 4..upper + 6].copy_from_slice(&(upper_len as u16).to_be_bytes());
            6
        }
    };
    // The kernel goes on from the sum of the pseudo header.
    let sum = !pseudo(header, kind, upper_len).finish();
    header[upper + sum_at..upper + sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    train.offload = Offload {
        checksum: Some((upper as u16, sum_at as u16)),
        segments: Some(Segments { kind, size: open.size as u16 }),
    };
    train.head = head;
}

/// Finds the headers of a whole TCP or UDP packet without IP options.
fn flow(packet: &[u8], burst: usize, at: usize) -> Option<Flow> {
    let len = packet.len();
    let (next, upper) = match packet.first()? {
        // More fragments, and the offset of this one.
        0x45 if len >= IPV4_LEN && packet[6] & 0x3f == 0 && packet[7] == 0 => (packet[9], IPV4_LEN),
        first if first >> 4 == 6 && len >= IPV6_LEN => (packet[6], IPV6_LEN),
        _ => return None,
    };
    let (kind, head) = match next {
        protocol::TCP => (SegmentKind::Tcp, upper + usize::from(packet.get(upper + 12)? >> 4) * 4),
        protocol::UDP => (SegmentKind::Udp, upper + UDP_LEN),
        _ => return None,
    };
    let least = upper + if kind == SegmentKind::Tcp { TCP_LEN } else { UDP_LEN };
    (least..=len).contains(&head).then_some(Flow { kind, burst, at, upper, head, len })
}

fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// Where both addresses stand.
fn hosts(packet: &[u8]) -> Range<usize> {
    if is_v4(packet) { 12..20 } else { 8..40 }
}

fn same_hosts(one: &[u8], other: &[u8]) -> bool {
    let range = hosts(one);
    is_v4(one) == is_v4(other) && one.get(range.clone()) == other.get(range)
}

fn same_flow(one: &[u8], flow: &Flow, other: &[u8], of_other: &Flow) -> bool {
    let ports = |flow: &Flow| flow.upper..flow.upper + 4;
    flow.kind == of_other.kind && one[ports(flow)] == other[ports(of_other)] && same_hosts(one, other)
}

/// Whether others may be joined to this one.
fn may_begin(packet: &[u8], flow: &Flow) -> bool {
    let plain = match flow.kind {
        SegmentKind::Tcp => packet[flow.upper + 13] & !PSH == ACK,
        SegmentKind::Udp => has_sum(packet, flow),
    };
    plain && flow.len > flow.head && flow.head <= HEADS
}

/// Octets of headers that are compared; longer ones are not joined.
const HEADS: usize = 128;

/// Which bits of the headers must be the same in all packets of a train: all but lengths, numbers, checksums and PSH.
fn mask(packet: &[u8], flow: &Flow) -> [u8; HEADS] {
    let mut mask = [0; HEADS];
    mask[..flow.head].fill(0xff);
    let network: &[(usize, usize)] = match is_v4(packet) {
        // Length, identification; checksum.
        true => &[(2, 6), (10, 12)],
        // Length.
        false => &[(4, 6)],
    };
    let transport: &[(usize, usize)] = match flow.kind {
        // Sequence number; checksum.
        SegmentKind::Tcp => &[(4, 8), (16, 18)],
        // Length, checksum.
        SegmentKind::Udp => &[(4, 8)],
    };
    network.iter().for_each(|(from, to)| mask[*from..*to].fill(0));
    transport.iter().for_each(|(from, to)| mask[flow.upper + from..flow.upper + to].fill(0));
    if flow.kind == SegmentKind::Tcp {
        mask[flow.upper + 13] = !PSH;
    }
    mask
}

/// Whether the headers of two packets differ only where they may.
fn like(one: &[u8], flow: &Flow, mask: &[u8; HEADS], other: &[u8], of_other: &Flow) -> bool {
    let (a, b) = (&one[..flow.head], &other[..of_other.head]);
    let differs = a.iter().zip(b).zip(mask).fold(0, |any, ((a, b), mask)| any | (a ^ b) & mask);
    a.len() == b.len() && differs == 0 && (of_other.kind == SegmentKind::Tcp || has_sum(b, of_other))
}

/// Whether a UDP datagram has a checksum, and a length that is its own.
fn has_sum(packet: &[u8], flow: &Flow) -> bool {
    let length = ((flow.len - flow.upper) as u16).to_be_bytes();
    packet[flow.upper + 4..flow.upper + 6] == length && packet[flow.upper + 6..flow.upper + 8] != [0, 0]
}

/// Whether a packet's numbers follow those of the train.
fn follows(packet: &[u8], open: &Open, flow: &Flow) -> bool {
    // With DF set the identification means nothing (RFC 6864 section 4.1), else cutting counts it up.
    let id = !is_v4(packet) || packet[6] & 0x40 != 0 || identification(packet) == open.id.wrapping_add(1);
    id && (flow.kind == SegmentKind::Udp || number(packet, flow) == open.next)
}

/// Whether the checksums are right.
fn right(packet: &[u8], flow: &Flow) -> bool {
    let header = !is_v4(packet) || checksum(&packet[..IPV4_LEN]) == 0;
    header && pseudo(packet, flow.kind, flow.len - flow.upper).octets(&packet[flow.upper..]).finish() == 0
}

fn pseudo(packet: &[u8], kind: SegmentKind, upper_len: usize) -> Sum {
    let protocol = if kind == SegmentKind::Tcp { protocol::TCP } else { protocol::UDP };
    Sum::new().octets(&packet[hosts(packet)]).word(protocol.into()).word(upper_len as u16)
}

fn number(packet: &[u8], flow: &Flow) -> u32 {
    let at = flow.upper + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn identification(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

/// Whether its sender wants it to be delivered without waiting for more.
fn wants_delivery(packet: &[u8], flow: &Flow) -> bool {
    flow.kind == SegmentKind::Tcp && packet[flow.upper + 13] & PSH != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spi::Pool;
    use wire::ip::IpHeader;

    use super::*;
    use crate::packet::tests::{v4, v6};
    use crate::segment::Cutter;

    const BOTH: Joinable = Joinable { tcp: true, udp: true };

    /// A burst of these packets.
    fn burst(packets: &[Vec<u8>]) -> InnerPackets {
        let mut buf = Pool::new(70_000, 1).unwrap().take().unwrap();
        let mut at = 0;
        for packet in packets {
            // As opened packets lie: with something between them.
            at += 24;
            buf.bytes_mut()[at..at + packet.len()].copy_from_slice(packet);
            let op = EspOp { outcome: Outcome::Done, ..EspOp::new(at as u32, packet.len() as u16, 0) };
            buf.push_op(op).unwrap();
            at += packet.len();
        }
        InnerPackets { iface: 0, child: None, buf }
    }

    /// What the kernel makes of it: every packet of every train.
    fn delivered(packets: &[Vec<u8>], can: Joinable) -> (usize, Vec<Vec<u8>>) {
        in_bursts(packets, packets.len().max(1), can)
    }

    /// The same, when they came in bursts of so many.
    fn in_bursts(packets: &[Vec<u8>], each: usize, can: Joinable) -> (usize, Vec<Vec<u8>>) {
        let mut bursts: Vec<_> = packets.chunks(each).map(burst).collect();
        let mut coalescer = Coalescer::default();
        let trains = coalescer.join(&mut bursts, can).to_vec();
        let mut all = Vec::new();
        for train in &trains {
            let whole: Vec<u8> = train.octets(&bursts).flatten().copied().collect();
            let Some(segments) = train.offload.segments else {
                all.push(whole);
                continue;
            };
            let header = IpHeader::parse(&whole).unwrap();
            assert_eq!(header.total_len, whole.len());
            let mut cutter = Cutter::new(&whole, &header, segments).unwrap();
            while let Some((head, body)) = cutter.next() {
                all.push([head, body].concat());
            }
        }
        (trains.len(), all)
    }

    /// Packets as a sender with these headers would cut `payload`.
    fn cut(first: &[u8], kind: SegmentKind, size: u16) -> Vec<Vec<u8>> {
        let header = IpHeader::parse(first).unwrap();
        let mut cutter = Cutter::new(first, &header, Segments { kind, size }).unwrap();
        let mut all = Vec::new();
        while let Some((head, body)) = cutter.next() {
            all.push([head, body].concat());
        }
        all
    }

    fn tcp(port: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut tcp = vec![0, port, 0, 80, 0xff, 0xff, 0xff, 0, 1, 2, 3, 4, 0x80, flags, 9, 9, 0, 0, 0, 0];
        tcp.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]);
        tcp.extend((0..payload).map(|n| (n * 7) as u8));
        tcp
    }

    fn udp(port: u8, payload: usize) -> Vec<u8> {
        let mut udp = vec![0, port, 0, 53, 0, 0, 0, 0];
        udp.extend((0..payload).map(|n| (n * 3) as u8));
        udp
    }

    #[test]
    fn what_was_cut_is_one_again_and_the_kernel_cuts_it_as_it_was() {
        for (first, kind) in [
            (v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(1, ACK, 5000)), SegmentKind::Tcp),
            (v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(1, ACK | PSH, 4200)), SegmentKind::Tcp),
            (v6(1, 2, 6, &tcp(1, ACK, 5000)), SegmentKind::Tcp),
            (v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp(1, 5000)), SegmentKind::Udp),
            (v6(1, 2, 17, &udp(1, 4200)), SegmentKind::Udp),
        ] {
            let packets = cut(&first, kind, 1400);
            assert_eq!(delivered(&packets, BOTH), (1, packets.clone()));
            assert_eq!(in_bursts(&packets, 2, BOTH), (1, packets.clone()), "in bursts of two");
            assert_eq!(delivered(&packets, Joinable::default()), (packets.len(), packets));
        }
    }

    #[test]
    fn flows_among_each_other_are_joined_each_for_itself() {
        let one = cut(&v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(1, ACK, 3000)), SegmentKind::Tcp, 1000);
        let two = cut(&v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(2, ACK, 3000)), SegmentKind::Tcp, 1000);
        let mixed: Vec<_> = one.iter().zip(&two).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        let (trains, all) = delivered(&mixed, BOTH);
        assert_eq!((trains, all), (2, [one, two].concat()));
    }

    #[test]
    fn what_does_not_follow_begins_anew() {
        let packets = cut(&v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(1, ACK, 4000)), SegmentKind::Tcp, 1000);
        let change = |what: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = packets.clone();
            what(&mut changed[2]);
            let (trains, all) = delivered(&changed, BOTH);
            assert_eq!(all, changed, "whatever it is, it is delivered as it came");
            trains
        };
        assert_eq!(change(&|_| ()), 1);
        assert_eq!(change(&|p| p[60] ^= 1), 2 + 1, "a wrong checksum is not mended");
        assert_eq!(change(&|p| p[1] = 3), 3, "another ECN mark");
        assert_eq!(change(&|p| p[8] = 3), 3, "another TTL");
        assert_eq!(change(&|p| p[27] ^= 1), 3, "another number");
        assert_eq!(change(&|p| p[33] |= 0x40), 3, "a flag");
        assert_eq!(change(&|p| p[45] ^= 1), 3, "another timestamp");
    }

    #[test]
    fn a_first_packet_with_a_wrong_checksum_stays_alone() {
        let mut packets = cut(&v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &udp(1, 3000)), SegmentKind::Udp, 1000);
        packets[0][40] ^= 1;
        let (trains, all) = delivered(&packets, BOTH);
        assert_eq!((trains, all), (2, packets.clone()));
        let mut none = packets.clone();
        none.iter_mut().for_each(|packet| packet[26..28].fill(0));
        assert_eq!(delivered(&none, BOTH), (3, none.clone()), "no checksum, nothing to go by");
    }

    #[test]
    fn a_pushed_packet_ends_its_train() {
        let packets = cut(&v4([10, 0, 0, 1], [10, 0, 0, 2], 6, &tcp(1, ACK, 4000)), SegmentKind::Tcp, 1000);
        let mut pushed = packets.clone();
        pushed[1][33] |= PSH;
        let sum = u16::from_be_bytes([pushed[1][36], pushed[1][37]]);
        let mended = wire::ip::update_checksum(sum, 0x8010, 0x8018);
        pushed[1][36..38].copy_from_slice(&mended.to_be_bytes());
        assert_eq!(delivered(&pushed, BOTH), (2, pushed));
    }

    fn any_packet() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let payload = (0usize..4000, 1u16..1500);
        (payload, any::<bool>(), any::<bool>(), 0u8..3).prop_map(|((len, size), six, is_tcp, port)| {
            let (next, kind, body) = match is_tcp {
                true => (6, SegmentKind::Tcp, tcp(port, ACK, len)),
                false => (17, SegmentKind::Udp, udp(port, len)),
            };
            let first =
                if six { v6(1, 2, next, &body) } else { v4([10, 0, 0, 1], [10, 0, 0, 2], next, &body) };
            let size = size.max(100);
            if len == 0 { vec![first] } else { cut(&first, kind, size) }
        })
    }

    proptest! {
        #[test]
        fn every_packet_comes_out_as_it_went_in_and_flows_keep_their_order(
            runs in prop::collection::vec(any_packet(), 1..6),
            spoil in prop::collection::vec((any::<prop::sample::Index>(), 0usize..60), 0..4),
            udp in any::<bool>(),
            each in 1usize..64,
        ) {
            let mut packets: Vec<Vec<u8>> = runs.concat();
            packets.truncate(64);
            for (which, at) in spoil {
                let packet = which.get(&packets).clone();
                let place = packets.iter().position(|p| *p == packet).unwrap();
                let at = at.min(packet.len() - 1);
                // Lengths stay as they are: what is opened has been checked for those.
                if !(2..6).contains(&at) && at != 0 {
                    packets[place][at] ^= 0x10;
                }
            }
            let total: usize = packets.iter().map(|p| p.len() + 24).sum();
            prop_assume!(total < 70_000);
            let (_, all) = in_bursts(&packets, each, Joinable { tcp: true, udp });
            let by_flow = |list: &[Vec<u8>]| {
                let mut flows = std::collections::BTreeMap::<Vec<u8>, Vec<Vec<u8>>>::new();
                for packet in list {
                    let key = match flow(packet, 0, 0) {
                        Some(f) => [&packet[hosts(packet)], &packet[f.upper..f.upper + 4], &[f.upper as u8]].concat(),
                        None => vec![],
                    };
                    // Where DF is set the identification means nothing, and cutting gives another one.
                    let mut packet = packet.clone();
                    if key.len() == 13 && packet[6] & 0x40 != 0 && checksum(&packet[..20]) == 0 {
                        packet[4..6].fill(0);
                        packet[10..12].fill(0);
                    }
                    flows.entry(key).or_default().push(packet);
                }
                flows
            };
            prop_assert_eq!(by_flow(&all), by_flow(&packets));
        }
    }
}
