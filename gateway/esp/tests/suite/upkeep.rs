//! Lifetimes, keepalives, dummies, peers that move.

use std::net::SocketAddr;
use std::time::Duration;

use esp::{DropReason, Encap, Event, Limits, PeerMoves, UdpEncap, Verdict};
use spi::Direction;

use crate::rig::*;

fn packet() -> Vec<u8> {
    udp4("10.1.0.1", "10.2.0.1", (1, 2), 72)
}

#[test]
fn limits_ask_once_then_stop_both_directions() {
    let limits = Limits { soft_packets: 3, hard_packets: 5, ..Limits::default() };
    let (mut left, mut right) = pair(&Deal { limits, ..Deal::default() });
    let verdicts: Vec<_> = (0..7).map(|_| left.inner(&packet())).collect();
    left.turn();
    assert_eq!(verdicts[4..], [Verdict::Taken, Verdict::Dropped(DropReason::HardLimit), verdicts[5]]);
    let (child, spi, dir) = (CHILD, TO_RIGHT, Direction::Seal);
    assert_eq!(left.events, [Event::Rekey { child, spi, dir }, Event::Expired { child, spi, dir }]);
    for wire in left.take_sent() {
        right.outer(&wire);
        right.turn();
    }
    let dir = Direction::Open;
    let told: Vec<_> = right.events.iter().filter(|e| !matches!(e, Event::FirstPacket { .. })).collect();
    assert_eq!(told, [&Event::Rekey { child, spi, dir }, &Event::Expired { child, spi, dir }]);
}

#[test]
fn octets_count_as_well() {
    let limits = Limits { soft_bytes: 150, hard_bytes: 250, ..Limits::default() };
    let (mut left, _) = pair(&Deal { limits, ..Deal::default() });
    let taken = (0..9).filter(|_| left.inner(&packet()) == Verdict::Taken).count();
    assert_eq!(taken, 3);
    left.turn();
    assert_eq!(left.events.len(), 2);
}

#[test]
fn silence_on_a_path_is_filled_with_keepalives_once_per_path() {
    let keepalive = Some(Duration::from_secs(20));
    let deal = Deal { keepalive, ..Deal::default() };
    let (mut left, _) = pair(&deal);
    let second = left.outbound(&deal, 0x1111);
    left.esp.install_outbound(second, left.now).unwrap();
    left.later(Duration::from_secs(15));
    left.inner(&packet());
    left.turn();
    left.later(Duration::from_secs(10));
    assert!(left.keepalives.is_empty(), "a packet went out ten seconds ago");
    left.later(Duration::from_secs(10));
    assert_eq!(left.keepalives.len(), 1, "two SAs, one path");
    left.later(Duration::from_secs(20));
    assert_eq!(left.keepalives.len(), 2);
    left.esp.remove_child(CHILD);
    left.later(Duration::from_secs(60));
    assert_eq!((left.keepalives.len(), left.esp.poll_timeout()), (2, None));
}

#[test]
fn dummies_are_sent_when_due_look_like_packets_and_vanish() {
    let (mut left, mut right) =
        pair(&Deal { dummy: Some(Duration::from_secs(3)), tfc: Some(1000), ..Deal::default() });
    left.inner(&packet());
    left.turn();
    left.later(Duration::from_secs(3));
    left.later(Duration::from_secs(3));
    assert_eq!(left.sent.len(), 3);
    assert_eq!(left.sent[0].bytes.len(), left.sent[1].bytes.len());
    carry(&mut left, &mut right);
    assert_eq!((right.written.len(), right.esp.counters().dummies_in), (1, 2));
}

fn moved(n: u16) -> SocketAddr {
    SocketAddr::new(ip("203.0.113.9"), n)
}

#[test]
fn a_new_address_is_believed_only_of_an_authentic_newest_packet() {
    let (mut left, mut right) = pair(&Deal { moves: PeerMoves::Follow, ..Deal::default() });
    for _ in 0..4 {
        left.inner(&packet());
    }
    left.turn();
    let wires = left.take_sent();
    let mut forged = wires[3].clone();
    forged.bytes[30] ^= 1;
    right.outer_from(&forged, moved(1));
    right.turn();
    right.outer(&wires[2]);
    right.turn();
    // Held back and sent again from elsewhere: authentic, but not the newest.
    right.outer_from(&wires[1], moved(2));
    right.turn();
    let moves = |end: &End| end.events.iter().filter(|e| matches!(e, Event::Rebound { .. })).count();
    assert_eq!((moves(&right), right.written.len()), (0, 2));
    right.outer_from(&wires[3], moved(3));
    right.turn();
    assert!(right.events.contains(&Event::Rebound { child: CHILD, spi: TO_RIGHT, from: moved(3) }));
    right.inner(&udp4("10.2.0.1", "10.1.0.1", (2, 1), 9));
    right.turn();
    assert_eq!(right.sent[0].path.remote, moved(3));
}

#[test]
fn packets_of_two_senders_are_not_taken_for_one_another() {
    let (mut left, mut right) = pair(&Deal::default());
    for _ in 0..3 {
        left.inner(&packet());
    }
    left.turn();
    let wires = left.take_sent();
    right.outer_from(&wires[1], moved(5));
    right.outer(&wires[0]);
    let mut forged = wires[2].clone();
    forged.bytes[30] ^= 1;
    right.outer_from(&forged, moved(6));
    right.turn();
    let from: Vec<_> = right
        .events
        .iter()
        .filter_map(|e| if let Event::Rebound { from, .. } = e { Some(*from) } else { None })
        .collect();
    assert_eq!((from, right.written.len()), (vec![moved(5)], 2));
}

#[test]
fn where_moves_are_only_reported_the_path_stays_and_the_report_is_not_repeated() {
    let (mut left, mut right) = pair(&Deal::default());
    for _ in 0..3 {
        left.inner(&packet());
        left.turn();
    }
    for wire in left.take_sent() {
        right.outer_from(&wire, moved(7));
        right.turn();
    }
    let reports = right.events.iter().filter(|e| matches!(e, Event::Rebound { .. })).count();
    assert_eq!(reports, 1);
    right.inner(&udp4("10.2.0.1", "10.1.0.1", (2, 1), 9));
    right.turn();
    assert_eq!(right.sent[0].path.remote, SocketAddr::new(ip("192.0.2.1"), 4500));
}

#[test]
fn update_peer_moves_every_sa_of_the_child() {
    let (mut left, _) = pair(&Deal { keepalive: Some(Duration::from_secs(20)), ..Deal::default() });
    let (local, remote) = (SocketAddr::new(ip("198.51.100.1"), 4500), moved(1234));
    let encap = Some(UdpEncap { local, remote });
    left.esp.update_peer(CHILD, local.ip(), remote.ip(), encap, left.now);
    left.inner(&packet());
    left.turn();
    assert_eq!((left.sent[0].path.local, left.sent[0].path.remote), (local, remote));
    assert!(left.esp.sas().all(|sa| sa.path.remote == remote && sa.mode.remote() == remote.ip()));
    left.later(Duration::from_secs(20));
    assert_eq!(left.keepalives.iter().map(|p| p.remote).collect::<Vec<_>>(), [remote]);
    let before = left.esp.inner_mtu(CHILD).unwrap();
    left.esp.update_peer(CHILD, ip("2001:db8::1"), ip("2001:db8::2"), None, left.now);
    left.inner(&packet());
    left.turn();
    assert_eq!(left.sent[1].path.encap, Encap::Raw);
    assert_eq!(left.esp.inner_mtu(CHILD), Some(before - 12), "longer IP header, no UDP");
}

#[test]
fn a_living_peer_is_remembered() {
    let (mut left, mut right) = pair(&Deal::default());
    assert!(!right.esp.has_heard());
    left.inner(&packet());
    left.turn();
    right.now += Duration::from_secs(5);
    carry(&mut left, &mut right);
    assert_eq!((right.esp.take_heard(), right.esp.take_heard()), (vec![TO_RIGHT], vec![]), "told once");
    let mut views: Vec<_> =
        right.esp.sas().map(|sa| (sa.dir == Direction::Open, sa.packets, sa.current)).collect();
    views.sort();
    assert_eq!(views, [(false, 0, true), (true, 1, true)]);
}
