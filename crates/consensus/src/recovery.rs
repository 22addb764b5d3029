//! From what the disk still has to the state a replica continues with.
//! Refuses instead of guessing: a hole or a lost vote stops the start.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use crate::error::ConsensusError;
use crate::members::Members;
use crate::record::{self, Record};
use crate::store::{SnapshotMeta, Store};

/// What the disk still has: all journal records in order, and the newest snapshot.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Records of the `Persist` outputs, oldest first. A prefix may be missing if the snapshot covers it.
    pub records: Vec<Vec<u8>>,
    /// The snapshot with the highest index.
    pub snapshot: Option<SnapshotMeta>,
}

/// What a replica continues with.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) store: Store,
    /// The log was given up in favour of the snapshot, and the journal does not say so. Until it does, nothing may be
    /// added: the next recovery would find a hole, or take new entries for a part of the old log.
    pub(crate) must_record_reset: bool,
}

impl Recovered {
    /// Folds everything together. `voters` is used only if there is no snapshot.
    pub(crate) fn fold(self, voters: Vec<u64>) -> Result<Folded, ConsensusError> {
        let snapshot = match self.snapshot {
            Some(meta) if self.records.is_empty() => {
                return Err(ConsensusError::JournalMissing { index: meta.index });
            }
            Some(meta) => meta,
            None => SnapshotMeta { members: Members::of_voters(voters), ..SnapshotMeta::default() },
        };
        let mut log = Log::default();
        for (position, bytes) in self.records.into_iter().enumerate() {
            let decoded = record::decode(Bytes::from(bytes));
            let record = decoded.map_err(|source| ConsensusError::Record { position, source })?;
            log.fold(record, snapshot.index)?;
        }
        let must_record_reset = !log.continue_from(&snapshot)?;
        let hard_state = log.checked_hard_state(&snapshot)?;
        Ok(Folded { store: Store::new(hard_state, snapshot, log.entries), must_record_reset })
    }
}

impl Recovered {
    /// The payloads that are known to be committed and that no snapshot covers, oldest first, for whoever only reads: the
    /// same ones in the same order as a replica would put out.
    ///
    /// # Errors
    /// As for a replica that continues from here.
    pub fn committed_payloads(self) -> Result<Vec<Bytes>, ConsensusError> {
        let folded = self.fold(Vec::new())?;
        Ok(folded.store.committed_payloads())
    }
}

#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    hard_state: HardState,
}

impl Log {
    fn fold(&mut self, record: Record, snapshot_index: u64) -> Result<(), ConsensusError> {
        if let Some(meta) = record.reset {
            if snapshot_index < meta.index {
                return Err(ConsensusError::SnapshotMissing { needed: meta.index, found: snapshot_index });
            }
            self.entries.clear();
        }
        if let (Some(front), Some(back), Some(first)) =
            (self.entries.front(), self.entries.back(), record.entries.first())
        {
            if back.index + 1 < first.index {
                return Err(ConsensusError::Hole { expected: back.index + 1, found: first.index });
            }
            // A leader of a later term may have replaced what was written here before.
            let kept = first.index.saturating_sub(front.index);
            self.entries.truncate(usize::try_from(kept).expect("invariant: the log fits in memory"));
        }
        self.entries.extend(record.entries);
        self.hard_state = record.hard_state;
        Ok(())
    }

    /// Cuts off what the snapshot covers. False if the log does not lead through the snapshot and was given up: a crash
    /// came between saving a received snapshot and recording the reset. If the entry at the snapshot's index is another
    /// one, or missing, what follows was never committed and must not survive.
    fn continue_from(&mut self, snapshot: &SnapshotMeta) -> Result<bool, ConsensusError> {
        let front = self.entries.front().map_or(snapshot.index + 1, |entry| entry.index);
        if snapshot.index + 1 < front {
            return Err(ConsensusError::Hole { expected: snapshot.index + 1, found: front });
        }
        let covered = usize::try_from(snapshot.index + 1 - front).expect("invariant: the log fits in memory");
        let last_covered = covered.checked_sub(1).map(|at| self.entries.get(at).map(|entry| entry.term));
        let continues = last_covered.is_none_or(|term| term == Some(snapshot.term));
        if continues {
            self.entries.drain(..covered);
        } else {
            self.entries.clear();
        }
        Ok(continues)
    }

    fn checked_hard_state(&self, snapshot: &SnapshotMeta) -> Result<HardState, ConsensusError> {
        let mut hard_state = self.hard_state.clone();
        hard_state.commit = hard_state.commit.max(snapshot.index);
        if hard_state.term < snapshot.term {
            // The same crash. No vote was cast in that term, or it would have been recorded.
            hard_state.term = snapshot.term;
            hard_state.vote = 0;
        }
        let last_index = snapshot.index + self.entries.len() as u64;
        if last_index < hard_state.commit {
            return Err(ConsensusError::CommittedEntriesMissing { commit: hard_state.commit, last_index });
        }
        Ok(hard_state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        range.map(|index| Entry { index, term, ..Entry::default() }).collect()
    }

    fn record(term: u64, commit: u64, entries: &[Entry]) -> Vec<u8> {
        record::encode(&HardState { term, vote: 2, commit, ..HardState::default() }, None, entries).to_vec()
    }

    fn snapshot(index: u64, term: u64) -> Option<SnapshotMeta> {
        Some(SnapshotMeta { index, term, members: Members::of_voters(vec![1, 2, 3]) })
    }

    fn terms(store: &Store, range: std::ops::RangeInclusive<u64>) -> Vec<Option<u64>> {
        range.map(|index| store.term_at(index)).collect()
    }

    #[test]
    fn later_records_replace_a_conflicting_suffix() {
        let records = vec![record(1, 1, &entries(1..=5, 1)), record(2, 1, &entries(3..=4, 2)), record(2, 3, &[])];
        let store = Recovered { records, snapshot: None }.fold(vec![1]).unwrap().store;
        assert_eq!(terms(&store, 1..=5), [Some(1), Some(1), Some(2), Some(2), None]);
        assert_eq!((store.hard_state().term, store.hard_state().commit), (2, 3));
    }

    #[test]
    fn entries_covered_by_the_snapshot_are_forgotten() {
        let records = vec![record(1, 2, &entries(1..=4, 1)), record(1, 6, &entries(5..=8, 1))];
        let store = Recovered { records, snapshot: snapshot(6, 1) }.fold(vec![]).unwrap().store;
        assert_eq!(terms(&store, 5..=9), [None, Some(1), Some(1), Some(1), None]);
        assert_eq!(store.snapshot_meta().members.voters, [1, 2, 3]);
    }

    #[test]
    fn what_is_committed_can_be_read_without_a_replica() {
        let mut all = entries(1..=5, 1);
        for entry in &mut all[1..] {
            entry.data = Bytes::from(vec![u8::try_from(entry.index).unwrap()]);
        }
        let records = vec![record(1, 4, &all)];
        let payloads = Recovered { records: records.clone(), snapshot: None }.committed_payloads().unwrap();
        assert_eq!(payloads, [[2], [3], [4]].map(|payload| Bytes::copy_from_slice(&payload)));
        let payloads = Recovered { records, snapshot: snapshot(3, 1) }.committed_payloads().unwrap();
        assert_eq!(payloads, [Bytes::from_static(&[4])]);
    }

    #[test]
    fn records_all_below_the_snapshot_leave_an_empty_log() {
        let records = vec![record(1, 4, &entries(1..=4, 1))];
        let folded = Recovered { records, snapshot: snapshot(9, 3) }.fold(vec![]).unwrap();
        assert_eq!((folded.store.last(), folded.must_record_reset), (9, true));
        let hard_state = folded.store.hard_state();
        assert_eq!((hard_state.term, hard_state.vote, hard_state.commit), (3, 0, 9), "a crash before the reset record");
    }

    #[test]
    fn entries_after_a_conflict_with_the_snapshot_are_forgotten() {
        let records = vec![record(2, 1, &entries(1..=9, 2))];
        let folded = Recovered { records, snapshot: snapshot(6, 3) }.fold(vec![]).unwrap();
        assert_eq!((folded.store.last(), folded.must_record_reset), (6, true));
    }

    #[test]
    fn a_reset_starts_the_log_anew() {
        let hard_state = HardState { term: 3, vote: 0, commit: 20, ..HardState::default() };
        let reset = record::encode(&hard_state, snapshot(20, 3).as_ref(), &[]).to_vec();
        let records = vec![record(1, 1, &entries(1..=4, 1)), reset, record(3, 21, &entries(21..=22, 3))];
        let store = Recovered { records: records.clone(), snapshot: snapshot(20, 3) }.fold(vec![]).unwrap().store;
        assert_eq!(terms(&store, 20..=22), [Some(3), Some(3), Some(3)]);
        let refused = Recovered { records, snapshot: None }.fold(vec![1]);
        assert!(matches!(refused, Err(ConsensusError::SnapshotMissing { needed: 20, found: 0 })), "{refused:?}");
    }

    #[test]
    fn lost_material_is_refused() {
        let hole = Recovered { records: vec![record(1, 1, &entries(5..=6, 1))], snapshot: snapshot(3, 1) };
        assert!(matches!(hole.fold(vec![]), Err(ConsensusError::Hole { expected: 4, found: 5 })));
        let no_journal = Recovered { records: vec![], snapshot: snapshot(3, 1) };
        assert!(matches!(no_journal.fold(vec![]), Err(ConsensusError::JournalMissing { index: 3 })));
        let uncommitted = Recovered { records: vec![record(1, 9, &entries(1..=4, 1))], snapshot: None };
        let expected = ConsensusError::CommittedEntriesMissing { commit: 9, last_index: 4 };
        assert_eq!(uncommitted.fold(vec![1]).unwrap_err().to_string(), expected.to_string());
    }
}
