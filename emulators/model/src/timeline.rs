//! What is to happen, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Events by the time they are due; of those that are due together, first in is first out.
#[derive(Debug)]
pub struct Timeline<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    entered: u64,
}

#[derive(Debug)]
struct Entry<E> {
    due: Time,
    order: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<E> Default for Timeline<E> {
    fn default() -> Self {
        Timeline { heap: BinaryHeap::new(), entered: 0 }
    }
}

impl<E> Timeline<E> {
    /// Enters an event.
    pub fn enter(&mut self, due: Time, event: E) {
        self.heap.push(Reverse(Entry { due, order: self.entered, event }));
        self.entered += 1;
    }

    /// Takes the first event, if it is due by `now`.
    pub fn take_due(&mut self, now: Time) -> Option<(Time, E)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.due, entry.event))
    }

    /// Forgets everything for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&E) -> bool) {
        self.heap.retain(|Reverse(entry)| keep(&entry.event));
    }

    /// When the first event is due.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.due)
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_when_due_and_in_the_order_they_were_entered() {
        let mut line = Timeline::default();
        for (due, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'x')] {
            line.enter(Time::from_nanos(due), event);
        }
        line.retain(|event| *event != 'x');
        assert_eq!(line.take_due(Time::ZERO), None);
        assert_eq!(line.next(), Some(Time::from_nanos(1)));
        let mut seen = String::new();
        while let Some((_, event)) = line.take_due(Time::from_nanos(5)) {
            seen.push(event);
        }
        assert_eq!(seen, "abcd");
        assert!(line.is_empty());
    }
}
