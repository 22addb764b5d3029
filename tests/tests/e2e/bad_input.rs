//! Bad input is refused whole, with the place in the file; nothing of the file is applied.

use crate::harness::Cluster;

const BROKEN: &str = "apiVersion: apps/v1
kind: statefulset
metadata:
  name: sample-statefulset-parallel
spec
  podManagementPolicy: Parallel
  serviceName: sample-statefulset-parallel
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
      - naem: nginx-container
        image: nginx:1.16
";

const GOOD: &str = "apiVersion: v1
kind: Service
metadata: {name: good}
spec: {clusterIP: None, selector: {app: a}}
---
";

#[test]
fn a_broken_manifest_is_refused_whole_and_its_faults_are_named() {
    let cluster = Cluster::up();
    let file = cluster.file("parallel.yaml", &format!("{GOOD}{BROKEN}"));
    let said = cluster.run(&["apply", "-f", &file.display().to_string()]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    for part in ["parallel.yaml:", "spec:", "StatefulSet", "name"] {
        assert!(said.stderr.contains(part), "{part} is missing:\n{}", said.stderr);
    }
    assert!(cluster.get("service", "good").is_none(), "not even the good document is applied");

    let unsupported =
        BROKEN.replace("spec\n", "spec:\n").replace("naem", "name").replace("statefulset\n", "StatefulSet\n");
    let unsupported = unsupported.replace("      containers:", "      hostNetwork: true\n      containers:");
    let file = cluster.file("host.yaml", &unsupported);
    let said = cluster.run(&["apply", "-f", &file.display().to_string()]);
    assert_eq!(said.code, Some(1), "{said:#?}");
    assert!(said.stderr.contains("hostNetwork") && said.stderr.contains("known to Kubernetes"), "{}", said.stderr);
}
