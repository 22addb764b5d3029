//! What a sandbox's root is made of: which directories of the host appear how, and what is the container's own.
//! Only a plan: never mounts or makes anything.
//!
//! A user namespace may not lay an overlay over a directory with mounts below it, which the host's root always has, so
//! there each of the host's top directories gets an overlay of its own. Where overlays are refused altogether, the
//! host's directories are bound read-only, and those with something of the container's own in them are taken apart.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::mounts::MountPoint;
use super::{RUN_DIR, RootKind, Sandbox, SandboxVolume};

/// More mounts than this are a mistake, not a sandbox.
const STEPS_MAX: usize = 4_096;
/// Symbolic links beyond this lead nowhere, as in the kernel.
const LINKS_MAX: usize = 40;
/// A directory with mounts below it is taken apart down to here, and bound read-only as it is below.
const SPLIT_DEPTH_MAX: usize = 2;
/// Directories of the host that every sandbox has instead as its own, at first empty.
const OWN_DIRS: [(&str, u32); 9] = [
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/run", 0o755),
    ("/dev", 0o755),
    ("/proc", 0o755),
    ("/sys", 0o755),
    ("/mnt", 0o755),
    ("/media", 0o755),
    ("/lost+found", 0o700),
];
/// Directories that programs expect to be able to write into.
const STATE_DIRS: [&str; 5] = ["/etc", "/var/cache", "/var/lib", "/var/log", "/var/spool"];
/// Mounted there is nothing that a container could want.
const PSEUDO_FILE_SYSTEMS: [&str; 16] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// Something of the container's own in its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// A directory that can be written into; what the host has there is seen, too.
    Merged {
        mode: u32,
    },
    /// A directory in which nothing of the host is seen.
    Private {
        mode: u32,
    },
    File {
        content: String,
    },
}

/// One step of putting the root together. Paths are those in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An overlay, over the host's directory of the same path or over nothing.
    Overlay {
        path: PathBuf,
        is_over_host: bool,
    },
    /// The host's file or directory of the same path, with all that is mounted below, read-only.
    Bind {
        path: PathBuf,
        is_dir: bool,
    },
    /// A directory on what is there already.
    Dir {
        path: PathBuf,
        mode: u32,
    },
    Link {
        path: PathBuf,
        target: PathBuf,
    },
}

/// A sandbox's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Parents first; every directory above something of the container's own is one itself.
    pub(super) own: BTreeMap<PathBuf, Own>,
    /// With their targets free of symbolic links, in the order to mount them in.
    pub(super) volumes: Vec<SandboxVolume>,
    /// Files of the host that appear in the sandbox, by their paths there, free of symbolic links.
    pub(super) shared_files: BTreeMap<PathBuf, PathBuf>,
}

/// The host, as far as a plan needs it.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// `/`, but in tests.
    pub(super) root: PathBuf,
    pub(super) mounts: Vec<MountPoint>,
}

impl Host {
    fn at(&self, path: &Path) -> PathBuf {
        super::below(&self.root, path)
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        let metadata = fs::metadata(self.at(path)).ok().filter(fs::Metadata::is_dir)?;
        Some(metadata.permissions().mode() & 0o7777)
    }

    fn can_list(&self, path: &Path) -> bool {
        use rustix::fs::Access;
        rustix::fs::access(self.at(path), Access::READ_OK.union(Access::EXEC_OK)).is_ok()
    }

    fn has_mounts_below(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| mount.path != path && mount.path.starts_with(path))
    }
}

/// Plans the root of a sandbox.
pub(super) fn plan(host: &Host, sandbox: &Sandbox) -> io::Result<Plan> {
    let OwnPaths { own, volumes, shared_files } = own_paths(host, sandbox);
    let mut planner = Planner { host, own: &own, steps: Vec::new() };
    match sandbox.kind.root {
        RootKind::Overlay | RootKind::OverlayInMemory if sandbox.kind.has_user_namespace => {
            planner.push(Step::Overlay { path: "/".into(), is_over_host: false })?;
            planner.split(Path::new("/"), 0, true)?;
        }
        RootKind::Overlay | RootKind::OverlayInMemory => planner.whole()?,
        RootKind::Bind => planner.split(Path::new("/"), 0, false)?,
    }
    let steps = planner.steps;
    Ok(Plan { steps, own, volumes, shared_files })
}

struct OwnPaths {
    own: BTreeMap<PathBuf, Own>,
    volumes: Vec<SandboxVolume>,
    shared_files: BTreeMap<PathBuf, PathBuf>,
}

fn own_paths(host: &Host, sandbox: &Sandbox) -> OwnPaths {
    let mut own: BTreeMap<PathBuf, Own> = BTreeMap::new();
    for (path, mode) in OWN_DIRS {
        own.insert(path.into(), Own::Private { mode });
    }
    for path in &sandbox.hidden {
        let path = resolve(host, &own, path);
        // What is inside a private directory is out of sight already.
        if !is_private(&own, &path) {
            add(host, &mut own, &path, Own::Private { mode: 0o700 });
        }
    }
    let merged = |path: &Path| match host.mode(path) {
        Some(mode) if host.can_list(path) => Own::Merged { mode },
        Some(mode) => Own::Private { mode },
        None => Own::Merged { mode: 0o755 },
    };
    let state_dirs = STATE_DIRS.iter().map(Path::new).filter(|path| host.mode(path).is_some());
    let wanted = sandbox.writable.iter().map(PathBuf::as_path).chain(state_dirs).chain([Path::new(RUN_DIR)]);
    for path in wanted {
        let path = resolve(host, &own, path);
        let kind = merged(&path);
        add(host, &mut own, &path, kind);
    }
    let mut volumes = sandbox.volumes.clone();
    for volume in &mut volumes {
        volume.target = resolve(host, &own, &volume.target);
        let kind = merged(&volume.target);
        add(host, &mut own, &volume.target, kind);
    }
    volumes.sort_by(|a, b| a.target.cmp(&b.target));
    for (path, content) in &sandbox.files {
        let path = resolve_file(host, &own, path);
        add(host, &mut own, &path, Own::File { content: content.clone() });
    }
    let mut shared_files = BTreeMap::new();
    for (path, source) in &sandbox.shared_files {
        let path = resolve_file(host, &own, path);
        add(host, &mut own, &path, Own::File { content: String::new() });
        shared_files.insert(path, source.clone());
    }
    OwnPaths { own, volumes, shared_files }
}

/// A link of the host in the file's place is replaced, not followed.
fn resolve_file(host: &Host, own: &BTreeMap<PathBuf, Own>, path: &Path) -> PathBuf {
    let parent = resolve(host, own, path.parent().unwrap_or(Path::new("/")));
    path.file_name().map_or_else(|| parent.clone(), |name| parent.join(name))
}

fn is_private(own: &BTreeMap<PathBuf, Own>, path: &Path) -> bool {
    path.ancestors().any(|above| matches!(own.get(above), Some(Own::Private { .. })))
}

/// Adds something of the container's own, and the directories above it. What is there already stays.
fn add(host: &Host, own: &mut BTreeMap<PathBuf, Own>, path: &Path, kind: Own) {
    for above in path.ancestors().skip(1).filter(|above| *above != Path::new("/")) {
        let mode = host.mode(above).filter(|_| !is_private(own, above)).unwrap_or(0o755);
        let is_listable = host.mode(above).is_none() || host.can_list(above);
        let kind = if is_listable { Own::Merged { mode } } else { Own::Private { mode } };
        own.entry(above.to_owned()).or_insert(kind);
    }
    if path != Path::new("/") {
        own.entry(path.to_owned()).or_insert(kind);
    }
}

/// Where a path leads once the host's symbolic links are followed as far as the sandbox will have them.
fn resolve(host: &Host, own: &BTreeMap<PathBuf, Own>, path: &Path) -> PathBuf {
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<VecDeque<OsString>>();
    let mut todo = parts(path);
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => resolved.push(name),
            Some(Component::RootDir) => {
                resolved = PathBuf::from("/");
                continue;
            }
            Some(Component::ParentDir) => {
                resolved.pop();
                continue;
            }
            Some(Component::CurDir | Component::Prefix(_)) | None => continue,
        }
        if is_private(own, &resolved) || LINKS_MAX <= links {
            continue;
        }
        if let Ok(target) = fs::read_link(host.at(&resolved)) {
            links += 1;
            resolved.pop();
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
        }
    }
    resolved
}

struct Planner<'a> {
    host: &'a Host,
    own: &'a BTreeMap<PathBuf, Own>,
    steps: Vec<Step>,
}

impl Planner<'_> {
    fn push(&mut self, step: Step) -> io::Result<()> {
        if STEPS_MAX <= self.steps.len() {
            return Err(io::Error::other(format!("the root would take more than {STEPS_MAX} mounts")));
        }
        self.steps.push(step);
        Ok(())
    }

    /// One overlay over everything; it does not show what is mounted below, so that gets overlays of its own.
    fn whole(&mut self) -> io::Result<()> {
        self.push(Step::Overlay { path: "/".into(), is_over_host: true })?;
        let host = self.host;
        for mount in host.mounts.iter().filter(|mount| mount.path != Path::new("/")) {
            let is_wanted = !PSEUDO_FILE_SYSTEMS.contains(&mount.file_system.as_str());
            if !is_wanted || is_private(self.own, &mount.path) {
                continue;
            }
            match fs::metadata(host.at(&mount.path)) {
                Ok(metadata) if metadata.is_dir() => {
                    self.push(Step::Overlay { path: mount.path.clone(), is_over_host: true })?;
                }
                Ok(_) if self.own.contains_key(&mount.path) => {}
                Ok(_) => self.push(Step::Bind { path: mount.path.clone(), is_dir: false })?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The entries of a directory one by one, each as it can be had.
    fn split(&mut self, dir: &Path, depth: usize, has_overlays: bool) -> io::Result<()> {
        let mut entries: Vec<fs::DirEntry> = match fs::read_dir(self.host.at(dir)) {
            Ok(entries) => entries.flatten().collect(),
            // Not to be seen by the agent's user, so not by the container.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = dir.join(entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            if matches!(self.own.get(&path), Some(Own::Private { .. } | Own::File { .. })) {
                continue;
            }
            if kind.is_dir() {
                self.place(path, depth + 1, has_overlays)?;
            } else if kind.is_file() && depth != 0 {
                // Files directly in the root are nobody's need, and each would show up in `df` as the host's disk.
                self.push(Step::Bind { path, is_dir: false })?;
            } else if kind.is_symlink() && !self.own.contains_key(&path) {
                let target = fs::read_link(entry.path())?;
                self.push(Step::Link { path, target })?;
            }
        }
        Ok(())
    }

    fn place(&mut self, path: PathBuf, depth: usize, has_overlays: bool) -> io::Result<()> {
        let has_own = self.own.keys().any(|own| own.starts_with(&path));
        let has_mounts = self.host.has_mounts_below(&path);
        if has_overlays && !has_mounts {
            return self.push(Step::Overlay { path, is_over_host: true });
        }
        if !has_own && (!has_overlays || SPLIT_DEPTH_MAX < depth) {
            return self.push(Step::Bind { path, is_dir: true });
        }
        let mode = self.host.mode(&path).unwrap_or(0o755);
        self.push(Step::Dir { path: path.clone(), mode })?;
        self.split(&path, depth, has_overlays)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::SandboxKind;
    use super::*;

    fn host(dir: &Path, mounts: &[&str]) -> Host {
        for below in ["usr/bin", "usr/share/doc", "etc", "home/me/work", "tmp/secret", "var/tmp", "data/n1"] {
            fs::create_dir_all(dir.join(below)).unwrap();
        }
        fs::write(dir.join("etc/hosts"), "").unwrap();
        fs::write(dir.join("etc/passwd"), "").unwrap();
        symlink("usr/bin", dir.join("bin")).unwrap();
        symlink("/run", dir.join("var/run")).unwrap();
        let mount = |path: &&str| MountPoint { path: path.into(), file_system: "ext4".to_owned() };
        Host { root: dir.to_owned(), mounts: mounts.iter().map(mount).collect() }
    }

    fn sandbox(has_user_namespace: bool, root: RootKind) -> Sandbox {
        let volume =
            |target: &str| SandboxVolume { source: "/storage/v".into(), target: target.into(), is_read_only: false };
        Sandbox {
            kind: SandboxKind { has_user_namespace, root },
            hostname: "web-0".to_owned(),
            files: BTreeMap::from([("/etc/hosts".into(), "127.0.0.1 localhost\n".to_owned())]),
            shared_files: BTreeMap::new(),
            volumes: vec![volume("/var/run/db"), volume("/usr/share/nginx/html")],
            hidden: vec!["/data/n1".into(), "/tmp/secret".into()],
            writable: Vec::new(),
            is_root_read_only: false,
        }
    }

    fn overlays(plan: &Plan) -> Vec<&str> {
        let path = |step: &Step| match step {
            Step::Overlay { path, .. } => Some(path.clone()),
            Step::Bind { .. } | Step::Dir { .. } | Step::Link { .. } => None,
        };
        plan.steps.iter().filter_map(path).map(|path| &*path.to_str().unwrap().to_owned().leak()).collect()
    }

    #[test]
    fn root_gets_one_overlay_and_one_for_each_mount_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), &["/", "/home", "/tmp/secret"]);
        let plan = plan(&host, &sandbox(false, RootKind::Overlay)).unwrap();
        assert_eq!(overlays(&plan), ["/", "/home"]);
        assert_eq!(plan.own[Path::new("/data/n1")], Own::Private { mode: 0o700 });
        assert!(matches!(plan.own[Path::new("/usr/share/nginx/html")], Own::Merged { .. }));
        assert!(!plan.own.contains_key(Path::new("/tmp/secret")));
    }

    #[test]
    fn a_user_gets_an_overlay_for_each_directory_without_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), &["/", "/home/me/work", "/tmp"]);
        let plan = plan(&host, &sandbox(true, RootKind::Overlay)).unwrap();
        assert_eq!(overlays(&plan), ["/", "/data", "/etc", "/home/me/work", "/usr", "/var"]);
        assert!(plan.steps.contains(&Step::Link { path: "/bin".into(), target: "usr/bin".into() }));
        assert!(
            plan.steps
                .contains(&Step::Dir { path: "/home/me".into(), mode: host.mode(Path::new("/home/me")).unwrap() })
        );
    }

    #[test]
    fn without_overlays_only_what_has_something_of_its_own_is_taken_apart() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), &["/"]);
        let plan = plan(&host, &sandbox(true, RootKind::Bind)).unwrap();
        let has = |step: Step| plan.steps.contains(&step);
        let bind = |path: &str, is_dir| Step::Bind { path: path.into(), is_dir };
        assert!(has(bind("/usr/bin", true)) && has(bind("/usr/share/doc", true)) && has(bind("/etc/passwd", false)));
        assert!(has(bind("/home", true)));
        assert!(!has(bind("/etc/hosts", false)), "it has hosts of its own");
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::Bind { path, .. } if path.starts_with("/data/n1"))));
    }

    #[test]
    fn links_are_followed_until_something_of_its_own_begins() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path(), &["/"]);
        fs::create_dir(dir.path().join("run")).unwrap();
        symlink("/etc", dir.path().join("run/db")).unwrap();
        let plan = plan(&host, &sandbox(false, RootKind::Overlay)).unwrap();
        let targets: Vec<_> = plan.volumes.iter().map(|volume| volume.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/run/db", "/usr/share/nginx/html"]);
    }
}
