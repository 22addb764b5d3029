//! Snapshots: whole states, each in a file of its own.
//!
//! Owns their names and how many are kept. Never falls back to an older snapshot on its own: the journal may already
//! begin after it.

use crate::disk::DiskExt;
use crate::record::le_u64;
use crate::{Damage, Disk, FileError, whole_file};

const MAGIC: [u8; 8] = *b"hfsnapsh";
const PREFIX: &str = "snapshot-";
const META_BYTES: usize = 16;

/// How many snapshots are kept; saving another removes the oldest.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Which snapshot: the last log position it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The index of the last contained entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl SnapshotId {
    fn file_name(self) -> String {
        format!("{PREFIX}{:020}-{:020}", self.index, self.term)
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let (index, term) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let id = Self { index: index.parse().ok()?, term: term.parse().ok()? };
        (id.file_name() == name).then_some(id)
    }
}

/// A whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The index of the last contained entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The state.
    pub bytes: Vec<u8>,
}

/// The snapshots of one directory.
///
/// `D` may be a disk, or `&mut` one that others use too.
#[derive(Debug)]
pub struct SnapshotStore<D> {
    disk: D,
}

impl<D: Disk> SnapshotStore<D> {
    /// The snapshots in the disk's directory.
    pub fn open(mut disk: D) -> Result<Self, FileError> {
        // A snapshot renamed just before the process died must not vanish after it was read.
        disk.sync_names()?;
        Ok(Self { disk })
    }

    /// Keeps a snapshot and removes all but the newest [`SNAPSHOTS_KEPT`]. It is durable when this returns; an error
    /// is final.
    pub fn save(&mut self, index: u64, term: u64, bytes: &[u8]) -> Result<(), FileError> {
        let name = SnapshotId { index, term }.file_name();
        let (index, term) = (index.to_le_bytes(), term.to_le_bytes());
        whole_file::save(&mut self.disk, &name, MAGIC, &[&index, &term, bytes])?;
        let ids = self.list()?;
        let outdated = ids.len().saturating_sub(SNAPSHOTS_KEPT);
        for id in &ids[..outdated] {
            self.disk.remove_file(&id.file_name())?;
        }
        Ok(())
    }

    /// The snapshots on disk, oldest first, unread.
    pub fn list(&self) -> Result<Vec<SnapshotId>, FileError> {
        let names = self.disk.list_files()?;
        let mut ids: Vec<_> = names.iter().filter_map(|name| SnapshotId::from_file_name(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The newest snapshot, or `None` when there never was one. A damaged one is refused, not passed over.
    pub fn latest(&self) -> Result<Option<Snapshot>, FileError> {
        self.list()?.last().map(|&id| self.read(id)).transpose()
    }

    /// One of the listed snapshots.
    pub fn read(&self, id: SnapshotId) -> Result<Snapshot, FileError> {
        let name = id.file_name();
        let mut bytes = whole_file::load(&self.disk, &name, MAGIC)?;
        let is_itself = META_BYTES <= bytes.len() && le_u64(&bytes) == id.index && le_u64(&bytes[8..]) == id.term;
        if !is_itself {
            return Err(FileError::Damaged { file: self.disk.locate(&name), damage: Damage::Kind });
        }
        bytes.drain(..META_BYTES);
        Ok(Snapshot { index: id.index, term: id.term, bytes })
    }
}
