//! Packets that are too large, and what the tunnel tells about its size.

use esp::{DfPolicy, DropReason, Verdict};
use wire::ip::{IpHeader, Ports, checksum, find_mss};

use crate::rig::*;

/// Octets an inner packet may have: 1500 - 20 - 8 - 8 - 8 - 16, down to a multiple of 4, minus 2.
const INNER_MTU: usize = 1438;

#[test]
fn a_packet_that_just_fits_fits_and_one_octet_more_is_told_of() {
    let (mut left, _) = pair(&Deal::default());
    assert_eq!(left.esp.inner_mtu(CHILD), Some(INNER_MTU));
    let fits = udp4("10.1.0.1", "10.2.0.1", (1, 2), INNER_MTU - 28);
    assert_eq!(left.inner(&fits), Verdict::Taken);
    left.turn();
    assert_eq!(left.sent[0].bytes.len() + 28, 1500);
    assert!(left.sent[0].df);
    let big = udp4("10.1.0.1", "10.2.0.1", (1, 2), INNER_MTU - 27);
    assert_eq!(left.inner(&big), Verdict::Dropped(DropReason::TooBig));
    left.turn();
    let icmp = left.icmp.remove(0);
    let h = IpHeader::parse(&icmp).unwrap();
    assert_eq!((h.src, h.dst, h.ports), (ip("10.2.0.1"), ip("10.1.0.1"), Ports::Icmp(3, 4)));
    assert_eq!(u16::from_be_bytes([icmp[26], icmp[27]]) as usize, INNER_MTU);
    assert_eq!(icmp[28..56], big[..28]);
}

#[test]
fn packets_too_big_of_ipv6_name_at_least_1280_and_smaller_ones_are_carried() {
    let (mut left, _) = pair(&Deal { mtu: 1300, ..Deal::default() });
    assert!(left.esp.inner_mtu(CHILD).unwrap() < 1280);
    let fits = udp6("2001:db8:1::1", "2001:db8:2::1", (1, 2), 1280 - 48);
    assert_eq!(left.inner(&fits), Verdict::Taken);
    let big = udp6("2001:db8:1::1", "2001:db8:2::1", (1, 2), 1281 - 48);
    assert_eq!(left.inner(&big), Verdict::Dropped(DropReason::TooBig));
    left.turn();
    assert!(!left.sent[0].df, "fragmented outside, if need be");
    let icmp = left.icmp.remove(0);
    assert_eq!(IpHeader::parse(&icmp).unwrap().ports, Ports::Icmp(2, 0));
    assert_eq!(u32::from_be_bytes(icmp[44..48].try_into().unwrap()), 1280);
}

#[test]
fn icmp_errors_come_with_measure_from_the_configured_address() {
    let mut left = End::over(soft(), LEFT_IFACE, |c| c.icmp_v4 = Some("10.1.0.254".parse().unwrap()));
    left.install(&Deal::default());
    for _ in 0..500 {
        left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 1480));
        left.turn();
    }
    assert_eq!(left.dropped(DropReason::TooBig), 500);
    assert_eq!(left.icmp.len(), 100);
    assert_eq!(IpHeader::parse(&left.icmp[0]).unwrap().src, ip("10.1.0.254"));
}

#[test]
fn packets_that_may_be_cut_are_cut_before_sealing() {
    let (mut left, mut right) = pair(&Deal::default());
    let packet = v4("10.1.0.1", "10.2.0.1", 17, &udp((1, 2), 3000), false);
    assert_eq!(left.inner(&packet), Verdict::Taken);
    left.turn();
    assert_eq!(left.sent.len(), 3);
    assert!(left.sent.iter().all(|w| w.bytes.len() + 28 <= 1500));
    carry(&mut left, &mut right);
    let mut payload = vec![0; 3008];
    for piece in right.take_written() {
        let h = IpHeader::parse(&piece).unwrap();
        assert_eq!(checksum(&piece[..20]), 0);
        let at = usize::from(h.fragment_offset) * 8;
        payload[at..at + piece.len() - 20].copy_from_slice(&piece[20..]);
    }
    assert_eq!(payload, packet[20..]);
}

#[test]
fn where_ports_matter_the_sealed_packet_is_cut_instead() {
    let deal = Deal { ts_right: vec![ts("10.2.0.0/16[udp/2]")], ..Deal::default() };
    let (mut left, mut right) = pair(&deal);
    let packet = v4("10.1.0.1", "10.2.0.1", 17, &udp((1, 2), 3000), false);
    assert_eq!(left.inner(&packet), Verdict::Taken);
    left.turn();
    assert_eq!((left.sent.len(), left.sent[0].df), (1, false));
    carry(&mut left, &mut right);
    assert_eq!(right.take_written(), [packet]);
}

#[test]
fn df_policies_clear_and_set() {
    let may = v4("10.1.0.1", "10.2.0.1", 17, &udp((1, 2), 100), false);
    let may_not = udp4("10.1.0.1", "10.2.0.1", (1, 2), 100);
    for (df, expected) in
        [(DfPolicy::Copy, [false, true]), (DfPolicy::Set, [true, true]), (DfPolicy::Clear, [false, false])]
    {
        let (mut left, _) = pair(&Deal { df, ..Deal::default() });
        left.inner(&may);
        left.inner(&may_not);
        left.turn();
        assert_eq!([left.sent[0].df, left.sent[1].df], expected, "{df:?}");
    }
    let (mut left, _) = pair(&Deal { df: DfPolicy::Clear, ..Deal::default() });
    assert_eq!(left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 1480)), Verdict::Taken);
}

#[test]
fn a_smaller_path_is_obeyed_at_once_but_not_an_absurd_one() {
    let (mut left, _) = pair(&Deal::default());
    let packet = udp4("10.1.0.1", "10.2.0.1", (1, 2), 1300);
    assert_eq!(left.inner(&packet), Verdict::Taken);
    left.esp.update_mtu(CHILD, 1300);
    assert_eq!(left.inner(&packet), Verdict::Dropped(DropReason::TooBig));
    left.esp.update_mtu(CHILD, 68);
    assert_eq!(left.esp.inner_mtu(CHILD), Some(514), "576 is the least we believe");
    left.esp.lower_mtu(CHILD, 9000);
    assert_eq!(left.esp.inner_mtu(CHILD), Some(514), "who may be anybody cannot raise it");
    left.esp.update_mtu(CHILD, 1500);
    assert_eq!(left.inner(&packet), Verdict::Taken);
}

#[test]
fn mss_is_clamped_on_syns_of_both_directions() {
    let (mut left, mut right) = pair(&Deal::default());
    // The right end's way back is smaller than the left end's way there.
    right.esp.update_mtu(CHILD, 1400);
    left.inner(&tcp4("10.1.0.1", "10.2.0.1", Some(1460), 0));
    left.turn();
    carry(&mut left, &mut right);
    let got = right.take_written().remove(0);
    let right_mtu = right.esp.inner_mtu(CHILD).unwrap();
    assert_eq!(find_mss(&got), Some(right_mtu as u16 - 40));
    let h = IpHeader::parse(&got).unwrap();
    let sum = wire::ip::Sum::new().pseudo(h.src, h.dst, 6, got.len() - 20).octets(&got[20..]).finish();
    assert_eq!(sum, 0);
    // Alone, the sender's clamp is that of its own path.
    left.inner(&tcp4("10.1.0.1", "10.2.0.1", Some(1460), 0));
    left.inner(&tcp4("10.1.0.1", "10.2.0.1", Some(1000), 0));
    left.turn();
    right.esp.remove(CHILD, TO_LEFT, spi::Direction::Seal);
    carry(&mut left, &mut right);
    let mss: Vec<_> = right.take_written().iter().map(|p| find_mss(p).unwrap()).collect();
    assert_eq!(mss, [INNER_MTU as u16 - 40, 1000]);
}

#[test]
fn mss_is_clamped_to_a_small_device_on_either_side() {
    for (sides, small) in [((1300, u16::MAX), "the sender's"), ((u16::MAX, 1300), "the receiver's")] {
        let mut left = End::over(soft(), LEFT_IFACE, |c| c.device_mtu = sides.0);
        let mut right = End::over(soft(), RIGHT_IFACE, |c| c.device_mtu = sides.1);
        left.install(&Deal::default());
        right.install(&Deal::default());
        left.inner(&tcp4("10.1.0.1", "10.2.0.1", Some(1460), 0));
        left.turn();
        carry(&mut left, &mut right);
        assert_eq!(find_mss(&right.take_written().remove(0)), Some(1260), "{small}");
    }
}

#[test]
fn cutting_finishes_a_checksum_first() {
    let (mut left, mut right) = pair(&Deal::default());
    let mut packet = v4("10.1.0.1", "10.2.0.1", 17, &udp((1, 2), 3000), false);
    let pseudo = !wire::ip::Sum::new().pseudo(ip("10.1.0.1"), ip("10.2.0.1"), 17, 3008).finish();
    packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
    left.inner_with(&packet, esp::Offload { checksum: Some((20, 6)), segments: None });
    left.turn();
    carry(&mut left, &mut right);
    let payload: Vec<u8> = right.take_written().iter().flat_map(|p| p[20..].to_vec()).collect();
    let sum = wire::ip::Sum::new().pseudo(ip("10.1.0.1"), ip("10.2.0.1"), 17, 3008).octets(&payload).finish();
    assert_eq!(sum, 0);
}

#[test]
fn a_superpacket_whose_pieces_are_too_large_is_refused_or_fragmented_outside() {
    let (mut left, mut right) = pair(&Deal::default());
    let segments = Some(esp::Segments { kind: esp::SegmentKind::Udp, size: 1460 });
    let offload = esp::Offload { segments, checksum: None };
    let whole = udp((1, 2), 4000);
    let may_not = v4("10.1.0.1", "10.2.0.1", 17, &whole, true);
    assert_eq!(left.inner_with(&may_not, offload), Verdict::Dropped(DropReason::TooBig));
    let may = v4("10.1.0.1", "10.2.0.1", 17, &whole, false);
    assert_eq!(left.inner_with(&may, offload), Verdict::Taken);
    left.turn();
    assert_eq!((left.sent.len(), left.sent.iter().any(|w| w.df), left.icmp.len()), (3, false, 1));
    carry(&mut left, &mut right);
    let payload: Vec<u8> = right.take_written().iter().flat_map(|p| p[28..].to_vec()).collect();
    assert_eq!(payload, whole[8..]);
}
