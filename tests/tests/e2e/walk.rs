//! The walk that everybody takes first: scale, delete, make again, and find the data each time.

use crate::harness::Cluster;
use crate::sets::writers;

const CLAIM: &str = "data-web-1";

#[test]
fn data_is_found_again_after_scaling_in_and_out_and_after_deleting_the_set() {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &writers(2));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    let first = cluster.uid("web-1");
    cluster.wait_written(CLAIM, &first);
    cluster.ok(&["scale", "statefulset", "web", "--replicas=1"]);
    cluster.wait("web-1 is gone", || cluster.get("pod", "web-1").is_none());
    cluster.ok(&["scale", "statefulset", "web", "--replicas=2"]);
    cluster.wait_ready(&["web-1"]);
    let second = cluster.uid("web-1");
    assert_ne!(first, second);
    cluster.wait_written(CLAIM, &second);
    assert!(cluster.written(CLAIM).contains(&first), "the old data is there");
    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("the pods are gone", || cluster.list("pods").is_empty());
    assert!(cluster.get("pvc", CLAIM).is_some(), "claims stay");
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    cluster.wait_written(CLAIM, &cluster.uid("web-1"));
    assert!(cluster.written(CLAIM).contains(&first), "the old data is found again");
}
