//! What waits for the cluster to confirm that this server's view is current. One question per step serves all.

use crate::leader::{Answer, Waiter};
use std::collections::BTreeMap;

/// How many reads may wait.
pub const READS_MAX: usize = 65_536;

/// Something that may be answered from the state once it is known to be current.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// A read, by its ticket.
    Read(u64),
    /// An answer that changes nothing, and so rides on no entry of its own.
    Answer(Waiter, Answer),
}

/// Everything that waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    next_context: u64,
    /// Joins the next question.
    gathering: Vec<Waiting>,
    /// Asked, by context.
    asked: BTreeMap<u64, Vec<Waiting>>,
    /// Confirmed, once this index is applied.
    confirmed: BTreeMap<u64, Vec<Waiting>>,
    count: usize,
}

impl Reads {
    /// Adds to the next question; says whether there was room.
    pub(crate) fn gather(&mut self, waiting: Waiting) -> bool {
        if self.count == READS_MAX {
            return false;
        }
        self.count += 1;
        self.gathering.push(waiting);
        true
    }

    /// The context of a new question for all that gathered, if anything did.
    pub(crate) fn ask(&mut self) -> Option<u64> {
        if self.gathering.is_empty() {
            return None;
        }
        self.next_context += 1;
        self.asked.insert(self.next_context, std::mem::take(&mut self.gathering));
        Some(self.next_context)
    }

    /// The question was answered: what waits needs `index`.
    pub(crate) fn confirm(&mut self, context: u64, index: u64) {
        let waiting = self.asked.remove(&context).unwrap_or_default();
        self.confirmed.entry(index).or_default().extend(waiting);
    }

    /// The question was lost.
    pub(crate) fn drop_asked(&mut self, context: u64) -> Vec<Waiting> {
        let waiting = self.asked.remove(&context).unwrap_or_default();
        self.count -= waiting.len();
        waiting
    }

    /// What may be answered now that `applied` is applied.
    pub(crate) fn take_ready(&mut self, applied: u64) -> Vec<Waiting> {
        let mut ready = Vec::new();
        while let Some(first) = self.confirmed.first_entry()
            && *first.key() <= applied
        {
            ready.extend(first.remove());
        }
        self.count -= ready.len();
        ready
    }
}
