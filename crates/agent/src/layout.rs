//! Where an agent keeps what, below its data directory. Only names, never content.

use std::fs;
use std::path::{Path, PathBuf};

use domain::id::Uid;

/// Where the agent's own ledger is.
pub fn ledger_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("ledger")
}

/// Where the pods are.
pub fn pods_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pods")
}

/// Where sandboxes are tried out.
pub fn probe_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("probe")
}

/// Where volume drivers are tried out.
pub fn volume_probe_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("volume-probe")
}

/// Where it is tried out whether volumes can be kept in memory.
pub fn memory_probe_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("memory-probe")
}

/// Where it is written down which pods use which volumes.
pub fn volume_uses_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("volumes")
}

/// Where one pod is.
pub fn pod_dir(data_dir: &Path, uid: Uid) -> PathBuf {
    pods_dir(data_dir).join(uid.to_string())
}

/// Below it, mount paths of a pod are mirrored.
pub fn root_dir(pod_dir: &Path) -> PathBuf {
    pod_dir.join("root")
}

/// Leads to the content of one of a pod's volumes, by the name that mounts use.
pub fn volume_link(pod_dir: &Path, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(name)
}

/// Where the files are by which a pod looks names up. Deeper than volumes are: of several mounts of one file system `df`
/// prefers the one that lies nearer its root, and people ask it for their volumes.
pub fn names_dir(pod_dir: &Path) -> PathBuf {
    pod_dir.join("names").join("as-its-sandboxes-see-them")
}

/// Where the files are that the image catalogue makes for a container.
pub fn run_dir(pod_dir: &Path, container: &str) -> PathBuf {
    pod_dir.join("run").join(container)
}

/// The pods that have a directory, in order.
pub fn pods(data_dir: &Path) -> Vec<Uid> {
    let mut uids: Vec<Uid> = names(&pods_dir(data_dir)).iter().filter_map(|name| name.parse().ok()).map(Uid).collect();
    uids.sort_unstable();
    uids
}

/// The containers of a pod that were ever asked for, in order.
pub fn containers(pod_dir: &Path) -> Vec<String> {
    let mut containers = names(&pod_dir.join("containers"));
    containers.sort_unstable();
    containers
}

/// The attempts of a container that are kept, oldest first.
pub fn attempts(pod_dir: &Path, container: &str) -> Vec<u32> {
    let dir = pod_dir.join("containers").join(container);
    let mut attempts: Vec<u32> = names(&dir).iter().filter_map(|name| name.parse().ok()).collect();
    attempts.sort_unstable();
    attempts
}

/// What is in a directory, in no order; nothing if there is none.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
