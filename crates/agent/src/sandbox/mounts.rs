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

/// A mount of a particular device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMount {
    pub path: PathBuf,
    /// The mount's own options.
    options: String,
    /// Those of the file system, whichever mount it is looked at through.
    file_system_options: String,
}

impl DeviceMount {
    /// Whether the file system takes no writes: it was mounted so, or an error made it so.
    pub fn is_read_only(&self) -> bool {
        let all = [&self.options, &self.file_system_options];
        all.into_iter().flat_map(|options| options.split(',')).any(|option| matches!(option, "ro" | "emergency_ro"))
    }
}

/// The mounts of a device, named as the kernel does: major and minor number with a colon between.
pub fn mounts_of_device(device: &str) -> io::Result<Vec<DeviceMount>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(|line| parse_device_mount(line, device.as_bytes())).collect())
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

fn parse_device_mount(line: &[u8], device: &[u8]) -> Option<DeviceMount> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields = line.split(|&byte| byte == b' ');
    fields.nth(2).filter(|field| *field == device)?;
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let options = text(fields.next()?);
    // After the dash: the file system, its source, its options.
    let file_system_options = text(fields.skip_while(|field| *field != b"-").nth(3)?);
    Some(DeviceMount { path, options, file_system_options })
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
    fn an_error_makes_a_file_system_read_only_for_all_its_mounts() {
        let line = |options: &str| format!("42 27 7:3 / /mnt/a rw,nodev shared:5 - ext4 /dev/loop3 {options}");
        let mount = |options: &str, device: &[u8]| parse_device_mount(line(options).as_bytes(), device);
        let sound = mount("rw,errors=remount-ro", b"7:3").unwrap();
        assert_eq!((sound.path.as_path(), sound.is_read_only()), (Path::new("/mnt/a"), false));
        assert!(mount("rw,errors=remount-ro,emergency_ro", b"7:3").unwrap().is_read_only());
        assert!(mount("ro", b"7:3").unwrap().is_read_only());
        assert_eq!(mount("rw", b"7:30"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mount_points().unwrap().iter().any(|mount| mount.path == Path::new("/")));
    }
}
