//! Transport mode: the IP header that did not travel is written anew (RFC 4303 section 3.1.1).

use std::net::IpAddr;

use wire::ip::{IPV4_LEN, IPV6_LEN, Ipv4Emit, Ipv6Emit, protocol, update_checksum};

use crate::sa::Mode;

/// Octets kept free before every packet of a transport mode SA.
pub(crate) const HEADROOM: usize = IPV6_LEN;

/// Writes an IP header before the payload at `at..at + len`; returns where the packet begins. `None`: not a transport
/// mode SA, no room, or too long.
pub(crate) fn rebuild(
    bytes: &mut [u8],
    at: usize,
    len: usize,
    next: u8,
    tos: u8,
    mode: &Mode,
) -> Option<usize> {
    let Mode::Transport { local, remote, original } = *mode else { return None };
    if let Some((ours, theirs)) = original {
        correct(bytes.get_mut(at..at + len)?, next, [(theirs, remote), (ours, local)]);
    }
    match (remote, local) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let head = Ipv4Emit { tos, df: true, ..Ipv4Emit::new(src, dst, next) }.emit(len)?;
            let start = at.checked_sub(IPV4_LEN)?;
            bytes.get_mut(start..at)?.copy_from_slice(&head);
            Some(start)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let head = Ipv6Emit { tos, ..Ipv6Emit::new(src, dst, next) }.emit(len)?;
            let start = at.checked_sub(IPV6_LEN)?;
            bytes.get_mut(start..at)?.copy_from_slice(&head);
            Some(start)
        }
        _ => None,
    }
}

/// Corrects a checksum over a pseudo header whose addresses a NAT has changed (RFC 3948 section 3.1.2): from the
/// first of each pair to the second.
fn correct(payload: &mut [u8], protocol: u8, changes: [(IpAddr, IpAddr); 2]) {
    let at = match protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return,
    };
    let Some(field) = payload.get_mut(at..at + 2) else { return };
    let before = u16::from_be_bytes([field[0], field[1]]);
    if protocol == protocol::UDP && before == 0 {
        return; // no checksum was made
    }
    let sum = changes.iter().fold(before, |sum, (old, new)| match (old, new) {
        (IpAddr::V4(old), IpAddr::V4(new)) => correct_words(sum, &old.octets(), &new.octets()),
        (IpAddr::V6(old), IpAddr::V6(new)) => correct_words(sum, &old.octets(), &new.octets()),
        _ => sum,
    });
    let sum = if sum == 0 && protocol == protocol::UDP { 0xffff } else { sum };
    field.copy_from_slice(&sum.to_be_bytes());
}

fn correct_words(sum: u16, old: &[u8], new: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    let pairs = old.chunks_exact(2).zip(new.chunks_exact(2));
    pairs.fold(sum, |sum, (old, new)| update_checksum(sum, word(old), word(new)))
}

#[cfg(test)]
mod tests {
    use wire::ip::{IpHeader, Sum};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn checksum_holds_after_a_nat_on_either_side() {
        for (ours, theirs, local, remote) in [
            ("192.168.9.9", "10.0.0.7", "198.51.100.1", "203.0.113.5"),
            ("fd00::9", "fd00::7", "2001:db8::1", "2001:db8::5"),
        ] {
            for (protocol, field) in [(6, 16), (17, 6)] {
                let mut bytes = vec![0; HEADROOM];
                let mut payload: Vec<u8> = (1..=30).collect();
                payload[field..field + 2].fill(0);
                // The peer summed with the addresses it knows.
                let sum = Sum::new().pseudo(ip(theirs), ip(ours), protocol, 30).octets(&payload).finish();
                payload[field..field + 2].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(payload);
                let original = Some((ip(ours), ip(theirs)));
                let mode = Mode::Transport { local: ip(local), remote: ip(remote), original };
                let start = rebuild(&mut bytes, HEADROOM, 30, protocol, 0xb9, &mode).unwrap();
                let header = IpHeader::parse(&bytes[start..]).unwrap();
                assert_eq!((header.src, header.dst, header.tos), (ip(remote), ip(local), 0xb9));
                let upper = &bytes[start + header.payload_offset..];
                let check = Sum::new().pseudo(header.src, header.dst, protocol, 30).octets(upper).finish();
                assert_eq!(check, 0, "{remote} {protocol}");
            }
        }
    }

    #[test]
    fn a_udp_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
        let (old, new) = (ip("10.0.0.7"), ip("203.0.113.5"));
        let zeroes = (1..=u16::MAX).filter(|before| {
            let mut payload = [0; 8];
            payload[6..8].copy_from_slice(&before.to_be_bytes());
            correct(&mut payload, protocol::UDP, [(old, new), (new, new)]);
            assert_ne!(payload[6..8], [0, 0]);
            payload[6..8] == [0xff, 0xff]
        });
        assert!(zeroes.count() > 0);
    }

    #[test]
    fn a_header_without_room_or_of_two_families_is_refused() {
        let mode = Mode::Transport { local: ip("1.2.3.4"), remote: ip("5.6.7.8"), original: None };
        assert_eq!(rebuild(&mut [0; 60], 19, 10, 17, 0, &mode), None);
        assert_eq!(rebuild(&mut [0; 60], 20, 10, 17, 0, &mode), Some(0));
        let mixed = Mode::Transport { local: ip("1.2.3.4"), remote: ip("::1"), original: None };
        assert_eq!(rebuild(&mut [0; 60], 40, 10, 17, 0, &mixed), None);
    }
}
