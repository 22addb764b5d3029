//! Servers that come and go under a running cluster: three become five, lose two, replace one, and are three again.

use crate::harness::Cluster;
use crate::sets::{unplaceable, writers};
use serde_json::Value;
use std::collections::BTreeSet;

/// The servers, as the cluster names them.
fn servers(cluster: &Cluster) -> Vec<String> {
    cluster.ok(&["member", "list", "-o", "name"]).lines().map(str::to_owned).collect()
}

/// Waits until these servers say the same digest of the same revision.
#[track_caller]
fn wait_same_digest(cluster: &Cluster, servers: &[String]) {
    cluster.wait("every server has the same state", || {
        let seen: Option<Vec<Value>> = servers.iter().map(|server| cluster.status_of(server)).collect();
        seen.is_some_and(|seen| {
            let same = |field: &str| seen.iter().all(|status| status[field] == seen[0][field]);
            let speakers: BTreeSet<&str> = seen.iter().filter_map(|status| status["answeredBy"].as_str()).collect();
            same("revision") && same("digest") && speakers.len() == servers.len()
        })
    });
}

fn leader(cluster: &Cluster) -> String {
    let mut leader = String::new();
    cluster.wait("somebody leads", || {
        leader = cluster.status()["leader"].as_str().map(str::to_owned).unwrap_or_default();
        !leader.is_empty()
    });
    leader
}

#[track_caller]
fn scale(cluster: &Cluster, replicas: u32) {
    cluster.ok(&["scale", "statefulset", "set", &format!("--replicas={replicas}")]);
}

#[test]
fn three_servers_become_five_lose_two_replace_one_and_are_three_again() {
    let cluster = Cluster::up_with(&["--server-argument=--snapshot-entries=20", "--server-argument=--keep-entries=5"]);
    cluster.apply(&cluster.file("set.yaml", &unplaceable("set")));
    (2..=40).for_each(|replicas| scale(&cluster, replicas));

    // Grow. The new ones get what is no longer in any log.
    assert_eq!(cluster.ok(&["member", "add"]).trim(), "s4 added");
    assert_eq!(cluster.ok(&["member", "add"]).trim(), "s5 added");
    let five = servers(&cluster);
    assert_eq!(five, ["s1", "s2", "s3", "s4", "s5"]);
    wait_same_digest(&cluster, &five);
    assert!(cluster.log("s4").contains("the state was replaced by the leader's snapshot"), "{}", cluster.log("s4"));

    // Two of the first ones die: three of five are enough.
    cluster.ok(&["member", "transfer-leader", "s4"]);
    assert_eq!(leader(&cluster), "s4");
    cluster.ok(&["fault", "kill", "s1"]);
    cluster.ok(&["fault", "kill", "s2"]);
    scale(&cluster, 41);

    // One that lost its disk does not come back, and says what to do. The other one does.
    std::fs::remove_dir_all(cluster.path("s2")).expect("the server's directory can be removed");
    cluster.ok(&["fault", "restart", "s2"]);
    cluster.wait("s2 refuses to begin", || cluster.log("s2").contains("holdfast member remove s2"));
    cluster.ok(&["fault", "restart", "s1"]);
    cluster.ok(&["member", "remove", "s2"]);
    assert_eq!(cluster.ok(&["member", "add"]).trim(), "s6 added", "no number is used twice");
    let five = servers(&cluster);
    assert_eq!(five, ["s1", "s3", "s4", "s5", "s6"]);
    wait_same_digest(&cluster, &five);

    // Shrink, the one that leads among them.
    assert_eq!(leader(&cluster), "s4");
    cluster.ok(&["member", "remove", "s4", "s1"]);
    let three = servers(&cluster);
    assert_eq!(three, ["s3", "s5", "s6"]);
    scale(&cluster, 42);
    wait_same_digest(&cluster, &three);
    let refused = cluster.refused(&["fault", "kill", "s4"]);
    assert!(refused.contains("there is no s4"), "{refused}");

    // Everything stops and starts again with the servers that there are.
    cluster.ok(&["down"]);
    cluster.up_again();
    assert_eq!(servers(&cluster), three);
    wait_same_digest(&cluster, &three);
    assert_eq!(cluster.field("statefulset", "set", "/spec/replicas"), Some(42.into()));
}

#[test]
fn agents_find_a_leader_that_did_not_exist_when_they_began() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("web.yaml", &writers(1)));
    cluster.wait_ready(&["web-0"]);
    let (uid, process) = (cluster.uid("web-0"), cluster.process_of("web-0"));
    cluster.ok(&["member", "add"]);
    cluster.ok(&["member", "transfer-leader", "s4"]);
    cluster.ok(&["member", "remove", "s1", "s2", "s3"]);
    assert_eq!(servers(&cluster), ["s4"]);
    cluster.ok(&["scale", "sts", "web", "--replicas=2"]);
    cluster.wait_ready(&["web-0", "web-1"]);
    assert_eq!((cluster.uid("web-0"), cluster.process_of("web-0")), (uid, process), "the pod went on");
    let last = cluster.refused(&["member", "remove", "s4"]);
    assert!(last.contains("is the only one that votes"), "{last}");
}

#[test]
fn a_removal_that_would_leave_no_quorum_is_refused() {
    let cluster = Cluster::up();
    let leading = leader(&cluster);
    let others: Vec<String> = servers(&cluster).into_iter().filter(|server| *server != leading).collect();
    cluster.ok(&["fault", "kill", &others[0]]);
    cluster.wait("the leader misses it", || {
        let list: Value = serde_json::from_str(&cluster.ok(&["member", "list", "-o", "json"])).expect("JSON");
        let members = list["members"].as_array().expect("a list has members");
        members.iter().any(|member| member["name"] == others[0].as_str() && member["reachable"] == false)
    });
    let refused = cluster.refused(&["member", "remove", &others[1]]);
    assert!(refused.contains("of the 2 voters that would remain, only 1 are heard"), "{refused}");
    cluster.ok(&["member", "remove", &others[0]]);
    assert_eq!(servers(&cluster).len(), 2);
}
