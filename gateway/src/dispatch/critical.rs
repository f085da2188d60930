//! Packets that keep a network together. When they are lost in a crowd, routers take each other for dead, routes vanish, and
//! the crowd has nowhere to go: so they go first.

use serde::{Deserialize, Serialize};
use wire::ip::{IPV4_LEN, IPV6_LEN, protocol};

bitflags::bitflags! {
    /// Kinds of critical packets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Kinds: u32 {
        /// Address resolution, on devices with Ethernet (RFC 826).
        const ARP = 1 << 0;
        /// IPv6 neighbour and router discovery (RFC 4861).
        const ND = 1 << 1;
        /// OSPF (RFC 2328, RFC 5340).
        const OSPF = 1 << 2;
        /// RIP and RIPng (RFC 2453, RFC 2080).
        const RIP = 1 << 3;
        /// BGP (RFC 4271).
        const BGP = 1 << 4;
        /// BFD, one hop and several (RFC 5881, RFC 5883).
        const BFD = 1 << 5;
        /// VRRP (RFC 9568).
        const VRRP = 1 << 6;
        /// PIM (RFC 7761).
        const PIM = 1 << 7;
        /// EIGRP (RFC 7868).
        const EIGRP = 1 << 8;
        /// LDP (RFC 5036).
        const LDP = 1 << 9;
        /// IGMP and MLD (RFC 9776, RFC 9777).
        const IGMP = 1 << 10;
        /// ICMP of both families, echo requests included: not by default, anybody can send them.
        const ICMP = 1 << 11;
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Kinds::all() - Kinds::ICMP
    }
}

/// Names in the configuration.
pub(crate) const NAMES: [(&str, Kinds); 12] = [
    ("arp", Kinds::ARP),
    ("nd", Kinds::ND),
    ("ospf", Kinds::OSPF),
    ("rip", Kinds::RIP),
    ("bgp", Kinds::BGP),
    ("bfd", Kinds::BFD),
    ("vrrp", Kinds::VRRP),
    ("pim", Kinds::PIM),
    ("eigrp", Kinds::EIGRP),
    ("ldp", Kinds::LDP),
    ("igmp", Kinds::IGMP),
    ("icmp", Kinds::ICMP),
];

/// Whether an IP packet is one of these. Extension headers are not walked: none of these protocols has any, but for MLD.
pub(crate) fn is(packet: &[u8], kinds: Kinds) -> bool {
    let Some(first) = packet.first() else { return false };
    let (mut next, mut upper) = match first >> 4 {
        // A later fragment has no ports to look at.
        4 if packet.len() >= IPV4_LEN && packet[6] & 0x1f == 0 && packet[7] == 0 => {
            (packet[9], usize::from(first & 0x0f) * 4)
        }
        6 if packet.len() >= IPV6_LEN => (packet[6], IPV6_LEN),
        _ => return false,
    };
    if next == protocol::HOP_BY_HOP
        && let Some([after, length]) = packet.get(upper..upper + 2)
    {
        (next, upper) = (*after, upper + (usize::from(*length) + 1) * 8);
    }
    let octet = || packet.get(upper).copied();
    let ports = || packet.get(upper..upper + 4).map(|p| [[p[0], p[1]], [p[2], p[3]]].map(u16::from_be_bytes));
    let either = |wanted: &[u16]| ports().is_some_and(|ports| ports.iter().any(|port| wanted.contains(port)));
    let kind = match next {
        // The common case first.
        protocol::TCP if either(&[179]) => Kinds::BGP,
        protocol::TCP if either(&[646]) => Kinds::LDP,
        protocol::UDP if either(&[520, 521]) => Kinds::RIP,
        protocol::UDP if either(&[3784, 4784]) => Kinds::BFD,
        protocol::UDP if either(&[646]) => Kinds::LDP,
        protocol::TCP | protocol::UDP => return false,
        protocol::ICMPV6 => match octet() {
            Some(133..=137) => Kinds::ND | Kinds::ICMP,
            Some(130..=132 | 143) => Kinds::IGMP | Kinds::ICMP,
            _ => Kinds::ICMP,
        },
        protocol::ICMP => Kinds::ICMP,
        2 => Kinds::IGMP,
        88 => Kinds::EIGRP,
        89 => Kinds::OSPF,
        103 => Kinds::PIM,
        112 => Kinds::VRRP,
        _ => return false,
    };
    kinds.intersects(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0x40, 0, 1, protocol, 0, 0, 10, 0, 0, 1, 224, 0, 0, 5];
        packet.extend_from_slice(upper);
        packet
    }

    fn v6(next: u8, upper: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
        packet.extend([0xfe; 32]);
        packet.extend_from_slice(upper);
        packet
    }

    #[test]
    fn routing_protocols_are_critical_and_their_neighbours_are_not() {
        let kinds = Kinds::default();
        let port = |port: u16| [[0x30, 0x39], port.to_be_bytes()].concat();
        for (packet, expected) in [
            (v4(89, &[2, 1]), true),
            (v6(89, &[3, 1]), true),
            (v4(6, &port(179)), true),
            (v4(6, &[port(80)[2..].to_vec(), port(179)[2..].to_vec()].concat()), true),
            (v4(6, &port(443)), false),
            (v4(17, &port(520)), true),
            (v6(17, &port(521)), true),
            (v4(17, &port(3784)), true),
            (v4(17, &port(53)), false),
            (v6(58, &[135]), true),
            (v6(58, &[128]), false),
            (v6(0, &[58, 0, 5, 2, 0, 0, 0, 0, 143]), true),
            (v4(1, &[8]), false),
            (v4(112, &[0x31]), true),
            (v4(50, &[0; 8]), false),
        ] {
            assert_eq!(is(&packet, kinds), expected, "{packet:?}");
        }
        assert!(is(&v4(1, &[8]), Kinds::ICMP) && is(&v6(58, &[128]), Kinds::ICMP));
        assert!(!is(&v4(89, &[2, 1]), Kinds::BGP));
    }

    #[test]
    fn cut_packets_and_later_fragments_are_nothing_special() {
        let whole = v4(6, &[0x30, 0x39, 0, 179]);
        assert!((0..whole.len()).all(|cut| !is(&whole[..cut], Kinds::all())));
        let mut later = whole.clone();
        later[7] = 9;
        assert!(!is(&later, Kinds::all()));
        let whole = v6(0, &[58, 0, 5, 2, 0, 0, 0, 0, 143]);
        assert!((0..whole.len()).all(|cut| !is(&whole[..cut], Kinds::default())));
    }
}
