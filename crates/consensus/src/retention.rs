//! Which journal records are still needed.
//! Never removes anything: it names the first needed record, and the journal drops the prefix before it.

use std::collections::VecDeque;

use crate::error::RecordError;
use crate::record;

/// Remembers the highest entry of each journal record, by the record's sequence number.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    records: VecDeque<(u64, u64)>,
}

impl Retention {
    /// Notes a record that is in the journal: each one recovered at start, then each one appended.
    pub fn note(&mut self, seq: u64, record: &[u8]) -> Result<(), RecordError> {
        let last_index = record::last_index(record)?;
        self.records.push_back((seq, last_index));
        Ok(())
    }

    /// The first record to keep if the oldest snapshot that one wants to be able to start from is at `snapshot_index`.
    /// The newest record always stays, because it holds the vote. Call it after the records of the batch that reported
    /// the snapshot as saved are durable.
    pub fn first_needed(&mut self, snapshot_index: u64) -> Option<u64> {
        while 1 < self.records.len() && self.records.front().is_some_and(|&(_, last)| last <= snapshot_index) {
            self.records.pop_front();
        }
        self.records.front().map(|&(seq, _)| seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::{Entry, HardState};

    #[test]
    fn records_are_needed_until_a_snapshot_covers_all_their_entries() {
        let mut retention = Retention::default();
        for (seq, indexes) in [(10, 1..=3), (11, 4..=6), (12, 7..=9)] {
            let entries: Vec<_> = indexes.map(|index| Entry { index, ..Entry::default() }).collect();
            retention.note(seq, &record::encode(&HardState::default(), None, &entries)).unwrap();
        }
        assert_eq!(retention.first_needed(2), Some(10));
        assert_eq!(retention.first_needed(6), Some(12));
        assert_eq!(retention.first_needed(9), Some(12), "the newest record holds the vote");
    }
}
