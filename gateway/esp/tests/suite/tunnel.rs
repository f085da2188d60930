//! What goes in at one end comes out at the other.

use esp::{DropReason, DscpPolicy, EcnPolicy, Encap, Offload, Outer, SegmentKind, Segments, Verdict};
use spi::{Encr, Integ};
use wire::TrafficSelector;
use wire::ip::{IpHeader, Sum};

use crate::rig::*;

#[test]
fn every_transform_carries_packets_of_every_padding() {
    for encr in Encr::ALL.iter().copied() {
        let aead = encr.info().unwrap().is_aead();
        let integs: &[Integ] = if aead { &[Integ::NONE] } else { &Integ::ALL[1..] };
        for integ in integs.iter().copied() {
            for esn in [false, true] {
                let deal = Deal { encr, integ, esn, ..Deal::default() };
                let (mut left, mut right) = pair(&deal);
                let packets: Vec<_> = (0..20).map(|n| udp4("10.1.0.1", "10.2.0.1", (1, 2), 40 + n)).collect();
                for p in &packets {
                    assert_eq!(left.inner(p), Verdict::Taken);
                }
                left.turn();
                assert_eq!(left.sent.len(), 20);
                carry(&mut left, &mut right);
                assert_eq!(right.take_written(), packets, "{encr} {integ} esn {esn}");
            }
        }
    }
}

#[test]
fn all_four_mixes_of_inner_and_outer_family_work_over_udp_and_raw() {
    for (l, r) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        for udp in [true, false] {
            let deal = Deal { left: l, right: r, udp, ..Deal::default() };
            let (mut left, mut right) = pair(&deal);
            let packets = [
                udp4("10.1.0.1", "10.2.0.1", (1, 2), 100),
                udp6("2001:db8:1::1", "2001:db8:2::1", (1, 2), 100),
            ];
            for p in &packets {
                left.inner(p);
            }
            left.turn();
            let path = left.sent[0].path;
            assert_eq!((path.local.ip(), path.remote.ip()), (ip(l), ip(r)));
            assert_eq!((path.encap == Encap::Udp, path.remote.port()), (udp, if udp { 4500 } else { 0 }));
            carry(&mut left, &mut right);
            assert_eq!(right.take_written(), packets);
        }
    }
}

#[test]
fn transport_mode_gives_the_packet_back_with_its_header() {
    for (l, r, v6) in [("192.0.2.1", "192.0.2.2", false), ("2001:db8::1", "2001:db8::2", true)] {
        for udp in [false, true] {
            let (ts_left, ts_right) =
                (vec![TrafficSelector::host(ip(l))], vec![TrafficSelector::host(ip(r))]);
            let deal = Deal { transport: true, left: l, right: r, udp, ts_left, ts_right, ..Deal::default() };
            let (mut left, mut right) = pair(&deal);
            for n in 0..5 {
                let packet = if v6 { udp6(l, r, (1, 2), 100 + n) } else { udp4(l, r, (1, 2), 100 + n) };
                assert_eq!(left.inner(&packet), Verdict::Taken);
                left.turn();
                carry(&mut left, &mut right);
                let got = right.take_written().remove(0);
                let (a, b) = (IpHeader::parse(&packet).unwrap(), IpHeader::parse(&got).unwrap());
                assert_eq!((a.src, a.dst, a.protocol), (b.src, b.dst, b.protocol));
                assert_eq!(packet[a.payload_offset..], got[b.payload_offset..]);
            }
        }
    }
}

#[test]
fn transport_mode_takes_whole_datagrams_only() {
    let (ts_left, ts_right) = (vec![ts("192.0.2.1/32")], vec![ts("192.0.2.2/32")]);
    let deal = Deal { transport: true, ts_left, ts_right, ..Deal::default() };
    let (mut left, _) = pair(&deal);
    let mut packet = v4("192.0.2.1", "192.0.2.2", 17, &udp((1, 2), 64), false);
    packet[6] = 0x20;
    let sum = wire::ip::checksum(&[&packet[..10], &[0, 0], &packet[12..20]].concat());
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(left.inner(&packet), Verdict::Dropped(DropReason::FragmentInTransport));
}

#[test]
fn transport_mode_refuses_headers_that_belong_in_front_of_esp() {
    let (ts_left, ts_right) = (vec![ts("2001:db8::1/128")], vec![ts("2001:db8::2/128")]);
    let deal = Deal {
        transport: true,
        left: "2001:db8::1",
        right: "2001:db8::2",
        ts_left,
        ts_right,
        ..Deal::default()
    };
    let (mut left, _) = pair(&deal);
    let hop = [&[17, 0, 1, 4, 0, 0, 0, 0], udp((1, 2), 64).as_slice()].concat();
    let packet = v6("2001:db8::1", "2001:db8::2", 0, &hop);
    assert_eq!(left.inner(&packet), Verdict::Dropped(DropReason::TransportHeader));
}

#[test]
fn a_superpacket_becomes_one_burst_that_leaves_in_one_run() {
    let (mut left, mut right) = pair(&Deal::default());
    let len = 40 * 1300 + 17;
    let packet = tcp4("10.1.0.1", "10.2.0.1", None, len);
    let segments = Some(Segments { kind: SegmentKind::Tcp, size: 1300 });
    let offload = Offload { segments, checksum: Some((20, 16)) };
    assert_eq!(left.inner_with(&packet, offload), Verdict::Taken);
    left.esp.flush(left.now, &mut left.out);
    assert_eq!(left.out.submit[0].len(), 1);
    assert_eq!(left.out.submit[0][0].buf.ops().len(), 41);
    left.queue.submit(&mut left.out.submit[0]).unwrap();
    let (esp, out, now) = (&mut left.esp, &mut left.out, left.now);
    left.queue.poll(9, &mut |burst| esp.on_done(now, burst, out));
    let sealed = left.out.outer.pop_front().unwrap();
    let runs: Vec<_> = sealed.runs(64, 65_507).collect();
    assert_eq!(runs.len(), 1, "equal packets and one shorter, back to back: {runs:?}");
    assert_eq!(runs[0].count, 41);

    // As UDP_GRO would hand it over.
    let mut buf = right.pool.take().unwrap();
    let bytes = &sealed.buf.bytes()[runs[0].range.clone()];
    buf.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    let outer = Outer { from: sealed.path.local, to: sealed.path.remote, encap: Encap::Udp, tos: 0 };
    right.esp.handle_outer_run(right.now, &outer, buf, bytes.len(), runs[0].segment, &mut right.out);
    right.turn();
    assert_eq!(right.esp.counters().bursts, 1);
    let mut body = Vec::new();
    for p in right.take_written() {
        let h = IpHeader::parse(&p).unwrap();
        let upper = &p[h.payload_offset..];
        assert_eq!(Sum::new().pseudo(h.src, h.dst, 6, upper.len()).octets(upper).finish(), 0);
        body.extend_from_slice(&upper[20..]);
    }
    assert_eq!(body, &packet[40..]);
}

#[test]
fn a_run_of_several_sas_is_taken_apart() {
    let deal = Deal::default();
    let (left, mut right) = pair(&deal);
    let second = right.inbound(&deal, 0x3003);
    right.esp.install_inbound(second, right.now).unwrap();
    let packet = trailed(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 100), 4);
    let a = forge(&left, &deal, TO_RIGHT, 1, &packet);
    let b = forge(&left, &deal, 0x3003, 1, &packet);
    let mut buf = right.pool.take().unwrap();
    let both = [a.bytes.as_slice(), &b.bytes, &a.bytes[..20]].concat();
    buf.bytes_mut()[..both.len()].copy_from_slice(&both);
    let outer = Outer { from: a.path.local, to: a.path.remote, encap: Encap::Udp, tos: 0 };
    right.esp.handle_outer_run(right.now, &outer, buf, both.len(), a.bytes.len(), &mut right.out);
    right.turn();
    assert_eq!(right.written.len(), 2);
    assert_eq!(right.dropped(DropReason::Runt), 1);
}

#[test]
fn a_run_does_not_overtake_what_was_gathered_before_it() {
    let (mut left, mut right) = pair(&Deal::default());
    let packets: Vec<_> = (0..3).map(|n| udp4("10.1.0.1", "10.2.0.1", (n, 2), 64)).collect();
    for p in &packets {
        left.inner(p);
    }
    left.turn();
    let wires = left.take_sent();
    right.outer(&wires[0]);
    let mut buf = right.pool.take().unwrap();
    let run = [wires[1].bytes.as_slice(), &wires[2].bytes].concat();
    buf.bytes_mut()[..run.len()].copy_from_slice(&run);
    let (from, to) = (wires[1].path.local, wires[1].path.remote);
    let outer = Outer { from, to, encap: Encap::Udp, tos: 0 };
    right.esp.handle_outer_run(right.now, &outer, buf, run.len(), run.len() / 2, &mut right.out);
    right.turn();
    assert_eq!(right.take_written(), packets);
}

#[test]
fn a_shorter_packet_ends_its_run() {
    let (mut left, _) = pair(&Deal::default());
    for len in [100, 100, 40, 40, 100] {
        left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 2), len));
    }
    left.esp.flush(left.now, &mut left.out);
    left.queue.submit(&mut left.out.submit[0]).unwrap();
    let (esp, out, now) = (&mut left.esp, &mut left.out, left.now);
    left.queue.poll(9, &mut |burst| esp.on_done(now, burst, out));
    let counts: Vec<_> = out.outer[0].runs(64, 65_507).map(|r| r.count).collect();
    assert_eq!(counts, [3, 1, 1]);
    let longest = out.outer[0].runs(64, 300).map(|r| r.range.len()).max();
    assert!(longest.is_some_and(|n| n <= 300));
}

#[test]
fn unfinished_checksums_are_finished_in_both_modes() {
    for transport in [false, true] {
        let (l, r) = if transport { ("192.0.2.1", "192.0.2.2") } else { ("10.1.0.1", "10.2.0.1") };
        let (ts_left, ts_right) = (vec![ts(&format!("{l}/32"))], vec![ts(&format!("{r}/32"))]);
        let (mut left, mut right) = pair(&Deal { transport, ts_left, ts_right, ..Deal::default() });
        let mut packet = udp4(l, r, (1, 2), 33);
        let pseudo = !Sum::new().pseudo(ip(l), ip(r), 17, 41).finish();
        packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload { checksum: Some((20, 6)), segments: None };
        assert_eq!(left.inner_with(&packet, offload), Verdict::Taken);
        left.turn();
        carry(&mut left, &mut right);
        let got = right.take_written().remove(0);
        assert_eq!(Sum::new().pseudo(ip(l), ip(r), 17, 41).octets(&got[20..]).finish(), 0);
    }
}

#[test]
fn tfc_padding_hides_lengths_and_is_cut_off_again() {
    let (mut left, mut right) = pair(&Deal { tfc: Some(1200), ..Deal::default() });
    let packets: Vec<_> = [10, 500, 1100].iter().map(|n| udp4("10.1.0.1", "10.2.0.1", (1, 2), *n)).collect();
    for p in &packets {
        left.inner(p);
    }
    left.turn();
    let lens: Vec<_> = left.sent.iter().map(|w| w.bytes.len()).collect();
    assert_eq!(lens, [lens[0]; 3]);
    carry(&mut left, &mut right);
    assert_eq!(right.take_written(), packets);
}

#[test]
fn ecn_and_dscp_cross_the_tunnel_by_the_rules() {
    let (mut left, mut right) = pair(&Deal::default());
    let mut packet = udp4("10.1.0.1", "10.2.0.1", (1, 2), 30);
    set_tos(&mut packet, 0xb8 | 2);
    left.inner(&packet);
    left.turn();
    assert_eq!(left.sent[0].tos, 0xb8 | 2);
    left.sent[0].tos = 3;
    carry(&mut left, &mut right);
    let got = right.take_written().remove(0);
    assert_eq!(got[1], 0xb8 | 3, "marked outside, DSCP as it was inside");
    assert_eq!(wire::ip::checksum(&got[..20]), 0);

    // RFC 6040: a mark on a packet that cannot bear it means drop.
    left.inner(&udp4("10.1.0.1", "10.2.0.1", (1, 2), 30));
    left.turn();
    left.sent[0].tos = 3;
    carry(&mut left, &mut right);
    assert_eq!(right.dropped(DropReason::EcnViolation), 1);

    let deal = Deal { dscp: DscpPolicy::Fixed(10), ecn: EcnPolicy::Clear, ..Deal::default() };
    let (mut left, _) = pair(&deal);
    left.inner(&packet);
    left.turn();
    assert_eq!(left.sent[0].tos, 40);
}

#[test]
fn packets_of_different_tos_do_not_share_a_run() {
    let (mut left, _) = pair(&Deal::default());
    for tos in [0, 0, 0xb8, 0] {
        let mut packet = udp4("10.1.0.1", "10.2.0.1", (1, 2), 30);
        set_tos(&mut packet, tos);
        left.inner(&packet);
    }
    left.esp.flush(left.now, &mut left.out);
    left.queue.submit(&mut left.out.submit[0]).unwrap();
    let (esp, out, now) = (&mut left.esp, &mut left.out, left.now);
    left.queue.poll(9, &mut |burst| esp.on_done(now, burst, out));
    let counts: Vec<_> = out.outer[0].runs(64, 65_507).map(|r| (r.count, r.tos)).collect();
    assert_eq!(counts, [(2, 0), (1, 0xb8), (1, 0)]);
    let counts: Vec<_> = out.outer[0].runs(1, 65_507).map(|r| r.count).collect();
    assert_eq!(counts, [1, 1, 1, 1]);
}

fn set_tos(packet: &mut [u8], tos: u8) {
    packet[1] = tos;
    packet[10..12].fill(0);
    let sum = wire::ip::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn bursts_longer_than_sixty_four_packets_are_split_and_stay_in_order() {
    let (mut left, mut right) = pair(&Deal::default());
    let packets: Vec<_> = (0..200).map(|n| udp4("10.1.0.1", "10.2.0.1", (n, 2), 64)).collect();
    for p in &packets {
        left.inner(p);
    }
    left.turn();
    assert_eq!(left.esp.counters().bursts, 4);
    let seqs: Vec<_> =
        left.sent.iter().map(|w| u32::from_be_bytes(w.bytes[4..8].try_into().unwrap())).collect();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    carry(&mut left, &mut right);
    assert_eq!(right.take_written(), packets);
    assert_eq!(left.pool.available(), 32, "all buffers came home");
}
