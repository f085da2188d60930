//! What a stranger, a thief of packets or a dishonest peer may send, and what becomes of it.

use esp::{DropReason, Encap, Event, InstallError, Outer, Policy, Verdict};
use proptest::prelude::*;
use spi::{Encr, Integ};

use crate::rig::*;

fn one_packet(deal: &Deal) -> (End, End, Wire) {
    let (mut left, right) = pair(deal);
    left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 64));
    left.turn();
    let wire = left.take_sent().remove(0);
    (left, right, wire)
}

#[test]
fn a_replayed_packet_is_dropped_before_decryption() {
    let (_, mut right, wire) = one_packet(&Deal::default());
    right.outer(&wire);
    right.turn();
    assert_eq!(right.written.len(), 1);
    let bursts = right.esp.counters().bursts;
    right.outer(&wire);
    right.turn();
    assert_eq!((right.written.len(), right.dropped(DropReason::Replay)), (1, 1));
    assert_eq!(right.esp.counters().bursts, bursts, "the device never saw it");
}

#[test]
fn any_changed_octet_is_a_bad_icv_and_does_not_move_the_window() {
    let (_, mut right, wire) = one_packet(&Deal::default());
    for at in 8..wire.bytes.len() {
        let mut bad = wire.clone();
        bad.bytes[at] ^= 1;
        right.outer(&bad);
    }
    // A forged number far ahead must not make the true packet look old.
    let mut ahead = wire.clone();
    ahead.bytes[4..8].copy_from_slice(&0x7fff_0000_u32.to_be_bytes());
    right.outer(&ahead);
    right.turn();
    assert_eq!(right.dropped(DropReason::BadIcv), wire.bytes.len() as u64 - 8 + 1);
    assert!(right.written.is_empty());
    right.outer(&wire);
    right.turn();
    assert_eq!(right.written.len(), 1);
    let view = right.esp.sas().find(|sa| sa.spi == TO_RIGHT).unwrap();
    assert_eq!(view.drops.of(DropReason::BadIcv), wire.bytes.len() as u64 - 7, "counted at the SA too");
    assert_eq!(view.seq, 1);
}

#[test]
fn packets_left_of_the_window_are_stale() {
    let deal = Deal { window: 64, ..Deal::default() };
    let (left, mut right) = pair(&deal);
    let plain = trailed(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 64), 4);
    for (seq, good) in [(100, true), (37, true), (36, false), (100, false)] {
        right.outer(&forge(&left, &deal, TO_RIGHT, seq, &plain));
        right.turn();
        assert_eq!(right.take_written().len(), usize::from(good), "number {seq}");
    }
    assert_eq!((right.dropped(DropReason::Stale), right.dropped(DropReason::Replay)), (1, 1));
}

#[test]
fn extended_numbers_cross_the_32_bit_border() {
    let deal = Deal { esn: true, ..Deal::default() };
    let (left, mut right) = pair(&deal);
    let plain = trailed(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 64), 4);
    let border = 1_u64 << 32;
    for seq in [0x4000_0000, 0x8000_0000, 0xc000_0000, border - 1, border + 1, border - 2, border + 2] {
        right.outer(&forge(&left, &deal, TO_RIGHT, seq, &plain));
        right.turn();
        assert_eq!(right.take_written().len(), 1, "number {seq:#x}");
    }
    // The same low half with the wrong high half does not verify.
    right.outer(&forge(&left, &deal, TO_RIGHT, 9, &plain));
    right.turn();
    assert_eq!(right.dropped(DropReason::BadIcv), 1);
}

#[test]
fn reserved_and_unknown_spis_are_counted_and_reported_with_measure() {
    let (_, mut right, wire) = one_packet(&Deal::default());
    for spi in [0_u32, 1, 255] {
        let mut bad = wire.clone();
        bad.bytes[..4].copy_from_slice(&spi.to_be_bytes());
        right.outer(&bad);
    }
    assert_eq!(right.dropped(DropReason::SpiReserved), 3);
    let mut bad = wire.clone();
    for spi in 0x9000_u32..0x9100 {
        bad.bytes[..4].copy_from_slice(&spi.to_be_bytes());
        right.outer(&bad);
    }
    right.turn();
    assert_eq!(right.dropped(DropReason::UnknownSpi), 256);
    let told = right.events.iter().filter(|e| matches!(e, Event::UnknownSpi { .. })).count();
    assert!((1..=20).contains(&told), "{told} events for 256 packets");
}

#[test]
fn runts_and_broken_blocks_never_reach_the_device() {
    let deal = Deal { encr: Encr::AES128_CBC, integ: Integ::HMAC_SHA2_256_128, ..Deal::default() };
    let (_, mut right, wire) = one_packet(&deal);
    for len in 0..wire.bytes.len() {
        let short = Wire { bytes: wire.bytes[..len].to_vec(), ..wire.clone() };
        right.outer(&short);
    }
    let whole = (wire.bytes.len() - 8 - 16 - 16) / 16 - 1;
    assert_eq!(right.esp.counters().bursts, 0);
    right.turn();
    // Only what is cut at a block's border looks like a packet, and then the ICV tells.
    assert_eq!(right.dropped(DropReason::BadIcv), whole as u64);
    let rest = right.dropped(DropReason::Runt) + right.dropped(DropReason::Misaligned);
    assert_eq!(rest, wire.bytes.len() as u64 - whole as u64);
}

#[test]
fn keepalives_and_dummies_vanish_silently() {
    let deal = Deal::default();
    let (left, mut right) = pair(&deal);
    let mut wire = forge(&left, &deal, TO_RIGHT, 1, &trailed(&[0; 90], 59));
    right.outer(&wire);
    wire.bytes = vec![0xff];
    right.outer(&wire);
    right.turn();
    let c = right.esp.counters();
    assert_eq!((c.dummies_in, c.keepalives_in, c.drops.total()), (1, 1, 0));
    assert!(right.written.is_empty());
}

#[test]
fn a_dishonest_peer_gets_nothing_past_the_trailer() {
    let deal = Deal::default();
    let (left, mut right) = pair(&deal);
    let good = udp4("10.1.0.1", "10.2.0.1", (1, 2), 64);
    let mut wrong_pad = trailed(&good[..good.len() - 1], 4);
    let n = wrong_pad.len();
    wrong_pad[n - 3] = 9;
    let mut long_pad = trailed(&good, 4);
    let n = long_pad.len();
    long_pad[n - 2] = 255;
    let mut too_long = good.clone();
    too_long[2..4].copy_from_slice(&500_u16.to_be_bytes());
    let cases = [
        (wrong_pad, DropReason::BadTrailer),
        (long_pad, DropReason::BadTrailer),
        (trailed(&good, 17), DropReason::BadNextHeader),
        (trailed(&good, 41), DropReason::BadInner),
        (trailed(&[], 4), DropReason::BadInner),
        (trailed(&too_long, 4), DropReason::BadInner),
        (trailed(&udp4("10.9.0.1", "10.2.0.1", (1, 2), 64), 4), DropReason::SelectorMismatch),
        (trailed(&udp4("10.1.0.1", "10.9.0.1", (1, 2), 64), 4), DropReason::SelectorMismatch),
        (trailed(&udp4("10.2.0.1", "10.1.0.1", (1, 2), 64), 4), DropReason::SelectorMismatch),
    ];
    for (seq, (plain, reason)) in cases.into_iter().enumerate() {
        let before = right.dropped(reason);
        right.outer(&forge(&left, &deal, TO_RIGHT, seq as u64 + 1, &plain));
        right.turn();
        assert_eq!(right.dropped(reason), before + 1, "{reason}");
    }
    assert!(right.written.is_empty());
    assert_eq!(right.esp.counters().drops.total(), 9);
}

#[test]
fn ports_are_checked_and_icmp_errors_about_permitted_packets_pass() {
    let deal = Deal {
        ts_left: vec![ts("10.1.0.0/16[udp]")],
        ts_right: vec![ts("10.2.0.0/16[udp/53]")],
        ..Deal::default()
    };
    let (mut left, mut right) = pair(&deal);
    assert_eq!(left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 80), 9)), Verdict::Dropped(DropReason::NoPolicy));
    let query = udp4("10.1.0.1", "10.2.0.1", (1, 53), 9);
    assert_eq!(left.inner(&query), Verdict::Taken);
    left.turn();
    carry(&mut left, &mut right);
    assert_eq!(right.take_written().len(), 1);
    // The server answers with an ICMP error: not UDP, but about a packet of this SA (RFC 4301 section 6.2).
    let about = [&[3, 3, 0, 0, 0, 0, 0, 0], query.as_slice()].concat();
    assert_eq!(right.inner(&v4("10.2.0.1", "10.1.0.1", 1, &about, true)), Verdict::Taken);
    right.turn();
    carry(&mut right, &mut left);
    assert_eq!(left.take_written().len(), 1);
    // One about a packet that never was permitted stays out, both ways.
    let foreign = udp4("10.1.0.1", "10.2.0.1", (1, 80), 9);
    let about = [&[3, 3, 0, 0, 0, 0, 0, 0], foreign.as_slice()].concat();
    let error = v4("10.2.0.1", "10.1.0.1", 1, &about, true);
    assert_eq!(right.inner(&error), Verdict::Dropped(DropReason::NoPolicy));
    left.outer(&forge(&right, &deal, TO_LEFT, 50, &trailed(&error, 4)));
    left.turn();
    assert_eq!(left.dropped(DropReason::SelectorMismatch), 1);
}

#[test]
fn later_fragments_pass_where_ports_do_not_matter_and_only_there() {
    let mut later = v4("10.1.0.1", "10.2.0.1", 17, &[7; 64], false);
    later[6..8].copy_from_slice(&0x0010_u16.to_be_bytes());
    later[10..12].fill(0);
    let sum = wire::ip::checksum(&later[..20]);
    later[10..12].copy_from_slice(&sum.to_be_bytes());
    let (mut left, mut right) = pair(&Deal::default());
    assert_eq!(left.inner(&later), Verdict::Taken);
    left.turn();
    carry(&mut left, &mut right);
    assert_eq!(right.take_written(), [later.clone()]);

    let ports = Deal { ts_right: vec![ts("10.2.0.0/16[udp/53]")], ..Deal::default() };
    let (mut left, mut right) = pair(&ports);
    assert_eq!(left.inner(&later), Verdict::Dropped(DropReason::NoPolicy));
    right.outer(&forge(&left, &ports, TO_RIGHT, 1, &trailed(&later, 4)));
    right.turn();
    assert_eq!(right.dropped(DropReason::SelectorMismatch), 1);
}

#[test]
fn cleartext_that_should_be_protected_is_refused() {
    let (_, mut right) = pair(&Deal::default());
    let packet = udp4("10.1.0.1", "10.2.0.1", (1, 2), 64);
    assert_eq!(right.esp.check_cleartext(RIGHT_IFACE, &packet), Err(DropReason::CleartextProtected));
    let other = udp4("172.16.0.1", "10.2.0.1", (1, 2), 64);
    assert_eq!(right.esp.check_cleartext(RIGHT_IFACE, &other), Err(DropReason::NoPolicy));
    right.esp.set_policies(vec![Policy {
        action: esp::Action::Bypass,
        priority: 5,
        local: vec![ts("10.2.0.0/16")],
        remote: vec![ts("172.16.0.0/12")],
        iface: None,
    }]);
    assert_eq!(right.esp.check_cleartext(RIGHT_IFACE, &other), Ok(()));
    assert_eq!(right.esp.check_cleartext(RIGHT_IFACE, &[0; 3]), Err(DropReason::NotIp));
}

#[test]
fn sas_that_cannot_be_are_not_installed() {
    let deal = Deal::default();
    let (left, mut right) = pair(&deal);
    let good = right.inbound(&deal, 0x5005);
    let now = right.now;
    let mut try_in = |change: &dyn Fn(&mut esp::InboundSa)| {
        let mut sa = good.clone();
        change(&mut sa);
        right.esp.install_inbound(sa, now)
    };
    assert_eq!(try_in(&|sa| sa.spi = 255), Err(InstallError::SpiReserved));
    assert_eq!(try_in(&|sa| sa.spi = TO_RIGHT), Err(InstallError::SpiInUse));
    assert_eq!(try_in(&|sa| sa.replay_window = 31), Err(InstallError::ReplayWindow));
    assert_eq!(try_in(&|sa| sa.replay_window = 65_537), Err(InstallError::ReplayWindow));
    assert_eq!(try_in(&|sa| (sa.replay_window, sa.esn) = (0, true)), Err(InstallError::ReplayWindow));
    assert_eq!(try_in(&|sa| sa.device = 7), Err(InstallError::NoSuchDevice));
    assert_eq!(try_in(&|sa| sa.ts_local.clear()), Err(InstallError::Selectors));
    assert_eq!(try_in(&|sa| sa.integ = Integ::HMAC_SHA1_96), Err(InstallError::Algorithm));
    assert_eq!(try_in(&|sa| sa.encr = Encr::AES128_CBC), Err(InstallError::Algorithm));
    assert_eq!(try_in(&|sa| sa.replay_window = 65_536), Ok(()));
    let mut out = left.outbound(&deal, 0x6006);
    out.path_mtu = 100;
    assert_eq!(right.esp.install_outbound(out, now), Err(InstallError::PathMtu));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_octets_from_outside_are_dropped_without_harm(
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), any::<bool>()), 1..20),
        segment in 0usize..200,
    ) {
        let (_, mut right) = pair(&Deal::default());
        let mut all = Vec::new();
        for (mut bytes, ours) in packets {
            if ours && bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&TO_RIGHT.to_be_bytes());
            }
            all.extend_from_slice(&bytes);
            let path = esp::Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.2:4500".parse().unwrap(), encap: Encap::Udp };
            right.outer(&Wire { path, tos: 3, df: false, bytes });
        }
        right.turn();
        let mut buf = right.pool.take().unwrap();
        buf.bytes_mut()[..all.len()].copy_from_slice(&all);
        let from = "192.0.2.1:4500".parse().unwrap();
        let outer = Outer { from, to: from, encap: Encap::Raw, tos: 0 };
        right.esp.handle_outer_run(right.now, &outer, buf, all.len(), segment, &mut right.out);
        right.turn();
        prop_assert!(right.written.is_empty());
        prop_assert_eq!(right.pool.available(), 32);
    }

    #[test]
    fn any_plaintext_of_a_dishonest_peer_is_judged_without_harm(
        mut plain in prop::collection::vec(any::<u8>(), 1..30), next in prop::sample::select(vec![4u8, 41, 59, 6]),
        version in prop::sample::select(vec![0x45u8, 0x60, 0x4f]), transport in any::<bool>(),
    ) {
        let deal = Deal { transport, ..Deal::default() };
        let (left, mut right) = pair(&deal);
        plain[0] = version;
        while !plain.len().is_multiple_of(4) || plain.len() < 4 { plain.push(0); }
        let n = plain.len();
        plain[n - 1] = next;
        right.outer(&forge(&left, &deal, TO_RIGHT, 1, &plain));
        right.turn();
        prop_assert!(right.written.is_empty());
    }

    #[test]
    fn any_octets_from_the_inside_are_dropped_without_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
        let (mut left, _) = pair(&Deal::default());
        if let Some(first) = bytes.first_mut() { *first = if six { 0x60 } else { 0x45 }; }
        if bytes.len() >= 20 && !six {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[12..20].copy_from_slice(&[10, 1, 0, 1, 10, 2, 0, 1]);
        }
        for kind in [esp::SegmentKind::Tcp, esp::SegmentKind::Udp] {
            let segments = Some(esp::Segments { kind, size: 9 });
            left.inner_with(&bytes, esp::Offload { segments, checksum: Some((20, 6)) });
        }
        left.inner_with(&bytes, esp::Offload { segments: None, checksum: Some((250, 16)) });
        left.turn();
    }
}
