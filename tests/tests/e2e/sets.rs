//! The sets that tests apply.

/// A set whose pods have this spec, whose lines are indented by six; claim templates may follow it.
pub(crate) fn set(name: &str, replicas: u32, pod_spec: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
{pod_spec}"
    )
}

/// A set of pods that write to their volumes, each line with the writer's uid.
pub(crate) fn writers(replicas: u32) -> String {
    set("web", replicas, WRITER)
}

/// Of a pod, and of its claims.
const WRITER: &str = "      terminationGracePeriodSeconds: 2
      containers:
      - name: writer
        image: busybox
        command:
        - sh
        - -c
        - while true; do echo $POD_UID >> $HOLDFAST_MOUNT_DATA/log; sleep 0.1; done
        volumeMounts:
        - name: data
          mountPath: /data
  volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOncePod]
      resources:
        requests:
          storage: 16Mi
";

/// Manifests as people bring them, mistakes included.
pub(crate) mod brought {
    pub(crate) const WEB: &str = include_str!("../../manifests/web.yaml");
    pub(crate) const ONDELETE: &str = include_str!("../../manifests/ondelete.yaml");
    pub(crate) const ROLLINGUPDATE: &str = include_str!("../../manifests/rollingupdate.yaml");
    pub(crate) const PARALLEL: &str = include_str!("../../manifests/parallel.yaml");
}

/// A set whose pods need nothing and do nothing; `more` is written into the pod's spec.
pub(crate) fn idle(name: &str, replicas: u32, more: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      {more}
      containers:
      - {{name: idle, image: busybox, command: [sleep, \"100000\"]}}
"
    )
}

/// A set that no node fits, so that its pods are never started: it can be scaled often and cheaply.
pub(crate) fn unplaceable(name: &str) -> String {
    idle(name, 1, "nodeSelector: {nowhere: at-all}").replace("Parallel", "OrderedReady")
}
