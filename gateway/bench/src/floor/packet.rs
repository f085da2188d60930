//! Superpackets as TUN devices with IFF_VNET_HDR take and give them: a `virtio_net_hdr`, one IP and one transport header, and
//! the payload of many packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::sys::sum;

/// Octets of `struct virtio_net_hdr`.
pub const VIRTIO: usize = 10;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// What kind of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Name of the segmentation offload.
    pub name: &'static str,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// TCP, else UDP.
    pub tcp: bool,
}

/// The four that there are.
pub const KINDS: [Kind; 4] = [
    Kind { name: "tso4", v6: false, tcp: true },
    Kind { name: "tso6", v6: true, tcp: true },
    Kind { name: "uso4", v6: false, tcp: false },
    Kind { name: "uso6", v6: true, tcp: false },
];

/// Between which addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// IPv4, from and to.
    pub v4: [Ipv4Addr; 2],
    /// IPv6, from and to.
    pub v6: [Ipv6Addr; 2],
}

impl Kind {
    fn ip_len(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Octets of IP and transport header.
    pub fn head_len(self) -> usize {
        self.ip_len() + if self.tcp { 20 } else { 8 }
    }

    /// A superpacket of `count` packets of `packet` octets each, with its virtio header: what a socket's send would have
    /// become. The checksum is left open, as the offloads allow.
    pub fn superpacket(self, ends: Ends, packet: usize, count: usize) -> Vec<u8> {
        let payload = packet - self.head_len();
        let ip_len = self.ip_len();
        let upper_len = self.head_len() - ip_len + payload * count;
        let gso = match (count, self.tcp, self.v6) {
            (1, ..) => GSO_NONE,
            (_, true, false) => GSO_TCPV4,
            (_, true, true) => GSO_TCPV6,
            (_, false, _) => GSO_UDP_L4,
        };
        let size = if gso == GSO_NONE { 0 } else { payload as u16 };
        let offset = if self.tcp { 16 } else { 6 };
        let mut out = virtio(NEEDS_CSUM, gso, self.head_len() as u16, size, ip_len as u16, offset).to_vec();
        let protocol = if self.tcp { 6 } else { 17 };
        let mut addresses = Vec::new();
        if self.v6 {
            addresses.extend(ends.v6.iter().flat_map(|address| address.octets()));
            out.extend([0x60, 0, 0, 0]);
            out.extend((upper_len as u16).to_be_bytes());
            out.extend([protocol, 64]);
            out.extend(&addresses);
        } else {
            addresses.extend(ends.v4.iter().flat_map(|address| address.octets()));
            let start = out.len();
            out.extend([0x45, 0]);
            out.extend(((ip_len + upper_len) as u16).to_be_bytes());
            out.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            out.extend(&addresses);
            let check = !fold(sum(&out[start..]));
            out[start + 10..start + 12].copy_from_slice(&check.to_ne_bytes());
        }
        let pseudo = fold(sum(&addresses) + sum(&(upper_len as u32).to_be_bytes()) + sum(&[0, protocol]));
        let ports = [0x1b, 0x58, 0x1b, 0x59];
        out.extend(ports);
        if self.tcp {
            // Sequence number, acknowledgement, no options, ACK, window; the checksum; no urgent data.
            out.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff]);
            out.extend(pseudo.to_ne_bytes());
            out.extend([0, 0]);
        } else {
            out.extend((upper_len as u16).to_be_bytes());
            out.extend(pseudo.to_ne_bytes());
        }
        out.resize(out.len() + payload * count, 0x5a);
        out
    }
}

/// The header before what is written when packets with right checksums were put together: UDP over IPv4 only.
pub fn virtio_udp4(count: usize, payload: usize) -> [u8; VIRTIO] {
    match count {
        1 => virtio(DATA_VALID, GSO_NONE, 0, 0, 0, 0),
        _ => virtio(NEEDS_CSUM, GSO_UDP_L4, 28, payload as u16, 20, 6),
    }
}

/// Octets of payload in each packet of what was read; 0: it is one packet.
pub fn segment_size(read: &[u8]) -> usize {
    match read {
        [_, gso, _, _, a, b, ..] if *gso != GSO_NONE => u16::from_ne_bytes([*a, *b]).into(),
        _ => 0,
    }
}

/// A ones' complement sum in 16 bits, octets in the order in which they were added up.
pub fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

fn virtio(flags: u8, gso: u8, head: u16, size: u16, start: u16, offset: u16) -> [u8; VIRTIO] {
    let [h0, h1] = head.to_ne_bytes();
    let [s0, s1] = size.to_ne_bytes();
    let [a0, a1] = start.to_ne_bytes();
    let [o0, o1] = offset.to_ne_bytes();
    [flags, gso, h0, h1, s0, s1, a0, a1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            v4: [Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 9, 0, 2)],
            v6: ["fec0::1".parse().unwrap(), "fec0::2".parse().unwrap()],
        }
    }

    #[test]
    fn headers_are_what_the_parser_of_the_gateway_reads() {
        for kind in KINDS {
            let packet = kind.superpacket(ends(), 1400, 3);
            let header = wire::ip::IpHeader::parse(&packet[VIRTIO..]).unwrap();
            let payload = 1400 - kind.head_len();
            assert_eq!(header.total_len, kind.head_len() + 3 * payload, "{kind:?}");
            assert_eq!(header.protocol, if kind.tcp { 6 } else { 17 });
            assert_eq!(segment_size(&packet), payload);
            if !kind.v6 {
                assert_eq!(wire::ip::checksum(&packet[VIRTIO..VIRTIO + 20]), 0);
            }
        }
        assert_eq!(segment_size(&KINDS[0].superpacket(ends(), 1400, 1)), 0);
    }

    #[test]
    fn sums_are_those_of_the_gateway() {
        let bytes: Vec<u8> = (0..999u32).map(|n| (n * 31) as u8).collect();
        for len in [0, 2, 20, 40, 998, 999] {
            assert_eq!(!fold(sum(&bytes[..len])).to_be(), wire::ip::checksum(&bytes[..len]), "{len}");
        }
    }
}
