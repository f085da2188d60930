//! Inbound: an ESP packet from a socket becomes a packet for an interface.
//!
//! 1. [`Esp::handle_outer`] finds the SA by SPI, checks the length its algorithms demand, and asks the replay window
//!    whether the number can be new ([`peek`](crate::replay::Window::peek)): cheap, before any cryptography.
//! 2. The packet joins the SA's burst; a run received in one piece becomes a burst where it lies.
//! 3. The device verifies and decrypts; [`Esp::on_done`] brings the burst back, and each packet is judged by `accept`:
//!    ICV, then the window **again** ([`commit`](crate::replay::Window::commit)), padding, next header, selectors
//!    (RFC 4301 section 5.2), ECN.
//! 4. What is left of the burst is delivered in the order of submission.

use std::net::SocketAddr;
use std::time::Instant;

use spi::{Direction, EspOp, Outcome, PacketBuf, Reject, Token, esp::MAX_OPS};
use wire::esp::{EspHeader, NO_NEXT_HEADER, TRAILER_LEN, Trailer};
use wire::ip::{IpHeader, Ports, clamp_mss, protocol};
use wire::natt::KEEPALIVE;

use crate::counters::DropReason;
use crate::device::{Back, Closed, Faults, Work, stale};
use crate::ecn;
use crate::esp::{Esp, Outer};
use crate::flow::FlowKey;
use crate::outbound::{is_syn, mss};
use crate::output::{Event, InnerPackets, Output};
use crate::packet::{inbound_key, outbound_key, quoted};
use crate::replay::Refused;
use crate::sa::{Action, ChildId, Encap, Mode, PeerMoves};
use crate::sad::{Common, InSa, OpenBurst};
use crate::seq::Notice;
use crate::transport;

impl Esp {
    /// Takes one ESP packet, from SPI to ICV, or a NAT keepalive; it is copied.
    pub fn handle_outer(&mut self, now: Instant, outer: &Outer, packet: &[u8], out: &mut Output) {
        // RFC 3948 section 2.3: a keepalive is looked at by nobody.
        if outer.encap == Encap::Udp && packet == KEEPALIVE {
            self.counters.keepalives_in += 1;
            return;
        }
        let Some((token, seq)) = self.admit(now, outer, packet, out) else { return };
        if let Err(reason) = self.gather(now, token, outer, packet, seq, out) {
            self.blame(token, reason);
        }
    }

    /// Takes a run of ESP packets received in one piece (UDP_GRO): the first `len` octets of `buf`, cut every `segment`
    /// octets. Packets of one tunnel mode SA are opened where they lie; others are copied.
    pub fn handle_outer_run(
        &mut self,
        now: Instant,
        outer: &Outer,
        mut buf: PacketBuf,
        len: usize,
        segment: usize,
        out: &mut Output,
    ) {
        let len = len.min(buf.capacity());
        let segment = if segment == 0 { len.max(1) } else { segment };
        buf.clear_ops();
        let Some(token) = self.one_sa(&buf.bytes()[..len], segment) else {
            for packet in buf.bytes()[..len].chunks(segment) {
                self.handle_outer(now, outer, packet, out);
            }
            return;
        };
        // What was gathered before goes first.
        self.close_inbound(now, token, out);
        for at in (0..len).step_by(segment) {
            let end = (at + segment).min(len);
            let packet = &buf.bytes()[at..end];
            let Some(sa) = self.sad.inbound.peek(token) else { return };
            let low = EspHeader::peek(packet).map_or(0, |header| header.seq);
            let op = judge(sa, low, packet.len())
                .map(|seq| EspOp { mark: outer.tos.into(), ..EspOp::new(at as u32, (end - at) as u16, seq) });
            // `one_sa` has seen to it that they are not too many.
            let pushed = op.and_then(|op| buf.push_op(op).map_err(|_| DropReason::Runt));
            if let Err(reason) = pushed {
                self.blame(token, reason);
            }
        }
        if let Some(sa) = self.sad.inbound.peek(token) {
            let Common { device, share, .. } = sa.common;
            self.dispatch(
                now,
                Work::Open(token, *outer),
                Closed { device, share, critical: false, buf },
                out,
            );
        }
    }

    /// Judges a packet that arrived in the clear: what policy wants protected may not come in unprotected
    /// (RFC 4301 section 5.2).
    ///
    /// # Errors
    /// Why it must be dropped; already counted.
    pub fn check_cleartext(&mut self, iface: u32, packet: &[u8]) -> Result<(), DropReason> {
        let verdict = match IpHeader::parse(packet) {
            Err(_) => Err(DropReason::NotIp),
            Ok(header) => match self.spd.decide(&inbound_key(&header, iface)) {
                Some(Action::Bypass) => Ok(()),
                Some(Action::Protect(_)) => Err(DropReason::CleartextProtected),
                Some(Action::Discard) => Err(DropReason::Discard),
                None => Err(DropReason::NoPolicy),
            },
        };
        if let Err(reason) = verdict {
            self.counters.drops.add(reason, 1);
        }
        verdict
    }

    /// The SA all packets of a run belong to, if it is one and takes packets where they lie.
    fn one_sa(&self, run: &[u8], segment: usize) -> Option<Token> {
        let mut packets = run.chunks(segment);
        let spi = EspHeader::peek(packets.next()?)?.spi;
        let same = packets.all(|p| EspHeader::peek(p).is_some_and(|h| h.spi == spi));
        let token = *self.sad.by_spi.get(&spi.0)?;
        let sa = self.sad.inbound.peek(token)?;
        let fits = same && run.len().div_ceil(segment) <= MAX_OPS && segment <= u16::MAX.into();
        (fits && sa.common.mode.is_tunnel()).then_some(token)
    }

    /// SPI, length and replay window: the SA and the full sequence number of a packet worth decrypting.
    fn admit(
        &mut self,
        now: Instant,
        outer: &Outer,
        packet: &[u8],
        out: &mut Output,
    ) -> Option<(Token, u64)> {
        let Some(header) = EspHeader::peek(packet) else {
            self.refuse(DropReason::Runt);
            return None;
        };
        if header.spi.is_reserved() {
            self.refuse(DropReason::SpiReserved);
            return None;
        }
        let Some(token) = self.sad.by_spi.get(&header.spi.0).copied() else {
            self.refuse(DropReason::UnknownSpi);
            if self.unknown_rate.allows(now) {
                out.events.push_back(Event::UnknownSpi { spi: header.spi.0, from: outer.from });
            }
            return None;
        };
        let sa = self.sad.inbound.peek(token)?;
        match judge(sa, header.seq, packet.len()) {
            Ok(seq) => Some((token, seq)),
            Err(reason) => {
                self.blame(token, reason);
                None
            }
        }
    }

    /// Copies a packet to the end of the SA's burst.
    fn gather(
        &mut self,
        now: Instant,
        token: Token,
        outer: &Outer,
        packet: &[u8],
        seq: u64,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let sa = self.sad.inbound.slot(token).ok_or(DropReason::SaGone)?;
        let gap = if sa.common.mode.is_tunnel() { 0 } else { transport::HEADROOM };
        let need = gap + packet.len();
        // A burst has one sender: the address is judged when its packets have been authenticated. The ToS octet is
        // each packet's own and travels in its mark.
        let other = sa.open.as_ref().is_some_and(|(o, from)| {
            from.from != outer.from
                || from.to != outer.to
                || from.encap != outer.encap
                || o.buf.ops().len() >= MAX_OPS
                || o.at + need > o.buf.capacity()
        });
        if other {
            self.close_inbound(now, token, out);
        }
        let sa = self.sad.inbound.slot(token).ok_or(DropReason::SaGone)?;
        if sa.open.is_none() {
            let buf = self.config.pool.take().ok_or(DropReason::PoolDry)?;
            sa.open = Some((OpenBurst { buf, at: 0 }, *outer));
            if !std::mem::replace(&mut sa.common.listed, true) {
                self.open_inbound.push(token);
            }
        }
        let Some((open, _)) = &mut sa.open else { return Err(DropReason::PoolDry) };
        let at = open.at + gap;
        let len = u16::try_from(packet.len()).map_err(|_| DropReason::TooBig)?;
        let room = open.buf.bytes_mut().get_mut(at..at + packet.len()).ok_or(DropReason::TooBig)?;
        room.copy_from_slice(packet);
        let op = EspOp { mark: outer.tos.into(), ..EspOp::new(at as u32, len, seq) };
        open.buf.push_op(op).map_err(|_| DropReason::TooBig)?;
        open.at = at + packet.len();
        Ok(())
    }

    /// Closes the burst an inbound SA gathers.
    pub(crate) fn close_inbound(&mut self, now: Instant, token: Token, out: &mut Output) {
        let Some(sa) = self.sad.inbound.slot(token) else { return };
        let Some((open, outer)) = sa.open.take() else { return };
        let Common { device, share, .. } = sa.common;
        self.dispatch(
            now,
            Work::Open(token, outer),
            Closed { device, share, critical: false, buf: open.buf },
            out,
        );
    }

    /// An opened burst is back.
    pub(crate) fn opened(
        &mut self,
        now: Instant,
        token: Token,
        outer: &Outer,
        back: &Back,
        mut buf: PacketBuf,
        out: &mut Output,
    ) {
        let Some(sa) = self.sad.inbound.slot(token) else {
            self.counters.drops.add(DropReason::SaGone, buf.ops().len() as u64);
            return;
        };
        let (child, spi, dir) = (sa.common.child, sa.common.spi, Direction::Open);
        let (share, count) = (sa.common.share, buf.ops().len() as u64);
        let mut faults = Faults::default();
        let mut seen = Seen { authentic: 0, newest: false, allowed: None };
        let clamp = (self.config.clamp_mss && sa.way_back > 0)
            .then(|| sa.way_back.min(self.config.device_mtu.into()));
        let (bytes, ops) = buf.split_mut();
        for op in ops {
            stale(&mut sa.common, op.outcome, back.home, dir, out);
            match accept(sa, bytes, op, &mut seen, clamp) {
                Ok(Delivery::Packet) => {
                    self.counters.opened += 1;
                    self.counters.opened_bytes += u64::from(op.len);
                }
                Ok(Delivery::Dummy) => {
                    self.counters.dummies_in += 1;
                    op.len = 0;
                }
                Err(reason) => {
                    self.counters.drops.add(reason, 1);
                    sa.common.drop(reason, 1);
                    faults.add(op.outcome);
                    op.len = 0;
                }
            }
        }
        match sa.common.usage.notice(false) {
            Notice::None => {}
            Notice::Soft => out.events.push_back(Event::Rekey { child, spi, dir }),
            Notice::Hard => out.events.push_back(Event::Expired { child, spi, dir }),
        }
        let packets = InnerPackets { iface: sa.iface, child: Some(child), buf };
        let released = sa.order.done(back.place, packets, now, self.config.reorder_hold, |p| {
            if !p.is_empty() {
                out.inner.push_back(p);
            }
        });
        self.counters.holes += released.holes;
        self.counters.late += u64::from(released.late);
        if faults != Faults::default() {
            self.note_faults(back.device, faults);
        }
        self.arm_order(dir, token);
        self.spend(share, count);
        if seen.authentic > 0 {
            self.heard(now, token, outer, seen.newest, out);
        }
    }

    /// The peer has shown itself on this SA.
    fn heard(&mut self, now: Instant, token: Token, outer: &Outer, newest: bool, out: &mut Output) {
        let Some(sa) = self.sad.inbound.slot(token) else { return };
        let (child, spi) = (sa.common.child, sa.common.spi);
        let first = sa.common.last_used.replace(now).is_none();
        if !std::mem::replace(&mut sa.heard, true) {
            self.heard.push(token);
        }
        let follow = (newest && has_moved(sa, outer.from, outer.encap)).then_some(sa.moves);
        let pair = sa.pair;
        if first {
            out.events.push_back(Event::FirstPacket { child, spi });
            if let Some(pair) = pair {
                self.use_outbound(child, pair);
            }
        }
        if let Some(moves) = follow {
            out.events.push_back(Event::Rebound { child, spi, from: outer.from });
            if moves == PeerMoves::Follow {
                self.follow(now, child, outer.from);
            }
        }
    }

    /// Sends a child's packets to where its peer's come from.
    fn follow(&mut self, now: Instant, child: ChildId, remote: SocketAddr) {
        let Some(entry) = self.sad.children.get(&child) else { return };
        let (outbound, inbound) = (entry.outbound.clone(), entry.inbound.clone());
        for token in inbound {
            if let Some(sa) = self.sad.inbound.slot(token) {
                sa.common.path.remote = remote;
                sa.reported = None;
            }
        }
        for token in outbound {
            let Some(path) = self.sad.outbound.peek(token).map(|sa| sa.common.path) else { continue };
            if path.encap == Encap::Udp {
                self.reroute(token, crate::sa::Path { remote, ..path }, now);
            }
        }
        self.sad.spread_mtu(child);
    }

    /// Counts a drop at its SA too.
    fn blame(&mut self, token: Token, reason: DropReason) {
        self.counters.drops.add(reason, 1);
        if let Some(sa) = self.sad.inbound.slot(token) {
            sa.common.drop(reason, 1);
        }
    }
}

/// What a burst's packets have shown.
struct Seen {
    /// Packets that were authenticated and new.
    authentic: usize,
    /// One of them was the highest so far: it was sent last, whatever came last.
    newest: bool,
    /// The last selectors that the SA was found to take.
    allowed: Option<FlowKey>,
}

enum Delivery {
    Packet,
    Dummy,
}

/// Whether a packet of this length and number is worth decrypting; the full number if so.
fn judge(sa: &InSa, low: u32, len: usize) -> Result<u64, DropReason> {
    let framing = &sa.common.framing;
    let around = framing.head() + framing.icv;
    let cipher = len.checked_sub(around).filter(|c| *c >= TRAILER_LEN).ok_or(DropReason::Runt)?;
    if !cipher.is_multiple_of(framing.block) {
        return Err(DropReason::Misaligned);
    }
    if sa.common.usage.is_over() {
        return Err(DropReason::HardLimit);
    }
    sa.replay.peek(low).map_err(|refused| match refused {
        Refused::Seen => DropReason::Replay,
        Refused::Stale => DropReason::Stale,
    })
}

/// Judges one opened packet, and makes its operation point at the IP packet to deliver.
fn accept(
    sa: &mut InSa,
    bytes: &mut [u8],
    op: &mut EspOp,
    seen: &mut Seen,
    clamp: Option<usize>,
) -> Result<Delivery, DropReason> {
    match op.outcome {
        Outcome::Done => {}
        Outcome::Rejected(Reject::BadIcv) => return Err(DropReason::BadIcv),
        Outcome::Rejected(_) => return Err(DropReason::Runt),
        Outcome::Failed(_) | Outcome::Pending => return Err(DropReason::DeviceFault),
    }
    let (at, len) = (op.at as usize, usize::from(op.len));
    let plain = bytes.get(at..at + len).ok_or(DropReason::DeviceFault)?;
    // RFC 4303 section 3.4.3: the window moves only now that the ICV has verified, and it is asked again: a twin may
    // have passed the first look while this one was in the device.
    let newest = sa.replay.commit(op.seq).map_err(|_| DropReason::ReplayTwin)?;
    seen.authentic += 1;
    seen.newest |= newest;
    let trailer = Trailer::parse(plain).map_err(|_| DropReason::BadTrailer)?;
    sa.common.usage.count(trailer.payload_len);
    if trailer.next_header == NO_NEXT_HEADER {
        return Ok(Delivery::Dummy);
    }
    let outer_tos = op.mark as u8;
    let start = match sa.common.mode {
        Mode::Tunnel { .. } => {
            let version = match trailer.next_header {
                protocol::IPV4 => 4,
                protocol::IPV6 => 6,
                _ => return Err(DropReason::BadNextHeader),
            };
            if plain[..trailer.payload_len].first().is_none_or(|first| first >> 4 != version) {
                return Err(DropReason::BadInner);
            }
            at
        }
        Mode::Transport { .. } => {
            let (len, next) = (trailer.payload_len, trailer.next_header);
            transport::rebuild(bytes, at, len, next, outer_tos, &sa.common.mode)
                .ok_or(DropReason::BadInner)?
        }
    };
    let end = at + trailer.payload_len;
    let packet = bytes.get_mut(start..end).ok_or(DropReason::BadInner)?;
    // What follows the inner packet's own length is TFC padding (RFC 4303 section 2.7).
    let header = IpHeader::parse(packet).map_err(|_| DropReason::BadInner)?;
    let packet = &mut packet[..header.total_len];
    // What was allowed a moment ago still is: most packets of a burst are of one flow.
    let key = inbound_key(&header, sa.iface);
    if seen.allowed != Some(key) {
        if !may_come(sa, &key, &header, packet) {
            return Err(DropReason::SelectorMismatch);
        }
        // An ICMP error is judged by what it quotes.
        seen.allowed = (!matches!(header.ports, Ports::Icmp(..))).then_some(key);
    }
    if sa.common.mode.is_tunnel() {
        // RFC 6040 section 4.2. In transport mode the field was never anything but the outer one.
        let ecn = ecn::decapsulate(header.tos, outer_tos).ok_or(DropReason::EcnViolation)?;
        if ecn != header.ecn() {
            ecn::set(packet, ecn);
        }
        if let Some(mtu) = clamp.filter(|_| is_syn(&header, packet)) {
            clamp_mss(packet, mss(mtu, header.version()));
        }
    }
    (op.at, op.len) = (start as u32, header.total_len as u16);
    Ok(Delivery::Packet)
}

/// RFC 4301 section 5.2: what comes out of an SA must be what the SA was negotiated for. ICMP errors may speak about a
/// packet that went the other way through it (section 6.2).
fn may_come(sa: &InSa, key: &FlowKey, header: &IpHeader, packet: &[u8]) -> bool {
    sa.common.selects(key)
        || quoted(header, packet).is_some_and(|about| sa.common.selects(&outbound_key(&about, sa.iface)))
}

/// Whether an authentic packet came from a new place; each new place is told once.
fn has_moved(sa: &mut InSa, from: SocketAddr, encap: Encap) -> bool {
    if encap != Encap::Udp || sa.common.path.encap != Encap::Udp || sa.common.path.remote == from {
        return false;
    }
    sa.reported.replace(from) != Some(from)
}
