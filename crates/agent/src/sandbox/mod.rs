//! A container's own view of the machine: namespaces, a root of its own, its volumes at their mount paths.
//! Never decides whether to use one; that is the node's configuration, and what [`probe`] finds possible.
//!
//! Who does what: the shim enters the user namespace (when it is not root) and makes the PID namespace; its child, the
//! first process in there, makes the others, builds the root, and becomes the container's process. That process is
//! PID 1, as in Kubernetes without a shared process namespace: orphans are its to reap, and what it does not reap is
//! gone with it. Containers of a pod share the network of the node, and nothing else.

mod build;
mod enter;
pub mod mounts;
pub(crate) mod of_pod;
pub mod probe;
mod root;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

pub(crate) use build::{build, drop_capabilities};
pub use enter::run_container_exec;

/// The program that a container finds under this name is the one that built its sandbox.
///
/// It needs no file in the sandbox: the kernel leads there.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// Where the files are that the image catalogue makes for a container.
pub const RUN_DIR: &str = "/run/holdfast";
/// Where overlays keep what a container writes; in the container's directory, gone with the container.
pub(crate) const LAYERS_DIR: &str = "layers";
/// Where the root is put together; in the container's directory, and empty for everybody outside the sandbox.
pub(crate) const ROOT_DIR: &str = "rootfs";

/// How the root is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootKind {
    /// The host's root below an overlay, which keeps what is written on disk.
    Overlay,
    /// The same, but what is written is kept in memory: for disks that cannot carry an overlay.
    OverlayInMemory,
    /// The host's directories, read-only; only what is the container's own can be written.
    Bind,
}

/// What kind of sandbox a node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxKind {
    /// Whether the container is root in a user namespace, and the agent's user outside.
    pub has_user_namespace: bool,
    pub root: RootKind,
}

/// A volume in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxVolume {
    /// On the host.
    pub source: PathBuf,
    /// In the sandbox.
    pub target: PathBuf,
    pub is_read_only: bool,
}

/// Everything about one container's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    pub kind: SandboxKind,
    pub hostname: String,
    /// Files of the container's own: path in the sandbox and content.
    pub files: BTreeMap<PathBuf, String>,
    /// Files of the host that appear in it, and may change: path in the sandbox and on the host.
    #[serde(default)]
    pub shared_files: BTreeMap<PathBuf, PathBuf>,
    pub volumes: Vec<SandboxVolume>,
    /// Directories that it may write into, besides those that every sandbox has.
    pub writable: Vec<PathBuf>,
    /// Directories of the host that the container does not see.
    pub hidden: Vec<PathBuf>,
    /// Whether only volumes can be written.
    #[serde(default)]
    pub is_root_read_only: bool,
}

impl SandboxKind {
    /// The namespaces that the shim enters, or makes for its child.
    const fn of_shim(self) -> UnshareFlags {
        if self.has_user_namespace { UnshareFlags::NEWUSER.union(UnshareFlags::NEWPID) } else { UnshareFlags::NEWPID }
    }

    /// For people.
    pub const fn describe(self) -> &'static str {
        match self.root {
            RootKind::Overlay => "overlay",
            RootKind::OverlayInMemory => "overlay in memory",
            RootKind::Bind => "read-only bind mounts",
        }
    }
}

/// Takes the calling process, which must have one thread only, to where it can start a sandbox's first process.
pub(crate) fn prepare_shim(kind: SandboxKind) -> std::io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    unshare(kind.of_shim())?;
    if kind.has_user_namespace {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe because of one flag, FILES, by which threads lose each other's descriptors; \
              it is not used, and the callers have one thread"
)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}

/// A path in the sandbox, as seen while the root is still at `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
