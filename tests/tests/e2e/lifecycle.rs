//! The turns of a pod's life: init containers, sidecars, hooks and startup probes, with real processes.

use crate::harness::{Cluster, Follower};
use crate::sandbox::sandboxes;
use crate::sets::set;

/// Every turn leaves a line in the scratch volume, which the sidecar keeps saying.
const TURNS: &str = "      terminationGracePeriodSeconds: 20
      initContainers:
      - name: twice
        image: busybox
        command: [sh, -c, 'cd ${HOLDFAST_MOUNT_SCRATCH}; echo init >> turns; echo tried; test $(grep -c init turns) = 2']
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      - name: beside
        image: busybox
        restartPolicy: Always
        command:
        - sh
        - -c
        - 'cd ${HOLDFAST_MOUNT_SCRATCH}; echo beside >> turns; trap \"echo last; cat turns; exit 0\" TERM; while :; do echo here; sleep 0.1; done'
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - 'cd ${HOLDFAST_MOUNT_SCRATCH}; echo main >> turns; trap \"echo asked >> turns; exit 0\" TERM; while :; do sleep 0.1; done'
        lifecycle:
          postStart: {exec: {command: [sh, -c, 'echo hooked >> ${HOLDFAST_MOUNT_SCRATCH}/turns']}}
          preStop: {exec: {command: [sh, -c, 'echo parting >> ${HOLDFAST_MOUNT_SCRATCH}/turns']}}
        startupProbe: {exec: {command: [sh, -c, 'grep -q hooked ${HOLDFAST_MOUNT_SCRATCH}/turns']}, periodSeconds: 1}
        volumeMounts: [{name: scratch, mountPath: /scratch}]
      volumes:
      - {name: scratch, emptyDir: {}}
      - {name: log, emptyDir: {}}
";

#[track_caller]
fn a_pod_takes_its_turns(cluster: &Cluster) {
    cluster.apply(&cluster.file("turns.yaml", &set("turns", 1, TURNS)));
    cluster.wait_ready(&["turns-0"]);
    let listed = cluster.ok(&["get", "pod", "turns-0"]);
    assert!(listed.contains("2/2") && listed.contains("Running"), "a sidecar counts: {listed}");
    let init = cluster.field("pod", "turns-0", "/status/initContainerStatuses/0").expect("it is told");
    assert_eq!((&init["state"]["terminated"]["reason"], &init["restartCount"]), (&"Completed".into(), &1.into()));
    let described = cluster.ok(&["describe", "pod", "turns-0"]);
    assert!(described.contains("Init Containers:"), "{described}");

    assert!(cluster.ok(&["describe", "sts", "turns"]).contains("twice: busybox"));
    assert_eq!(cluster.ok(&["logs", "turns-0", "-c", "twice"]), "tried\n", "an init container's last run");
    let all = cluster.ok(&["logs", "turns-0", "--all-containers", "--prefix"]);
    assert!(
        all.starts_with("[pod/turns-0/twice] tried\n[pod/turns-0/beside] here\n"),
        "in the order of their starts: {all}"
    );
    assert!(cluster.refused(&["attach", "turns-0", "-c", "nobody"]).contains("has no container nobody"));
    let attached = Follower::start(cluster, &["attach", "turns-0", "-c", "beside"]);
    attached.expect("here");
    drop(attached);

    // The sidecar ends last, and says what the others have written.
    let follow = cluster
        .command(&["logs", "turns-0", "-c", "beside", "-f"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    cluster.ok(&["delete", "pod", "turns-0"]);
    let said = follow.wait_with_output().expect("it ends with the container");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut turns: Vec<&str> = said.lines().filter(|line| !line.is_empty() && *line != "here").collect();
    // Nothing orders the first words of containers that have started, and of a hook.
    turns.get_mut(3..6).expect("all have written").sort_unstable();
    assert_eq!(turns, ["last", "init", "init", "beside", "hooked", "main", "parting", "asked"], "{said}");
}

#[test]
fn plain_processes_take_their_turns() {
    a_pod_takes_its_turns(&Cluster::up_with(&["--agent-argument=--runtime=process"]));
}

#[test]
fn sandboxes_take_their_turns() {
    if let Some(cluster) = sandboxes() {
        a_pod_takes_its_turns(&cluster);
    }
}

#[test]
fn an_init_container_that_fails_holds_up_the_others() {
    let cluster = Cluster::up();
    let never = set("turns", 1, TURNS).replace("= 2", "= 0");
    cluster.apply(&cluster.file("turns.yaml", &never));
    cluster.wait("it is said", || cluster.run(&["get", "pod", "turns-0"]).stdout.contains("Init:CrashLoopBackOff"));
    assert_eq!(cluster.field("pod", "turns-0", "/status/phase"), Some("Pending".into()));
    let waiting = cluster.field("pod", "turns-0", "/status/containerStatuses/0/state/waiting/reason");
    assert_eq!(waiting, Some("PodInitializing".into()));
}
