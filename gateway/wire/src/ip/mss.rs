//! Lowering the TCP maximum segment size of packets with SYN, so that segments fit the tunnel from the start.

use super::checksum::update_checksum;
use super::header::IpHeader;
use super::protocol;
use core::ops::Range;

const TCP_LEN: usize = 20;
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a TCP SYN in `packet` (IPv4 or IPv6, with options or extension headers) to `max` octets and
/// corrects the checksum. Returns the old value when it was changed; everything else is left alone.
pub fn clamp_mss(packet: &mut [u8], max: u16) -> Option<u16> {
    let header = IpHeader::parse(packet).ok()?;
    let (value, range) = find(packet, &header)?;
    if value <= max {
        return None;
    }
    let odd = (range.start - header.payload_offset) % 2 == 1;
    let checksum = header.payload_offset + 16..header.payload_offset + 18;
    let old_sum = u16::from_be_bytes(packet.get(checksum.clone())?.try_into().ok()?);
    // Options need not be aligned. At an odd offset the value's octets are halves of two words of the sum, which
    // adds up to the value with its octets exchanged.
    let (old, new) = if odd { (value.swap_bytes(), max.swap_bytes()) } else { (value, max) };
    packet.get_mut(range)?.copy_from_slice(&max.to_be_bytes());
    packet.get_mut(checksum)?.copy_from_slice(&update_checksum(old_sum, old, new).to_be_bytes());
    Some(value)
}

/// The MSS option of a TCP SYN, octets; `None` for every other packet.
pub fn find_mss(packet: &[u8]) -> Option<u16> {
    let header = IpHeader::parse(packet).ok()?;
    find(packet, &header).map(|(value, _)| value)
}

/// The value of the MSS option and where in `packet` it lies.
fn find(packet: &[u8], header: &IpHeader) -> Option<(u16, Range<usize>)> {
    if header.protocol != protocol::TCP || header.fragment_offset != 0 {
        return None;
    }
    let tcp = packet.get(header.payload_offset..header.total_len)?;
    let (fixed, _) = tcp.split_first_chunk::<TCP_LEN>()?;
    if fixed[13] & SYN == 0 {
        return None;
    }
    let options = tcp.get(TCP_LEN..usize::from(fixed[12] >> 4) * 4)?;
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [OPTION_NOP, ..] => at += 1,
            [OPTION_END, ..] | [] | [_] => return None,
            [OPTION_MSS, 4, hi, lo, ..] => {
                let start = header.payload_offset + TCP_LEN + at + 2;
                return Some((u16::from_be_bytes([hi, lo]), start..start + 2));
            }
            // A length below 2 would have the walk stand still.
            [_, len, ..] if len < 2 => return None,
            [_, len, ..] => at += usize::from(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::Sum;
    use super::super::{Ipv4Emit, Ipv6Emit};
    use super::*;
    use std::vec::Vec;

    fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::from([0u8; 20]);
        tcp[12] = ((20 + options.len()) / 4 * 16) as u8;
        tcp[13] = flags;
        tcp.extend_from_slice(options);
        tcp
    }

    fn packet(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = tcp(flags, options);
        let mut out = if v6 {
            Ipv6Emit::new(1.into(), 2.into(), protocol::TCP).emit(tcp.len()).unwrap().to_vec()
        } else {
            Ipv4Emit::new(1.into(), 2.into(), protocol::TCP).emit(tcp.len()).unwrap().to_vec()
        };
        let h = IpHeader::parse(&[out.as_slice(), &tcp].concat()).unwrap();
        let sum = Sum::new().pseudo(h.src, h.dst, protocol::TCP, tcp.len()).octets(&tcp).finish();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        out.extend_from_slice(&tcp);
        out
    }

    fn verifies(packet: &[u8]) -> bool {
        let h = IpHeader::parse(packet).unwrap();
        let tcp = &packet[h.payload_offset..];
        Sum::new().pseudo(h.src, h.dst, protocol::TCP, tcp.len()).octets(tcp).finish() == 0
    }

    #[test]
    fn clamped_syn_verifies_at_even_and_odd_offsets_in_both_families() {
        for v6 in [false, true] {
            for options in [
                [2, 4, 0x05, 0xb4, 1, 1, 1, 0],
                [1, 2, 4, 0x05, 0xb4, 3, 3, 7],
                [1, 1, 1, 2, 4, 0x05, 0xb4, 0],
            ] {
                let mut packet = packet(v6, SYN, &options);
                assert!(verifies(&packet));
                assert_eq!(clamp_mss(&mut packet, 1300), Some(1460));
                assert_eq!(find_mss(&packet), Some(1300));
                assert!(verifies(&packet), "v6 {v6} {options:?}");
                assert_eq!(clamp_mss(&mut packet, 1300), None);
            }
        }
    }

    #[test]
    fn packets_without_syn_or_option_are_left_alone() {
        for (flags, options) in [
            (0x10, [2, 4, 0x05, 0xb4]),
            (SYN, [1, 1, 1, 1]),
            (SYN, [0, 4, 0x05, 0xb4]),
            (SYN, [9, 0, 0, 0]),
            (SYN, [1, 1, 1, 2]),
            (SYN, [1, 1, 2, 4]),
        ] {
            let before = packet(false, flags, &options);
            let mut after = before.clone();
            assert_eq!(clamp_mss(&mut after, 100), None);
            assert_eq!(before, after);
        }
    }
}
