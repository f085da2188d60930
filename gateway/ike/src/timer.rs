//! Deadlines in order. Deterministic: equal deadlines fall due in the order they were set.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// A queue of deadlines, at most one for each key.
pub struct Timers<K> {
    due: BTreeMap<(Instant, u64), K>,
    place: HashMap<K, (Instant, u64)>,
    armed: u64,
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// No deadlines.
    pub fn new() -> Self {
        Timers { due: BTreeMap::new(), place: HashMap::new(), armed: 0 }
    }

    /// Sets the deadline of `key`, in place of the one it had.
    pub fn arm(&mut self, key: K, at: Instant) {
        self.disarm(&key);
        let place = (at, self.armed);
        self.armed += 1;
        self.due.insert(place, key.clone());
        self.place.insert(key, place);
    }

    /// Takes the deadline of `key` away; whether there was one.
    pub fn disarm(&mut self, key: &K) -> bool {
        match self.place.remove(key) {
            Some(place) => self.due.remove(&place).is_some(),
            None => false,
        }
    }

    /// The earliest key whose deadline is not after `now`, taken out.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let first = self.due.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        self.place.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The deadline of `key`.
    pub fn at(&self, key: &K) -> Option<Instant> {
        self.place.get(key).map(|(at, _)| *at)
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

impl<K: Clone + Eq + Hash> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn equal_deadlines_fall_due_in_the_order_they_were_set() {
        let (t0, mut timers) = (Instant::now(), Timers::new());
        for key in [5, 3, 9, 1] {
            timers.arm(key, t0);
        }
        timers.arm(3, t0); // Set anew, it goes last.
        let order: Vec<i32> = std::iter::from_fn(|| timers.pop_due(t0)).collect();
        assert_eq!(order, [5, 9, 1, 3]);
        assert!(timers.is_empty() && timers.next().is_none());
    }

    #[test]
    fn nothing_falls_due_early_and_disarmed_keys_never() {
        let (t0, mut timers) = (Instant::now(), Timers::new());
        let s = Duration::from_secs;
        timers.arm("a", t0 + s(2));
        timers.arm("b", t0 + s(1));
        timers.arm("c", t0 + s(3));
        assert_eq!(timers.next(), Some(t0 + s(1)));
        assert!(timers.disarm(&"b") && !timers.disarm(&"b"));
        assert_eq!(timers.pop_due(t0 + s(1)), None);
        timers.arm("a", t0 + s(9));
        assert_eq!((timers.len(), timers.at(&"a")), (2, Some(t0 + s(9))));
        assert_eq!(timers.pop_due(t0 + s(10)), Some("c"));
        assert_eq!(timers.pop_due(t0 + s(10)), Some("a"));
        assert_eq!(timers.pop_due(t0 + s(10)), None);
    }

    proptest! {
        #[test]
        fn the_queue_agrees_with_a_sorted_list(ops in prop::collection::vec((0u8..8, 0u64..20, any::<bool>()), 0..60)) {
            let (t0, mut timers, mut model) = (Instant::now(), Timers::new(), Vec::new());
            for (i, (key, at, arm)) in ops.into_iter().enumerate() {
                model.retain(|(_, _, k)| *k != key);
                if arm {
                    model.push((at, i, key));
                    timers.arm(key, t0 + Duration::from_secs(at));
                } else {
                    timers.disarm(&key);
                }
            }
            model.sort();
            prop_assert_eq!(timers.len(), model.len());
            for (at, _, key) in model {
                let at = t0 + Duration::from_secs(at);
                prop_assert_eq!(timers.next(), Some(at));
                prop_assert_eq!(timers.pop_due(at), Some(key));
            }
            prop_assert!(timers.is_empty());
        }
    }
}
