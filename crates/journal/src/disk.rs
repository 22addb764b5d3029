//! The `Disk` trait: named files in one flat directory, with every durability step explicit.
//!
//! Owns the contract between the stores and a disk. Never decides when to sync.

use std::fmt::Debug;
use std::io;

/// A flat directory of named files.
///
/// A write is durable only after [`sync`](Disk::sync) of its file; a created, renamed or removed name only after
/// [`sync_dir`](Disk::sync_dir). Until then a crash may keep any part of it. An error from a sync is final: the
/// system may already have dropped the data, so the caller must stop using the disk rather than try again.
pub trait Disk: Debug + Send {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The whole content of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Creates a file of `len` zero bytes, in place of any file that had the name.
    fn create(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Writes at `offset`; the file grows when the end is passed.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the content of a file durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Renames a file, in place of any file that had the new name.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    fn sync_dir(&mut self) -> io::Result<()>;

    /// Says that a file of `len` bytes will be created some time later, so that the zeros can be written ahead.
    fn prepare(&mut self, len: u64) {
        let _ = len;
    }

    /// Where a person finds the file.
    fn locate(&self, name: &str) -> String {
        name.to_owned()
    }
}

macro_rules! forward_disk {
    ($($pointer:ty),*) => {$(
        impl<D: Disk + ?Sized> Disk for $pointer {
            fn list(&self) -> io::Result<Vec<String>> {
                (**self).list()
            }
            fn read(&self, name: &str) -> io::Result<Vec<u8>> {
                (**self).read(name)
            }
            fn create(&mut self, name: &str, len: u64) -> io::Result<()> {
                (**self).create(name, len)
            }
            fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
                (**self).write_at(name, offset, bytes)
            }
            fn sync(&mut self, name: &str) -> io::Result<()> {
                (**self).sync(name)
            }
            fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
                (**self).rename(from, to)
            }
            fn remove(&mut self, name: &str) -> io::Result<()> {
                (**self).remove(name)
            }
            fn sync_dir(&mut self) -> io::Result<()> {
                (**self).sync_dir()
            }
            fn prepare(&mut self, len: u64) {
                (**self).prepare(len);
            }
            fn locate(&self, name: &str) -> String {
                (**self).locate(name)
            }
        }
    )*};
}

forward_disk!(&mut D, Box<D>);

/// A disk operation failed; what was done to which file, with the system's reason as source.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {file}")]
pub struct DiskError {
    /// What was being done, as a verb: `read`, `sync`.
    pub action: &'static str,
    /// The file, or `the directory`.
    pub file: String,
    /// The system's reason.
    pub source: io::Error,
}

/// The disk's operations again, with errors that name action and file.
pub(crate) trait DiskExt: Disk {
    fn explained<T>(
        &mut self,
        action: &'static str,
        name: &str,
        work: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        work(self).map_err(|source| DiskError { action, file: self.locate(name), source })
    }

    fn list_files(&self) -> Result<Vec<String>, DiskError> {
        self.list().map_err(|source| DiskError { action: "list", file: self.locate(""), source })
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        self.read(name).map_err(|source| DiskError { action: "read", file: self.locate(name), source })
    }

    fn create_file(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        self.explained("create", name, |disk| disk.create(name, len))
    }

    fn write_file_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.explained("write to", name, |disk| disk.write_at(name, offset, bytes))
    }

    fn sync_file(&mut self, name: &str) -> Result<(), DiskError> {
        self.explained("sync", name, |disk| disk.sync(name))
    }

    fn rename_file(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.explained("rename", from, |disk| disk.rename(from, to))
    }

    fn remove_file(&mut self, name: &str) -> Result<(), DiskError> {
        self.explained("remove", name, |disk| disk.remove(name))
    }

    fn sync_names(&mut self) -> Result<(), DiskError> {
        self.explained("sync the directory", "", |disk| disk.sync_dir())
    }
}

impl<D: Disk + ?Sized> DiskExt for D {}
