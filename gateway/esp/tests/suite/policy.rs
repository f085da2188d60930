//! Policies, decisions, and traffic that wants an SA.

use std::time::Duration;

use esp::{Action, ChildId, DropReason, Event, Policy, Verdict};
use spi::Direction;

use crate::rig::*;

fn policy(action: Action, priority: u32, local: &str, remote: &str) -> Policy {
    Policy { action, priority, local: vec![ts(local)], remote: vec![ts(remote)], iface: None }
}

fn packet(n: u16) -> Vec<u8> {
    udp4("10.1.0.1", "10.2.0.1", (n, 2), 64)
}

#[test]
fn bypass_discard_and_silence_are_obeyed_and_a_change_is_seen_at_once() {
    let (mut left, _) = pair(&Deal::default());
    let odd = udp4("10.1.0.1", "172.16.0.1", (1, 2), 9);
    assert_eq!(left.inner(&odd), Verdict::Dropped(DropReason::NoPolicy));
    assert_eq!(left.inner(&packet(1)), Verdict::Taken);
    left.esp.set_policies(vec![
        policy(Action::Bypass, 5, "10.1.0.0/16", "172.16.0.0/12"),
        policy(Action::Discard, 10, "10.1.0.0/16", "10.2.0.0/16"),
    ]);
    assert_eq!(left.inner(&odd), Verdict::Bypass);
    assert_eq!(left.inner(&packet(1)), Verdict::Dropped(DropReason::Discard));
    left.esp.set_policies(Vec::new());
    assert_eq!(left.inner(&packet(1)), Verdict::Taken);
    assert_eq!(left.inner(&packet(1)), Verdict::Taken);
    let c = left.esp.counters();
    assert_eq!((c.flow_hits, c.bypassed), (1, 1));
    assert_eq!(left.inner(&[0x45, 0]), Verdict::Dropped(DropReason::NotIp));
}

#[test]
fn traffic_asks_once_waits_and_leaves_when_the_sa_is_there() {
    let deal = Deal::default();
    let (mut left, mut right) = (End::new(LEFT_IFACE), End::new(RIGHT_IFACE));
    right.install(&deal);
    left.esp.set_policies(vec![policy(Action::Protect(CHILD), 1000, "10.1.0.0/16", "10.2.0.0/16")]);
    let verdicts: Vec<_> = (0..12).map(|n| left.inner(&packet(n))).collect();
    left.turn();
    assert_eq!(verdicts[..8], [Verdict::Taken; 8]);
    assert_eq!(verdicts[8..], [Verdict::Dropped(DropReason::NoSa); 4]);
    let [Event::Acquire { child, flow }] = &left.events[..] else { panic!("{:?}", left.events) };
    assert_eq!((*child, flow.local, flow.remote_port), (CHILD, ip("10.1.0.1"), Some(2)));
    left.install(&deal);
    left.turn();
    carry(&mut left, &mut right);
    assert_eq!(right.take_written(), (0..8).map(packet).collect::<Vec<_>>());
}

#[test]
fn what_waits_is_bounded_in_time_and_octets_and_asked_for_again() {
    let mut left = End::over(soft(), LEFT_IFACE, |c| c.waiting_octets = 300);
    left.esp.set_policies(
        (0..10)
            .map(|n| policy(Action::Protect(ChildId(n)), 9, "10.1.0.0/16", &format!("10.2.{n}.0/24")))
            .collect(),
    );
    for n in 0..10 {
        left.inner(&udp4("10.1.0.1", &format!("10.2.{n}.1"), (1, 2), 72));
    }
    left.turn();
    assert_eq!(left.dropped(DropReason::NoSa), 7, "three packets of 100 octets fit");
    assert_eq!(left.events.len(), 10, "each child is asked for");
    left.later(Duration::from_secs(2));
    assert_eq!(left.dropped(DropReason::WaitExpired), 3);
    left.inner(&udp4("10.1.0.1", "10.2.3.1", (1, 2), 72));
    left.turn();
    assert_eq!(left.events.len(), 11);
    left.esp.acquire_failed(ChildId(3));
    assert_eq!(left.dropped(DropReason::WaitExpired), 4);
}

#[test]
fn a_packet_outside_a_narrowed_sa_asks_for_another() {
    let deal = Deal { ts_left: vec![ts("10.1.0.1/32")], ..Deal::default() };
    let mut left = End::new(LEFT_IFACE);
    left.esp.set_policies(vec![policy(Action::Protect(CHILD), 1000, "10.1.0.0/16", "10.2.0.0/16")]);
    left.install(&deal);
    assert_eq!(left.inner(&packet(1)), Verdict::Taken);
    left.turn();
    assert!(left.events.is_empty());
    left.inner(&udp4("10.1.0.2", "10.2.0.1", (1, 2), 64));
    left.turn();
    assert!(matches!(left.events[..], [Event::Acquire { child: CHILD, .. }]));
    // A second SA of the same child for the other host: both are used, each for its own.
    let other = Deal { ts_left: vec![ts("10.1.0.2/32")], ..Deal::default() };
    let sa = left.outbound(&other, 0x7007);
    left.esp.install_outbound(sa, left.now).unwrap();
    left.inner(&packet(1));
    left.turn();
    let mut spis: Vec<_> = left.sent.iter().map(|w| w.bytes[2]).collect();
    spis.sort_unstable();
    assert_eq!(spis, [0x10, 0x10, 0x70]);
}

#[test]
fn a_narrower_child_takes_its_flows_over_from_a_wider_one_at_once() {
    let (mut left, _) = pair(&Deal::default());
    left.inner(&packet(1));
    let mut narrow = left.outbound(&Deal::default(), 0x7007);
    narrow.child = ChildId(2);
    narrow.ts_remote = vec![ts("10.2.0.1/32")];
    left.esp.install_outbound(narrow, left.now).unwrap();
    left.inner(&packet(1));
    left.esp.remove(ChildId(2), 0x7007, Direction::Seal).unwrap();
    left.inner(&packet(1));
    left.turn();
    let spis: Vec<_> = left.sent.iter().map(|w| w.bytes[2]).collect();
    assert_eq!((spis, left.dropped(DropReason::SaGone)), (vec![0x10, 0x10], 1));
}

#[test]
fn an_answered_question_may_be_asked_again_at_once() {
    let mut left = End::new(LEFT_IFACE);
    left.esp.set_policies(vec![policy(Action::Protect(CHILD), 1000, "10.1.0.0/16", "10.2.0.0/16")]);
    left.inner(&packet(1));
    left.install(&Deal::default());
    left.esp.remove(CHILD, TO_RIGHT, Direction::Seal).unwrap();
    left.inner(&packet(2));
    left.turn();
    let asked = left.events.iter().filter(|e| matches!(e, Event::Acquire { .. })).count();
    assert_eq!(asked, 2);
}

#[test]
fn rekeying_switches_when_told_and_not_before() {
    let deal = Deal::default();
    let (mut left, mut right) = pair(&deal);
    let (new_out, new_in) = (left.outbound(&deal, 0x1111), right.inbound(&deal, 0x1111));
    right.esp.install_inbound(new_in, right.now).unwrap();
    left.inner(&packet(1));
    left.esp.install_outbound(new_out, left.now).unwrap();
    left.inner(&packet(2));
    assert!(left.esp.use_outbound(CHILD, 0x1111));
    assert!(!left.esp.use_outbound(CHILD, 0x9999));
    left.inner(&packet(3));
    left.turn();
    let spis: Vec<_> =
        left.sent.iter().map(|w| u32::from_be_bytes(w.bytes[..4].try_into().unwrap())).collect();
    assert_eq!(spis, [TO_RIGHT, TO_RIGHT, 0x1111]);
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 3, "the old one still opens");
    assert!(left.esp.remove(CHILD, TO_RIGHT, Direction::Seal).is_some());
    left.inner(&packet(4));
    left.turn();
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 4);
}

#[test]
fn a_retired_sa_is_not_sent_with_and_comes_back_for_nothing() {
    let deal = Deal::default();
    let (mut left, mut right) = pair(&deal);
    let (new_out, new_in) = (left.outbound(&deal, 0x1111), right.inbound(&deal, 0x1111));
    right.esp.install_inbound(new_in, right.now).unwrap();
    left.inner(&packet(1));
    left.esp.install_outbound(new_out, left.now).unwrap();
    left.esp.retire_outbound(CHILD, TO_RIGHT);
    left.inner(&packet(2));
    assert!(!left.esp.use_outbound(CHILD, TO_RIGHT));
    left.inner(&packet(3));
    left.turn();
    let spis: Vec<_> =
        left.sent.iter().map(|w| u32::from_be_bytes(w.bytes[..4].try_into().unwrap())).collect();
    assert_eq!(spis, [TO_RIGHT, 0x1111, 0x1111], "what was gathered before still leaves");
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 3);
    left.esp.retire_outbound(CHILD, 0x1111);
    assert_eq!(left.inner(&packet(4)), Verdict::Dropped(DropReason::NoPolicy));
}

#[test]
fn the_first_packet_on_a_pair_switches_the_responder() {
    let deal = Deal::default();
    let (mut left, mut right) = pair(&deal);
    let left_out = left.outbound(&deal, 0x1111);
    let mut right_in = right.inbound(&deal, 0x1111);
    right_in.pair = Some(0x2222);
    let right_out = right.outbound(&deal, 0x2222);
    right.esp.install_inbound(right_in, right.now).unwrap();
    right.esp.install_outbound(right_out, right.now).unwrap();
    let back = udp4("10.2.0.1", "10.1.0.1", (2, 1), 9);
    right.inner(&back);
    left.esp.install_outbound(left_out, left.now).unwrap();
    left.esp.use_outbound(CHILD, 0x1111);
    left.inner(&packet(1));
    left.turn();
    carry(&mut left, &mut right);
    right.inner(&back);
    right.turn();
    let spis: Vec<_> =
        right.sent.iter().map(|w| u32::from_be_bytes(w.bytes[..4].try_into().unwrap())).collect();
    assert_eq!(spis, [TO_LEFT, 0x2222]);
    assert!(right.events.contains(&Event::FirstPacket { child: CHILD, spi: 0x1111 }));
}

#[test]
fn removing_a_child_leaves_nothing_behind() {
    let (mut left, _) = pair(&Deal::default());
    left.inner(&packet(1));
    left.turn();
    let gone = left.esp.remove_child(CHILD);
    assert_eq!(gone.len(), 2);
    assert_eq!(left.esp.sas().count(), 0);
    assert_eq!(left.inner(&packet(1)), Verdict::Dropped(DropReason::NoPolicy));
    assert!(left.esp.remove_child(CHILD).is_empty());
}

#[test]
fn a_hundred_thousand_children_cost_a_lookup_not_a_search() {
    let deal = Deal::default();
    let mut hub = End::new(LEFT_IFACE);
    let template = hub.outbound(&deal, TO_RIGHT);
    let n = 100_000_u32;
    for i in 0..n {
        let mut sa = template.clone();
        let host = std::net::IpAddr::V4((0x0a40_0000 + i).into());
        sa.child = ChildId(i.into());
        sa.spi = 0x10000 + i;
        sa.ts_local = vec![ts("10.1.0.0/16")];
        sa.ts_remote = vec![wire::TrafficSelector::host(host)];
        hub.esp.install_outbound(sa, hub.now).unwrap();
    }
    assert_eq!(hub.esp.sas().count(), n as usize);
    let start = std::time::Instant::now();
    for i in 0..20 {
        let dst = std::net::Ipv4Addr::from(0x0a40_0000 + i * 4999);
        assert_eq!(hub.inner(&udp4("10.1.0.1", &dst.to_string(), (1, 2), 9)), Verdict::Taken, "{dst}");
        hub.turn();
        let sent = hub.take_sent().remove(0);
        assert_eq!(sent.bytes[..4], TO_RIGHT.to_be_bytes(), "all share one handle of the device");
    }
    // A search through all of them would take minutes in a debug build.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
