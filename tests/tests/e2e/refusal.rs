//! The refusal, with real processes: a pod on a partitioned node stays bound there, whatever else happens, and each
//! exit moves it with its data.

use crate::harness::{Cluster, writers};
use crate::walk::written;

/// Three writers, and the node of web-1 cut off; its uid and node.
fn held() -> (Cluster, String, String) {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &writers(3));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1", "web-2"]);
    let (uid, node) = (cluster.uid("web-1"), cluster.node_of("web-1"));
    cluster.wait("web-1 has written", || written(&cluster, &uid));
    cluster.ok(&["fault", "partition", &node]);
    cluster.ok(&["wait", "pod/web-1", "--for=condition=Held", "--timeout=60s"]);
    (cluster, uid, node)
}

#[track_caller]
fn is_held(cluster: &Cluster, uid: &str, node: &str) {
    assert_eq!((cluster.uid("web-1").as_str(), cluster.node_of("web-1").as_str()), (uid, node));
    assert!(cluster.ok(&["get", "pod", "web-1"]).contains("Held"));
}

/// The replacement runs elsewhere, with the data of its predecessor.
#[track_caller]
fn is_replaced(cluster: &Cluster, uid: &str) {
    cluster.wait("web-1 is a new pod", || cluster.get("pod", "web-1").is_some() && cluster.uid("web-1") != uid);
    cluster.wait_ready(&["web-1"]);
    let new = cluster.uid("web-1");
    cluster.wait("the new pod writes to the volume", || written(cluster, &new));
    assert!(written(cluster, uid), "the predecessor's data is there");
}

#[test]
fn a_held_pod_stays_through_everything_and_says_why() {
    let (cluster, uid, node) = held();
    let why = cluster.ok(&["why", "pod/web-1"]);
    for part in ["unreachable", "delete node", "--force --grace-period=0", "restart node"] {
        assert!(why.contains(part), "{part} is missing:\n{why}");
    }
    cluster.ok(&["scale", "statefulset", "web", "--replicas=4"]);
    is_held(&cluster, &uid, &node);
    cluster.ok(&["scale", "statefulset", "web", "--replicas=3"]);
    is_held(&cluster, &uid, &node);
    cluster.ok(&["fault", "kill", "s1"]);
    cluster.wait("the rest answers", || cluster.run(&["get", "pods"]).code == Some(0));
    is_held(&cluster, &uid, &node);
    cluster.ok(&["fault", "restart", "s1"]);
    cluster.ok(&["fault", "heal"]);
    cluster.wait("web-1 is ready again", || cluster.is_ready("web-1"));
    assert_eq!(cluster.uid("web-1"), uid, "the same pod goes on");
}

#[test]
fn a_force_delete_moves_the_pod_with_its_data() {
    let (cluster, uid, node) = held();
    cluster.ok(&["delete", "pod", "web-1", "--force", "--grace-period=0"]);
    is_replaced(&cluster, &uid);
    assert_ne!(cluster.node_of("web-1"), node);
}

#[test]
fn removing_the_node_moves_the_pod_with_its_data() {
    let (cluster, uid, node) = held();
    cluster.ok(&["delete", "node", &node]);
    is_replaced(&cluster, &uid);
    assert_ne!(cluster.node_of("web-1"), node);
}

#[test]
fn restarting_the_node_proves_the_old_pod_dead() {
    let (cluster, uid, node) = held();
    cluster.ok(&["fault", "restart", &node, "--new-boot"]);
    cluster.ok(&["fault", "heal"]);
    is_replaced(&cluster, &uid);
}
