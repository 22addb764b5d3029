//! Which control groups this machine has, and making those of a container. Asked once, when the agent begins: kernels,
//! users and configurations change between two starts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Groups, KILL, Limits, PROCESSES, Version, write};

/// Where machines have them.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const CONTROLLERS: &str = "cgroup.controllers";
/// Over which the use of processors is bounded.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel takes no less.
const CPU_QUOTA_US_MIN: u64 = 1_000;

/// A hierarchy of control groups that can do one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    version: Version,
}

/// Where there is one, or why there is none.
type Found = Result<Hierarchy, String>;

/// What this machine can do with control groups, each in the hierarchy that can: all in one where the second version has
/// everything, several where it shares the machine with the first, none where the agent may make no groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    kill: Found,
    memory: Found,
    cpu: Found,
    pids: Found,
}

impl Machine {
    /// A machine without, for this reason.
    #[must_use]
    pub fn without(reason: &str) -> Self {
        let none = || Err(reason.to_owned());
        Self { kill: none(), memory: none(), cpu: none(), pids: none() }
    }

    /// Finds them below `root`, and tries each.
    #[must_use]
    pub fn probe(root: &Path) -> Self {
        let mut found = Self::find(root);
        for (place, controller, file) in [
            (&mut found.kill, None, [KILL, KILL]),
            (&mut found.memory, Some("memory"), ["memory.limit_in_bytes", "memory.max"]),
            (&mut found.cpu, Some("cpu"), ["cpu.cfs_quota_us", "cpu.max"]),
            (&mut found.pids, Some("pids"), ["pids.max", "pids.max"]),
        ] {
            if let Ok(hierarchy) = place
                && let Err(error) = hierarchy.try_out(controller, file)
            {
                *place = Err(format!("no group can be used in {}: {error}", hierarchy.root.display()));
            }
        }
        found
    }

    /// Finds them by the files that are there.
    fn find(root: &Path) -> Self {
        let second = [root.to_owned(), root.join("unified")].into_iter().find(|at| at.join(CONTROLLERS).is_file());
        let known = second.as_ref().and_then(|at| fs::read_to_string(at.join(CONTROLLERS)).ok()).unwrap_or_default();
        let controller = |name: &str| match &second {
            Some(at) if known.split_ascii_whitespace().any(|known| known == name) => {
                Ok(Hierarchy { root: at.clone(), version: Version::Two })
            }
            _ => {
                let first = root.join(name);
                let is_there = first.join(PROCESSES).is_file();
                let none = || format!("{} has no controller for {name}", root.display());
                is_there.then_some(Hierarchy { root: first, version: Version::One }).ok_or_else(none)
            }
        };
        let kill = second.as_ref().map(|at| Hierarchy { root: at.clone(), version: Version::Two });
        let none = || format!("{} has no hierarchy of the second version", root.display());
        Self {
            kill: kill.ok_or_else(none),
            memory: controller("memory"),
            cpu: controller("cpu"),
            pids: controller("pids"),
        }
    }

    /// For people.
    #[must_use]
    pub fn features(&self) -> [(&'static str, String); 4] {
        let describe = |found: &Found| match found {
            Ok(Hierarchy { version: Version::One, .. }) => "on: cgroup v1".to_owned(),
            Ok(Hierarchy { version: Version::Two, .. }) => "on: cgroup v2".to_owned(),
            Err(reason) => format!("off: {reason}"),
        };
        [
            ("feature/cgroup-kill", describe(&self.kill)),
            ("feature/memory-limits", describe(&self.memory)),
            ("feature/cpu-limits", describe(&self.cpu)),
            ("feature/pids-limits", describe(&self.pids)),
        ]
    }

    /// The groups that a container of this name will have.
    pub(crate) fn groups(&self, name: &str) -> Groups {
        let found = [&self.kill, &self.memory, &self.cpu, &self.pids].into_iter().flatten();
        let dirs: BTreeSet<_> = found.map(|hierarchy| hierarchy.root.join(name)).collect();
        let memory = self.memory.as_ref().ok().map(|found| (found.root.join(name), found.version));
        Groups { dirs: dirs.into_iter().collect(), memory }
    }

    /// Makes the groups of that name, with these limits.
    pub(crate) fn make(&self, name: &str, limits: &Limits) -> io::Result<()> {
        for dir in self.groups(name).dirs() {
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if let (Ok(memory), 1..) = (&self.memory, limits.memory_bytes) {
            memory.limit_memory(name, limits.memory_bytes)?;
        }
        if let (Ok(cpu), 1..) = (&self.cpu, limits.cpu_milli) {
            cpu.limit_cpu(name, limits.cpu_milli)?;
        }
        if let (Ok(pids), 1..) = (&self.pids, limits.pids_max) {
            write(&pids.root.join(name).join("pids.max"), &limits.pids_max.to_string())?;
        }
        Ok(())
    }
}

impl Hierarchy {
    fn limit_memory(&self, name: &str, bytes: u64) -> io::Result<()> {
        let (dir, bytes) = (self.root.join(name), bytes.to_string());
        match self.version {
            Version::One => {
                write(&dir.join("memory.limit_in_bytes"), &bytes)?;
                // Not every kernel counts what is swapped out.
                let _ = write(&dir.join("memory.memsw.limit_in_bytes"), &bytes);
            }
            Version::Two => {
                write(&dir.join("memory.max"), &bytes)?;
                let _ = write(&dir.join("memory.swap.max"), "0");
                // A container that has lost one of its processes is no use.
                let _ = write(&dir.join("memory.oom.group"), "1");
            }
        }
        Ok(())
    }

    fn limit_cpu(&self, name: &str, milli: u64) -> io::Result<()> {
        let dir = self.root.join(name);
        let quota_us = (milli.saturating_mul(CPU_PERIOD_US) / 1_000).max(CPU_QUOTA_US_MIN);
        match self.version {
            Version::One => {
                write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                write(&dir.join("cpu.cfs_quota_us"), &quota_us.to_string())
            }
            Version::Two => write(&dir.join("cpu.max"), &format!("{quota_us} {CPU_PERIOD_US}")),
        }
    }

    /// Makes a group, and looks for the file by which it is used.
    fn try_out(&self, controller: Option<&str>, [first, second]: [&str; 2]) -> io::Result<()> {
        if let (Version::Two, Some(controller)) = (self.version, controller) {
            write(&self.root.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
        let file = match self.version {
            Version::One => first,
            Version::Two => second,
        };
        let dir = self.root.join(format!("holdfast-probe-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let tried = fs::File::options().write(true).open(dir.join(file));
        fs::remove_dir(&dir)?;
        tried.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up tree of these files; a controller of the first version is a directory of its own.
    fn tree(first: &[&str], second: Option<(&str, &str)>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in first {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(PROCESSES), "").unwrap();
        }
        if let Some((at, controllers)) = second {
            fs::create_dir_all(dir.path().join(at)).unwrap();
            fs::write(dir.path().join(at).join(CONTROLLERS), controllers).unwrap();
        }
        dir
    }

    fn found(dir: &tempfile::TempDir) -> [Option<(String, Version)>; 4] {
        let Machine { kill, memory, cpu, pids } = Machine::find(dir.path());
        [kill, memory, cpu, pids].map(|found| {
            let found = found.ok()?;
            Some((found.root.strip_prefix(dir.path()).unwrap().display().to_string(), found.version))
        })
    }

    #[test]
    fn what_a_machine_has_is_found_by_its_files() {
        let one = |name: &str| Some((name.to_owned(), Version::One));
        let two = |name: &str| Some((name.to_owned(), Version::Two));
        let unified = tree(&[], Some(("", "cpuset cpu io memory pids\n")));
        assert_eq!(found(&unified), [two(""), two(""), two(""), two("")]);
        let hybrid = tree(&["memory", "pids", "cpu", "freezer"], Some(("unified", "hugetlb\n")));
        assert_eq!(found(&hybrid), [two("unified"), one("memory"), one("cpu"), one("pids")]);
        let first = tree(&["memory"], None);
        assert_eq!(found(&first), [None, one("memory"), None, None]);
        assert_eq!(found(&tree(&[], None)), [None, None, None, None]);
    }

    #[test]
    fn a_container_has_one_group_in_each_hierarchy() {
        let unified = tree(&[], Some(("", "cpu memory pids")));
        let groups = Machine::find(unified.path()).groups("x");
        assert_eq!(groups.dirs(), [unified.path().join("x")]);
        let hybrid = tree(&["memory", "pids", "cpu"], Some(("unified", "")));
        let groups = Machine::find(hybrid.path()).groups("x");
        assert_eq!(groups.dirs().len(), 4);
        assert!(Machine::find(tree(&[], None).path()).groups("x").dirs().is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_off_and_says_why() {
        // Plain directories have none of the kernel's files in them.
        let tree = tree(&["memory", "pids"], None);
        for (name, described) in Machine::probe(tree.path()).features() {
            assert!(described.starts_with("off: "), "{name}: {described}");
        }
        let left = fs::read_dir(tree.path().join("memory")).unwrap().count();
        assert_eq!(left, 1, "what was tried is gone");
    }
}
