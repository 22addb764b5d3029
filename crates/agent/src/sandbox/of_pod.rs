//! The sandbox of a container, from its pod: whose volumes are where, what it is called, what it does not see.
//! Never looks at the machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use domain::agent::AssignedPod;

use super::{Sandbox, SandboxKind, SandboxVolume};

/// The domain below which pods have their names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// What of the node a sandbox depends on.
#[derive(Clone, Debug)]
pub(crate) struct Surface<'a> {
    pub(crate) kind: SandboxKind,
    pub(crate) address: IpAddr,
    /// Directories that hold what is other pods'.
    pub(crate) hidden: &'a [PathBuf],
    /// What the node asks for names.
    pub(crate) resolv_conf: &'a str,
}

impl Surface<'_> {
    /// The sandbox of a container that mounts these volumes.
    pub(crate) fn sandbox(&self, pod: &AssignedPod, volumes: Vec<SandboxVolume>, writable: Vec<PathBuf>) -> Sandbox {
        let hostname = pod.pod.name.to_string();
        let files = BTreeMap::from([
            ("/etc/hosts".into(), hosts(pod, self.address)),
            ("/etc/hostname".into(), format!("{hostname}\n")),
            ("/etc/resolv.conf".into(), self.resolv_conf.to_owned()),
        ]);
        Sandbox { kind: self.kind, hostname, files, volumes, writable, hidden: self.hidden.to_vec() }
    }
}

/// What `/etc/hosts` says in a pod.
pub(crate) fn hosts(pod: &AssignedPod, address: IpAddr) -> String {
    let (name, namespace, service) = (&pod.pod.name, &pod.pod.namespace, &pod.service_name);
    let full_name = if service.as_str().is_empty() {
        String::new()
    } else {
        format!("{name}.{service}.{namespace}.svc.{CLUSTER_DOMAIN} ")
    };
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{address} {full_name}{name}\n")
}

/// Whether a path can be where a volume appears: absolute, and not out of itself.
pub(crate) fn is_mount_path(path: &str) -> bool {
    Path::new(path).is_absolute() && crate::environment::mirrored(Path::new("/"), path).is_some()
}
