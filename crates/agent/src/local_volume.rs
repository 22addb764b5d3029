//! Volumes that end with their pod: directories below the pod's own, which go when that goes.
//! Never decides what is in them.
//!
//! Files come as Kubernetes' do: what the pod sees are links through `..data`, which is itself a link to a directory of
//! one version. Replacing that one link changes all files at once, also under a mount of the volume.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use agent_core::{PodFile, VolumeContent};

use crate::files;
use crate::volume;

/// The link to the present version.
const DATA: &str = "..data";
/// The link of which the present one is made.
const DATA_ASIDE: &str = "..data_aside";
/// Versions are directories of this name and a number.
const VERSION: &str = "..version-";
/// Any container of the pod may write, whoever it runs as.
const EMPTY_MODE: u32 = 0o777;

/// Where a volume is on the host.
pub(crate) fn dir(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join("volumes").join(volume)
}

/// Makes a volume that belongs to a group, if to any, or gives it another content. Repeating it is harmless.
pub(crate) fn place(dir: &Path, content: &VolumeContent, group: Option<u32>) -> io::Result<()> {
    match content {
        VolumeContent::Empty => place_empty(dir, group),
        VolumeContent::Memory { size_max_bytes } => {
            fs::create_dir_all(dir)?;
            if !volume::memory::keep_in_memory(dir, *size_max_bytes)? {
                tracing::warn!(dir = %dir.display(), "may not mount: a volume that is to be in memory is a directory");
            }
            place_empty(dir, group)
        }
        VolumeContent::Files(content) => {
            fs::create_dir_all(dir)?;
            place_files(dir, content, group)
        }
    }
}

fn place_empty(dir: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(EMPTY_MODE))?;
    group.map_or(Ok(()), |group| volume::give_to_group(dir, group))
}

fn place_files(dir: &Path, content: &BTreeMap<String, PodFile>, group: Option<u32>) -> io::Result<()> {
    let numbers = versions(dir)?;
    let present = fs::read_link(dir.join(DATA)).ok();
    if present.is_some() && is_there(&dir.join(DATA), content, group) {
        return Ok(());
    }
    let version = format!("{VERSION}{}", numbers.last().map_or(0, |number| number + 1));
    write_version(&dir.join(&version), content, group)?;
    // What a crash left aside is in the way.
    let _ = fs::remove_file(dir.join(DATA_ASIDE));
    symlink(&version, dir.join(DATA_ASIDE))?;
    fs::rename(dir.join(DATA_ASIDE), dir.join(DATA))?;
    link_names(dir, content)?;
    for number in numbers {
        files::remove_tree(&dir.join(format!("{VERSION}{number}")))?;
    }
    Ok(())
}

fn versions(dir: &Path) -> io::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix(VERSION)?.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Whether the present version says what it should; a file too many counts as a difference only when its name changed.
fn is_there(data: &Path, content: &BTreeMap<String, PodFile>, group: Option<u32>) -> bool {
    let is_same = |(path, file): (&String, &PodFile)| {
        let at = data.join(path);
        let mode = fs::metadata(&at).map(|metadata| metadata.permissions().mode() & 0o7777);
        mode.is_ok_and(|mode| mode == mode_for(file, group))
            && fs::read(&at).is_ok_and(|bytes| *bytes == *file.content.0)
    };
    let names = fs::read_dir(data).into_iter().flatten().flatten().count();
    names == top_names(content).len() && content.iter().all(is_same)
}

/// A group that owns a file may read it.
fn mode_for(file: &PodFile, group: Option<u32>) -> u32 {
    file.mode | group.map_or(0, |_| 0o440)
}

fn write_version(version: &Path, content: &BTreeMap<String, PodFile>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(version)?;
    fs::set_permissions(version, Permissions::from_mode(0o755))?;
    for (path, file) in content {
        let at = version.join(path);
        if let Some(parent) = at.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&at, &file.content.0)?;
        std::os::unix::fs::chown(&at, None, group)?;
        fs::set_permissions(&at, Permissions::from_mode(mode_for(file, group)))?;
    }
    Ok(())
}

/// What stands directly in the volume.
fn top_names(content: &BTreeMap<String, PodFile>) -> BTreeSet<&str> {
    content.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_names(dir: &Path, content: &BTreeMap<String, PodFile>) -> io::Result<()> {
    let wanted = top_names(content);
    for name in &wanted {
        if fs::symlink_metadata(dir.join(name)).is_err() {
            symlink(Path::new(DATA).join(name), dir.join(name))?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let is_stale = name.to_str().is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if is_stale {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

/// The part of a volume that a mount shows; a directory that is missing is made.
///
/// A link in the volume may have been made by a pod: it must not lead out.
pub(crate) fn part(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {sub_path} leads out of the volume"));
    let volume = fs::canonicalize(volume)?;
    let relative = Path::new(sub_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refused());
    }
    let wanted = volume.join(relative);
    // The longest part that is there says where the rest would be made.
    let existing = wanted.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).unwrap_or(&volume);
    if !fs::canonicalize(existing)?.starts_with(&volume) {
        return Err(refused());
    }
    if fs::symlink_metadata(&wanted).is_err() {
        fs::create_dir_all(&wanted)?;
        // Whoever may write into the volume may write into its part.
        let permissions = fs::metadata(&volume)?.permissions();
        let made = wanted.ancestors().take_while(|path| *path != existing);
        made.into_iter().try_for_each(|path| fs::set_permissions(path, permissions.clone()))?;
    }
    Ok(wanted)
}

/// Makes a path in the pod's root lead to what a mount shows. Repeating it is harmless.
pub(crate) fn publish(source: &Path, target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(_) if fs::read_link(target).is_ok_and(|current| current == source) => return Ok(()),
        Ok(metadata) if metadata.is_symlink() => fs::remove_file(target)?,
        Ok(_) => return Err(io::Error::other(format!("{} is in the way", target.display()))),
    }
    symlink(source, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::config::Blob;

    fn content(files: &[(&str, &str)]) -> VolumeContent {
        let file = |text: &str| PodFile { mode: 0o640, content: Blob::from(text.to_owned()) };
        VolumeContent::Files(files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect())
    }

    #[test]
    fn files_change_all_at_once_and_through_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("settings");
        place(&volume, &content(&[("colour", "blue"), ("sub/size", "3")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("colour")).unwrap(), "blue");
        assert_eq!(fs::read_to_string(volume.join("sub/size")).unwrap(), "3");
        assert_eq!(fs::metadata(volume.join("colour")).unwrap().permissions().mode() & 0o777, 0o640);

        let before = fs::read_link(volume.join(DATA)).unwrap();
        place(&volume, &content(&[("colour", "blue"), ("sub/size", "3")]), None).unwrap();
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), before, "the same again changes nothing");

        place(&volume, &content(&[("colour", "green"), ("shape", "round")]), None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("colour")).unwrap(), "green");
        assert_eq!(fs::read_to_string(volume.join("shape")).unwrap(), "round");
        assert!(!volume.join("sub").exists());
        assert_eq!(versions(&volume).unwrap().len(), 1, "old versions go");
    }

    #[test]
    fn an_empty_directory_keeps_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("scratch");
        place(&volume, &VolumeContent::Empty, None).unwrap();
        fs::write(volume.join("a"), "1").unwrap();
        place(&volume, &VolumeContent::Empty, None).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
    }

    #[test]
    fn a_part_of_a_volume_stays_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        assert!(part(&volume, "a/b").unwrap().is_dir());
        symlink("/tmp", volume.join("out")).unwrap();
        assert!(part(&volume, "out").is_err());
        assert!(part(&volume, "out/x").is_err());
        assert!(part(&volume, "../x").is_err());
    }
}
