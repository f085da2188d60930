//! Devices that take their time, change the order, fill up, fail and forget.

use std::time::Duration;

use esp::{DropReason, Event, Verdict};
use spi::{Direction, Outcome};

use crate::rig::*;

fn packets(n: u16) -> Vec<Vec<u8>> {
    (0..n).map(|i| udp4("10.1.0.1", "10.2.0.1", (i, 2), 200)).collect()
}

#[test]
fn of_two_twins_in_a_slow_device_exactly_one_is_delivered() {
    for seed in 0..20 {
        let deal = Deal::default();
        let mut left = End::new(LEFT_IFACE);
        let mut right = End::slow(RIGHT_IFACE, seed);
        left.install(&deal);
        right.install(&deal);
        left.inner(&packets(1)[0]);
        left.turn();
        let wire = left.take_sent().remove(0);
        // Flushed apart, so that the copies travel in two bursts and pass the first look both.
        for _ in 0..2 {
            right.outer(&wire);
            right.esp.flush(right.now, &mut right.out);
        }
        assert_eq!(right.esp.counters().bursts, 2, "both passed the first look");
        right.turn();
        assert_eq!(right.written.len(), 1, "seed {seed}");
        assert_eq!(right.dropped(DropReason::ReplayTwin), 1, "seed {seed}");
    }
}

#[test]
fn twins_in_one_burst_are_told_apart_too() {
    let (mut left, mut right) = pair(&Deal::default());
    left.inner(&packets(1)[0]);
    left.turn();
    let wire = left.take_sent().remove(0);
    right.outer(&wire);
    right.outer(&wire);
    right.turn();
    assert_eq!((right.written.len(), right.dropped(DropReason::ReplayTwin)), (1, 1));
}

#[test]
fn a_device_that_shuffles_does_not_change_the_order_either_way() {
    for seed in 0..10 {
        let deal = Deal::default();
        let (mut left, mut right) = (End::slow(LEFT_IFACE, seed), End::slow(RIGHT_IFACE, seed + 100));
        left.install(&deal);
        right.install(&deal);
        let all = packets(60);
        for some in all.chunks(3) {
            for p in some {
                left.inner(p);
            }
            left.esp.flush(left.now, &mut left.out);
        }
        left.turn();
        for some in left.take_sent().chunks(5) {
            for wire in some {
                right.outer(wire);
            }
            right.esp.flush(right.now, &mut right.out);
        }
        right.turn();
        assert_eq!(right.take_written(), all, "seed {seed}");
        assert_eq!((left.esp.counters().holes, right.esp.counters().holes), (0, 0));
    }
}

/// Takes all submitted bursts out of the queue, done but not delivered.
fn hold(end: &mut End) -> Vec<spi::EspBurst> {
    end.esp.flush(end.now, &mut end.out);
    let mut held = Vec::new();
    end.queue.submit(&mut end.out.submit[0]).unwrap();
    while end.queue.in_flight() > 0 {
        end.queue.poll(usize::MAX, &mut |b| held.push(b));
    }
    held
}

#[test]
fn a_stuck_burst_holds_the_others_for_two_milliseconds_at_most() {
    let (mut left, _) = pair(&Deal::default());
    let mut held = Vec::new();
    for p in packets(3) {
        left.inner(&p);
        held.extend(hold(&mut left));
    }
    let stuck = held.remove(0);
    for burst in held {
        left.esp.on_done(left.now, burst, &mut left.out);
    }
    left.collect();
    assert!(left.sent.is_empty());
    let due = left.esp.poll_timeout().unwrap();
    assert_eq!(due - left.now, Duration::from_millis(2));
    left.later(Duration::from_millis(2));
    assert_eq!(left.sent.len(), 2);
    assert_eq!(left.esp.counters().holes, 1);
    left.esp.on_done(left.now, stuck, &mut left.out);
    left.collect();
    assert_eq!((left.sent.len(), left.esp.counters().late), (3, 1), "late, but not lost");
}

#[test]
fn what_finds_no_room_waits_without_a_number_and_then_drops_and_leaves_no_gap() {
    let deal = Deal::default();
    let mut left = End::with_depth(soft(), LEFT_IFACE, 2, |c| c.waiting_bursts = 4);
    let mut right = End::new(RIGHT_IFACE);
    left.install(&deal);
    right.install(&deal);
    for p in packets(20) {
        assert_eq!(left.inner(&p), Verdict::Taken);
        left.esp.flush(left.now, &mut left.out);
    }
    assert_eq!(left.out.submit[0].len(), 2, "never more than there is room for");
    assert!(left.esp.congested());
    assert_eq!(left.dropped(DropReason::Backpressure), 14);
    left.turn();
    let seqs: Vec<_> = left.sent.iter().map(|w| w.bytes[7]).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "no number was spent on a packet that never left");
    assert!(!left.esp.congested());
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 6);
    assert_eq!(left.pool.available(), 32);
}

#[test]
fn a_dry_pool_drops_and_says_that_it_is_congested() {
    let (mut left, _) = pair(&Deal::default());
    let all: Vec<_> = std::iter::from_fn(|| left.pool.take()).collect();
    assert!(left.esp.congested());
    assert_eq!(left.inner(&packets(1)[0]), Verdict::Dropped(DropReason::PoolDry));
    drop(all);
    assert_eq!(left.inner(&packets(1)[0]), Verdict::Taken);
}

#[test]
fn a_failed_burst_is_dropped_never_retried_and_a_forgetful_device_is_told_of_once() {
    let (mut left, _) = pair(&Deal::default());
    left.device.remove_sa(left.esp.sas().find(|sa| sa.spi == TO_RIGHT).unwrap().sa);
    for p in packets(5) {
        left.inner(&p);
        left.turn();
    }
    assert!(left.sent.is_empty());
    assert_eq!(left.dropped(DropReason::DeviceFault), 5);
    let stale = Event::StaleSa { child: CHILD, spi: TO_RIGHT, dir: Direction::Seal };
    assert_eq!(left.events, [stale]);
}

#[test]
fn one_bad_packet_in_a_burst_costs_that_packet_only() {
    let (mut left, _) = pair(&Deal::default());
    for p in packets(5) {
        left.inner(&p);
    }
    let mut burst = hold(&mut left).remove(0);
    burst.buf.ops_mut()[2].outcome = Outcome::Failed(spi::FaultKind::Internal.into());
    burst.buf.ops_mut()[3].at = u32::MAX;
    left.esp.on_done(left.now, burst, &mut left.out);
    left.collect();
    let seqs: Vec<_> = left.sent.iter().map(|w| w.bytes[7]).collect();
    assert_eq!((seqs, left.dropped(DropReason::DeviceFault)), (vec![1, 2, 5], 2));
}

#[test]
fn completions_of_removed_sas_and_invented_ones_are_counted_and_go_home() {
    let (mut left, mut right) = pair(&Deal::default());
    left.inner(&packets(1)[0]);
    left.turn();
    let wire = left.take_sent().remove(0);
    left.inner(&packets(1)[0]);
    let burst = hold(&mut left).remove(0);
    let summary = left.esp.remove(CHILD, TO_RIGHT, Direction::Seal).unwrap();
    assert_eq!((summary.packets, summary.spi), (2, TO_RIGHT));
    left.esp.on_done(left.now, burst, &mut left.out);
    assert_eq!(left.dropped(DropReason::SaGone), 1);

    right.outer(&wire);
    let burst = hold(&mut right).remove(0);
    right.esp.remove(CHILD, TO_RIGHT, Direction::Open).unwrap();
    let (token, sa, dir) = (burst.token, burst.sa, burst.dir);
    right.esp.on_done(right.now, burst, &mut right.out);
    assert_eq!(right.dropped(DropReason::SaGone), 1);
    let mut buf = right.pool.take().unwrap();
    buf.push_op(spi::EspOp::new(0, 10, 1)).unwrap();
    right.esp.on_done(right.now, spi::EspBurst { token, sa, dir, buf }, &mut right.out);
    assert_eq!(right.dropped(DropReason::Stray), 1, "a doubled completion");
    right.collect();
    assert!(right.written.is_empty());
    assert_eq!((left.pool.available(), right.pool.available()), (32, 32));
}

#[test]
fn after_a_reset_the_sa_goes_on_with_its_numbers() {
    let deal = Deal::default();
    let (mut left, mut right) = pair(&deal);
    left.inner(&packets(1)[0]);
    left.turn();
    left.device.begin_reset();
    left.inner(&packets(1)[0]);
    left.esp.flush(left.now, &mut left.out);
    // Whether the queue takes the burst and fails it, or refuses it: it comes back through `on_done`.
    if left.queue.submit(&mut left.out.submit[0]).is_err() {
        let burst = left.out.submit[0].pop_front().unwrap();
        left.esp.on_done(left.now, burst, &mut left.out);
    }
    let mut waited = 0;
    while left.device.health() != spi::Health::Ready || left.queue.in_flight() > 0 {
        left.step();
        waited += 1;
        assert!(waited < 1000);
    }
    assert_eq!(left.dropped(DropReason::DeviceFault), 1);
    let sa = left.keys(&deal, TO_RIGHT, Direction::Seal);
    assert!(left.esp.move_sa(CHILD, TO_RIGHT, Direction::Seal, (0, sa), &mut left.out));
    assert!(!left.esp.move_sa(CHILD, TO_RIGHT, Direction::Seal, (9, sa), &mut left.out));
    assert!(!left.esp.move_sa(CHILD, 0x9999, Direction::Open, (0, sa), &mut left.out));
    left.inner(&packets(1)[0]);
    left.turn();
    let numbers: Vec<_> = left.sent.iter().map(|w| w.bytes[7]).collect();
    assert_eq!(numbers, [1, 3], "a number is lost, none is used twice");
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 2);
}

#[test]
fn what_waits_for_a_dead_device_leaves_through_the_new_one() {
    let deal = Deal::default();
    let mut left = End::with_depth(soft(), LEFT_IFACE, 4, |_| {});
    left.install(&deal);
    left.esp.set_room(0, 0);
    for p in packets(3) {
        left.inner(&p);
        left.esp.flush(left.now, &mut left.out);
    }
    assert!(left.out.submit.iter().all(|q| q.is_empty()));
    let second = left.esp.add_device(4);
    let sa = left.esp.sas().find(|sa| sa.spi == TO_RIGHT).unwrap().sa;
    assert!(left.esp.move_sa(CHILD, TO_RIGHT, Direction::Seal, (second, sa), &mut left.out));
    left.turn();
    let numbers: Vec<_> = left.sent.iter().map(|w| w.bytes[7]).collect();
    assert_eq!(numbers, [1, 2, 3]);
}
