//! A real etcd of three members, in sandboxes: it finds its members by their names, and keeps its data whatever happens
//! to its pods.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use crate::harness::{Cluster, SHORT_LEASE, eventually};
use crate::sandbox::sandboxes_with;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MEMBERS: [&str; 3] = ["etcd-0", "etcd-1", "etcd-2"];
/// Electing a leader of its own takes etcd some seconds, and machines that build take longer.
const PATIENCE: Duration = Duration::from_secs(120);

fn has_etcd() -> bool {
    let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let has = is_there("etcd") && is_there("etcdctl");
    if !has {
        println!("left out: etcd and etcdctl are not installed (Debian: etcd-server, etcd-client)");
    }
    has
}

/// etcd's own client, beside a member: what it says, if it succeeds.
fn client(cluster: &Cluster, beside: &str, arguments: &[&str]) -> Option<String> {
    let endpoints = MEMBERS.map(|member| format!("http://{member}.etcd:2379")).join(",");
    let endpoints = format!("--endpoints={endpoints}");
    let etcdctl = ["exec", beside, "--", "env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout=2s", &endpoints];
    let said = cluster.run(&[&etcdctl, arguments].concat());
    (said.code == Some(0)).then_some(said.stdout)
}

#[track_caller]
fn write(cluster: &Cluster, beside: &str, key: &str, value: &str) {
    let is_done = || client(cluster, beside, &["put", key, value]).is_some();
    assert!(eventually(PATIENCE, is_done), "{key} is not written:\n{}", cluster.run(&["get", "pods"]).stdout);
}

#[track_caller]
fn expect(cluster: &Cluster, beside: &str, key: &str, value: &str) {
    let is_there = || {
        let said = client(cluster, beside, &["get", key, "--print-value-only"]);
        said.is_some_and(|said| said.trim() == value)
    };
    assert!(eventually(PATIENCE, is_there), "{key} is lost:\n{}", cluster.run(&["get", "pods"]).stdout);
}

#[track_caller]
fn wait_ready(cluster: &Cluster, members: &[&str]) {
    let are_ready = || members.iter().all(|member| cluster.is_ready(member));
    assert!(eventually(PATIENCE, are_ready), "{members:?}:\n{}", cluster.run(&["get", "pods", "-o", "wide"]).stdout);
}

#[test]
fn etcd_finds_its_members_by_name_and_keeps_its_data_whatever_happens() {
    if !has_etcd() {
        return;
    }
    let Some(cluster) = sandboxes_with(&SHORT_LEASE) else { return };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-config/examples");
    cluster.apply(&examples.join("etcd.yaml"));
    wait_ready(&cluster, &MEMBERS);
    write(&cluster, "etcd-0", "first", "1");
    let members = client(&cluster, "etcd-0", &["member", "list"]).expect("a quorum answers");
    let has_name = |member: &&str| members.contains(&format!("http://{member}.etcd.default.svc.cluster.local:2380"));
    assert!(MEMBERS.iter().all(has_name), "{members}");

    // A pod is deleted: the next one has its name and its data.
    let uid = cluster.uid("etcd-1");
    cluster.ok(&["delete", "pod", "etcd-1", "--wait"]);
    wait_ready(&cluster, &MEMBERS);
    assert_ne!(cluster.uid("etcd-1"), uid);
    expect(&cluster, "etcd-1", "first", "1");

    // Its first process is ended: it is started again in place.
    let uid = cluster.uid("etcd-2");
    let _ = cluster.run(&["exec", "etcd-2", "--", "sh", "-c", "kill 1"]);
    let restarts = || cluster.field("pod", "etcd-2", "/status/containerStatuses/0/restartCount");
    cluster.wait("etcd-2 is started again", || restarts().is_some_and(|count| count != 0));
    wait_ready(&cluster, &MEMBERS);
    assert_eq!(cluster.uid("etcd-2"), uid);
    write(&cluster, "etcd-2", "second", "2");

    // A node is started again: everything on it was dead, and comes back.
    cluster.ok(&["fault", "restart", &cluster.node_of("etcd-0"), "--new-boot"]);
    wait_ready(&cluster, &MEMBERS);
    expect(&cluster, "etcd-0", "second", "2");

    forced_across_a_partition(&cluster);

    // Nobody is left, and then everybody is back.
    cluster.ok(&["scale", "statefulset", "etcd", "--replicas=0"]);
    cluster.wait("no member is left", || MEMBERS.iter().all(|member| cluster.get("pod", member).is_none()));
    cluster.ok(&["scale", "statefulset", "etcd", "--replicas=3"]);
    wait_ready(&cluster, &MEMBERS);
    for (key, value) in [("first", "1"), ("second", "2"), ("third", "3")] {
        expect(&cluster, "etcd-2", key, value);
    }
}

/// A member on a node that is cut off is held; the others go on. Forced, it has a successor, which has to wait for the
/// files that the old one, alive, still locks: the volume's driver cannot fence it, and says so.
fn forced_across_a_partition(cluster: &Cluster) {
    let (node, uid) = (cluster.node_of("etcd-1"), cluster.uid("etcd-1"));
    let other = MEMBERS.into_iter().find(|member| cluster.node_of(member) != node).expect("members are spread");
    cluster.ok(&["fault", "partition", &node]);
    let is_held = || cluster.field("pod", "etcd-1", "/status/hold").is_some();
    cluster.wait("etcd-1 is held", is_held);
    write(cluster, other, "third", "3");
    cluster.ok(&["delete", "pod", "etcd-1", "--force", "--grace-period=0"]);
    cluster.wait("etcd-1 has a successor", || cluster.get("pod", "etcd-1").is_some() && cluster.uid("etcd-1") != uid);
    expect(cluster, other, "third", "3");
    cluster.ok(&["fault", "heal"]);
    wait_ready(cluster, &MEMBERS);
    expect(cluster, "etcd-1", "third", "3");
}
