//! A ledger: one small value, replaced atomically.
//!
//! Owns one file. Never answers with an older value than the last saved one.

use crate::disk::DiskExt;
use crate::{Disk, FileError, whole_file};

const MAGIC: [u8; 8] = *b"hfledger";

/// One small durable value in a file of its own.
///
/// `D` may be a disk, or `&mut` one that others use too.
#[derive(Debug)]
pub struct Ledger<D> {
    disk: D,
    name: String,
}

impl<D: Disk> Ledger<D> {
    /// The ledger in the file `name`, which need not exist yet.
    pub fn open(mut disk: D, name: impl Into<String>) -> Result<Self, FileError> {
        // A value renamed just before the process died must not vanish after it was read.
        disk.sync_names()?;
        Ok(Self { disk, name: name.into() })
    }

    /// Replaces the value. It is durable when this returns; an error is final.
    pub fn save(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        whole_file::save(&mut self.disk, &self.name, MAGIC, &[bytes])
    }

    /// The last saved value, or `None` when there never was one.
    pub fn load(&self) -> Result<Option<Vec<u8>>, FileError> {
        if !self.disk.list_files()?.contains(&self.name) {
            return Ok(None);
        }
        whole_file::load(&self.disk, &self.name, MAGIC).map(Some)
    }
}
