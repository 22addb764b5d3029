//! A stream becomes files. Whoever sent it is not trusted: each path is walked from the target on, directory by
//! directory, and through no link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::doing;

/// Bits of a mode that are kept: nobody becomes somebody else by running a copied file.
const MODE_BITS: u32 = 0o777;

/// What becomes of a directory that is where the copy should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// The copy goes into it, under its own name.
    Inside,
    /// A copied directory and this one become one; a file goes into it.
    Merged,
}

/// Puts a stream that [`super::pack`] made at `target`.
pub fn unpack(from: impl Read, target: &Path, onto: Onto, note: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut archive = Archive::new(from);
    let mut tree: Option<Tree> = None;
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let (first, rest) = split(&path)?;
        let tree = match &mut tree {
            Some(tree) => tree,
            none => none.insert(Tree::at(target, &first, entry.header().entry_type().is_dir(), onto)?),
        };
        if let Err(error) = tree.place(entry, &rest, note) {
            if is_fatal(&error) {
                return Err(doing("writing", &path, &error));
            }
            note(&format!("left out {}: {error}", path.display()));
        }
    }
    let Some(tree) = tree else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nothing arrived"));
    };
    tree.finish()
}

/// Going on would only repeat it.
fn is_fatal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::UnexpectedEof)
}

/// The name of the whole, and the way below it.
fn split(path: &Path) -> io::Result<(OsString, PathBuf)> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} leads out of what is copied", path.display()),
                ));
            }
        }
    }
    let (first, rest) = names.split_first().ok_or_else(|| io::Error::other("an entry without a name arrived"))?;
    Ok(((*first).to_owned(), rest.iter().collect()))
}

/// Where the stream is put.
struct Tree {
    base: OwnedFd,
    /// The way from there to the copy; empty if it is the base itself.
    top: PathBuf,
    /// Directories get their modes when nothing more is put into them.
    modes: Vec<(PathBuf, u32)>,
}

impl Tree {
    fn at(target: &Path, name: &OsStr, is_dir: bool, onto: Onto) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(|errno| doing("opening", path, &io::Error::from(errno)))
        };
        let modes = Vec::new();
        if target.is_dir() {
            let top = if is_dir && onto == Onto::Merged { PathBuf::new() } else { PathBuf::from(name) };
            return Ok(Self { base: open(target)?, top, modes });
        }
        let name = target.file_name().ok_or_else(|| io::Error::other("the target has no name"))?;
        let parent = target.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            std::fs::create_dir_all(parent).map_err(|error| doing("making", parent, &error))?;
        }
        Ok(Self { base: open(parent)?, top: PathBuf::from(name), modes })
    }

    fn place(&mut self, mut entry: Entry<'_, impl Read>, rest: &Path, note: &mut dyn FnMut(&str)) -> io::Result<()> {
        let path = self.top.join(rest);
        let mode = entry.header().mode()? & MODE_BITS;
        let Some(name) = path.file_name() else {
            // The target itself, which is there.
            return Ok(());
        };
        let parent = self.walk(path.parent().unwrap_or(Path::new("")))?;
        match entry.header().entry_type() {
            EntryType::Directory => {
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode | 0o700)) {
                    Ok(()) => self.modes.push((path, mode)),
                    Err(Errno::EXIST) => drop(open_dir(&parent, name)?),
                    Err(errno) => return Err(errno.into()),
                }
                Ok(())
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| io::Error::other("the link leads nowhere"))?;
                if !stays_below(rest, &target) {
                    note(&format!("left out {}: the link leads out of what is copied", path.display()));
                    return Ok(());
                }
                make_room(&parent, name)?;
                Ok(rustix::fs::symlinkat(target.as_ref(), &parent, name)?)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => write(&mut entry, &parent, name, mode),
            other => {
                note(&format!("left out {}: {other:?} is neither a file, a directory nor a link", path.display()));
                Ok(())
            }
        }
    }

    /// Goes down from the base, through no link; makes what is missing.
    fn walk(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut dir = self.base.try_clone()?;
        for name in path.iter() {
            dir = match open_dir(&dir, name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
                    open_dir(&dir, name)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }

    fn finish(self) -> io::Result<()> {
        for (path, mode) in self.modes.iter().rev() {
            let dir = self.walk(path)?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(*mode))
                .map_err(|errno| doing("setting the mode of", path, &errno.into()))?;
        }
        Ok(())
    }
}

fn open_dir(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(dir) => Ok(dir),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no directory", name.display())))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// A link that leads to what is copied along with it.
fn stays_below(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    target.components().all(|component| match component {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => {
            let is_below = 0 < depth;
            depth = depth.saturating_sub(1);
            is_below
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

/// A new file in the place of whatever is there: a link is not written through, it goes.
fn write(content: &mut Entry<'_, impl Read>, parent: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let size_bytes = content.size();
    let changed_at_s = i64::try_from(content.header().mtime()?).unwrap_or_default();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = |more| rustix::fs::openat(parent, name, flags | more, Mode::from_raw_mode(mode | 0o200));
    let file = match make_room(parent, name) {
        Ok(()) => create(OFlags::EXCL)?,
        // A file that is mounted, such as the container's /etc/hosts, can only be changed in its place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => create(OFlags::TRUNC)?,
        Err(error) => return Err(error),
    };
    let mut file = File::from(file);
    if io::copy(content, &mut file)? != size_bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended too early"));
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    let at = Timespec { tv_sec: changed_at_s, tv_nsec: 0 };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: at, last_modification: at })?)
}

fn make_room(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
