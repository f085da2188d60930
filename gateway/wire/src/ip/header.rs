//! One look at a packet: what selectors, tunnels and path MTU need to know, without allocation.

use super::{IPV4_LEN, IPV6_LEN, protocol};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 extension headers walked before giving up: more is an attack on the walker (RFC 8504 section 5.3).
pub const MAX_EXTENSIONS: usize = 8;

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Source address; its family is the packet's.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// The protocol above IP, past any IPv6 extension headers.
    pub protocol: u8,
    /// DSCP (upper six bits) and ECN (lower two) as in the header.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Octets of the packet by its header; the slice may be longer (TFC padding).
    pub total_len: usize,
    /// Offset of what `protocol` names.
    pub payload_offset: usize,
    /// IPv4 "don't fragment"; always set for IPv6, which routers do not fragment.
    pub df: bool,
    /// Offset of this fragment in units of 8 octets; 0 in the first and in whole packets.
    pub fragment_offset: u16,
    /// More fragments follow.
    pub more_fragments: bool,
    /// What the upper layer offers selectors.
    pub ports: Ports,
}

/// What the upper layer offers selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Source and destination port of TCP, UDP, SCTP, DCCP, UDP-Lite.
    Pair(u16, u16),
    /// Type and code of ICMP and ICMPv6; of a mobility header the type and 0.
    Icmp(u8, u8),
    /// The protocol has none, or a later fragment or truncation hides them.
    Unknown,
}

/// Octets that are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpError {
    /// The version field is neither 4 nor 6.
    Version(u8),
    /// Fewer octets than the headers or the length field need.
    Truncated,
    /// A length field that contradicts another.
    Length,
    /// More than [`MAX_EXTENSIONS`] IPv6 extension headers.
    Extensions,
}

impl fmt::Display for IpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpError::Version(v) => write!(f, "IP version {v}"),
            IpError::Truncated => f.write_str("IP packet is truncated"),
            IpError::Length => f.write_str("IP length fields contradict"),
            IpError::Extensions => f.write_str("too many IPv6 extension headers"),
        }
    }
}

impl core::error::Error for IpError {}

impl IpHeader {
    /// Reads the headers of the packet at the start of `bytes`.
    ///
    /// # Errors
    /// See [`IpError`]. Missing ports are no error: a first fragment may be that short.
    pub fn parse(bytes: &[u8]) -> Result<IpHeader, IpError> {
        match bytes.first().ok_or(IpError::Truncated)? >> 4 {
            4 => parse_v4(bytes),
            6 => parse_v6(bytes),
            version => Err(IpError::Version(version)),
        }
    }

    /// IP version, 4 or 6.
    pub const fn version(&self) -> u8 {
        if self.src.is_ipv4() { 4 } else { 6 }
    }

    /// Differentiated services code point, 6 bits.
    pub const fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// Explicit congestion notification, 2 bits.
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// Whether the packet is part of a larger one.
    pub const fn is_fragment(&self) -> bool {
        self.more_fragments || self.fragment_offset != 0
    }

    /// Source and destination "port" as selectors see them: the ports, or for ICMP type and code on both sides
    /// (RFC 4301 section 4.4.1.1); `None` where there are none.
    pub const fn selector_ports(&self) -> (Option<u16>, Option<u16>) {
        match self.ports {
            Ports::Pair(src, dst) => (Some(src), Some(dst)),
            Ports::Icmp(kind, code) => {
                let both = Some(u16::from_be_bytes([kind, code]));
                (both, both)
            }
            Ports::Unknown => (None, None),
        }
    }
}

fn parse_v4(bytes: &[u8]) -> Result<IpHeader, IpError> {
    let (fixed, _) = bytes.split_first_chunk::<IPV4_LEN>().ok_or(IpError::Truncated)?;
    let [first, tos, l0, l1, _, _, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
    let header_len = usize::from(first & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(IpError::Length);
    }
    let packet = bytes.get(..total_len).ok_or(IpError::Truncated)?;
    let fragment = u16::from_be_bytes([f0, f1]);
    let fragment_offset = fragment & 0x1fff;
    Ok(IpHeader {
        src: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        dst: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        protocol,
        tos,
        ttl,
        total_len,
        payload_offset: header_len,
        df: fragment & 0x4000 != 0,
        fragment_offset,
        more_fragments: fragment & 0x2000 != 0,
        ports: ports(protocol, fragment_offset, packet.get(header_len..).unwrap_or_default()),
    })
}

fn parse_v6(bytes: &[u8]) -> Result<IpHeader, IpError> {
    let (fixed, _) = bytes.split_first_chunk::<IPV6_LEN>().ok_or(IpError::Truncated)?;
    let [first, second, _, _, l0, l1, next, ttl, addresses @ ..] = fixed;
    let total_len = IPV6_LEN + usize::from(u16::from_be_bytes([*l0, *l1]));
    let packet = bytes.get(..total_len).ok_or(IpError::Truncated)?;
    let (src, dst) = addresses.split_first_chunk::<16>().ok_or(IpError::Truncated)?;
    let dst = dst.first_chunk::<16>().ok_or(IpError::Truncated)?;
    let mut header = IpHeader {
        src: IpAddr::V6(Ipv6Addr::from(*src)),
        dst: IpAddr::V6(Ipv6Addr::from(*dst)),
        protocol: *next,
        tos: first << 4 | second >> 4,
        ttl: *ttl,
        total_len,
        payload_offset: IPV6_LEN,
        df: true,
        fragment_offset: 0,
        more_fragments: false,
        ports: Ports::Unknown,
    };
    walk_extensions(&mut header, packet)?;
    let payload = packet.get(header.payload_offset..).unwrap_or_default();
    header.ports = ports(header.protocol, header.fragment_offset, payload);
    Ok(header)
}

/// Moves `protocol` and `payload_offset` past extension headers (RFC 8200 section 4).
fn walk_extensions(header: &mut IpHeader, packet: &[u8]) -> Result<(), IpError> {
    for _ in 0..=MAX_EXTENSIONS {
        let rest = packet.get(header.payload_offset..).unwrap_or_default();
        let len = match header.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let [_, units, ..] = *rest else { return Err(IpError::Truncated) };
                8 + usize::from(units) * 8
            }
            protocol::FRAGMENT => {
                let [_, _, f0, f1, ..] = *rest else { return Err(IpError::Truncated) };
                let field = u16::from_be_bytes([f0, f1]);
                header.fragment_offset = field >> 3;
                header.more_fragments = field & 1 != 0;
                8
            }
            _ => return Ok(()),
        };
        let (Some(next), true) = (rest.first(), len <= rest.len()) else { return Err(IpError::Truncated) };
        header.protocol = *next;
        header.payload_offset += len;
        if header.fragment_offset != 0 {
            // Behind the first fragment's headers there is only data: looking on would read it as headers.
            return Ok(());
        }
    }
    Err(IpError::Extensions)
}

fn ports(protocol: u8, fragment_offset: u16, payload: &[u8]) -> Ports {
    if fragment_offset != 0 {
        return Ports::Unknown;
    }
    match (protocol, payload) {
        (
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE,
            [s0, s1, d0, d1, ..],
        ) => Ports::Pair(u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])),
        (protocol::ICMP | protocol::ICMPV6, [kind, code, ..]) => Ports::Icmp(*kind, *code),
        (protocol::MOBILITY, [_, _, kind, ..]) => Ports::Icmp(*kind, 0),
        _ => Ports::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ipv4Emit, Ipv6Emit};
    use super::*;
    use std::vec::Vec;

    fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let emit = Ipv4Emit::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol);
        let mut packet = emit.emit(payload.len()).unwrap().to_vec();
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let emit = Ipv6Emit::new("fec0::1".parse().unwrap(), "fec0::2".parse().unwrap(), next);
        let mut packet = emit.emit(payload.len()).unwrap().to_vec();
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn ports_and_icmp_types_are_found_in_both_versions() {
        let h = IpHeader::parse(&v4(protocol::TCP, &[0, 80, 1, 0, 9])).unwrap();
        assert_eq!((h.version(), h.ports), (4, Ports::Pair(80, 256)));
        let h = IpHeader::parse(&v6(protocol::ICMPV6, &[128, 0, 0, 0])).unwrap();
        assert_eq!((h.version(), h.selector_ports()), (6, (Some(0x8000), Some(0x8000))));
        assert_eq!(IpHeader::parse(&v4(protocol::UDP, &[0, 80, 1])).unwrap().ports, Ports::Unknown);
        assert_eq!(IpHeader::parse(&v4(protocol::GRE, &[0, 80, 1, 2])).unwrap().ports, Ports::Unknown);
    }

    #[test]
    fn extension_headers_are_walked_to_the_upper_layer() {
        let mut payload = Vec::from([protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[protocol::FRAGMENT, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[protocol::UDP, 0, 0, 1, 0, 0, 0, 7]);
        payload.extend_from_slice(&[0, 53, 0, 54, 0, 8, 0, 0]);
        let h = IpHeader::parse(&v6(protocol::HOP_BY_HOP, &payload)).unwrap();
        assert_eq!((h.protocol, h.payload_offset, h.ports), (protocol::UDP, 40 + 32, Ports::Pair(53, 54)));
        assert!(h.is_fragment() && h.more_fragments);
    }

    #[test]
    fn later_fragments_hide_ports_in_both_versions() {
        let mut packet = v4(protocol::UDP, &[0, 80, 1, 0, 9, 9, 9, 9]);
        packet[7] = 3;
        let h = IpHeader::parse(&packet).unwrap();
        assert_eq!((h.fragment_offset, h.ports), (3, Ports::Unknown));
        // The data of a later fragment looks like one more extension header and must not be taken for one.
        let h = IpHeader::parse(&v6(protocol::FRAGMENT, &[protocol::ROUTING, 0, 0, 8, 0, 0, 0, 7, 6, 255]));
        let h = h.unwrap();
        assert_eq!((h.protocol, h.fragment_offset, h.ports), (protocol::ROUTING, 1, Ports::Unknown));
    }

    #[test]
    fn endless_extension_headers_are_refused() {
        let payload: Vec<u8> = [0u8; 8].repeat(MAX_EXTENSIONS + 2);
        assert_eq!(IpHeader::parse(&v6(protocol::HOP_BY_HOP, &payload)), Err(IpError::Extensions));
        let enough: Vec<u8> = [0u8; 8].repeat(MAX_EXTENSIONS - 1);
        let mut enough = enough;
        enough.extend_from_slice(&[protocol::NONE, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(IpHeader::parse(&v6(protocol::HOP_BY_HOP, &enough)).unwrap().protocol, protocol::NONE);
    }

    #[test]
    fn lengths_that_contradict_the_octets_are_refused() {
        let good = v4(protocol::UDP, &[0; 8]);
        for cut in 0..good.len() {
            assert!(IpHeader::parse(&good[..cut]).is_err());
        }
        let good = v6(protocol::UDP, &[0; 8]);
        for cut in 0..good.len() {
            assert!(IpHeader::parse(&good[..cut]).is_err());
        }
        let mut short = v4(protocol::UDP, &[]);
        short[0] = 0x44;
        assert_eq!(IpHeader::parse(&short), Err(IpError::Length));
        short[0] = 0x46;
        assert_eq!(IpHeader::parse(&short), Err(IpError::Length));
        assert_eq!(IpHeader::parse(&[0x50]), Err(IpError::Version(5)));
    }

    #[test]
    fn octets_after_the_packet_do_not_count() {
        let mut packet = v4(protocol::UDP, &[0; 8]);
        packet.extend_from_slice(&[0; 100]);
        assert_eq!(IpHeader::parse(&packet).unwrap().total_len, 28);
    }
}
