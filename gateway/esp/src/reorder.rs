//! Bursts leave an SA in the order in which they were given to the device, whatever order the device finishes in.
//!
//! TCP takes shuffled packets for lost ones. The wait is bounded twice: in bursts held back, and in time. A burst whose
//! place was given up is let out as soon as it comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Places in the order that may be open at a time; beyond that the oldest is given up.
const MAX_SPAN: usize = 256;

/// The order of one SA in one direction.
pub(crate) struct Reorder<T> {
    /// Number of the first place not let out yet.
    head: u64,
    /// Number of the next place to give.
    tail: u64,
    /// Places from `head` on that matter: `None` is still in the device.
    held: VecDeque<Option<T>>,
    /// How many of `held` are there.
    waiting: usize,
    /// When the oldest of those waiting must be let out.
    deadline: Option<Instant>,
}

/// What a completion or a timeout let out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// Places given up.
    pub(crate) holes: u64,
    /// The completion came after its place was given up.
    pub(crate) late: bool,
}

impl<T> Reorder<T> {
    pub(crate) const fn new() -> Self {
        Reorder { head: 0, tail: 0, held: VecDeque::new(), waiting: 0, deadline: None }
    }

    /// The next place. Call it when the burst is given to the device.
    pub(crate) fn place(&mut self) -> u64 {
        self.tail += 1;
        self.tail - 1
    }

    /// What had this place has come back. `release` gets everything that may leave now, in order.
    pub(crate) fn done(
        &mut self,
        place: u64,
        what: T,
        now: Instant,
        hold: Duration,
        mut release: impl FnMut(T),
    ) -> Released {
        let mut released = Released::default();
        if place < self.head {
            released.late = true;
            release(what);
            return released;
        }
        if place == self.head && self.waiting == 0 {
            // The common case: nobody was waiting for this one.
            self.head += 1;
            self.held.pop_front();
            release(what);
            return released;
        }
        let index = (place - self.head) as usize;
        while self.held.len() <= index {
            self.held.push_back(None);
        }
        if self.held[index].replace(what).is_none() {
            self.waiting += 1;
        }
        self.let_out(&mut release);
        while self.held.len() > MAX_SPAN {
            released.holes += self.skip_hole();
            self.let_out(&mut release);
        }
        self.arm(now, hold);
        released
    }

    /// Lets out everything that waits when its time is over.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        hold: Duration,
        mut release: impl FnMut(T),
    ) -> Released {
        let mut released = Released::default();
        if self.deadline.is_some_and(|at| at <= now) {
            released.holes += self.skip_hole();
            self.let_out(&mut release);
            self.deadline = None;
            self.arm(now, hold);
        }
        released
    }

    /// When [`handle_timeout`](Reorder::handle_timeout) wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn let_out(&mut self, release: &mut impl FnMut(T)) {
        while let Some(Some(_)) = self.held.front() {
            if let Some(Some(what)) = self.held.pop_front() {
                self.head += 1;
                self.waiting -= 1;
                self.deadline = None;
                release(what);
            }
        }
    }

    fn skip_hole(&mut self) -> u64 {
        let mut holes = 0;
        while let Some(None) = self.held.front() {
            self.held.pop_front();
            self.head += 1;
            holes += 1;
        }
        holes
    }

    fn arm(&mut self, now: Instant, hold: Duration) {
        if self.waiting == 0 {
            self.held.clear();
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = Some(now + hold);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_millis(2);

    #[test]
    fn shuffled_completions_leave_in_the_order_of_submission() {
        let now = Instant::now();
        let mut r = Reorder::new();
        let mut out = Vec::new();
        let places: Vec<u64> = (0..5).map(|_| r.place()).collect();
        for i in [2, 0, 4, 1, 3] {
            r.done(places[i], i, now, HOLD, |x| out.push(x));
        }
        assert_eq!(out, [0, 1, 2, 3, 4]);
        assert_eq!(r.deadline(), None);
    }

    #[test]
    fn a_hole_is_given_up_when_its_time_is_over_and_the_late_one_still_leaves() {
        let now = Instant::now();
        let mut r = Reorder::new();
        let mut out = Vec::new();
        let (a, b) = (r.place(), r.place());
        r.done(b, "b", now, HOLD, |x| out.push(x));
        assert!(out.is_empty());
        assert_eq!(r.deadline(), Some(now + HOLD));
        assert_eq!(r.handle_timeout(now + HOLD / 2, HOLD, |x| out.push(x)).holes, 0);
        assert_eq!(r.handle_timeout(now + HOLD, HOLD, |x| out.push(x)).holes, 1);
        assert_eq!(out, ["b"]);
        assert!(r.done(a, "a", now, HOLD, |x| out.push(x)).late);
        assert_eq!(out, ["b", "a"]);
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let now = Instant::now();
        let mut r = Reorder::new();
        let mut out = Vec::new();
        r.place();
        let mut holes = 0;
        for i in 1..2000u64 {
            let place = r.place();
            holes += r.done(place, i, now, HOLD, |x| out.push(x)).holes;
            assert!(i as usize - out.len() <= MAX_SPAN);
        }
        assert_eq!(holes, 1);
        assert_eq!(out, (1..2000).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn any_completion_order_without_timeouts_is_put_right(order in Just((0..60u64).collect::<Vec<_>>()).prop_shuffle()) {
            let now = Instant::now();
            let mut r = Reorder::new();
            let mut out = Vec::new();
            for _ in &order { r.place(); }
            for place in order {
                let released = r.done(place, place, now, HOLD, |x| out.push(x));
                prop_assert_eq!(released, Released::default());
            }
            prop_assert_eq!(out, (0..60).collect::<Vec<_>>());
            prop_assert_eq!(r.deadline(), None);
        }
    }
}
