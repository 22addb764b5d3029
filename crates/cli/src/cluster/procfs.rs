//! Processes of this host as `/proc` shows them: who they are, who started them, and ending them for certain.
//! Never trusts a bare pid: a process is named by its pid and its start time, and checked before every signal.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::Refused;

/// How long processes may take to vanish after SIGKILL: whoever waits for a busy disk ends when that answers, and one that
/// waits for a dead disk may never.
pub(super) const KILL_MS_MAX: u64 = 20_000;
const POLL_MS: u64 = 5;

/// A process, told apart from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The number of the process.
    pub pid: i32,
    /// When it was started, in clock ticks since the boot of the host (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

impl ProcessRef {
    /// The process that has this pid now.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        Ok(Stat::read(pid)?.process)
    }

    /// This process.
    pub fn of_self() -> io::Result<Self> {
        Self::of_pid(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Whether the process still runs (or is paused). One that only waits to be reaped does not.
    pub fn is_alive(self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.process == self && stat.is_alive())
    }

    /// Sends a signal, if the process is still there.
    pub(super) fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        // The descriptor is opened before the check, so the signal cannot reach a later process with the same pid.
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Which boot of this host it is: pids and start times mean nothing after another.
pub(super) fn host_boot_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned())
}

/// Every process of this host that we may see.
#[derive(Debug)]
pub(super) struct Table {
    stats: BTreeMap<i32, Stat>,
}

impl Table {
    pub(super) fn read() -> io::Result<Self> {
        let mut stats = BTreeMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the listing and the reading.
            if let Ok(stat) = Stat::read(pid)
                && stat.is_alive()
            {
                stats.insert(pid, stat);
            }
        }
        Ok(Self { stats })
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = ProcessRef> {
        self.stats.values().map(|stat| stat.process)
    }

    /// The processes that fit, and all that descend from them; never this process.
    fn families(&self, fits: impl Fn(ProcessRef) -> bool) -> BTreeSet<ProcessRef> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut children: BTreeMap<i32, Vec<ProcessRef>> = BTreeMap::new();
        for stat in self.stats.values() {
            children.entry(stat.parent).or_default().push(stat.process);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<ProcessRef> = self.processes().filter(|&process| fits(process)).collect();
        while let Some(process) = open.pop() {
            if process.pid != own && found.insert(process) {
                open.extend(children.get(&process.pid).into_iter().flatten());
            }
        }
        found
    }

    fn is_running(&self, process: ProcessRef) -> bool {
        self.stats.get(&process.pid).is_some_and(|stat| stat.process == process && !stat.is_stopped())
    }
}

/// The arguments of a process, as it was started; empty when it cannot be read.
pub(super) fn arguments(process: ProcessRef) -> Vec<OsString> {
    read_strings(process, "cmdline")
}

/// The environment of a process, as it was started; empty when it cannot be read.
pub(super) fn environment(process: ProcessRef) -> Vec<OsString> {
    read_strings(process, "environ")
}

fn read_strings(process: ProcessRef, file: &str) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    text.split(|&byte| byte == 0).map(|part| OsString::from_vec(part.to_vec())).collect()
}

/// Kills the processes that fit and everything that descends from them. An error means that some may still run.
///
/// All are frozen before the first is killed: a parent that runs could start more, and the children of a dead parent
/// can no longer be told from anybody else's.
pub(super) fn kill_families(fits: impl Fn(ProcessRef) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(KILL_MS_MAX);
    loop {
        let frozen = freeze(&fits, deadline)?;
        if frozen.is_empty() {
            return Ok(());
        }
        for &process in &frozen {
            process.signal(Signal::KILL).with_context(|| format!("killing process {}", process.pid))?;
        }
        wait_until_gone(frozen, deadline)?;
    }
}

fn freeze(fits: impl Fn(ProcessRef) -> bool, deadline: Instant) -> anyhow::Result<BTreeSet<ProcessRef>> {
    let mut frozen = BTreeSet::new();
    loop {
        let table = Table::read().context("reading /proc")?;
        let found = table.families(&fits);
        let mut is_settled = !found.iter().any(|&process| table.is_running(process));
        for process in found {
            if frozen.insert(process) {
                is_settled = false;
                process.signal(Signal::STOP).with_context(|| format!("stopping process {}", process.pid))?;
            }
        }
        // One that waits for a disk does not stop in time, but does not start anything either.
        if is_settled || deadline <= Instant::now() {
            return Ok(frozen);
        }
        std::thread::sleep(Duration::from_millis(POLL_MS));
    }
}

/// Waits until none of the processes is left.
pub(super) fn wait_until_gone(
    processes: impl IntoIterator<Item = ProcessRef>,
    deadline: Instant,
) -> anyhow::Result<()> {
    let mut left: Vec<ProcessRef> = processes.into_iter().collect();
    loop {
        left.retain(|process| process.is_alive());
        if left.is_empty() {
            return Ok(());
        }
        if deadline <= Instant::now() {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(Refused::new(format!("processes {} do not end", pids.join(", ")))
                .hint(format!("ps -o pid,stat,wchan,args -p {}", pids.join(",")))
                .into());
        }
        std::thread::sleep(Duration::from_millis(POLL_MS));
    }
}

/// What we need of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
struct Stat {
    process: ProcessRef,
    parent: i32,
    state: u8,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(pid, &bytes).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))
    }

    /// The command's name is in brackets and may contain anything, so fields are counted from its last bracket.
    fn parse(pid: i32, bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|&byte| byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(bytes.get(end + 1..)?).ok()?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        Some(Self {
            process: ProcessRef { pid, start_time: field(22)?.parse().ok()? },
            parent: field(4)?.parse().ok()?,
            state: *field(3)?.as_bytes().first()?,
        })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn shell(script: &str) -> (Child, ProcessRef) {
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let process = ProcessRef::of_pid(i32::try_from(child.id()).unwrap()).unwrap();
        (child, process)
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_fields() {
        let line = b"7 (a) b (c)) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 991 1 2 3";
        let stat = Stat::parse(7, line).unwrap();
        assert_eq!(stat.process.start_time, 991);
        assert_eq!(stat.parent, 3);
        assert!(stat.is_alive());
    }

    #[test]
    fn another_start_time_is_another_process() {
        let (mut child, process) = shell("exec sleep 60");
        let stranger = ProcessRef { start_time: process.start_time + 1, ..process };
        assert!(process.is_alive());
        assert!(!stranger.is_alive());
        stranger.signal(Signal::KILL).unwrap();
        assert!(process.is_alive());
        process.signal(Signal::KILL).unwrap();
        wait_until_gone([process], Instant::now() + Duration::from_secs(10)).unwrap();
        child.wait().unwrap();
        process.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn a_family_is_killed_whole() {
        let (mut child, process) = shell("setsid sleep 60 & env -i sh -c 'sleep 60 & wait' & wait");
        let deadline = Instant::now() + Duration::from_secs(10);
        let family = loop {
            let family = Table::read().unwrap().families(|found| found == process);
            if family.len() == 4 {
                break family;
            }
            assert!(Instant::now() < deadline, "the family never was complete: {family:?}");
            std::thread::yield_now();
        };
        kill_families(|found| found == process).unwrap();
        assert!(!family.iter().any(|process| process.is_alive()));
        child.wait().unwrap();
    }
}
