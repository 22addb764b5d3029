//! What runs on this host, from /proc: tests believe what they see rather than what the cluster says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Whether a process runs: it is there, and is more than the remains that nobody has collected yet.
pub(crate) fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Every running process whose command line or environment names something below a directory.
pub(crate) fn of_directory(directory: &Path) -> Vec<i32> {
    let marker = directory.display().to_string();
    let names = |pid: i32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(&marker)
    };
    running().into_iter().filter(|&pid| names(pid, "cmdline") || names(pid, "environ")).collect()
}

/// The identities under which processes of a pod of this name run on the nodes of a data directory.
pub(crate) fn uids_of(directory: &Path, pod: &str) -> BTreeSet<String> {
    let node_dir = format!("HOLDFAST_NODE_DIR={}/", directory.display());
    let wanted = format!("POD_NAME={pod}");
    let uid_of = |pid: i32| {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let entries: Vec<&str> = text.split('\0').collect();
        let is_meant = entries.contains(&wanted.as_str()) && entries.iter().any(|entry| entry.starts_with(&node_dir));
        let uid = entries.iter().find_map(|entry| entry.strip_prefix("POD_UID="))?;
        is_meant.then(|| uid.to_owned())
    };
    running().into_iter().filter_map(uid_of).collect()
}

/// The mount namespaces in which something below a directory is mounted, other than ours.
pub(crate) fn namespaces_of(directory: &Path) -> Vec<String> {
    let marker = directory.display().to_string();
    let namespace =
        |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).map(|link| link.display().to_string()).ok();
    let own = namespace("self");
    let sees =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| text.contains(&marker));
    let found = running().into_iter().filter(sees).filter_map(|pid| namespace(&pid.to_string()));
    let found: BTreeSet<String> = found.filter(|found| Some(found) != own.as_ref()).collect();
    found.into_iter().collect()
}

fn running() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc can be listed").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&pid| is_running(pid)).collect()
}
