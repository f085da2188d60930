//! Packets between the kernel and the data path.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use esp::{Encap, Event, Inner, InnerPackets, Offload, Outer, OuterPackets, Verdict};
use ike::EspSignal;
use spi::Direction;
use wire::TrafficSelector;
use wire::natt::{Datagram, KEEPALIVE, classify};

use super::{Worker, tap};
use crate::events::Notice;
use crate::io::outside::{IKE_PORT, NATT_PORT};
use crate::io::socket::Port;
use crate::io::sys::{Arrived, BATCH, Inbox, Outgoing, SendError};
use crate::io::system;
use crate::io::tun::Read;

/// Batches taken from one socket in one turn.
const BATCHES: usize = 4;
/// Packets taken from one TUN device in one turn.
const PACKETS: usize = 128;
/// Packets in one piece for UDP_SEGMENT, and their octets: what the kernel takes.
const MAX_SEGMENTS: usize = 64;
const MAX_OCTETS: usize = 65_000;
/// Octets of an IPv4 header at least.
const IPV4_MIN: usize = 20;

impl Worker {
    /// Takes what a socket has, up to a bound; true when there may be more.
    pub(super) fn receive(&mut self, now: Instant, place: usize) -> bool {
        // The inbox is lent out while its datagrams are handled.
        let mut inbox = std::mem::replace(&mut self.inbox, Inbox::new(0));
        let mut more = true;
        for _ in 0..BATCHES {
            let Some(socket) = self.outside.at(place) else { break };
            let (port, bound) = (socket.port(), socket.bound());
            match socket.receive(&mut inbox, BATCH) {
                Ok(count) => {
                    for (arrived, bytes) in inbox.datagrams() {
                        self.sort(now, port, bound, arrived, bytes);
                    }
                    self.pump(now);
                    if count < BATCH {
                        more = false;
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.inbox = inbox;
        self.learn_from_errors(place);
        more
    }

    fn sort(&mut self, now: Instant, port: Port, bound: SocketAddr, arrived: &Arrived, bytes: &[u8]) {
        let own = arrived.to.unwrap_or(bound.ip());
        match port {
            Port::Ike => self.ike_message(now, SocketAddr::new(own, IKE_PORT), arrived.from, bytes, false),
            Port::Natt => {
                let to = SocketAddr::new(own, NATT_PORT);
                let length = if arrived.segment == 0 { bytes.len().max(1) } else { arrived.segment };
                for datagram in bytes.chunks(length) {
                    match classify(datagram) {
                        Datagram::Keepalive => self.keepalives_in += 1,
                        Datagram::Ike(message) => self.ike_message(now, to, arrived.from, message, true),
                        Datagram::Esp(packet) => {
                            let outer = Outer { from: arrived.from, to, encap: Encap::Udp, tos: arrived.tos };
                            self.esp.handle_outer(now, &outer, packet, &mut self.out);
                        }
                        Datagram::Garbage => {}
                    }
                }
            }
            Port::Raw => {
                let Some(packet) = strip_ip(arrived.from.ip(), bytes) else { return };
                let plain = |address: IpAddr| SocketAddr::new(address, 0);
                let outer = Outer {
                    from: plain(arrived.from.ip()),
                    to: plain(own),
                    encap: Encap::Raw,
                    tos: arrived.tos,
                };
                self.esp.handle_outer(now, &outer, packet, &mut self.out);
            }
        }
    }

    fn ike_message(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
        natt: bool,
    ) {
        self.engine.handle_datagram(now, ike::Path { local, remote }, message, natt, &mut self.fx);
        self.carry_out(now);
    }

    /// Takes what a TUN device has, up to a bound; true when there may be more.
    pub(super) fn read_tun(&mut self, now: Instant, place: usize) -> bool {
        let mut buffer = std::mem::take(&mut self.tun_buffer);
        let (mut more, mut gone) = (true, false);
        for _ in 0..PACKETS {
            let packet = match self.tuns.get_mut(place).map_or(Read::Nothing, |tun| tun.read(&mut buffer)) {
                Read::Packet(packet) => packet,
                read => {
                    more = false;
                    gone = read == Read::Gone;
                    break;
                }
            };
            if self.tap.is_open() {
                self.tap.packet(tap::BEFORE, packet, "");
            }
            let inner = Inner { iface: place as u32, bytes: packet, offload: Offload::default() };
            if self.esp.handle_inner(now, inner, &mut self.out) == Verdict::Bypass {
                self.clear.send(packet);
            }
        }
        self.tun_buffer = buffer;
        self.pump(now);
        if gone {
            self.lose_tun(place);
        }
        more
    }

    /// Has the devices work until nothing moves, and hands out what is done.
    pub(super) fn pump(&mut self, now: Instant) {
        loop {
            self.esp.flush(now, &mut self.out);
            let moved = self.accel.pump_packets(now, &mut self.esp, &mut self.out);
            self.hand_out(now);
            if !moved {
                return;
            }
        }
    }

    fn hand_out(&mut self, now: Instant) {
        while let Some(packets) = self.out.outer.pop_front() {
            self.send(&packets);
        }
        while let Some(packets) = self.out.inner.pop_front() {
            self.deliver(&packets);
        }
        while let Some(path) = self.out.keepalives.pop_front() {
            if let Some(socket) = self.outside.pick(Port::Natt, path.local.ip()) {
                let from = Some(path.local.ip());
                let out = Outgoing { bytes: &KEEPALIVE, to: path.remote, from, tos: 0, segment: 0 };
                socket.send(std::slice::from_ref(&out), false);
            }
        }
        while let Some(event) = self.out.events.pop_front() {
            self.signal(now, event);
        }
    }

    /// Sends sealed packets, in runs as long as the kernel takes.
    fn send(&mut self, packets: &OuterPackets) {
        let port = match packets.path.encap {
            Encap::Udp => Port::Natt,
            Encap::Raw => Port::Raw,
        };
        let local = packets.path.local.ip();
        let Some(socket) = self.outside.pick(port, local) else { return };
        let most = if socket.cuts_segments() { MAX_SEGMENTS } else { 1 };
        let mut batch: Vec<Outgoing<'_>> = Vec::with_capacity(BATCH);
        let mut df = false;
        for run in packets.runs(most, MAX_OCTETS) {
            let Some(bytes) = packets.buf.bytes().get(run.range.clone()) else { continue };
            if run.df != df && !batch.is_empty() {
                socket.send(&batch, df);
                batch.clear();
            }
            df = run.df;
            let segment = if run.count > 1 { run.segment as u16 } else { 0 };
            batch.push(Outgoing { bytes, to: packets.path.remote, from: Some(local), tos: run.tos, segment });
        }
        if !batch.is_empty() {
            socket.send(&batch, df);
        }
        let errors: Vec<_> = socket.take_errors().collect();
        self.learn(errors);
    }

    fn deliver(&mut self, packets: &InnerPackets) {
        let captured = self.tap.is_open();
        for packet in packets.packets() {
            if captured {
                let names = packets.child.and_then(|line| self.book.names(line));
                let comment = names.map(|(realm, child)| format!("{realm}/{child}")).unwrap_or_default();
                self.tap.packet(tap::AFTER, packet, &comment);
            }
            if let Some(tun) = self.tuns.get_mut(packets.iface as usize) {
                tun.write(packet);
            }
        }
    }

    fn learn_from_errors(&mut self, place: usize) {
        let Some(socket) = self.outside.at(place) else { return };
        let errors: Vec<_> = socket.take_errors().collect();
        self.learn(errors);
    }

    /// Looks after a socket that is not read for now: an error that waits there would be reported without end.
    pub(super) fn leave_unread(&mut self, place: usize) {
        if let Some(socket) = self.outside.at(place) {
            socket.drain_errors();
        }
        self.learn_from_errors(place);
    }

    /// Errors that came back for what was sent. Anybody can make up an ICMP message, so all it may do is lower the MTU, and that
    /// only as far as the data path allows; that a port or host is unreachable is for liveness checks to find out (RFC 7296
    /// section 2.4).
    fn learn(&mut self, mut errors: Vec<SendError>) {
        // A storm of them says one thing many times, and each costs a look at all SAs.
        errors.sort_unstable_by_key(|error| (error.to.ip(), error.mtu, error.local));
        errors.dedup_by_key(|error| (error.to.ip(), error.mtu, error.local));
        for error in errors {
            let mtu = match error.mtu {
                Some(mtu) => mtu.min(u32::from(u16::MAX)) as u16,
                // Our own stack found it too long and did not say for what: it knows.
                None if error.errno == libc::EMSGSIZE && error.local => {
                    match system::way_to(error.to.ip(), self.settings.mark) {
                        Some(way) => way.mtu,
                        None => continue,
                    }
                }
                None => continue,
            };
            let views = self.esp.sas().filter(|view| view.path.remote.ip() == error.to.ip());
            let mut lines: Vec<esp::ChildId> = views.map(|view| view.child).collect();
            lines.sort_unstable();
            lines.dedup();
            tracing::debug!(peer = %error.to.ip(), mtu, local = error.local, "path MTU");
            for line in lines {
                self.esp.lower_mtu(line, mtu);
            }
        }
    }

    /// An event of the data path, in the engine's words.
    fn signal(&mut self, now: Instant, event: Event) {
        let signal = match event {
            Event::Acquire { child, flow } => {
                let Some((realm, name)) = self.book.names(child) else { return };
                let (realm, child) = (realm.into(), name.into());
                let one = |address: IpAddr, port: Option<u16>| {
                    let (first, last) = port.map_or((0, u16::MAX), |port| (port, port));
                    TrafficSelector::host(address).with_protocol(flow.protocol, first, last)
                };
                let local = one(flow.local, flow.local_port);
                let remote = one(flow.remote, flow.remote_port);
                EspSignal::Acquire { realm, child, local, remote }
            }
            // Keys are not kept here, so an SA the device forgot is replaced, not installed again.
            Event::Rekey { child, spi, dir } | Event::StaleSa { child, spi, dir } => {
                let Some(id) = self.pair_of(child, spi, dir) else { return };
                EspSignal::SoftLimit(id)
            }
            Event::Expired { child, spi, dir } => {
                let Some(id) = self.pair_of(child, spi, dir) else { return };
                EspSignal::HardLimit(id)
            }
            Event::FirstPacket { spi, .. } => {
                let Some(id) = self.book.by_spi_in(spi) else { return };
                EspSignal::PeerAlive(id)
            }
            Event::Rebound { spi, from, .. } => {
                let Some(id) = self.book.by_spi_in(spi) else { return };
                EspSignal::PeerMoved { child: id, remote: from }
            }
            Event::UnknownSpi { spi, from } => {
                let (spi, remote) = (format!("{spi:08x}"), from.to_string());
                return self.events.publish(Notice::UnknownSpi { spi, remote });
            }
            _ => return,
        };
        self.engine.handle_esp(now, signal, &mut self.fx);
        self.carry_out(now);
    }

    fn pair_of(&self, line: esp::ChildId, spi: u32, dir: Direction) -> Option<ike::ChildId> {
        match dir {
            Direction::Open => self.book.by_spi_in(spi),
            Direction::Seal => self.book.by_spi_out(line, spi),
        }
    }

    /// Traffic is a sign of life (RFC 7296 section 2.4).
    pub(super) fn tell_who_was_heard(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.heard_at, now);
        let heard = self
            .esp
            .sas()
            .filter(|view| view.dir == Direction::Open && view.last_used.is_some_and(|at| at > since));
        let heard: Vec<ike::ChildId> = heard.filter_map(|view| self.book.by_spi_in(view.spi)).collect();
        for id in heard {
            self.engine.handle_esp(now, EspSignal::PeerAlive(id), &mut self.fx);
        }
        self.carry_out(now);
    }
}

/// Raw IPv4 sockets deliver the IP header too, IPv6 ones do not (RFC 3542 section 3).
fn strip_ip(from: IpAddr, bytes: &[u8]) -> Option<&[u8]> {
    if from.is_ipv6() {
        return Some(bytes);
    }
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    bytes.get(header.max(IPV4_MIN)..)
}

#[cfg(test)]
mod tests {
    use super::strip_ip;

    #[test]
    fn raw_ipv4_packets_lose_their_header_options_included() {
        let v4 = "10.0.0.1".parse().unwrap();
        let mut packet = vec![0x46; 30];
        packet[24] = 9;
        assert_eq!(strip_ip(v4, &packet).map(|rest| (rest.len(), rest[0])), Some((6, 9)));
        assert_eq!(strip_ip(v4, &[0x45]), None);
        assert_eq!(strip_ip(v4, &[]), None);
        assert_eq!(strip_ip("::1".parse().unwrap(), &[1, 2]), Some(&[1, 2][..]));
    }
}
