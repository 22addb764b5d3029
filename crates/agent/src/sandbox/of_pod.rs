//! The sandbox of a container, from its pod: whose volumes are where, what it is called, what it does not see.
//! Never looks at the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::agent::AssignedPod;

use super::{Sandbox, SandboxKind, SandboxVolume};

/// What of the node a sandbox depends on.
#[derive(Clone, Debug)]
pub(crate) struct Surface<'a> {
    pub(crate) kind: SandboxKind,
    /// Directories that hold what is other pods'.
    pub(crate) hidden: &'a [PathBuf],
    /// The files by which the pod looks names up.
    pub(crate) names: [(PathBuf, PathBuf); 2],
}

impl Surface<'_> {
    /// The sandbox of a container that mounts these volumes.
    pub(crate) fn sandbox(&self, pod: &AssignedPod, volumes: Vec<SandboxVolume>, writable: Vec<PathBuf>) -> Sandbox {
        let hostname = pod.pod.name.to_string();
        let files = BTreeMap::from([("/etc/hostname".into(), format!("{hostname}\n"))]);
        let shared_files = self.names.clone().into();
        Sandbox {
            kind: self.kind,
            hostname,
            files,
            shared_files,
            volumes,
            writable,
            hidden: self.hidden.to_vec(),
            is_root_read_only: false,
        }
    }
}

/// Whether a path can be where a volume appears: absolute, and not out of itself.
pub(crate) fn is_mount_path(path: &str) -> bool {
    Path::new(path).is_absolute() && crate::environment::mirrored(Path::new("/"), path).is_some()
}
