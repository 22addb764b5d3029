//! Limits where the machine has control groups: they are kept, a kill for them is told, and nothing is left of the groups.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::harness::{Cluster, PATIENCE, eventually};
use crate::procs;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const SETS: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: greedy}
spec:
  serviceName: greedy
  replicas: 1
  selector: {matchLabels: {app: greedy}}
  template:
    metadata: {labels: {app: greedy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [tail, /dev/zero]
        resources: {limits: {memory: 48Mi}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: modest}
spec:
  serviceName: modest
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: modest}}
  template:
    metadata: {labels: {app: modest}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sleep, '100000']
        resources: {limits: {memory: 64Mi, cpu: 500m}}
";

/// The control groups that a pod's process is in, of those that are ours; none where the machine has none for us.
pub(crate) fn groups_of(cluster: &Cluster, pod: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", cluster.process_of(pod))).expect("the pod runs");
    let mut names = text.lines().filter_map(|line| line.rsplit('/').next());
    let Some(name) = names.find(|name| name.starts_with("holdfast-")) else { return Vec::new() };
    let entries = fs::read_dir(CGROUP_ROOT).expect("the machine has control groups");
    let roots = entries.flatten().map(|entry| entry.path()).chain([CGROUP_ROOT.into()]);
    roots.map(|root| root.join(name)).filter(|group| group.is_dir()).collect()
}

fn assert_gone(groups: &[PathBuf]) {
    assert!(!groups.is_empty());
    let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn limits_are_kept_and_nothing_is_left_of_control_groups() {
    let cluster = Cluster::up();
    let described = cluster.ok(&["describe", "node", "n1"]);
    for feature in ["memory-limits: on", "cpu-limits: on", "pids-limits: on", "cgroup-kill: on"] {
        if !described.contains(feature) {
            println!("skipped: this machine has no {feature}");
            return;
        }
    }
    cluster.apply(&cluster.file("sets.yaml", SETS));
    cluster.wait_ready(&["modest-0", "modest-1"]);
    let last = |field: &str| {
        cluster.field("pod", "greedy-0", &format!("/status/containerStatuses/0/lastState/terminated/{field}"))
    };
    cluster.wait("the greedy one is killed", || last("reason") == Some("OOMKilled".into()));
    assert_eq!(last("exitCode"), Some(137.into()));
    let restarts = || cluster.field("pod", "greedy-0", "/status/containerStatuses/0/restartCount");
    cluster.wait("it starts again", || restarts().as_ref().and_then(Value::as_u64) >= Some(1));

    let groups = groups_of(&cluster, "modest-1");
    cluster.ok(&["scale", "sts", "modest", "--replicas=1"]);
    cluster.wait("the pod is gone", || cluster.get("pod", "modest-1").is_none());
    assert_gone(&groups);

    // Everything is killed and nobody can clean up; whoever comes next does.
    let groups = groups_of(&cluster, "modest-0");
    let directory = cluster.data_dir();
    let is_over = || {
        let left = procs::of_directory(Path::new(&directory));
        for pid in left.iter().copied().filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        left.is_empty()
    };
    assert!(eventually(PATIENCE, is_over));
    cluster.up_again();
    cluster.wait_ready(&["modest-0"]);
    assert_gone(&groups);

    let groups = groups_of(&cluster, "modest-0");
    cluster.ok(&["down", "--data-dir", &directory]);
    assert_gone(&groups);
}
