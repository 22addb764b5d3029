//! Claims and volumes that people make and delete by hand.

use crate::harness::Cluster;
use crate::sets::writers;
use std::collections::BTreeSet;

const KEEPING: &str = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: keeping}
provisioner: dir.holdfast.dev
reclaimPolicy: Retain
volumeBindingMode: Immediate
---
";

/// A volume that was there before, and the claim of web-1 that finds it by its size and class.
const STATIC: &str = "apiVersion: v1
kind: PersistentVolume
metadata: {name: shelf}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOncePod]
  storageClassName: shelves
  persistentVolumeReclaimPolicy: Retain
  csi: {driver: dir.holdfast.dev, volumeHandle: shelf}
---
";

fn phase(cluster: &Cluster, kind: &str, name: &str) -> String {
    let phase = cluster.field(kind, name, "/status/phase");
    phase.and_then(|phase| phase.as_str().map(str::to_owned)).unwrap_or_default()
}

#[test]
fn claims_end_after_their_pods_and_volumes_follow_the_reclaim_policy() {
    let cluster = Cluster::up();
    let keeping =
        writers(1).replace("web", "kept").replace("storage: 16Mi", "storage: 16Mi\n      storageClassName: keeping");
    cluster.apply(&cluster.file("sets.yaml", &format!("{KEEPING}{}---\n{keeping}", writers(2))));
    cluster.wait_ready(&["web-0", "web-1", "kept-0"]);
    let (uid, kept) = (cluster.uid("web-1"), cluster.uid("kept-0"));
    cluster.wait_written("data-web-1", &uid);
    cluster.wait_written("data-kept-0", &kept);
    let volume = |claim: &str| {
        let name = cluster.field("pvc", claim, "/spec/volumeName").expect("the claim is bound");
        (name.as_str().expect("a name").to_owned(), cluster.volume_of(claim).expect("the volume is a directory"))
    };
    let ((lost, lost_dir), (saved, saved_dir)) = (volume("data-web-1"), volume("data-kept-0"));

    // In use: the claim is Terminating, and the pod goes on with it.
    cluster.ok(&["delete", "pvc", "data-web-1", "data-kept-0"]);
    assert!(cluster.ok(&["get", "pvc", "data-web-1"]).contains("Terminating"));
    let count = cluster.written("data-web-1").len();
    cluster.wait("the pod still writes", || count < cluster.written("data-web-1").len());
    assert_eq!(cluster.uid("web-1"), uid);
    let why = cluster.ok(&["why", "pvc/data-web-1"]);
    assert!(why.contains("pod web-1 still uses it") && why.contains("delete pod web-1"), "{why}");

    // Delete: with the pod the claim goes, and with the claim the data. The next pod has a new and empty volume.
    cluster.ok(&["delete", "pod", "web-1"]);
    cluster.wait("the pod is made anew", || cluster.is_replaced("web-1", &uid));
    assert_ne!(volume("data-web-1").0, lost);
    cluster.wait("the old volume is gone", || cluster.get("pv", &lost).is_none() && !lost_dir.exists());
    cluster.wait_written("data-web-1", &cluster.uid("web-1"));
    assert!(!cluster.written("data-web-1").contains(&uid));

    // Retain: the volume and its data stay, for a person to look at.
    cluster.ok(&["delete", "statefulset", "kept"]);
    cluster.wait("the claim is gone", || cluster.get("pvc", "data-kept-0").is_none());
    assert_eq!(phase(&cluster, "pv", &saved), "Released");
    let text = std::fs::read_to_string(saved_dir.join("log")).expect("the data is there");
    assert!(text.lines().any(|line| line == kept));
    cluster.ok(&["delete", "pv", &saved]);
    assert!(cluster.get("pv", &saved).is_none());
    assert!(saved_dir.join("log").exists(), "Retain keeps the data even without the volume");
}

#[test]
fn a_static_volume_is_bound_and_keeps_its_data() {
    let cluster = Cluster::up();
    let claims = "storage: 1Gi\n      storageClassName: shelves";
    let set = writers(2).replace("storage: 16Mi", claims);
    cluster.apply(&cluster.file("static.yaml", &format!("{STATIC}{set}")));
    cluster.wait_ready(&["web-0"]);
    assert_eq!(cluster.field("pvc", "data-web-0", "/spec/volumeName"), Some("shelf".into()));
    assert_eq!(phase(&cluster, "pv", "shelf"), "Bound");
    let first = cluster.uid("web-0");
    cluster.wait_written("data-web-0", &first);
    // There is one volume only, and no class that makes more: the second pod waits, and says for what.
    cluster.wait("web-1 is made", || cluster.get("pod", "web-1").is_some());
    assert_eq!(phase(&cluster, "pod", "web-1"), "Pending");
    let why = cluster.ok(&["why", "pod/web-1"]);
    assert!(why.contains("\"data-web-1\" is not bound"), "{why}");
    let why = cluster.ok(&["why", "pvc/data-web-1"]);
    assert!(why.contains("no free volume fits"), "{why}");
    let refused = cluster.refused(&["delete", "pv", "shelf"]);
    assert!(refused.contains("bound to claim"), "{refused}");
    // As soon as there is another, it goes on.
    cluster.apply(&cluster.file("more.yaml", &STATIC.replace("shelf}", "more}").replace("shelf\n", "more\n")));
    cluster.wait_ready(&["web-1"]);
    assert_eq!(cluster.field("pvc", "data-web-1", "/spec/volumeName"), Some("more".into()));
}

/// Pods on three nodes with one directory between them.
const SHARED: &str = "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: common}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: standard
  resources: {requests: {storage: 16Mi}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: share}
spec:
  serviceName: share
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: share}}
  template:
    metadata: {labels: {app: share}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - labelSelector: {matchLabels: {app: share}}
            topologyKey: kubernetes.io/hostname
      containers:
      - name: main
        image: busybox
        command: [sh, -c, 'echo $POD_UID >> $HOLDFAST_MOUNT_COMMON/log; exec sleep 100000']
        volumeMounts: [{name: common, mountPath: /common}]
      volumes:
      - name: common
        persistentVolumeClaim: {claimName: common}
";

#[test]
fn pods_of_several_nodes_share_a_directory() {
    let cluster = Cluster::up();
    cluster.apply(&cluster.file("share.yaml", SHARED));
    let pods = ["share-0", "share-1", "share-2"];
    cluster.wait_ready(&pods);
    let nodes: BTreeSet<String> = pods.iter().map(|pod| cluster.node_of(pod)).collect();
    assert_eq!(nodes.len(), pods.len(), "each is on a node of its own");
    assert_eq!(cluster.list("pv").len(), 1, "they have one volume");
    let seen_by = |pod: &str| {
        let said = cluster.run(&["exec", pod, "--", "sh", "-c", "cat $HOLDFAST_MOUNT_COMMON/log"]);
        said.stdout.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let all: BTreeSet<String> = pods.iter().map(|pod| cluster.uid(pod)).collect();
    for pod in pods {
        cluster.wait("everybody's line is there", || seen_by(pod) == all);
    }
    // Those who were there first can come again, whoever has joined since.
    for pod in pods {
        let uid = cluster.uid(pod);
        cluster.ok(&["delete", "pod", pod]);
        cluster.wait("the pod is made anew", || cluster.is_replaced(pod, &uid));
        cluster.wait("it finds what all have written", || seen_by(pod).is_superset(&all));
    }
    assert_eq!(seen_by("share-0").len(), 2 * pods.len());
}
