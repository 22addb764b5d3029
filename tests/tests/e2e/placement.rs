//! Where pods go, and what is told of those that fit nowhere.

use crate::harness::Cluster;
use crate::sets::idle;

#[test]
fn pods_go_where_they_may_and_say_why_they_wait() {
    let cluster = Cluster::up_with(&["--agent-argument=--taint=dedicated=db:NoSchedule"]);
    let tolerations = "tolerations: [{key: dedicated, value: db, effect: NoSchedule}]";
    cluster.apply(&cluster.file("set.yaml", &idle("shy", 1, "")));
    let reasons = |pod: &str, wanted: &str| {
        cluster.wait(wanted, || cluster.run(&["why", &format!("pod/{pod}")]).stdout.contains(wanted));
        assert!(cluster.ok(&["get", "pods", pod]).contains("Pending"));
    };
    reasons("shy-0", "0/3 nodes are available: 3 node has untolerated taint {dedicated: db}");

    // Where each node may have one pod of the set, the fourth waits; a cordoned node is counted apart.
    let apart = format!(
        "{tolerations}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - labelSelector: {{matchLabels: {{app: apart}}}}
            topologyKey: kubernetes.io/hostname"
    );
    cluster.ok(&["cordon", "n3"]);
    cluster.apply(&cluster.file("apart.yaml", &idle("apart", 3, &apart)));
    cluster.wait_ready(&["apart-0", "apart-1"]);
    reasons("apart-2", "0/3 nodes are available: 2 node does not satisfy the pod's anti-affinity rules, 1 node is");
    let nodes = cluster.ok(&["get", "nodes"]);
    assert!(nodes.lines().any(|line| line.starts_with("n3") && line.contains("SchedulingDisabled")), "{nodes}");
    cluster.ok(&["uncordon", "n3"]);
    cluster.wait_ready(&["apart-2"]);
    assert_eq!(cluster.node_of("apart-2"), "n3");
    cluster.ok(&["scale", "sts", "apart", "--replicas=4"]);
    reasons("apart-3", "0/3 nodes are available: 3 node does not satisfy the pod's anti-affinity rules");

    // A node that is chosen by its label, and one that does not exist.
    let chosen = format!("{tolerations}\n      nodeSelector: {{kubernetes.io/hostname: n2}}");
    cluster.apply(&cluster.file("chosen.yaml", &idle("chosen", 2, &chosen)));
    cluster.wait_ready(&["chosen-0", "chosen-1"]);
    assert_eq!([cluster.node_of("chosen-0"), cluster.node_of("chosen-1")], ["n2", "n2"]);
    let nowhere = format!("{tolerations}\n      nodeSelector: {{zone: moon}}");
    cluster.apply(&cluster.file("nowhere.yaml", &idle("nowhere", 1, &nowhere)));
    reasons("nowhere-0", "0/3 nodes are available: 3 node does not match the pod's node selector");
    // More than any node has.
    let hungry =
        idle("hungry", 1, tolerations).replace("name: idle,", "name: idle, resources: {requests: {memory: 900Ti}},");
    cluster.apply(&cluster.file("hungry.yaml", &hungry));
    reasons("hungry-0", "0/3 nodes are available: 3 insufficient memory");
}
