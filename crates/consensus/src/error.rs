//! What can be wrong with the material a replica is started from.
//! Nothing here is raised while it runs: a running replica either drops what peers send or, on a broken invariant, panics.

use thiserror::Error;

/// Why a replica refuses to start. Each of these means that promises made earlier (votes, acknowledged entries) can no
/// longer be kept, so voting on would be worse than staying down.
#[derive(Debug, Error)]
pub enum ConsensusError {
    /// The configuration, or the folded state, is not acceptable to raft.
    #[error("starting the raft replica")]
    Start(#[source] raft::Error),
    /// A journal record does not decode.
    #[error("reading journal record number {position} of those recovered")]
    Record {
        /// Position among the recovered records, from 0.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// Entries are missing between two records, or between the snapshot and the first record.
    #[error("the log has a hole: entry {expected} is missing, the next one found is {found}")]
    Hole {
        /// First missing index.
        expected: u64,
        /// Index found instead.
        found: u64,
    },
    /// The journal says that the log was replaced by a snapshot which is not there.
    #[error("the journal continues from the snapshot at index {needed}, but the newest snapshot is at index {found}")]
    SnapshotMissing {
        /// Index of the snapshot that was installed.
        needed: u64,
        /// Index of the newest snapshot at hand, 0 for none.
        found: u64,
    },
    /// More was committed than the log holds.
    #[error("entries up to {commit} are committed, but the log ends at {last_index}")]
    CommittedEntriesMissing {
        /// Recorded commit index.
        commit: u64,
        /// Last entry in the log.
        last_index: u64,
    },
    /// There is a snapshot but no journal: term and vote are lost, and voting again could elect two leaders.
    #[error("there is a snapshot at index {index} but no journal, so this replica's votes are lost")]
    JournalMissing {
        /// Index of the snapshot.
        index: u64,
    },
}

/// Why bytes are not a journal record.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum RecordError {
    /// The record ends inside a field.
    #[error("the record ends too early")]
    TooShort,
    /// Bytes follow the last field.
    #[error("{count} bytes follow the end of the record")]
    TooLong {
        /// How many.
        count: usize,
    },
    /// Written by a newer, or no, version of this program.
    #[error("record format {found} is not known")]
    UnknownFormat {
        /// The format byte.
        found: u8,
    },
    /// The entry kind is not known.
    #[error("entry kind {found} is not known")]
    UnknownEntryKind {
        /// The kind byte.
        found: u8,
    },
}
