//! Headers to send: IPv4, IPv6, UDP.

use super::checksum::{Sum, checksum};
use super::{IPV4_LEN, IPV6_LEN, UDP_LEN, protocol};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 header to send, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Emit {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// What follows.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification; only fragments need it (RFC 6864).
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
}

impl Ipv4Emit {
    /// TTL 64, may be fragmented, no markings.
    pub const fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8) -> Self {
        Ipv4Emit { src, dst, protocol, tos: 0, ttl: 64, id: 0, df: false }
    }

    /// The 20 octets before `payload_len` others, checksum included; `None` when together they exceed 65535.
    pub fn emit(&self, payload_len: usize) -> Option<[u8; IPV4_LEN]> {
        let [l0, l1] = u16::try_from(payload_len.checked_add(IPV4_LEN)?).ok()?.to_be_bytes();
        let [i0, i1] = self.id.to_be_bytes();
        let [s0, s1, s2, s3] = self.src.octets();
        let [d0, d1, d2, d3] = self.dst.octets();
        let df = if self.df { 0x40 } else { 0 };
        let mut out = [
            0x45,
            self.tos,
            l0,
            l1,
            i0,
            i1,
            df,
            0,
            self.ttl,
            self.protocol,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        let [c0, c1] = checksum(&out).to_be_bytes();
        out[10] = c0;
        out[11] = c1;
        Some(out)
    }
}

/// An IPv6 header to send, without extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Emit {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What follows.
    pub next_header: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Flow label, 20 bits.
    pub flow: u32,
}

impl Ipv6Emit {
    /// Hop limit 64, no markings, no flow.
    pub const fn new(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8) -> Self {
        Ipv6Emit { src, dst, next_header, tos: 0, hop_limit: 64, flow: 0 }
    }

    /// The 40 octets before `payload_len` others; `None` when these exceed 65535.
    pub fn emit(&self, payload_len: usize) -> Option<[u8; IPV6_LEN]> {
        let len = u16::try_from(payload_len).ok()?;
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.flow & 0xf_ffff;
        let mut out = [0; IPV6_LEN];
        out[..4].copy_from_slice(&first.to_be_bytes());
        out[4..6].copy_from_slice(&len.to_be_bytes());
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.src.octets());
        out[24..].copy_from_slice(&self.dst.octets());
        Some(out)
    }
}

/// A UDP header before `payload_len` octets with checksum 0: none, as ESP in UDP sends it over IPv4 and may over
/// IPv6 (RFC 3948 section 2.1, RFC 6935). `None` when header and payload exceed 65535.
pub fn emit_udp(src_port: u16, dst_port: u16, payload_len: usize) -> Option<[u8; UDP_LEN]> {
    let [l0, l1] = u16::try_from(payload_len.checked_add(UDP_LEN)?).ok()?.to_be_bytes();
    let [s0, s1] = src_port.to_be_bytes();
    let [d0, d1] = dst_port.to_be_bytes();
    Some([s0, s1, d0, d1, l0, l1, 0, 0])
}

/// Computes the checksum of a UDP datagram (header and payload) in place; a sum of 0 is stored as 0xffff (RFC 768).
/// Does nothing to fewer than 8 octets.
pub fn fill_udp_checksum(src: IpAddr, dst: IpAddr, datagram: &mut [u8]) {
    if let Some(field) = datagram.get_mut(6..8) {
        field.fill(0);
    }
    let sum = Sum::new().pseudo(src, dst, protocol::UDP, datagram.len()).octets(datagram).finish();
    if let Some(field) = datagram.get_mut(6..8) {
        field.copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::IpHeader;
    use super::*;

    #[test]
    fn emitted_headers_read_back_and_verify() {
        let mut v4 = Ipv4Emit::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), protocol::ESP);
        (v4.df, v4.tos) = (true, 0xb9);
        let bytes = v4.emit(0).unwrap();
        let h = IpHeader::parse(&bytes).unwrap();
        assert_eq!((h.df, h.dscp(), h.ecn(), h.ttl, h.protocol), (true, 46, 1, 64, 50));
        assert_eq!(checksum(&bytes), 0);

        let mut v6 = Ipv6Emit::new("fec0::1".parse().unwrap(), "fec0::2".parse().unwrap(), protocol::UDP);
        (v6.tos, v6.flow) = (0xb9, 0xfffff);
        let h = IpHeader::parse(&v6.emit(0).unwrap()).unwrap();
        assert_eq!((h.dscp(), h.ecn(), h.total_len), (46, 1, 40));
        assert_eq!(h.dst, "fec0::2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn lengths_past_the_field_are_refused() {
        let v4 = Ipv4Emit::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 50);
        assert!(v4.emit(65515).is_some() && v4.emit(65516).is_none());
        assert!(emit_udp(1, 2, 65527).is_some() && emit_udp(1, 2, 65528).is_none());
    }

    #[test]
    fn udp_checksum_verifies_in_both_families() {
        for (a, b) in [("192.0.2.1", "192.0.2.2"), ("fec0::1", "fec0::2")] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            let mut datagram = [0u8; 11];
            datagram[..8].copy_from_slice(&emit_udp(500, 4500, 3).unwrap());
            datagram[8..].copy_from_slice(b"ike");
            fill_udp_checksum(a, b, &mut datagram);
            assert_ne!(datagram[6..8], [0, 0]);
            assert_eq!(Sum::new().pseudo(a, b, protocol::UDP, 11).octets(&datagram).finish(), 0);
        }
    }
}
