//! Control groups: what bounds the processes of a container together, and ends them together.
//! Never decides how much a container may use. What the machine cannot do is left out, and said of the node.

mod machine;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

pub use machine::{CGROUP_ROOT, Machine};

use crate::files;
use crate::layout;
use crate::process;
use crate::shim::{RUN_FILE, RunFile};

/// How many processes and threads a container may have; whoever needs more is told that there are no more.
pub const PIDS_MAX: u32 = 4_096;
/// How often the end of what was killed is looked for before a group is given up: it is tried again with its pod.
const REMOVALS_MAX: u32 = 400;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);
/// Before a group that a hidden verb is to enter.
pub(crate) const GROUP_FLAG: &str = "--group";
const PROCESSES: &str = "cgroup.procs";
const KILL: &str = "cgroup.kill";

/// What a container may use; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    pub pids_max: u32,
}

/// Which generation of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    One,
    Two,
}

/// The control groups of one container, one in each hierarchy that it needs; none on a machine without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// All of them.
    dirs: Vec<PathBuf>,
    /// The one that bounds memory.
    memory: Option<(PathBuf, Version)>,
}

impl Groups {
    /// All of them, for [`enter`].
    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// The arguments by which a hidden verb enters them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let dirs = self.dirs.iter().map(|dir| dir.display().to_string());
        dirs.flat_map(|dir| [GROUP_FLAG.to_owned(), dir]).collect()
    }

    /// Kills every process at once, also those that are just being made. False where the kernel cannot: then one after
    /// another is killed, and some may have been missed.
    pub(crate) fn kill_all(&self) -> bool {
        let kill = |dir: &PathBuf| write(&dir.join(KILL), "1").is_ok();
        // Every process is in each of them.
        if self.dirs.iter().any(kill) {
            return true;
        }
        let listed = self.dirs.first().and_then(|dir| fs::read_to_string(dir.join(PROCESSES)).ok());
        for pid in listed.iter().flat_map(|text| text.lines()).filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        false
    }

    /// How many processes the kernel has killed because the container used more memory than it may.
    pub(crate) fn memory_kills(&self) -> u64 {
        let Some((dir, version)) = &self.memory else { return 0 };
        let name = match version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or_default()
    }

    /// Kills what is left, and removes the groups. Repeating it is harmless.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for _ in 0..REMOVALS_MAX {
            let left: Vec<_> = self.dirs.iter().filter(|dir| !is_gone(fs::remove_dir(dir))).collect();
            if left.is_empty() {
                return Ok(());
            }
            self.kill_all();
            std::thread::sleep(REMOVAL_PAUSE);
        }
        let left = self.dirs.iter().find(|dir| dir.exists());
        let left = left.map_or_else(String::new, |dir| dir.display().to_string());
        Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("control group {left} does not become empty")))
    }
}

fn is_gone(removed: io::Result<()>) -> bool {
    removed.is_ok() || removed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Takes the calling process, and all that it starts, into a group.
pub(crate) fn enter(dir: &Path) -> io::Result<()> {
    write(&dir.join(PROCESSES), "0")
}

/// Removes the groups of all containers that were ever started in a pod's directory.
pub(crate) fn release_pod(pod_dir: &Path) -> io::Result<()> {
    for container in layout::containers(pod_dir) {
        for attempt in layout::attempts(pod_dir, &container) {
            release(&process::attempt_dir(pod_dir, &container, attempt))?;
        }
    }
    Ok(())
}

/// Removes the groups of a container of which nobody else sees to the end.
pub(crate) fn release(attempt_dir: &Path) -> io::Result<()> {
    let run: Option<RunFile> = files::read_json(&attempt_dir.join(RUN_FILE))?;
    run.map_or(Ok(()), |run| run.groups.remove())
}

/// Removes all groups of a node, by its data directory: for the end of a cluster, when no process of it is left.
pub fn release_node(data_dir: &Path) -> io::Result<()> {
    layout::pods(data_dir).into_iter().try_for_each(|uid| release_pod(&layout::pod_dir(data_dir, uid)))
}

/// The kernel's files are there already, and take one write.
fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::File::options().write(true).open(path)?.write_all(text.as_bytes())
}
