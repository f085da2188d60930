//! What goes between threads: orders to a lane, packets to the lane that has their SA, reports to the thread with the key
//! exchange. Every queue is bounded, none has a lock, and a bell is rung only for somebody who sleeps.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use esp::HandOver;
use spi::Doorbell;

use super::order::{Order, Report};

/// Orders and reports that may be under way at a time; more wait with the sender, who counts on them.
const ORDERS: usize = 1024;
/// Packets that may be under way to one lane, of either kind. Each is a superpacket at most.
const PACKETS: usize = 64;
const CRITICAL: usize = 64;

/// A bell with a sleeper.
struct Bed {
    bell: Doorbell,
    asleep: AtomicBool,
}

impl Bed {
    fn new() -> io::Result<Bed> {
        Ok(Bed { bell: Doorbell::new()?, asleep: AtomicBool::new(false) })
    }

    /// Something was put where the sleeper looks when it wakes.
    fn wake(&self) {
        // Either the sleeper sees what was put before it lies down, or we see that it lay down before.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    fn lie_down(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// `rung`: the bell was heard. It may be of an earlier sleep, and rings until it is answered.
    fn get_up(&self, rung: bool) {
        if !self.asleep.swap(false, Ordering::AcqRel) || rung {
            self.bell.answer();
        }
    }
}

/// What one lane gets from others.
pub(crate) struct Letterbox {
    orders: ArrayQueue<Order>,
    critical: ArrayQueue<HandOver>,
    packets: ArrayQueue<HandOver>,
    refused: AtomicU64,
    bed: Bed,
}

impl Letterbox {
    /// An empty one.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub(crate) fn new() -> io::Result<Arc<Letterbox>> {
        Ok(Arc::new(Letterbox {
            orders: ArrayQueue::new(ORDERS),
            critical: ArrayQueue::new(CRITICAL),
            packets: ArrayQueue::new(PACKETS),
            refused: AtomicU64::new(0),
            bed: Bed::new()?,
        }))
    }

    /// Puts in a packet; one for which there is no room is counted and gone.
    pub(crate) fn hand_over(&self, packet: HandOver) {
        let queue = if packet.critical { &self.critical } else { &self.packets };
        match queue.push(packet) {
            Ok(()) => self.bed.wake(),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn take_order(&self) -> Option<Order> {
        self.orders.pop()
    }

    pub(crate) fn take_critical(&self) -> Option<HandOver> {
        self.critical.pop()
    }

    pub(crate) fn take_packet(&self) -> Option<HandOver> {
        self.packets.pop()
    }

    /// Whether there is anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.critical.is_empty() && self.packets.is_empty()
    }

    /// Packets that wait: critical and others; and those for which there was no room.
    pub(crate) fn gauge(&self) -> (usize, usize, u64) {
        (self.critical.len(), self.packets.len(), self.refused.load(Ordering::Relaxed))
    }

    /// The owner goes to sleep unless [`is_empty`](Letterbox::is_empty) says no after this.
    pub(crate) fn lie_down(&self) {
        self.bed.lie_down();
    }

    /// The owner is awake, and may have heard the bell.
    pub(crate) fn get_up(&self, rung: bool) {
        self.bed.get_up(rung);
    }
}

impl AsFd for Letterbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bed.bell.as_fd()
    }
}

/// Orders to one lane, with a waiting line before its letterbox: an order may be late, but not lost.
pub(crate) struct OrderBook {
    to: Arc<Letterbox>,
    waiting: VecDeque<Order>,
}

impl OrderBook {
    pub(crate) fn new(to: Arc<Letterbox>) -> OrderBook {
        OrderBook { to, waiting: VecDeque::new() }
    }

    /// Gives an order.
    pub(crate) fn give(&mut self, order: Order) {
        self.waiting.push_back(order);
        self.push();
    }

    /// Tries again what found no room; true when something still waits.
    pub(crate) fn push(&mut self) -> bool {
        let mut any = false;
        while let Some(order) = self.waiting.pop_front() {
            if let Err(order) = self.to.orders.push(order) {
                self.waiting.push_front(order);
                break;
            }
            any = true;
        }
        if any {
            self.to.bed.wake();
        }
        !self.waiting.is_empty()
    }
}

/// Where reports of all lanes go.
pub(crate) struct Inbox {
    reports: ArrayQueue<(u16, Report)>,
    bed: Bed,
}

impl Inbox {
    /// An empty one.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub(crate) fn new() -> io::Result<Arc<Inbox>> {
        Ok(Arc::new(Inbox { reports: ArrayQueue::new(ORDERS), bed: Bed::new()? }))
    }

    /// Puts in reports until there is no room; the others stay.
    pub(crate) fn put(&self, lane: u16, reports: &mut VecDeque<Report>) {
        let mut any = false;
        while let Some(report) = reports.pop_front() {
            if let Err((_, report)) = self.reports.push((lane, report)) {
                reports.push_front(report);
                break;
            }
            any = true;
        }
        if any {
            self.bed.wake();
        }
    }

    /// Something that wakes the reader when it is dropped, however that comes about.
    pub(crate) fn farewell(&self) -> impl Drop + use<> {
        struct Farewell(Doorbell);
        impl Drop for Farewell {
            fn drop(&mut self) {
                self.0.ring();
            }
        }
        Farewell(self.bed.bell.clone())
    }

    pub(crate) fn take(&self) -> Option<(u16, Report)> {
        self.reports.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    pub(crate) fn lie_down(&self) {
        self.bed.lie_down();
    }

    pub(crate) fn get_up(&self, rung: bool) {
        self.bed.get_up(rung);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bed.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::epoll::Epoll;
    use std::time::Duration;

    #[test]
    fn orders_are_never_lost_and_keep_their_order() {
        let letterbox = Letterbox::new().unwrap();
        let mut book = OrderBook::new(Arc::clone(&letterbox));
        for spi in 0..3000 {
            book.give(Order::UseOutbound { line: esp::ChildId(1), spi });
        }
        let mut seen = Vec::new();
        while seen.len() < 3000 {
            while let Some(order) = letterbox.take_order() {
                let Order::UseOutbound { spi, .. } = order else { panic!() };
                seen.push(spi);
            }
            book.push();
        }
        assert_eq!(seen, (0..3000).collect::<Vec<_>>());
        assert!(!book.push() && letterbox.is_empty());
    }

    #[test]
    fn nobody_sleeps_through_an_order() {
        let letterbox = Letterbox::new().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&*letterbox, 1).unwrap();
        let owner = std::thread::spawn({
            let letterbox = Arc::clone(&letterbox);
            move || {
                let mut seen = 0;
                while seen < 20_000 {
                    letterbox.lie_down();
                    let mut rung = false;
                    if letterbox.is_empty() {
                        // Long enough for the test to hang visibly, should a ring be missing.
                        epoll.wait(Some(Duration::from_secs(30)), |_| rung = true).unwrap();
                    }
                    letterbox.get_up(rung);
                    while letterbox.take_order().is_some() {
                        seen += 1;
                    }
                }
                seen
            }
        });
        let mut book = OrderBook::new(letterbox);
        let begun = std::time::Instant::now();
        for spi in 0..20_000 {
            book.give(Order::UseOutbound { line: esp::ChildId(1), spi });
            if spi % 7 == 0 {
                std::thread::yield_now();
            }
        }
        while book.push() {
            std::thread::yield_now();
        }
        assert_eq!(owner.join().unwrap(), 20_000);
        assert!(begun.elapsed() < Duration::from_secs(25), "somebody waited for a bell that did not ring");
    }
}
