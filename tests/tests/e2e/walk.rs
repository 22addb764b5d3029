//! The walk that everybody takes first: apply a set, look at it, scale it, delete and find the data again.

use crate::harness::{Cluster, writers};

const SAMPLE: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: sample-statefulset
spec:
  serviceName: sample-statefulset
  replicas: 3
  selector:
    matchLabels:
      app: sample-app
  template:
    metadata:
      labels:
        app: sample-app
    spec:
      containers:
      - name: nginx-container
        image: nginx:1.16
        volumeMounts:
        - name: www
          mountPath: /usr/share/nginx/html
  volumeClaimTemplates:
  - metadata:
      name: www
    spec:
      accessModes:
      - ReadWriteOncePod
      resources:
        requests:
          storage: 1Gi
      storageClassName: csi-fs-sc
";

#[test]
fn a_set_becomes_ready_and_is_listed_with_its_claims_and_volumes() {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", SAMPLE);
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset created");
    cluster.wait_ready(&["sample-statefulset-0", "sample-statefulset-1", "sample-statefulset-2"]);
    let listing = cluster.ok(&["get", "all,pvc,pv"]);
    for line in [
        "pod/sample-statefulset-0",
        "statefulset.apps/sample-statefulset",
        "persistentvolumeclaim/www-sample-statefulset-2",
        "persistentvolume/pvc-",
        "RECLAIM POLICY",
    ] {
        assert!(listing.contains(line), "{line} is missing:\n{listing}");
    }
    assert_eq!(cluster.apply(&file).trim(), "statefulset.apps/sample-statefulset unchanged");
}

#[test]
fn data_is_found_again_after_scaling_in_and_out_and_after_deleting_the_set() {
    let cluster = Cluster::up();
    let file = cluster.file("web.yaml", &writers(2));
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    let first = cluster.uid("web-1");
    cluster.wait("web-1 has written", || written(&cluster, &first));
    cluster.ok(&["scale", "statefulset", "web", "--replicas=1"]);
    cluster.wait("web-1 is gone", || cluster.get("pod", "web-1").is_none());
    cluster.ok(&["scale", "statefulset", "web", "--replicas=2"]);
    cluster.wait_ready(&["web-1"]);
    let second = cluster.uid("web-1");
    assert_ne!(first, second);
    cluster.wait("the new web-1 writes to the same volume", || written(&cluster, &second));
    assert!(written(&cluster, &first), "the old data is there");
    cluster.ok(&["delete", "statefulset", "web"]);
    cluster.wait("the pods are gone", || cluster.get("pod", "web-0").is_none());
    assert!(cluster.get("pvc", "data-web-1").is_some(), "claims stay");
    cluster.apply(&file);
    cluster.wait_ready(&["web-0", "web-1"]);
    assert!(written(&cluster, &first), "the old data is found again");
}

/// Whether the volume of web-1 holds a line of this writer.
pub(crate) fn written(cluster: &Cluster, uid: &str) -> bool {
    let Some(volume) = cluster.field("pvc", "data-web-1", "/spec/volumeName") else { return false };
    let root = cluster.path("storage").join(volume.as_str().unwrap_or_default());
    ["data/log", "log"]
        .iter()
        .filter_map(|name| std::fs::read_to_string(root.join(name)).ok())
        .any(|text| text.lines().any(|line| line == uid))
}
