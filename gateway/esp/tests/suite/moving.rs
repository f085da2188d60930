//! SAs that leave their device, devices that are down, and bursts that never come back.

use std::sync::Arc;

use esp::{DropReason, Verdict};
use spi::{Device, Direction, EspBurst, EspQueue, FaultKind, Outcome, QueueConfig, SaId};

use crate::rig::*;

/// A second device at an end.
struct Second {
    device: Arc<dyn Device>,
    queue: Box<EspQueue>,
    number: usize,
}

impl Second {
    fn at(end: &mut End) -> Second {
        let device = soft();
        let queue = device.esp_queue(QueueConfig { depth: 8, cpu: None }).unwrap();
        let number = end.esp.add_device(queue.room());
        Second { device, queue, number }
    }

    /// Moves an end's outbound SA here.
    fn take(&self, end: &mut End) -> SaId {
        // Keys are made by the end, for its device: the same ones here.
        let own = std::mem::replace(&mut end.device, Arc::clone(&self.device));
        let sa = end.keys(&Deal::default(), TO_RIGHT, Direction::Seal);
        end.device = own;
        let to = (self.number, sa);
        assert!(end.esp.move_sa(CHILD, TO_RIGHT, Direction::Seal, to, &mut end.out));
        sa
    }

    /// Does what was submitted here.
    fn work(&mut self, end: &mut End) {
        if let Some(jobs) = end.out.submit.get_mut(self.number) {
            self.queue.submit(jobs).unwrap();
        }
        let (esp, out, now) = (&mut end.esp, &mut end.out, end.now);
        while self.queue.in_flight() > 0 {
            self.queue.poll(usize::MAX, &mut |burst| esp.on_done(now, burst, out));
        }
        end.collect();
    }
}

fn packet(port: u16) -> Vec<u8> {
    udp4("10.1.0.1", "10.2.0.1", (port, 2), 200)
}

fn send(end: &mut End, port: u16) {
    assert_eq!(end.inner(&packet(port)), Verdict::Taken);
    end.esp.flush(end.now, &mut end.out);
}

/// Takes what was submitted to the first device out of it, done but not delivered.
fn hold(end: &mut End) -> Vec<EspBurst> {
    let mut held = Vec::new();
    end.queue.submit(&mut end.out.submit[0]).unwrap();
    while end.queue.in_flight() > 0 {
        end.queue.poll(usize::MAX, &mut |burst| held.push(burst));
    }
    held
}

fn numbers(end: &End) -> Vec<u8> {
    end.sent.iter().map(|wire| wire.bytes[7]).collect()
}

fn the_sa(end: &End) -> SaId {
    end.esp.sas().find(|sa| sa.spi == TO_RIGHT).unwrap().sa
}

#[test]
fn an_sa_that_moves_under_traffic_keeps_its_numbers_and_its_order() {
    let (mut left, mut right) = pair(&Deal::default());
    let mut second = Second::at(&mut left);
    let old = the_sa(&left);
    (0..3).for_each(|port| send(&mut left, port));
    let mut held = hold(&mut left);
    assert_eq!(held.len(), 3);
    let new = second.take(&mut left);
    assert_eq!(the_sa(&left), new);
    (3..6).for_each(|port| send(&mut left, port));
    assert!(left.out.submit[0].is_empty(), "the old device gets nothing more");
    second.work(&mut left);
    assert!(left.sent.is_empty(), "what was sent before goes first");
    // One of them comes home aborted, as a reset would have it.
    held[1].buf.ops_mut()[0].outcome = Outcome::Failed(FaultKind::Aborted.into());
    for burst in held {
        assert!(left.out.left.is_empty(), "the old handle is still in use");
        left.esp.on_done(left.now, burst, &mut left.out);
    }
    left.collect();
    assert_eq!(left.out.left, [(0, old)], "and now it is not");
    assert_eq!(numbers(&left), [1, 3, 4, 5, 6]);
    assert_eq!(left.dropped(DropReason::DeviceFault), 1);
    assert_eq!(left.esp.lines().next().unwrap().faults.aborted, 1);
    assert!(left.events.is_empty(), "{:?}", left.events);
    carry(&mut left, &mut right);
    assert_eq!(right.written.len(), 5);
    assert_eq!(left.pool.available(), 32);
}

#[test]
fn a_handle_on_which_nothing_is_out_is_left_at_once() {
    let (mut left, _) = pair(&Deal::default());
    let mut second = Second::at(&mut left);
    let old = the_sa(&left);
    second.take(&mut left);
    assert_eq!(left.out.left.pop_front(), Some((0, old)));
    send(&mut left, 1);
    second.work(&mut left);
    assert_eq!(numbers(&left), [1]);
    // Moving to where it is is no move.
    let (child, sa) = (CHILD, the_sa(&left));
    assert!(left.esp.move_sa(child, TO_RIGHT, Direction::Seal, (second.number, sa), &mut left.out));
    assert!(left.out.left.is_empty());
}

#[test]
fn a_stale_handle_that_was_left_is_nobodys_business() {
    let (mut left, _) = pair(&Deal::default());
    let mut second = Second::at(&mut left);
    send(&mut left, 1);
    let mut held = hold(&mut left);
    second.take(&mut left);
    held[0].buf.ops_mut()[0].outcome = Outcome::Failed(FaultKind::StaleHandle.into());
    left.esp.on_done(left.now, held.remove(0), &mut left.out);
    left.collect();
    assert!(left.events.is_empty());
    send(&mut left, 2);
    second.work(&mut left);
    assert_eq!(numbers(&left), [2]);
}

#[test]
fn what_never_comes_back_is_given_up_and_is_a_stray_when_it_comes_after_all() {
    let (mut left, _) = pair(&Deal::default());
    let mut second = Second::at(&mut left);
    let old = the_sa(&left);
    send(&mut left, 1);
    assert!(left.esp.tick(2, &mut left.out).is_empty());
    send(&mut left, 2);
    let held = hold(&mut left);
    second.take(&mut left);
    assert_eq!(left.esp.tick(2, &mut left.out), [0], "the first");
    assert_eq!(left.esp.tick(2, &mut left.out), [0], "the second");
    assert!(left.esp.tick(2, &mut left.out).is_empty());
    assert_eq!(left.out.left, [(0, old)], "nobody waits for it");
    assert_eq!((left.dropped(DropReason::DeviceLost), left.esp.lines().next().unwrap().lost), (2, 2));
    send(&mut left, 3);
    second.work(&mut left);
    assert!(numbers(&left).is_empty(), "those before it may still come, as far as the order knows");
    left.later(std::time::Duration::from_millis(2));
    assert_eq!(numbers(&left), [3], "but not for long");
    for burst in held {
        left.esp.on_done(left.now, burst, &mut left.out);
    }
    left.collect();
    assert_eq!((numbers(&left), left.dropped(DropReason::Stray)), (vec![3], 2));
    assert_eq!(left.pool.available(), 32);
}

#[test]
fn a_device_that_is_down_costs_neither_numbers_nor_buffers_nor_the_others_anything() {
    let deal = Deal::default();
    let mut left = End::with_depth(soft(), LEFT_IFACE, 1, |config| config.waiting_bursts = 4);
    left.install(&deal);
    let mut second = Second::at(&mut left);
    (1..6).for_each(|port| send(&mut left, port));
    assert!(left.esp.congested(), "one is out, four wait");
    left.esp.set_down(0, true);
    assert_eq!(left.dropped(DropReason::DeviceDown), 4);
    assert!(!left.esp.congested());
    (6..50).for_each(|port| send(&mut left, port));
    assert_eq!(left.dropped(DropReason::DeviceDown), 48);
    assert_eq!((left.out.submit[0].len(), left.pool.available()), (1, 31));
    second.take(&mut left);
    send(&mut left, 50);
    second.work(&mut left);
    left.turn();
    assert_eq!(numbers(&left), [1, 2], "no number was spent on what never left");
    left.esp.set_down(0, false);
    let own = left.keys(&deal, TO_RIGHT, Direction::Seal);
    assert!(left.esp.move_sa(CHILD, TO_RIGHT, Direction::Seal, (0, own), &mut left.out));
    send(&mut left, 51);
    left.turn();
    assert_eq!(numbers(&left), [1, 2, 3]);
}
