//! Volumes: what a driver can be asked for, and [`NodeVolumes`], which asks in the right order.
//! Never judges who should hold a volume: drivers refuse fences lower than the highest they have seen, and know no more.
//!
//! The duties are split as in CSI, the container storage interface. The controller's side is about the storage itself,
//! wherever it is used: create, delete, publish to a node, expand. The node's side is about this node: stage once,
//! publish to each pod, and back. Here a node does both, since whoever holds a volume under its fence may do both.

mod dir;
mod loop_device;
mod loop_image;
pub(crate) mod memory;
mod node_volumes;
mod ownership;
mod programs;
mod shelf;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use dir::DirDriver;
pub(crate) use dir::usage_bytes;
pub use loop_image::LoopDriver;
pub use node_volumes::{Attached, NodeVolumes, Use, release_below};
pub(crate) use node_volumes::{Support, find_drivers};
pub(crate) use ownership::give_to_group;

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
    #[error("this node has no volume driver {driver}; it has {known}")]
    NoDriver { driver: String, known: String },
    #[error("volume {handle} cannot be made: {bytes} bytes are less than the {bytes_min} that its file system needs")]
    TooSmall { handle: String, bytes: u64, bytes_min: u64 },
    #[error("the file system of volume {handle} is damaged; look at it with e2fsck: {said}")]
    Damaged { handle: String, said: String },
    #[error("volume {handle} is still mounted from {device}, and cannot be taken away from who has it: {said}")]
    CannotRevoke { handle: String, device: String, said: String },
    #[error("volume {handle} is still mounted from {device} somewhere; it is tried again")]
    StillMounted { handle: String, device: String },
    #[error("{doing} volume {handle}: {program} failed: {said}")]
    ProgramFailed { handle: String, doing: &'static str, program: &'static str, said: String },
    #[error(
        "volume {handle} grows when its pods are started again: the kernel does not let it grow while it is mounted ({said})"
    )]
    GrowsLater { handle: String, said: String },
    #[error("removing {}", dir.display())]
    RemovePod { dir: PathBuf, source: io::Error },
    #[error("{doing} volume {handle}")]
    Io { handle: String, doing: &'static str, source: io::Error },
}

impl VolumeError {
    /// For `map_err`: what was being done to which volume.
    pub(crate) fn io(handle: &str, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let handle = handle.to_owned();
        move |source| Self::Io { handle, doing, source }
    }
}

/// How much a volume holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// What it can hold.
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// What can still be written.
    pub available_bytes: u64,
}

/// Something that provides volumes.
///
/// Every call may be repeated with the same arguments, whether it was answered or not, and by another agent: what is done
/// already is done again without harm. At most one call for a volume is under way on a node.
pub trait VolumeDriver: fmt::Debug + Send + Sync {
    /// As classes and volumes name it.
    fn name(&self) -> &'static str;

    /// Controller: makes the storage, empty, unless it is there.
    fn create(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError>;

    /// Controller: removes the storage and all that is in it.
    fn delete(&self, handle: &str) -> Result<(), VolumeError>;

    /// Controller: gives the volume to the holder of `fence`, and to nobody with a lower one from here on.
    ///
    /// The highest fence is durable before this returns. The same fence again is a repeat, a lower one is refused.
    fn controller_publish(&self, handle: &str, fence: u64) -> Result<(), VolumeError>;

    /// Controller: the holder of `fence` has no more use for it. The fence stays the highest seen.
    fn controller_unpublish(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        // Fences alone say who may have it, and they are not taken back.
        let _ = (handle, fence);
        Ok(())
    }

    /// Controller: lets the storage grow. Never makes it smaller.
    fn controller_expand(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError>;

    /// Node: makes the volume ready for the pods of this node. `staging` is a path for the driver's use.
    fn node_stage(&self, handle: &str, fence: u64, staging: &Path) -> Result<(), VolumeError>;

    /// Node: undoes [`Self::node_stage`]. When this returns, everything that was written is with the storage, and nothing
    /// of the volume is left on the node.
    fn node_unstage(&self, handle: &str, staging: &Path) -> Result<(), VolumeError>;

    /// Node: makes `target`, a path of one pod, lead to the content of a staged volume.
    fn node_publish(&self, handle: &str, staging: &Path, target: &Path) -> Result<(), VolumeError>;

    /// Node: undoes [`Self::node_publish`].
    fn node_unpublish(&self, handle: &str, target: &Path) -> Result<(), VolumeError> {
        unlink(target).map_err(VolumeError::io(handle, "unpublishing"))
    }

    /// Node: lets the file system of a staged volume follow [`Self::controller_expand`], while it is in use. Where that
    /// cannot be, [`VolumeError::GrowsLater`]: it grows when it is staged the next time.
    fn node_expand(&self, handle: &str, staging: &Path) -> Result<(), VolumeError>;

    /// Node: how full a staged volume is. `capacity_bytes` is what was asked for.
    fn node_stats(&self, handle: &str, staging: &Path, capacity_bytes: u64) -> Result<VolumeStats, VolumeError>;
}

/// Makes `target` a link to `content`. Only a link is ever replaced.
pub(crate) fn link(handle: &str, content: &Path, target: &Path) -> Result<(), VolumeError> {
    let doing = |source| VolumeError::Io { handle: handle.to_owned(), doing: "publishing", source };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(doing)?;
    }
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(doing(error)),
        Ok(_) if fs::read_link(target).is_ok_and(|current| current == content) => return Ok(()),
        Ok(metadata) if metadata.is_symlink() => fs::remove_file(target).map_err(doing)?,
        Ok(_) => return Err(VolumeError::TargetOccupied { target: target.to_owned() }),
    }
    symlink(content, target).map_err(doing)
}

/// Removes a link, and nothing else.
fn unlink(target: &Path) -> io::Result<()> {
    match target.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => fs::remove_file(target),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
