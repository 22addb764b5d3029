//! `DirDisk`: real files in a real directory.
//!
//! Owns file handles and the file zeroed ahead. Never lets two owners use one directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::Disk;

/// Files beginning with a dot are not part of the disk's content.
const PREPARED_FILE: &str = ".prepared";
/// Zeros are written in pieces of this size, each synced when written ahead, so that other syncs wait little.
const ZEROS: &[u8] = &[0; 1 << 20];
/// Beyond this, handles without unsynced writes are closed.
const HANDLES_MAX: usize = 4;

/// A directory as a [`Disk`]. It is locked while this lives.
#[derive(Debug)]
pub struct DirDisk {
    path: PathBuf,
    dir: File,
    handles: BTreeMap<String, Handle>,
    preparing: Option<Preparing>,
}

/// An open file. It stays open while it has unsynced writes: the system reports a failed write-back to handles that
/// were open then.
#[derive(Debug)]
struct Handle {
    file: File,
    has_unsynced: bool,
}

/// A file being zeroed ahead, in a thread of its own.
#[derive(Debug)]
struct Preparing {
    len: u64,
    must_stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl DirDisk {
    /// Opens a directory, and creates it when needed. Fails when another `DirDisk` holds it, in any process.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        if !path.exists() {
            create_dir_durably(&path)?;
        }
        let dir = File::open(&path)?;
        dir.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                let text = format!("{} is in use by another process", path.display());
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
            fs::TryLockError::Error(error) => error,
        })?;
        Ok(Self { path, dir, handles: BTreeMap::new(), preparing: None })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn path_of(&self, name: &str) -> PathBuf {
        assert!(!name.contains('/'), "a file name must not leave the directory: {name}");
        self.path.join(name)
    }

    fn handle(&mut self, name: &str) -> io::Result<&mut Handle> {
        if !self.handles.contains_key(name) {
            let file = OpenOptions::new().write(true).open(self.path_of(name))?;
            self.keep_handle(name, file);
        }
        Ok(self.handles.get_mut(name).expect("invariant: the handle was just kept"))
    }

    fn keep_handle(&mut self, name: &str, file: File) {
        if HANDLES_MAX <= self.handles.len() {
            self.handles.retain(|_, handle| handle.has_unsynced);
        }
        self.handles.insert(name.to_owned(), Handle { file, has_unsynced: false });
    }

    /// Gives the prepared file its name, if there is one of this length.
    fn take_prepared(&mut self, name: &str, len: u64) -> io::Result<bool> {
        let Some(preparing) = self.preparing.take_if(|preparing| preparing.len == len) else {
            return Ok(false);
        };
        // What went wrong there goes wrong again, and is reported, when the zeros are written here.
        let is_ready = preparing.thread.join().is_ok_and(|outcome| outcome.is_ok());
        if is_ready {
            fs::rename(self.path.join(PREPARED_FILE), self.path_of(name))?;
        }
        Ok(is_ready)
    }
}

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string())
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path_of(name))
    }

    fn create(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.handles.remove(name);
        if self.take_prepared(name, len)? {
            return self.handle(name).map(|_| ());
        }
        let file = File::create(self.path_of(name))?;
        write_zeros(&file, len, |_| Ok(true))?;
        self.keep_handle(name, file);
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let handle = self.handle(name)?;
        handle.has_unsynced = true;
        handle.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let handle = self.handle(name)?;
        handle.file.sync_data()?;
        handle.has_unsynced = false;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path_of(from), self.path_of(to))?;
        self.handles.remove(to);
        if let Some(handle) = self.handles.remove(from) {
            self.handles.insert(to.to_owned(), handle);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.handles.remove(name);
        fs::remove_file(self.path_of(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.dir.sync_all()
    }

    fn prepare(&mut self, len: u64) {
        if self.preparing.is_some() {
            return;
        }
        let path = self.path.join(PREPARED_FILE);
        let must_stop = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&must_stop);
        let spawned =
            std::thread::Builder::new().name("disk-prepare".to_owned()).spawn(move || prepare_file(&path, len, &stop));
        // Without a thread the file is zeroed when it is created.
        self.preparing = spawned.ok().map(|thread| Preparing { len, must_stop, thread });
    }

    fn locate(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl Drop for DirDisk {
    /// Waits for the thread: the lock must not be given up while it writes.
    fn drop(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            preparing.must_stop.store(true, Ordering::Relaxed);
            // Nothing depends on the file yet, so its fate does not matter.
            let _ = preparing.thread.join();
        }
    }
}

fn prepare_file(path: &Path, len: u64, must_stop: &AtomicBool) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::create_new(path)?;
    let is_whole = write_zeros(&file, len, |file| {
        file.sync_data()?;
        Ok(!must_stop.load(Ordering::Relaxed))
    })?;
    if is_whole { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
}

/// Writes `len` zeros; false if `goes_on`, asked after each piece, said no before the end.
fn write_zeros(file: &File, len: u64, goes_on: impl Fn(&File) -> io::Result<bool>) -> io::Result<bool> {
    let mut offset = 0;
    while offset < len {
        let piece = ZEROS.len().min(usize::try_from(len - offset).unwrap_or(usize::MAX));
        file.write_all_at(&ZEROS[..piece], offset)?;
        offset += piece as u64;
        if !goes_on(file)? && offset < len {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates a directory and its missing parents, so that a crash afterwards does not lose them.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.exists() {
        create_dir_durably(parent)?;
    }
    fs::create_dir(path)?;
    File::open(parent)?.sync_all()
}
