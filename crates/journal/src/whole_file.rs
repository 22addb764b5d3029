//! Files that are replaced whole: written aside, synced, renamed, and checked when read.
//!
//! Owns their common header. Never keeps a file half written under its name.
//!
//! A file is `magic [8], format u32, checksum u32, body length u64`, then the body; integers little endian. The
//! checksum covers everything but the magic and itself.

use crate::disk::DiskExt;
use crate::record::{le_u32, le_u64};
use crate::{Disk, DiskError};
use mutants::{Mutant, is_on};

const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 24;

/// Why a whole file cannot be read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk refused an operation. After a failed write or sync the process must stop.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The content is not what was written.
    #[error(
        "{file} is damaged ({damage}). If there is an intact copy of it that was made after this process last ran, \
         put it back; otherwise leave the process stopped: neither an older copy nor an empty directory may stand in \
         for what is lost"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What does not fit.
        damage: Damage,
    },
    /// The file was written by another version of this program.
    #[error("{file} has format {version}, and this program reads format {FORMAT}: start the version that wrote it")]
    UnknownFormat {
        /// The file.
        file: String,
        /// Its format.
        version: u32,
    },
}

/// What does not fit in a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin like a file of its kind.
    #[error("it is not a file of this kind")]
    Kind,
    /// It is shorter or longer than its header says.
    #[error("its length is wrong")]
    Length,
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
}

/// Replaces a file by `parts`, atomically and durably.
pub(crate) fn save(disk: &mut impl Disk, name: &str, magic: [u8; 8], parts: &[&[u8]]) -> Result<(), FileError> {
    let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&magic);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&checksum(FORMAT, len, parts).to_le_bytes());
    header.extend_from_slice(&len.to_le_bytes());

    let aside = format!("{name}.new");
    disk.create_file(&aside, 0)?;
    let mut offset = 0;
    for part in std::iter::once(&header.as_slice()).chain(parts) {
        disk.write_file_at(&aside, offset, part)?;
        offset += part.len() as u64;
    }
    if !is_on(Mutant::FileNotSynced) {
        disk.sync_file(&aside)?;
    }
    disk.rename_file(&aside, name)?;
    disk.sync_names()?;
    Ok(())
}

/// Reads the body of an existing file.
pub(crate) fn load(disk: &impl Disk, name: &str, magic: [u8; 8]) -> Result<Vec<u8>, FileError> {
    let mut bytes = disk.read_file(name)?;
    let damaged = |damage| FileError::Damaged { file: disk.locate(name), damage };
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(Damage::Length));
    };
    if !header.starts_with(&magic) {
        return Err(damaged(Damage::Kind));
    }
    let (version, crc, len) = (le_u32(&header[8..]), le_u32(&header[12..]), le_u64(&header[16..]));
    if len != body.len() as u64 {
        return Err(damaged(Damage::Length));
    }
    if crc != checksum(version, len, &[body]) {
        return Err(damaged(Damage::Checksum));
    }
    if version != FORMAT {
        return Err(FileError::UnknownFormat { file: disk.locate(name), version });
    }
    bytes.drain(..HEADER_BYTES);
    Ok(bytes)
}

fn checksum(version: u32, len: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version.to_le_bytes());
    hasher.update(&len.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
