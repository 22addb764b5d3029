//! Agents that die, hang, come back or are cut off one way: their pods go on, and are adopted; and the fault tool.

use crate::harness::{Cluster, SHORT_LEASE, what_happened};
use crate::procs;
use crate::sets::writers;

const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];

fn writing() -> Cluster {
    let cluster = Cluster::up_with(&SHORT_LEASE);
    cluster.apply(&cluster.file("web.yaml", &writers(3)));
    cluster.wait_ready(&PODS);
    cluster
}

/// Which pod it is and in which process it runs.
fn life(cluster: &Cluster, pod: &str) -> (String, i32) {
    (cluster.uid(pod), cluster.process_of(pod))
}

#[track_caller]
fn wait_held(cluster: &Cluster, pod: &str) {
    cluster.ok(&["wait", &format!("pod/{pod}"), "--for=condition=Held", "--timeout=60s"]);
}

/// The pod is ready again, and it is the same in the same process.
#[track_caller]
fn goes_on(cluster: &Cluster, pod: &str, before: &(String, i32)) {
    cluster.wait(&format!("{pod} is ready again"), || cluster.is_ready(pod));
    assert_eq!(life(cluster, pod), *before);
    assert!(procs::is_running(before.1));
}

#[test]
fn pods_survive_the_death_of_their_agent_and_are_adopted() {
    let cluster = writing();
    let before = PODS.map(|pod| life(&cluster, pod));
    let node = cluster.node_of("web-1");
    cluster.ok(&["fault", "kill", &node]);
    let written = cluster.written("data-web-1").len();
    cluster.wait("the pod writes without its agent", || written + 3 < cluster.written("data-web-1").len());
    wait_held(&cluster, "web-1");
    cluster.ok(&["fault", "restart", &node]);
    goes_on(&cluster, "web-1", &before[1]);
    // What the adopted pod is told, it does: it can still be stopped.
    cluster.ok(&["delete", "pod", "web-1"]);
    cluster.wait("it is made anew", || cluster.is_replaced("web-1", &before[1].0));
    assert!(!procs::is_running(before[1].1));

    // An agent that hangs is as good as cut off; resumed, nothing has happened.
    let node = cluster.node_of("web-2");
    cluster.ok(&["fault", "pause", &node]);
    wait_held(&cluster, "web-2");
    assert!(cluster.ok(&["fault", "list"]).contains(&format!("{node} is paused")));
    cluster.ok(&["fault", "resume", &node]);
    goes_on(&cluster, "web-2", &before[2]);

    // A new boot is the end of everything that ran on the node, and the pod is made anew.
    let node = cluster.node_of("web-0");
    let boot = cluster.field("node", &node, "/status/nodeInfo/bootID");
    cluster.ok(&["fault", "restart", &node, "--new-boot"]);
    assert!(!procs::is_running(before[0].1));
    cluster.wait("the lost pod is made anew", || cluster.is_replaced("web-0", &before[0].0));
    assert_ne!(cluster.field("node", &node, "/status/nodeInfo/bootID"), boot);
    assert!(cluster.refused(&["fault", "restart", "s1", "--new-boot"]).contains("only nodes have boots"));
}

/// `semantics A11-166`.
#[test]
fn a_node_that_is_shut_down_hands_its_pod_and_its_data_over_and_nothing_is_held() {
    let cluster = writing();
    let before = life(&cluster, "web-1");
    let node = cluster.node_of("web-1");
    let revision = cluster.revision();
    assert!(cluster.refused(&["fault", "shutdown", "s1"]).contains("only nodes are shut down"));
    cluster.ok(&["fault", "shutdown", &node]);
    cluster.wait("another node has the pod", || cluster.is_replaced("web-1", &before.0));
    assert!(!procs::is_running(before.1));
    assert_ne!(cluster.node_of("web-1"), node);
    cluster.wait_written("data-web-1", &cluster.uid("web-1"));
    assert!(cluster.written("data-web-1").contains(&before.0), "the data went with it");
    cluster.wait("the agent has ended, too", || cluster.ok(&["why", "node", &node]).contains("was shut down"));
    let events = cluster.events_since(revision);
    let sorts = ["NodeShutdownBegan", "PodHeld", "NodeUnreachable"];
    let happened = what_happened(&events, &sorts);
    assert_eq!(happened, [("NodeShutdownBegan", node.as_str()), ("NodeUnreachable", node.as_str())], "nothing is held");

    cluster.ok(&["fault", "restart", &node, "--new-boot"]);
    cluster.ok(&["wait", &format!("node/{node}"), "--for=condition=Ready", "--timeout=60s"]);
    cluster.ok(&["cordon", &cluster.node_of("web-1")]);
    cluster.ok(&["delete", "pod", "web-1"]);
    cluster.wait("the node takes pods again", || cluster.is_ready("web-1") && cluster.node_of("web-1") == node);
}

#[test]
fn links_break_one_way_and_between_servers_and_nothing_is_moved() {
    let cluster = writing();
    let before = PODS.map(|pod| life(&cluster, pod));
    let node = cluster.node_of("web-1");
    for way in ["out", "in"] {
        cluster.ok(&["fault", "partition", &node, "--one-way", way]);
        wait_held(&cluster, "web-1");
        cluster.ok(&["fault", "heal", &node]);
        goes_on(&cluster, "web-1", &before[1]);
    }
    // Cut off from the leader alone, an agent cannot be heard either: only the leader counts heartbeats.
    let (leader, others) = cluster.leader();
    cluster.ok(&["fault", "partition", &node, "--from", leader]);
    wait_held(&cluster, "web-1");
    cluster.ok(&["fault", "heal"]);
    goes_on(&cluster, "web-1", &before[1]);

    // A leader that its peers do not hear is followed by another one.
    cluster.ok(&["fault", "partition", leader, "--from", &others.join(",")]);
    cluster.wait("another one leads", || {
        cluster.status_of(others[0]).is_some_and(|status| others.iter().any(|other| status["leader"] == *other))
    });
    cluster.ok(&["--cluster", &cluster.address(others[0]), "scale", "sts", "web", "--replicas=4"]);
    let list = cluster.ok(&["fault", "list"]);
    assert!(list.contains(&format!("{leader} is partitioned from {}", others.join(", "))), "{list}");
    cluster.ok(&["fault", "clear"]);
    assert_eq!(cluster.ok(&["fault", "list"]), "");
    cluster.wait_same_digest();

    // So is one that hangs.
    let (leader, others) = cluster.leader();
    cluster.ok(&["fault", "pause", leader]);
    cluster.wait("another one leads", || {
        cluster.status_of(others[0]).is_some_and(|status| others.iter().any(|other| status["leader"] == *other))
    });
    cluster.ok(&["fault", "resume", leader]);
    cluster.wait_same_digest();
    cluster.wait_ready(&["web-3"]);
    for (pod, before) in PODS.iter().zip(&before) {
        goes_on(&cluster, pod, before);
    }
    let events = cluster.events();
    assert_eq!(what_happened(&events, &["PodRemoved"]), []);
}
