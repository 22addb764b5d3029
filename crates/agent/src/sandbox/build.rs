//! Putting a sandbox together, in the process that is its first: namespaces, root, volumes, devices, privileges.
//! Never looks back: when it fails, the process ends, and with it all that was made.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};
use thiserror::Error;

use super::mounts::{MountPoint, mount_points};
use super::root::{self, Host, Own, Plan, Step};
use super::{LAYERS_DIR, ROOT_DIR, RootKind, Sandbox, below};
use crate::privileges;

/// What a container may write outside its volumes when that is kept in memory.
const MEMORY_LAYER_BYTES_MAX: u64 = 512 << 20;
/// What a container may put into its `/dev/shm`.
const SHARED_MEMORY_BYTES_MAX: u64 = 64 << 20;
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// Parts of /proc through which root could change the machine.
const MACHINE_SETTINGS: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
/// What root in a container keeps; the rest concerns the machine.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Why there is no sandbox.
#[derive(Debug, Error)]
#[error("setting up the sandbox: {doing}")]
pub(crate) struct SandboxError {
    doing: String,
    source: io::Error,
}

trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError { doing: what(), source: error.into() })
    }
}

/// Turns the calling process, which has one thread and is the first of its PID namespace, into the sandbox's.
///
/// `dir` is the container's directory; afterwards, it is out of sight.
pub(crate) fn build(dir: &Path, sandbox: &Sandbox) -> Result<(), SandboxError> {
    let namespaces = UnshareFlags::NEWNS.union(UnshareFlags::NEWUTS).union(UnshareFlags::NEWIPC);
    super::unshare(namespaces).doing(|| "making namespaces".to_owned())?;
    // What the host unmounts from here on goes here, too; nothing goes the other way.
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", propagation).doing(|| "separating mounts".to_owned())?;
    let mounts = mount_points().doing(|| "reading the host's mounts".to_owned())?;
    let host = Host { root: "/".into(), mounts };
    let plan = root::plan(&host, sandbox).doing(|| "planning the root".to_owned())?;
    let builder = Builder { dir, sandbox, plan: &plan, host: &host, root: dir.join(ROOT_DIR) };
    builder.assemble()?;
    let own_mounts = builder.open_own_mounts()?;
    builder.add_volumes()?;
    builder.add_shared_files()?;
    builder.add_proc_and_sys()?;
    builder.add_devices()?;
    for mounted in own_mounts {
        make_read_only(&by_descriptor(&mounted)).doing(|| "making the root read-only".to_owned())?;
    }
    enter(&builder.root).doing(|| "entering the root".to_owned())?;
    rustix::system::sethostname(sandbox.hostname.as_bytes()).doing(|| "naming the host".to_owned())?;
    drop_capabilities().doing(|| "dropping privileges".to_owned())
}

/// Keeps only what a container may have, for programs that are started from here on.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    privileges::drop_capabilities(CapabilitySet::from_bits_retain(!CAPABILITIES.bits()))
}

fn enter(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    // The old root comes to lie over the new one, and is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

struct Builder<'a> {
    dir: &'a Path,
    sandbox: &'a Sandbox,
    plan: &'a Plan,
    host: &'a Host,
    root: PathBuf,
}

impl Builder<'_> {
    fn in_root(&self, path: &Path) -> PathBuf {
        below(&self.root, path)
    }

    fn assemble(&self) -> Result<(), SandboxError> {
        let layers = self.dir.join(LAYERS_DIR);
        for dir in [&layers, &self.root] {
            make_dirs(dir, 0o755).doing(|| format!("making {}", dir.display()))?;
        }
        match self.sandbox.kind.root {
            RootKind::Overlay => {}
            RootKind::OverlayInMemory => mount_memory(&layers, MEMORY_LAYER_BYTES_MAX, 0o755)?,
            RootKind::Bind => {
                mount_memory(&self.root, MEMORY_LAYER_BYTES_MAX, 0o755)?;
            }
        }
        for (number, step) in self.plan.steps.iter().enumerate() {
            match step {
                Step::Overlay { path, is_over_host } => {
                    self.add_overlay(&layers.join(number.to_string()), path, *is_over_host)?;
                }
                Step::Bind { path, is_dir } => self.add_bind(path, *is_dir)?,
                Step::Dir { path, mode } => {
                    make_dirs(&self.in_root(path), *mode).doing(|| format!("making {}", path.display()))?;
                }
                Step::Link { path, target } => {
                    symlink(target, self.in_root(path)).doing(|| format!("making the link {}", path.display()))?;
                }
            }
        }
        if self.sandbox.kind.root == RootKind::Bind {
            let all = self.plan.own.iter().map(|(path, own)| (self.in_root(path), own));
            all.into_iter().try_for_each(|(path, own)| make_own(&path, own, None))?;
        }
        Ok(())
    }

    /// The mounts that hold what the container writes outside its volumes, if it may not: volumes come to lie over them,
    /// and are left alone.
    fn open_own_mounts(&self) -> Result<Vec<OwnedFd>, SandboxError> {
        if !self.sandbox.is_root_read_only {
            return Ok(Vec::new());
        }
        let overlays = self.plan.steps.iter().filter_map(|step| match step {
            Step::Overlay { path, .. } => Some(self.in_root(path)),
            Step::Bind { .. } | Step::Dir { .. } | Step::Link { .. } => None,
        });
        let in_memory = (self.sandbox.kind.root == RootKind::Bind).then(|| self.root.clone());
        let open = |path: PathBuf| open_dir(&path).doing(|| format!("opening {}", path.display()));
        overlays.chain(in_memory).map(open).collect()
    }

    /// What is the container's own is put into the upper layer first: in a user namespace the host's directories belong to
    /// nobody, so that nothing could be made in them afterwards.
    fn add_overlay(&self, layer: &Path, path: &Path, is_over_host: bool) -> Result<(), SandboxError> {
        let doing = || format!("laying an overlay over {}", path.display());
        let [upper, work, nothing] = ["upper", "work", "nothing"].map(|name| layer.join(name));
        let host_mode = fs::metadata(path).map_or(0o755, |metadata| metadata.permissions().mode() & 0o7777);
        make_dirs(&upper, host_mode).doing(doing)?;
        make_dirs(&work, 0o755).doing(doing)?;
        let is_ours = |own: &Path| own.starts_with(path) && self.overlay_of(own) == Some(path);
        for (own_path, own) in self.plan.own.iter().filter(|(own, _)| *own != path && is_ours(own)) {
            let in_upper = upper.join(own_path.strip_prefix(path).unwrap_or(own_path));
            make_own(&in_upper, own, Some(self.opaque_attribute()))?;
        }
        let lower = if is_over_host {
            path
        } else {
            make_dirs(&nothing, 0o755).doing(doing)?;
            &nothing
        };
        // Nothing of a container survives a crash of the machine, so nothing need be synced for it.
        let mut options = b"volatile,lowerdir=".to_vec();
        escape(lower, &mut options);
        for (name, dir) in [("upperdir", &upper), ("workdir", &work)] {
            options.extend_from_slice(format!(",{name}=").as_bytes());
            escape(dir, &mut options);
        }
        if self.sandbox.kind.has_user_namespace {
            options.extend_from_slice(b",userxattr");
        }
        let options = CString::new(options).map_err(io::Error::other).doing(doing)?;
        let target = self.in_root(path);
        make_dirs(&target, host_mode).doing(doing)?;
        let flags = MountFlags::empty();
        match rustix::mount::mount("overlay", &target, "overlay", flags, options.as_c_str()) {
            Ok(()) => Ok(()),
            // Some file systems of the host cannot carry one; without the root there is no sandbox.
            Err(_) if path != Path::new("/") => self.add_bind(path, true),
            Err(errno) => Err(errno).doing(doing),
        }
    }

    /// The overlay whose upper layer something of the container's own goes to.
    fn overlay_of(&self, own: &Path) -> Option<&Path> {
        let overlays = self.plan.steps.iter().filter_map(|step| match step {
            Step::Overlay { path, .. } => Some(path.as_path()),
            Step::Bind { .. } | Step::Dir { .. } | Step::Link { .. } => None,
        });
        overlays.filter(|path| own.starts_with(path)).max_by_key(|path| path.components().count())
    }

    const fn opaque_attribute(&self) -> &'static str {
        if self.sandbox.kind.has_user_namespace { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
    }

    fn add_bind(&self, path: &Path, is_dir: bool) -> Result<(), SandboxError> {
        let doing = || format!("showing {} of the host", path.display());
        let target = self.in_root(path);
        if is_dir {
            make_dirs(&target, 0o755).doing(doing)?;
        } else {
            File::create(&target).doing(doing)?;
        }
        match rustix::mount::mount_bind_recursive(path, &target) {
            Ok(()) => {}
            // Gone since the plan was made, or nothing that this user may reach.
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(errno).doing(doing),
        }
        let inside = |mount: &&MountPoint| mount.path != path && mount.path.starts_with(path);
        let mounts = self.host.mounts.iter().filter(inside).map(|mount| mount.path.as_path());
        [path].into_iter().chain(mounts).try_for_each(|path| make_read_only(&self.in_root(path)).doing(doing))
    }

    /// After volumes: of several mounts of one file system `df` shows the first, and people ask it for their volumes.
    fn add_shared_files(&self) -> Result<(), SandboxError> {
        let root = open_dir(&self.root).doing(|| "opening the root".to_owned())?;
        for (path, source) in &self.plan.shared_files {
            let doing = || format!("showing {} at {}", source.display(), path.display());
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let dir = open_beneath(&root, parent).doing(doing)?;
            // By descriptor, as volumes are; in a volume that covers the place, there may be no such file.
            match rustix::fs::openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(target) => {
                    rustix::mount::mount_bind(source, by_descriptor(&target)).doing(doing)?;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).doing(doing),
            }
        }
        Ok(())
    }

    fn add_volumes(&self) -> Result<(), SandboxError> {
        let root = open_dir(&self.root).doing(|| "opening the root".to_owned())?;
        for volume in &self.plan.volumes {
            let doing = || format!("mounting {} at {}", volume.source.display(), volume.target.display());
            let target = make_beneath(&root, &volume.target).doing(doing)?;
            // By descriptor: the name could lead through a link that the pod has left in another of its volumes.
            rustix::mount::mount_bind(&volume.source, by_descriptor(&target)).doing(doing)?;
            if volume.is_read_only {
                // The descriptor is below the new mount, so it has to be found again.
                let mounted = open_beneath(&root, &volume.target).doing(doing)?;
                make_read_only(&by_descriptor(&mounted)).doing(doing)?;
            }
        }
        Ok(())
    }

    fn add_proc_and_sys(&self) -> Result<(), SandboxError> {
        let (proc, sys) = (self.root.join("proc"), self.root.join("sys"));
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("proc", &proc, "proc", flags, None).doing(|| "mounting /proc".to_owned())?;
        if self.sandbox.kind.has_user_namespace {
            // Its own root is nobody outside, so what the machine's root may change here is safe.
            return rustix::mount::mount_bind_recursive("/sys", &sys).doing(|| "showing /sys".to_owned());
        }
        rustix::mount::mount_bind("/sys", &sys).doing(|| "showing /sys".to_owned())?;
        make_read_only(&sys).doing(|| "protecting /sys".to_owned())?;
        for name in MACHINE_SETTINGS {
            let path = proc.join(name);
            if path.exists() {
                let doing = || format!("protecting /proc/{name}");
                rustix::mount::mount_bind(&path, &path).doing(doing)?;
                make_read_only(&path).doing(doing)?;
            }
        }
        Ok(())
    }

    fn add_devices(&self) -> Result<(), SandboxError> {
        let dev = self.root.join("dev");
        mount_memory(&dev, 1 << 20, 0o755)?;
        for name in DEVICES {
            let doing = || format!("showing /dev/{name}");
            let (source, target) = (Path::new("/dev").join(name), dev.join(name));
            File::create(&target).doing(doing)?;
            rustix::mount::mount_bind(source, &target).doing(doing)?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, target) in links {
            symlink(target, dev.join(name)).doing(|| format!("making /dev/{name}"))?;
        }
        let [pts, shm, queues] = ["pts", "shm", "mqueue"].map(|name| dev.join(name));
        for dir in [&pts, &shm, &queues] {
            make_dirs(dir, 0o755).doing(|| format!("making {}", dir.display()))?;
        }
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        let options = c"newinstance,ptmxmode=0666,mode=0620";
        rustix::mount::mount("devpts", &pts, "devpts", flags, options).doing(|| "mounting /dev/pts".to_owned())?;
        mount_memory(&shm, SHARED_MEMORY_BYTES_MAX, 0o1777)?;
        // Few programs know it, and not every kernel has it.
        let _ = rustix::mount::mount("mqueue", &queues, "mqueue", flags | MountFlags::NODEV, None);
        Ok(())
    }
}

fn mount_memory(target: &Path, bytes_max: u64, mode: u32) -> Result<(), SandboxError> {
    let doing = || format!("mounting memory at {}", target.display());
    let options = CString::new(format!("mode={mode:o},size={bytes_max}")).map_err(io::Error::other).doing(doing)?;
    rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::NOSUID, options.as_c_str()).doing(doing)
}

/// Remounts keep what the host forbids there: a user namespace may not take that off.
fn make_read_only(mounted: &Path) -> io::Result<()> {
    let has = rustix::fs::statvfs(mounted)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| has.contains(*flag)).map(|(_, flag)| flag);
    let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, MountFlags::union);
    Ok(rustix::mount::mount_remount(mounted, flags, "")?)
}

fn make_own(path: &Path, own: &Own, opaque_attribute: Option<&str>) -> Result<(), SandboxError> {
    let doing = || format!("making {}", path.display());
    match own {
        Own::Merged { mode } => make_dirs(path, *mode).doing(doing),
        Own::Private { mode } => {
            make_dirs(path, *mode).doing(doing)?;
            match opaque_attribute {
                Some(name) => rustix::fs::setxattr(path, name, b"y", XattrFlags::empty()).doing(doing),
                None => Ok(()),
            }
        }
        Own::File { content } => {
            fs::write(path, content).doing(doing)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).doing(doing)
        }
    }
}

/// Makes a directory and those above it; the mode is that of the last, whatever the umask.
fn make_dirs(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o755).recursive(true).create(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
        Err(error) => Err(error),
    }
}

/// The path of what is open, whatever its name leads to by now.
fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory below another one, component by component, following no link.
fn open_beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    walk_beneath(root, path, false)
}

/// The same, making what is missing.
fn make_beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    walk_beneath(root, path, true)
}

fn walk_beneath(root: &OwnedFd, path: &Path, makes_missing: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = root.try_clone()?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        if makes_missing {
            // The opening says what is the matter, if anything is.
            let _ = rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755));
        }
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// Commas and colons separate options and layers.
fn escape(path: &Path, options: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b':' | b'\\') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let mut options = Vec::new();
        escape(Path::new("/a,b:c\\d"), &mut options);
        assert_eq!(options, br"/a\,b\:c\\d");
    }

    #[test]
    fn nothing_is_made_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/tmp", dir.path().join("out")).unwrap();
        let root = open_dir(dir.path()).unwrap();
        make_beneath(&root, Path::new("/a/b")).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        assert!(make_beneath(&root, Path::new("/out/escaped")).is_err());
        assert!(!Path::new("/tmp/escaped").exists());
    }
}
