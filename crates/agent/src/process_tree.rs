//! Looking at and ending processes through /proc: identities that survive pid reuse, descendants, strays.
//! Never starts a process, and never signals one whose start time it has not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The variable that every process of a container carries: the directory of its shim.
///
/// It is how processes that outlive their shim are found again.
pub const CONTAINER_DIR_VARIABLE: &str = "HOLDFAST_CONTAINER_DIR";

/// A process, told apart from a later one with the same pid by when it started (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    pub start_time: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: i32,
    start_time: u64,
    ended: bool,
}

impl Identity {
    /// The identity of the living process `pid`, if there is one.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = read_stat(pid)?;
        (!stat.ended).then_some(Self { pid, start_time: stat.start_time })
    }

    /// The identity of the calling process.
    pub fn of_self() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Whether this very process still runs (a zombie does not).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// A pidfd of this very process; `None` when it has ended.
    pub fn open(self) -> io::Result<Option<rustix::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: from here on the pidfd pins the process that was checked.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Signals this very process; `false` when it has ended.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(fd) = self.open()? else {
            return Ok(false);
        };
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Which start of the machine this is.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When process `pid` started, whether it lives or waits to be reaped.
pub fn start_time(pid: i32) -> Option<u64> {
    read_stat(pid).map(|stat| stat.start_time)
}

/// Whether a process does with a signal what the kernel does by default: it neither handles nor ignores it.
pub fn has_default(pid: i32, signal: Signal) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let is_in = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_none_or(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
    };
    !is_in("SigCgt") && !is_in("SigIgn")
}

/// The living descendants of `root`, itself not included; processes with sessions of their own are among them.
pub fn descendants(root: i32) -> Vec<Identity> {
    let mut children: BTreeMap<i32, Vec<(i32, Stat)>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = read_stat(pid) {
            children.entry(stat.parent).or_default().push((pid, stat));
        }
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([root]);
    let mut todo = vec![root];
    while let Some(parent) = todo.pop() {
        for &(pid, stat) in children.get(&parent).into_iter().flatten() {
            if !seen.insert(pid) {
                continue;
            }
            // A zombie's threads may be gone while its children are not yet reparented.
            todo.push(pid);
            if !stat.ended {
                found.push(Identity { pid, start_time: stat.start_time });
            }
        }
    }
    found
}

/// Sends SIGKILL once to every living descendant of `root`; returns how many there were.
pub fn kill_descendants(root: i32) -> usize {
    kill_each(&descendants(root))
}

/// Sends SIGKILL once to every process of any container whose directory is `dir` or below it, shims included;
/// returns how many there were. Call until it is 0.
///
/// A process that wiped its environment is not found; as long as its shim lives, [`kill_descendants`] finds it.
pub fn kill_under(dir: &Path) -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let strays: Vec<Identity> =
        pids().filter(|&pid| pid != own && belongs_under(pid, dir)).filter_map(Identity::of).collect();
    kill_each(&strays)
}

fn kill_each(victims: &[Identity]) -> usize {
    for victim in victims {
        // Weather: it may have ended, or changed its user. The caller looks again.
        let _ = victim.signal(Signal::KILL);
    }
    victims.len()
}

fn belongs_under(pid: i32, dir: &Path) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environ.split(|&byte| byte == 0).any(|entry| {
        entry
            .strip_prefix(CONTAINER_DIR_VARIABLE.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="))
            .is_some_and(|value| Path::new(OsStr::from_bytes(value)).starts_with(dir))
    })
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name (field 2) may contain spaces and parentheses, so counting starts after the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_time, ended: matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let stat = parse_stat("12 (a) R 1 (b) S 7 12 12 0 -1 4194304 1 0 0 0 1 2 3 4 20 0 1 0 4242 9 9 9").unwrap();
        assert_eq!((stat.parent, stat.start_time, stat.ended), (7, 4242, false));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = Identity::of_self().unwrap();
        assert!(own.is_alive());
        let former = Identity { start_time: own.start_time - 1, ..own };
        assert!(!former.is_alive());
        assert!(!former.signal(Signal::KILL).unwrap());
    }
}
