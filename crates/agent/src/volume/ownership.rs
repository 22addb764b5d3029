//! Giving what is in a volume to a group, so that a container may write which is not root.
//! Never follows a link: what a pod has left in its volume could lead anywhere.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::process::Gid;

/// What the group may do with files.
const FILE_MODE: u32 = 0o660;
/// And with directories; what is made in them belongs to the group, too.
const DIR_MODE: u32 = 0o2_770;

/// Lets a group own everything below `root`. Does nothing where that belongs to it already: the root comes last.
pub(crate) fn give_to_group(root: &Path, group: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    if stat.st_gid == group && stat.st_mode & DIR_MODE == DIR_MODE {
        return Ok(());
    }
    give(&root, &stat, Gid::from_raw(group))
}

fn give(entry: &OwnedFd, stat: &Stat, group: Gid) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", entry.as_raw_fd());
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Directory {
        let listed =
            rustix::fs::openat(CWD, &own, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        give_content(listed.as_fd(), group)?;
    }
    rustix::fs::chownat(entry, c"", None, Some(group), AtFlags::EMPTY_PATH)?;
    let more = match kind {
        FileType::Directory => DIR_MODE,
        FileType::RegularFile => FILE_MODE,
        _ => return Ok(()),
    };
    Ok(rustix::fs::chmod(&own, Mode::from_raw_mode(stat.st_mode & 0o7_777 | more))?)
}

fn give_content(dir: BorrowedFd<'_>, group: Gid) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, entry.file_name(), flags, Mode::empty()) {
            Ok(entry) => give(&entry, &rustix::fs::fstat(&entry)?, group)?,
            // Another pod of this node may use the volume, too.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn everything_in_a_volume_goes_to_the_group_and_nothing_behind_a_link() {
        if !rustix::process::geteuid().is_root() {
            return; // Nobody else can give anything away.
        }
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        let root = dir.path().join("volume");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink(&outside, root.join("a/out")).unwrap();
        give_to_group(&root, 1_234).unwrap();
        for (path, mode) in [("", 0o2_775), ("a/b", 0o2_775), ("a/b/file", 0o664)] {
            let found = fs::metadata(root.join(path)).unwrap();
            assert_eq!((found.gid(), found.mode() & 0o7_777), (1_234, mode), "{path}");
        }
        let outside = fs::metadata(&outside).unwrap();
        assert_eq!((outside.gid(), outside.mode() & 0o7_777), (0, 0o600));
    }
}
