//! Several workers, what goes first, and budgets.

use std::time::Duration;

use esp::{DropReason, ElsewhereSa, Event, Inner, Offload, SegmentKind, Segments, ShareId, Verdict};

use crate::rig::*;

fn packet(n: u16) -> Vec<u8> {
    udp4("10.1.0.1", "10.2.0.1", (n, 2), 200)
}

fn away(deal: &Deal, lane: u16) -> ElsewhereSa {
    let (ts_local, ts_remote) = (deal.ts_left.clone(), deal.ts_right.clone());
    ElsewhereSa { child: CHILD, spi: TO_RIGHT, lane, ts_local, ts_remote, iface: None, priority: 1000 }
}

#[test]
fn a_packet_whose_sa_another_worker_has_is_handed_over_once() {
    let deal = Deal::default();
    let (mut here, mut there) = (End::new(LEFT_IFACE), End::new(LEFT_IFACE));
    there.install(&deal);
    here.esp.install_elsewhere(away(&deal, 3));
    for n in 0..2 {
        assert_eq!(here.inner(&packet(n)), Verdict::Taken);
    }
    let over: Vec<_> = here.out.elsewhere.drain(..).collect();
    assert_eq!(over.iter().map(|o| (o.lane, o.iface)).collect::<Vec<_>>(), [(3, LEFT_IFACE); 2]);
    assert_eq!((over[0].bytes(), over[1].bytes()), (&packet(0)[..], &packet(1)[..]));
    assert_eq!(
        here.out.events.drain(..).collect::<Vec<_>>(),
        [Event::Elsewhere { child: CHILD, spi: TO_RIGHT }],
        "once"
    );
    for handed in &over {
        let inner = Inner { handed: true, ..Inner::new(handed.iface, handed.bytes(), handed.offload) };
        assert_eq!(there.esp.handle_inner(there.now, inner, &mut there.out), Verdict::Taken);
    }
    there.turn();
    assert_eq!(there.sent.len(), 2);
    // A worker that has given its SA away meanwhile does not send it on.
    let inner = Inner { handed: true, ..Inner::new(LEFT_IFACE, over[0].bytes(), Offload::default()) };
    let verdict = here.esp.handle_inner(here.now, inner, &mut here.out);
    assert_eq!(verdict, Verdict::Dropped(DropReason::Astray));
    here.esp.remove_elsewhere(CHILD, TO_RIGHT);
    assert_eq!(here.inner(&packet(0)), Verdict::Dropped(DropReason::NoPolicy));
}

#[test]
fn an_sa_of_its_own_goes_before_another_workers() {
    let deal = Deal::default();
    let mut end = End::new(LEFT_IFACE);
    end.esp.install_elsewhere(away(&deal, 1));
    end.inner(&packet(0));
    assert_eq!(end.out.elsewhere.len(), 1);
    end.install(&deal);
    end.inner(&packet(0));
    end.turn();
    assert_eq!((end.out.elsewhere.len(), end.sent.len()), (1, 1));
}

#[test]
fn an_sa_that_waits_for_the_peer_is_sent_with_when_he_was_heard_on_its_pair() {
    let deal = Deal::default();
    let (mut here, mut there) = (End::new(LEFT_IFACE), End::new(RIGHT_IFACE));
    here.esp.install_elsewhere(away(&deal, 1));
    let inbound = esp::InboundSa { pair: Some(TO_RIGHT), ..here.inbound(&deal, TO_LEFT) };
    here.esp.install_inbound(inbound, here.now).unwrap();
    let outbound = esp::OutboundSa { waits: true, ..here.outbound(&deal, TO_RIGHT) };
    here.esp.install_outbound(outbound, here.now).unwrap();
    here.inner(&packet(0));
    here.turn();
    assert_eq!((here.out.elsewhere.len(), here.sent.len()), (1, 0), "another lane's SA is used meanwhile");
    there.install(&deal);
    there.inner(&udp4("10.2.0.1", "10.1.0.1", (2, 0), 200));
    there.turn();
    carry(&mut there, &mut here);
    assert_eq!(here.written.len(), 1);
    here.inner(&packet(0));
    here.turn();
    assert_eq!((here.out.elsewhere.len(), here.sent.len()), (1, 1));
}

#[test]
fn an_sa_that_waits_for_the_peer_is_sent_with_when_we_are_told_to() {
    let deal = Deal::default();
    let mut end = End::new(LEFT_IFACE);
    end.esp.install_elsewhere(away(&deal, 1));
    let outbound = esp::OutboundSa { waits: true, ..end.outbound(&deal, TO_RIGHT) };
    end.esp.install_outbound(outbound, end.now).unwrap();
    end.inner(&packet(0));
    end.turn();
    assert_eq!((end.out.elsewhere.len(), end.sent.len()), (1, 0));
    assert!(end.esp.use_outbound(CHILD, TO_RIGHT));
    end.inner(&packet(0));
    end.turn();
    assert_eq!((end.out.elsewhere.len(), end.sent.len()), (1, 1));
}

#[test]
fn an_sa_that_waits_for_the_peer_is_better_than_none() {
    let deal = Deal::default();
    let mut end = End::new(LEFT_IFACE);
    let outbound = esp::OutboundSa { waits: true, ..end.outbound(&deal, TO_RIGHT) };
    end.esp.install_outbound(outbound, end.now).unwrap();
    end.inner(&packet(0));
    end.turn();
    assert_eq!(end.sent.len(), 1);
}

#[test]
fn what_waits_for_an_sa_goes_where_it_came_up() {
    let deal = Deal::default();
    let mut end = End::new(LEFT_IFACE);
    let trap = esp::Policy {
        action: esp::Action::Protect(CHILD),
        priority: 1000,
        local: deal.ts_left.clone(),
        remote: deal.ts_right.clone(),
        iface: None,
    };
    end.esp.set_policies(vec![trap]);
    assert_eq!(end.inner(&packet(0)), Verdict::Taken);
    assert!(matches!(end.out.events.pop_front(), Some(Event::Acquire { child: CHILD, .. })));
    end.esp.install_elsewhere(away(&deal, 2));
    end.turn();
    let over: Vec<_> = end.out.elsewhere.drain(..).map(|o| (o.lane, o.bytes().to_vec())).collect();
    assert_eq!(over, [(2, packet(0))]);
    assert_eq!(end.dropped(DropReason::WaitExpired), 0);
}

#[test]
fn critical_packets_pass_those_that_wait_for_the_device() {
    let deal = Deal::default();
    let mut left = End::with_depth(soft(), LEFT_IFACE, 1, |config| config.waiting_bursts = 4);
    left.install(&deal);
    for n in 0..6 {
        left.inner(&packet(n));
        left.esp.flush(left.now, &mut left.out);
    }
    assert_eq!(left.dropped(DropReason::Backpressure), 1, "one out, four in line, one too many");
    let critical = packet(100);
    let inner = Inner { critical: true, ..Inner::new(LEFT_IFACE, &critical, Offload::default()) };
    assert_eq!(left.esp.handle_inner(left.now, inner, &mut left.out), Verdict::Taken);
    assert!(left.out.hurry);
    let line = left.esp.lines().next().unwrap();
    assert_eq!((line.waiting, line.critical), (4, 1));
    left.turn();
    let mut right = End::new(RIGHT_IFACE);
    right.install(&deal);
    carry(&mut left, &mut right);
    let ports: Vec<u16> = right.written.iter().map(|p| u16::from_be_bytes([p[20], p[21]])).collect();
    assert_eq!(ports, [0, 100, 1, 2, 3, 4]);
}

#[test]
fn a_realm_in_a_hurry_has_no_bursts() {
    let deal = Deal::default();
    let mut left = End::new(LEFT_IFACE);
    let sa = left.outbound(&deal, TO_RIGHT);
    left.esp.install_outbound(esp::OutboundSa { at_once: true, ..sa }, left.now).unwrap();
    for n in 0..3 {
        left.inner(&packet(n));
        assert!(std::mem::take(&mut left.out.hurry));
    }
    assert_eq!(left.out.submit[0].iter().map(|burst| burst.buf.ops().len()).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn superpackets_fill_bursts_as_long_as_one_send() {
    let deal = Deal::default();
    let mut left = End::new(LEFT_IFACE);
    left.install(&deal);
    let long = udp4("10.1.0.1", "10.2.0.1", (1, 2), 60_000);
    let segments = Some(Segments { kind: SegmentKind::Udp, size: 1400 });
    for _ in 0..3 {
        left.inner_with(&long, Offload { checksum: Some((20, 6)), segments });
    }
    assert!(left.out.hurry, "the first is full");
    left.turn();
    assert_eq!(left.take_sent().len(), 3 * 43);
    assert_eq!(left.esp.counters().bursts, 3, "45 packets of 1466 octets, twice, and the rest");
}

#[test]
fn a_budget_holds_back_what_it_does_not_pay_for() {
    let deal = Deal::default();
    let mut left = End::new(LEFT_IFACE);
    left.esp.set_shares(&[0.1]);
    let sa = left.outbound(&deal, TO_RIGHT);
    left.esp.install_outbound(esp::OutboundSa { share: Some(ShareId(0)), ..sa }, left.now).unwrap();
    // A millisecond of time earns a hundred microseconds, and each packet costs fifty.
    let mut sent = Vec::new();
    for n in 0..1000 {
        left.inner(&packet(n));
        left.later(Duration::from_millis(1));
        let moved = left.take_sent().len();
        left.esp.charge(Duration::from_micros(50 * moved as u64));
        sent.push(moved);
    }
    // One a millisecond comes, two could be paid.
    let late: usize = sent[200..].iter().sum();
    assert!((790..=800).contains(&late), "{late}");
    // Ten a millisecond come, two can be paid.
    let mut sent = 0;
    for n in 0..1000 {
        for _ in 0..10 {
            left.inner(&packet(n));
            left.esp.flush(left.now, &mut left.out);
        }
        left.later(Duration::from_millis(1));
        let moved = left.take_sent().len();
        left.esp.charge(Duration::from_micros(50 * moved as u64));
        sent += moved;
    }
    assert!((1900..=2200).contains(&sent), "{sent}");
    assert!(left.dropped(DropReason::CpuShare) > 7000);
    assert!(left.esp.shares().next().unwrap().waiting <= 16);
    // Critical ones do not wait, and others' SAs neither.
    let critical = packet(7);
    let inner = Inner { critical: true, ..Inner::new(LEFT_IFACE, &critical, Offload::default()) };
    left.esp.handle_inner(left.now, inner, &mut left.out);
    left.turn();
    assert_eq!(left.take_sent().len(), 1);
    left.esp.set_shares(&[]);
    assert_eq!(left.inner(&packet(9)), Verdict::Taken);
    left.turn();
    assert_eq!(left.take_sent().len(), 1, "without the budget nothing is held back");
}
