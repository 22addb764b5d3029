//! The mount points of a process, as the kernel lists them. Never mounts anything.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A mount, as far as anybody here wants to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountPoint {
    pub path: PathBuf,
    pub file_system: String,
}

/// The mounts that this process sees, each path once, parents first.
pub fn mount_points() -> io::Result<Vec<MountPoint>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mut mounts: Vec<MountPoint> = text.split(|&byte| byte == b'\n').filter_map(parse).collect();
    mounts.sort();
    mounts.dedup_by(|a, b| a.path == b.path);
    Ok(mounts)
}

/// The mount points strictly below a directory, deepest first: the order to unmount them in.
pub fn mounted_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let below = |mount: &MountPoint| mount.path != dir && mount.path.starts_with(dir);
    Ok(mount_points()?.into_iter().filter(below).map(|mount| mount.path).rev().collect())
}

fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|&byte| byte == b' ');
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
    // Optional fields end with a dash.
    let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(MountPoint { path, file_system: String::from_utf8_lossy(file_system).into_owned() })
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes_and_optional_fields() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402/x\134y rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw";
        let mount = parse(line).unwrap();
        assert_eq!(mount, MountPoint { path: r"/mnt 2/x\y".into(), file_system: "ext3".to_owned() });
        assert_eq!(parse(b"36 35"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mount_points().unwrap().iter().any(|mount| mount.path == Path::new("/")));
    }
}
