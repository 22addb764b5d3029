//! The `loop` driver: a volume is a sparse ext4 image of the size asked for, under the storage root, mounted by a loop
//! device. `df` shows that size, and a full volume is full for its own pods only. For root, and for nodes of one machine:
//! only there can the kernel say who has an image mounted.
//!
//! Before a volume is mounted under a new fence, the file system is taken away from whoever still has it mounted: it
//! becomes read-only for a writer that was left behind. So an image is never written through two mounts.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use domain::driver::DRIVER_LOOP;

use super::loop_device::{LoopDevice, unmount};
use super::programs::{self, Ended};
use super::shelf::Shelf;
use super::{VolumeDriver, VolumeError, VolumeStats, link};
use crate::files;
use crate::sandbox::mounts::DeviceMount;

const IMAGE_FILE: &str = "image";
/// In the file system; what is beside it (`lost+found`) is no business of a pod.
const DATA_DIR: &str = "data";
/// Below this ext4 has no room for a journal.
const CAPACITY_BYTES_MIN: u64 = 4 << 20;
/// An error makes it read-only, which is also how it is taken away from a stale holder.
const MOUNT_OPTIONS: &str = "errors=remount-ro,nodev";
const PROGRAMS: [&str; 5] = ["losetup", "mkfs.ext4", "e2fsck", "resize2fs", "mount"];
/// The last group of blocks is left out when it would be too small.
const REST_BYTES_MAX: u64 = 1 << 20;
/// From here on, exit codes of e2fsck say that errors are left.
const FSCK_ERRORS_LEFT: i32 = 4;

/// Volumes in image files below one root.
#[derive(Clone, Debug)]
pub struct LoopDriver {
    shelf: Shelf,
}

impl LoopDriver {
    /// The driver for the volumes below `root`, which is created when first needed.
    pub const fn new(root: PathBuf) -> Self {
        Self { shelf: Shelf::new(root) }
    }

    /// Tries it out: makes a volume, mounts it, and removes all that in the end. The error says why it cannot be used here.
    pub fn probe(dir: &Path) -> Result<(), String> {
        const CONTENT: &str = "probe";
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount an image".to_owned());
        }
        if let Some(missing) = PROGRAMS.into_iter().find(|program| programs::find(program).is_none()) {
            return Err(format!("this machine has no {missing}"));
        }
        let (driver, staging, target) = (Self::new(dir.join("storage")), dir.join("staging"), dir.join("target"));
        let tried = driver
            .create(CONTENT, CAPACITY_BYTES_MIN)
            .and_then(|()| driver.controller_publish(CONTENT, 1))
            .and_then(|()| driver.node_stage(CONTENT, 1, &staging))
            .and_then(|()| driver.node_publish(CONTENT, &staging, &target));
        let undone = driver.node_unstage(CONTENT, &staging).and_then(|()| driver.delete(CONTENT));
        // Only what is unmounted is removed.
        let removed = undone.and_then(|()| files::remove_tree(dir).map_err(VolumeError::io(CONTENT, "deleting")));
        tried.and(removed).map_err(|error| crate::pods::with_causes(&error))
    }

    fn image(&self, handle: &str) -> Result<PathBuf, VolumeError> {
        Ok(self.shelf.volume_dir(handle)?.join(IMAGE_FILE))
    }

    fn devices(&self, handle: &str) -> Result<Vec<LoopDevice>, VolumeError> {
        LoopDevice::of(&self.image(handle)?).map_err(VolumeError::io(handle, "looking for loop devices of"))
    }

    /// The device that is mounted at `staging`, and how.
    fn staged(&self, handle: &str, staging: &Path) -> Result<Option<(LoopDevice, DeviceMount)>, VolumeError> {
        for device in self.devices(handle)? {
            let mounts = device.mounts().map_err(VolumeError::io(handle, "looking for mounts of"))?;
            if let Some(mount) = mounts.into_iter().find(|mount| mount.path == staging) {
                return Ok(Some((device, mount)));
            }
        }
        Ok(None)
    }

    /// Whoever else has the image mounted can write to it no more; devices that nobody has mounted are freed.
    fn take_away(&self, handle: &str) -> Result<(), VolumeError> {
        for device in self.devices(handle)? {
            let failed = |said| VolumeError::CannotRevoke { handle: handle.to_owned(), device: device.path(), said };
            if !device.is_mounted() {
                device.detach().map_err(failed)?;
                continue;
            }
            let mounts = device.mounts().map_err(VolumeError::io(handle, "looking for mounts of"))?;
            if mounts.is_empty() || !mounts.iter().all(DeviceMount::is_read_only) {
                tracing::warn!(volume = handle, device = device.path(), "taken away from its former holder");
                device.revoke().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Mounts the image by a new device, which then goes with the mount.
    fn mount(&self, handle: &str, staging: &Path) -> Result<(), VolumeError> {
        let arguments = ["--find", "--show"].map(OsString::from).into_iter().chain([self.image(handle)?.into()]);
        let ended = programs::run("losetup", arguments);
        let device = LoopDevice::named(&ended.stdout).filter(|_| ended.code == Some(0));
        let Some(device) = device else { return Err(failed(handle, "attaching", "losetup", ended)) };
        let mounted = check(handle, device, &[])
            .and_then(|()| grow_unmounted(handle, device))
            .and_then(|()| mount_device(handle, device, staging));
        // From here on it goes with its last mount: at once, if there is none.
        let detached = device.detach().map_err(|said| {
            let ended = Ended { code: None, stdout: String::new(), said };
            failed(handle, "attaching", "losetup", ended)
        });
        mounted.and(detached)
    }
}

impl VolumeDriver for LoopDriver {
    fn name(&self) -> &'static str {
        DRIVER_LOOP
    }

    fn create(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError> {
        let (image, doing) = (self.image(handle)?, VolumeError::io(handle, "making"));
        let _lock = self.shelf.lock(handle)?;
        if image.exists() {
            return Ok(());
        }
        if capacity_bytes < CAPACITY_BYTES_MIN {
            let (bytes, bytes_min) = (capacity_bytes, CAPACITY_BYTES_MIN);
            return Err(VolumeError::TooSmall { handle: handle.to_owned(), bytes, bytes_min });
        }
        // Made aside: an image that has its name is whole.
        let aside = image.with_extension("aside");
        let make = || {
            let file = File::create(&aside)?;
            file.set_len(capacity_bytes)
        };
        make().map_err(VolumeError::io(handle, "making"))?;
        let ended = programs::run(
            "mkfs.ext4",
            ["-q", "-F", "-m", "0"].map(OsString::from).into_iter().chain([aside.clone().into()]),
        );
        if ended.code != Some(0) {
            return Err(failed(handle, "making", "mkfs.ext4", ended));
        }
        let keep = || {
            File::open(&aside)?.sync_all()?;
            fs::rename(&aside, &image)?;
            files::sync_parent(&image)
        };
        keep().map_err(doing)
    }

    fn delete(&self, handle: &str) -> Result<(), VolumeError> {
        if !self.shelf.volume_dir(handle)?.exists() {
            return self.shelf.remove(handle);
        }
        let _lock = self.shelf.lock(handle)?;
        self.take_away(handle)?;
        self.shelf.remove(handle)
    }

    fn controller_publish(&self, handle: &str, fence: u64) -> Result<(), VolumeError> {
        self.shelf.raise_fence(handle, fence)
    }

    fn controller_expand(&self, handle: &str, capacity_bytes: u64) -> Result<(), VolumeError> {
        let image = self.image(handle)?;
        let _lock = self.shelf.lock(handle)?;
        let expand = || -> io::Result<()> {
            let file = File::options().write(true).open(image)?;
            if file.metadata()?.len() < capacity_bytes {
                file.set_len(capacity_bytes)?;
                file.sync_all()?;
            }
            Ok(())
        };
        expand().map_err(VolumeError::io(handle, "expanding"))
    }

    fn node_stage(&self, handle: &str, fence: u64, staging: &Path) -> Result<(), VolumeError> {
        let _lock = self.shelf.lock(handle)?;
        self.shelf.compare(handle, fence)?;
        match self.staged(handle, staging)? {
            Some((_, mount)) if !mount.is_read_only() => {}
            is_stale => {
                // What this node was once relieved of may still be mounted here.
                if is_stale.is_some() {
                    unmount(staging).map_err(VolumeError::io(handle, "unmounting"))?;
                }
                self.take_away(handle)?;
                self.mount(handle, staging)?;
            }
        }
        fs::create_dir_all(staging.join(DATA_DIR)).map_err(VolumeError::io(handle, "staging"))
    }

    fn node_unstage(&self, handle: &str, staging: &Path) -> Result<(), VolumeError> {
        if !self.shelf.volume_dir(handle)?.exists() {
            // It was deleted by the word of whoever answered for it that this node is gone.
            unmount(staging).map_err(VolumeError::io(handle, "unmounting"))?;
            return files::remove_empty_dirs(staging).map_err(VolumeError::io(handle, "unstaging"));
        }
        let _lock = self.shelf.lock(handle)?;
        if let Some((device, mount)) = self.staged(handle, staging)? {
            if !mount.is_read_only() {
                let sync = || File::open(staging).and_then(|root| Ok(rustix::fs::syncfs(root)?));
                sync().map_err(VolumeError::io(handle, "syncing"))?;
            }
            unmount(staging).map_err(VolumeError::io(handle, "unmounting"))?;
            // A sandbox that somebody is just building may hold it for a moment.
            if !device.wait_detached() {
                return Err(VolumeError::StillMounted { handle: handle.to_owned(), device: device.path() });
            }
        }
        files::remove_empty_dirs(staging).map_err(VolumeError::io(handle, "unstaging"))
    }

    fn node_publish(&self, handle: &str, staging: &Path, target: &Path) -> Result<(), VolumeError> {
        if self.staged(handle, staging)?.is_none() {
            return Err(VolumeError::NotAttached { handle: handle.to_owned() });
        }
        link(handle, &staging.join(DATA_DIR), target)
    }

    fn node_expand(&self, handle: &str, staging: &Path) -> Result<(), VolumeError> {
        let _lock = self.shelf.lock(handle)?;
        let Some((device, _)) = self.staged(handle, staging)? else {
            return Err(VolumeError::NotAttached { handle: handle.to_owned() });
        };
        let device = device.path();
        let ended = programs::run("losetup", ["-c", &device]);
        if ended.code != Some(0) {
            return Err(failed(handle, "expanding", "losetup", ended));
        }
        if file_system_fills(&device).map_err(VolumeError::io(handle, "looking at"))? {
            return Ok(());
        }
        let ended = programs::run("resize2fs", [&device]);
        match ended.code {
            Some(0) => Ok(()),
            // Root without all privileges, as in many a container.
            Some(_) => Err(VolumeError::GrowsLater { handle: handle.to_owned(), said: ended.said }),
            None => Err(failed(handle, "expanding", "resize2fs", ended)),
        }
    }

    fn node_stats(&self, handle: &str, staging: &Path, _capacity_bytes: u64) -> Result<VolumeStats, VolumeError> {
        if self.staged(handle, staging)?.is_none() {
            return Err(VolumeError::NotAttached { handle: handle.to_owned() });
        }
        let found = rustix::fs::statvfs(staging).map_err(|errno| VolumeError::io(handle, "measuring")(errno.into()))?;
        Ok(VolumeStats {
            capacity_bytes: found.f_blocks * found.f_frsize,
            used_bytes: (found.f_blocks - found.f_bfree) * found.f_frsize,
            available_bytes: found.f_bavail * found.f_frsize,
        })
    }
}

/// Replays the journal, and mends what can be mended without asking. On the device rather than the image, which would look
/// as if it were mounted while a former holder still has it.
fn check(handle: &str, device: LoopDevice, more: &[&str]) -> Result<(), VolumeError> {
    let path = device.path();
    let ended = programs::run("e2fsck", ["-p"].iter().chain(more).chain([&path.as_str()]));
    match ended.code {
        Some(code) if code < FSCK_ERRORS_LEFT => Ok(()),
        Some(_) => Err(VolumeError::Damaged { handle: handle.to_owned(), said: ended.said }),
        None => Err(failed(handle, "checking", "e2fsck", ended)),
    }
}

/// Lets the file system fill an image that has become larger.
fn grow_unmounted(handle: &str, device: LoopDevice) -> Result<(), VolumeError> {
    let fills = file_system_fills(&device.path()).map_err(VolumeError::io(handle, "looking at"))?;
    if fills {
        return Ok(());
    }
    // It is grown only after everything in it was looked at.
    check(handle, device, &["-f"])?;
    let ended = programs::run("resize2fs", [device.path()]);
    if ended.code == Some(0) { Ok(()) } else { Err(failed(handle, "expanding", "resize2fs", ended)) }
}

/// Whether the file system is as large as its device, but for a rest that is too small to use.
fn file_system_fills(device: &str) -> io::Result<bool> {
    /// Where the superblock is, and fields in it.
    const SUPERBLOCK_AT: u64 = 1_024;
    const BLOCKS_LOW: usize = 0x4;
    const BLOCK_SHIFT: usize = 0x18;
    const BLOCKS_HIGH: usize = 0x150;
    let mut file = File::open(device)?;
    let mut superblock = [0; 1_024];
    file.seek(SeekFrom::Start(SUPERBLOCK_AT))?;
    file.read_exact(&mut superblock)?;
    let number = |at: usize| -> u64 {
        let bytes: [u8; 4] = superblock[at..at + 4].try_into().expect("invariant: four bytes are four");
        u32::from_le_bytes(bytes).into()
    };
    let block_bytes = 1_024_u64.checked_shl(u32::try_from(number(BLOCK_SHIFT)).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
    let file_system_bytes = ((number(BLOCKS_HIGH) << 32) | number(BLOCKS_LOW)).saturating_mul(block_bytes);
    let device_bytes = file.seek(SeekFrom::End(0))?;
    Ok(device_bytes < file_system_bytes.saturating_add(REST_BYTES_MAX))
}

fn mount_device(handle: &str, device: LoopDevice, staging: &Path) -> Result<(), VolumeError> {
    // Another agent may be removing the directories above, which are empty as long as nothing is staged.
    let made = fs::create_dir_all(staging).or_else(|_| fs::create_dir_all(staging));
    made.map_err(VolumeError::io(handle, "mounting"))?;
    let source = device.path();
    let arguments = ["-t", "ext4", "-o", MOUNT_OPTIONS, &source].map(OsString::from);
    let ended = programs::run("mount", arguments.into_iter().chain([staging.into()]));
    if ended.code == Some(0) { Ok(()) } else { Err(failed(handle, "mounting", "mount", ended)) }
}

fn failed(handle: &str, doing: &'static str, program: &'static str, ended: Ended) -> VolumeError {
    VolumeError::ProgramFailed { handle: handle.to_owned(), doing, program, said: ended.said }
}
