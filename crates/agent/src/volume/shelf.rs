//! Where volumes are that all nodes share: a directory for each, with its lock and the highest fence seen.
//! Never looks at what else is in there.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::VolumeError;
use crate::files;

const FENCE_FILE: &str = "fence";
const LOCK_FILE: &str = "lock";

/// A handle that can be the name of a directory, and leads nowhere else.
pub(super) fn check_handle(handle: &str) -> Result<(), VolumeError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if handle.is_empty() || handle.starts_with('.') || !handle.bytes().all(is_plain) {
        return Err(VolumeError::BadHandle { handle: handle.to_owned() });
    }
    Ok(())
}

/// The directories of volumes below one root.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    root: PathBuf,
}

/// Held while something is done to a volume that another agent must not see half done. Ends with the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Shelf {
    /// The volumes below `root`, which is created when first needed.
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a volume is. No handle leads out of the root.
    pub(super) fn volume_dir(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        check_handle(handle)?;
        Ok(self.root.join(handle))
    }

    /// Waits for a volume's lock; its directory is made when it is not there.
    pub(super) fn lock(&self, handle: &str) -> Result<Lock, VolumeError> {
        let volume = self.volume_dir(handle)?;
        let doing = |source| VolumeError::Io { handle: handle.to_owned(), doing: "locking", source };
        fs::create_dir_all(&volume).map_err(doing)?;
        let file = File::options().create(true).append(true).open(volume.join(LOCK_FILE)).map_err(doing)?;
        file.lock().map_err(doing)?;
        Ok(Lock { _file: file })
    }

    /// Makes `fence` the highest seen, durably, unless a higher one was.
    pub(super) fn raise_fence(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        let _lock = self.lock(handle)?;
        if self.compare(handle, fence)? == Ordering::Equal {
            return Ok(());
        }
        let volume = self.volume_dir(handle)?;
        files::write_json(&volume.join(FENCE_FILE), &fence)
            .and_then(|()| files::sync_parent(&volume))
            .map_err(VolumeError::io(handle, "fencing"))
    }

    /// How `fence` compares with the highest seen; a lower one is refused. The lock must be held.
    pub(super) fn compare(&self, handle: &str, fence: u64) -> Result<Ordering, VolumeError> {
        let path = self.volume_dir(handle)?.join(FENCE_FILE);
        let highest_seen = files::read_json(&path).map_err(VolumeError::io(handle, "reading the fence of"))?;
        match fence.cmp(&highest_seen.unwrap_or(0)) {
            Ordering::Less => Err(VolumeError::StaleFence {
                handle: handle.to_owned(),
                offered: fence,
                highest_seen: highest_seen.unwrap_or(0),
            }),
            compared @ (Ordering::Equal | Ordering::Greater) => Ok(compared),
        }
    }

    /// Removes a volume with all that is in it.
    pub(super) fn remove(&self, handle: &str) -> Result<(), VolumeError> {
        let volume = self.volume_dir(handle)?;
        let doing = |source| VolumeError::Io { handle: handle.to_owned(), doing: "deleting", source };
        // Renamed first, so that a crash in the middle leaves no volume with half of its content.
        let doomed = self.root.join(format!(".deleted-{handle}"));
        files::remove_tree(&doomed).map_err(doing)?;
        match fs::rename(&volume, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(doing(error)),
        }
        files::sync_parent(&volume).map_err(doing)?;
        files::remove_tree(&doomed).map_err(doing)
    }
}
