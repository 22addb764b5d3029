//! What is going to happen, by true time; at the same time, in the order in which it was put in.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    next_sequence: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at_ms: u64,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self { heap: BinaryHeap::new(), next_sequence: 0 }
    }

    pub(crate) fn put(&mut self, at_ms: u64, event: E) {
        self.heap.push(Entry { at_ms, sequence: self.next_sequence, event });
        self.next_sequence += 1;
    }

    pub(crate) fn take(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|entry| (entry.at_ms, entry.event))
    }
}

impl<E> Entry<E> {
    const fn key(&self) -> (u64, u64) {
        (self.at_ms, self.sequence)
    }
}

// The heap gives its greatest entry first: the earliest is the greatest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut queue = Queue::new();
        for (at_ms, event) in [(5, "c"), (3, "a"), (5, "d"), (4, "b")] {
            queue.put(at_ms, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(_, event)| event).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}
