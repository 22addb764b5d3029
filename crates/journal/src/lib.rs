//! Durable bytes: a checksummed append-only [`Journal`], whole-state snapshots and small ledgers, over a [`Disk`].
//!
//! Owns file formats and what may be believed after a crash. Never interprets the bytes it keeps, never reads a clock.
//!
//! ```
//! use journal::{Journal, Options, testing::MemDisk};
//!
//! let disk = MemDisk::new();
//! let (mut journal, _) = Journal::open(disk.clone(), Options::default())?;
//! journal.append(b"first")?;
//! journal.sync()?;
//!
//! disk.crash(7);
//! let (_, recovered) = Journal::open(disk, Options::default())?;
//! assert_eq!(recovered.records[0].1, b"first");
//! # Ok::<(), journal::JournalError>(())
//! ```

mod dir_disk;
mod disk;
mod error;
mod ledger;
mod log;
mod record;
mod segment;
mod snapshot;
pub mod testing;
mod whole_file;

pub use dir_disk::DirDisk;
pub use disk::{Disk, DiskError};
pub use error::JournalError;
pub use ledger::Ledger;
pub use log::{Journal, Options, Recovered, TornTail};
pub use record::{RECORD_BYTES_MAX, Seq};
pub use snapshot::{SNAPSHOTS_KEPT, Snapshot, SnapshotId, SnapshotStore};
pub use whole_file::{Damage, FileError};
