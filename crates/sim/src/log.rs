//! The log as everybody must see it: each batch once, in order, and the state after any of them.
//! Owns the reference fold; never judges who disagrees with it.

use domain::id::Revision;
use domain::{Batch, State};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many of the latest states are kept as they are; older ones are folded again from a mark.
const RECENT_MAX: usize = 512;
/// A state is kept for ever after so many batches.
const MARK_EVERY: usize = 256;

/// A batch of the log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// When the first server applied it, in true time.
    pub at_ms: u64,
    /// The batch.
    pub batch: Arc<Batch>,
    /// The revision after it.
    pub revision: Revision,
}

/// Every batch that was ever applied by anybody.
#[derive(Debug)]
pub struct Log {
    batches: Vec<Logged>,
    /// The states before the first batch and after every [`MARK_EVERY`] of them.
    marks: Vec<State>,
    /// The states after the latest batches, oldest first.
    recent: VecDeque<State>,
    state: State,
}

impl Log {
    /// A log that begins at a state: the empty one, or what a snapshot has.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { batches: Vec::new(), marks: vec![state.clone()], recent: VecDeque::new(), state }
    }

    /// The state after the last batch.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The revision after the last batch.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The revision before the first batch.
    #[must_use]
    pub fn first_revision(&self) -> Revision {
        self.marks.first().map_or(Revision(0), |state| state.revision)
    }

    /// Every batch, oldest first.
    #[must_use]
    pub fn batches(&self) -> &[Logged] {
        &self.batches
    }

    /// The batch that was decided at this revision.
    #[must_use]
    pub fn batch_at(&self, base: Revision) -> Option<&Logged> {
        let index = self.batches.partition_point(|logged| logged.batch.base < base);
        self.batches.get(index).filter(|logged| logged.batch.base == base)
    }

    /// The first batch that has events after this revision.
    #[must_use]
    pub fn batch_after(&self, revision: Revision) -> Option<&Logged> {
        let index = self.batches.partition_point(|logged| logged.revision <= revision);
        self.batches.get(index)
    }

    /// The state at a revision; `None` if no batch ends there, so that it never was.
    #[must_use]
    pub fn state_at(&self, revision: Revision) -> Option<State> {
        let count = self.batches.partition_point(|logged| logged.revision <= revision);
        let found = match count.checked_sub(1) {
            None => self.first_revision(),
            Some(last) => self.batches[last].revision,
        };
        if found != revision {
            return None;
        }
        let first_recent = self.batches.len() - self.recent.len();
        if let Some(state) = count.checked_sub(first_recent + 1).and_then(|index| self.recent.get(index)) {
            return Some(state.clone());
        }
        let mut state = self.marks[count / MARK_EVERY].clone();
        for logged in &self.batches[count / MARK_EVERY * MARK_EVERY..count] {
            state.apply_batch(&logged.batch);
        }
        Some(state)
    }

    /// Adds the batch that comes next, with the state that it leads to.
    pub(crate) fn push(&mut self, logged: Logged, after: State) {
        self.batches.push(logged);
        if self.batches.len().is_multiple_of(MARK_EVERY) {
            self.marks.push(after.clone());
        }
        self.recent.push_back(after.clone());
        if RECENT_MAX < self.recent.len() {
            self.recent.pop_front();
        }
        self.state = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Event;

    #[test]
    fn every_state_that_was_is_found_again_and_no_other() {
        let mut log = Log::new(State::default());
        for _ in 0..2_000 {
            let events =
                vec![Event::ClusterFormed { cluster: "a".into() }, Event::ClusterFormed { cluster: "b".into() }];
            let batch = Arc::new(Batch { base: log.revision(), events, ..Batch::default() });
            let mut after = log.state().clone();
            after.apply_batch(&batch);
            let revision = after.revision;
            log.push(Logged { at_ms: 0, batch, revision }, after);
        }
        for revision in 0..=4_000 {
            let found = log.state_at(Revision(revision)).map(|state| state.revision);
            assert_eq!(found, (revision % 2 == 0).then_some(Revision(revision)));
        }
        assert_eq!(log.batch_after(Revision(3)).map(|logged| logged.revision), Some(Revision(4)));
        assert!(log.batch_at(Revision(3)).is_none());
    }
}
