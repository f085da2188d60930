//! Deadlines in order. Deterministic: equal deadlines fall due in the order of their keys.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// A queue of deadlines, at most one for each key.
///
/// There are several for each IKE SA, and for long, so each is small: nanoseconds since the queue was made, which last for five
/// hundred years. What is further away never falls due.
pub struct Timers<K> {
    base: Instant,
    due: BTreeSet<(u64, K)>,
    place: HashMap<K, u64>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    /// No deadlines; none will be before `base`.
    pub fn new(base: Instant) -> Self {
        Timers { base, due: BTreeSet::new(), place: HashMap::new() }
    }

    /// Sets the deadline of `key`, in place of the one it had.
    pub fn arm(&mut self, key: K, at: Instant) {
        let Ok(at) = u64::try_from(at.saturating_duration_since(self.base).as_nanos()) else {
            self.disarm(&key);
            return;
        };
        if let Some(before) = self.place.insert(key, at) {
            self.due.remove(&(before, key));
        }
        self.due.insert((at, key));
    }

    /// Takes the deadline of `key` away; whether there was one.
    pub fn disarm(&mut self, key: &K) -> bool {
        match self.place.remove(key) {
            Some(at) => self.due.remove(&(at, *key)),
            None => false,
        }
    }

    /// The earliest key whose deadline is not after `now`, taken out.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.due.first()?;
        if self.instant(at) > now {
            return None;
        }
        self.due.remove(&(at, key));
        self.place.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| self.instant(*at))
    }

    /// The deadline of `key`.
    pub fn at(&self, key: &K) -> Option<Instant> {
        self.place.get(key).map(|at| self.instant(*at))
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    fn instant(&self, at: u64) -> Instant {
        // It came from an instant, so there is one.
        self.base.checked_add(Duration::from_nanos(at)).unwrap_or(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_deadlines_fall_due_in_the_order_of_their_keys() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        for key in [5, 3, 9, 1, 3] {
            timers.arm(key, t0);
        }
        let order: Vec<i32> = std::iter::from_fn(|| timers.pop_due(t0)).collect();
        assert_eq!(order, [1, 3, 5, 9]);
        assert!(timers.is_empty() && timers.next().is_none());
    }

    #[test]
    fn nothing_falls_due_early_and_disarmed_keys_never() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        let s = Duration::from_secs;
        timers.arm('a', t0 + s(2));
        timers.arm('b', t0 + s(1));
        timers.arm('c', t0 + s(3));
        assert_eq!(timers.next(), Some(t0 + s(1)));
        assert!(timers.disarm(&'b') && !timers.disarm(&'b'));
        assert_eq!(timers.pop_due(t0 + s(2) - Duration::from_nanos(1)), None);
        timers.arm('a', t0 + s(9));
        assert_eq!((timers.len(), timers.at(&'a')), (2, Some(t0 + s(9))));
        assert_eq!(timers.pop_due(t0 + s(10)), Some('c'));
        assert_eq!(timers.pop_due(t0 + s(10)), Some('a'));
        assert_eq!(timers.pop_due(t0 + s(10)), None);
    }

    #[test]
    fn what_is_centuries_away_is_no_deadline_and_takes_the_old_one_away() {
        let t0 = Instant::now();
        let mut timers = Timers::new(t0);
        timers.arm('a', t0);
        timers.arm('a', t0 + Duration::from_secs(600 * 366 * 86_400));
        assert!(timers.is_empty() && timers.at(&'a').is_none());
    }

    proptest! {
        #[test]
        fn the_queue_agrees_with_a_sorted_list(ops in prop::collection::vec((0u8..8, 0u64..20, any::<bool>()), 0..60)) {
            let t0 = Instant::now();
            let (mut timers, mut model) = (Timers::new(t0), Vec::new());
            for (key, at, arm) in ops {
                model.retain(|(_, k)| *k != key);
                if arm {
                    model.push((at, key));
                    timers.arm(key, t0 + Duration::from_secs(at));
                } else {
                    timers.disarm(&key);
                }
            }
            model.sort_unstable();
            prop_assert_eq!(timers.len(), model.len());
            for (at, key) in model {
                let at = t0 + Duration::from_secs(at);
                prop_assert_eq!(timers.next(), Some(at));
                prop_assert_eq!(timers.pop_due(at), Some(key));
            }
            prop_assert!(timers.is_empty());
        }
    }
}
