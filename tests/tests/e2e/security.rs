//! Security contexts: whoever a pod says that it is, it is, and so are its probes and what joins it.

#![allow(clippy::print_stdout, reason = "a test that leaves something out says so")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::Cluster;
use crate::sandbox::sandboxes;
use crate::sets::set;

/// A pod of somebody else, whose one container is restricted as far as this runtime can, and a pod that may not run.
fn sets(own: &str, refused: &str) -> String {
    let careful = format!(
        "      terminationGracePeriodSeconds: 1
      securityContext: {{runAsUser: 1000, runAsGroup: 1001, supplementalGroups: [1002], fsGroup: 1003}}
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
          id -u; id -G; grep NoNewPrivs: /proc/self/status
          touch $HOLDFAST_ROOT/data/mine && touch $HOLDFAST_ROOT/scratch/mine && echo volumes: written
          touch /mine 2> /dev/null || echo root: refused
          cat $HOLDFAST_ROOT/fields/name; echo; echo end
          exec sleep 100000
        securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}{own}}}
        readinessProbe:
          exec: {{command: [sh, -c, 'test $(id -u) = 1000']}}
          periodSeconds: 1
        volumeMounts:
        - {{name: data, mountPath: /data}}
        - {{name: scratch, mountPath: /scratch}}
        - {{name: fields, mountPath: /fields}}
      volumes:
      - {{name: scratch, emptyDir: {{}}}}
      - name: fields
        downwardAPI: {{defaultMode: 256, items: [{{path: name, fieldRef: {{fieldPath: metadata.name}}}}]}}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {{requests: {{storage: 16Mi}}}}
"
    );
    let refused = format!(
        "      containers:
      - name: main
        image: busybox
        command: [sleep, '100000']
        securityContext: {{{refused}: true}}
"
    );
    format!("{}---\n{}", set("careful", 1, &careful), set("refused", 1, &refused))
}

fn pods_are_who_they_say(cluster: &Cluster, own: &str, refused: &str) {
    let file = cluster.file("sets.yaml", &sets(own, refused));
    // Whoever runs as somebody else must be able to reach the pod's directory.
    let dir = file.parent().expect("the file is in a directory");
    fs::set_permissions(dir, Permissions::from_mode(0o711)).expect("it is ours");
    cluster.apply(&file);
    cluster.wait_ready(&["careful-0"]);
    cluster.wait("the container has looked around", || cluster.ok(&["logs", "careful-0"]).contains("\nend\n"));
    let said = cluster.ok(&["logs", "careful-0"]);
    let expected = "1000\n1001 1002 1003\nNoNewPrivs:\t1\nvolumes: written\nroot: refused\ncareful-0\nend\n";
    assert_eq!(said, expected);
    let joined = "id -u; id -G; grep -e NoNewPrivs: -e CapBnd: /proc/self/status";
    let joined = cluster.ok(&["exec", "careful-0", "--", "sh", "-c", joined]);
    assert_eq!(joined, "1000\n1001 1002 1003\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n");
    let reason = || cluster.field("pod", "refused-0", "/status/containerStatuses/0/state/waiting/reason");
    cluster.wait("the pod is refused", || reason() == Some("CreateContainerConfigError".into()));
    let described = cluster.ok(&["describe", "pod", "refused-0"]);
    assert!(described.contains(&format!("securityContext.{refused}: ")), "{described}");
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can run pods as somebody else");
    }
    is_root
}

#[test]
fn pods_are_who_they_say_they_are_in_sandboxes() {
    if !is_root() {
        return;
    }
    let Some(cluster) = sandboxes() else { return };
    pods_are_who_they_say(&cluster, ", readOnlyRootFilesystem: true", "runAsNonRoot");
}

#[test]
fn pods_are_who_they_say_they_are_as_plain_processes() {
    if is_root() {
        let cluster = Cluster::up_with(&["--agent-argument=--runtime=process"]);
        pods_are_who_they_say(&cluster, "", "readOnlyRootFilesystem");
    }
}
