//! The `dir` driver: volumes are directories under a storage root that all nodes share.
//! Never stops a writer: a directory cannot, so a stale process is only kept from attaching again. Sizes are noted, and
//! nothing keeps a pod from writing more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use domain::driver::DRIVER_DIR;

use super::shelf::Shelf;
use super::{VolumeDriver, VolumeError, VolumeStats, link};
use crate::files;

const DATA_DIR: &str = "data";

/// Volumes in directories below one root.
#[derive(Clone, Debug)]
pub struct DirDriver {
    shelf: Shelf,
}

impl DirDriver {
    /// The driver for the volumes below `root`, which is created when first needed.
    pub const fn new(root: PathBuf) -> Self {
        Self { shelf: Shelf::new(root) }
    }

    fn data_dir(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        // A pod has no use for a path that depends on the agent's working directory.
        fs::canonicalize(self.shelf.volume_dir(handle)?.join(DATA_DIR)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => VolumeError::NotAttached { handle: handle.to_owned() },
            _ => VolumeError::Io { handle: handle.to_owned(), doing: "finding", source },
        })
    }
}

impl VolumeDriver for DirDriver {
    fn name(&self) -> &'static str {
        DRIVER_DIR
    }

    fn create(&self, handle: &str, _capacity_bytes: u64) -> Result<(), VolumeError> {
        let data = self.shelf.volume_dir(handle)?.join(DATA_DIR);
        fs::create_dir_all(&data).and_then(|()| files::sync_parent(&data)).map_err(VolumeError::io(handle, "making"))
    }

    fn delete(&self, handle: &str) -> Result<(), VolumeError> {
        self.shelf.remove(handle)
    }

    fn controller_publish(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        self.shelf.raise_fence(handle, fence)
    }

    fn controller_expand(&self, _handle: &str, _capacity_bytes: u64) -> Result<(), VolumeError> {
        Ok(())
    }

    /// There is nothing to make ready, but it must be there, and still this holder's.
    fn node_stage(&self, handle: &str, fence: u64, _staging: &Path) -> Result<(), VolumeError> {
        self.data_dir(handle)?;
        let _lock = self.shelf.lock(handle)?;
        self.shelf.compare(handle, fence).map(|_| ())
    }

    fn node_unstage(&self, _handle: &str, _staging: &Path) -> Result<(), VolumeError> {
        Ok(())
    }

    fn node_publish(&self, handle: &str, _staging: &Path, target: &Path) -> Result<(), VolumeError> {
        link(handle, &self.data_dir(handle)?, target)
    }

    fn node_expand(&self, _handle: &str, _staging: &Path) -> Result<(), VolumeError> {
        Ok(())
    }

    fn node_stats(&self, handle: &str, _staging: &Path, capacity_bytes: u64) -> Result<VolumeStats, VolumeError> {
        let used_bytes = usage_bytes(&self.data_dir(handle)?).map_err(VolumeError::io(handle, "measuring"))?;
        let available_bytes = capacity_bytes.saturating_sub(used_bytes);
        Ok(VolumeStats { capacity_bytes, used_bytes, available_bytes })
    }
}

/// Files beyond this are not looked at: a sum that is too low is better than an agent that is busy for minutes.
const ENTRIES_MEASURED_MAX: usize = 200_000;

/// How much storage what is in a directory takes.
pub(crate) fn usage_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    const STAT_BLOCK_BYTES: u64 = 512;
    let (mut sum_bytes, mut count) = (0, 0);
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            // The pod may delete while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            count += 1;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() && count < ENTRIES_MEASURED_MAX => todo.push(entry.path()),
                Ok(metadata) => sum_bytes += metadata.blocks() * STAT_BLOCK_BYTES,
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

    const CAPACITY_BYTES: u64 = 1 << 20;

    fn attach(driver: &DirDriver, handle: &str, fence: u64) -> Result<(), VolumeError> {
        driver.create(handle, CAPACITY_BYTES)?;
        driver.controller_publish(handle, fence)?;
        driver.node_stage(handle, fence, Path::new("/unused"))
    }

    #[test]
    fn a_fence_only_goes_up_also_for_another_agent() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [0, 1].map(|_| DirDriver::new(dir.path().join("storage")));
        attach(&first, "pv-1", 4).unwrap();
        attach(&first, "pv-1", 4).unwrap();
        attach(&second, "pv-1", 5).unwrap();
        let refused = attach(&first, "pv-1", 4).unwrap_err();
        assert!(matches!(refused, VolumeError::StaleFence { offered: 4, highest_seen: 5, .. }));
        let overtaken = first.node_stage("pv-1", 4, Path::new("/unused")).unwrap_err();
        assert!(matches!(overtaken, VolumeError::StaleFence { offered: 4, highest_seen: 5, .. }));
    }

    #[test]
    fn content_outlives_a_pod_and_ends_with_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let driver = DirDriver::new(dir.path().join("storage"));
        let [old, new] = ["a", "b"].map(|pod| dir.path().join(pod).join("volumes/data"));
        let publish = |target: &Path| driver.node_publish("pv-1", Path::new("/unused"), target);
        assert!(matches!(publish(&old), Err(VolumeError::NotAttached { .. })));
        attach(&driver, "pv-1", 1).unwrap();
        publish(&old).unwrap();
        publish(&old).unwrap();
        fs::write(old.join("table"), [7; 10_000]).unwrap();
        let stats = driver.node_stats("pv-1", Path::new("/unused"), CAPACITY_BYTES).unwrap();
        assert!(10_000 <= stats.used_bytes && stats.used_bytes + stats.available_bytes == CAPACITY_BYTES);
        driver.node_unpublish("pv-1", &old).unwrap();
        driver.node_unpublish("pv-1", &old).unwrap();
        publish(&new).unwrap();
        assert_eq!(fs::read(new.join("table")).unwrap().len(), 10_000);
        driver.node_unpublish("pv-1", &new).unwrap();
        driver.delete("pv-1").unwrap();
        driver.delete("pv-1").unwrap();
        assert!(driver.node_stats("pv-1", Path::new("/unused"), CAPACITY_BYTES).is_err());
    }

    #[test]
    fn nothing_leads_out_of_the_root_or_over_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let driver = DirDriver::new(dir.path().to_owned());
        for handle in ["", "..", "a/b", ".deleted-x"] {
            assert!(matches!(attach(&driver, handle, 1), Err(VolumeError::BadHandle { .. })));
        }
        attach(&driver, "pv-1", 1).unwrap();
        let occupied = driver.node_publish("pv-1", Path::new("/unused"), dir.path()).unwrap_err();
        assert!(matches!(occupied, VolumeError::TargetOccupied { .. }));
    }
}
