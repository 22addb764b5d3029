//! Small files that must survive a crash whole: written aside, synced, renamed. What speaks of processes alone is not
//! synced: it has to outlive those who wrote it, and need not outlive the machine, with which all processes end.
//! Never knows what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces `path` so that a reader, even after a crash, sees either the old or the new content.
///
/// The file is readable by its owner only: environments may carry secrets.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_aside(path, content)?.sync_all()?;
    fs::rename(aside(path), path)?;
    sync_parent(path)
}

/// [`write_durably`] without a sync: what a crash of the machine leaves may be missing or empty.
fn write_lightly(path: &Path, content: &[u8]) -> io::Result<()> {
    drop(write_aside(path, content)?);
    fs::rename(aside(path), path)
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("aside")
}

fn write_aside(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(aside(path))?;
    file.write_all(content)?;
    Ok(file)
}

/// [`write_durably`] of a value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// Writes a value as JSON that means nothing after the machine has stopped: it is whole for every process that looks at
/// it, and after a crash of the machine it may be missing or empty.
pub fn write_json_of_boot<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_lightly(path, &serde_json::to_vec(value)?)
}

/// Reads a JSON file; a missing file is `None`, and so is an empty one: nobody writes such, but a machine that crashed may
/// leave it. A broken one is an error.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(content) if content.is_empty() => Ok(None),
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a rename, creation or removal in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a directory, with all that is in it; one that is not there is removed already.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // The work directory of an overlay has no permissions at all, not even for its owner.
            open_directories(path);
            fs::remove_dir_all(path)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a directory that is empty, and those above it that are empty then; one that is not there is removed already.
pub fn remove_empty_dirs(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Whoever needs one of them makes it again.
    for above in path.ancestors().skip(1) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}

fn open_directories(path: &Path) {
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return;
    }
    // What cannot be opened will be named by the removal that follows.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_directories(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_of_the_machine_left_empty_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        assert_eq!(read_json::<u64>(&path).unwrap(), None);
        write_json_of_boot(&path, &7).unwrap();
        assert_eq!(read_json::<u64>(&path).unwrap(), Some(7));
        fs::write(&path, "").unwrap();
        assert_eq!(read_json::<u64>(&path).unwrap(), None);
        fs::write(&path, "{").unwrap();
        assert!(read_json::<u64>(&path).is_err());
    }
}
