//! Files become a stream. Never stops for one that cannot be read: it says so and goes on.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tar::{Builder, EntryType, Header};

use super::doing;

/// Writes a file, or a directory with all that is below it. Every path in the stream begins with the source's name.
pub fn pack(source: &Path, to: impl Write, note: &mut dyn FnMut(&str)) -> io::Result<()> {
    // The source itself may be a link: it is what was asked for.
    let metadata = fs::metadata(source).map_err(|error| doing("reading", source, &error))?;
    let name = match source.file_name() {
        Some(name) => name.to_owned(),
        // Such as `..` or `/`.
        None => fs::canonicalize(source)?.file_name().unwrap_or(OsStr::new("root")).to_owned(),
    };
    let mut stream = Builder::new(to);
    let mut todo = vec![(source.to_owned(), PathBuf::from(name), metadata)];
    while let Some((path, name, metadata)) = todo.pop() {
        match add(&mut stream, &path, &name, &metadata) {
            Ok(()) => {}
            Err(Trouble::Stream(error)) => return Err(error),
            Err(Trouble::File(why)) => {
                note(&format!("left out {}: {why}", path.display()));
                continue;
            }
        }
        if metadata.is_dir() {
            todo.extend(children(&path, &name, note));
        }
    }
    stream.into_inner()?.flush()
}

/// Last first.
fn children(path: &Path, name: &Path, note: &mut dyn FnMut(&str)) -> Vec<(PathBuf, PathBuf, Metadata)> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            note(&format!("left out what is in {}: {error}", path.display()));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) => found.push((entry.path(), name.join(entry.file_name()), metadata)),
            Err(error) => note(&format!("left out {}: {error}", entry.path().display())),
        }
    }
    found.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    found
}

enum Trouble {
    /// Only this one cannot be had.
    File(String),
    /// Nobody reads any more.
    Stream(io::Error),
}

fn add(stream: &mut Builder<impl Write>, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), Trouble> {
    let file = |error: io::Error| Trouble::File(error.to_string());
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        return stream.append_data(&mut header, name, io::empty()).map_err(Trouble::Stream);
    }
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        let target = fs::read_link(path).map_err(file)?;
        return stream.append_link(&mut header, name, target).map_err(Trouble::Stream);
    }
    if !kind.is_file() {
        return Err(Trouble::File("it is neither a file, a directory nor a link".to_owned()));
    }
    // It may have become something else meanwhile, such as a pipe that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| file(errno.into()))?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(metadata.size());
    let content = Exactly { file: File::from(opened), left_bytes: metadata.size() };
    stream.append_data(&mut header, name, content).map_err(Trouble::Stream)
}

/// As many bytes as were promised, whatever becomes of the file meanwhile: zeros for what it has lost.
struct Exactly {
    file: File,
    left_bytes: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left_bytes).unwrap_or(usize::MAX));
        let count = match self.file.read(&mut buffer[..room]) {
            Ok(count @ 1..) => count,
            Ok(0) | Err(_) => {
                buffer[..room].fill(0);
                room
            }
        };
        self.left_bytes -= count as u64;
        Ok(count)
    }
}
