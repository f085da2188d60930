//! From the sockets to the data path.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use esp::{Encap, Outer};
use wire::natt::{Datagram, classify};

use super::order::{Report, raw_outer};
use super::{Plane, Ready};
use crate::dispatch::Class;
use crate::io::outside::NATT_PORT;
use crate::io::socket::Port;
use crate::io::sys::{Arrived, LANDINGS, SendError};
use crate::io::system;

/// Octets of an IPv4 header at least.
const IPV4_MIN: usize = 20;
/// A run that is opened where it lies has at least this many packets; shorter ones are copied into a common burst.
const RUN: usize = 4;
/// Words about the path MTU that are listened to in one second: each costs a look at all SAs, and anybody can make them up.
const MTU_WORDS: u32 = 16;

impl Plane {
    /// Takes what the readable sockets have, up to the quota.
    pub(super) fn serve_sockets(&mut self, now: Instant, ready: &mut Ready) {
        for at in 0..ready.sockets.len() {
            let place = ready.sockets[at];
            if self.esp.congested() {
                self.leave_unread(place);
            } else {
                ready.more |= self.receive(now, place);
            }
        }
    }

    /// Takes what a socket has, up to the quota; true when there may be more.
    fn receive(&mut self, now: Instant, place: usize) -> bool {
        let mut left = self.table.quota(Class::Esp);
        let Some(mut landing) = self.landing.take() else { return false };
        let mut more = true;
        while left > 0 {
            let Some(socket) = self.sockets.at(place) else { break };
            let (port, bound) = (socket.port(), socket.bound());
            match socket.land(&mut landing, &self.pool, left.min(LANDINGS)) {
                Ok(count) => {
                    self.take_orders(now);
                    for (arrived, buf, length) in landing.take() {
                        self.sort(now, port, bound, &arrived, buf, length);
                    }
                    self.pump_inbound(now);
                    left -= count.min(left);
                    if count < LANDINGS {
                        more = false;
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => left -= 1,
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        self.landing = Some(landing);
        self.served.note(Class::Esp, more);
        self.learn_from_errors(place);
        more
    }

    fn sort(
        &mut self,
        now: Instant,
        port: Port,
        bound: SocketAddr,
        arrived: &Arrived,
        buf: spi::PacketBuf,
        length: usize,
    ) {
        let own = arrived.to.unwrap_or(bound.ip());
        let bytes = buf.bytes().get(..length).unwrap_or(&[]);
        if port == Port::Raw {
            let Some(packet) = strip_ip(arrived.from.ip(), bytes) else { return };
            let outer = raw_outer(arrived.from.ip(), own, arrived.tos);
            return self.esp.handle_outer(now, &outer, packet, &mut self.out);
        }
        let outer = Outer {
            from: arrived.from,
            to: SocketAddr::new(own, NATT_PORT),
            encap: Encap::Udp,
            tos: arrived.tos,
        };
        let segment = if arrived.segment == 0 { length.max(1) } else { arrived.segment };
        // The kernel gathers what has one length: keepalives and IKE messages are in no run with ESP packets, or last.
        if length >= RUN * segment && matches!(classify(&bytes[..segment]), Datagram::Esp(_)) {
            return self.esp.handle_outer_run(now, &outer, buf, length, segment, &mut self.out);
        }
        for datagram in bytes.chunks(segment) {
            match classify(datagram) {
                Datagram::Keepalive => self.keepalives_in += 1,
                Datagram::Esp(packet) => self.esp.handle_outer(now, &outer, packet, &mut self.out),
                // Only in the moment before the kernel was told what goes where.
                Datagram::Ike(message) => {
                    let (local, remote, message) = (outer.to, arrived.from, message.to_vec());
                    self.reports.push_back(Report::Ike { local, remote, message });
                }
                Datagram::Garbage => self.served.garbage += 1,
            }
        }
    }

    pub(super) fn learn_from_errors(&mut self, place: usize) {
        let Some(socket) = self.sockets.at(place) else { return };
        if socket.has_errors() {
            let errors: Vec<_> = socket.take_errors().collect();
            self.learn(errors);
        }
    }

    /// Looks after a socket that is not read for now: an error that waits there would be reported without end.
    fn leave_unread(&mut self, place: usize) {
        if let Some(socket) = self.sockets.at(place) {
            socket.drain_errors();
        }
        self.learn_from_errors(place);
    }

    /// Errors that came back for what was sent. Anybody can make up an ICMP message, so all it may do is lower the MTU, and that
    /// only as far as the data path allows; that a port or host is unreachable is for liveness checks to find out (RFC 7296
    /// section 2.4).
    pub(crate) fn learn(&mut self, mut errors: Vec<SendError>) {
        // A storm of them says one thing many times.
        errors.sort_unstable_by_key(|error| (error.to.ip(), error.mtu, error.local));
        errors.dedup_by_key(|error| (error.to.ip(), error.mtu, error.local));
        for error in errors {
            let mtu = match error.mtu {
                Some(mtu) => mtu.min(u32::from(u16::MAX)) as u16,
                // Our own stack found it too long and did not say for what: it knows.
                None if error.errno == libc::EMSGSIZE && error.local => {
                    match system::way_to(error.to.ip(), self.mark) {
                        Some(way) => way.mtu,
                        None => continue,
                    }
                }
                None => continue,
            };
            self.mtu_words += 1;
            if self.mtu_words > MTU_WORDS {
                continue;
            }
            tracing::debug!(peer = %error.to.ip(), mtu, local = error.local, "path MTU");
            self.esp.lower_mtu_towards(error.to.ip(), mtu);
            self.reports.push_back(Report::PathMtu { remote: error.to.ip(), mtu });
        }
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
