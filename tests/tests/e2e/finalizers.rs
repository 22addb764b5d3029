//! Finalizers, with real processes: what people put on a pod or a claim keeps its object, whatever ends the rest of it,
//! and says for whom it waits (`semantics A8-102`).

use crate::harness::{Cluster, SHORT_LEASE};
use crate::procs;
use crate::sets::writers;
use std::path::Path;

const BACKUP: &str = "example.com/backup";
const CLAIM: &str = "data-web-1";

/// Two writers, and web-1 waits for a backup before its name is free.
fn kept() -> Cluster {
    let cluster = Cluster::up_with(&SHORT_LEASE);
    cluster.apply(&cluster.file("web.yaml", &writers(2)));
    cluster.wait_ready(&["web-0", "web-1"]);
    hold(&cluster, "pod", "web-1");
    cluster
}

fn hold(cluster: &Cluster, kind: &str, name: &str) {
    cluster.ok(&["patch", kind, name, "-p", &format!(r#"{{"metadata":{{"finalizers":["{BACKUP}"]}}}}"#)]);
    assert!(cluster.ok(&["describe", kind, name]).contains(BACKUP), "it is shown");
}

/// Does what `why` says is to be done, word for word.
#[track_caller]
fn let_go(cluster: &Cluster, kind: &str, name: &str) {
    let why = cluster.ok(&["why", &format!("{kind}/{name}")]);
    assert!(why.contains(BACKUP), "{why}");
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    assert!(why.contains(&format!("holdfast patch {kind} {name} -p '{patch}'")), "{why}");
    cluster.ok(&["patch", kind, name, "-p", patch]);
}

fn running(cluster: &Cluster, pod: &str) -> Vec<String> {
    procs::uids_of(Path::new(&cluster.data_dir()), pod).into_iter().collect()
}

#[test]
fn a_pod_and_its_claim_wait_for_their_finalizers_and_say_so() {
    let cluster = kept();
    let uid = cluster.uid("web-1");
    cluster.ok(&["delete", "pod", "web-1"]);
    cluster.wait("its process has ended", || running(&cluster, "web-1").is_empty());
    cluster.wait("its object says what it waits for", || cluster.ok(&["describe", "pod", "web-1"]).contains(BACKUP));
    cluster.ok(&["delete", "pod", "web-1", "--force", "--grace-period=0"]);
    assert_eq!(cluster.uid("web-1"), uid, "force does not pass by");
    let late = r#"{"metadata":{"finalizers":["example.com/backup","example.com/more"]}}"#;
    assert!(cluster.refused(&["patch", "pod", "web-1", "-p", late]).contains("example.com/more is new"));
    cluster.wait("why knows", || cluster.ok(&["why", "pod/web-1"]).contains("has ended"));
    let_go(&cluster, "pod", "web-1");
    cluster.wait("it is made anew", || cluster.is_replaced("web-1", &uid));

    hold(&cluster, "pvc", CLAIM);
    cluster.ok(&["scale", "statefulset/web", "--replicas=1"]);
    cluster.wait("the pod is gone", || cluster.get("pod", "web-1").is_none());
    cluster.ok(&["delete", "pvc", CLAIM]);
    assert_eq!(cluster.field("pvc", CLAIM, "/status/phase"), Some("Bound".into()), "it stays, and so does its volume");
    let_go(&cluster, "pvc", CLAIM);
    cluster.wait("the claim is gone", || cluster.get("pvc", CLAIM).is_none());
}

#[test]
fn a_held_pod_that_is_given_up_waits_for_its_finalizers_too() {
    let cluster = kept();
    let (uid, node) = (cluster.uid("web-1"), cluster.node_of("web-1"));
    cluster.wait_written(CLAIM, &uid);
    cluster.ok(&["fault", "partition", &node]);
    cluster.ok(&["wait", "pod/web-1", "--for=condition=Held", "--timeout=60s"]);
    cluster.ok(&["delete", "pod", "web-1", "--force", "--grace-period=0"]);
    assert_eq!(cluster.uid("web-1"), uid, "its name is taken");
    assert_eq!(running(&cluster, "web-1"), std::slice::from_ref(&uid), "the old process goes on behind the cut");
    let_go(&cluster, "pod", "web-1");
    cluster.wait("it is made anew", || cluster.is_replaced("web-1", &uid));
    assert!(cluster.written(CLAIM).contains(&uid), "with the data of its predecessor");
    cluster.ok(&["fault", "heal"]);
    cluster.wait("the old process has ended", || !running(&cluster, "web-1").contains(&uid));
}
