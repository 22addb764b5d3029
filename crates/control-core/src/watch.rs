//! The recent past: applied batches for watchers, each of which keeps its own place. Never waits for the slowest one.

use crate::io::AppliedBatch;
use domain::id::Revision;
use mutants::{Mutant, is_on};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many events are kept for watchers.
pub const EVENTS_MAX: usize = 65_536;
/// How much of the log they may have taken: a few large objects would be as much as all small ones together.
pub const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many batches one poll returns.
pub const POLL_BATCHES_MAX: usize = 256;

/// The latest batches, oldest first.
#[derive(Clone, Debug)]
pub struct Ring {
    events_max: usize,
    event_count: usize,
    log_bytes: usize,
    /// The revision before the first batch.
    floor: Revision,
    batches: VecDeque<Arc<AppliedBatch>>,
}

/// What a watcher gets.
#[derive(Clone, Debug)]
pub enum Poll {
    /// The batches after its place, in order, without holes.
    Next(Vec<Arc<AppliedBatch>>),
    /// Its place is no longer known: it has to list and begin at `floor` or later.
    Compacted {
        /// The oldest place that is known.
        floor: Revision,
    },
    /// Nothing came since.
    UpToDate,
}

impl Ring {
    /// A ring without a past before `revision`.
    #[must_use]
    pub fn new(revision: Revision, events_max: usize) -> Self {
        Self { events_max, event_count: 0, log_bytes: 0, floor: revision, batches: VecDeque::new() }
    }

    /// Adds the batch that was applied next.
    pub fn push(&mut self, applied: Arc<AppliedBatch>) {
        assert_eq!(applied.batch.base, self.revision(), "a watcher would miss events");
        self.event_count += applied.batch.events.len();
        self.log_bytes += applied.log_bytes;
        self.batches.push_back(applied);
        // One batch may be larger than the limit; it is kept until the next one comes.
        while self.is_over() && 1 < self.batches.len() {
            let oldest = self.batches.pop_front().expect("invariant: there are two");
            self.event_count -= oldest.batch.events.len();
            self.log_bytes -= oldest.log_bytes;
            self.floor = oldest.revision;
        }
    }

    const fn is_over(&self) -> bool {
        self.events_max < self.event_count || LOG_BYTES_MAX < self.log_bytes
    }

    /// Forgets everything: the state jumped to `revision`.
    pub fn reset(&mut self, revision: Revision) {
        *self = Self::new(revision, self.events_max);
    }

    /// The revision after the last batch.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.batches.back().map_or(self.floor, |last| last.revision)
    }

    /// The batches that contain events after `cursor`. A cursor in the middle of a batch gets all of that batch.
    #[must_use]
    pub fn poll(&self, cursor: Revision) -> Poll {
        if cursor < self.floor && !is_on(Mutant::WatchSkipsOnCompaction) {
            return Poll::Compacted { floor: self.floor };
        }
        let first = self.batches.partition_point(|applied| applied.revision <= cursor);
        let next: Vec<_> = self.batches.range(first..).take(POLL_BATCHES_MAX).cloned().collect();
        if next.is_empty() { Poll::UpToDate } else { Poll::Next(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Batch, Event, State};

    fn ring_of(batch_count: u64, events_max: usize) -> Ring {
        ring_of_bytes(batch_count, events_max, 100)
    }

    fn ring_of_bytes(batch_count: u64, events_max: usize, log_bytes: usize) -> Ring {
        let mut state = State::default();
        let mut ring = Ring::new(Revision(0), events_max);
        for _ in 0..batch_count {
            let events = vec![Event::NodeCordoned { node: "n1".into() }, Event::NodeUncordoned { node: "n1".into() }];
            let batch = Batch { base: state.revision, events, ..Batch::default() };
            assert!(state.apply_batch(&batch));
            ring.push(Arc::new(AppliedBatch::new(batch, &state, log_bytes)));
        }
        ring
    }

    #[test]
    fn a_watcher_gets_every_batch_after_its_place() {
        let ring = ring_of(3, 100);
        let Poll::Next(next) = ring.poll(Revision(2)) else { panic!("two batches follow") };
        assert_eq!(next.iter().map(|applied| applied.revision).collect::<Vec<_>>(), [Revision(4), Revision(6)]);
        assert!(matches!(ring.poll(Revision(6)), Poll::UpToDate));
    }

    #[test]
    fn a_watcher_that_is_too_far_behind_is_told_so() {
        let ring = ring_of(5, 4);
        assert!(matches!(ring.poll(Revision(2)), Poll::Compacted { floor: Revision(6) }));
        assert!(matches!(ring.poll(Revision(6)), Poll::Next(next) if next.len() == 2));
    }

    #[test]
    fn of_large_batches_fewer_are_kept() {
        let ring = ring_of_bytes(5, 100, LOG_BYTES_MAX / 2);
        assert!(matches!(ring.poll(Revision(4)), Poll::Compacted { floor: Revision(6) }));
        let ring = ring_of_bytes(5, 100, LOG_BYTES_MAX + 1);
        assert!(matches!(ring.poll(Revision(8)), Poll::Next(next) if next.len() == 1), "the newest is kept");
    }

    #[test]
    fn a_jump_of_the_state_compacts_everything() {
        let mut ring = ring_of(2, 100);
        ring.reset(Revision(50));
        assert!(matches!(ring.poll(Revision(4)), Poll::Compacted { floor: Revision(50) }));
        assert!(matches!(ring.poll(Revision(50)), Poll::UpToDate));
    }
}
