//! What an inner packet offers policy: its selectors, and those of the packet an ICMP error speaks about.

use wire::ip::{IPV4_LEN, IPV6_LEN, IpHeader, Ports, protocol};

use crate::flow::FlowKey;

/// The selectors of a packet that goes out from our side.
pub(crate) fn outbound_key(header: &IpHeader, iface: u32) -> FlowKey {
    let (local_port, remote_port) = header.selector_ports();
    let (local, remote) = (header.src, header.dst);
    FlowKey { iface, local, remote, protocol: header.protocol, local_port, remote_port }
}

/// The selectors of a packet that comes in to our side.
pub(crate) fn inbound_key(header: &IpHeader, iface: u32) -> FlowKey {
    let (remote_port, local_port) = header.selector_ports();
    let (local, remote) = (header.dst, header.src);
    FlowKey { iface, local, remote, protocol: header.protocol, local_port, remote_port }
}

/// The packet that the ICMP error in `packet` speaks about, as far as it is quoted; `None` for all other packets.
pub(crate) fn quoted(header: &IpHeader, packet: &[u8]) -> Option<IpHeader> {
    let error = match (header.protocol, header.ports) {
        (protocol::ICMP, Ports::Icmp(kind, _)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (protocol::ICMPV6, Ports::Icmp(kind, _)) => kind < 128,
        _ => false,
    };
    if !error {
        return None;
    }
    let quote = packet.get(header.payload_offset + 8..header.total_len)?;
    // The quotation is cut short, its length field speaks of the whole: read as much as is there.
    let mut copy = [0_u8; 128];
    let len = quote.len().min(copy.len());
    copy[..len].copy_from_slice(&quote[..len]);
    match copy[0] >> 4 {
        4 if len >= IPV4_LEN => copy[2..4].copy_from_slice(&(len as u16).to_be_bytes()),
        6 if len >= IPV6_LEN => copy[4..6].copy_from_slice(&((len - IPV6_LEN) as u16).to_be_bytes()),
        _ => return None,
    }
    IpHeader::parse(&copy[..len]).ok()
}

/// Whether transport mode can carry what stands behind the fixed header: hop-by-hop, routing and fragment headers
/// belong in front of ESP (RFC 4303 section 3.1.1), where the kernel's sockets do not let us put them.
pub(crate) fn fits_transport(header: &IpHeader, packet: &[u8]) -> bool {
    let next = packet.get(6).copied().unwrap_or(protocol::NONE);
    let in_front = matches!(next, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT);
    header.version() == 4 || !in_front
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use wire::ip::{Ipv4Emit, Ipv6Emit};

    use super::*;

    /// An IPv4 packet that may not be fragmented.
    pub(crate) fn v4(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let emit = Ipv4Emit { df: true, id: 0x1234, ..Ipv4Emit::new(src.into(), dst.into(), protocol) };
        [emit.emit(payload.len()).unwrap().as_slice(), payload].concat()
    }

    /// An IPv6 packet from and to 2001:db8::; `payload` begins with what `next` says.
    pub(crate) fn v6(src: u16, dst: u16, next: u8, payload: &[u8]) -> Vec<u8> {
        let address = |last| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        let emit = Ipv6Emit::new(address(src), address(dst), next);
        [emit.emit(payload.len()).unwrap().as_slice(), payload].concat()
    }

    #[test]
    fn the_two_directions_exchange_the_sides() {
        let bytes = v4([10, 1, 0, 1], [10, 2, 0, 1], 17, &[0, 1, 0, 2, 0, 8, 0, 0]);
        let header = IpHeader::parse(&bytes).unwrap();
        let (out, back) = (outbound_key(&header, 7), inbound_key(&header, 7));
        assert_eq!((out.local, out.local_port), (back.remote, back.remote_port));
        assert_eq!((out.local_port, out.remote_port), (Some(1), Some(2)));
    }

    #[test]
    fn an_icmp_error_names_the_packet_it_speaks_about() {
        let inner = v4([10, 2, 0, 1], [10, 1, 0, 1], 6, &[0, 80, 0x30, 0x39, 0, 0, 0, 0]);
        let error = [&[3, 4, 0, 0, 0, 0, 5, 0], inner.as_slice()].concat();
        let bytes = v4([10, 1, 0, 254], [10, 2, 0, 1], 1, &error);
        let header = IpHeader::parse(&bytes).unwrap();
        let found = quoted(&header, &bytes).unwrap();
        assert_eq!((found.ports, found.protocol), (Ports::Pair(80, 12345), 6));
        let echo = v4([10, 1, 0, 254], [10, 2, 0, 1], 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(quoted(&IpHeader::parse(&echo).unwrap(), &echo).is_none());
    }

    proptest! {
        #[test]
        fn any_quotation_is_read_without_harm(quote in prop::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
            let bytes = if six {
                v6(1, 2, 58, &[&[1, 0, 0, 0, 0, 0, 0, 0], quote.as_slice()].concat())
            } else {
                v4([1, 2, 3, 4], [5, 6, 7, 8], 1, &[&[11, 0, 0, 0, 0, 0, 0, 0], quote.as_slice()].concat())
            };
            let header = IpHeader::parse(&bytes).unwrap();
            let _ = quoted(&header, &bytes);
        }
    }
}
