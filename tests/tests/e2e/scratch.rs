//! Directories that end with their pod: who fills one beyond its limit is over, and what is to be in memory is.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::Cluster;
use crate::sandbox::sandboxes;
use crate::sets::set;

/// A pod that runs a script, in which `$at` is the directory.
fn scribe(empty_dir: &str, script: &str) -> String {
    let pod = format!(
        "      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
          case \"$HOLDFAST_ROOT\" in /) at=/scratch;; *) at=$HOLDFAST_ROOT/scratch;; esac
          {script}
          sleep 100000
        volumeMounts: [{{name: scratch, mountPath: /scratch}}]
      volumes:
      - name: scratch
        emptyDir: {empty_dir}
"
    );
    set("scribe", 1, &pod)
}

fn has_said(cluster: &Cluster, line: &str) -> bool {
    cluster.run(&["logs", "scribe-0"]).stdout.lines().any(|said| said == line)
}

/// What is mounted below the cluster's directory.
fn mounts(cluster: &Cluster) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("the kernel lists mounts");
    let below = all.lines().filter(|line| line.contains(&cluster.data_dir()));
    below.map(str::to_owned).collect()
}

#[test]
fn a_pod_that_fills_its_directory_beyond_the_limit_is_evicted_and_made_anew() {
    let cluster = Cluster::up();
    let manifest = scribe("{sizeLimit: 1Mi}", "dd if=/dev/zero of=$at/big bs=64k count=32");
    cluster.apply(&cluster.file("scribe.yaml", &manifest));
    cluster.wait_ready(&["scribe-0"]);
    let uid = cluster.uid("scribe-0");
    let is_evicted = || cluster.run(&["events"]).stdout.contains("Evicted");
    cluster.wait("it is evicted, and says why", is_evicted);
    let is_new = || cluster.field("pod", "scribe-0", "/metadata/uid").is_some_and(|now| now != *uid);
    cluster.wait("it is made anew", is_new);
}

#[test]
fn what_is_to_be_in_memory_is_and_nothing_is_left_of_it() {
    let Some(cluster) = sandboxes() else { return };
    let node = cluster.ok(&["describe", "nodes"]);
    let feature = node.lines().find(|line| line.contains("memory-volumes")).expect("a node says what it can do");
    if feature.contains("off") {
        println!("left out: {feature}");
        return;
    }
    let script = "echo kept in $(stat -f -c %T $at)
          dd if=/dev/zero of=$at/big bs=64k count=32 2>/dev/null || echo full
          rm $at/big
          echo boot >> $at/boots
          echo boots $(grep -c boot $at/boots)";
    cluster.apply(&cluster.file("scribe.yaml", &scribe("{medium: Memory, sizeLimit: 1Mi}", script)));
    for line in ["kept in tmpfs", "full", "boots 1"] {
        cluster.wait(line, || has_said(&cluster, line));
    }
    assert_eq!(mounts(&cluster).len(), 1);

    // It outlives its container, and its agent.
    let node = cluster.node_of("scribe-0");
    cluster.ok(&["fault", "kill", &node]);
    cluster.ok(&["fault", "restart", &node]);
    let pid = Pid::from_raw(cluster.process_of("scribe-0")).expect("a process");
    kill_process(pid, Signal::KILL).expect("the test may end the container");
    cluster.wait("it starts again", || has_said(&cluster, "boots 2"));

    cluster.ok(&["delete", "pod", "scribe-0"]);
    cluster.wait("another pod has another one", || has_said(&cluster, "boots 1"));
    assert_eq!(mounts(&cluster).len(), 1);
    cluster.ok(&["down"]);
    assert_eq!(mounts(&cluster), Vec::<String>::new());
}
