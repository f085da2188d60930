//! Ethernet as far as a TAP device in routed mode needs it: a header before each packet, and an answer to whoever asks for the
//! hardware address of somebody behind the tunnel (RFC 826, RFC 4861 section 7.2).
//!
//! The device has one address, we have another. The kernel does not ask as long as the device is `NOARP`, as it is made; who
//! puts it into a bridge turns that on again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::ip::{IPV6_LEN, Sum, protocol};

/// Octets of a header without tags.
pub const HEADER: usize = 14;
/// The device's address; locally administered. The key side gives it to the device.
pub const KERNEL: [u8; 6] = ipc::TAP_ADDRESS;
/// Ours.
pub const OURS: [u8; 6] = [0x02, b't', b's', b'k', 0, 2];

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IP packet behind the header.
    Packet,
    /// A question after a hardware address.
    Question,
    /// Something else, or nothing.
    Other,
}

/// Looks at a frame.
pub fn look(frame: &[u8]) -> Frame {
    let Some(kind) = frame.get(12..HEADER) else { return Frame::Other };
    if kind == ARP {
        return Frame::Question;
    }
    let version = frame.get(HEADER).map(|first| first >> 4);
    match (kind == IPV4, kind == IPV6, version) {
        (true, _, Some(4)) => Frame::Packet,
        (_, true, Some(6)) if is_solicitation(&frame[HEADER..]) => Frame::Question,
        (_, true, Some(6)) => Frame::Packet,
        _ => Frame::Other,
    }
}

/// The header before a packet that we write.
pub fn header(packet_first: u8) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..6].copy_from_slice(&KERNEL);
    header[6..12].copy_from_slice(&OURS);
    header[12..].copy_from_slice(if packet_first >> 4 == 6 { &IPV6 } else { &IPV4 });
    header
}

/// Reads a question, and returns after whom it is and the answer to it, a whole frame. `None`: not a question that is to be
/// answered.
pub fn answer(frame: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    let asker: [u8; 6] = *frame.get(6..)?.first_chunk()?;
    let body = frame.get(HEADER..)?;
    if frame.get(12..HEADER)? == ARP { arp(asker, body) } else { neighbour(asker, body) }
}

fn arp(asker: [u8; 6], body: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    // Ethernet and IPv4, lengths 6 and 4, a request.
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let body = body.get(..28)?;
    if body[..8] != REQUEST {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
    let (from, target) = (address(14), address(24));
    // A probe or an announcement asks nothing of us (RFC 5227).
    if from.is_unspecified() || from == target {
        return None;
    }
    let mut reply = [&asker[..], &OURS, &ARP, &REQUEST[..7], &[2], &OURS].concat();
    reply.extend_from_slice(&target.octets());
    reply.extend_from_slice(&asker);
    reply.extend_from_slice(&from.octets());
    Some((target.into(), reply))
}

fn is_solicitation(packet: &[u8]) -> bool {
    packet.len() >= IPV6_LEN + 24 && packet[6] == protocol::ICMPV6 && packet[IPV6_LEN] == 135
}

fn neighbour(asker: [u8; 6], packet: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    if !is_solicitation(packet) || packet[7] != 255 {
        return None;
    }
    let address =
        |at: usize| -> Option<Ipv6Addr> { Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)) };
    let (from, target) = (address(8)?, address(IPV6_LEN + 8)?);
    // From nobody: duplicate address detection (RFC 4862 section 5.4.3), which is not to find us.
    if from.is_unspecified() || target.is_multicast() {
        return None;
    }
    // Advertisement, solicited and overriding, with our address as the option.
    let mut icmp = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    icmp.extend_from_slice(&target.octets());
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(&OURS);
    let sum =
        Sum::new().pseudo(target.into(), from.into(), protocol::ICMPV6, icmp.len()).octets(&icmp).finish();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut reply = [&asker[..], &OURS, &IPV6].concat();
    reply.extend_from_slice(&[0x60, 0, 0, 0, 0, icmp.len() as u8, protocol::ICMPV6, 255]);
    reply.extend_from_slice(&target.octets());
    reply.extend_from_slice(&from.octets());
    reply.extend_from_slice(&icmp);
    Some((target.into(), reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 1, 0, 1]);
        frame.extend([0, 0, 0, 0, 0, 0, 10, 2, 0, 10]);
        frame
    }

    fn solicitation() -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
        frame.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1).octets());
        frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(Ipv6Addr::new(0xfec2, 0, 0, 0, 0, 0, 0, 1).octets());
        frame.extend([1, 1, 2, 0, 0, 0, 0, 9]);
        frame
    }

    #[test]
    fn whoever_asks_after_a_host_behind_the_tunnel_is_answered() {
        let frame = request();
        assert_eq!(look(&frame), Frame::Question);
        let (target, reply) = answer(&frame).unwrap();
        assert_eq!(target.to_string(), "10.2.0.10");
        let mut expected = vec![2, 0, 0, 0, 0, 9];
        expected.extend(OURS);
        expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend(OURS);
        expected.extend([10, 2, 0, 10, 2, 0, 0, 0, 0, 9, 10, 1, 0, 1]);
        assert_eq!(reply, expected);
        let frame = solicitation();
        assert_eq!(look(&frame), Frame::Question);
        let (target, reply) = answer(&frame).unwrap();
        assert_eq!(target.to_string(), "fec2::1");
        let header = wire::ip::IpHeader::parse(&reply[HEADER..]).unwrap();
        let icmp = &reply[HEADER + IPV6_LEN..];
        let sum = Sum::new().pseudo(header.src, header.dst, 58, icmp.len()).octets(icmp).finish();
        assert_eq!((sum, icmp[0], &icmp[26..]), (0, 136, &OURS[..]));
    }

    #[test]
    fn probes_replies_and_cut_frames_are_not_answered() {
        let mut probe = request();
        probe[28..32].fill(0);
        let mut reply = request();
        reply[21] = 2;
        let mut detection = solicitation();
        detection[HEADER + 8..HEADER + 24].fill(0);
        let mut far = solicitation();
        far[HEADER + 7] = 64;
        for frame in [probe, reply, detection, far] {
            assert!(answer(&frame).is_none());
        }
        for whole in [request(), solicitation()] {
            for cut in 0..whole.len() - 8 {
                let frame = &whole[..cut];
                let _ = look(frame);
                assert!(answer(frame).is_none(), "{cut}");
            }
        }
    }

    #[test]
    fn packets_are_known_by_their_type_and_version() {
        for (kind, first, expected) in [
            ([8, 0], 0x45, Frame::Packet),
            ([0x86, 0xdd], 0x60, Frame::Packet),
            ([8, 0], 0x60, Frame::Other),
            ([0x86, 0xdd], 0x45, Frame::Other),
            ([0x88, 0xcc], 0x45, Frame::Other),
        ] {
            let frame = [&[0; 12][..], &kind, &[first; 40]].concat();
            assert_eq!(look(&frame), expected);
        }
        assert_eq!(look(&header(0x45)[..12]), Frame::Other);
        assert_eq!(header(0x60)[12..], IPV6);
    }
}
