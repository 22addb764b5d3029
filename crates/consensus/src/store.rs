//! The log since the last compaction, in memory, as raft-rs wants to read it.
//! Never durable by itself: the replica emits a `Persist` for everything that it puts in here.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::members::Members;

/// How much is kept of what a snapshot covers, whatever number of entries that is: entries may be large.
const KEEP_BYTES_MAX: u64 = 16 << 20;

/// What identifies a snapshot: the last entry it covers, and the members as of that entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Index of the last entry folded into the snapshot.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Who belonged to the group as of that entry.
    pub members: Members,
}

impl SnapshotMeta {
    pub(crate) fn from_raft(metadata: &SnapshotMetadata) -> Self {
        let members = Members::from_raft(metadata.get_conf_state());
        Self { index: metadata.index, term: metadata.term, members }
    }
}

/// The in-memory log. Entry `base_index + 1` is the first one kept.
#[derive(Debug)]
pub(crate) struct Store {
    hard_state: HardState,
    /// The newest durable snapshot; index 0 while there is none.
    snapshot: SnapshotMeta,
    /// The members since each applied entry that changed them, where no snapshot covers it yet.
    changes: VecDeque<(u64, Members)>,
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    entries_bytes: u64,
    /// The part of `entries_bytes` that the snapshot covers and that is kept for slow followers only.
    covered_bytes: u64,
}

impl Store {
    pub(crate) fn new(hard_state: HardState, snapshot: SnapshotMeta, entries: VecDeque<Entry>) -> Self {
        let entries_bytes = entries.iter().map(entry_bytes).sum();
        let (base_index, base_term) = (snapshot.index, snapshot.term);
        Self {
            hard_state,
            snapshot,
            changes: VecDeque::new(),
            base_index,
            base_term,
            entries,
            entries_bytes,
            covered_bytes: 0,
        }
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_commit(&mut self, commit: u64) {
        assert!(self.hard_state.commit <= commit, "commit index went back to {commit}");
        self.hard_state.commit = commit;
    }

    /// What the committed entries after the snapshot carry, but for those that only begin a term.
    pub(crate) fn committed_payloads(&self) -> Vec<Bytes> {
        let committed = self.entries.iter().take_while(|entry| entry.index <= self.hard_state.commit);
        let payloads = committed.map(|entry| match entry.get_entry_type() {
            EntryType::EntryNormal => entry.data.clone(),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => entry.context.clone(),
        });
        payloads.filter(|payload| !payload.is_empty()).collect()
    }

    pub(crate) fn snapshot_meta(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    /// The members as of the last applied entry.
    pub(crate) fn members(&self) -> &Members {
        self.changes.back().map_or(&self.snapshot.members, |(_, members)| members)
    }

    /// Notes that an applied entry changed the members.
    pub(crate) fn change_members(&mut self, index: u64, members: Members) {
        assert!(self.changes.back().is_none_or(|&(last, _)| last < index), "members changed twice at {index}");
        self.changes.push_back((index, members));
    }

    /// Whether the newest snapshot knows the members of today.
    pub(crate) fn is_snapshot_of_members(&self) -> bool {
        self.changes.is_empty()
    }

    /// Payload bytes of the entries that no snapshot covers yet.
    pub(crate) fn uncovered_bytes(&self) -> u64 {
        self.entries_bytes - self.covered_bytes
    }

    pub(crate) fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// The term of an entry in the log, `None` outside of it.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        let offset = index.checked_sub(self.base_index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?).map(|entry| entry.term)
    }

    /// Adds entries, replacing a suffix that conflicts with them.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(self.base_index < first.index, "entry {} is compacted already", first.index);
        assert!(first.index <= self.last() + 1, "entry {} leaves a hole after {}", first.index, self.last());
        let kept = self.offset(first.index);
        for replaced in self.entries.drain(kept..) {
            self.entries_bytes -= entry_bytes(&replaced);
        }
        self.entries_bytes += entries.iter().map(entry_bytes).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Replaces the whole log by a snapshot received from the leader.
    pub(crate) fn install(&mut self, meta: SnapshotMeta) {
        (self.base_index, self.base_term) = (meta.index, meta.term);
        self.snapshot = meta;
        self.changes.clear();
        self.entries.clear();
        self.entries_bytes = 0;
        self.covered_bytes = 0;
    }

    /// Notes a snapshot taken here and forgets what it covers, except for the last `keep` entries: a follower that is
    /// only a little behind then still catches up from the log.
    pub(crate) fn compact(&mut self, index: u64, keep: u64) {
        let term = self.term_at(index).expect("invariant: an applied entry above the last snapshot is in the log");
        self.snapshot.index = index;
        self.snapshot.term = term;
        let covered = self.changes.iter().take_while(|(changed_at, _)| *changed_at <= index).count();
        if let Some((_, members)) = self.changes.drain(..covered).next_back() {
            self.snapshot.members = members;
        }
        let base_index = index.saturating_sub(keep).max(self.base_index).max(self.first_within(index, KEEP_BYTES_MAX));
        self.base_term =
            self.term_at(base_index).expect("invariant: the new base is between the old one and the snapshot");
        let dropped = self.offset(base_index + 1);
        for entry in self.entries.drain(..dropped) {
            self.entries_bytes -= entry_bytes(&entry);
        }
        self.base_index = base_index;
        let covered = self.offset(index + 1);
        self.covered_bytes = self.entries.range(..covered).map(entry_bytes).sum();
    }

    /// The index before the oldest of the entries up to `index` that together fit into so many bytes.
    fn first_within(&self, index: u64, bytes_max: u64) -> u64 {
        let mut bytes = 0;
        let up_to = self.entries.range(..self.offset(index + 1)).rev();
        let fitting = up_to.take_while(|entry| {
            bytes += entry_bytes(entry);
            bytes <= bytes_max
        });
        index - fitting.count() as u64
    }

    fn offset(&self, index: u64) -> usize {
        usize::try_from(index - self.base_index - 1).expect("invariant: the log fits in memory")
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.snapshot.members.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} wanted, the log ends at {}", self.last());
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes: u64 = 0;
        let within_limit =
            self.entries.range(self.offset(low)..self.offset(high)).enumerate().take_while(|(n, entry)| {
                bytes = bytes.saturating_add(entry_bytes(entry));
                // The first one always goes, or an entry above the limit would never be replicated.
                *n == 0 || bytes <= bytes_max
            });
        Ok(within_limit.map(|(_, entry)| entry.clone()).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let outside = if index < self.base_index { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_at(index).ok_or(Error::Store(outside))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        // A server ignores a snapshot of a group that it does not belong to yet, and would be sent the same one for ever:
        // it has to wait for one that knows it.
        if self.snapshot.index == 0 || self.snapshot.index < request_index || !self.snapshot.members.contains(to) {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        // Only the description travels inside raft; the file's bytes go beside the message.
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.snapshot.index;
        metadata.term = self.snapshot.term;
        metadata.set_conf_state(self.snapshot.members.to_raft());
        Ok(snapshot)
    }
}

/// What an entry counts against size limits: its payload and a flat allowance for the rest.
fn entry_bytes(entry: &Entry) -> u64 {
    const FIELDS_BYTES: u64 = 16;
    (entry.data.len() + entry.context.len()) as u64 + FIELDS_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 10].into(), ..Entry::default() }
    }

    fn store_with(entries: std::ops::RangeInclusive<u64>) -> Store {
        let mut store = Store::new(
            HardState::default(),
            SnapshotMeta { members: Members::of_voters(vec![1, 2]), ..SnapshotMeta::default() },
            VecDeque::new(),
        );
        store.append(&entries.map(|index| entry(index, 1)).collect::<Vec<_>>());
        store
    }

    #[test]
    fn append_replaces_conflicting_suffix() {
        let mut store = store_with(1..=5);
        store.append(&[entry(3, 2)]);
        assert_eq!((store.last(), store.term_at(2), store.term_at(3), store.term_at(4)), (3, Some(1), Some(2), None));
        assert_eq!(store.uncovered_bytes(), 3 * 26);
    }

    #[test]
    fn compaction_keeps_a_margin_that_does_not_count_as_uncovered() {
        let mut store = store_with(1..=10);
        store.compact(8, 3);
        assert_eq!(store.first_index().unwrap(), 6);
        assert_eq!(store.term(5).unwrap(), 1, "the term before the first entry stays known");
        assert_eq!(store.term(4), Err(Error::Store(StorageError::Compacted)));
        assert_eq!(store.uncovered_bytes(), 2 * 26);
        assert_eq!(store.snapshot(0, 2).unwrap().get_metadata().index, 8);
    }

    #[test]
    fn the_margin_of_a_compaction_has_a_size() {
        let store = store_with(1..=10);
        assert_eq!((store.first_within(8, 2 * 26), store.first_within(8, 25), store.first_within(8, 1000)), (6, 8, 0));
    }

    #[test]
    fn entries_respect_the_size_limit_but_return_at_least_one() {
        let store = store_with(1..=10);
        let count = |limit: u64| store.entries(2, 9, limit, GetEntriesContext::empty(false)).unwrap().len();
        assert_eq!((count(0), count(52), count(u64::MAX)), (1, 2, 7));
    }
}
