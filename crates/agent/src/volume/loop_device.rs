//! Loop devices as the kernel shows them: which file is behind one, where it is mounted, and ending both.
//! Never attaches one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::programs;
use crate::sandbox::mounts::{DeviceMount, mounts_of_device};

/// Where the kernel lists block devices.
const BLOCK_DEVICES: &str = "/sys/block";
/// How long a device may take to be free after its last mount went, and requests to be done after a writer was cut off.
const SETTLE_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);
/// What the kernel appends to the name of a file that has been removed.
const DELETED: &str = " (deleted)";

/// A loop device, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LoopDevice(u32);

impl LoopDevice {
    /// The device of a name such as `/dev/loop3`.
    pub(super) fn named(path: &str) -> Option<Self> {
        path.strip_prefix("/dev/loop")?.parse().ok().map(Self)
    }

    /// The devices behind which the file is, also if it has been removed since.
    pub(super) fn of(image: &Path) -> io::Result<Vec<Self>> {
        // The kernel knows the file by its real name.
        let image = match fs::canonicalize(image) {
            Ok(image) => image,
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(image)?,
            Err(error) => return Err(error),
        };
        Ok(attached()?.into_iter().filter(|(_, file)| *file == image).map(|(device, _)| device).collect())
    }

    /// For programs and for people.
    pub(super) fn path(self) -> String {
        format!("/dev/loop{}", self.0)
    }

    /// Where it is mounted, as far as this process sees.
    pub(super) fn mounts(self) -> io::Result<Vec<DeviceMount>> {
        const LOOP_MAJOR: u32 = 7;
        mounts_of_device(&format!("{LOOP_MAJOR}:{}", self.0))
    }

    /// Whether its file system is mounted by anybody, also where this process cannot see it.
    pub(super) fn is_mounted(self) -> bool {
        self.file_system_facts().is_dir()
    }

    /// Frees it. While it is mounted, that waits for the last mount to go.
    pub(super) fn detach(self) -> Result<(), String> {
        let ended = programs::run("losetup", ["-d", &self.path()]);
        // Somebody else may have been faster.
        if ended.code == Some(0) || !self.is_attached() { Ok(()) } else { Err(ended.said) }
    }

    /// Waits until it is free.
    pub(super) fn wait_detached(self) -> bool {
        settles(|| !self.is_attached())
    }

    /// Takes the file system away from whoever has it mounted: it becomes read-only for all of them, at once, and what was
    /// synced before is with the file when this returns.
    pub(super) fn revoke(self) -> Result<(), String> {
        let mounts = self.mounts().map_err(|error| error.to_string())?;
        // What its holder has not synced need not be lost. From here to the switch it can still write.
        if let Some(root) = mounts.first().and_then(|mount| File::open(&mount.path).ok()) {
            let _ = rustix::fs::syncfs(root);
        }
        let errors_before = self.errors_count();
        // The kernel's own switch for an error of the file system, which was mounted so that an error makes it read-only.
        let trigger = self.file_system_facts().join("trigger_fs_error");
        fs::write(&trigger, "holdfast: the volume has another holder").map_err(|error| {
            format!("writing to {}: {error}; end the processes that use it first", trigger.display())
        })?;
        let mounts = self.mounts().map_err(|error| error.to_string())?;
        let is_revoked = match mounts.as_slice() {
            [] => errors_before < self.errors_count(),
            mounts => mounts.iter().all(DeviceMount::is_read_only),
        };
        if !is_revoked {
            return Err("the kernel did not make it read-only".to_owned());
        }
        // Requests that were on their way must not come after those of the next holder.
        let synced = File::open(self.path()).and_then(|device| device.sync_all());
        synced.map_err(|error| format!("syncing {}: {error}", self.path()))?;
        if settles(|| self.is_idle()) { Ok(()) } else { Err("it still has requests under way".to_owned()) }
    }

    fn is_attached(self) -> bool {
        self.block_device().join("loop/backing_file").exists()
    }

    fn is_idle(self) -> bool {
        let inflight = fs::read_to_string(self.block_device().join("inflight")).unwrap_or_default();
        inflight.split_whitespace().all(|count| count == "0")
    }

    fn errors_count(self) -> u64 {
        let text = fs::read_to_string(self.file_system_facts().join("errors_count")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn block_device(self) -> PathBuf {
        Path::new(BLOCK_DEVICES).join(format!("loop{}", self.0))
    }

    /// There while the file system is mounted anywhere.
    fn file_system_facts(self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/ext4/loop{}", self.0))
    }
}

/// Unmounts and frees every loop device whose file is below `dir`, when no process uses it any more.
pub(super) fn release_below(dir: &Path) -> io::Result<()> {
    for (device, file) in attached()? {
        if !file.starts_with(dir) {
            continue;
        }
        for mount in device.mounts()?.into_iter().rev() {
            unmount(&mount.path)?;
        }
        device.detach().map_err(io::Error::other)?;
        if !device.wait_detached() {
            let (device, file) = (device.path(), file.display());
            return Err(io::Error::other(format!("{device}, which shows {file}, is still mounted somewhere")));
        }
    }
    Ok(())
}

/// Takes off what is mounted at a path; nothing there is done already.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let mut last = Ok(());
    // A program that is just being started holds what is open here until it becomes itself.
    settles(|| {
        last = rustix::mount::unmount(path, UnmountFlags::empty());
        last != Err(Errno::BUSY)
    });
    match last {
        // Not a mount point, or not there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// All devices that show a file, and that file.
fn attached() -> io::Result<Vec<(LoopDevice, PathBuf)>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(BLOCK_DEVICES)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        // A device without a file has no such entry; one may lose it while we look.
        if let Some(number) = number
            && let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file"))
        {
            let file = file.trim_end_matches('\n');
            let file = file.strip_suffix(DELETED).unwrap_or(file);
            devices.push((LoopDevice(number), PathBuf::from(file)));
        }
    }
    devices.sort_unstable();
    Ok(devices)
}

fn settles(mut is_done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        if is_done() {
            return true;
        }
        if deadline <= Instant::now() {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
