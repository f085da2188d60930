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
