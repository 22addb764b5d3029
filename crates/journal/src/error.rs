//! What can go wrong with a journal, and what a person should do about it.
//!
//! Owns the wording. Never decides which case applies.

use crate::{DiskError, FileError, Seq};

/// Why a journal cannot be opened or written.
///
/// Nothing here is repaired silently: a log with a hole must not take part in votes.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused an operation. After a failed write or sync the process must stop.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The small file that says where the journal begins cannot be read.
    #[error("reading where the journal begins")]
    Floor(#[source] FileError),
    /// A record that had been written whole no longer matches its checksum.
    #[error(
        "{file} is damaged at byte {offset} (record {seq}): it was written whole once, so this is not the end of an \
         interrupted write. Do not run this member without the record: keep the directory for study, remove the \
         member from its group, and add a new one, under a new name, with an empty directory"
    )]
    Damaged {
        /// The segment.
        file: String,
        /// Where the first bad byte range starts.
        offset: u64,
        /// The record that should be there.
        seq: Seq,
    },
    /// A segment is gone.
    #[error(
        "{file} is missing: it should hold records from {seq} on. Put the file back if it was moved away; otherwise \
         remove this member from its group, and add a new one, under a new name, with an empty directory"
    )]
    MissingSegment {
        /// The segment that should be there.
        file: String,
        /// Its first record.
        seq: Seq,
    },
    /// Segments exist, but the file that says where the journal begins does not.
    #[error(
        "{file} is missing beside journal segments that hold records, so lost segments could not be noticed. Put the \
         file back if it was moved away; otherwise remove this member from its group, and add a new one, under a new \
         name, with an empty directory"
    )]
    MissingFloor {
        /// The missing file.
        file: String,
    },
    /// The segment was written by another version of this program.
    #[error("{file} has format {version}, and this program reads format {supported}: start the version that wrote it")]
    UnknownFormat {
        /// The segment.
        file: String,
        /// Its format.
        version: u32,
        /// The format of this program.
        supported: u32,
    },
    /// The record exceeds [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX). The journal stays usable.
    #[error("a journal record of {bytes} bytes exceeds the limit of {max} bytes")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// An earlier write or sync failed, so what is on disk is not known.
    #[error("the journal is closed because an earlier write or sync failed: restart the process")]
    Failed,
}
