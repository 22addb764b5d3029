//! The volumes of one node: which pods use which, and every step of a driver in its order, there and back.
//! Never decides who may have a volume: the assignment says so, and the driver's fence.
//!
//! What is used by whom is written down before anything is done, and struck out after everything is undone, in the
//! node's directory. So an agent that dies between any two steps leaves enough for the next one to go on or to go back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::driver::{DRIVER_DIR, DRIVER_LOOP};
use domain::id::Uid;
use serde::{Deserialize, Serialize};

use super::shelf::check_handle;
use super::{DirDriver, LoopDriver, VolumeDriver, VolumeError, VolumeStats, loop_device, memory};
use crate::{files, layout};

/// Where drivers mount what they stage. Sandboxes have a `/run` of their own, so none of them ever sees it.
const STAGING_ROOT: &str = "/run/holdfast/volumes";

/// A pod's use of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub pod: Uid,
    /// The name that the pod's mounts use.
    pub name: String,
    pub driver: String,
    pub handle: String,
    pub fence: u64,
    pub capacity_bytes: u64,
}

/// What is written down of a use; its file is named after the pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct UseFile {
    name: String,
    fence: u64,
}

/// A driver that a node might have: there, or why not.
#[derive(Clone, Debug)]
pub(crate) struct Support {
    pub(crate) driver: &'static str,
    pub(crate) found: Result<Arc<dyn VolumeDriver>, String>,
}

/// The volumes of a node.
#[derive(Clone, Debug)]
pub struct NodeVolumes {
    data_dir: PathBuf,
    storage_root: PathBuf,
    drivers: BTreeMap<&'static str, Arc<dyn VolumeDriver>>,
    /// Held while anything is done to a volume on this node.
    turns: Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>>>,
}

/// Finds out which drivers work here.
pub(crate) fn find_drivers(storage_root: &Path, data_dir: &Path) -> Vec<Support> {
    let dir: Arc<dyn VolumeDriver> = Arc::new(DirDriver::new(storage_root.to_owned()));
    let probed = LoopDriver::probe(&layout::volume_probe_dir(data_dir));
    let image = probed.map(|()| Arc::new(LoopDriver::new(storage_root.to_owned())) as Arc<dyn VolumeDriver>);
    vec![Support { driver: DRIVER_DIR, found: Ok(dir) }, Support { driver: DRIVER_LOOP, found: image }]
}

/// Takes off every mount of volumes whose storage is below `dir`, and what nodes below it had staged: for the end of a
/// cluster, when no process of it is left.
pub fn release_below(dir: &Path) -> io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    loop_device::release_below(&dir)?;
    memory::release_memory_below(&dir)?;
    remove_empty_tree(&staging_of(&dir))
}

/// Removes directories, and nothing else: what has something in it stays.
fn remove_empty_tree(dir: &Path) -> io::Result<()> {
    for name in layout::names(dir) {
        let below = dir.join(name);
        if below.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            remove_empty_tree(&below)?;
        }
    }
    match files::remove_empty_dirs(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// Where a node that keeps its things in `data_dir` stages volumes: its directory is in the path, so that nodes of one
/// machine do not meet.
fn staging_of(data_dir: &Path) -> PathBuf {
    Path::new(STAGING_ROOT).join(data_dir.strip_prefix("/").unwrap_or(data_dir))
}

/// What a pod got of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where its content is.
    pub content: PathBuf,
    /// How large its file system was made; 0 if it grows only when it is attached the next time.
    pub size_bytes: u64,
}

impl NodeVolumes {
    /// The volumes of the node that keeps its things in `data_dir`.
    pub fn new(data_dir: PathBuf, storage_root: PathBuf, drivers: Vec<Arc<dyn VolumeDriver>>) -> Self {
        let drivers = drivers.into_iter().map(|driver| (driver.name(), driver)).collect();
        Self { data_dir, storage_root, drivers, turns: Arc::default() }
    }

    /// The same with the drivers that work here.
    #[must_use]
    pub(crate) fn with_drivers(self, supports: &[Support]) -> Self {
        let found = supports.iter().filter_map(|support| support.found.clone().ok()).collect();
        Self::new(self.data_dir, self.storage_root, found)
    }

    /// Where volumes of all nodes are; no pod is to see it.
    pub fn storage_root(&self) -> &Path {
        &self.storage_root
    }

    /// Takes a volume all the way to a pod: created, published to the node, staged, of the size asked for, published to
    /// the pod.
    pub fn attach(&self, wanted: &Use) -> Result<Attached, VolumeError> {
        let Use { handle, fence, capacity_bytes, .. } = wanted;
        check_handle(handle)?;
        let driver = self.driver(&wanted.driver)?;
        let uses = self.uses_dir(&wanted.driver, handle);
        let pod_dir = layout::pod_dir(&self.data_dir, wanted.pod);
        let is_grown = self.in_turn(&uses, || {
            let noted = UseFile { name: wanted.name.clone(), fence: *fence };
            // A pod's directory is what makes the next agent look after the pod.
            let note = || -> io::Result<()> {
                fs::create_dir_all(&pod_dir)?;
                fs::create_dir_all(&uses)?;
                files::write_json(&uses.join(wanted.pod.to_string()), &noted)
            };
            note().map_err(VolumeError::io(handle, "noting the use of"))?;
            let staging = self.staging(&wanted.driver, handle);
            driver.create(handle, *capacity_bytes)?;
            driver.controller_publish(handle, *fence)?;
            driver.controller_expand(handle, *capacity_bytes)?;
            driver.node_stage(handle, *fence, &staging)?;
            let is_grown = expand(&**driver, handle, &staging)?;
            driver.node_publish(handle, &staging, &layout::volume_link(&pod_dir, &wanted.name))?;
            Ok(is_grown)
        })?;
        let size_bytes = if is_grown { *capacity_bytes } else { 0 };
        Ok(Attached { content: self.published(wanted.pod, &wanted.name, handle)?, size_bytes })
    }

    /// Where a published volume's content is.
    pub fn published(&self, pod: Uid, name: &str, handle: &str) -> Result<PathBuf, VolumeError> {
        let link = layout::volume_link(&layout::pod_dir(&self.data_dir, pod), name);
        // A pod has no use for a path that depends on the agent's working directory.
        fs::canonicalize(link).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => VolumeError::NotAttached { handle: handle.to_owned() },
            _ => VolumeError::Io { handle: handle.to_owned(), doing: "finding", source },
        })
    }

    /// Takes everything from a pod of which no process is left. A volume that no pod of the node uses any more goes back
    /// to where it came from; what was written is there before this returns.
    pub fn detach_all(&self, pod: Uid) -> Result<(), VolumeError> {
        for (driver, handle) in self.used_by(pod) {
            self.detach(pod, &driver, &handle)?;
        }
        Ok(())
    }

    /// Detaches what is still written down for pods that are not here any more.
    pub fn detach_forgotten(&self) -> Result<(), VolumeError> {
        for (driver, handle) in self.all() {
            for pod in pods_in(&self.uses_dir(&driver, &handle)) {
                if !layout::pod_dir(&self.data_dir, pod).exists() {
                    self.detach(pod, &driver, &handle)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a volume's storage.
    pub fn delete(&self, driver: &str, handle: &str) -> Result<(), VolumeError> {
        self.in_turn(&self.uses_dir(driver, handle), || self.driver(driver)?.delete(handle))
    }

    /// Lets a volume grow that is attached here, while pods use it; one that is not grows when it is attached.
    pub fn expand(&self, driver: &str, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError> {
        let (uses, staging) = (self.uses_dir(driver, handle), self.staging(driver, handle));
        self.in_turn(&uses, || {
            if pods_in(&uses).is_empty() {
                return Ok(());
            }
            let driver = self.driver(driver)?;
            driver.controller_expand(handle, capacity_bytes)?;
            expand(&**driver, handle, &staging).map(|_| ())
        })
    }

    /// How full a volume is that is attached here.
    pub fn stats(&self, driver: &str, handle: &str, capacity_bytes: u64) -> Result<VolumeStats, VolumeError> {
        self.driver(driver)?.node_stats(handle, &self.staging(driver, handle), capacity_bytes)
    }

    fn detach(&self, pod: Uid, driver: &str, handle: &str) -> Result<(), VolumeError> {
        let uses = self.uses_dir(driver, handle);
        let note = uses.join(pod.to_string());
        self.in_turn(&uses, || {
            let doing = VolumeError::io(handle, "striking out the use of");
            let Some(noted) = files::read_json::<UseFile>(&note).map_err(doing)? else { return Ok(()) };
            let known = self.driver(driver)?;
            let pod_dir = layout::pod_dir(&self.data_dir, pod);
            known.node_unpublish(handle, &layout::volume_link(&pod_dir, &noted.name))?;
            if pods_in(&uses).iter().all(|user| *user == pod) {
                known.node_unstage(handle, &self.staging(driver, handle))?;
                known.controller_unpublish(handle, noted.fence)?;
            }
            // Last: until here the next agent would begin again with the first step.
            let strike_out = || {
                fs::remove_file(&note)?;
                if pods_in(&uses).is_empty() { files::remove_tree(&uses) } else { Ok(()) }
            };
            strike_out().map_err(VolumeError::io(handle, "striking out the use of"))
        })
    }

    fn driver(&self, name: &str) -> Result<&Arc<dyn VolumeDriver>, VolumeError> {
        self.drivers.get(name).ok_or_else(|| VolumeError::NoDriver {
            driver: name.to_owned(),
            known: self.drivers.keys().copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// One call for a volume after another.
    fn in_turn<T>(&self, uses: &Path, deed: impl FnOnce() -> T) -> T {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody waits for is forgotten, so that this does not grow with every volume there ever was.
            turns.retain(|_, turn| 1 < Arc::strong_count(turn));
            Arc::clone(turns.entry(uses.to_owned()).or_default())
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        deed()
    }

    fn uses_dir(&self, driver: &str, handle: &str) -> PathBuf {
        layout::volume_uses_dir(&self.data_dir).join(driver).join(handle)
    }

    fn staging(&self, driver: &str, handle: &str) -> PathBuf {
        staging_of(&self.data_dir).join(driver).join(handle)
    }

    fn used_by(&self, pod: Uid) -> Vec<(String, String)> {
        let is_used =
            |(driver, handle): &(String, String)| self.uses_dir(driver, handle).join(pod.to_string()).exists();
        self.all().into_iter().filter(is_used).collect()
    }

    /// Driver and handle of every volume that is written down.
    fn all(&self) -> Vec<(String, String)> {
        let root = layout::volume_uses_dir(&self.data_dir);
        let drivers = layout::names(&root).into_iter();
        drivers
            .flat_map(|driver| {
                layout::names(&root.join(&driver)).into_iter().map(move |handle| (driver.clone(), handle))
            })
            .collect()
    }
}

/// Whether the file system has grown. That it does only later is no failure: the volume is as usable as before.
fn expand(driver: &dyn VolumeDriver, handle: &str, staging: &Path) -> Result<bool, VolumeError> {
    match driver.node_expand(handle, staging) {
        Err(later @ VolumeError::GrowsLater { .. }) => {
            tracing::warn!("{later}");
            Ok(false)
        }
        expanded => expanded.map(|()| true),
    }
}

fn pods_in(uses: &Path) -> Vec<Uid> {
    layout::names(uses).iter().filter_map(|name| name.parse().ok()).map(Uid).collect()
}
