//! The `dir` volume driver: volumes are directories under a storage root that all nodes share.
//! Never judges who should hold a volume: it refuses fences lower than the highest it has seen, and knows no more.
//!
//! A directory cannot stop a writer that has it open already, so a stale process is only kept from attaching again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::files;

/// Why a volume could not be used.
#[derive(Debug, Error)]
pub enum VolumeError {
    #[error("volume {handle} has been attached under fence {highest_seen}; fence {offered} is stale")]
    StaleFence { handle: String, offered: u64, highest_seen: u64 },
    #[error("{handle:?} is not a volume handle")]
    BadHandle { handle: String },
    #[error("volume {handle} is not attached")]
    NotAttached { handle: String },
    #[error("{} is in the way", target.display())]
    TargetOccupied { target: PathBuf },
    #[error("{doing} volume {handle}")]
    Io { handle: String, doing: &'static str, source: io::Error },
}

/// Volumes in directories below one root.
#[derive(Clone, Debug)]
pub struct DirDriver {
    root: PathBuf,
}

impl DirDriver {
    /// The driver for the volumes below `root`, which is created when first needed.
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the volume usable under `fence`, creating it the first time; returns its directory.
    ///
    /// The highest fence is durable before this returns. The same fence again is a repeat, a lower one is refused.
    pub fn attach(&self, handle: &str, fence: u64) -> Result<PathBuf, VolumeError> {
        let volume = self.volume_dir(handle)?;
        let data = volume.join("data");
        let doing = |source| VolumeError::Io { handle: handle.to_owned(), doing: "attaching", source };
        fs::create_dir_all(&data).map_err(doing)?;
        // Several agents share the root: the comparison and the write are one step under the lock.
        let lock = File::options().create(true).append(true).open(volume.join("lock"));
        let lock = lock.map_err(doing)?;
        lock.lock().map_err(doing)?;
        let highest_seen = files::read_json(&volume.join("fence")).map_err(doing)?.unwrap_or(0);
        match fence.cmp(&highest_seen) {
            std::cmp::Ordering::Greater => {
                files::write_json(&volume.join("fence"), &fence).map_err(doing)?;
                files::sync_parent(&volume).map_err(doing)?;
                Ok(data)
            }
            std::cmp::Ordering::Equal => Ok(data),
            std::cmp::Ordering::Less => {
                Err(VolumeError::StaleFence { handle: handle.to_owned(), offered: fence, highest_seen })
            }
        }
    }

    /// Makes `target`, a path in a pod's root, lead to the volume. Repeating it is harmless.
    pub fn publish(&self, handle: &str, target: &Path) -> Result<(), VolumeError> {
        let data = self.data_dir(handle)?;
        let doing = |source| VolumeError::Io { handle: handle.to_owned(), doing: "publishing", source };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(doing)?;
        }
        match target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(doing(error)),
            Ok(_) if fs::read_link(target).is_ok_and(|current| current == data) => return Ok(()),
            Ok(metadata) if metadata.is_symlink() => fs::remove_file(target).map_err(doing)?,
            Ok(_) => {
                return Err(VolumeError::TargetOccupied { target: target.to_owned() });
            }
        }
        symlink(data, target).map_err(doing)
    }

    /// Takes the volume away from `target`. Repeating it is harmless.
    pub fn unpublish(&self, target: &Path) -> io::Result<()> {
        match target.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => fs::remove_file(target),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes the volume and all that is in it. Repeating it is harmless.
    pub fn delete(&self, handle: &str) -> Result<(), VolumeError> {
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

    /// How much the volume's content takes on disk.
    pub fn usage_bytes(&self, handle: &str) -> Result<u64, VolumeError> {
        let data = self.volume_dir(handle)?.join("data");
        usage_bytes(&data).map_err(|source| VolumeError::Io { handle: handle.to_owned(), doing: "measuring", source })
    }

    /// Where the volumes are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an attached volume's content is.
    pub fn data_dir(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        // A pod has no use for a path that depends on the agent's working directory.
        fs::canonicalize(self.volume_dir(handle)?.join("data")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => VolumeError::NotAttached { handle: handle.to_owned() },
            _ => VolumeError::Io { handle: handle.to_owned(), doing: "finding", source: error },
        })
    }

    fn volume_dir(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if handle.is_empty() || handle.starts_with('.') || !handle.bytes().all(is_plain) {
            return Err(VolumeError::BadHandle { handle: handle.to_owned() });
        }
        Ok(self.root.join(handle))
    }
}

fn usage_bytes(dir: &Path) -> io::Result<u64> {
    const STAT_BLOCK_BYTES: u64 = 512;
    let mut sum_bytes = 0;
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => todo.push(entry.path()),
                Ok(metadata) => sum_bytes += metadata.blocks() * STAT_BLOCK_BYTES,
                // The pod may delete while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(sum_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_only_goes_up_also_for_another_agent() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [0, 1].map(|_| DirDriver::new(dir.path().join("storage")));
        first.attach("pv-1", 4).unwrap();
        first.attach("pv-1", 4).unwrap();
        second.attach("pv-1", 5).unwrap();
        let refused = first.attach("pv-1", 4).unwrap_err();
        assert!(matches!(refused, VolumeError::StaleFence { offered: 4, highest_seen: 5, .. }));
    }

    #[test]
    fn content_outlives_a_pod_and_ends_with_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let driver = DirDriver::new(dir.path().join("storage"));
        let [old, new] = ["a", "b"].map(|pod| dir.path().join(pod).join("root/var/lib/db"));
        assert!(matches!(driver.publish("pv-1", &old), Err(VolumeError::NotAttached { .. })));
        driver.attach("pv-1", 1).unwrap();
        driver.publish("pv-1", &old).unwrap();
        driver.publish("pv-1", &old).unwrap();
        fs::write(old.join("table"), [7; 10_000]).unwrap();
        assert!(10_000 <= driver.usage_bytes("pv-1").unwrap());
        driver.unpublish(&old).unwrap();
        driver.unpublish(&old).unwrap();
        driver.publish("pv-1", &new).unwrap();
        assert_eq!(fs::read(new.join("table")).unwrap().len(), 10_000);
        driver.unpublish(&new).unwrap();
        driver.delete("pv-1").unwrap();
        driver.delete("pv-1").unwrap();
        assert!(driver.usage_bytes("pv-1").is_err());
    }

    #[test]
    fn nothing_leads_out_of_the_root_or_over_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let driver = DirDriver::new(dir.path().to_owned());
        for handle in ["", "..", "a/b", ".deleted-x"] {
            assert!(matches!(driver.attach(handle, 1), Err(VolumeError::BadHandle { .. })));
        }
        driver.attach("pv-1", 1).unwrap();
        let occupied = driver.publish("pv-1", dir.path()).unwrap_err();
        assert!(matches!(occupied, VolumeError::TargetOccupied { .. }));
    }
}
