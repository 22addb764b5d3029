//! Real control groups, of whatever kind this machine has: they hold, they end everything, and nothing is left of them.

#![allow(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]
#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::confine::{CGROUP_ROOT, Limits, Machine, release_node};
use agent::privileges::Privileges;
use agent::probe::{self, Probe};
use agent::process::{Adoption, Handle, ProcessRuntime, RunSpec, Surroundings};
use agent::process_tree::{Identity, descendants, kill_under};
use agent::shim::Input;
use rustix::process::Signal;
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_agent-test-shim");
const BOUND: Duration = Duration::from_secs(20);

/// A node with one pod, whose containers have control groups.
struct Node {
    dir: TempDir,
    runtime: ProcessRuntime,
}

impl Node {
    /// `None`, with the reason printed, where this machine lacks one of these features.
    fn with(wanted: &[&str]) -> Option<Self> {
        let machine = Machine::probe(Path::new(CGROUP_ROOT));
        let is_off = |(name, found): &(&str, String)| wanted.contains(name) && !found.starts_with("on");
        if let Some((name, found)) = machine.features().into_iter().find(is_off) {
            println!("skipped: {name} is {found}");
            return None;
        }
        let runtime = ProcessRuntime::new(EXE.into()).unwrap().confining(machine);
        Some(Self { dir: TempDir::new().unwrap(), runtime })
    }

    async fn start(&self, argv: &[&str], limits: Limits) -> Handle {
        let spec = RunSpec {
            pod_dir: self.dir.path().join("pods/7"),
            container: "main".to_owned(),
            attempt: 0,
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            cwd: self.dir.path().to_owned(),
            sandbox: None,
            input: Input::default(),
            privileges: Privileges::default(),
            limits,
        };
        self.runtime.start(&spec).await.unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        while 0 < kill_under(self.dir.path()) {}
        release_node(self.dir.path()).unwrap();
    }
}

/// The control groups of a process that are ours.
fn groups_of(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut names =
        text.lines().filter_map(|line| line.rsplit('/').next()).filter(|name| name.starts_with("holdfast-"));
    let name = names.next().expect("the process is in a group of ours").to_owned();
    let roots = fs::read_dir(CGROUP_ROOT).unwrap().map(|entry| entry.unwrap().path());
    roots.chain([CGROUP_ROOT.into()]).map(|root| root.join(&name)).filter(|group| group.is_dir()).collect()
}

fn are_gone(groups: &[PathBuf]) -> bool {
    !groups.is_empty() && !groups.iter().any(|group| group.exists())
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waited).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

#[tokio::test]
async fn who_uses_more_memory_than_it_may_is_killed_for_it() {
    let Some(node) = Node::with(&["feature/memory-limits"]) else { return };
    let limits = Limits { memory_bytes: 32 << 20, ..Limits::default() };
    let greedy = node.start(&["tail", "/dev/zero"], limits).await;
    let status = node.runtime.wait(&greedy).await.unwrap();
    assert_eq!((status.code, status.is_out_of_memory), (137, true));
    assert!(status.message.unwrap().contains("more memory than its limit"));
}

#[tokio::test]
async fn who_is_killed_otherwise_is_not_out_of_memory() {
    let Some(node) = Node::with(&["feature/memory-limits"]) else { return };
    let handle = node.start(&["sleep", "600"], Limits { memory_bytes: 32 << 20, ..Limits::default() }).await;
    handle.container.signal(Signal::KILL).unwrap();
    let status = node.runtime.wait(&handle).await.unwrap();
    assert_eq!((status.code, status.is_out_of_memory), (137, false));
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_with_what_joins_it_and_ends_at_once() {
    let Some(node) = Node::with(&["feature/pids-limits"]) else { return };
    // The shell gives up when it can start no more.
    let bomb = "(while :; do sleep 600 & done) 2>/dev/null; : > full; exec sleep 600";
    let handle = node.start(&["sh", "-c", bomb], Limits { pids_max: 20, ..Limits::default() }).await;
    let full = node.dir.path().join("full");
    until("the bomb to go off", || full.exists()).await;
    let groups = groups_of(handle.container.pid);
    let started = descendants(handle.shim.pid);
    assert!((15..=20).contains(&started.len()), "{started:?}");
    let surroundings = Surroundings::of(&handle.dir).unwrap();
    let more = "sleep 0 & sleep 0 & sleep 0 & sleep 0 & wait".to_owned();
    let argv = vec!["sh".to_owned(), "-c".to_owned(), more];
    assert!(probe::run(&Probe::Exec { argv, surroundings }, BOUND).await.is_err(), "what joins it is as bound");
    node.runtime.kill(&handle).await.unwrap();
    assert!(!started.into_iter().any(Identity::is_alive));
    assert!(are_gone(&groups), "{groups:?}");
}

#[tokio::test]
async fn nothing_is_left_of_groups_whoever_is_killed() {
    let Some(mut node) = Node::with(&["feature/cgroup-kill"]) else { return };
    let script = "setsid env -i sleep 600 & sleep 600; :";
    let handle = node.start(&["sh", "-c", script], Limits::default()).await;
    until("the processes", || 3 <= descendants(handle.shim.pid).len()).await;
    let groups = groups_of(handle.container.pid);
    let started = descendants(handle.shim.pid);
    // Nobody is told: the next agent finds what is left.
    handle.shim.signal(Signal::KILL).unwrap();
    until("the end of the shim", || !handle.shim.is_alive()).await;
    node.runtime = ProcessRuntime::new(EXE.into()).unwrap();
    let adopted = node.runtime.adopt(&handle.dir).await.unwrap();
    assert!(matches!(adopted, Adoption::Ended(_)));
    assert!(are_gone(&groups), "{groups:?}");
    assert!(!started.into_iter().any(Identity::is_alive), "also what has hidden its environment");
}
