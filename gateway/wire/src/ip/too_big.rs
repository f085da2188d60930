//! Telling a sender that its packet does not fit: ICMP "fragmentation needed" (RFC 792, RFC 1191) and ICMPv6 "packet
//! too big" (RFC 4443 section 3.2).

use super::checksum::{Sum, checksum};
use super::header::{IpHeader, Ports};
use super::{IPV4_LEN, IPV6_LEN, Ipv4Emit, Ipv6Emit, protocol};
use alloc::vec::Vec;
use core::net::IpAddr;

/// ICMP header, before the quoted packet.
const ICMP_LEN: usize = 8;
/// A whole ICMP error stays within this (RFC 1812 section 4.3.2.3).
const MAX_V4: usize = 576;
/// A whole ICMPv6 error stays within the least MTU (RFC 4443 section 2.4 c).
const MAX_V6: usize = 1280;

/// The packet that tells the sender of `packet` to send at most `mtu` octets, sent from `from`, an address of the same
/// family. `None` where no such message may be sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e): about ICMP
/// errors, later fragments, multicast or unspecified sources, IPv4 packets that may be fragmented or went to many;
/// and for octets that are no packet.
pub fn too_big(packet: &[u8], mtu: usize, from: IpAddr) -> Option<Vec<u8>> {
    let header = IpHeader::parse(packet).ok()?;
    if !may_answer(&header) {
        return None;
    }
    let packet = packet.get(..header.total_len)?;
    match (from, header.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let quote = packet.get(..MAX_V4 - IPV4_LEN - ICMP_LEN).unwrap_or(packet);
            let [m0, m1] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
            let mut icmp = build([3, 4, 0, 0, 0, 0, m0, m1], quote);
            let sum = checksum(&icmp);
            store_checksum(&mut icmp, sum);
            let outer = Ipv4Emit::new(from, to, protocol::ICMP).emit(icmp.len())?;
            Some([outer.as_slice(), &icmp].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let quote = packet.get(..MAX_V6 - IPV6_LEN - ICMP_LEN).unwrap_or(packet);
            let [m0, m1, m2, m3] = u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes();
            let mut icmp = build([2, 0, 0, 0, m0, m1, m2, m3], quote);
            let sum = Sum::new().pseudo(from.into(), to.into(), protocol::ICMPV6, icmp.len()).octets(&icmp);
            store_checksum(&mut icmp, sum.finish());
            let outer = Ipv6Emit::new(from, to, protocol::ICMPV6).emit(icmp.len())?;
            Some([outer.as_slice(), &icmp].concat())
        }
        _ => None,
    }
}

fn may_answer(header: &IpHeader) -> bool {
    let source_is_one = !header.src.is_multicast() && !header.src.is_unspecified();
    let error = match (header.protocol, header.ports) {
        // Echo, timestamp and the like are queries; all other types of ICMP report errors or redirect.
        (protocol::ICMP, Ports::Icmp(kind, _)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (protocol::ICMPV6, Ports::Icmp(kind, _)) => kind < 128 || kind == 137,
        (protocol::ICMP | protocol::ICMPV6, _) => true,
        _ => false,
    };
    let target_is_fit = match header.dst {
        IpAddr::V4(dst) => header.df && !dst.is_multicast() && !dst.is_broadcast(),
        // "Packet too big" alone may answer a multicast: path MTU discovery needs it (RFC 4443 section 2.4 e.3).
        IpAddr::V6(_) => true,
    };
    source_is_one && !error && target_is_fit && header.fragment_offset == 0
}

fn build(head: [u8; ICMP_LEN], quote: &[u8]) -> Vec<u8> {
    [head.as_slice(), quote].concat()
}

fn store_checksum(icmp: &mut [u8], sum: u16) {
    if let Some(field) = icmp.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(len: usize, df: bool, protocol: u8) -> Vec<u8> {
        let mut head = Ipv4Emit::new([10, 1, 0, 1].into(), [10, 2, 0, 1].into(), protocol);
        head.df = df;
        let mut packet = head.emit(len).unwrap().to_vec();
        packet.resize(20 + len, 8);
        packet
    }

    fn v6(len: usize) -> Vec<u8> {
        let head = Ipv6Emit::new("fec1::1".parse().unwrap(), "fec2::1".parse().unwrap(), protocol::UDP);
        let mut packet = head.emit(len).unwrap().to_vec();
        packet.resize(40 + len, 8);
        packet
    }

    #[test]
    fn fragmentation_needed_quotes_the_packet_and_verifies() {
        let packet = v4(1480, true, protocol::UDP);
        let answer = too_big(&packet, 1400, [10, 1, 0, 254].into()).unwrap();
        let h = IpHeader::parse(&answer).unwrap();
        assert_eq!((h.dst, h.ports, h.total_len), ([10, 1, 0, 1].into(), Ports::Icmp(3, 4), 576));
        assert_eq!(answer.len(), 576);
        assert_eq!(answer[26..28], 1400u16.to_be_bytes());
        assert_eq!(checksum(&answer[20..]), 0);
        assert_eq!(answer[28..], packet[..548]);
    }

    #[test]
    fn packet_too_big_quotes_the_packet_and_verifies() {
        let packet = v6(1460);
        let from: IpAddr = "fec1::fe".parse().unwrap();
        let answer = too_big(&packet, 1400, from).unwrap();
        let h = IpHeader::parse(&answer).unwrap();
        assert_eq!((h.dst, h.ports, answer.len()), ("fec1::1".parse().unwrap(), Ports::Icmp(2, 0), 1280));
        assert_eq!(answer[44..48], 1400u32.to_be_bytes());
        let sum = Sum::new().pseudo(h.src, h.dst, protocol::ICMPV6, 1240).octets(&answer[40..]);
        assert_eq!(sum.finish(), 0);
    }

    #[test]
    fn nothing_is_said_where_icmp_forbids_it() {
        let from: IpAddr = [10, 1, 0, 254].into();
        assert!(too_big(&v4(1480, false, protocol::UDP), 1400, from).is_none(), "may be fragmented");
        assert!(too_big(&v6(1460), 1400, from).is_none(), "other family");
        let mut error = v4(1480, true, protocol::ICMP);
        error[20] = 3;
        assert!(too_big(&error, 1400, from).is_none(), "about an ICMP error");
        error[20] = 8;
        assert!(too_big(&error, 1400, from).is_some(), "about an echo request");
        let mut later = v4(1480, true, protocol::UDP);
        later[7] = 1;
        assert!(too_big(&later, 1400, from).is_none(), "later fragment");
        let mut many = v4(1480, true, protocol::UDP);
        many[16] = 239;
        assert!(too_big(&many, 1400, from).is_none(), "multicast");
        assert!(too_big(&[0x45, 0], 1400, from).is_none(), "no packet");
    }
}
