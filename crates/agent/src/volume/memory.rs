//! Volumes that are kept in memory: a file system of the kernel's over a directory of the pod, where this agent may mount
//! one. It outlives containers and agents, and ends with its pod, or with its machine.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::loop_device::unmount;
use crate::sandbox::mounts::mount_points;

const FILE_SYSTEM: &str = "tmpfs";

/// Keeps what is in a directory in memory from now on, at most so many bytes of it (0: as much as the kernel gives by
/// itself). Repeating it is harmless. Says whether it is so: somebody who may not mount is no error.
pub(crate) fn keep_in_memory(dir: &Path, size_max_bytes: u64) -> io::Result<bool> {
    if is_in_memory(dir)? {
        return Ok(true);
    }
    let size = if size_max_bytes == 0 { String::new() } else { format!("size={size_max_bytes}") };
    let size = std::ffi::CString::new(size)?;
    match mount(FILE_SYSTEM, dir, FILE_SYSTEM, MountFlags::NOSUID | MountFlags::NODEV, size.as_c_str()) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Ends all of them below a directory. No process may use them any more.
pub(crate) fn release_memory_below(dir: &Path) -> io::Result<()> {
    let Ok(dir) = fs::canonicalize(dir) else { return Ok(()) };
    let points = mount_points()?.into_iter().rev();
    points
        .filter(|point| point.file_system == FILE_SYSTEM && point.path != dir && point.path.starts_with(&dir))
        .try_for_each(|point| unmount(&point.path))
}

/// For people: whether volumes are kept in memory that are to be, tried in a directory of its own.
pub(crate) fn describe(probe_dir: &Path) -> String {
    let tried = fs::create_dir_all(probe_dir).and_then(|()| keep_in_memory(probe_dir, 4_096));
    let ended = unmount(probe_dir).and_then(|()| fs::remove_dir(probe_dir));
    match tried.and_then(|is_kept| ended.map(|()| is_kept)) {
        Ok(true) => "on".to_owned(),
        Ok(false) => "off: this user may not mount; they are directories".to_owned(),
        Err(error) => format!("off: {error}"),
    }
}

fn is_in_memory(dir: &Path) -> io::Result<bool> {
    let dir = fs::canonicalize(dir)?;
    Ok(mount_points()?.iter().any(|point| point.path == dir && point.file_system == FILE_SYSTEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_has_its_size_and_ends_with_what_is_above() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes/scratch");
        fs::create_dir_all(&volume).unwrap();
        if !keep_in_memory(&volume, 65_536).unwrap() {
            eprintln!("skipped: this user may not mount");
            return;
        }
        assert!(keep_in_memory(&volume, 65_536).unwrap(), "once is enough");
        fs::write(volume.join("a"), [1; 4_096]).unwrap();
        let error = fs::write(volume.join("b"), [1; 65_536]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(super::super::usage_bytes(&volume).unwrap(), 65_536);
        release_memory_below(dir.path()).unwrap();
        assert!(!is_in_memory(&volume).unwrap() && !volume.join("a").exists());
    }
}
