//! Outbound: a packet from an interface becomes an operation of a burst.
//!
//! 1. [`Esp::handle_inner`] reads the headers; a packet that is none is dropped.
//! 2. The flow cache says what to do; on a miss [`Esp::decide`] asks the SPD and the child once.
//! 3. `send` checks the mode's rules and the size; too large means ICMP, fragments, or DF clear outside ([`crate::mtu`]).
//! 4. `place` copies the packet, or each piece of a superpacket, behind the burst's last one: room for header and IV,
//!    payload, TFC padding, padding and trailer, room for the ICV. Sealed packets lie back to back, ready for UDP_SEGMENT.
//! 5. The burst is closed when it is full or flushed; [`crate::device`] takes it from there.

use std::time::Instant;

use spi::{Direction, EspOp, Token, esp::MAX_OPS};
use wire::esp::{NO_NEXT_HEADER, emit_trailer};
use wire::ip::{IPV6_LEN, IpHeader, clamp_mss, protocol, too_big};

use crate::counters::DropReason;
use crate::device::{Closed, Work};
use crate::ecn;
use crate::esp::{Esp, Inner, Offload};
use crate::flow::FlowKey;
use crate::mtu::{MIN_V6, fragment};
use crate::output::{Event, InnerPackets, MARK_DF, Output, Verdict};
use crate::packet::{fits_transport, inbound_key, outbound_key, quoted};
use crate::sa::{Action, ChildId, DfPolicy, Mode};
use crate::sad::{Common, OpenBurst, OutSa};
use crate::segment::{Cutter, finish_checksum};
use crate::seq::Notice;
use crate::spd::looks_at_ports;
use crate::timer::Due;

/// What a flow's packets are to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// This outbound SA.
    Send(Token),
    /// The worker that has an SA of this child for them.
    Elsewhere(ChildId, u16),
    /// Nothing: they pass in the clear.
    Bypass,
    /// The end.
    Discard,
}

/// How the pieces of a packet are to be sealed.
#[derive(Clone, Copy)]
struct Manner {
    next_header: u8,
    /// Outer ToS and DF.
    mark: u16,
    /// Octets the payload is filled up to.
    fill: usize,
}

/// Octets of a burst that leave in one send: the payload of a UDP datagram in IPv4. What a superpacket is more than that
/// shares a burst with the next one, if there is one.
const FULL: usize = 65_507;

/// Dummy packets are at least this long.
const DUMMY: [u8; 1500] = [0; 1500];

impl Esp {
    /// Takes a packet from the inner side. Call [`flush`](Esp::flush) when there is no more to read.
    pub fn handle_inner(&mut self, now: Instant, packet: Inner<'_>, out: &mut Output) -> Verdict {
        let Ok(header) = IpHeader::parse(packet.bytes) else { return self.refuse(DropReason::NotIp) };
        let packet = Inner { bytes: &packet.bytes[..header.total_len], ..packet };
        let key = outbound_key(&header, packet.iface);
        if let Some(decision) = self.flows.find(&key) {
            self.counters.flow_hits += 1;
            return self.carry_out(now, decision, packet, &header, out);
        }
        self.counters.flow_misses += 1;
        let (action, flow) = match self.spd.decide(&key) {
            Some(action) => (action, key),
            // RFC 4301 section 6.2: an ICMP error that no policy takes goes where the answers to the packet go that it
            // speaks about. Not remembered: one error's selectors say nothing about the next one's.
            None => match quoted(&header, packet.bytes).map(|about| inbound_key(&about, packet.iface)) {
                Some(about) => match self.spd.decide(&about) {
                    Some(action) => (action, about),
                    None => return self.refuse(DropReason::NoPolicy),
                },
                None => return self.refuse(DropReason::NoPolicy),
            },
        };
        let decision = match action {
            Action::Bypass => Decision::Bypass,
            Action::Discard => Decision::Discard,
            Action::Protect(child) => match self.sad.choose(child, &flow) {
                Some(token) => Decision::Send(token),
                None => match self.sad.lane_of(child, &flow) {
                    Some(lane) => Decision::Elsewhere(child, lane),
                    None => return self.acquire(now, child, &flow, packet, out),
                },
            },
        };
        if flow == key {
            self.flows.insert(&key, decision);
        }
        self.carry_out(now, decision, packet, &header, out)
    }

    /// What the SPD says of a packet with these selectors; `None`: no policy, discard.
    pub fn decide(&self, flow: &FlowKey) -> Option<Action> {
        self.spd.decide(flow)
    }

    /// Whether the SPD protects some packets to a host, from whomever and of whatever protocol. It looks at the whole SPD, and
    /// so answers no more than a hundred times a second.
    pub fn protects(&mut self, now: Instant, remote: std::net::IpAddr) -> bool {
        self.questions.allows(now) && self.spd.protects(remote)
    }

    /// Counts a drop that no SA is to blame for.
    pub(crate) fn refuse(&mut self, reason: DropReason) -> Verdict {
        self.counters.drops.add(reason, 1);
        Verdict::Dropped(reason)
    }

    fn carry_out(
        &mut self,
        now: Instant,
        decision: Decision,
        packet: Inner<'_>,
        header: &IpHeader,
        out: &mut Output,
    ) -> Verdict {
        let result = match decision {
            Decision::Send(token) => self.send(now, token, packet, header, out).map_err(|r| (token, r)),
            Decision::Elsewhere(child, lane) => {
                return match self.hand_over(now, child, lane, packet, out) {
                    Ok(()) => Verdict::Taken,
                    Err(reason) => self.refuse(reason),
                };
            }
            Decision::Bypass => {
                self.counters.bypassed += 1;
                return Verdict::Bypass;
            }
            Decision::Discard => return self.refuse(DropReason::Discard),
        };
        let Err((token, reason)) = result else { return Verdict::Taken };
        if let Some(sa) = self.sad.outbound.slot(token) {
            sa.common.drop(reason, 1);
        }
        self.refuse(reason)
    }

    fn send(
        &mut self,
        now: Instant,
        token: Token,
        packet: Inner<'_>,
        header: &IpHeader,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let sa = self.sad.outbound.peek(token).ok_or(DropReason::SaGone)?;
        let v4 = header.version() == 4;
        let tunnel = sa.common.mode.is_tunnel();
        // Octets of the packet that do not travel: in transport mode the IP header is the outer one's business.
        let cut = match (tunnel, v4) {
            (true, _) => 0,
            (false, true) => header.payload_offset,
            (false, false) => IPV6_LEN,
        };
        if !tunnel {
            // RFC 4303 section 3.3.4: transport mode is for whole datagrams.
            if header.is_fragment() {
                return Err(DropReason::FragmentInTransport);
            }
            if !fits_transport(header, packet.bytes) {
                return Err(DropReason::TransportHeader);
            }
        }
        let next_header = match (tunnel, v4) {
            (true, true) => protocol::IPV4,
            (true, false) => protocol::IPV6,
            (false, true) => header.protocol,
            (false, false) => packet.bytes.get(6).copied().ok_or(DropReason::NotIp)?,
        };
        let mut cutter = match packet.offload.segments {
            Some(segments) => {
                Some(Cutter::new(packet.bytes, header, segments).ok_or(DropReason::Segmentation)?)
            }
            None => None,
        };
        let longest = cutter.as_ref().map_or(header.total_len, Cutter::longest);
        let mut df = match sa.config.df {
            DfPolicy::Copy => header.df,
            DfPolicy::Set => true,
            DfPolicy::Clear => false,
        };
        if longest - cut > sa.max_payload {
            match oversize(sa, header, longest) {
                Oversize::Whole => df = false,
                Oversize::Fragment if cutter.is_some() => df = false,
                Oversize::Fragment => {
                    let mark = mark(sa, header, df);
                    return self.send_fragments(now, token, packet, header, mark, out);
                }
                Oversize::Tell => {
                    let mtu = sa.inner_mtu().max(if v4 { 0 } else { MIN_V6 });
                    self.tell_too_big(now, packet, header, mtu, out);
                    return Err(DropReason::TooBig);
                }
            }
        }
        let fill = if tunnel { usize::from(sa.config.tfc.unwrap_or(0)).min(sa.max_payload) } else { 0 };
        let manner = Manner { next_header, mark: mark(sa, header, df), fill };
        let (inner_mtu, at_once) = (sa.inner_mtu(), sa.config.at_once);
        if packet.critical {
            // It does not wait for what came before, nor take it along.
            self.close_outbound(now, token, false, out);
        }
        if let Some(cutter) = &mut cutter {
            let mut placed = Err(DropReason::Segmentation);
            while let Some((head, body)) = cutter.next() {
                placed = self.place(now, token, &head[cut..], body, manner, out);
                if placed.is_err() {
                    break;
                }
            }
            self.close_early(now, token, packet.critical, at_once, out);
            return placed;
        }
        self.place(now, token, &[], &packet.bytes[cut..], manner, out)?;
        if packet.offload.checksum.is_some() || is_syn(header, packet.bytes) {
            let clamp = self.config.clamp_mss.then_some(inner_mtu.min(self.config.device_mtu.into()));
            self.touch_up(token, packet.offload, header, cut, clamp);
        }
        self.close_early(now, token, packet.critical, at_once, out);
        Ok(())
    }

    /// Closes a burst that is not to wait for more packets.
    fn close_early(&mut self, now: Instant, token: Token, critical: bool, at_once: bool, out: &mut Output) {
        if critical || at_once {
            self.close_outbound(now, token, critical, out);
            out.hurry = true;
        }
    }

    /// Does to the packet placed last what can be done only in a copy of it.
    fn touch_up(
        &mut self,
        token: Token,
        offload: Offload,
        header: &IpHeader,
        cut: usize,
        clamp: Option<usize>,
    ) {
        let Some(sa) = self.sad.outbound.slot(token) else { return };
        let head = sa.common.framing.head();
        let Some(open) = &mut sa.open else { return };
        let (bytes, ops) = open.buf.split_mut();
        let Some(op) = ops.last() else { return };
        let at = op.at as usize + head;
        let Some(plain) = bytes.get_mut(at..at + header.total_len - cut) else { return };
        if let Some((start, offset)) = offload.checksum
            && let Some(start) = usize::from(start).checked_sub(cut)
        {
            finish_checksum(plain, start, offset.into(), header.protocol);
        }
        // In transport mode the MSS is between the hosts and their path MTU; there is no IP header to read here either.
        if let (Some(mtu), 0) = (clamp, cut) {
            clamp_mss(plain, mss(mtu, header.version()));
        }
    }

    /// Copies one payload, in two pieces, to the end of the SA's burst.
    fn place(
        &mut self,
        now: Instant,
        token: Token,
        head: &[u8],
        body: &[u8],
        manner: Manner,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let len = head.len() + body.len();
        let sa = self.sad.outbound.slot(token).ok_or(DropReason::SaGone)?;
        if sa.common.usage.is_over() {
            return Err(DropReason::HardLimit);
        }
        let sealed = sa.common.framing.sealed(len.max(manner.fill));
        if sealed > usize::from(u16::MAX).min(self.config.pool.chunk_len()) {
            return Err(DropReason::TooBig);
        }
        let room = |open: &OpenBurst| {
            open.buf.ops().len() < MAX_OPS && open.at + sealed <= open.buf.capacity().min(FULL)
        };
        if sa.open.as_ref().is_none_or(|open| !room(open)) {
            self.begin_burst(now, token, out)?;
        }
        let sa = self.sad.outbound.slot(token).ok_or(DropReason::SaGone)?;
        let placed = sa.put(now, head, body, manner);
        let (child, spi, dir) = (sa.common.child, sa.common.spi, Direction::Seal);
        let notice = match placed {
            Ok(()) => sa.common.usage.notice(sa.seq.runs_out()),
            // RFC 4303 section 3.3.3: the SA ends before its numbers would start again.
            Err(DropReason::SequenceExhausted) => sa.common.usage.expire(),
            Err(_) => Notice::None,
        };
        match notice {
            Notice::None => {}
            Notice::Soft => out.events.push_back(Event::Rekey { child, spi, dir }),
            Notice::Hard => out.events.push_back(Event::Expired { child, spi, dir }),
        }
        placed
    }

    /// Closes the burst an outbound SA gathers, if there is one, and begins another.
    fn begin_burst(&mut self, now: Instant, token: Token, out: &mut Output) -> Result<(), DropReason> {
        if self.sad.outbound.peek(token).is_some_and(|sa| sa.open.is_some()) {
            self.close_outbound(now, token, false, out);
            // It leaves while it is in the cache.
            out.hurry = true;
        }
        let buf = self.config.pool.take().ok_or(DropReason::PoolDry)?;
        let sa = self.sad.outbound.slot(token).ok_or(DropReason::SaGone)?;
        sa.open = Some(OpenBurst { buf, at: 0 });
        if !std::mem::replace(&mut sa.common.listed, true) {
            self.open_outbound.push(token);
        }
        Ok(())
    }

    /// Closes the burst an outbound SA gathers.
    pub(crate) fn close_outbound(&mut self, now: Instant, token: Token, critical: bool, out: &mut Output) {
        let Some(sa) = self.sad.outbound.slot(token) else { return };
        let Some(open) = sa.open.take() else { return };
        let Common { device, share, .. } = sa.common;
        self.dispatch(now, Work::Seal(token), Closed { device, share, critical, buf: open.buf }, out);
    }

    /// Cuts a packet that may be cut into pieces that fit the SA's path.
    fn send_fragments(
        &mut self,
        now: Instant,
        token: Token,
        packet: Inner<'_>,
        header: &IpHeader,
        mark: u16,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let mtu = self.sad.outbound.peek(token).ok_or(DropReason::SaGone)?.max_payload;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(packet.bytes);
        if let Some((start, offset)) = packet.offload.checksum {
            finish_checksum(&mut scratch, start.into(), offset.into(), header.protocol);
        }
        self.counters.fragmented += 1;
        let manner = Manner { next_header: protocol::IPV4, mark, fill: 0 };
        let result = fragment(&scratch, header.payload_offset, mtu, |head, body| {
            self.place(now, token, head, body, manner, out)
        });
        self.scratch = scratch;
        result
    }

    /// Tells the sender of a packet what would have fitted, if that is allowed and was not done too often.
    fn tell_too_big(
        &mut self,
        now: Instant,
        packet: Inner<'_>,
        header: &IpHeader,
        mtu: usize,
        out: &mut Output,
    ) {
        if !self.icmp_rate.allows(now) {
            return;
        }
        let from = match header.version() {
            4 => self.config.icmp_v4.map(Into::into),
            _ => self.config.icmp_v6.map(Into::into),
        };
        let Some(icmp) = too_big(packet.bytes, mtu, from.unwrap_or(header.dst)) else { return };
        if let Some(ready) = self.packet_of_ours(packet.iface, &icmp) {
            self.counters.icmp += 1;
            out.inner.push_back(ready);
        }
    }

    fn packet_of_ours(&self, iface: u32, bytes: &[u8]) -> Option<InnerPackets> {
        let mut buf = self.config.pool.take()?;
        buf.bytes_mut().get_mut(..bytes.len())?.copy_from_slice(bytes);
        let op = EspOp { outcome: spi::Outcome::Done, ..EspOp::new(0, bytes.len() as u16, 0) };
        buf.push_op(op).ok()?;
        Some(InnerPackets { iface, child: None, buf })
    }

    pub(crate) fn dummy_due(&mut self, now: Instant, token: Token, out: &mut Output) {
        let Some(sa) = self.sad.outbound.peek(token) else { return };
        let Some(every) = sa.config.dummy.filter(|e| !e.is_zero()) else { return };
        let wanted = usize::from(sa.config.tfc.unwrap_or(64));
        let len = wanted.min(sa.max_payload).min(DUMMY.len());
        let current =
            self.sad.children.get(&sa.common.child).is_some_and(|child| child.current == Some(token));
        if current {
            // RFC 4303 section 2.6: next header 59, contents of no importance.
            let manner = Manner { next_header: NO_NEXT_HEADER, mark: MARK_DF, fill: 0 };
            if self.place(now, token, &[], &DUMMY[..len], manner, out).is_ok() {
                self.counters.dummies_out += 1;
                self.close_outbound(now, token, false, out);
            }
        }
        self.timers.push(now + every, Due::Dummy(token));
    }
}

impl OutSa {
    /// Copies a payload behind the last one of the open burst, which has room for it.
    fn put(&mut self, now: Instant, head: &[u8], body: &[u8], manner: Manner) -> Result<(), DropReason> {
        if !self.seq.reserve() {
            return Err(DropReason::SequenceExhausted);
        }
        let framing = self.common.framing;
        let len = head.len() + body.len();
        let filled = len.max(manner.fill);
        let plain = framing.padded(filled);
        let Some(open) = &mut self.open else { return Err(DropReason::PoolDry) };
        let start = open.at + framing.head();
        let op = EspOp { mark: manner.mark, ..EspOp::new(open.at as u32, plain as u16, 0) };
        if start + plain > open.buf.capacity() || open.buf.push_op(op).is_err() {
            self.seq.release(1);
            return Err(DropReason::TooBig);
        }
        open.at += framing.sealed(filled);
        let room = &mut open.buf.bytes_mut()[start..start + plain];
        let (payload, rest) = room.split_at_mut(len);
        let (to_head, to_body) = payload.split_at_mut(head.len());
        to_head.copy_from_slice(head);
        to_body.copy_from_slice(body);
        // TFC padding; zeroed, since the buffer still holds somebody's packet.
        let (filling, trailer) = rest.split_at_mut(filled - len);
        filling.fill(0);
        emit_trailer(trailer, manner.next_header);
        self.common.last_used = Some(now);
        self.common.usage.count(len);
        Ok(())
    }
}

/// What is to be done with a packet that is too large.
enum Oversize {
    /// Seal it whole, DF clear outside.
    Whole,
    /// Cut it first.
    Fragment,
    /// Drop it and tell its sender.
    Tell,
}

fn oversize(sa: &OutSa, header: &IpHeader, len: usize) -> Oversize {
    let v4 = header.version() == 4;
    if sa.config.df == DfPolicy::Clear || !v4 && len <= MIN_V6 {
        return Oversize::Whole;
    }
    if !v4 || header.df {
        return Oversize::Tell;
    }
    let common = &sa.common;
    let pieces_pass = !looks_at_ports(&common.ts_local) && !looks_at_ports(&common.ts_remote);
    if matches!(common.mode, Mode::Tunnel { .. }) && pieces_pass {
        return Oversize::Fragment;
    }
    Oversize::Whole
}

fn mark(sa: &OutSa, header: &IpHeader, df: bool) -> u16 {
    let tos = ecn::encapsulate(header.tos, sa.config.dscp, sa.config.ecn);
    u16::from(tos) | if df { MARK_DF } else { 0 }
}

/// Whether a packet is a TCP segment that opens a connection.
pub(crate) fn is_syn(header: &IpHeader, packet: &[u8]) -> bool {
    header.protocol == protocol::TCP
        && header.fragment_offset == 0
        && packet.get(header.payload_offset + 13).is_some_and(|flags| flags & 2 != 0)
}

/// The TCP MSS that fills an MTU (RFC 9293 section 3.7.1).
pub(crate) fn mss(mtu: usize, version: u8) -> u16 {
    let headers = if version == 4 { 40 } else { 60 };
    mtu.saturating_sub(headers).clamp(1, u16::MAX.into()) as u16
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use spi::{Encr, Integ, Pool, SaId};
    use wire::TrafficSelector;

    use super::*;
    use crate::packet::tests::v4;
    use crate::{ChildId, Config, DscpPolicy, EcnPolicy, Limits, OutboundSa, UdpEncap};

    fn end(esn: bool) -> (Esp, Token) {
        let mut esp = Esp::new(Config::new(Pool::new(70_000, 4).unwrap()));
        esp.add_device(10);
        let socket = SocketAddr::new([192, 0, 2, 1].into(), 4500);
        let sa = OutboundSa {
            child: ChildId(1),
            spi: 0x1000,
            device: 0,
            sa: SaId { index: 0, epoch: 0 },
            encr: Encr::AES128_GCM16,
            integ: Integ::NONE,
            esn,
            mode: Mode::Tunnel { local: socket.ip(), remote: socket.ip() },
            encap: Some(UdpEncap { local: socket, remote: socket }),
            ts_local: vec![TrafficSelector::ANY_V4],
            ts_remote: vec![TrafficSelector::ANY_V4],
            iface: None,
            priority: 1,
            tfc: None,
            dummy: None,
            keepalive: None,
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            ecn: EcnPolicy::Copy,
            path_mtu: 1500,
            limits: Limits::default(),
            waits: false,
            at_once: false,
            share: None,
        };
        esp.install_outbound(sa, Instant::now()).unwrap();
        let token = esp.sad.find_outbound(ChildId(1), 0x1000).unwrap();
        (esp, token)
    }

    fn send(esp: &mut Esp, out: &mut Output) -> Verdict {
        let bytes = v4([10, 0, 0, 1], [10, 0, 0, 2], 17, &[0; 40]);
        esp.handle_inner(Instant::now(), Inner::new(0, &bytes, Offload::default()), out)
    }

    #[test]
    fn the_last_number_is_used_and_none_after_it() {
        for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
            let (mut esp, token) = end(esn);
            let mut out = Output::new();
            esp.sad.outbound.slot(token).unwrap().seq.set_last(last - 2);
            let verdicts: Vec<_> = (0..4).map(|_| send(&mut esp, &mut out)).collect();
            let refused = Verdict::Dropped(DropReason::SequenceExhausted);
            assert_eq!(verdicts, [Verdict::Taken, Verdict::Taken, refused, refused]);
            esp.flush(Instant::now(), &mut out);
            let numbers: Vec<_> = out.submit[0][0].buf.ops().iter().map(|op| op.seq).collect();
            assert_eq!(numbers, [last - 1, last]);
            let (child, spi, dir) = (ChildId(1), 0x1000, Direction::Seal);
            let told = [Event::Rekey { child, spi, dir }, Event::Expired { child, spi, dir }];
            assert_eq!(out.events, told, "each once");
        }
    }

    #[test]
    fn rekeying_is_asked_for_long_before_the_numbers_end() {
        let (mut esp, token) = end(false);
        let mut out = Output::new();
        esp.sad.outbound.slot(token).unwrap().seq.set_last(u64::from(u32::MAX) - (1 << 20) - 1);
        send(&mut esp, &mut out);
        assert!(out.events.is_empty());
        send(&mut esp, &mut out);
        assert_eq!(out.events.len(), 1);
    }

    #[test]
    fn a_packet_dropped_for_want_of_room_gives_its_number_back() {
        let (mut esp, token) = end(false);
        esp.config.waiting_bursts = 0;
        esp.set_room(0, 0);
        let mut out = Output::new();
        assert_eq!(send(&mut esp, &mut out), Verdict::Taken);
        esp.flush(Instant::now(), &mut out);
        assert_eq!(esp.counters.drops.of(DropReason::Backpressure), 1);
        esp.sad.outbound.slot(token).unwrap().seq.set_last(u64::from(u32::MAX) - 1);
        assert_eq!(send(&mut esp, &mut out), Verdict::Taken);
    }

    #[test]
    fn old_octets_of_a_buffer_never_leave_in_padding() {
        let (mut esp, token) = end(false);
        let mut bufs: Vec<_> = std::iter::from_fn(|| esp.config.pool.take()).collect();
        bufs.iter_mut().for_each(|b| b.bytes_mut().fill(0xee));
        drop(bufs);
        esp.sad.outbound.slot(token).unwrap().config.tfc = Some(600);
        let mut out = Output::new();
        send(&mut esp, &mut out);
        esp.flush(Instant::now(), &mut out);
        let burst = &out.submit[0][0];
        let op = burst.buf.ops()[0];
        let plain = &burst.buf.bytes()[16..16 + usize::from(op.len)];
        assert!(plain.len() >= 600 && !plain.contains(&0xee));
    }
}
