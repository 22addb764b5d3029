//! What can go wrong with a journal, and what a person should do about it.
//!
//! Owns the wording. Never decides which case applies.

use crate::{DiskError, FileError, Seq};

/// What is left to do when nothing can be put back.
const LEAVE_STOPPED: &str = "leave this server stopped: the others go on without it as long as they are a majority. \
    It must not begin again under its name with an empty directory, because it may have voted for and acknowledged \
    what it would no longer know";

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
         interrupted write. If there is an intact copy of the file that was made after this server last ran, put it \
         back; otherwise {LEAVE_STOPPED}"
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
        "{file} is missing: it should hold records from {seq} on. If it was moved away, put the file back; \
         otherwise {LEAVE_STOPPED}"
    )]
    MissingSegment {
        /// The segment that should be there.
        file: String,
        /// Its first record.
        seq: Seq,
    },
    /// Segments exist, but the file that says where the journal begins does not.
    #[error(
        "{file} is missing beside journal segments that hold records, so lost segments could not be noticed. If it \
         was moved away, put the file back; otherwise {LEAVE_STOPPED}"
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
